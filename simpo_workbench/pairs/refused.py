"""A refused row, and short words for the values that it holds. Standard library only."""

import math
import reprlib

NON_TEXT = "image or other non-text part"
#: Characters of one row: about two million tokens, more than any model reads.
LONGEST_ROW = 10_000_000


class RowRefused(Exception):
    """A row is no usable pair. reason: what the report counts by; seen: what this row holds."""

    def __init__(self, reason, seen):
        super().__init__(f"{reason}: {seen}")
        self.reason = reason
        self.seen = seen


def too_long(characters) -> RowRefused:
    """The refusal of a row with this many characters."""
    return RowRefused("too long", f"{characters:,} characters, at most {LONGEST_ROW:,} are read")


def excerpt(value, length=60) -> str:
    """A short quotation of any value, about `length` characters at most."""
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes"
    try:
        text = repr(value[: length + 1]) if isinstance(value, str) else reprlib.repr(value)
    except ValueError:  # an int of more than 4300 digits has no repr
        return kind_of(value)
    return text if len(text) <= length else text[:length] + "…"


def names_of(row) -> str:
    """The column names of a row in one short line."""
    return excerpt(", ".join(sorted(map(str, row))), 120)


def is_missing(value) -> bool:
    """Whether a value stands for "nothing here": None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


_KINDS = {str: "text", bool: "true/false", list: "a list", dict: "an object", type(None): "missing"}
_KINDS |= {int: "a number", float: "a number"}


def kind_of(value) -> str:
    """The kind of a value in words, such as "text" or "a list"."""
    return _KINDS.get(type(value), f"a {type(value).__name__}")
