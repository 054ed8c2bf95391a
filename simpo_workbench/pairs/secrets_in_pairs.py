"""Secrets in the pairs themselves: a model that is trained on a token may say it to anybody."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..base.redaction import holds_known_secret
from .pair import Pair
from .refused import excerpt


def secrets_note(pairs: Iterable[Pair], side: str) -> str:
    """The sentences on pairs that hold what looks like a token, key or password, in their texts or in the source's
    other columns; "" where none does.

    side: what the pairs are called, "training", "held-out" or "final". The secrets are not repeated.
    """
    in_texts, in_columns, columns = [], [], {}
    for pair in pairs:
        if holds_known_secret("\n".join([pair.prompt_text, pair.chosen, pair.rejected])):
            in_texts.append(pair.pair_id)
        found = secret_columns(pair.extra)
        if found:
            in_columns.append(pair.pair_id)
            columns.update(dict.fromkeys(found))
    notes = []
    if in_texts:
        notes.append(
            f"{_pairs_hold(in_texts, side)} what looks like a token, key or password, which the model may learn to say"
            f" (pair {in_texts[0]} is the first): take them out before you share model, run folder or data."
        )
    if in_columns:
        kept = "" if side == "training" else ", but kept in the run folder"
        notes.append(
            f"{_pairs_hold(in_columns, side)} what looks like a token, key or password in a column beside the texts"
            f" ({', '.join(map(excerpt, columns))}; pair {in_columns[0]} is the first). It is not trained on{kept}:"
            " take it out before you share the data."
        )
    return " ".join(notes)


def secret_columns(extra: dict[str, Any]) -> list[str]:
    """The names of a pair's other columns that hold what looks like a token, key or password."""
    texts = {column: "\n".join(_texts(value)) for column, value in extra.items()}
    if not holds_known_secret("\n".join(texts.values())):
        return []
    return [column for column, text in texts.items() if holds_known_secret(text)]


def _texts(value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _pairs_hold(ids, side):
    return f"{len(ids)} {side} {'pair holds' if len(ids) == 1 else 'pairs hold'}"
