"""Every held-out pair before and after, as linked chart, table and text; the chosen pairs are a DataFrame."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import ipywidgets
import traitlets

from ...analysis.pair_filters import Filter, filters, noise_sentence, pair_table, searchable
from ...analysis.scores import WITHIN_NOISE, share
from ...base.errors import WorkbenchError
from ...base.format import counted, signed
from ...charts.subplots import thinned
from ...runs.folder import RunFolder
from ...runs.run import Run
from ..answers.two_models import choice_menu, fill_menu
from ..parts.data_table import Column, DataTable
from ..parts.folder_stamp import folder_stamp
from ..parts.html import Html, Markup, html, joined, table
from ..parts.live_figure import LiveFigure
from ..parts.panel import Panel, button, column, enable, row, show
from .pair_card import pair_card, what_became
from .run_leads import runs_beside

_NO_SCORES = (
    "The pairs stand here after the first evaluation: open a run in Runs. In Python a table from wb.score does as well:"
    " wb.PairTable(before=scores)."
)
_NO_PAIR = (
    "Choose a pair in the chart or in the table: its prompt, both answers and their numbers open here. A box drawn in"
    " the chart chooses all pairs in it."
)
_ROWS_IN_PICTURE = 10
_CHART_HEIGHT = 420
_MOST_RINGS = 1000
_LEAD = "average log-probability of the chosen answer minus that of the rejected one, nats per token"
_NUMBER = {"numeric": True, "text": signed}
_TOKENS = {"numeric": True, "text": lambda value: f"{value:.0f}"}
_COLUMNS = [  # those that are there are shown: without a second table there are no changes
    Column("lead", "lead", help=_LEAD, **_NUMBER),
    Column("lead_before", "before", help=f"Lead before: {_LEAD}", **_NUMBER),
    Column("lead_after", "after", help=f"Lead after: {_LEAD}", **_NUMBER),
    Column("lead_change", "change", help="Lead after minus lead before, nats per token", **_NUMBER),
    Column(
        "chosen_change",
        "chosen change",
        help="Change of the chosen answer's own average log-probability, nats per token",
        **_NUMBER,
    ),
    Column(
        "flip",
        "flip",
        text=lambda value: value or "–",
        tone=lambda value: {"to right": "chosen", "to wrong": "rejected"}.get(value, ""),
    ),
    Column("chosen_tokens", "chosen tokens", help="Length of the chosen answer", **_TOKENS),
    Column("rejected_tokens", "rejected tokens", help="Length of the rejected answer", **_TOKENS),
    Column("prompt", "prompt", wide=True),
]


@dataclass(frozen=True)
class Loaded:
    """What was read: the evaluated steps, the two that are shown, and the table with its filters.

    noise: of scoring, nats per token; None where it was not measured. after_of: name of the run that `after` is a step
    of, "" for the run itself; after_steps are that run's steps, `others` the runs that could be chosen.
    """

    steps: list[int]
    before: int | None
    after: int | None
    table: object
    filters: list[Filter]
    noise: float | None = None
    after_of: str = ""
    after_steps: list[int] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @cached_property
    def places(self):
        """Where each pair_id stands."""
        import pandas as pd

        return pd.Index(self.table["pair_id"])

    @cached_property
    def light(self):
        """The table without the answers: what is sorted and filtered again and again is not copied with all its
        texts.
        """
        return self.table.drop(columns=["chosen", "rejected"], errors="ignore")

    @cached_property
    def texts(self) -> list[str]:
        """What the search looks through, made at the first search."""
        return searchable(self.table)


class PairTable(Panel):
    """The pairs of a run, of two runs, or of one or two scores tables, through filters. `selection` holds the chosen
    rows, `shown` those that the filters leave.

    `picked_pair` is the row of the pair chosen last, as a dict; {} when none is chosen. noise: of scoring, nats per
    token, for tables that are given.
    """

    title = "Held-out pairs"
    run = traitlets.Instance(Run, allow_none=True)
    picked_pair = traitlets.Dict()

    def __init__(self, run: Run | None = None, before=None, after=None, line: Html | None = None, noise: float = 0.0):
        super().__init__(line)
        self._loaded, self._stamp, self._shown, self._figure = None, None, None, None
        self._build()
        self.observe(self.guard(self._another_run), "run")
        self.run = run
        if run is None:
            self._clear()
            if before is not None:
                self.guard(lambda: self._fill(_arranged([], None, None, before, after, noise)))()

    @property
    def selection(self):
        """DataFrame of the chosen pairs in the order of choosing; empty when none is chosen, or nothing is there to
        choose from.
        """
        import pandas as pd

        if self._loaded is None:
            return pd.DataFrame()
        places = self._loaded.places.get_indexer(self.table.chosen)
        return self._loaded.table.iloc[places[places >= 0]].reset_index(drop=True)

    @property
    def shown(self):
        """DataFrame of the pairs that filter and search leave."""
        import pandas as pd

        return pd.DataFrame() if self._shown is None else self._loaded.table.loc[self._shown.index]

    def refresh(self):
        """Read the run's evaluated steps again, if any came or went since.

        Choices stay; whoever looks at the newest step gets the newest.
        """
        if self.run is not None and self._stamps() != self._stamp:
            follows = self._loaded is None or self.after.value == max(self._loaded.after_steps, default=None)
            self._read(self.before.value, None if follows else self.after.value)

    def export(self, path: str | Path | None = None):
        """Write the chosen pairs, or without any those that are shown, as CSV or JSONL by the ending of the path.

        An existing file is not replaced.
        """
        wanted = Path(str(path or self.path.value).strip()).expanduser()
        rows = self.shown if (chosen := self.selection).empty else chosen
        self.later(
            lambda: _write(rows, wanted),
            lambda _: self.say(f"{counted(len(rows), 'pair')} written to {wanted}.", "good"),
        )

    def redraw(self):
        self._draw_chart()

    def snapshot(self) -> Markup:
        if self.run is not None and self._loaded is None:  # shown in the cell that made it: a still picture cannot wait
            self.guard(lambda: self._fill(_read(self.run, None, None, "")))()
        if self._loaded is None:
            return html("<p>{}</p>", _NO_SCORES)
        rows, n = self.table.rows[:_ROWS_IN_PICTURE], len(self._shown)
        first = table(
            [one["title"] for one in self.table.columns],
            (one["cells"] for one in rows),
            f"The first {len(rows)} of {counted(n, 'pair')}.",
        )
        counts = html("<p>{}</p>", " · ".join(f"{one.name} {one.count:,}" for one in self._loaded.filters))
        return joined([counts, first, self._pair.value if self.table.chosen else ""])

    # --- the controls

    def _build(self):
        self._empty = Html(html('<p class="swb-muted">{}</p>', _NO_SCORES))
        self.before, self.after = (
            ipywidgets.Dropdown(
                description=name, options=[], style={"description_width": "initial"}, layout={"width": "220px"}
            )
            for name in ("Before", "After")
        )
        self.after_of = choice_menu("of", "0 1 260px")
        for menu in (self.before, self.after):
            menu.observe(self.guard(self._steps_chosen), "value")
        self.after_of.observe(self.guard(self._after_of_chosen), "value")
        self._steps = row(self.before, self.after, self.after_of)
        self._sentence = Html()
        self.chips = ipywidgets.ToggleButtons(options=[], style={"button_width": "auto"})
        self.chips.add_class("swb-chips")
        self.chips.observe(self.guard(self._filter_chosen), "value")
        self.search = ipywidgets.Text(
            description="Search",
            placeholder="words in prompt or answers, then Enter",
            continuous_update=False,
            layout={"width": "340px"},
            style={"description_width": "initial"},
        )
        self.search.observe(self.guard(self._filter_chosen), "value")
        self.chart = LiveFigure(_CHART_HEIGHT, self.guard(self._points_chosen), self.guard(self._box_chosen))
        self.table = DataTable(
            _COLUMNS,
            "pair_id",
            "Held-out pairs",
            "No pair passes the filter and the search.",
            several=True,
            noun="pair",
            on_error=self.say_error,
        )
        self.table.observe(self.guard(self._chosen), "chosen")
        self._pair = Html()
        self.path = ipywidgets.Text(
            description="File",
            value="pairs.csv",
            continuous_update=False,
            layout={"width": "300px"},
            style={"description_width": "initial"},
            tooltip="The ending says how: .csv or .jsonl",
        )  # not continuous: else a click may come before the last letters
        self.export_button = button("Export", self.guard(self.export), icon="download")
        self.clear_button = button("Choose none", self.guard(lambda: self.table.choose([])))
        self.more = column()
        both = ipywidgets.HBox([column(self.chart, classes="swb-half"), column(self.table, classes="swb-half")])
        both.add_class("swb-halves")
        self._content = column(
            self._sentence,
            row(self.chips),
            row(self.search),
            both,
            row(self.path, self.export_button, self.clear_button),
            self._pair,
            self.more,
        )
        self.compose(self._steps, self._empty, self._content)

    # --- reading

    def _another_run(self, _):
        self._clear()
        if self.run is not None:
            self._read(None, None)

    def _clear(self):
        self.drop("scores")
        self._loaded = self._shown = self._figure = None
        self.table.chosen = []
        with self.quietly():
            self.before.options = self.after.options = []
            self.after_of.options = [("this run", "")]
        show(self._content, False)
        show(self._steps, False)
        show(self._empty, True)

    def _stamps(self):
        beside = self.run.path.parent / self.after_of.value if self.after_of.value else None
        return [folder_stamp(path / "scores") for path in (self.run.path, beside) if path]

    def _read(self, before, after):
        run, of, self._stamp = self.run, self.after_of.value or "", self._stamps()
        self.later(lambda: _read(run, before, after, of), self._fill, lambda _: self._not_read(), latest="scores")

    def _not_read(self):
        """What was read before is still there: the menus and the sentence say so again."""
        if self._loaded is not None:
            with self.quietly():
                self.before.value, self.after_of.value = self._loaded.before, self._loaded.after_of
                self.after.value = self._loaded.after
            self._say_what_is_shown()

    def _after_of_chosen(self, _):
        if not self.filling:
            self._sentence.value = html('<span class="swb-muted">{}</span>', "Reading the scores …")
            self._read(self.before.value, None)  # the newest step of that run

    def _steps_chosen(self, _):
        if not self.filling:
            self._sentence.value = html('<span class="swb-muted">{}</span>', "Reading the scores …")
            self._read(self.before.value, self.after.value)

    def _fill(self, found):
        if found is None:
            self._clear()
            return
        kept = (
            "all" if self._loaded is None or self.chips.index is None else self._loaded.filters[self.chips.index].name
        )
        self._loaded = found
        with self.quietly():
            for menu, steps, value in (
                (self.before, found.steps, found.before),
                (self.after, found.after_steps, found.after),
            ):
                menu.options = [("base model (step 0)" if step == 0 else f"step {step}", step) for step in steps]
                menu.value = value if steps else None
            enable(
                self.after, "" if len(found.after_steps) > 1 or found.after_of else "There is one evaluation so far."
            )
            fill_menu(self.after_of, [("this run", ""), *((name, name) for name in found.others)], "")
            self.after_of.value = found.after_of
            enable(
                self.after_of,
                "" if found.others else "There is no other evaluated run in this folder of runs.",
                "Another run or seed: its pairs are joined with these",
            )
            self.chips.options = [(f"{one.name} {one.count:,}", number) for number, one in enumerate(found.filters)]
            self.chips.tooltips = [f"{one.meaning} {_share_of(one, len(found.table))}" for one in found.filters]
            self.chips.index = next((number for number, one in enumerate(found.filters) if one.name == kept), 0)
        show(self._empty, False)
        show(self._steps, bool(found.steps))
        show(self._content, True)
        self.table.chosen = list(self.selection.get("pair_id", []))
        self._show_filtered(keep=True)

    # --- filter, choose, show

    def _filter_chosen(self, _=None):
        if not self.filling and self._loaded is not None:
            self._show_filtered()

    def _show_filtered(self, keep=False):
        """keep: page and chosen pairs, for other numbers came and nobody chose another filter: a pair that is looked at
        may leave the filter, but stays open.
        """
        import numpy as np

        mask = self._loaded.filters[self.chips.index or 0].mask.to_numpy()
        words = self.search.value.casefold().split()
        if words:
            mask = mask & np.array([all(word in text for word in words) for text in self._loaded.texts], dtype=bool)
        self._shown = self._loaded.light if mask.all() else self._loaded.light[mask]
        self.table.show(self._shown, keep_page=keep, keep_chosen=keep)
        self._say_what_is_shown()
        self._draw_chart()
        self._chosen()

    def _say_what_is_shown(self):
        one, n = self._loaded.filters[self.chips.index or 0], len(self._loaded.table)
        found = (
            f" {counted(len(self._shown), 'pair')} of these hold the words searched for."
            if self.search.value.strip()
            else ""
        )
        noise = ""
        if "flip" in self._loaded.table and (self.run is not None or self._loaded.noise):
            noise = noise_sentence(
                self._loaded.noise,
                int((self._loaded.table["became"] == WITHIN_NOISE).sum()),
                runs="each of the two runs" if self._loaded.after_of else "this run",
            )
        self._sentence.value = html(
            '<b>{}</b>: {} {}{} <span class="swb-muted">{}</span>',
            one.name,
            one.meaning,
            _share_of(one, n),
            found,
            noise,
        )

    def _draw_chart(self):
        if self._shown is None:
            return
        from ...charts.scores import lead_scatter, score_histogram

        if "flip" in self._loaded.table:
            self._figure = lead_scatter(
                self._shown, self.theme, self._loaded.table, thinned(self.selection, _MOST_RINGS)
            )
            self._figure.update_layout(dragmode="select").update_traces(
                unselected_marker_opacity=1
            )  # the rings say what is chosen
            counts = [(one.name, f"{one.count:,}") for one in self._loaded.filters]
            self.chart.describe(
                "Each pair's lead before (across) and after (up) training, nats per token. The pairs themselves are in"
                " the table beside it.",
                table(["pairs", "count"], counts),
            )
        else:
            self._figure = score_histogram(self._shown, None, None, self.theme)
            self.chart.describe(
                f"How far the chosen answers lead, {counted(len(self._shown), 'pair')}, nats per token. The pairs"
                " themselves are in the table beside it."
            )
        self.chart.show(self._figure)

    def _mark_chosen(self):
        if self._figure is not None and self._figure.data and self._figure.data[-1].name == "chosen pairs":
            rows = thinned(self.selection, _MOST_RINGS)
            self._figure.data[-1].update(x=rows["lead_before"].to_numpy(), y=rows["lead_after"].to_numpy())
            self.chart.show(self._figure)

    def _points_chosen(self, name, places):
        ids = next((trace.customdata for trace in self._figure.data if trace.name == name), None)
        if ids is not None and "flip" in self._loaded.table:
            self.table.choose([ids[place] for place in places])

    def _box_chosen(self, across, up):
        if "flip" not in self._loaded.table:
            return
        inside = self._shown["lead_before"].between(*across) & self._shown["lead_after"].between(*up)
        self.table.choose(list(self._shown.loc[inside, "pair_id"]))
        self.chart.forget_box()

    def _chosen(self, _=None):
        rows = self.selection
        chosen = len(rows)
        enable(self.clear_button, "" if chosen else "No pair is chosen.")
        count = chosen or (0 if self._shown is None else len(self._shown))
        self.export_button.description = f"Export {counted(count, 'chosen pair' if chosen else 'shown pair')}"
        enable(
            self.export_button,
            "" if count else "There is no pair to write.",
            "As CSV or JSONL, by the ending of the file's name",
        )
        self.picked_pair = rows.iloc[-1].to_dict() if chosen else {}
        if self._loaded is None:
            return
        if not chosen:
            self._pair.value = html('<p class="swb-muted">{}</p>', _NO_PAIR)
        else:
            pair = self.picked_pair
            which = f"{chosen:,} pairs chosen; this is the one chosen last: " if chosen > 1 else ""
            self._pair.value = html("<h3>{}{}</h3>{}", which, what_became(pair), pair_card(pair))
        self._mark_chosen()


def _read(run, before, after, after_of):
    """Loaded of a run; before, after: evaluated steps (None: the first, the last); after_of: name of the run of
    `after`, "" for the same. None when nothing was evaluated yet.
    """
    steps, others = run.folder.evaluated_steps(), runs_beside(run)
    if not steps:
        return None
    second = Run(RunFolder(run.path.parent / after_of)) if after_of in others else run
    after_steps = second.folder.evaluated_steps()
    before = before if before in steps else steps[0]
    after = after if after in after_steps else after_steps[-1]
    two = second is not run or len(steps) > 1
    noises = [one.scoring_noise for one in {run.path: run, second.path: second}.values()]
    found = _arranged(
        steps,
        before,
        after,
        run.scores_at(before),
        second.scores_at(after) if two else None,
        None if None in noises else max(noises),
    )
    return replace(found, after_of=second.name if second is not run else "", after_steps=after_steps, others=others)


def _arranged(steps, before, after, first, second, noise):
    made = pair_table(first, second, noise or 0.0)
    return Loaded(steps, before, after, made, filters(made), noise)


def _share_of(one, n):
    return (
        f"{one.count:,} of {n:,} pairs: share {share(one.count, n)}."
        if 0 < n != one.count
        else counted(n, "pair") + "."
    )


def _write(rows, path):
    if path.suffix not in (".csv", ".jsonl"):
        raise WorkbenchError(f"{path.name!r} does not say how to write it: end the name with .csv or .jsonl.")
    if path.exists():
        raise WorkbenchError(f"{str(path)!r} is there already: choose another name, nothing is replaced.")
    try:
        if path.suffix == ".csv":
            rows.to_csv(path, index=False)
        else:
            rows.to_json(path, orient="records", lines=True, force_ascii=False)
    except OSError as error:
        raise WorkbenchError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from None
