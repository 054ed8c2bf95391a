"""Rows of one answer with a verdict on it (as for KTO) or a rating: pairs of rows that share a prompt.

Standard library only.
"""

import math
from dataclasses import dataclass

from .rankings import Graded, as_list, ranked_pairs
from .refused import RowRefused, excerpt, is_missing

#: Columns that say whether the one answer of a row is good.
LABELS = (
    "label", "is_desirable", "desirable", "kto_tag", "kto_label", "is_good", "thumbs_up", "feedback", "binary_label",
)  # fmt: skip
#: Columns that rate the one answer of a row; higher is better.
RATED = ("helpfulness", "rating", "score", "reward", "overall_score")
ANSWERS = ("completion", "response", "answer", "output", "messages", "conversations")
#: Labels whose names do not say that a 1 is good (it may be toxic, or a class), and columns of answers that do: KTO's.
_PLAIN_LABELS = frozenset({"label", "binary_label", "feedback"})
_ANSWERS_OF_KTO = frozenset({"completion", "messages", "conversations"})
_NUMBERS = frozenset({"1", "1.0", "+1", "0", "0.0", "-1", "-1.0"})
GOOD = frozenset(
    {
        "1", "1.0", "true", "yes", "desirable", "good", "positive", "chosen", "preferred", "up", "thumbs_up",
        "thumbs-up", "accepted", "like", "+1", "👍",
    }
)  # fmt: skip
BAD = frozenset(
    {
        "0", "0.0", "-1", "-1.0", "false", "no", "undesirable", "bad", "negative", "rejected", "down",
        "thumbs_down", "thumbs-down", "dislike", "👎",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Single:
    """One answer of an unpaired row. key: what identifies its prompt. number: the row's place in its source."""

    number: int
    key: str
    grade: float
    rated: bool
    content: object


def labelled_columns(row) -> tuple[str | None, str | None]:
    """(column of the one answer, column of its label or rating); (…, None) for rows that are not of this shape."""
    answer = next((name for name in ANSWERS if _is_answer(row.get(name))), None)
    if answer is None:
        return None, None
    label = next((name for name in (*LABELS, *RATED) if name in row and as_list(row[name]) is None), None)
    return answer, label


def _is_answer(value):
    return isinstance(value, str | dict) or (
        isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    )


def why_good(label) -> str:
    """Why the good values of a label count as good."""
    return "as KTO has it" if label in _PLAIN_LABELS else "as its name says"


def grade_of(row, label, answer) -> float:
    """1.0 for a good answer, 0.0 for a bad one, or its rating. answer: its column.

    Errors: RowRefused for another value, and for numbers whose meaning neither column's name settles.
    """
    value = row[label]
    if is_missing(value) or value == "":
        raise RowRefused("missing", f"no {label}")
    if label in RATED:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if isinstance(value, bool) or not math.isfinite(number):
            raise RowRefused("wrong type", f"{label} is {excerpt(value)}, expected a finite number")
        return number
    word = str(value).strip().lower() if isinstance(value, str | bool | int | float) else ""
    if word in _NUMBERS and label in _PLAIN_LABELS and answer not in _ANSWERS_OF_KTO:
        raise RowRefused(
            "unclear label",
            f"{label} is {excerpt(value)}, and nothing says which number is a good answer. If it is 1, call the column"
            " is_desirable; else write true and false",
        )
    if word in GOOD or word in BAD:
        return float(word in GOOD)
    raise RowRefused("wrong type", f"{label} is {excerpt(value)}, expected true or false for a good or a bad answer")


def paired(singles, policy) -> tuple[list[tuple[Single, Single]], dict[int, RowRefused]]:
    """((better, worse) of rows that share a prompt, {row number: why it is in no pair}).

    policy: of `rankings.POLICIES`; "best_worst" makes one pair per prompt.
    """
    groups, pairs, refused = {}, [], {}
    for single in singles:
        groups.setdefault(single.key, []).append(single)
    for group in groups.values():
        kind = "rated otherwise" if group[0].rated else "of the other label"
        try:
            made = ranked_pairs([Graded(single, single.grade) for single in group], policy)
        except RowRefused:
            alone = "the only answer to its prompt" if len(group) == 1 else f"no answer to its prompt is {kind}"
            refused |= {single.number: RowRefused("no partner", alone) for single in group}
            continue
        used = {single.value.number for pair in made for single in pair}
        pairs += [(better.value, worse.value) for better, worse in made]
        left_over = RowRefused("left over", f"data.pairs_from_ranking is {policy}; all makes every pair of a prompt")
        refused |= {single.number: left_over for single in group if single.number not in used}
    return pairs, refused
