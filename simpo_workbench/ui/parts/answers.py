"""Answers as cards: the text, what differs from the answer beside it, and small facts. No judgement."""

from __future__ import annotations

from dataclasses import dataclass

from ...analysis.text_diff import differences
from ...base.format import counted
from .html import Markup, escape, facts, html, joined

_MARKS = {"left": "<del>{}</del>", "right": "<ins>{}</ins>"}


@dataclass(frozen=True)
class Answer:
    """An answer and what is known of it; what is None is not said.

    tokens: without the end of turn. ended: whether it ended by itself. repeated_4grams: share, 0 … 1. tone: "",
    "chosen" or "rejected", the colour of its title.
    more: further facts, such as log-probabilities.
    """

    title: str
    text: str
    tokens: int | None = None
    ended: bool | None = None
    repeated_4grams: float | None = None
    tone: str = ""
    more: tuple[str, ...] = ()


def answer_cards(left: Answer, right: Answer, mark: bool = True) -> Markup:
    """Two answers side by side, facts under each; with `mark`, what only one of them says is marked (`del` left, `ins`
    right).
    """
    same = (
        html('<p class="swb-muted">{}</p>', "The two answers are the same, word for word.")
        if mark and left.text == right.text
        else ""
    )
    parts = differences(left.text, right.text) if mark else [("left", left.text), ("right", right.text)]
    sides = [
        _card(answer, _marked(parts, side) if mark else escape(answer.text))
        for answer, side in ((left, "left"), (right, "right"))
    ]
    return html('<div class="swb-cards">{}</div>{}', joined(sides), same)


def answer_card(answer: Answer) -> Markup:
    """One answer alone, nothing marked."""
    return html('<div class="swb-cards">{}</div>', _card(answer, escape(answer.text)))


def _card(answer, text):
    shown = text if answer.text.strip() else html('<span class="swb-muted">{}</span>', "(an empty answer)")
    known = [
        counted(int(answer.tokens), "token") if answer.tokens is not None else "",
        f"repeated 4-grams {answer.repeated_4grams:.2f}" if answer.repeated_4grams is not None else "",
        ("ends properly" if answer.ended else "cut off") if answer.ended is not None else "",
        *answer.more,
    ]
    title = html('<h4 class="swb-{}">{}</h4>', answer.tone or "plain", answer.title)
    return html(
        '<section class="swb-card">{}<div class="swb-text" tabindex="0">{}</div>{}</section>',
        title,
        shown,
        facts(*known),
    )


def _marked(parts, side):
    return joined(
        html(_MARKS[side], text) if kind == side else escape(text) for kind, text in parts if kind in ("same", side)
    )
