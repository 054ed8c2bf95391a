"""The leads of all held-out pairs over the evaluated steps: which pairs flipped, when, and the sample answers then."""

from __future__ import annotations

import ipywidgets
import traitlets

from ...analysis.clusters import prompts_of
from ...analysis.leads import FLIPPED, GROUPS, compare_histories, steps_of
from ...analysis.pair_filters import noise_sentence
from ...analysis.scores import share_of
from ...base.format import counted, in_one_line, signed
from ...charts.leads import HEIGHT
from ...runs.run import Run
from ..answers.two_models import choice_menu, fill_menu
from ..parts.data_table import Column, DataTable
from ..parts.folder_stamp import folder_stamp
from ..parts.html import Html, Markup, html, joined, table
from ..parts.live_figure import LiveFigure
from ..parts.panel import Panel, button, column, enable, row, show
from .pair_history import answers_at, leads_by_step_table, pair_history
from .run_leads import read_run_leads, run_leads_of_scores

_NO_SCORES = (
    "The lead history is shown after the first evaluation: choose a run that was evaluated, or give its scores, such as"
    " LeadHistory(scores=run.scores)."
)
_NO_PAIR = "Choose a line in the chart or a row of the table to see the pair's lead at every step."
_ROWS_IN_PICTURE = 10
_LEAD = "average log-probability of the chosen answer minus that of the rejected one, nats per token"
_TONES = {"to right": "chosen", "to wrong": "rejected", "back and forth": "attention"}
_NUMBER = {"numeric": True, "text": signed}
_FLIP = {"tone": lambda became: _TONES.get(became, "")}
# the table shows those that its rows have: flips of one run, or two runs side by side
_COLUMNS = [
    Column(
        "last_flip",
        "at step",
        help="The evaluated step after the flip, or after the last one",
        numeric=True,
        text=lambda step: f"{step:.0f}",
    ),
    Column("became", "flip", **_FLIP),
    Column("lead_first", "before", help=f"At the first step: {_LEAD}", **_NUMBER),
    Column("lead_now", "now", help=f"At the chosen step: {_LEAD}", **_NUMBER),
    Column("lead_here", "this run", help=f"In this run: {_LEAD}", **_NUMBER),
    Column("lead_there", "that run", help=f"In the other run: {_LEAD}", **_NUMBER),
    Column("became_here", "flip here", help="Outcome of the pair in this run", **_FLIP),
    Column("became_there", "flip there", help="Outcome of the pair in the other run", **_FLIP),
    Column("prompt", "prompt", wide=True),
]


class LeadHistory(Panel):
    """All held-out pairs over all evaluated steps.

    `picked` is the pair that was clicked last, `chosen` lists the pairs that are drawn thick.
    run: a run, live or ended; or scores: a DataFrame of all steps, as `run.scores`. with_texts: whether the chosen
    pair's prompt and answers are shown below its leads.
    """

    title = "Lead history"
    run = traitlets.Instance(Run, allow_none=True)
    chosen = traitlets.List(traitlets.Unicode())
    picked = traitlets.Unicode("")

    def __init__(self, run: Run | None = None, scores=None, line: Html | None = None, with_texts: bool = True):
        super().__init__(line)
        self._with_texts = with_texts
        self._here, self._other, self._stamp, self._drawn = None, None, None, {}
        self._build()
        self.observe(self.guard(self._another_run), "run")
        self.observe(self.guard(self._choice_came), "chosen")
        self.observe(self.guard(self._pick_came), "picked")
        self._clear()
        self.run = run
        if run is None and scores is not None:
            self.guard(lambda: self._fill(run_leads_of_scores(scores), None, []))()

    def refresh(self) -> None:
        """Read the new evaluations of the run and the one beside it; a slider at the newest step moves on too."""
        if self.run is not None and self._stamps() != self._stamp:
            self._read(self.beside.value)

    def redraw(self) -> None:
        self._draw_figure()

    def snapshot(self) -> Markup:
        if self.run is not None and self._here is None:  # shown in the cell that made it: a still picture cannot wait
            self.guard(lambda: self._fill(*read_run_leads(self.run, "")))()
        if self._here is None:
            return html("<p>{}</p>", _NO_SCORES)
        sentence, pair = html("<p>{}</p>", self._sentence.value), self._pair.value if self._opened else ""
        rows, flips = self.table.rows[:_ROWS_IN_PICTURE], ""
        if rows:
            caption = f"The first {len(rows)} of {self.table.count_text}."
            flips = table([column["title"] for column in self.table.columns], (row["cells"] for row in rows), caption)
        return joined([sentence, leads_by_step_table(self._here), flips, pair, self._cards.value])

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
        at_first = "This is the first evaluated step." if at == steps[0] else ""
        at_last = "This is the last evaluated step." if at == steps[-1] else ""
        no_other = "" if len(self.beside.options) > 1 else "There is no other evaluated run in this folder of runs."
        if self.run is None:
            no_other = "A table of scores has no runs beside it: give a run."
        enable(self.step, alone)
        enable(self.previous, alone or at_first, "One evaluated step back")
        enable(self.next, alone or at_last, "One evaluated step on")
        enable(self.beside, no_other, "Another run or seed: its pairs are joined with these")

    # --- reading

    def _another_run(self, _):
        self._clear()
        if self.run is not None:
            self._read("")

    def _clear(self):
        self._here = self._other = self._stamp = None
        self.drop("history")  # what is on its way belongs to another run
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
        run, known, other, self._stamp = self.run, self._here, self._other, self._stamps()
        self.later(
            lambda: read_run_leads(run, beside, known, other),
            lambda histories: self._fill(*histories),
            lambda _: self._not_read(),
            latest="history",
        )

    def _not_read(self):
        """Show again what was read before."""
        with self.quietly():
            self.beside.value = self._other.name if self._other is not None else ""
        if self._here is not None:
            self._say_what_is_shown()

    def _fill(self, here, other, names):
        if here is None:
            self._clear()
            return
        at, steps = self.step.value, here.steps
        stays = self._here is not None and at != self.step.options[-1] and at in steps
        self._here, self._other, self._drawn = here, other, {}
        with self.quietly():
            self.step.options = steps
            self.step.value = at if stays else steps[-1]
            fill_menu(self.beside, [("none", ""), *((name, name) for name in names)], "")
            self.beside.value = other.name if other is not None else ""
            records = [record for _, (_, records) in sorted(here.answers.items()) for record in records]
            prompts = list(dict.fromkeys(record["prompt"] for record in records))
            options = [(in_one_line(prompt), prompt) for prompt in prompts]
            fill_menu(self.prompt, options, prompts[0] if prompts else None)
        show(self._empty, False)
        show(self._content, True)
        show(self._answers_part, self.run is not None)
        self._show_step()

    # --- what is shown

    def _step_chosen(self, _):
        if not self.filling and self._here is not None:
            self._show_step(turned=True)

    def _beside_chosen(self, _):
        if not self.filling and self._here is not None:
            self._sentence.value = html('<span class="swb-muted">{}</span>', "Reading the scores …")
            self._read(self.beside.value)

    def _turn(self, by):
        steps = list(self.step.options)
        self.step.value = steps[min(max(steps.index(self.step.value) + by, 0), len(steps) - 1)]

    def _show_step(self, turned=False):
        """Show all that depends on the step. turned: only the step is new, so the table stays on its page."""
        self._enable()
        self._now = self._here.lead_history(self._noise or 0.0, self.step.value)
        self._fill_table(keep=turned)
        self._say_what_is_shown()
        self._draw_figure()
        self._open_pair()
        self._show_answers()

    @property
    def _noise(self):
        """The measured noise of scoring, of two runs the larger one; None where it was not measured."""
        measured = [run.noise for run in self._runs]
        return None if None in measured else max(measured)

    @property
    def _runs(self):
        return [run for run in (self._here, self._other) if run is not None]

    def _fill_table(self, keep):
        show(self._chip_row, self._other is not None)
        if self._other is None:
            flipped, steps = self._now[self._now["became"].isin(FLIPPED)], steps_of(self._now)
            rows = flipped.rename(columns={steps[0]: "lead_first", steps[-1]: "lead_now"})  # with one step: lead_now
            self._groups = None
            self.table.label, self.table.empty_text = "Pairs that flipped", "No pair flipped up to this step."
            self._show_rows(rows.sort_values("last_flip", kind="stable"), keep)
            return
        noise = self._noise or 0.0
        there = self._other.lead_history(noise, self._other.reached(self.step.value))
        self._groups = compare_histories(self._now, there, noise)
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
        leads = now[now[step].notna()]
        ahead, scored = int((leads[step] > 0).sum()), len(leads)
        pattern = "<b>{}</b>: the chosen answer is ahead in {:,} of {}: share {}."
        measured = share_of(leads[step] > 0, prompts_of(leads)) if scored else "–"
        words = [html(pattern, _step_words(step), ahead, counted(scored, "pair"), measured)]
        words += self._flips_said() if self._other is None else self._other_said()
        if missing := int(now["missing"].astype(bool).sum()):
            words.append(f"{counted(missing, 'pair')} {'was' if missing == 1 else 'were'} not scored at every step.")
        self._sentence.value = joined(words, " ")

    def _flips_said(self):
        first, step, now = steps_of(self._now)[0], self.step.value, self._now
        if step == first:
            return []
        flips = now["became"].value_counts()
        back = f", {flips['back and forth']:,} back and forth" if "back and forth" in flips else ""
        words = (
            f"Since step {first}: {flips.get('to right', 0):,} flipped to right, {flips.get('to wrong', 0):,} to wrong"
        )
        if self.run is None:
            return [f"{words}{back}."]
        changed_sides = ((now[first] > 0) != (now[step] > 0)) & now[[first, step]].notna().all(axis=1)
        within = int((changed_sides & ~now["became"].isin(FLIPPED)).sum())
        return [f"{words}{back}.", noise_sentence(self._noise, within)]

    def _other_said(self):
        step, there = self.step.value, self._other.reached(self.step.value)
        apart = "" if there == step else f" (its last evaluation until then; this run's is of step {step})"
        close = int((self._groups["group"] == "too close to tell").sum())
        return [
            f"Beside it {self._other.name} at step {there}{apart}: {counted(len(self._groups), 'pair')} in both.",
            noise_sentence(self._noise, close, "difference", "each of the two runs"),
        ]

    def _draw_figure(self):
        if self._here is None:
            return
        from ...charts.leads import lead_histories_figure, lead_history_figure, with_step

        looks, noise = (self.theme, tuple(self.chosen)), self._noise or 0.0
        if self._drawn.get("looks") != looks:
            if self._other is None:
                history, ratio = self._here.lead_history(noise), self._here.gamma_beta_ratio
                figure = lead_history_figure(history, ratio, self.theme, self.chosen)
                words = (
                    "The lead of every held-out pair over the evaluated steps, nats per token: the line is the median,"
                    " the bands are the middle 50 % and 80 % of all pairs."
                )
            else:
                histories = {run.name: run.lead_history(noise) for run in self._runs}
                ratios = {run.gamma_beta_ratio for run in self._runs}
                ratio = ratios.pop() if len(ratios) == 1 else None
                figure = lead_histories_figure(histories, ratio, self.theme, self.chosen)
                words = (
                    f"The leads in {self._here.name} and in {self._other.name} over the evaluated steps, nats per"
                    " token: the lines are the medians, the bands the middle 50 % of all pairs."
                )
            self._drawn = {"looks": looks, "figure": figure}
            self.figure.describe(words, joined(leads_by_step_table(run) for run in self._runs))
        self.figure.show(with_step(self._drawn["figure"], self.step.value, self.theme))

    def _show_answers(self):
        if self.filling or self._here is None:
            return
        enable(self.prompt, "" if self.prompt.options else "Nothing was sampled yet.")
        self._cards.value = answers_at(self._here, self.prompt.value, self.step.value)

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
        if self._here is not None:
            self._show_rows(self._rows, keep=True)
            self._draw_figure()
            self._open_pair()

    def _open_pair(self):
        if self._opened in self._here.leads.index:
            self._pair.value = pair_history(self._now, self._opened, self._here, self._other, self._with_texts)
        else:
            self._pair.value = html('<p class="swb-muted">{}</p>', _NO_PAIR)


def _step_words(step):
    return "Base model (step 0)" if step == 0 else f"Step {step}"
