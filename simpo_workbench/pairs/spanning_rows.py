"""Rows of JSON files in which one object stands after another and each spans several lines (pretty-printed)."""

import json
import re
from collections.abc import Iterator

from .refused import LONGEST_ROW, RowRefused, too_long

_NEXT_OBJECT = re.compile(r"^\{", re.MULTILINE)


def first_object_end(text, decoder) -> int | None:
    """The number of the line, from 1, on which a text's first JSON object ends; None where it is broken."""
    start = len(text) - len(text.lstrip())
    if text[start : start + 1] != "{":
        return None
    try:
        _, end = decoder.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return text.count("\n", 0, end) - text.count("\n", 0, start) + 1


def spanning_rows(text, decoder) -> Iterator[tuple[str, object]]:
    """(where, row) of every object in a text, with the line on which it begins.

    What cannot be read is one RowRefused, and reading goes on at the next line that begins with "{".
    """
    position, line, counted_to = 0, 1, 0
    while (position := _after_blanks(text, position)) < len(text):
        line, counted_to = line + text.count("\n", counted_to, position), position
        try:
            row, end = decoder.raw_decode(text, position)
            if end - position > LONGEST_ROW:
                row = too_long(end - position)
        except json.JSONDecodeError as error:
            row, end = RowRefused("unreadable", f"{error.msg} (line {error.lineno}, column {error.colno})"), None
        except RecursionError:
            row, end = RowRefused("unreadable", "nested too deeply"), None
        yield f"line {line}", row
        if end is None:
            following = _NEXT_OBJECT.search(text, position + 1)
            end = following.start() if following else len(text)
        position = end


def _after_blanks(text, position):
    while position < len(text) and text[position].isspace():
        position += 1
    return position
