"""A mapping for rows whose columns have other names, proposed by what the columns are called and hold, and tried.

What nothing in the rows says, such as which answer a label of 1 means, is left to the user as a question.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from . import verdicts
from .advice import tried, tried_guess
from .guesses import prompts_among
from .judging_words import BETTER, UNCLEAR, WORSE, direction_of, label_rank, merit_of, words_of
from .rankings import as_list
from .refused import excerpt, is_missing
from .votes import number_in

_MOST_VERDICTS = 8  # different values of a column that judges
_LONGEST_VERDICT = 24


@dataclass(frozen=True)
class Proposal:
    """columns: {our name: the file's column}. question: what only the user can say before it is used, else empty."""

    columns: dict[str, str]
    question: str = ""


def propose(rows: list[dict]) -> Proposal | None:
    """The mapping that fits these raw rows, or the part of one that the user must complete; None where none does."""
    names = tuple(dict.fromkeys(str(name) for row in rows for name in row))
    sides = verdicts.sides_of(names)
    if sides and (sides.labels or sides.annotators or sides.scores or sides.unclear_scores):
        return _of_sides(rows, names, sides)
    if guess := tried_guess(rows):
        return Proposal(guess)
    texts, lists, verdict_columns = _kinds(rows, names)
    prompt = next(iter(prompts_among(rows, texts)), None)
    if lists:
        return _of_lists(rows, lists, prompt or (texts[0] if len(texts) == 1 else None))
    prompt = prompt or (texts[0] if len(texts) > 1 else None)
    answers = [name for name in texts if name != prompt]
    if len(answers) == 2:
        named = verdicts.sides_of(names, tuple(answers))
        labels = [name for name in verdict_columns if name in named.labels] or verdict_columns
        if not labels and named.tokens == verdicts.NO_TOKENS:
            return None
        return _of_two_texts(rows, prompt, (named.first, named.second), labels)
    if len(answers) == 1 and prompt:
        return _of_one_answer(rows, prompt, answers[0], verdict_columns)
    return None


def _fits(rows, report):
    return bool(report.kept) and 2 * report.kept >= len(rows)


def _kinds(rows, names) -> tuple[list[str], list[str], list[str]]:
    """(columns of free text, of lists with two items or more, of few short values), each in the rows' order."""
    texts, lists, few = [], [], []
    for name in names:
        values = [value for row in rows if not is_missing(value := row.get(name)) and value != ""]
        if not values:
            continue
        listed = [as_list(value) for value in values]
        if all(value is not None for value in listed):
            if 2 * sum(len(value) > 1 for value in listed) >= len(values):
                lists.append(name)
        elif all(map(_is_short, values)) and len(set(map(str, values))) <= min(_MOST_VERDICTS, max(len(values) - 1, 2)):
            few.append(name)
        elif all(isinstance(value, str) for value in values) and any(number_in(value) is None for value in values):
            texts.append(name)
    return texts, lists, few


def _is_short(value):
    return isinstance(value, str | bool | int | float) and len(str(value)) <= _LONGEST_VERDICT


def _of_sides(rows, names, sides) -> Proposal | None:
    """Two answers that their names tell apart."""
    texts = [name for name in _kinds(rows, names)[0] if name not in (sides.first, sides.second)]
    prompt = next(iter(prompts_among(rows, texts)), None)
    if sides.labels:
        return _of_two_texts(rows, prompt, (sides.first, sides.second), sides.labels)
    both = _with_prompt(prompt, {"answer_1": sides.first, "answer_2": sides.second})
    if sides.unclear_scores:
        first, second = sides.unclear_scores
        return Proposal(both | {"score_1": first, "score_2": second}, _which_is_better(f"{first} and {second}"))
    if sides.scores and not sides.marks:
        role = "rank" if sides.lower_is_better else "score"
        return _whole(rows, both | {f"{role}_1": sides.scores[0], f"{role}_2": sides.scores[1]})
    return None


def _of_two_texts(rows, prompt, answers, labels) -> Proposal | None:
    """Two answers and the first label with which the rows make pairs; a question where its readings differ."""
    recognised = [pair.chosen for pair in tried(rows, _with_prompt(prompt, {}))[0]]
    for label in labels:
        outcomes = []
        for reading in _readings(answers, label, _has_numbers(rows, label)):
            columns = _with_prompt(prompt, reading)
            pairs, report = tried(rows, columns)
            outcomes.append((columns, report.kept, [pair.chosen for pair in pairs]))
        most = max(kept for _, kept, _ in outcomes)
        if not most or 2 * most < len(rows):
            continue
        outcomes = [outcome for outcome in outcomes if outcome[1] == most]
        agreed = [outcome for outcome in outcomes if outcome[2] == recognised]  # what the label's own name says
        columns, _, chosen = (agreed or outcomes)[0]
        question = ""
        if direction_of(label) == UNCLEAR or label_rank(label) is None:
            question = f"Does {label} name the better or the worse answer? Nothing says it."
        elif not agreed and any(other != chosen for *_, other in outcomes):
            question = f"{label} holds {_values(rows, label)}: which of them means {answers[0]}? Nothing says it."
        return Proposal(columns, question)
    return Proposal(_with_prompt(prompt, {"answer_1": answers[0], "answer_2": answers[1]}), _no_label(labels))


def _readings(answers, label, has_numbers) -> Iterator[dict[str, str]]:
    """The mappings that give a label a meaning: by name or counted from 1, from 0, or 1 for the first answer."""
    first, second = answers
    role = "worse_label" if direction_of(label) == WORSE else "label"
    yield {"answer_1": first, "answer_2": second, role: label}
    if has_numbers:
        yield {"answer_0": first, "answer_1": second, role: label}
        yield {"answer_0": second, "answer_1": first, role: label}


def _of_lists(rows, lists, prompt) -> Proposal | None:
    """A list of answers and, if they do not hold their grades themselves, a list of as many numbers."""
    of_numbers = [name for name in lists if all(_is_numbers(row.get(name)) for row in rows if name in row)]
    answers = next((name for name in lists if name not in of_numbers), None)
    if answers is None:
        return None
    mapping = _with_prompt(prompt, {"answers": answers})
    if not of_numbers:
        return _whole(rows, mapping) or Proposal(mapping, "Which column has a number for each answer?")
    numbers = next((name for name in of_numbers if merit_of(words_of(name)) is not None), of_numbers[0])
    merit = merit_of(words_of(numbers))
    if merit in (BETTER, WORSE):
        return _whole(rows, mapping | {"ranks" if merit == WORSE else "ratings": numbers})
    return Proposal(mapping | {"ratings": numbers}, _which_is_better(numbers))


def _of_one_answer(rows, prompt, answer, verdict_columns) -> Proposal | None:
    """One answer and the first verdict on it that is read; its partners may stand further down."""
    for label in sorted(verdict_columns, key=lambda name: label_rank(name) is None):
        mapping = {"prompt": prompt, "answer": answer, "label": label}
        refused = set(tried(rows, mapping)[1].refused)
        if direction_of(label) == BETTER and refused <= {"no partner", "left over"}:
            return Proposal(mapping)
        if "unclear label" in refused:
            return Proposal(mapping, f"{label} holds {_values(rows, label)}: which of them is a good answer?")
    return None


def _whole(rows, mapping):
    return Proposal(mapping) if _fits(rows, tried(rows, mapping)[1]) else None


def _with_prompt(prompt, mapping):
    return ({"prompt": prompt} if prompt else {}) | mapping


def _is_numbers(value):
    values = as_list(value)
    return values is not None and all(number_in(item) is not None or is_missing(item) for item in values)


def _has_numbers(rows, label):
    return any(number_in(row.get(label)) is not None for row in rows)


def _values(rows, label):
    return " and ".join(sorted({excerpt(row[label]) for row in rows if not is_missing(row.get(label))})[:4])


def _which_is_better(what):
    return f"Is more or less of {what} better? Nothing says it."


def _no_label(labels):
    if labels:
        return f"{labels[0]} cannot be read as it is: which column says which answer is better?"
    return "Which column says which answer is better?"
