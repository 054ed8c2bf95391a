"""Pairs as a DataFrame, and what a CSV's cells are turned into."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

#: Fields of a pair that are more than texts.
STRUCTURED = ("tools", "chosen_turn", "rejected_turn")


def extra_columns(pairs) -> list[str]:
    """The names of the pairs' own columns, in the order in which they first appear."""
    return list(dict.fromkeys(column for pair in pairs for column in pair.extra))


def read_numbers(pairs) -> None:
    """Turn an extra column of a CSV into numbers where every cell is one; `007` stays text, an empty cell is None."""
    for column in extra_columns(pairs):
        cells = [pair.extra[column] for pair in pairs if pair.extra.get(column) not in (None, "")]
        if not cells or not all(
            isinstance(cell, str) and re.fullmatch(r"-?(0|[1-9]\d{0,17})(\.\d+)?([eE][-+]?\d{1,3})?", cell)
            for cell in cells
        ):
            continue
        number = int if all(re.fullmatch(r"-?\d+", cell) for cell in cells) else float
        for pair in pairs:
            if column in pair.extra:
                pair.extra[column] = number(pair.extra[column]) if pair.extra[column] else None


def frame_of(pairs) -> pandas.DataFrame:
    """One row per pair: pair_id, prompt, chosen, rejected; tools and whole answer turns as JSON text, if any."""
    import pandas

    texts = {
        "pair_id": pandas.Series([pair.pair_id for pair in pairs], dtype="str"),
        "prompt": pandas.Series([[dict(turn) for turn in pair.prompt] for pair in pairs], dtype=object),
        "chosen": pandas.Series([pair.chosen for pair in pairs], dtype="str"),
        "rejected": pandas.Series([pair.rejected for pair in pairs], dtype="str"),
    }
    for name in STRUCTURED:  # as text: Arrow would give every object the keys of all others
        if any(getattr(pair, name) for pair in pairs):
            values = [getattr(pair, name) for pair in pairs]
            texts[name] = pandas.Series([json.dumps(value) if value else None for value in values], dtype=object)
    extras = {column: _series([pair.extra.get(column) for pair in pairs]) for column in extra_columns(pairs)}
    return pandas.DataFrame(texts | extras)


def _series(values):
    import pandas

    try:
        return pandas.Series(values)
    except (TypeError, ValueError, OverflowError):
        return pandas.Series(values, dtype=object)


def storable(frame) -> pandas.DataFrame:
    """The frame with JSON text in every column that a Parquet file cannot hold as it is."""
    import io

    import pyarrow

    if any("tool_calls" in turn for prompt in frame["prompt"] for turn in prompt):
        frame["prompt"] = [json.dumps(prompt) for prompt in frame["prompt"]]
    for column in frame.columns:
        try:
            frame[[column]].to_parquet(io.BytesIO())
        except (pyarrow.ArrowException, TypeError, ValueError, OverflowError):
            frame[column] = [None if _is_none(value) else json.dumps(value, default=str) for value in frame[column]]
    return frame


def _is_none(value):
    return value is None or (isinstance(value, float) and math.isnan(value))
