"""Rows whose chosen and rejected values only name the answers, which stand in other columns. Standard library only.

Read as answers, the model would be trained to say "response_a". The names may be those of two sides (response_a, A,
model_a, a model's name), of columns, of keys of an object, or places in a list.
"""

from . import verdicts
from .judging_words import words_of
from .refused import RowRefused, excerpt, is_missing
from .votes import named_side, number_in
from .written import value_of

NAMED_SIDES, NAMED_COLUMNS, NAMED_IN_LIST = "sides", "columns", "list"
#: Columns that hold an answer, or its name.
NAMING = (
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),
    ("preferred_output", "non_preferred_output"),
)
ANSWER_LISTS = ("completions", "generations", "answers", "responses", "candidates", "outputs", "summaries", "output")
_LONGEST_NAME = 80
_NO_ANSWERS = frozenset({"id", "model", "name", "url", "source", "hash"})
_NAME_KEYS = ("model", "name", "id", "model_name", "answer_id", "response_id", "label")


def named_answers(row, columns) -> tuple | None:
    """How the values of two columns (better, worse) name the answers of a row; None where they are answers.

    (NAMED_SIDES,) beside two answers; (NAMED_COLUMNS, better column, worse column); (NAMED_IN_LIST, column of answers).
    Errors: RowRefused unclear label where a value may be both, or counts from 0 or from 1.
    """
    better, worse = row[columns[0]], row[columns[1]]
    if not (_may_name(better) and (_may_name(worse) or is_missing(worse))) or better == worse:
        return None
    sides = verdicts.sides_of(tuple(row))
    others = sides is not None and not {sides.first, sides.second} & set(columns)
    if others and _name_sides(row, sides, better, worse):
        if {"option", "options"} & set(words_of(sides.first)):
            raise _unclear_option(columns[0], better, sides)
        return (NAMED_SIDES,)
    if all(name not in columns and _is_a_column_of_answers(name, row) for name in (better, worse)):
        return NAMED_COLUMNS, better, worse
    for column in row:
        if column not in columns and _named_in(row, column, columns) is not None:
            return NAMED_IN_LIST, column
    return None


def named_pair(row, column) -> tuple[object, object, tuple[str, str]] | None:
    """(better, worse, the columns that name them) of a list or object of answers; None where nothing names them."""
    for columns in NAMING:
        both_name = set(columns) <= row.keys() and all(_may_name(row[name]) for name in columns)
        if both_name and (pair := _named_in(row, column, columns)) is not None:
            return (*pair, columns)
    return None


def _may_name(value):
    if isinstance(value, str):
        return 0 < len(value) <= _LONGEST_NAME and "\n" not in value
    return isinstance(value, int) and not isinstance(value, bool)


def _is_a_column_of_answers(name, row):
    holds_one = isinstance(name, str) and isinstance(row.get(name), str | list | dict)
    return holds_one and not _NO_ANSWERS & set(words_of(name))


def _name_sides(row, sides, better, worse):
    if better in (row[sides.first], row[sides.second]):
        return False  # the answer is written
    numbers = {number_in(value) for value in (better, worse) if not is_missing(value)}
    if None not in numbers:
        return numbers <= {0, 1, 2}
    if not isinstance(better, str) or not (side := named_side(better, sides, row, {})):
        return False
    return is_missing(worse) or (isinstance(worse, str) and named_side(worse, sides, row, {}) == -side)


def _unclear_option(column, value, sides):
    mapping = {"answer_1": sides.first, "answer_2": sides.second, "label": column}
    return RowRefused(
        "unclear label",
        f"{column} is {excerpt(value)}: the answer itself, or the name of '{sides.first}' or '{sides.second}'. If the"
        f" name: columns={mapping} (data.columns); if the answer: leave these two columns out of the rows",
    )


def _named_in(row, column, columns):
    """(better, worse) of a list or an object of answers that the two columns name; None where they do not."""
    value = row[column]
    if isinstance(value, str) and value[:1] in "[{":
        value = value_of(value)
    names = row[columns[0]], row[columns[1]]
    if isinstance(value, dict):
        if all(isinstance(name, str) and isinstance(value.get(name), str | list | dict) for name in names):
            return value[names[0]], value[names[1]]
        return None
    if not isinstance(value, list) or len(value) < 2 or column not in ANSWER_LISTS:
        return None
    if not all(isinstance(item, str | dict | list) for item in value) or names[0] in value:
        return None
    places = _places(row, value, names, columns)
    return None if places is None else (value[places[0]], value[places[1]])


def _places(row, answers, names, columns):
    """The places of two named answers in a list, from 0; None where the names are none of this list."""
    for key in _NAME_KEYS:
        listed = [answer.get(key) if isinstance(answer, dict) else None for answer in answers]
        if all(listed.count(name) == 1 for name in names):
            return [listed.index(name) for name in names]
    for other in row.values():
        beside = isinstance(other, list) and len(other) == len(answers) and other is not answers
        if beside and all(isinstance(name, str) and other.count(name) == 1 for name in names):
            return [other.index(name) for name in names]
    numbers = [number_in(name) for name in names]
    if None not in numbers and all(number == int(number) for number in numbers):
        from_0 = all(0 <= number < len(answers) for number in numbers)
        from_1 = all(1 <= number <= len(answers) for number in numbers)
        if from_0 and from_1:
            raise RowRefused(
                "unclear label",
                f"{columns[0]} is {excerpt(names[0])} and {columns[1]} {excerpt(names[1])} of {len(answers)} answers:"
                " nothing says whether they count from 0 or from 1. Make a column `ranks` or `ratings` of them",
            )
        return [int(number) - from_1 for number in numbers] if from_0 or from_1 else None
    letters = [ord(name.lower()) - ord("a") if isinstance(name, str) and len(name) == 1 else -1 for name in names]
    return letters if all(0 <= letter < len(answers) for letter in letters) else None
