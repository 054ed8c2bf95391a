"""Checks of a prompt's turns and of an answer before they become a pair. Standard library only."""

import json
import re

from .refused import RowRefused, excerpt

_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")


def check_prompt(prompt, where) -> None:
    """Raise RowRefused unless an answer can follow the prompt. where: its column."""
    if not any(turn["role"] == "user" for turn in prompt):
        raise RowRefused("empty" if not prompt else "missing", f"{where} has no user turn")
    if prompt[-1]["role"] == "assistant":
        raise RowRefused(
            "more than one answer turn", f"{where} ends with an assistant turn, so the answer would be a second one"
        )
    if prompt[-1]["role"] == "user" and not prompt[-1]["content"].strip():
        raise RowRefused("empty", "the prompt's last user turn has no text")
    for turn in prompt:
        check_text(turn["content"])
        _check_more(turn)


def check_answer(text, turn, side) -> None:
    """Raise RowRefused for an answer without text, unless its turn calls a tool."""
    if not text.strip() and not (turn and turn.get("tool_calls")):
        raise RowRefused("empty", f"{side} has no text ({excerpt(text)})")
    check_text(text)
    _check_more(turn or {})


def _check_more(turn):
    if len(turn) > 2:
        check_text(json.dumps(turn, ensure_ascii=False, default=str))


def check_text(text) -> None:
    """Raise RowRefused for a text that no file can hold."""
    if not text.isascii() and _HALF_A_CHARACTER.search(text):
        raise RowRefused("unreadable", f"half of a character (a lone surrogate) in {excerpt(text)}")
