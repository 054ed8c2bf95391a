"""One pair token by token in the base and the tuned model: as text, as charts and in sentences."""

from __future__ import annotations

import time

import ipywidgets
import traitlets

from ...analysis.microscope import THIRDS, nats, thirds, token_name
from ...base.format import duration, signed
from ...pairs.pairs import prompt_text
from ...runs.run import Run
from ..answers.two_models import Side, sides_of
from ..parts.html import Html, Markup, html, joined, table
from ..parts.live_figure import LiveFigure
from ..parts.model_requests import OPEN_MODELS, ModelRequest
from ..parts.panel import Panel, button, column, enable, row, show
from .explained_pair import ExplainedPair, explained_pair, scored_pair
from .heat_text import BASE, CHANGE, TUNED, heat_text
from .original_pair import original_pair

_NO_RUN = (
    "Every token of a pair is shown here once a model has read it: open a run in Runs, and choose a pair. In Python:"
    " wb.ui.PairMicroscope(run, pair_id), or wb.ui.PairMicroscope(tokens=wb.explain_pair(model, pair)) with tokens from"
    " elsewhere."
)
_NO_PAIR = (
    "Choose a pair: then Show every token says how likely each of its tokens is, before and after training, and where"
    " in the answers the lead is won."
)
_READY = (
    "Show every token has a model read this pair, in a process of its own; the worker of a run that trains reads it"
    " between two steps."
)
_WHAT = {CHANGE: "Change by training", TUNED: "Tuned model", BASE: "Base model"}
_WHAT_HELP = (
    "How much likelier or less likely each token became",
    "How sure the tuned model is of each token",
    "How sure the base model was of each token",
)
_LOADED_S = 540.0  # so long after an answer the model is still open, and the next pair chosen is read at once
_MOST_IN_WORDS = 20
_HEIGHT = 360


class PairMicroscope(Panel):
    """One pair token by token.

    `run` and `pair` (a row with prompt, chosen, rejected, or a pair_id of the run's held-out pairs) may be set at any
    time; `ask()` has the model read the pair. `tokens` is the DataFrame that is shown (see `wb.analysis.token_leads`),
    else None. tokens: a table from `wb.explain_pair`, shown without any model.
    """

    title = "Pair microscope"
    run = traitlets.Instance(Run, allow_none=True)
    pair = traitlets.Any(None, allow_none=True)

    def __init__(self, run: Run | None = None, pair=None, tokens=None, line: Html | None = None):
        super().__init__(line)
        self.tokens, self._shown, self._sides, self._stamp = None, None, {}, None
        self._request, self._waits, self._started, self._answered_at = None, False, 0.0, None
        self._build()
        self.pair, self.run = pair, run
        self.observe(self.guard(self._another_run), "run")
        self.observe(self.guard(self._another_pair), "pair")
        self._clear()
        self.refresh()
        if tokens is not None:
            self.guard(lambda: self._display(explained_pair(tokens, "Every token of the pair", run)))()

    def refresh(self) -> None:
        """Read again which models the run has, if they changed; the chosen one stays."""
        run = self.run
        if run is None or (stamp := _stamp(run)) == self._stamp:
            return
        self._stamp = stamp
        self.later(lambda: _own_sides(run), self._fill, latest="models")

    def ask(self) -> None:
        """Have the chosen model read the pair."""
        if self.ask_button.disabled:
            return
        run, pair, side = self.run, self.pair, self._sides[self.model.value]
        self._started, self._waits = time.monotonic(), True
        self._waiting("Opening the model …")

        def prepare():
            row = original_pair(run, pair)
            name = pair if isinstance(pair, str) else str(pair.get("pair_id", ""))
            step = side.step
            if step is None and not run.status.alive:
                step = run.status.step
            scored = scored_pair(run, 0, name), scored_pair(run, step, name)
            about = {"title": _title(side), "run": run, "prompt": prompt_text(row["prompt"]), "scored": scored}
            return row, about, run.config.data

        def ask(prepared):
            row, about, data = prepared
            self._request = ModelRequest(
                self,
                lambda: OPEN_MODELS.of_run(side.run, side.step),
                "explain",
                done=lambda tokens: self._answered(explained_pair(tokens, **about)),
                failed=lambda _: self._end(),
                waiting=self._waiting,
                pairs=[row],
                data=data,
            )

        self.later(prepare, ask, lambda _: self._end(), latest="pair")

    def cancel(self) -> None:
        """Cancel the request."""
        if self._waits:
            self._take_back()
            self.say("Cancelled: the tokens are no longer being computed.")

    def redraw(self) -> None:
        self._draw_charts()

    def snapshot(self) -> Markup:
        if self._shown is None:
            return joined([self._empty.value])
        return joined([self._said.value, self._heat.value, self._numbers.value])

    # --- the controls

    def _build(self):
        self.model = ipywidgets.Dropdown(
            description="Model",
            options=[],
            style={"description_width": "initial"},
            layout={"width": "300px"},
            tooltip="The base model is evaluated as well, for comparison.",
        )
        self.model.observe(self.guard(lambda _: self._enable()), "value")
        self.ask_button = button("Show every token", self.guard(self.ask), icon="search", style="primary")
        self.cancel_button = button("Cancel", self.guard(self.cancel), icon="times")
        self.progress, self._empty, self._said, self._heat, self._numbers = Html(), Html(), Html(), Html(), Html()
        self.progress.add_class("swb-muted")
        self.what = ipywidgets.ToggleButtons(
            options=[(words, what) for what, words in _WHAT.items()], style={"button_width": "auto"}
        )
        self.what.tooltips = _WHAT_HELP
        self.what.add_class("swb-chips")
        self.what.observe(self.guard(lambda _: self._draw_heat()), "value")
        self.won, self.curves = LiveFigure(_HEIGHT), LiveFigure(_HEIGHT)
        both = ipywidgets.HBox([column(self.won, classes="swb-half"), column(self.curves, classes="swb-half")])
        both.add_class("swb-halves")
        self._asks = row(self.model, self.ask_button, self.cancel_button, self.progress)
        self._content = column(self._said, row(self.what), self._heat, both, self._numbers)
        self.compose(self._asks, self._empty, self._content)

    def _enable(self):
        why_not, read = "", "" if self._sides else "The run is being read."
        if self._waits:
            why_not = "The model is reading the pair."
        elif self.pair is None:
            why_not = "Choose a pair first."
        enable(self.ask_button, why_not or read, "Log-probability of every token, before and after training")
        enable(self.cancel_button, "" if self._waits else "Nothing was asked.", "Wait no longer")
        enable(self.model, read, "The base model is evaluated as well, for comparison.")
        # tokens that were given need no model
        show(self._asks, self.run is not None and (self.pair is not None or self._shown is None))

    # --- run and pair

    def _another_run(self, _):
        self._take_back()
        self.drop("models")
        self._sides, self._stamp, self._answered_at = {}, None, None
        with self.quietly():
            self.model.options = []
        self._clear()
        self.refresh()

    def _another_pair(self, _):
        was_waiting = self._waits
        self._take_back()
        self._clear()
        loaded = self._answered_at is not None and time.monotonic() - self._answered_at < _LOADED_S
        seen, run = self.layout.display != "none", self.run
        if self.pair is not None and seen and (was_waiting or loaded) and run is not None and not run.status.alive:
            self.ask()

    def _fill(self, sides):
        newest = [key for key in ("now", *reversed([key for key in sides if key.startswith("step ")])) if key in sides]
        chosen = self.model.value if self.model.value in sides else [*newest, *sides][0]
        self._sides = sides
        self.model.options = [(_title_in_menu(side), key) for key, side in sides.items()]
        self.model.value = chosen
        self._enable()

    def _clear(self):
        self.tokens = self._shown = None
        words = _READY if self.pair is not None else _NO_PAIR
        if self.run is None:
            words = _NO_RUN
        self._empty.value = html('<p class="swb-muted">{}</p>', words)
        show(self._empty, True)
        show(self._content, False)
        self._enable()

    # --- the answer

    def _waiting(self, sentence):
        if self._waits:
            self.progress.value = html(
                '<span role="status">{} {}</span>', sentence, duration(time.monotonic() - self._started)
            )
            self._enable()

    def _answered(self, explained):
        self._end()
        self._answered_at = time.monotonic()
        self._display(explained)
        self.say(f"Read in {duration(time.monotonic() - self._started)}.", "good")

    def _take_back(self):
        self.drop("pair")
        if self._request is not None:
            self._request.cancel()
        self._end()

    def _end(self):
        self._request, self._waits, self.progress.value = None, False, ""
        self._enable()

    def _display(self, explained: ExplainedPair):
        self._said.value, self._numbers.value = explained.said, explained.numbers
        self._shown, self.tokens = explained, explained.tokens
        show(self.what, explained.tuned)
        self._draw_heat()
        self._draw_charts()
        show(self._empty, False)
        show(self._content, True)
        self._enable()

    def _draw_heat(self):
        if self._shown is not None:
            self._heat.value = heat_text(self.tokens, self.what.value if self._shown.tuned else TUNED)

    def _draw_charts(self):
        if self._shown is None:
            return
        from ...charts.microscope import token_figure, won_figure

        changed = "change of the lead" if self._shown.tuned else "lead"
        self.won.show(won_figure(self.tokens, self.theme))
        by_third = zip(THIRDS, map(nats, thirds(self.tokens)), strict=True)
        self.won.describe(
            f"What the tokens up to each place in the answers add to the {changed}, nats per token.",
            table(["third of the answers", f"adds to the {changed}"], by_third),
        )
        self.curves.show(token_figure(self.tokens, self.theme))
        which = "moved most" if self._shown.tuned else "are least likely"
        self.curves.describe(
            f"Log-probability of every token of both answers, nats. The {_MOST_IN_WORDS} tokens that {which}:",
            _in_words(self.tokens),
        )


def _stamp(run):
    """A value that changes whenever the model menu needs rebuilding."""
    status = run.status
    return (
        run.path,
        run.adapter_steps(),
        status.alive,
        status.recommended_step,
        (run.folder.adapter / "adapter_config.json").is_file(),
    )


def _own_sides(run) -> dict[str, Side]:
    """The run's models, the base model last: alone, it has nothing to be compared with."""
    own = {key: side for key, side in sides_of(run).items() if side.run is run}
    return {key: own[key] for key in [*(key for key in own if key != "base"), "base"]}


def _title_in_menu(side):
    return "base model alone" if side.step == 0 else side.title


def _title(side):
    return (
        "The base model alone" if side.step == 0 else f"{side.title[:1].upper()}{side.title[1:]} against the base model"
    )


def _in_words(tokens):
    changed = "change" in tokens
    order = tokens["change"].abs() if changed else -tokens["logp"]
    rows = tokens.loc[order.sort_values(ascending=False, kind="stable").index[:_MOST_IN_WORDS]].to_dict("records")
    cells = []
    for token in rows:
        cells.append([f"{token['side']} {token['position']}", token_name(token["token"]), signed(token["logp"])])
        if changed:
            cells[-1].append(signed(token["change"]))
    return table(["token", "text", "log-probability (nats)", *(["change (nats)"] if changed else [])], cells)
