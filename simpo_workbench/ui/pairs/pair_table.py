"""Every held-out pair before and after, as linked chart, table and text; the chosen pairs are a DataFrame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets
import traitlets

from ...analysis.clusters import clusters, prompts_of
from ...analysis.pair_filters import noise_sentence
from ...analysis.scores import WITHIN_NOISE, share_of
from ...base.format import counted, signed
from ...charts.subplots import thinned
from ...runs.run import Run
from ..answers.two_models import choice_menu, fill_menu
from ..parts.data_table import Column, DataTable
from ..parts.folder_stamp import folder_stamp
from ..parts.html import Html, Markup, html, joined, table
from ..parts.live_figure import LiveFigure
from ..parts.panel import Panel, button, column, enable, row, show
from .pair_card import outcome_words, pair_card
from .read_pairs import loaded_pairs, read_pairs, write_pairs

if TYPE_CHECKING:
    import pandas as pd

_NO_SCORES = (
    "The pairs are shown after the first evaluation: open a run in Runs. In Python, a table from wb.score can be shown"
    " too: wb.PairTable(before=scores)."
)
_NO_PAIR = (
    "Choose a pair in the chart or in the table to see its prompt, both answers and their numbers. A box drawn in the"
    " chart chooses all pairs in it."
)
_ROWS_IN_PICTURE = 10
_CHART_HEIGHT = 420
_MOST_RINGS = 1000
_LEAD = "average log-probability of the chosen answer minus that of the rejected one, nats per token"
_NUMBER = {"numeric": True, "text": signed}
_TOKENS = {"numeric": True, "text": lambda value: f"{value:.0f}"}
# the table shows those that its rows have: without a second table there are no changes
_COLUMNS = [
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


class PairTable(Panel):
    """The pairs of a run, of two runs, or of one or two scores tables, with filters and a search.

    `selection` holds the chosen rows, `shown` those that filter and search leave; `picked_pair` is the row of the pair
    chosen last, as a dict ({} if none is). noise: of scoring, nats per token, for tables that are given.
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
                self.guard(lambda: self._fill(loaded_pairs(before, after, noise)))()

    @property
    def selection(self) -> pd.DataFrame:
        """DataFrame of the chosen pairs in the order of choosing; empty when none is chosen."""
        import pandas as pd

        if self._loaded is None:
            return pd.DataFrame()
        places = self._loaded.places.get_indexer(self.table.chosen)
        return self._loaded.table.iloc[places[places >= 0]].reset_index(drop=True)

    @property
    def shown(self) -> pd.DataFrame:
        """DataFrame of the pairs that filter and search leave."""
        import pandas as pd

        return pd.DataFrame() if self._shown is None else self._loaded.table.loc[self._shown.index]

    def refresh(self) -> None:
        """Read the run's evaluated steps again if they changed; a menu at the newest step moves to the new one."""
        if self.run is not None and self._stamps() != self._stamp:
            follows = self._loaded is None or self.after.value == max(self._loaded.after_steps, default=None)
            self._read(self.before.value, None if follows else self.after.value)

    def export(self, path: str | Path | None = None) -> None:
        """Write the chosen pairs, or all that are shown if none is chosen, to a new .csv or .jsonl file."""
        wanted = Path(str(path or self.path.value).strip()).expanduser()
        rows = self.shown if (chosen := self.selection).empty else chosen
        self.later(
            lambda: write_pairs(rows, wanted),
            lambda _: self.say(f"{counted(len(rows), 'pair')} written to {wanted}.", "good"),
        )

    def redraw(self) -> None:
        self._draw_chart()

    def snapshot(self) -> Markup:
        if self.run is not None and self._loaded is None:  # shown in the cell that made it: a still picture cannot wait
            self.guard(lambda: self._fill(read_pairs(self.run, None, None, "")))()
        if self._loaded is None:
            return html("<p>{}</p>", _NO_SCORES)
        rows, n = self.table.rows[:_ROWS_IN_PICTURE], len(self._shown)
        first = table(
            [column["title"] for column in self.table.columns],
            (row["cells"] for row in rows),
            f"The first {len(rows)} of {counted(n, 'pair')}.",
        )
        counts = html("<p>{}</p>", " · ".join(f"{part.name} {part.count:,}" for part in self._loaded.filters))
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
            continuous_update=False,  # else a click may come before the last characters
            layout={"width": "300px"},
            style={"description_width": "initial"},
            tooltip="The ending says how: .csv or .jsonl",
        )
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
        self.later(lambda: read_pairs(run, before, after, of), self._fill, lambda _: self._not_read(), latest="scores")

    def _not_read(self):
        """Show again what was read before."""
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

    def _fill(self, loaded):
        if loaded is None:
            self._clear()
            return
        chosen_filter = "all"
        if self._loaded is not None and self.chips.index is not None:
            chosen_filter = self._loaded.filters[self.chips.index].name
        self._loaded = loaded
        names = [part.name for part in loaded.filters]
        with self.quietly():
            for menu, steps, value in (
                (self.before, loaded.steps, loaded.before),
                (self.after, loaded.after_steps, loaded.after),
            ):
                menu.options = [("base model (step 0)" if step == 0 else f"step {step}", step) for step in steps]
                menu.value = value if steps else None
            several = len(loaded.after_steps) > 1 or loaded.after_of
            enable(self.after, "" if several else "There is one evaluation so far.")
            fill_menu(self.after_of, [("this run", ""), *((name, name) for name in loaded.others)], "")
            self.after_of.value = loaded.after_of
            alone = "" if loaded.others else "There is no other evaluated run in this folder of runs."
            enable(self.after_of, alone, "Another run or seed: its pairs are joined with these")
            self.chips.options = [(f"{part.name} {part.count:,}", place) for place, part in enumerate(loaded.filters)]
            numbers = clusters(prompts_of(loaded.table))
            self.chips.tooltips = [f"{part.meaning} {_share_of(part, numbers)}" for part in loaded.filters]
            self.chips.index = names.index(chosen_filter) if chosen_filter in names else 0
        show(self._empty, False)
        show(self._steps, bool(loaded.steps))
        show(self._content, True)
        self.table.chosen = list(self.selection.get("pair_id", []))
        self._show_filtered(keep=True)

    # --- filter, choose, show

    def _filter_chosen(self, _=None):
        if not self.filling and self._loaded is not None:
            self._show_filtered()

    def _show_filtered(self, keep=False):
        """Show the pairs that filter and search leave.

        keep: the page and the chosen pairs stay, because new numbers came without a choice by the user; so an open pair
        stays open even if the filter leaves it out now.
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
        loaded, part, searched, noise = self._loaded, self._loaded.filters[self.chips.index or 0], "", ""
        if self.search.value.strip():
            searched = f" {counted(len(self._shown), 'pair')} of these hold the words searched for."
        if "flip" in loaded.table and (self.run is not None or loaded.noise):
            within = int((loaded.table["became"] == WITHIN_NOISE).sum())
            noise = noise_sentence(loaded.noise, within, runs="each of the two runs" if loaded.after_of else "this run")
        pattern = '<b>{}</b>: {} {}{} <span class="swb-muted">{}</span>'
        self._sentence.value = html(
            pattern, part.name, part.meaning, _share_of(part, clusters(prompts_of(loaded.table))), searched, noise
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
            counts = [(part.name, f"{part.count:,}") for part in self._loaded.filters]
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
        if chosen:
            pair, which = self.picked_pair, f"{chosen:,} pairs chosen; this is the one chosen last: "
            heading = (which if chosen > 1 else "") + outcome_words(pair)
            self._pair.value = html("<h3>{}</h3>{}", heading, pair_card(pair))
        else:
            self._pair.value = html('<p class="swb-muted">{}</p>', _NO_PAIR)
        self._mark_chosen()


def _share_of(part, numbers):
    n = len(part.mask)
    if n in (0, part.count):
        return counted(n, "pair") + "."
    return f"{part.count:,} of {n:,} pairs: share {share_of(part.mask, numbers)}."
