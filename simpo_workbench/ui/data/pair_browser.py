"""A browser of preference pairs: search, a table, and the chosen pair as text or as the model's tokens."""

from __future__ import annotations

from dataclasses import dataclass

import ipywidgets

from ...base.format import counted
from ...charts.pairs import SIDES, matches
from ...config.run_config import DataConfig, ModelConfig
from ...pairs.pairs import Pair, Pairs
from ...pairs.refused import excerpt
from ..parts.answers import Answer, answer_card, answer_cards
from ..parts.data_table import Column, DataTable
from ..parts.html import Html, Markup, facts, html
from ..parts.model_requests import OPEN_MODELS, ModelRequest
from ..parts.panel import Panel, row, show
from .token_view import TokenView

TEXT, TOKENS = "Text", "Tokens"
_MOST_EXTRAS = 8
_CUT = 300
_LENGTH_HELP = "In words between white space; in characters where the texts have no such words."


@dataclass(frozen=True)
class PairSet:
    """Pairs, and their DataFrame from `charts.pairs.pair_lengths` with the same rows."""

    pairs: Pairs
    lengths: object


class PairBrowser(ipywidgets.VBox):
    """Shows one PairSet. `pair` is the chosen Pair, or None."""

    def __init__(self, panel: Panel):
        self._panel, self._set, self._request = panel, None, None
        self._model, self._data, self.pair = ModelConfig(), DataConfig(), None
        self.search = ipywidgets.Text(
            description="Search",
            placeholder="in prompts, chosen and rejected answers",
            style={"description_width": "initial"},
            layout={"width": "320px"},
        )
        self.hits = Html()
        columns = [Column(side, side.capitalize(), text=_one_line, wide=True) for side in SIDES]
        columns += [
            Column(f"{side}_length", f"{side.capitalize()} length", text="{:,}".format, numeric=True, help=_LENGTH_HELP)
            for side in SIDES
        ]
        self.table = DataTable(
            columns, "pair_id", "Preference pairs", "Reading the pairs …", noun="pair", on_error=panel.say_error
        )
        self.table.add_class("swb-fixed")
        self.form = ipywidgets.ToggleButtons(
            description="Show it as",
            options=[TEXT, TOKENS],
            style={"description_width": "initial", "button_width": "80px"},
        )
        self.form.tooltips = ["The texts of the data", "Every token, exactly as the model will see it"]
        self.text, self.tokens = Html(), TokenView()
        super().__init__([row(self.search, self.hits), self.table, row(self.form), self.text, self.tokens])
        self.add_class("swb-column")
        self.search.observe(panel.guard(lambda _: self._search()), "value")
        self.table.observe(panel.guard(lambda _: self._choose()), "chosen")
        self.form.observe(panel.guard(lambda _: self._show_pair()), "value")

    def show(self, pair_set: PairSet) -> None:
        """Show these pairs; the search stays."""
        self._set, self.table.chosen = pair_set, []
        self._search()

    def use(self, model: ModelConfig, data: DataConfig) -> None:
        """Show tokens as this model's tokenizer and these settings make them."""
        if (model, data) != (self._model, self._data):
            self._model, self._data = model, data
            self._show_pair()

    def snapshot(self) -> Markup:
        """The chosen pair, as HTML."""
        return pair_cards(self.pair) if self.pair else html("")

    def _search(self):
        self._panel.drop("search")
        if self._set is None:
            return
        lengths, query = self._set.lengths, self.search.value
        if query.strip():
            self._panel.later(lambda: lengths[matches(lengths, query)], self._show_hits, latest="search")
        else:
            self._show_hits(lengths)

    def _show_hits(self, hits):
        query, total = " ".join(self.search.value.split()), len(self._set.lengths)
        words = f"{len(hits):,} of {counted(total, 'pair')} hold “{excerpt(query)[1:-1]}”" if query else ""
        self.hits.value = html('<span class="swb-muted" role="status">{}</span>', words)
        self.table.empty_text = "No pair holds these words. Shorten or clear the search."
        self.table.show(hits)
        if len(hits) and not self.table.chosen:
            self.table.choose([hits["pair_id"].iloc[0]])

    def _choose(self):
        lengths = self._set.lengths
        places = (lengths["pair_id"] == self.table.chosen[0]).to_numpy().nonzero()[0] if self.table.chosen else []
        self.pair = self._set.pairs[int(places[0])] if len(places) else None
        self._show_pair()

    def _show_pair(self):
        show(self.text, self.form.value == TEXT)
        show(self.tokens, self.form.value == TOKENS)
        if self._request is not None:
            self._request.cancel()
            self._request = None
        if self.pair is None:
            hint = "Choose a pair in the table to see it here."
            self.text.value = html('<p class="swb-muted">{}</p>', hint)
            self.tokens.tell(hint)
        elif self.form.value == TEXT:
            self.text.value = pair_cards(self.pair)
        else:
            self._ask_for_tokens()

    def _ask_for_tokens(self):
        pair, model, data = self.pair, self._model, self._data
        loading = f"Loading the tokenizer of {model.name} (its weights are not needed; some seconds the first time) …"
        self.tokens.tell(loading)
        messages = {
            "prompt": [dict(turn) for turn in pair.prompt],
            "chosen": pair.chosen,
            "rejected": pair.rejected,
        }
        self._request = ModelRequest(
            self._panel,
            lambda: OPEN_MODELS.of(model, data, tokens_only=True),
            "encode",
            done=self.tokens.show,
            failed=lambda error: self.tokens.tell(str(error), "error"),
            waiting=lambda sentence: self.tokens.tell(loading if sentence.startswith("Loading") else sentence),
            pairs=[messages],
            data=data,
        )


def pair_cards(pair: Pair) -> Markup:
    """A pair as text: the prompt, the two answers side by side, and the source's other columns."""
    sides = [
        Answer(f"{side.capitalize()} answer", text, tone=side, more=(_length(text),))
        for side, text in (("chosen", pair.chosen), ("rejected", pair.rejected))
    ]
    extras = [f"{name}: {excerpt(value)}" for name, value in list(pair.extra.items())[:_MOST_EXTRAS]]
    prompt = Answer("Prompt", pair.prompt_text, more=(_length(pair.prompt_text),))
    return html(
        '<div class="swb-pair">{}{}{}</div>', answer_card(prompt), answer_cards(*sides, mark=False), facts(*extras)
    )


def _length(text):
    return f"{counted(len(text.split()), 'word')}, {counted(len(text), 'character')}"


def _one_line(text):
    return " ".join(text[:_CUT].split()) + ("…" if len(text) > _CUT else "")
