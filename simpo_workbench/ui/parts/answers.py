"""Answers as cards: the text, what differs from the other answer, and facts without a judgement."""

from __future__ import annotations

from dataclasses import dataclass

from ...analysis.text_diff import differences
from ...base.format import counted
from .html import Markup, escape, facts, html, joined

_MARKS = {"left": "<del>{}</del>", "right": "<ins>{}</ins>"}


@dataclass(frozen=True)
class Answer:
    """An answer and facts about it; a fact that is None is left out.

    tokens: without the end of turn. ended: whether it ended by itself. repeated_4grams: share, 0 … 1. tone: colour of
    the title, "", "chosen" or "rejected". more: further facts, such as log-probabilities. right: whether it passes its
    prompt's check. reference: an answer to compare with.
    """

    title: str
    text: str
    tokens: int | None = None
    ended: bool | None = None
    repeated_4grams: float | None = None
    tone: str = ""
    more: tuple[str, ...] = ()
    right: bool | None = None
    reference: str | None = None

    @classmethod
    def sampled(cls, title: str, row) -> Answer:
        """An Answer from a row of `run.generations`, or a line of generations/*.jsonl."""
        return cls(
            title,
            row["answer"],
            int(row["tokens"]),
            bool(row["ended"]),
            float(row["repeated_4grams"]),
            right=row.get("right"),
            reference=row.get("reference"),
        )


def answer_cards(left: Answer, right: Answer, mark: bool = True) -> Markup:
    """Two answers side by side; with `mark`, what only one of them has is marked (`del` left, `ins` right)."""
    left_text, right_text, same = escape(left.text), escape(right.text), ""
    if mark:
        parts = differences(left.text, right.text)
        left_text, right_text = _marked(parts, "left"), _marked(parts, "right")
        if left.text == right.text:
            same = html('<p class="swb-muted">{}</p>', "The two answers are the same, word for word.")
    reference = right.reference or left.reference
    if reference:
        same += html('<div class="swb-facts swb-text">Reference: {}</div>', reference)
    return html('<div class="swb-cards">{}{}</div>{}', _card(left, left_text), _card(right, right_text), same)


def answer_card(answer: Answer) -> Markup:
    """One answer alone."""
    return html('<div class="swb-cards">{}</div>', _card(answer, escape(answer.text)))


def _card(answer, text):
    if not answer.text.strip():
        text = html('<span class="swb-muted">{}</span>', "(an empty answer)")
    known = []
    if answer.tokens is not None:
        known.append(counted(int(answer.tokens), "token"))
    if answer.repeated_4grams is not None:
        known.append(f"repeated 4-grams {answer.repeated_4grams:.2f}")
    if answer.ended is not None:
        known.append("ends properly" if answer.ended else "cut off")
    title = html('<h4 class="swb-{}">{}{}</h4>', answer.tone or "plain", answer.title, _mark_of(answer.right))
    return html(
        '<section class="swb-card">{}<div class="swb-text" tabindex="0">{}</div>{}</section>',
        title,
        text,
        facts(*known, *answer.more),
    )


def _mark_of(right):
    """✓ or ✗ with its word; nothing where the prompt has no check."""
    if right is None:
        return ""
    tone, words, passes = ("answers", "✓ right", "passes") if right else ("failure", "✗ wrong", "does not pass")
    reason = f"The answer {passes} the check of its prompt."
    return html(' · <span class="swb-tone-{}" title="{}">{}</span>', tone, reason, words)


def _marked(parts, side):
    return joined(
        html(_MARKS[side], text) if kind == side else escape(text) for kind, text in parts if kind in ("same", side)
    )
