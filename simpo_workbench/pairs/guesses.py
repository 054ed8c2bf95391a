"""Mappings that may fit rows of an unknown shape, the likeliest first; they are proposed only after they were tried.

Standard library only.
"""

import re
from collections.abc import Iterator

from . import verdicts
from .judging_words import BETTER, WORSE, direction_of, label_rank
from .turns import holds_turns
from .unpaired import ANSWERS, BAD, GOOD

_PROMPT_WORDS = (
    "prompt",
    "question",
    "query",
    "instruction",
    "request",
    "input",
    "context",
    "conversation",
    "conversations",
    "messages",
    "user",
    "task",
)
_CHOSEN_WORDS = (
    "chosen",
    "preferred",
    "accepted",
    "better",
    "best",
    "good",
    "positive",
    "pos",
    "winner",
    "winning",
    "win",
    "won",
    "w",
)
_REJECTED_WORDS = (
    "rejected",
    "dispreferred",
    "unpreferred",
    "worse",
    "worst",
    "bad",
    "negative",
    "neg",
    "loser",
    "losing",
    "lose",
    "lost",
    "l",
)


#: Words of columns that more often hold a category or a name than a prompt.
_WEAK_WORDS = frozenset({"task", "user", "input", "context"})


def guess_columns(columns) -> dict | None:
    """A mapping that may fit these column names; None where chosen and rejected cannot be told apart."""
    columns = [str(name) for name in columns]
    both = _guess_answers(columns)
    if both is None:
        return None
    rest = [name for name in columns if name not in both]
    prompts = list(_by_words(rest, _PROMPT_WORDS)) or (rest if len(rest) == 1 else [])
    return {"prompt": prompts[0], "chosen": both[0], "rejected": both[1]} if prompts else None


def pair_mappings(rows) -> Iterator[dict]:
    """Mappings to prompt, chosen and rejected that may fit these rows (dicts), the likeliest prompt first."""
    columns = list(dict.fromkeys(str(name) for row in rows for name in row))
    both = _guess_answers(columns)
    if both is not None:
        for prompt in prompts_among(rows, [name for name in columns if name not in both]):
            yield {"prompt": prompt, "chosen": both[0], "rejected": both[1]}


def prompts_among(rows, columns) -> list[str]:
    """The columns that may hold the prompts of these rows, the likeliest first.

    A column of turns comes before all names. A column that says the same in every row is a category, no prompt.
    """
    turns = [name for name in columns if all(holds_turns(row.get(name)) for row in rows)]
    named = [name for name in _by_words(columns, _PROMPT_WORDS) if _may_be_prompts(rows, name)]
    alone = columns if len(columns) == 1 else []
    return list(dict.fromkeys([*turns, *named, *alone]))


def _may_be_prompts(rows, name):
    values = [row.get(name) for row in rows]
    if len(values) > 1 and all(value == values[0] for value in values):
        return False
    weak = not set(_words(name)) & (set(_PROMPT_WORDS) - _WEAK_WORDS)
    return not weak or any(not isinstance(value, str) or " " in value.strip() for value in values)


def side_mappings(rows) -> Iterator[dict]:
    """Mappings of two answers and a label of the better one that may fit these rows."""
    columns = list(dict.fromkeys(str(name) for row in rows for name in row))
    labels = sorted((name for name in columns if label_rank(name) is not None), key=label_rank)
    for label in labels:
        role = {BETTER: "label", WORSE: "worse_label"}.get(direction_of(label))
        rest = [name for name in columns if name != label]
        for first, second in (*_named_by(rows, label, rest), *verdicts.pairs_of_columns(tuple(rest))):
            if role and all(_holds_texts(rows, name) for name in (first, second)):
                for prompt in prompts_among(rows, [name for name in rest if name not in (first, second)]):
                    yield {"prompt": prompt, "answer_1": first, "answer_2": second, role: label}


def _named_by(rows, label, columns):
    """The two columns that the values of a label name."""
    values = dict.fromkeys(row.get(label) for row in rows if isinstance(row.get(label), str))
    named = [value for value in values if value in columns]
    return [tuple(sorted(named, key=columns.index))] if len(named) == 2 else []


def _holds_texts(rows, name):
    """Whether a column holds texts of more than one word: names of models are no answers."""
    values = [row.get(name) for row in rows]
    return all(isinstance(value, str) for value in values) and any(" " in value.strip() for value in values)


def verdict_mappings(rows) -> Iterator[dict]:
    """Mappings of a verdict on one answer, under a name that is not known."""
    columns = list(dict.fromkeys(str(name) for row in rows for name in row))
    if not set(ANSWERS) & set(columns):
        return
    for name in columns:
        words = {str(row.get(name)).strip().lower() for row in rows}
        if words & GOOD and words & BAD and words <= GOOD | BAD and direction_of(name) == BETTER:
            yield {"label": name}


def _guess_answers(columns):
    """The columns of the chosen and of the rejected answer by their words, or None."""
    # "not_chosen" and "non_preferred" hold the word of the other side
    negated = {name for name in columns if re.search(r"(^|_)(not|non|un)_", name.lower())}
    chosen = next(_by_words([name for name in columns if name not in negated], _CHOSEN_WORDS), None)
    rejected = next(_by_words(columns, _REJECTED_WORDS), None) or next(_by_words(list(negated), _CHOSEN_WORDS), None)
    return None if chosen is None or rejected is None else (chosen, rejected)


def _by_words(columns, words):
    """The columns whose names hold one of the words, in the order of the words."""
    for word in words:
        for name in columns:
            if word in _words(name):
                yield name


def _words(name):
    return re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
