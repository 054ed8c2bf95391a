"""One pair opened: prompt, both answers, and its numbers before and after."""

from __future__ import annotations

from ...analysis.scores import WITHIN_NOISE
from ...base.format import signed
from ..parts.answers import Answer, answer_cards
from ..parts.html import Markup, html, joined, table

_NUMBERS = [
    ("lead", "lead of the chosen answer (nats per token)", True),
    ("chosen_avg_logp", "chosen answer: average log-probability (nats per token)", True),
    ("rejected_avg_logp", "rejected answer: average log-probability (nats per token)", True),
    ("loss", "loss", False),
    ("gradient_weight", "gradient weight: how hard this pair still pulls", False),
]


def pair_card(pair: dict) -> Markup:
    """A pair of a `pair_table` as HTML. pair: its row as a dict."""
    sides = [
        Answer(
            f"{side} answer",
            str(pair.get(side, "(text not in the table)")),
            _count(pair.get(f"{side}_tokens")),
            tone=side,
            more=_more(pair, side),
        )
        for side in ("chosen", "rejected")
    ]
    prompt = html(
        '<section class="swb-card"><h4>Prompt</h4><div class="swb-text" tabindex="0">{}</div></section>',
        pair.get("prompt", pair["pair_id"]),
    )
    return joined([prompt, answer_cards(*sides, mark=False), html("<div>{}</div>", _numbers(pair))])


def outcome_words(pair: dict) -> str:
    """The outcome of a pair, such as "flipped to wrong"; without a second table "chosen ahead" or "chosen behind"."""
    if "became" not in pair:
        return "chosen ahead" if pair["lead"] > 0 else "chosen behind"
    if pair["became"] == WITHIN_NOISE:
        return "changed sides within the noise of scoring"
    return f"flipped {pair['became']}" if pair["flip"] else pair["became"]


def _count(value):
    return None if value is None or value != value else int(value)


def _more(pair, side):
    if f"{side}_avg_logp_before" in pair:
        before, after = pair[f"{side}_avg_logp_before"], pair[f"{side}_avg_logp_after"]
        return (f"log-probability {signed(before)} → {signed(after)} nats per token",)
    return (f"log-probability {signed(pair[f'{side}_avg_logp'])} nats per token",)


def _numbers(pair):
    if "lead_before" not in pair:
        return table(["", "value"], [(title, _text(pair[key], sign)) for key, title, sign in _NUMBERS if key in pair])
    rows = [
        (title, *_row(pair[f"{key}_before"], pair[f"{key}_after"], sign))
        for key, title, sign in _NUMBERS
        if f"{key}_before" in pair
    ]
    return table(["", "before", "after", "change"], rows)


def _row(before, after, sign):
    return _text(before, sign), _text(after, sign), signed(after - before)


def _text(value, sign):
    return signed(value) if sign else f"{value:.2f}"
