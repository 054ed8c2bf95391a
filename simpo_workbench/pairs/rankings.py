"""Several answers to one prompt, with ranks or ratings, and the pairs that a policy makes of them.

Standard library only.
"""

import math
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

from .named_answers import ANSWER_LISTS, named_pair
from .refused import RowRefused, excerpt, is_missing, kind_of
from .written import value_of

#: `data.pairs_from_ranking`: the best with the worst, each with the next worse, or every two of different grade.
POLICIES = ("best_worst", "adjacent", "all")
RANKS = ("rank", "ranks")
RATINGS = (
    "overall_score",
    "rating",
    "score",
    "ratings",
    "scores",
    "reward",
    "rewards",
    "fine-grained_score",
    "upvotes",
)
#: The place of the best answer in the list, counted from 0, as its data set documents it: (list, column).
BEST_PLACES = {("summaries", "choice")}
_TEXT_KEYS = ("response", "completion", "answer", "text", "output", "generation", "message", "messages")


@dataclass(frozen=True)
class Graded:
    """One answer, as text or turns, and its grade: higher is better, equal grades are ties."""

    value: object
    grade: float


@dataclass(frozen=True)
class Ranking:
    """The graded answers of one row, the column or key that grades them, and whether the grades are ratings."""

    answers: tuple[Graded, ...]
    graded_by: str
    rated: bool
    used: tuple[str, ...]


def list_column(row) -> str | None:
    """The column with several graded answers, or None."""
    for name in ANSWER_LISTS:
        value = as_list(row.get(name))
        if value is None or (name == "output" and not (any(map(_is_object, value)) or is_graded(row))):
            continue
        if not any(isinstance(item, str | dict | list) for item in value):
            continue
        return name
    return None


def is_graded(row) -> bool:
    """Whether a column of the row has a list of ranks or ratings."""
    return any(name in row and as_list(row[name]) is not None for name in (*RANKS, *RATINGS))


def _is_object(value):
    return isinstance(value, dict)


def as_list(value) -> list | None:
    """A list, also one that is written as text; None for anything else."""
    if isinstance(value, str):
        value = value_of(value)
    return value if isinstance(value, list) else None


def ranking_in(row, column) -> Ranking:
    """The graded answers of a row. Errors: RowRefused where nothing grades them, or grades and answers do not match."""
    if (named := named_pair(row, column)) is not None:
        better, worse, columns = named
        values = [_text_of(better)], [_text_of(worse)]
        return replace(several(values, columns), used=(column, *columns))
    answers = as_list(row[column])
    if not answers:
        raise RowRefused("empty", f"{column} is an empty list")
    for name in (*RANKS, *RATINGS):
        grades = as_list(row.get(name))
        if grades is not None:
            if len(grades) != len(answers):
                raise RowRefused("wrong type", f"{len(answers)} {column} and {len(grades)} {name}")
            return _graded(map(_text_of, answers), grades, name, (column, name))
    if "choice" in row and (column, "choice") in BEST_PLACES:
        place = row["choice"]
        if place not in range(len(answers)):
            raise RowRefused("wrong type", f"choice is {excerpt(place)}, expected a place in {len(answers)} {column}")
        grades = [float(number == place) for number in range(len(answers))]
        return _graded(map(_text_of, answers), grades, "choice", (column, "choice"))
    for key in (*RANKS, *RATINGS):
        if all(isinstance(answer, dict) and key in answer for answer in answers):
            return _graded(map(_text_of, answers), [answer[key] for answer in answers], key, (column,))
    raise RowRefused(
        "no grades", f"{len(answers)} answers in '{column}' without ranks or ratings: {_to_do(row, column)}"
    )


def _to_do(row, column):
    """How a row says which answers are better: by a list of numbers that it has, or by a new column."""
    number = len(as_list(row[column]))
    for name, value in row.items():
        grades = as_list(value) if name != column else None
        if grades is not None and len(grades) == number and all(_is_number(grade) for grade in grades):
            ranks, ratings = {"ranks": name}, {"ratings": name}
            return (
                f"if '{name}' has a number for each answer, the lowest for the best: columns={ranks}; the highest for"
                f" the best: columns={ratings} (data.columns)"
            )
    return "add a column `ratings` or `ranks` with one number for each answer"


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def several(values, better) -> Ranking:
    """The ranking of lists of chosen and rejected texts. values: (chosen texts, rejected texts)."""
    answers = [Graded(value, float(grade)) for grade, side in zip((1, 0), values, strict=True) for value in side]
    return Ranking(tuple(answers), " and ".join(better), False, tuple(better))


def _text_of(answer):
    """The text or turns of one answer of a list."""
    if not isinstance(answer, dict):
        return answer
    if "role" in answer or "from" in answer:
        return answer
    for key in (*_TEXT_KEYS, "content"):
        if not is_missing(answer.get(key)):
            return answer[key]
    raise RowRefused("missing", f"no text in an answer: {excerpt(answer)}")


def _graded(values, grades, name, used):
    answers = []
    lower_is_better = name in RANKS
    for value, grade in zip(values, grades, strict=True):
        number = _number(grade, name)
        if number is not None:
            answers.append(Graded(value, -number if lower_is_better else number))
    if len(answers) < 2:
        raise RowRefused("no grades", f"{len(answers)} of {len(grades)} answers have a number in '{name}'")
    return Ranking(tuple(answers), name, name not in (*RANKS, "choice"), used)


def _number(value, name):
    """A grade as a finite number; None where an answer has none ("N/A")."""
    if isinstance(value, bool):
        raise RowRefused("wrong type", f"{name} is {kind_of(value)}, expected a number")
    if isinstance(value, int | float):
        return None if is_missing(value) else _finite(float(value), name)
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return None
        return _finite(number, name) if number == number else None
    if value is None:
        return None
    raise RowRefused("wrong type", f"{name} is {kind_of(value)}, expected a number")


def _finite(number, name):
    if math.isinf(number):
        raise RowRefused("wrong type", f"{name} is {number}, expected a finite number")
    return number


def ranked_pairs(answers, policy) -> list[tuple[Graded, Graded]]:
    """(better, worse) pairs of graded answers by a policy of POLICIES; of equal grades the first stands for the others.

    best_worst: the best with the worst. adjacent: each grade with the next lower one. all: every two answers of
    different grades. Errors: RowRefused when all answers have one grade.
    """
    ordered = sorted(answers, key=lambda answer: -answer.grade)
    if not ordered or ordered[0].grade == ordered[-1].grade:
        raise RowRefused("tie", f"all {len(ordered)} answers are graded alike")
    if policy == "all":
        return [(better, worse) for better, worse in combinations(ordered, 2) if better.grade > worse.grade]
    levels = {}
    for answer in ordered:
        levels.setdefault(answer.grade, answer)
    levels = list(levels.values())
    return list(pairwise(levels)) if policy == "adjacent" else [(levels[0], levels[-1])]
