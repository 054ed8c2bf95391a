"""The Data panel: where the pairs come from, what was kept and refused, their lengths, and a browser of them."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass

import ipywidgets
import traitlets

from ...base.errors import WorkbenchError
from ...base.format import counted
from ...charts.pairs import chosen_longer, length_bias, length_figure, length_table, pair_lengths
from ...config.run_config import DEMO, DataConfig, ModelConfig, TrainingConfig
from ...pairs.advice import tried
from ...pairs.data_sets import load_data
from ...pairs.pairs import Pairs, raw_rows
from ...pairs.secrets_in_pairs import secrets_note
from ..parts.html import Html, Markup, html, joined, table
from ..parts.live_figure import LiveFigure
from ..parts.panel import Panel, button, column, enable, row, show
from .column_form import TRIED_ROWS, ColumnForm
from .pair_browser import PairBrowser, PairSet

TRAINING, HELD_OUT, FINAL = "Training", "Held-out", "Final"
_SOURCES = ("train", "eval", "eval_fraction", "final_fraction", "columns", "pairs_from_ranking")
_SOURCES += ("limit", "eval_limit", "limit_takes")
_PREVIEW_ROWS = 5
_STILL_WAITS_S = 1.0
#: Reasons for a refusal that another mapping may mend.
_OF_COLUMNS = {
    "no known shape", "no label", "unclear label", "label disagrees", "labels disagree", "no grades", "missing",
    "wrong type", "tie",
}  # fmt: skip
_NO_PAIRS = (
    "Give “demo”, a file (JSONL, JSON, CSV, Parquet), a folder or a hub id above and press Load. A row of a file can be"
    " as plain as this:"
)
_EXAMPLE = '{"prompt": "What colour is the sky?", "chosen": "Blue.", "rejected": "Well, that is a long story."}'


@dataclass(frozen=True)
class Loaded:
    """The pairs of a DataConfig: a PairSet for TRAINING, HELD_OUT and, where there are any, FINAL.

    notes: sentences on kept and refused rows. final_note: that on the final pairs, which is among the notes too.
    """

    sets: dict[str, PairSet]
    notes: list[str]
    final_note: str


@dataclass(frozen=True)
class NotLoaded:
    """Why nothing could be read. rows: the first raw rows of a source with unknown columns."""

    error: Exception
    rows: tuple[dict, ...] = ()


class Reading:
    """One reading of the pairs, done in a thread."""

    def __init__(self, data: DataConfig, seed: int):
        self.data, self.seed, self.result, self.ready = data, seed, None, threading.Event()

    def do(self) -> Reading:
        """Read and return itself; `result` is then a Loaded or a NotLoaded."""
        import plotly.graph_objects  # noqa: F401 - takes a second, for which a click need not wait

        try:
            read = load_data(self.data, self.seed)
            named = {TRAINING: read.train, HELD_OUT: read.held_out} | ({FINAL: read.final} if read.final else {})
            sets = {name: PairSet(pairs, pair_lengths(pairs)) for name, pairs in named.items()}
            secrets = filter(None, (secrets_note(pairs, name.lower()) for name, pairs in named.items()))
            self.result = Loaded(sets, [*read.notes, *secrets], read.final_note)
        except Exception as error:  # shown by the panel, whatever it is
            self.result = NotLoaded(error, _unrecognised(self.data) if isinstance(error, WorkbenchError) else ())
        self.ready.set()
        return self


class DataView(Panel):
    """The pairs of a DataConfig: setting `data` loads them, and choices made here change it. `pairs` are the training
    pairs, None until they are read.

    A hidden panel reads nothing: `refresh` reads what was set since. model: its tokenizer makes the token view.
    seed: the run's `training.seed`, which decides the held-out pairs if `data` names none.
    """

    title = "Data"
    data = traitlets.Instance(DataConfig)
    model = traitlets.Instance(ModelConfig)
    seed = traitlets.Int()
    pairs = traitlets.Instance(Pairs, allow_none=True)

    def __init__(
        self,
        data: DataConfig | None = None,
        model: ModelConfig | None = None,
        line: Html | None = None,
        seed: int | None = None,
    ):
        super().__init__(line)
        self._reading, self._loaded, self._settings_read, self._figure = None, None, None, None
        self._build()
        self.set_trait("data", data or DataConfig())
        self.set_trait("model", model or ModelConfig())
        self.set_trait("seed", TrainingConfig().seed if seed is None else seed)
        self._fill()
        self.observe(self.guard(lambda _: self._settings_set()), ("data", "model", "seed"))
        self.refresh()

    def refresh(self) -> None:
        """Read the pairs if `data` or `seed` changed since they were read."""
        self.browser.use(self.model, self.data)
        if self._wanted() != self._settings_read:
            self.load()

    def load(self) -> None:
        """Read the pairs again, in the background; earlier ones are hidden at once."""
        self._forget()
        self._settings_read, self._reading = self._wanted(), (reading := Reading(self.data, self.seed))
        self._arrange(html('<p class="swb-muted" role="status">{}</p>', f"Reading {self.data.train} …"))
        held_out = f" and {self.data.eval}" if self.data.eval else ""
        self.say(f"Reading {self.data.train}{held_out} … A hub id is downloaded first.")
        self.later(reading.do, self._take)

    def cancel(self) -> None:
        """Cancel the reading."""
        if self._reading is not None:
            self._reading = None
            self._arrange(_empty_state())
            self.say("Cancelled: nothing is loaded. Press Load to read the pairs.")

    def redraw(self) -> None:
        if self._loaded is not None:
            self._draw_lengths()

    def snapshot(self) -> Markup:
        if self._reading is not None and self._reading.ready.wait(_STILL_WAITS_S):  # shown in the cell that made it
            self._take(self._reading)
        if self._loaded is None:
            return Markup(self.report.value)
        lengths = self._loaded.sets[self.which.value].lengths
        sides = ["prompt", "chosen", "rejected"]
        rows = lengths[sides].head(_PREVIEW_ROWS).map(lambda text: text if len(text) <= 120 else text[:119] + "…")
        first = table(sides, rows.itertuples(index=False), f"The first of {counted(len(lengths), 'pair')}")
        return html("{}{}{}{}", Markup(self.report.value), Markup(self.bias.value), first, self.browser.snapshot())

    def _build(self):
        wide = {"description_width": "initial"}
        self.train = self._source_field("train", "Training pairs", "demo, a file, a folder or a hub id")
        self.eval = self._source_field("eval", "Held-out pairs", "optional; else a share of the prompts")
        self.load_button = button(
            "Load",
            self.guard(self._load_clicked),
            icon="folder-open",
            tooltip="Read the pairs (Enter in a field does it too).",
            style="primary",
        )
        self.cancel_button = button("Cancel", self.guard(self.cancel), icon="times")
        self.columns_button = button(
            "Columns …",
            self.guard(self._open_columns),
            tooltip="Say which column is the prompt, which are the answers, and which says what is better.",
        )
        self.column_form = ColumnForm(self._use_columns, self.guard)
        self.report, self.bias = Html(), Html()
        self.which = ipywidgets.ToggleButtons(
            description="Look at", options=[TRAINING, HELD_OUT], style={**wide, "button_width": "auto"}
        )
        self.which.observe(self.guard(lambda _: self._show_set()), "value")
        self.browser = PairBrowser(self)
        self._lengths = column()
        self._with_pairs = column(row(self.which), self._lengths, self.bias, self.browser)
        sources = row(self.train, self.eval, self.load_button, self.cancel_button, self.columns_button)
        self.compose(sources, self.column_form, self.report, self._with_pairs)

    def _source_field(self, setting, description, placeholder):
        field = ipywidgets.Text(
            description=description,
            placeholder=placeholder,
            tooltip=DataConfig.model_fields[setting].description,
            continuous_update=False,
            style={"description_width": "initial"},
            layout={"width": "auto"},
        )
        field.add_class("swb-source")
        field.observe(self.guard(lambda _: self._take_fields()), "value")
        return field

    def _fill(self):
        with self.quietly():
            self.train.value, self.eval.value = self.data.train, self.data.eval or ""

    def _settings_set(self):
        self._fill()
        if self.layout.display != "none":
            self.refresh()
        elif self._wanted() != self._settings_read:  # not read now: half of a name may have been typed in 1 Setup
            self._forget()

    def _wanted(self):
        return *(getattr(self.data, name) for name in _SOURCES), self.seed

    def _forget(self):
        self._settings_read, self._reading, self._loaded, self.pairs = None, None, None, None
        self._arrange("")

    def _change(self, **changes):
        self.data = DataConfig.model_validate({**self.data.model_dump(), **changes})

    def _take_fields(self):
        if self.filling:
            return
        train = self.train.value.strip()
        if not train:
            raise WorkbenchError(f"The source of the training pairs is empty. {_NO_PAIRS.partition(' above')[0]}.")
        columns = self.data.columns if train == self.data.train else {}  # another file has columns of its own
        self._change(train=train, eval=self.eval.value.strip() or None, columns=columns)

    def _load_clicked(self):
        self._take_fields()
        if self._reading is None or self._reading.data != self.data:  # else leaving the field has started it
            self.load()

    def _open_columns(self):
        data = self.data

        def show_rows(rows):
            if data == self.data:
                self._show_columns(f"The columns of {data.train}: a choice here overrides what is recognised.", rows)

        self.later(lambda: _first_rows(data.train), show_rows, latest="columns")

    def _show_columns(self, sentence, rows):
        self.column_form.show(sentence, rows, self.data.columns)
        show(self.column_form, True)
        self.say("Choose which column is which, look at the pairs, then press “Use these columns”.")

    def _use_columns(self, mapping):
        if mapping == self.data.columns:
            self.load()
        self._change(columns=mapping)

    def _take(self, reading):
        if reading is not self._reading:  # cancelled, replaced, or taken by `snapshot` already
            return
        self._reading, result = None, reading.result
        if isinstance(result, NotLoaded):
            if result.rows:
                self._arrange("")
                self._show_columns(str(result.error), result.rows)
            else:
                self._arrange(_empty_state())
                self.say_error(result.error)
            return
        self._loaded = result
        train, held_out = result.sets[TRAINING].pairs, result.sets[HELD_OUT].pairs
        final = ""
        if FINAL in result.sets:
            final = f" (and {counted(len(result.sets[FINAL].pairs), 'final one')})"
        self._arrange(report_of(result, self.data))
        self.which.options = [(f"{name} ({len(some.pairs):,})", name) for name, some in result.sets.items()]
        self._show_set()
        self.say(
            f"{counted(len(train), 'training pair')} and {counted(len(held_out), 'held-out pair')}{final} are ready.",
            "good",
        )
        self.pairs = train

    def _arrange(self, report):
        self.report.value = report
        show(self.column_form, False)
        show(self._with_pairs, self._loaded is not None)
        enable(self.cancel_button, "" if self._reading else "Nothing is being read.", "Stop reading these pairs.")

    def _show_set(self):
        if self._loaded is not None:
            self._draw_lengths()
            self.browser.show(self._loaded.sets[self.which.value])

    def _draw_lengths(self):
        lengths = self._loaded.sets[self.which.value].lengths
        if self._figure is None:
            self._figure = LiveFigure(300)  # only now, because plotly takes a moment to import
            self._lengths.children = (self._figure,)
        self._figure.show(length_figure(lengths, self.theme))
        seen, meaning = length_bias(lengths)
        heads = ["side", "median", "nine in ten up to", "longest"]
        described = table(heads, length_table(lengths), f"Lengths in {lengths.attrs['unit']}")
        self._figure.describe("Overlaid histograms of the lengths of prompts, chosen and rejected answers.", described)
        self.bias.value = html('<p class="swb-bias"><b>{}</b> {}</p>', seen, meaning)


def report_of(loaded: Loaded, data: DataConfig) -> Markup:
    """What was kept and refused: numbers, sentences, and every reason for a refusal with its first place."""
    train, held_out = loaded.sets[TRAINING].pairs, loaded.sets[HELD_OUT].pairs
    reports = [("training", train.report())]
    if held_out.report() is not train.report():
        reports.append(("held-out", held_out.report()))
    refused = [
        [name, reason, f"{count:,}", report.first[reason].where, report.first[reason].seen]
        for name, report in reports
        for reason, count in report.refused.items()
    ]
    plain = [loaded.final_note, f"Training pairs: {train.report()}", f"Held-out pairs: {held_out.report()}"]
    warnings = [note for note in loaded.notes if note not in plain]
    sentences = [note for note in loaded.notes if note in plain]
    held_out_words = "held-out pairs, of their own"
    if not data.eval and data.train != DEMO:
        held_out_words = f"held-out pairs ({data.eval_fraction:.0%} of the prompts)"
        sentences.append(f"No prompt is on both sides: {data.eval_fraction:.0%} of the prompts are held out.")
    longer = chosen_longer(loaded.sets[TRAINING].lengths)
    tiles = [
        (f"{len(train):,}", f"training pairs, of {reports[0][1].rows_read:,} rows"),
        (f"{len(held_out):,}", held_out_words),
        (f"{sum(sum(report.refused.values()) for _, report in reports):,}", "rows refused"),
        (f"{longer.value:.2f}", f"chosen is longer (n={longer.n:,}, 95 % {longer.low:.2f} to {longer.high:.2f})"),
    ]
    if FINAL in loaded.sets:
        tiles.insert(2, (f"{len(loaded.sets[FINAL].pairs):,}", "final pairs, on which no step is chosen"))
    heads = ["pairs", "refused because", "rows", "first at", "what it holds"]
    return html(
        '<div class="swb-report"><dl class="swb-tiles">{}</dl>{}<div class="swb-facts">{}</div>{}</div>',
        joined(html('<div class="swb-tile"><dd>{}</dd><dt>{}</dt></div>', number, words) for number, words in tiles),
        joined(html('<p class="swb-notice swb-attention">{}</p>', warning) for warning in warnings),
        joined(html("<div>{}</div>", sentence) for sentence in sentences),
        table(heads, refused, "Rows that were refused") if refused else "",
    )


def _empty_state():
    return html('<p class="swb-muted">{}</p><pre>{}</pre>', _NO_PAIRS, _EXAMPLE)


def _first_rows(source):
    if source == DEMO:
        raise WorkbenchError(
            "The demo's columns are called prompt, chosen and rejected already. Give a file of your own first."
        )
    return raw_rows(source, TRIED_ROWS)


def _unrecognised(data):
    """The first rows of the first source of which no row makes a pair because of its columns, else ()."""
    for source in (data.train, data.eval):
        rows = []
        if source and source != DEMO:
            with contextlib.suppress(WorkbenchError):
                rows = raw_rows(source, TRIED_ROWS)
        known = {name for row in rows for name in row}
        if rows and not set(data.columns.values()) <= known:
            return tuple(rows)
        pairs, report = tried(rows, data.columns)
        if not pairs and report.refused.keys() & _OF_COLUMNS:
            return tuple(rows)
    return ()
