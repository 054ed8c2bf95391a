"""One vote between two answers: the side that a text or a number names. Standard library only."""

import math
import re
from collections import Counter
from dataclasses import dataclass

from .judging_words import BETTER, INDEX_WORDS, LABEL_WORDS, UNCLEAR, WORSE, YES_WORDS, direction_of, words_of
from .refused import RowRefused, excerpt, is_missing

FIRST, TIE, SECOND = 1, 0, -1
#: Words of columns with answers, the likeliest first.
ANSWER_WORDS = (
    "answer", "response", "output", "completion", "reply", "generation", "prediction", "candidate", "summary",
    "solution", "continuation", "ref", "assistant", "result", "option", "message", "conversation", "dialogue", "chat",
    "text", "resp", "ans", "conv", "hypothesis", "translation", "trajectory", "story", "essay", "rewrite", "caption",
)  # fmt: skip
_TIES = re.compile(
    r"(?:it'?s )?(?:an? )?(?:ties?|tied|draw|equal(?:ly (?:good|bad|preferred))?|equivalent|same|about (?:the )?(?:same"
    r"|equal)|(?:the )?same(?: quality)?|similar(?: quality)?|neutral|indifferent|comparable|undecided|neither(?: (?:is"
    r" )?(?:good|better))?|none|no (?:clear )?(?:preference|difference|winner)|tie (?:both ?)?(?:good|bad)"
    r"|(?:both|all)(?: are)?(?: equally)?(?: good| bad)?|bothbad|bothgood|\[\[c\]\])"
)
_BETTER_TEXT = re.compile(
    r"\s*(?:is |are |was )?(?:much |slightly |significantly |clearly |a bit )*(?:better|wins?|won|preferred|winner)$"
)
_WORSE_TEXT = re.compile(
    r"\s*(?:is |was )?(?:much |slightly |significantly |clearly |a bit )*(?:worse|loses|lost|rejected)$"
)
_PREFERS = re.compile(
    r"^(?:i )?(?:strongly |slightly |clearly )?(?:prefers?|preferred|choose|chose|winner|better|best)(?: is)?[ :=]+"
)
#: Labels whose numbers have a meaning of their own, as their data sets document it: (first, second, label) -> reading.
KNOWN_LABELS = {
    ("response1", "response2", "overall_preference"): "negative is first",
    ("response_1", "response_2", "preference_strength"): "negative is first",
    ("human_ref_A", "human_ref_B", "labels"): "one is first",
}
#: What `data.columns` calls the two answers of a label that counts from 0 and from 1.
NUMBERED_ROLES = {0: ("answer_0", "answer_1"), 1: ("answer_1", "answer_2")}


@dataclass(frozen=True)
class Unclear:
    """Numbers of a label with more than one meaning, and the readings that there are."""

    readings: str


def votes_in(value) -> list:
    """The votes in a label's value: itself, or every annotator's of a list or an object."""
    if isinstance(value, list | tuple):
        return [vote for item in value for vote in votes_in(item)]
    if isinstance(value, dict):
        named = [value[word] for word in (*LABEL_WORDS, "overall_preference", "value") if word in value]
        return votes_in(named[0]) if named else [vote for item in value.values() for vote in votes_in(item)]
    return [] if is_missing(value) else [value]


def majority(votes) -> int:
    """The most frequent side; equal numbers are a TIE. Errors: RowRefused without a vote."""
    if not votes:
        raise RowRefused("missing", "no vote in the label")
    counts = Counter(votes).most_common()
    return TIE if len(counts) > 1 and counts[0][1] == counts[1][1] else counts[0][0]


def number_in(value) -> float | None:
    """A number, also one in a text; None for anything else."""
    if isinstance(value, bool | int | float):
        return None if is_missing(value) or math.isinf(value) else float(value)
    if isinstance(value, str) and len(value) < 40:
        try:
            number = float(value)
        except ValueError:
            return None
        return number if number == number and abs(number) != float("inf") else None
    return None


def number_of_vote(vote, label, sides) -> float | None:
    """The number of one vote; in a column that names a side, such as a_is_better, yes is 1 and no is 0."""
    if isinstance(vote, str) and len(set(sides.tokens) & set(words_of(label))) == 1:
        word = vote.strip().lower()
        if word in ("yes", "true"):
            return 1.0
        if word in ("no", "false"):
            return 0.0
    return number_in(vote)


def reading_of(label, sides, scale, mapping) -> "str | Unclear":
    """The meaning of a label's numbers: "negative is first", "one is first", "0 and 1", "1 and 2", or both readings.

    scale: all values of the label. mapping: {our name: the file's column}, for the advice.
    """
    known = KNOWN_LABELS.get((sides.first, sides.second, label))
    if known:
        return known
    advice = _Advice(label, sides, mapping)
    if direction_of(label) == UNCLEAR:
        return Unclear(
            f"whether it names the better or the worse answer. If the better: columns={advice.of(1, BETTER)}; if the"
            f" worse: columns={advice.of(1, WORSE)}"
        )
    if not scale.numbers:
        return "1 and 2"
    words, numbers, low, high = words_of(label), scale.numbers, scale.lowest, scale.highest
    whole = numbers <= {0, 1, 2}
    if scale.counted_from == 0 and whole and (0 in numbers or 2 not in numbers):
        return "0 and 1, 2 a tie"
    if scale.counted_from == 1 and whole and (0 not in numbers or 2 in numbers):
        return "1 and 2, 0 a tie"
    named = [token for token in sides.tokens if token in words]
    if len(named) == 1 and YES_WORDS & set(words) and low >= 0 and high <= 1:
        return "one is first" if named[0] == sides.tokens[0] else "0 and 1"
    unsaid = scale.counted_from is None
    if unsaid and sides.tokens == ("0", "1") and low >= 0 and high <= 1:
        return "0 and 1"
    if INDEX_WORDS & set(words) and numbers == {0, 1}:
        return "0 and 1"
    by_ones = sides.tokens == ("1", "2")
    if (
        scale.counted_from != 0
        and low >= 1
        and high <= 2
        and sides.tokens != ("0", "1")
        and (numbers != {1} or by_ones)
    ):
        return "1 and 2"
    if unsaid and numbers == {0} and by_ones:
        return "1 and 2"
    return Unclear(_readings(numbers, low, high, advice))


def _readings(numbers, low, high, advice):
    """What nothing says of these numbers, with a mapping for each reading where there is one."""
    first = advice.first
    if low >= 0 and high <= 1 and 0 in numbers:
        return (
            f"whether 0 or 1 means {first}. If 0 does: columns={advice.of(0)}; if 1 does:"
            f" columns={advice.of(0, turned=True)}"
        )
    if numbers <= {0, 1, 2} and {0, 2} <= numbers:
        return (
            f"whether 0 is a tie or {first}. If a tie: columns={advice.of(1)}; if {first}, and 2 a tie:"
            f" columns={advice.of(0)}"
        )
    if numbers == {1}:
        return (
            f"whether 1 means {first} or {advice.second}. columns={advice.of(1)} or columns={advice.of(1, turned=True)}"
        )
    if numbers <= {1, 2}:
        return (
            f"whether 1 or 2 means {first}. If 1 does: columns={advice.of(1)}; if 2 does:"
            f" columns={advice.of(1, turned=True)}"
        )
    if low >= 0 and high <= 1:
        return f"whether 1 means {first} or {advice.second}. Make a column of 1, 2 and “tie” of it"
    return f"which of the numbers from {low:g} to {high:g} means {first}. Make a column of 1, 2 and “tie” of it"


class _Advice:
    """Mappings in the file's own names, each for one reading of a label."""

    def __init__(self, label, sides, mapping):
        self.first, self.second = (mapping.get(name, name) for name in (sides.first, sides.second))
        self._label, self._direction = mapping.get(label, label), direction_of(label)
        answers = {*NUMBERED_ROLES[0], *NUMBERED_ROLES[1], "chosen", "rejected", "label", "worse_label"}
        self._others = {role: column for role, column in mapping.items() if role not in answers}

    def of(self, counted_from, direction=None, turned=False) -> dict:
        """The mapping by which the label counts from 0 or 1; turned: its first number means the second answer."""
        names = (self.second, self.first) if turned else (self.first, self.second)
        role = "worse_label" if (direction or self._direction) == WORSE else "label"
        return {**self._others, **dict(zip(NUMBERED_ROLES[counted_from], names, strict=True)), role: self._label}


def side_of(vote, label, sides, row, reading, mapping) -> int:
    """FIRST, TIE or SECOND: the better side by one vote. Errors: RowRefused wrong type, unclear label."""
    turn = -1 if direction_of(label) == WORSE else 1
    shown = mapping.get(label, label)
    number = number_of_vote(vote, label, sides)
    if number is None:
        side = named_side(vote, sides, row, mapping, turn) if isinstance(vote, str) else None
        if side is None:
            raise RowRefused("wrong type", f"{shown} is {excerpt(vote)}, expected {_expected(sides, mapping)}")
        if isinstance(reading, Unclear) and direction_of(label) == UNCLEAR and side != TIE:
            raise _unclear(shown, vote, reading)
        return side
    if isinstance(reading, Unclear):
        raise _unclear(shown, vote, reading)
    if reading == "negative is first":
        return (number < 0) - (number > 0)
    if reading == "one is first" and 0 <= number <= 1:
        return turn * ((number > 0.5) - (number < 0.5))
    if reading.startswith("0 and 1") and 0 <= number <= 1:
        return turn * ((number < 0.5) - (number > 0.5))
    if reading.startswith("1 and 2") and 1 <= number <= 2 and not isinstance(vote, bool):
        return turn * ((number < 1.5) - (number > 1.5))
    if (reading, number) in (("0 and 1, 2 a tie", 2), ("1 and 2, 0 a tie", 0)) and not isinstance(vote, bool):
        return TIE
    expected = "1 or 2" if reading.startswith("1 and 2") else "0 or 1"
    raise RowRefused("wrong type", f"{shown} is {excerpt(vote)}, expected {expected}, or the name of an answer")


def _unclear(label, vote, reading):
    return RowRefused(
        "unclear label", f"{label} is {excerpt(vote)}, and nothing says {reading.readings} (data.columns)"
    )


def _expected(sides, mapping):
    names = [f"'{mapping.get(name, name)}'" for name in (sides.first, sides.second)]
    short = "" if sides.tokens[0] in ("0", "1", "") else f", '{sides.tokens[0]}'"
    return f"the name of an answer ({' or '.join(names)}{short}), 1 or 2, or a tie"


def is_tie(text) -> bool:
    """Whether a text says that no answer is better."""
    return _TIES.fullmatch(re.sub(r"[\s_()-]+", " ", text.lower().rstrip(".! ")).strip()) is not None


def named_side(text, sides, row, mapping, turn=1) -> int | None:
    """FIRST, TIE or SECOND of a text that names a side, a model or a tie, or is an answer; None for any other text.

    turn: -1 where the column names the worse answer; a text that says itself which is better is then no such name.
    """
    text = text.strip()
    for side, name in ((FIRST, sides.first), (SECOND, sides.second)):
        if text in (name, mapping.get(name)) or (len(text) > 1 and row.get(name) == text):
            return turn * side
    if sides.models and text and row.get(sides.models[0]) != row.get(sides.models[1]):
        for side, name in zip((FIRST, SECOND), sides.models, strict=True):
            if row.get(name) == text:
                return turn * side
    text = text.lower().rstrip(".! ")
    if is_tie(text):
        return TIE
    text = text.strip("[]()")
    firsts, seconds = _side_words(sides)
    if compared := re.fullmatch(r"(\w+)\s*([<>=~])[<>=~]*\s*(\w+)", text):
        left, sign, right = compared.groups()
        if turn == -1 or not ((left in firsts and right in seconds) or (left in seconds and right in firsts)):
            return None
        side = {">": FIRST, "<": SECOND}.get(sign, TIE)
        return side if left in firsts else -side
    plain = text
    if (text := _WORSE_TEXT.sub("", plain)) != plain:
        says = WORSE
    else:
        text = _PREFERS.sub("", _BETTER_TEXT.sub("", plain))
        says = BETTER if text != plain else None
    text = re.sub(rf"^(?:the )?(?:model|system|{'|'.join(ANSWER_WORDS)})s?[ _-]*", "", text)
    text = re.sub(rf"[ _-]*(?:model|system|{'|'.join(ANSWER_WORDS)})s?$", "", text)
    side = FIRST if text in firsts else SECOND if text in seconds else None
    if side is None or (says is not None and turn == -1):
        return None
    return turn * side * (says or BETTER)


def _side_words(sides):
    # "response_1" beside the columns response_a and response_b may be counted from 0: only their own numbers are read
    if not sides.tokens[0]:
        return (), ()
    numbers = sides.tokens if sides.tokens[0] in ("0", "1") else ((), ())
    return {*numbers[0], "a", "first", "left", "one", "1st"}, {*numbers[1], "b", "second", "right", "two", "2nd"}
