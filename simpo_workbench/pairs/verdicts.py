"""Two answers side by side and a column that says which is better: who won, a tie, or why it cannot be told.

A label of 1 can mean "the first answer", "the second one, counted from 0", or "yes, the first is better". It is read
only where the names of the columns, or all values of the column together, leave one meaning. Standard library only.
"""

import functools
import re
from dataclasses import dataclass, field

from .judging_words import (
    BETTER,
    UNCLEAR,
    WORSE,
    direction_of,
    is_about_a_label,
    is_mark,
    label_rank,
    merit_of,
    words_of,
)
from .refused import RowRefused, excerpt, is_missing
from .votes import (
    ANSWER_WORDS,
    KNOWN_LABELS,
    TIE,
    Unclear,
    majority,
    named_side,
    number_in,
    number_of_vote,
    reading_of,
    side_of,
    votes_in,
)

__all__ = [
    *("FIRST", "NO_TOKENS", "SECOND", "TIE", "Scale", "Sides", "names_a_side", "no_label", "pairs_of_columns"),
    *("read_label", "reading_sentence", "sides_of", "winner"),
]

_TOKENS = (("0", "1"), ("1", "2"), ("a", "b"), ("first", "second"), ("left", "right"), ("one", "two"))
_MORE = {("0", "1"): "2", ("1", "2"): "3", ("a", "b"): "c", ("first", "second"): "third", ("one", "two"): "three"}
_NOT_ANSWERS = frozenset(
    {
        "score", "scores", "rating", "ratings", "rank", "label", "labels", "winner", "id", "model", "name",
        "tokens", "token", "length", "len", "logprob", "logprobs", "reward", "rewards", "url", "source", "type",
        "votes", "vote", "time", "embedding", "count", "better", "best",
    }
)  # fmt: skip
#: The names of the answers differ in more than one word.
NO_TOKENS = ("", "")
#: Words that may stand before the word for an answer, as in model_1_answer; "answer_1_model" is a model.
_WHOSE = frozenset({"model", "source", "type"})


@dataclass(frozen=True)
class Sides:
    """Two columns with an answer each, the words that tell them apart, and the columns that may say which is better.

    scores: a number for each side; marks: it is 1 or 0. unclear_scores: numbers of which nothing says whether more is
    better.
    """

    first: str
    second: str
    tokens: tuple[str, str]
    labels: tuple[str, ...] = ()
    annotators: tuple[str, ...] = ()
    scores: tuple[str, str] | None = None
    models: tuple[str, str] | None = None
    lower_is_better: bool = False
    unclear_scores: tuple[str, str] | None = None
    marks: bool = False


@functools.lru_cache(maxsize=512)
def sides_of(names: tuple[str, ...], answers: tuple[str, str] | None = None) -> Sides | None:
    """The two answers among column names, such as response_a and response_b; None without two, or with three.

    answers: the two columns with the answers, where they are known.
    """
    families = _families(names)
    if answers is None:
        found = []
        for (tokens, stem), columns in families.items():
            rank = _answer_rank(stem)
            if rank is not None and set(tokens) <= columns.keys() and len(columns) == 2:
                found.append((rank, len(stem), columns[tokens[0]], columns[tokens[1]], tokens))
        if not found:
            return None
        _, _, first, second, tokens = min(found)
    else:
        both = (
            (tokens, pair)
            for (tokens, _), columns in families.items()
            if set(pair := tuple(map(columns.get, tokens))) == set(answers)
        )
        tokens, (first, second) = next(both, (NO_TOKENS, answers))
    scores = [
        (columns[tokens[0]], columns[tokens[1]], BETTER if stem == ("label", "*") else merit_of(stem), is_mark(stem))
        for (other, stem), columns in families.items()
        if other == tokens and len(columns) == 2 and {*columns.values()} != {first, second} and _grades(tokens, stem)
    ]
    models = families.get((tokens, ("model", "*")), {})
    models = (models[tokens[0]], models[tokens[1]]) if len(models) == 2 else None
    taken = {first, second, *(models or ()), *(name for score in scores for name in score[:2])}
    clear = next((score for score in scores if score[2] != UNCLEAR), None)
    labels, annotators = _labels(names, taken, first, second, clear)
    return Sides(
        first, second, tokens, labels, annotators, clear and clear[:2], models,
        lower_is_better=clear is not None and clear[2] == WORSE,
        unclear_scores=None if clear else next((score[:2] for score in scores), None),
        marks=clear is not None and clear[3],
    )  # fmt: skip


def _families(names):
    """{(tokens, stem): {token: column}}: the columns whose names differ in one word that tells sides apart."""
    families = {}
    for name in names:
        words = words_of(name)
        for tokens in _TOKENS:
            for token in {*tokens, _MORE.get(tokens, tokens[0])} & set(words):
                stem = tuple("*" if word == token else word for word in words)
                families.setdefault((tokens, stem), {})[token] = name
    return families


def pairs_of_columns(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Two columns each whose names differ in one word that tells sides apart, whatever they hold."""
    families = _families(names).items()
    return [tuple(map(columns.get, tokens)) for (tokens, _), columns in families if set(tokens) == columns.keys()]


def _answer_rank(stem):
    """The place of a stem's word for an answer; None where its columns hold something else."""
    nouns = [word for word in stem if word != "*"]
    ends_as_answer = nouns and any(nouns[-1] in (word, f"{word}s") for word in ANSWER_WORDS)
    if (_NOT_ANSWERS - _WHOSE if ends_as_answer else _NOT_ANSWERS) & set(stem):
        return None
    return next((place for place, word in enumerate(ANSWER_WORDS) if word in stem or f"{word}s" in stem), None)


def _grades(tokens, stem):
    return merit_of(stem) is not None or (tokens == ("0", "1") and stem == ("label", "*"))


def _labels(names, taken, first, second, scores):
    """(labels, the surest first; columns of annotators) among the columns that are not taken."""
    labels = [name for name in names if name not in taken and label_rank(name) is not None]
    if scores:  # the third column of winner_model_a, winner_model_b, winner_tie says nothing more
        labels = [name for name in labels if "tie" not in words_of(name)]
    numbered = {}
    for name in labels:
        stem = re.sub(r"\d+|\b[a-h]\b", "*", "_".join(words_of(name)))
        numbered.setdefault(stem, []).append(name)
    annotators = next((tuple(group) for group in numbered.values() if len(group) >= 2), ())
    known = {name for name in labels if (first, second, name) in KNOWN_LABELS}
    if (
        not [name for name in labels if "safer" not in words_of(name)] and not scores
    ):  # which answer is safer counts only where nothing else does
        known |= {name for name in labels if "safer" in words_of(name)}
    labels = [name for name in labels if name not in annotators and (name in known or not is_about_a_label(name))]
    return tuple(sorted(labels, key=lambda name: (name not in known, label_rank(name)))), annotators


@dataclass
class Scale:
    """What all values of one label column say about its meaning: numbers seen, texts that name a side.

    counted_from: 0 or 1, where the user says from where its numbers count.
    """

    counted_from: int | None = None
    numbers: set = field(default_factory=set)
    lowest: float = float("inf")
    highest: float = float("-inf")
    readable: int = 0

    def add(self, label, sides: Sides, row: dict, mapping=None) -> None:
        """Count the value of a label in one row; of a list or an object, every vote in it."""
        turn = -1 if direction_of(label) == WORSE else 1
        for vote in votes_in(row.get(label)):
            number = number_of_vote(vote, label, sides)
            if number is not None:
                self.lowest, self.highest = min(self.lowest, number), max(self.highest, number)
                if len(self.numbers) < 1000:
                    self.numbers.add(number)
                self.readable += 1
            elif isinstance(vote, str) and named_side(vote, sides, row, mapping or {}, turn) is not None:
                self.readable += 1


def winner(
    row: dict, sides: Sides, scales: dict[str, Scale], mapping=None
) -> tuple[int, tuple[str, ...], float | None]:
    """(FIRST, TIE or SECOND, the columns that say so, margin of ratings or None) for one row.

    scales: {label column: Scale of the whole data set}. mapping: {our name: the file's column}, for the words of a
    refusal. Errors: RowRefused with the reasons unclear label, labels disagree, missing, wrong type, no label.
    """
    mapping = mapping or {}
    label = read_label(sides, scales)
    if label is not None:
        if is_missing(row.get(label)) or row[label] in ("", [], {}):
            raise RowRefused("missing", f"no {mapping.get(label, label)}")
        reading = reading_of(label, sides, scales[label], mapping)
        votes = [side_of(vote, label, sides, row, reading, mapping) for vote in votes_in(row[label])]
        margin = abs(float(row[label])) if reading == "negative is first" and len(votes) == 1 else None
        side = majority(votes)
        _require_agreement(side, label, row, sides, scales, mapping)
        _require_scores_to_agree(side, label, row, sides, mapping)
        return side, (label,), margin
    if sides.annotators and all(scales.get(name) for name in sides.annotators):
        joint = _joint(scales[name] for name in sides.annotators)
        if joint.readable:
            given = [name for name in sides.annotators if not is_missing(row.get(name)) and row[name] != ""]
            reading = reading_of(sides.annotators[0], sides, joint, mapping)
            votes = [
                side_of(vote, name, sides, row, reading, mapping) for name in given for vote in votes_in(row[name])
            ]
            if not votes:
                raise RowRefused("missing", f"no {sides.annotators[0]}")
            return majority(votes), sides.annotators, None
    if sides.scores:
        first, second = (_grade(name, row, sides, mapping) for name in sides.scores)
        side = (first > second) - (first < second)
        return -side if sides.lower_is_better else side, sides.scores, abs(first - second)
    if sides.labels:  # no value of it could be read, so this one says why
        votes = votes_in(row.get(sides.labels[0]))
        side_of(votes[0] if votes else None, sides.labels[0], sides, row, "1 and 2", mapping)
    raise no_label(sides, mapping)


def _grade(name, row, sides, mapping):
    """The number of one side. Errors: RowRefused without one, and for a mark other than 0 or 1."""
    value, number = row.get(name), number_in(row.get(name))
    if sides.marks and isinstance(value, str):
        number = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}.get(value.strip().lower(), number)
    if number is None:
        raise RowRefused("missing", f"no number in {mapping.get(name, name)}: {excerpt(value)}")
    if sides.marks and not 0 <= number <= 1:
        raise RowRefused("wrong type", f"{name} is {excerpt(value)}, expected 0 or 1 for each answer")
    return number


def read_label(sides: Sides, scales: dict[str, Scale]) -> str | None:
    """The label that is read: the first of which some value can be read; None without one."""
    return next((name for name in sides.labels if scales.get(name) and scales[name].readable), None)


def reading_sentence(sides: Sides, scales: dict[str, Scale], mapping: dict) -> str:
    """From which columns the better answer was read, and which way round, in the file's own names."""
    label, joined = read_label(sides, scales), None
    if label is not None:
        columns, means = (label,), ", which names the worse one" if direction_of(label) == WORSE else ""
    elif sides.annotators and all(scales.get(name) for name in sides.annotators):
        columns, means = sides.annotators, ""
    else:
        columns, joined = sides.scores, " and "
        if sides.marks:
            means = ", where 1 is the worse one" if sides.lower_is_better else ""
        else:
            means = f", where the {'lower' if sides.lower_is_better else 'higher'} is the better"
    first, second = (mapping.get(name, name) for name in (sides.first, sides.second))
    read = (joined or ", ").join(mapping.get(name, name) for name in columns)
    others = [mapping.get(name, name) for name in sides.labels if name != label and scales[name].readable]
    not_from = f", not from {', '.join(map(repr, others))}" if others else ""
    return f"Which of '{first}' and '{second}' is better was read from '{read}'{means}{not_from}"


def names_a_side(row: dict, sides: Sides) -> bool:
    """Whether a label of this row is a text that names one of the two answers, or a tie."""
    values = [row.get(name) for name in sides.labels]
    return any(isinstance(value, str) and named_side(value, sides, row, {}) is not None for value in values)


def no_label(sides: Sides, mapping=None) -> RowRefused:
    """The refusal of two answers of which nothing says which one is better, with the mapping that would say it."""
    names = (sides.first, sides.second, *(sides.unclear_scores or ()))
    first, second, *scores = ((mapping or {}).get(name, name) for name in names)
    both = {"answer_1": first, "answer_2": second}
    if not scores:
        return RowRefused(
            "no label",
            f"two answers ('{first}' and '{second}') and no column that says which one is better. If there is one:"
            f" columns={both | {'label': '…'}}",
        )
    higher, lower = (dict(zip((f"{role}_1", f"{role}_2"), scores, strict=True)) for role in ("score", "rank"))
    return RowRefused(
        "unclear label",
        f"nothing says whether more of '{scores[0]}' and '{scores[1]}' is better. If the higher is:"
        f" columns={both | higher}; if the lower is: columns={both | lower} (data.columns)",
    )


def _require_agreement(side, label, row, sides, scales, mapping):
    """Raise RowRefused where another column that can be read says that the other answer is better."""
    for other in sides.labels:
        scale = scales.get(other) if other != label else None
        if scale is None or not scale.readable or is_missing(row.get(other)):
            continue
        reading = reading_of(other, sides, scale, mapping)
        if isinstance(reading, Unclear):
            continue
        try:
            says = majority([side_of(vote, other, sides, row, reading, mapping) for vote in votes_in(row[other])])
        except RowRefused:  # a text or number that names no side
            continue
        if says == -side != TIE:
            shown = mapping.get(label, label), mapping.get(other, other)
            raise RowRefused(
                "labels disagree", f"{shown[0]} is {excerpt(row[label])}, {shown[1]} {excerpt(row[other])}"
            )


def _require_scores_to_agree(side, label, row, sides, mapping):
    """Raise RowRefused where the two numbers beside the answers say that the other answer is better."""
    numbers = [number_in(row.get(name)) for name in sides.scores or ()]
    if not numbers or None in numbers:
        return
    lead = (numbers[0] - numbers[1]) * (-1 if sides.lower_is_better else 1)
    if lead * side < 0:
        shown = ", ".join(f"{name} {excerpt(row[name])}" for name in sides.scores)
        raise RowRefused(
            "labels disagree",
            f"{mapping.get(label, label)} is {excerpt(row[label])}, {shown}; columns may name the label",
        )


def _joint(scales):
    joint = Scale()
    for scale in scales:
        joint.numbers |= scale.numbers
        joint.lowest, joint.highest = min(joint.lowest, scale.lowest), max(joint.highest, scale.highest)
        joint.readable += scale.readable
    return joint
