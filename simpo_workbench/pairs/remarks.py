"""Sentences on loaded pairs: columns that may belong to the prompt and are not in it, prompts that quote the answers,
ratings that say the opposite, pairs that contradict others.
"""

import functools
from collections import Counter

from ..base.format import counted
from .judge_prompts import quoted_sentence
from .judging_words import BETTER, UNCLEAR, merit_of, words_of
from .pair import prompt_key
from .refused import excerpt, is_missing
from .shapes import is_list_of_texts
from .turns import OBJECTS, holds_turns, text_key
from .votes import TIE, is_tie, number_in
from .written import value_of

#: Words of columns that usually belong to what the model is shown.
_OF_THE_PROMPT = frozenset(
    {
        "history", "input", "context", "system", "tools", "functions", "documents", "passages", "instruction",
        "instructions", "question", "query", "messages", "conversation", "conversations", "passage", "document",
        "background", "prefix", "prefill", "partial", "initial", "preceding", "previous", "trajectory", "dialog",
        "dialogue", "scratchpad", "premise", "evidence", "persona", "schema", "turns", "title", "article", "story",
        "prompt", "steps", "subreddit",
    }
)  # fmt: skip
#: Words of columns that are about a prompt, or belong to a judge.
_NOT_OF_THE_PROMPT = frozenset(
    {
        "id", "ids", "uid", "uuid", "hash", "sha", "sha256", "md5", "source", "model", "type", "category", "tokens",
        "token", "length", "len", "count", "num", "n", "lang", "language", "url", "score", "scores", "rating",
        "ratings", "embedding", "labelling", "labeling", "judge", "generation", "generations", "new", "original",
        "metadata", "meta", "config", "configs", "difficulty", "quality", "name", "date", "domain", "label", "labels",
        "tag", "tags", "filename", "file", "path", "row", "index", "idx", "parent", "chosen", "rejected", "template",
        "annotator", "reference", "feedback", "criteria", "critique", "license", "version", "split", "task", "toxicity",
    }
)  # fmt: skip
#: What both answers begin with belongs to what the model is shown; another answer does not.
_BEGUN = frozenset({"partial", "prefix", "prefill", "preceding", "initial"})
_ANSWERS = frozenset({word for one in ("response", "answer", "output", "completion") for word in (one, f"{one}s")})
_SURE = frozenset({"reference_documents"})
_CHOSEN, _REJECTED = (
    frozenset({"chosen", "better", "winner", "preferred", "w"}),
    frozenset({"rejected", "worse", "loser", "l"}),
)
_STATES = frozenset({"status", "verdict", "winner", "preference"})


def remarks_on(pairs) -> list[str]:
    """The sentences, none for ordinary pairs."""
    return [
        *_unused(pairs),
        *_written_lists(pairs),
        *quoted_sentence(pairs),
        *_contrary_ratings(pairs),
        *_contradictions(pairs),
    ]


def _unused(pairs):
    counts = Counter(name for pair in pairs if pair.extra for name in not_shown(pair))
    if not counts:
        return []
    listed = ", ".join(f"'{column}' ({counted(count, 'pair')})" for column, count in counts.items())
    return [f"Not shown to the model, although the names may say otherwise: {listed}"]


def _written_lists(pairs):
    """Prompts that are texts which spell a list of texts: a column that was written as text."""
    found = [
        pair
        for pair in pairs
        if len(pair.prompt) == 1
        and pair.prompt[0]["content"].lstrip()[:1] == "["
        and is_list_of_texts(value_of(pair.prompt[0]["content"]))
    ]
    if not found:
        return []
    are = "is a text that spells a list" if len(found) == 1 else "are texts that spell a list"
    first = f"first: {found[0].where}, {excerpt(found[0].prompt_text)}"
    return [f"{counted(len(found), 'prompt')} {are}: the model is shown its brackets ({first})"]


def not_shown(pair) -> list[str]:
    """The columns of a pair that may belong to its prompt, by name or because they hold turns, and are not in it."""
    lost = []
    for column, value in pair.extra.items():
        if column in OBJECTS and isinstance(value, dict) and text_key(value) is None:  # its text is the prompt
            lost += [f"{column}.{key}" for key in value if may_be_shown(key) and is_lost(pair, value[key])]
        elif (may_be_shown(column) or holds_turns(value)) and is_lost(pair, value):
            lost.append(column)
    return lost


@functools.lru_cache(maxsize=4096)
def may_be_shown(column) -> bool:
    """Whether a column's name says that it belongs to what the model is shown."""
    words = set(words_of(column))
    if column.lower() in _SURE:
        return True
    other = words & _NOT_OF_THE_PROMPT or (words & _ANSWERS and not words & _BEGUN)
    return bool(words & _OF_THE_PROMPT) and not other


def is_lost(pair, value) -> bool:
    """Whether a value has a text that a pair does not show."""
    if isinstance(value, str) and (written := value_of(value)) is not None:
        value = written
    texts = list(_texts(value))
    if not texts:
        return False
    shown = "\n".join((pair.prompt_text, pair.chosen, pair.rejected))
    return not all(text.strip() in shown for text in texts)


def _texts(value):
    """The texts in a value that are contents; roles and other keys of turns are none."""
    if isinstance(value, str):
        if value.strip():
            yield value
    elif isinstance(value, dict):
        contents = [value[key] for key in ("content", "value") if not is_missing(value.get(key))]
        for item in contents or value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _contrary_ratings(pairs):
    """Pairs whose own ratings say that the rejected answer is better, or that both are equal."""
    contrary, equal = {}, {}
    for pair in pairs:
        if not pair.extra:
            continue
        for names, lead in _leads(pair):
            if lead <= 0:
                numbers = contrary if lead < 0 else equal
                numbers.setdefault(names, []).append(pair)
                break
    sentences = []
    for kinds, words in ((contrary, "say that the rejected answer is the better one"), (equal, "are equal")):
        for names, holders in kinds.items():
            shown = ", ".join(f"{name} {excerpt(holders[0].extra[name])}" for name in names)
            sentences.append(
                f"{counted(len(holders), 'pair')} whose own ratings {words} (first: {holders[0].where}, {shown})"
            )
    return sentences


def _leads(pair):
    """((columns, rating of chosen less that of rejected), …) for all ratings that stand beside a pair."""
    for names, sign in _rated_columns(tuple(pair.extra)):
        numbers = [number_in(pair.extra[name]) for name in names]
        if None not in numbers:
            yield names, sign * (numbers[0] - numbers[1])
    for name in _state_columns(tuple(pair.extra)):
        if isinstance(pair.extra[name], str) and is_tie(pair.extra[name]):
            yield (name,), TIE
    yield from _listed_leads(pair)


@functools.lru_cache(maxsize=512)
def _rated_columns(columns):
    """(((column of chosen, column of rejected), 1 where the higher is better, else -1), …) among column names."""
    found, rejected = [], {}
    for name in columns:
        words = words_of(name)
        if len(_REJECTED & set(words)) == 1:
            rejected[tuple("*" if word in _REJECTED else word for word in words)] = name
    for name in columns:
        words = words_of(name)
        stem = tuple("*" if word in _CHOSEN else word for word in words)
        direction = merit_of(tuple(word for word in stem if word != "*")) if stem.count("*") == 1 else None
        if stem in rejected and direction not in (None, UNCLEAR):
            found.append(((name, rejected[stem]), 1 if direction == BETTER else -1))
    return tuple(found)


@functools.lru_cache(maxsize=512)
def _state_columns(columns):
    return tuple(name for name in columns if set(words_of(name)) <= _STATES)


def _listed_leads(pair):
    """The lead by a list of ratings beside a list of answers that holds both texts once."""
    for name in ("rating", "ratings", "scores", "score", "rewards"):
        ratings = pair.extra.get(name)
        if not isinstance(ratings, list):
            continue
        for column, answers in pair.extra.items():
            if isinstance(answers, list) and len(answers) == len(ratings) and column != name:
                places = [answers.index(text) for text in (pair.chosen, pair.rejected) if answers.count(text) == 1]
                numbers = [number_in(ratings[place]) for place in places]
                if len(numbers) == 2 and None not in numbers:
                    yield (name,), numbers[0] - numbers[1]


def _contradictions(pairs):
    """Pairs of which another one says the opposite: A over B and B over A for one prompt."""
    by_answers, number, example = {}, 0, None
    for pair in pairs:
        for other in by_answers.get((pair.rejected, pair.chosen), ()):
            if prompt_key(pair.prompt) == prompt_key(other.prompt):
                number, example = number + 1, example or (other, pair)
        by_answers.setdefault((pair.chosen, pair.rejected), []).append(pair)
    if not number:
        return []
    verb = "contradicts" if number == 1 else "contradict"
    return [
        f"{counted(number, 'pair')} {verb} another one (the same prompt and answers, chosen and rejected the other way"
        f" round): first {example[0].where} and {example[1].where}, {excerpt(example[0].prompt_text)}"
    ]
