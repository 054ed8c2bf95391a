"""Raw rows as plain Python values: arrays as lists, keys as text, bounded in size and depth. Standard library only."""

from collections.abc import Mapping

from .refused import LONGEST_ROW, RowRefused, excerpt, too_long

DEEPEST_NESTING = 100
# asked for every value of every row: made once, the usual types first
_TEXTS, _SCALARS, _LISTS, _MAPPINGS = (str, bytes), (int, float, type(None)), (list, tuple), (dict, Mapping)
_SCALAR_TYPES = frozenset({int, float, bool, type(None)})


def plain_row(row) -> dict:
    """A raw row as a dict of plain Python values. Errors: RowRefused for no row, one too long or nested too deeply."""
    if _is_flat(row):
        return dict(row)
    if not isinstance(row, Mapping):
        raise RowRefused("wrong type", f"the row is {excerpt(row)}, expected an object with columns")
    if (characters := _characters(row, 0)) > LONGEST_ROW:
        raise too_long(characters)
    return _plain(row, 0)


def _is_flat(row):
    """Whether a row is a dict of ordinary keys with texts and numbers, not too long: most rows are."""
    if type(row) is not dict:
        return False
    characters = len(row)
    for key, value in row.items():
        if type(key) is not str or not key.isascii():
            return False
        if type(value) is str:
            characters += len(value)
        elif type(value) in _SCALAR_TYPES:
            characters += 1
        else:
            return False
    return characters <= LONGEST_ROW


def _characters(value, depth):
    """About how many characters and values a row holds; what is nested deeper than a row may be is not counted."""
    if isinstance(value, _TEXTS):
        return len(value)
    if isinstance(value, _SCALARS) or depth > DEEPEST_NESTING:
        return 1
    if isinstance(value, _LISTS):
        parts = value
    elif isinstance(value, _MAPPINGS):
        parts = value.values()
    else:
        return 1
    return len(value) + sum([_characters(part, depth + 1) for part in parts])


def _plain(value, depth):
    """The value in plain Python: arrays and tuples as lists, keys as text."""
    if isinstance(value, (_TEXTS, _SCALARS)):
        return value
    if depth > DEEPEST_NESTING:
        raise RowRefused("unreadable", f"nested deeper than {DEEPEST_NESTING} levels")
    if isinstance(value, _MAPPINGS):
        return {encodable(str(key)): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, _LISTS):
        return [_plain(item, depth + 1) for item in value]
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return _plain(value.tolist(), depth + 1)
    return value


def encodable(text) -> str:
    """The text with every half of a character written out."""
    # pandas keeps text in Arrow, which refuses half a character with an exception from deep inside
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
