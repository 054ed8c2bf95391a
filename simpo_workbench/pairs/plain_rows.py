"""Raw rows as plain Python values: arrays as lists, keys as text, bounded in size and depth. Standard library only."""

from collections.abc import Mapping

from .refused import LONGEST_ROW, RowRefused, excerpt, too_long

DEEPEST_NESTING = 100


def plain_row(row) -> dict:
    """A raw row as a dict of plain Python values. Errors: RowRefused for no row, one too long or nested too deeply."""
    if not isinstance(row, Mapping):
        raise RowRefused("wrong type", f"the row is {excerpt(row)}, expected an object with columns")
    if (characters := _characters(row, 0)) > LONGEST_ROW:
        raise too_long(characters)
    return _plain(row, 0)


def _characters(value, depth):
    """About how many characters and values a row holds; what is nested deeper than a row may be is not counted."""
    if isinstance(value, str | bytes):
        return len(value)
    if depth <= DEEPEST_NESTING and isinstance(value, Mapping):
        return len(value) + sum(_characters(item, depth + 1) for item in value.values())
    if depth <= DEEPEST_NESTING and isinstance(value, list | tuple):
        return len(value) + sum(_characters(item, depth + 1) for item in value)
    return 1


def _plain(value, depth):
    """The value in plain Python: arrays and tuples as lists, keys as text."""
    if value is None or isinstance(value, str | int | float | bytes):
        return value
    if depth > DEEPEST_NESTING:
        raise RowRefused("unreadable", f"nested deeper than {DEEPEST_NESTING} levels")
    if isinstance(value, Mapping):
        return {encodable(str(key)): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return _plain(value.tolist(), depth + 1)
    return value


def encodable(text) -> str:
    """The text with every half of a character written out."""
    # pandas keeps text in Arrow, which refuses half a character with an exception from deep inside
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
