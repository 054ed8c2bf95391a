"""Sentences on loaded pairs: columns that may belong to the prompt and are not in it, pairs that contradict others."""

from ..base.format import counted
from .pair import prompt_key
from .refused import excerpt, is_missing
from .shapes import is_list_of_texts
from .written import value_of

#: Columns that usually belong to what the model is shown.
OF_THE_PROMPT = frozenset(
    {
        "history", "input", "context", "system", "system_prompt", "system_message", "tools", "functions",
        "documents", "passages", "instruction", "question", "query", "messages", "conversation", "conversations",
        "passage", "document", "background", "reference_documents",
    }
)  # fmt: skip


def remarks_on(pairs) -> list[str]:
    """The sentences, none for ordinary pairs."""
    return [*_unused(pairs), *_written_lists(pairs), *_contradictions(pairs)]


def _unused(pairs):
    counts = {}
    for pair in pairs:
        for column in pair.extra:
            if column.lower() in OF_THE_PROMPT and _is_lost(pair, column):
                counts[column] = counts.get(column, 0) + 1
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


def _is_lost(pair, column):
    value = pair.extra[column]
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
