"""Two answers side by side and a column that says which is better: who won, a tie, or why it cannot be told.

A label of 1 can mean "the first answer", "the second one, counted from 0", or "yes, the first is better". It is read
only where the names of the columns, or all values of the column together, leave one meaning. Standard library only.
"""

import functools
import math
import re
from collections import Counter
from dataclasses import dataclass, field

from .refused import RowRefused, excerpt, is_missing

FIRST, TIE, SECOND = 1, 0, -1
_TOKENS = (("0", "1"), ("1", "2"), ("a", "b"), ("first", "second"), ("left", "right"), ("one", "two"))
_MORE = {("0", "1"): "2", ("1", "2"): "3", ("a", "b"): "c", ("first", "second"): "third", ("one", "two"): "three"}
#: Words of columns with answers, the likeliest first.
_ANSWER_WORDS = (
    "answer", "response", "output", "completion", "reply", "generation", "prediction", "candidate", "summary",
    "solution", "continuation", "ref", "assistant", "result", "option", "message", "conversation", "dialogue", "chat",
    "text",
)  # fmt: skip
_NOT_ANSWERS = frozenset(
    {
        "score", "scores", "rating", "ratings", "rank", "label", "labels", "winner", "id", "model", "name",
        "tokens", "token", "length", "len", "logprob", "logprobs", "reward", "rewards", "url", "source", "type",
        "votes", "vote", "time", "embedding", "count", "better", "best",
    }
)  # fmt: skip
_LABEL_WORDS = (
    "label", "labels", "preference", "preferences", "winner", "winners", "better", "best", "preferred", "choice",
    "choices", "verdict", "verdicts", "judgement", "judgment", "judgements", "judgments", "vote", "votes", "win",
    "wins", "selected", "prefer", "prefers", "annotation", "annotations", "annotator", "annotators", "chosen", "safer",
)  # fmt: skip
#: Words of columns that are about a judgement and are none: who gave it, how sure or how strong it is, and why.
_ABOUT_LABELS = frozenset(
    {
        "strength", "confidence", "confident", "count", "num", "number", "margin", "reason", "reasons", "rationale",
        "explanation", "comment", "comments", "time", "type", "source", "agreement", "certainty",
    }
)  # fmt: skip
_JUDGES = frozenset({"annotator", "annotators"})
_YES_WORDS = frozenset(
    {
        "better", "best", "win", "wins", "won", "winner", "preferred", "prefer", "prefers", "chosen", "selected",
        "good",
    }
)  # fmt: skip
_SCORE_WORDS = frozenset(
    {
        "score", "scores", "rating", "ratings", "reward", "rewards", "votes", "upvotes", "points", "winner", "wins",
        "win", "likes", "quality", "helpfulness",
    }
)  # fmt: skip
#: Measures of which less is better, or neither.
_NO_MERITS = frozenset(
    {
        "toxic", "toxicity", "harm", "harmful", "harmfulness", "risk", "unsafe", "length", "len", "perplexity", "ppl",
        "loss", "cost", "error", "errors", "bias", "hallucination", "verbosity", "complexity",
    }
)  # fmt: skip
_INDEX_WORDS = frozenset({"index", "idx", "id"})
_TIES = re.compile(
    r"(?:it'?s )?(?:an? )?(?:ties?|tied|draw|equal(?:ly good|ly bad)?|same|about the same|both(?: are)?(?: good| bad)?"
    r"|bothbad|neither|none|no (?:preference|difference|winner)|tie[ _]*\(?(?:both ?)?(?:good|bad)\)?|\[\[c\]\])"
)
#: Labels whose numbers have a meaning of their own, as their data sets document it: (first, second, label) -> reading.
KNOWN_LABELS = {
    ("response1", "response2", "overall_preference"): "negative is first",
    ("response_1", "response_2", "preference_strength"): "negative is first",
    ("human_ref_A", "human_ref_B", "labels"): "one is first",
}


@dataclass(frozen=True)
class Sides:
    """Two columns with an answer each, the words that tell them apart, and the columns that may say which is better."""

    first: str
    second: str
    tokens: tuple[str, str]
    labels: tuple[str, ...] = ()
    annotators: tuple[str, ...] = ()
    scores: tuple[str, str] | None = None
    models: tuple[str, str] | None = None


@functools.lru_cache(maxsize=512)
def sides_of(names: tuple[str, ...]) -> Sides | None:
    """The two answers among column names, such as response_a and response_b; None without two, or with three."""
    by_words, families = {name: _words(name) for name in names}, {}
    for name, words in by_words.items():
        for tokens in _TOKENS:
            for token in {*tokens, _MORE.get(tokens, tokens[0])} & set(words):
                stem = tuple("*" if word == token else word for word in words)
                families.setdefault((tokens, stem), {})[token] = name
    found = []
    for (tokens, stem), columns in families.items():
        rank = next((place for place, word in enumerate(_ANSWER_WORDS) if word in stem or f"{word}s" in stem), None)
        if rank is None or _NOT_ANSWERS & set(stem) or not set(tokens) <= columns.keys() or len(columns) > 2:
            continue
        found.append((rank, len(stem), columns[tokens[0]], columns[tokens[1]], tokens))
    if not found:
        return None
    _, _, first, second, tokens = min(found)
    scores = next(
        (
            (columns[tokens[0]], columns[tokens[1]])
            for (other, stem), columns in families.items()
            if other == tokens
            and len(columns) == 2
            and not _NO_MERITS & set(stem)
            and (_SCORE_WORDS & set(stem) or (tokens == ("0", "1") and stem == ("label", "*")))
        ),
        None,
    )
    models = families.get((tokens, ("model", "*")), {})
    taken = {first, second, *(scores or ())}
    labels = [name for name in names if name not in taken and _label_rank(by_words[name]) is not None]
    if scores:  # the third column of winner_model_a, winner_model_b, winner_tie says nothing more
        labels = [name for name in labels if "tie" not in by_words[name]]
    numbered = {}
    for name in labels:
        stem = re.sub(r"\d+|\b[a-h]\b", "*", "_".join(by_words[name]))
        numbered.setdefault(stem, []).append(name)
    annotators = next((tuple(group) for group in numbered.values() if len(group) >= 2), ())
    labels = sorted(
        (
            name
            for name in labels
            if name not in annotators
            and ((first, second, name) in KNOWN_LABELS or not _is_about_a_label(by_words[name]))
        ),
        key=lambda name: ((first, second, name) not in KNOWN_LABELS, _label_rank(by_words[name])),
    )
    models = (models[tokens[0]], models[tokens[1]]) if len(models) == 2 else None
    return Sides(first, second, tokens, tuple(labels), annotators, scores, models)


def _words(name):
    name = re.sub(r"(?<=[a-z])(?=[A-Z0-9])", "_", str(name))
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]


def _is_about_a_label(words):
    """Whether a column names who judged, or says something of a judgement, such as annotator_id or num_votes."""
    judged = [word for word in words if word in _LABEL_WORDS]
    is_an_id = _INDEX_WORDS & set(words) and not _YES_WORDS & set(words)
    return bool(_ABOUT_LABELS & set(words) or is_an_id or set(judged) <= _JUDGES)


def _label_rank(words):
    return next((place for place, word in enumerate(_LABEL_WORDS) if word in words), None)


@dataclass
class Scale:
    """What all values of one label column say about its meaning: numbers seen, texts that name a side."""

    numbers: set = field(default_factory=set)
    lowest: float = float("inf")
    highest: float = float("-inf")
    readable: int = 0

    def add(self, value, sides: Sides, row: dict) -> None:
        """Count one value; of a list or an object, every vote in it."""
        for vote in _votes(value):
            number = _number(vote)
            if number is not None:
                self.lowest, self.highest = min(self.lowest, number), max(self.highest, number)
                if len(self.numbers) < 1000:
                    self.numbers.add(number)
                self.readable += 1
            elif isinstance(vote, str) and _named(vote, sides, row) is not None:
                self.readable += 1


def winner(row: dict, sides: Sides, scales: dict[str, Scale]) -> tuple[int, tuple[str, ...], float | None]:
    """(FIRST, TIE or SECOND, the columns that say so, margin of ratings or None) for one row.

    scales: {label column: Scale of the whole data set}. Errors: RowRefused with the reasons unclear label, labels
    disagree, missing, wrong type.
    """
    label = next((name for name in sides.labels if scales.get(name) and scales[name].readable), None)
    if label is not None:
        if is_missing(row.get(label)) or row[label] in ("", [], {}):
            raise RowRefused("missing", f"no {label}")
        reading = _reading_of(label, sides, scales[label])
        votes = [_vote(vote, label, sides, row, reading) for vote in _votes(row[label])]
        margin = abs(float(row[label])) if reading == "negative is first" and len(votes) == 1 else None
        side = _majority(votes)
        _require_agreement(side, label, row, sides, scales)
        return side, (label,), margin
    if sides.annotators and all(scales.get(name) for name in sides.annotators):
        joint = _joint(scales[name] for name in sides.annotators)
        if joint.readable:
            given = [name for name in sides.annotators if not is_missing(row.get(name)) and row[name] != ""]
            reading = _reading_of(sides.annotators[0], sides, joint)
            votes = [_vote(vote, name, sides, row, reading) for name in given for vote in _votes(row[name])]
            if not votes:
                raise RowRefused("missing", f"no {sides.annotators[0]}")
            return _majority(votes), sides.annotators, None
    if sides.scores:
        first, second = (_number(row.get(name)) for name in sides.scores)
        if first is None or second is None:
            name = sides.scores[0] if first is None else sides.scores[1]
            raise RowRefused("missing", f"no number in {name}: {excerpt(row.get(name))}")
        return (first > second) - (first < second), sides.scores, abs(first - second)
    if sides.labels:
        name = sides.labels[0]
        raise RowRefused("wrong type", f"{name} is {excerpt(row.get(name))}, expected 1 or 2 for the better answer")
    raise RowRefused(
        "no label", f"two answers ('{sides.first}' and '{sides.second}') and no column that says which one is better"
    )


def _require_agreement(side, label, row, sides, scales):
    """Raise RowRefused where another column that can be read says that the other answer is better."""
    for other in sides.labels:
        reading = _reading_of(other, sides, scales[other]) if other != label and scales.get(other) else None
        if reading is None or not scales[other].readable or isinstance(reading, Unclear) or is_missing(row.get(other)):
            continue
        try:
            says = _majority([_vote(vote, other, sides, row, reading) for vote in _votes(row[other])])
        except RowRefused:  # a text or number that names no side
            continue
        if says == -side != TIE:
            raise RowRefused("labels disagree", f"{label} is {excerpt(row[label])}, {other} {excerpt(row[other])}")


def _joint(scales):
    joint = Scale()
    for scale in scales:
        joint.numbers |= scale.numbers
        joint.lowest, joint.highest = min(joint.lowest, scale.lowest), max(joint.highest, scale.highest)
        joint.readable += scale.readable
    return joint


def _reading_of(label, sides, scale):
    """The meaning of a label's numbers: "negative is first", "one is first", "0 and 1", "1 and 2", or both readings."""
    known = KNOWN_LABELS.get((sides.first, sides.second, label))
    if known or not scale.numbers:
        return known or "1 and 2"
    words, numbers = _words(label), scale.numbers
    low, high, first, second = scale.lowest, scale.highest, sides.first, sides.second
    ours = (first, second) in (("answer_0", "answer_1"), ("answer_1", "answer_2"))
    whole = numbers <= {0, 1, 2}
    if ours and whole:
        return "0 and 1" if first == "answer_0" else "1 and 2"
    named = [token for token in sides.tokens if token in words]
    if len(named) == 1 and _YES_WORDS & set(words) and low >= 0 and high <= 1:
        return "one is first" if named[0] == sides.tokens[0] else "0 and 1"
    if sides.tokens == ("0", "1") and low >= 0 and high <= 1:
        return "0 and 1"
    if _INDEX_WORDS & set(words) and numbers == {0, 1}:
        return "0 and 1"
    if low >= 1 and high <= 2 and sides.tokens != ("0", "1") and (numbers != {1} or sides.tokens == ("1", "2")):
        return "1 and 2"
    if numbers == {0} and sides.tokens == ("1", "2"):
        return "1 and 2"
    by_index = {"answer_0": first, "answer_1": second, "label": label}
    by_number = {"answer_1": first, "answer_2": second, "label": label}
    if low >= 0 and high <= 1 and 0 in numbers:
        turned = {"answer_0": second, "answer_1": first, "label": label}
        return Unclear(f"whether 0 or 1 means {first}. If 0 does: columns={by_index}; if 1 does: columns={turned}")
    if whole and {0, 2} <= numbers:
        return Unclear(
            f"whether 0 is a tie or {first}. If a tie: columns={by_number}; if {first}, and 2 a tie: columns={by_index}"
        )
    if numbers == {1}:
        turned = {"answer_1": second, "answer_2": first, "label": label}
        return Unclear(f"whether 1 means {first} or {second}. columns={by_number} or columns={turned}")
    if low >= 0 and high <= 1:
        return Unclear(f"whether 1 means {first} or {second}. Make a column of 1, 2 and “tie” of it")
    return Unclear(
        f"which of the numbers from {low:g} to {high:g} means {first}. Make a column of 1, 2 and “tie” of it"
    )


@dataclass(frozen=True)
class Unclear:
    """Numbers of a label with more than one meaning, and the readings that there are."""

    readings: str


def _vote(vote, label, sides, row, reading):
    """FIRST, TIE or SECOND of one vote."""
    number = _number(vote)
    if number is None:
        side = _named(vote, sides, row) if isinstance(vote, str) else None
        if side is None:
            raise RowRefused("wrong type", f"{label} is {excerpt(vote)}, expected 1 or 2 for the better answer")
        return side
    if isinstance(reading, Unclear):
        raise RowRefused(
            "unclear label", f"{label} is {excerpt(vote)}, and nothing says {reading.readings} (data.columns)"
        )
    if reading == "negative is first":
        return (number < 0) - (number > 0)
    if reading == "one is first" and 0 <= number <= 1:
        return (number > 0.5) - (number < 0.5)
    if reading == "0 and 1" and 0 <= number <= 1:
        return (number < 0.5) - (number > 0.5)
    if reading == "1 and 2" and 1 <= number <= 2 and not isinstance(vote, bool):
        return (number < 1.5) - (number > 1.5)
    if (sides.first, number) in (("answer_0", 2), ("answer_1", 0)) and not isinstance(vote, bool):
        return TIE
    expected = "0 or 1" if reading in ("0 and 1", "one is first") else "1 or 2"
    raise RowRefused("wrong type", f"{label} is {excerpt(vote)}, expected {expected} for the better answer")


def _named(text, sides, row):
    """FIRST, TIE or SECOND of a text that names a side, a tie or a model; None for any other text."""
    text = text.strip()
    if text in (sides.first, sides.second):
        return FIRST if text == sides.first else SECOND
    if sides.models and text and row.get(sides.models[0]) != row.get(sides.models[1]):
        for side, name in zip((FIRST, SECOND), sides.models, strict=True):
            if row.get(name) == text:
                return side
    text = text.lower().rstrip(".! ")
    if _TIES.fullmatch(text):
        return TIE
    text = text.strip("[]()")
    firsts, seconds = _side_words(sides)
    if compared := re.fullmatch(r"(\w+)\s*([<>=~])[<>=~]*\s*(\w+)", text):
        left, sign, right = compared.groups()
        if left in firsts and right in seconds:
            return {">": FIRST, "<": SECOND}.get(sign, TIE)
        if left in seconds and right in firsts:
            return {">": SECOND, "<": FIRST}.get(sign, TIE)
        return None
    text = re.sub(
        r"\s*(?:is |are )?(?:much |slightly |significantly |clearly )*(?:better|wins?|won|preferred)$", "", text
    )
    text = re.sub(rf"^(?:the )?(?:model|system|{'|'.join(_ANSWER_WORDS)})s?[ _-]*", "", text)
    text = re.sub(rf"[ _-]*(?:model|system|{'|'.join(_ANSWER_WORDS)})s?$", "", text)
    if text in firsts:
        return FIRST
    return SECOND if text in seconds else None


def _side_words(sides):
    # "response_1" beside the columns response_a and response_b may be counted from 0: only their own numbers are read
    numbers = sides.tokens if sides.tokens[0] in "01" else ((), ())
    return {*numbers[0], "a", "first", "left", "one", "1st"}, {*numbers[1], "b", "second", "right", "two", "2nd"}


def _votes(value):
    """The votes in a label's value: itself, or every annotator's of a list or an object."""
    if isinstance(value, list | tuple):
        return [vote for item in value for vote in _votes(item)]
    if isinstance(value, dict):
        named = [value[word] for word in (*_LABEL_WORDS, "overall_preference", "value") if word in value]
        return _votes(named[0]) if named else [vote for item in value.values() for vote in _votes(item)]
    return [] if is_missing(value) else [value]


def _majority(votes):
    if not votes:
        raise RowRefused("missing", "no vote in the label")
    counts = Counter(votes).most_common()
    return TIE if len(counts) > 1 and counts[0][1] == counts[1][1] else counts[0][0]


def _number(value):
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
