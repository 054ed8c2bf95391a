"""Time travel: the leads of all held-out pairs over all evaluated steps, who flipped and when, and the answers of the
sample prompts at any step.
"""

from __future__ import annotations

import ipywidgets
import traitlets

from ...analysis.leads import FLIPPED, steps_of
from ...analysis.pair_filters import noise_sentence
from ...analysis.scores import share
from ...base.format import counted, in_one_line, signed
from ...charts.leads import HEIGHT
from ...runs.run import Run
from ..answers.two_models import choice_menu, fill_menu, sampled_at
from ..parts.answers import Answer, answer_cards
from ..parts.data_table import Column, DataTable
from ..parts.folder_stamp import folder_stamp
from ..parts.html import Html, Markup, html, joined, table
from ..parts.live_figure import LiveFigure
from ..parts.panel import Panel, button, column, enable, row, show
from .pair_card import pair_card
from .pair_over_steps import GROUPS, journey_of_scores, read_journeys
from .pair_over_steps import joined as joined_pairs

_NO_SCORES = (
    "The pairs' way over the steps stands here after the first evaluation: choose a run that was evaluated, or give its"
    " scores, such as TimeTravel(scores=run.scores)."
)
_NO_PAIR = "Choose a line in the chart or a row of the table: the pair's way over the steps and its answers open here."
_NO_ANSWERS = "Sample answers come with the first evaluation of a run; the prompts are a setting (generation.prompts)."
_ROWS_IN_PICTURE = 10
_MOST_STEPS_IN_TABLE = 12
_LEAD = "average log-probability of the chosen answer minus that of the rejected one, nats per token"
_TONES = {"to right": "chosen", "to wrong": "rejected", "back and forth": "attention"}
_NUMBER = {"numeric": True, "text": signed}
_COLUMNS = [  # those that the shown table has are shown: flips of one run, or two runs beside each other
    Column(
        "last_flip",
        "at step",
        help="The evaluated step at which the pair flipped, the last time where it did so more than once",
        numeric=True,
        text=lambda step: f"{step:.0f}",
    ),
    Column("became", "flip", tone=lambda value: _TONES.get(value, "")),
    Column("lead_first", "before", help=f"At the first step: {_LEAD}", **_NUMBER),
    Column("lead_now", "now", help=f"At the chosen step: {_LEAD}", **_NUMBER),
    Column("lead_here", "this run", help=f"In this run: {_LEAD}", **_NUMBER),
    Column("lead_there", "that run", help=f"In the run beside it: {_LEAD}", **_NUMBER),
    Column(
        "became_here", "flip here", tone=lambda value: _TONES.get(value, ""), help="What became of the pair in this run"
    ),
    Column(
        "became_there",
        "flip there",
        tone=lambda value: _TONES.get(value, ""),
        help="What became of the pair in the run beside it",
    ),
    Column("prompt", "prompt", wide=True),
]


class TimeTravel(Panel):
    """All held-out pairs over all evaluated steps. `picked` is the pair that was clicked last, `chosen` lists the pairs
    that are drawn thick.

    run: a run, live or ended; or scores: a DataFrame of all steps, as `run.scores`. `refresh()` reads the evaluations
    that are new.
    with_texts: whether the chosen pair's prompt and answers stand below its leads.
    """

    title = "Time travel"
    run = traitlets.Instance(Run, allow_none=True)
    chosen = traitlets.List(traitlets.Unicode())
    picked = traitlets.Unicode("")

    def __init__(self, run: Run | None = None, scores=None, line: Html | None = None, with_texts: bool = True):
        super().__init__(line)
        self._with_texts = with_texts
        self._journey, self._other, self._asked, self._stamp, self._drawn = None, None, 0, None, {}
        self._build()
        self.observe(self.guard(self._another_run), "run")
        self.observe(self.guard(self._choice_came), "chosen")
        self.observe(self.guard(self._pick_came), "picked")
        self._clear()
        self.run = run
        if run is None and scores is not None:
            self.guard(lambda: self._fill(journey_of_scores(scores), None, []))()

    def refresh(self):
        """Read the evaluations that came since, of the run and of the one beside it.

        A slider at the newest step moves on to the new one.
        """
        if self.run is not None and self._stamps() != self._stamp:
            self._read(self.beside.value)

    def redraw(self):
        self._draw_figure()

    def snapshot(self) -> Markup:
        if (
            self.run is not None and self._journey is None
        ):  # shown in the cell that made it: a still picture cannot wait
            self.guard(lambda: self._fill(*read_journeys(self.run, "")))()
        if self._journey is None:
            return html("<p>{}</p>", _NO_SCORES)
        rows = self.table.rows[:_ROWS_IN_PICTURE]
        first = (
            table(
                [one["title"] for one in self.table.columns],
                (one["cells"] for one in rows),
                f"The first {len(rows)} of {self.table.count_text}.",
            )
            if rows
            else ""
        )
        return joined(
            [
                html("<p>{}</p>", self._sentence.value),
                _by_step(self._journey),
                first,
                self._pair.value if self._opened else "",
                self._cards.value,
            ]
        )

    # --- the controls

    def _build(self):
        self._empty = Html(html('<p class="swb-muted">{}</p>', _NO_SCORES))
        self.step = ipywidgets.SelectionSlider(
            options=[0], description="At step", continuous_update=False, layout={"width": "400px"}
        )
        self.step.observe(self.guard(self._step_chosen), "value")
        self.previous = button("‹", self.guard(lambda: self._turn(-1)))
        self.next = button("›", self.guard(lambda: self._turn(1)))
        self.beside = choice_menu("Beside this run", "0 1 300px")
        self.beside.observe(self.guard(self._beside_chosen), "value")
        self._sentence = Html()
        self.chips = ipywidgets.ToggleButtons(options=[], style={"button_width": "auto"})
        self.chips.add_class("swb-chips")
        self.chips.observe(self.guard(self._group_chosen), "value")
        self._chip_row = row(self.chips)
        self.figure = LiveFigure(HEIGHT, self.guard(self._line_chosen))
        self.table = DataTable(
            _COLUMNS,
            "pair_id",
            "Pairs that flipped",
            "No pair flipped up to this step.",
            noun="pair",
            on_error=self.say_error,
        )
        self.table.observe(self.guard(self._row_chosen), "chosen")
        self._pair = Html()
        self.prompt = choice_menu("Prompt", "1 1 420px")
        self.prompt.observe(self.guard(lambda _: self._show_answers()), "value")
        self._cards = Html()
        both = ipywidgets.HBox([column(self.figure, classes="swb-half"), column(self.table, classes="swb-half")])
        both.add_class("swb-halves")
        about = Html(html("<h3>{}</h3>", "Answers to the sample prompts at this step"))
        self._answers_part = column(about, row(self.prompt), self._cards)
        self._content = column(
            row(self.step, self.previous, self.next, self.beside),
            self._sentence,
            self._chip_row,
            both,
            self._pair,
            self._answers_part,
        )
        self.compose(self._empty, self._content)

    def _enable(self):
        steps, at = list(self.step.options), self.step.value
        alone = "There is one evaluation so far." if len(steps) < 2 else ""
        enable(self.step, alone)
        enable(
            self.previous,
            alone or ("This is the first evaluated step." if at == steps[0] else ""),
            "One evaluated step back",
        )
        enable(
            self.next, alone or ("This is the last evaluated step." if at == steps[-1] else ""), "One evaluated step on"
        )
        no_run = "A table of scores has no runs beside it: give a run." if self.run is None else ""
        enable(
            self.beside,
            no_run
            or ("" if len(self.beside.options) > 1 else "There is no other evaluated run in this folder of runs."),
            "Another run or seed: its pairs are joined with these",
        )

    # --- reading

    def _another_run(self, _):
        self._clear()
        if self.run is not None:
            self._read("")

    def _clear(self):
        self._journey = self._other = self._stamp = None
        self._asked += 1  # what is on its way is of another run
        self._drawn, self.table.chosen = {}, []
        with self.quietly():
            self.chosen, self.picked = [], ""
            self.beside.options = [("none", "")]
        show(self._content, False)
        show(self._empty, True)

    def _stamps(self):
        beside = self.run.path.parent / self.beside.value if self.beside.value else None
        return [
            folder_stamp(path / part) for path in (self.run.path, beside) if path for part in ("scores", "generations")
        ]

    def _read(self, beside):
        self._asked += 1
        number, run, known, other, self._stamp = self._asked, self.run, self._journey, self._other, self._stamps()

        def arrived(found):
            if number == self._asked:
                self._fill(*found)

        self.later(
            lambda: read_journeys(run, beside, known, other),
            arrived,
            lambda _: self._not_read() if number == self._asked else None,
        )

    def _not_read(self):
        """What was read before is still there: the menu and the sentence say so again."""
        with self.quietly():
            self.beside.value = self._other.name if self._other is not None else ""
        if self._journey is not None:
            self._say_what_is_shown()

    def _fill(self, journey, other, names):
        if journey is None:
            self._clear()
            return
        at, steps = self.step.value, journey.steps
        stays = self._journey is not None and at != self.step.options[-1] and at in steps
        self._journey, self._other, self._drawn = journey, other, {}
        with self.quietly():
            self.step.options = steps
            self.step.value = at if stays else steps[-1]
            fill_menu(self.beside, [("none", ""), *((name, name) for name in names)], "")
            self.beside.value = other.name if other is not None else ""
            prompts = list(
                dict.fromkeys(record["prompt"] for _, (_, found) in sorted(journey.answers.items()) for record in found)
            )
            fill_menu(
                self.prompt, [(in_one_line(prompt), prompt) for prompt in prompts], prompts[0] if prompts else None
            )
        show(self._empty, False)
        show(self._content, True)
        show(self._answers_part, self.run is not None)
        self._show_step()

    # --- what is shown

    def _step_chosen(self, _):
        if not self.filling and self._journey is not None:
            self._show_step(turned=True)

    def _beside_chosen(self, _):
        if not self.filling and self._journey is not None:
            self._sentence.value = html('<span class="swb-muted">{}</span>', "Reading the scores …")
            self._read(self.beside.value)

    def _turn(self, by):
        steps = list(self.step.options)
        self.step.value = steps[min(max(steps.index(self.step.value) + by, 0), len(steps) - 1)]

    def _show_step(self, turned=False):
        """All that depends on the step; turned: nothing but the step is new, and the page of the table stays."""
        self._enable()
        self._now = self._journey.history(self._noise or 0.0, self.step.value)
        self._fill_table(keep=turned)
        self._say_what_is_shown()
        self._draw_figure()
        self._open_pair()
        self._show_answers()

    @property
    def _noise(self):
        """The measured noise, of two runs the larger one; None where it was not measured."""
        measured = [one.noise for one in (self._journey, self._other) if one is not None]
        return None if None in measured else max(measured)

    @property
    def _there(self):
        """The step of the run beside it."""
        return self._other.reached(self.step.value)

    def _fill_table(self, keep):
        show(self._chip_row, self._other is not None)
        if self._other is None:
            flipped, steps = self._now[self._now["became"].isin(FLIPPED)], steps_of(self._now)
            rows = flipped.rename(columns={steps[-1]: "lead_now"}).rename(
                columns={steps[0]: "lead_first"} if len(steps) > 1 else {}
            )
            self._groups, self.table.label, self.table.empty_text = (
                None,
                "Pairs that flipped",
                "No pair flipped up to this step.",
            )
            self._show_rows(rows.sort_values("last_flip", kind="stable"), keep)
            return
        self._groups = joined_pairs(self._now, self._other, self._there, self._noise or 0.0)
        counts, before = self._groups["group"].value_counts(), self.chips.value
        shown = [name for name in GROUPS if name in counts or name != "too close to tell"]
        with self.quietly():
            self.chips.options = [(f"{name} {counts.get(name, 0):,}", name) for name in shown]
            self.chips.value = before if before in shown else "only this run"
        self.table.label, self.table.empty_text = "Pairs of both runs", "No pair is in this group."
        self._show_group(keep)

    def _group_chosen(self, _):
        if not self.filling and self._groups is not None:
            self._show_group(keep=False)

    def _show_group(self, keep):
        self._show_rows(self._groups[self._groups["group"] == self.chips.value], keep)

    def _show_rows(self, rows, keep):
        self._rows = rows
        with self.quietly():
            self.table.chosen = [self._opened] if self._opened else []
            self.table.show(rows, keep_page=keep, keep_chosen=True)

    def _say_what_is_shown(self):
        step, now = self.step.value, self._now
        ahead = share(int((now[step] > 0).sum()), max(1, int(now[step].notna().sum())))
        words = [
            html(
                "<b>{}</b>: the chosen answer is ahead in {:,} of {}: share {}.",
                _step_words(step),
                round(ahead.value * ahead.n),
                counted(ahead.n, "pair"),
                ahead,
            )
        ]
        if self._other is None:
            flips, first = now["became"].value_counts(), steps_of(now)[0]
            back = f", {flips['back and forth']:,} back and forth" if "back and forth" in flips else ""
            if step != first:
                words.append(
                    f"Since step {first}: {flips.get('to right', 0):,} flipped to right, {flips.get('to wrong', 0):,}"
                    f" to wrong{back}."
                )
                changed = ((now[first] > 0) != (now[step] > 0)) & now[[first, step]].notna().all(axis=1)
                if self.run is not None:
                    words.append(noise_sentence(self._noise, int((changed & ~now["became"].isin(FLIPPED)).sum())))
        else:
            apart = "" if self._there == step else f" (its last evaluation until then; this run's is of step {step})"
            words.append(
                f"Beside it {self._other.name} at step {self._there}{apart}: {counted(len(self._groups), 'pair')} in"
                " both."
            )
            words.append(
                noise_sentence(
                    self._noise,
                    int((self._groups["group"] == "too close to tell").sum()),
                    "difference",
                    "each of the two runs",
                )
            )
        missing = int(now["missing"].astype(bool).sum())
        words.append(
            f"{counted(missing, 'pair')} {'was' if missing == 1 else 'were'} not scored at every step."
            if missing
            else ""
        )
        self._sentence.value = joined([word for word in words if word], " ")

    def _draw_figure(self):
        if self._journey is None:
            return
        from ...charts.leads import histories_figure, history_figure, with_step

        looks = (self.theme, tuple(self.chosen))
        if self._drawn.get("looks") != looks:
            if self._other is None:
                history = self._journey.history(self._noise or 0.0)
                made = history_figure(history, self._journey.gamma_beta_ratio, self.theme, self.chosen)
                said = (
                    "The lead of every held-out pair over the evaluated steps, nats per token: the line is the median,"
                    " the bands are the middle 50 % and 80 % of all pairs."
                )
            else:
                both = {one.name: one.history(self._noise or 0.0) for one in (self._journey, self._other)}
                ratios = {one.gamma_beta_ratio for one in (self._journey, self._other)}
                made = histories_figure(both, ratios.pop() if len(ratios) == 1 else None, self.theme, self.chosen)
                said = (
                    f"The leads in {self._journey.name} and in {self._other.name} over the evaluated steps, nats per"
                    " token: the lines are the medians, the bands the middle 50 % of all pairs."
                )
            self._drawn = {"looks": looks, "figure": made}
            self.figure.describe(
                said, joined([_by_step(one) for one in (self._journey, self._other) if one is not None])
            )
        self.figure.show(with_step(self._drawn["figure"], self.step.value, self.theme))

    def _show_answers(self):
        if self.filling or self._journey is None:
            return
        found = {
            step: record
            for step, (_, records) in sorted(self._journey.answers.items())
            for record in reversed(records)
            if record["prompt"] == self.prompt.value
        }
        enable(self.prompt, "" if self.prompt.options else "Nothing was sampled yet.")
        if not found:
            self._cards.value = html('<p class="swb-muted">{}</p>', _NO_ANSWERS)
            return
        first, step = min(found), self.step.value
        at = max((one for one in found if one <= step), default=first)
        note = (
            ""
            if at == step
            else html(
                '<div class="swb-help">{}</div>',
                f"Nothing was sampled at step {step}: this is the answer of step {at}, the last one before it.",
            )
        )
        self._cards.value = joined(
            [
                html('<div class="swb-text">{}</div>', self.prompt.value),
                note,
                answer_cards(_as_answer(found[first]), _as_answer(found[at])),
            ]
        )

    # --- choosing

    @property
    def _opened(self):
        return self.chosen[-1] if self.chosen else ""

    def _line_chosen(self, name, places):
        ids = next((trace.customdata for trace in self._drawn["figure"].data if trace.name == name), None)
        if ids is not None:  # the median is no pair
            self._pick(ids[places[0]])

    def _row_chosen(self, change):
        if not self.filling and change["new"]:
            self._pick(change["new"][-1])

    def _pick(self, pair_id):
        self.chosen = [str(pair_id)]
        self.picked = str(pair_id)

    def _pick_came(self, change):
        if not self.filling and change["new"] and self.chosen[-1:] != [change["new"]]:
            self.chosen = [change["new"]]

    def _choice_came(self, _):
        if self.filling:
            return
        if self.picked not in self.chosen:
            self.picked = ""  # so that the same pair can be picked again
        if self._journey is not None:
            self._show_rows(self._rows, keep=True)
            self._draw_figure()
            self._open_pair()

    def _open_pair(self):
        known = self._opened in self._journey.leads.index
        if not known:
            self._pair.value = html('<p class="swb-muted">{}</p>', _NO_PAIR)
            return
        now = self._now[self._now["pair_id"] == self._opened].iloc[0]
        known = [step for step in steps_of(self._now) if now[step] == now[step]]
        if not known:
            self._pair.value = html(
                '<p class="swb-muted">{}</p>', f"This pair was not scored up to step {self.step.value}."
            )
            return
        way = known if len(known) <= _MOST_STEPS_IN_TABLE else [*known[:1], *known[1 - _MOST_STEPS_IN_TABLE :]]
        rows = [["lead (nats per token)", *(signed(now[step]) for step in way)]]
        if self._other is not None and self._opened in self._other.leads.index:
            theirs = self._other.leads.loc[self._opened]
            rows.append(
                [
                    f"in {self._other.name}",
                    *(signed(theirs[step]) if step in theirs and theirs[step] == theirs[step] else "–" for step in way),
                ]
            )
        over = table(["", *(f"step {step}" for step in way)], rows)
        self._pair.value = html(
            "<h3>{}</h3>{}{}",
            _what_became(now),
            over,
            pair_card(self._journey.pair(self._opened, self.step.value)) if self._with_texts else "",
        )


def _by_step(journey):
    """The figure as a table: at every step the pairs ahead, and quantiles of the lead."""
    columns = ["step", "pairs", "chosen ahead", "10 %", "25 %", "median", "75 %", "90 %"]
    rows = []
    for step in journey.steps:
        leads = journey.leads[step].dropna()
        rows.append(
            [
                str(step),
                f"{len(leads):,}",
                f"{(leads > 0).sum():,}",
                *(signed(value) for value in leads.quantile([0.1, 0.25, 0.5, 0.75, 0.9])),
            ]
        )
    return table(columns, rows, f"Leads of the chosen answers in {journey.name}, nats per token")


def _what_became(pair):
    if pair["became"] == "back and forth":
        return f"back and forth, {pair['flips']} flips, the last one at step {pair['last_flip']}"
    return f"flipped {pair['became']} at step {pair['last_flip']}" if pair["flips"] else pair["became"]


def _as_answer(record):
    return Answer(
        sampled_at(record["step"]),
        record["answer"],
        int(record["tokens"]),
        bool(record["ended"]),
        float(record["repeated_4grams"]),
    )


def _step_words(step):
    return "Untrained (step 0)" if step == 0 else f"Step {step}"
