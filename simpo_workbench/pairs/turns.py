"""Turns of a conversation in one form, from the forms that data sets have them in. Standard library only.

A turn is {"role", "content"}; where the source has them, a turn keeps TURN_KEYS too. Other keys, such as `loss_weight`,
are dropped. Contents are kept unchanged, without what a format puts around them (the separators of Anthropic HH).
"""

import json
import re

from .media import is_encoded_media, media_column
from .refused import NON_TEXT, RowRefused, excerpt, is_missing, kind_of
from .written import turns_written_in, value_of

ROLES = {
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
    "system": "system", "developer": "system",
    "tool": "tool", "function": "tool", "observation": "tool", "tool_response": "tool", "ipython": "tool",
    "function_call": "call", "tool_call": "call",
}  # fmt: skip
#: What a turn keeps beside role and content: calls of tools, and reasoning in a field of its own.
TURN_KEYS = ("tool_calls", "tool_call_id", "name", "reasoning_content", "thinking", "reasoning")
#: Columns whose value may be an object with the prompt's text, and the keys of that text, the first that has one.
OBJECTS = ("info", "question", "post", "query")
_OBJECT_TEXTS = ("full_text", "post", "article", "text")
_TURN_KEYS = frozenset(TURN_KEYS)
_PLAIN_KEYS = {"role", "content", "from", "value", "function_call", *TURN_KEYS}


def answer_of(value, side, transcripts_allowed=False) -> tuple[list[dict], str, dict | None]:
    """(turns before the answer, answer text, whole answer turn or None) of one side's text or turns.

    The whole turn is given where it is more than the text. Errors: RowRefused.
    """
    if is_missing(value):
        raise RowRefused("missing", f"no {side}")
    if isinstance(value, str):
        if (written := turns_written_in(value, ROLES)) is not None and _ends_as_answer(written):
            value = written
        elif not (transcripts_allowed and is_transcript(value)):
            return [], value, None
        else:
            turns = transcript_turns(value)
    if not isinstance(value, str):
        turns = turns_in(value, side)
    if not turns:
        raise RowRefused("empty", f"{side} is an empty list")
    if turns[-1]["role"] != "assistant":
        raise RowRefused("missing", f"{side} ends with a {turns[-1]['role']} turn, not with an answer")
    if len(turns) > 1 and turns[-2]["role"] == "assistant":
        raise RowRefused("more than one answer turn", f"{side} ends with two assistant turns")
    answer = turns[-1]
    return turns[:-1], answer["content"], answer if len(answer) > 2 else None


def _ends_as_answer(written):
    turns = written.get("messages", written) if isinstance(written, dict) else written
    last = turns[-1] if isinstance(turns, list) else turns
    role = last.get("role") if last.get("role") is not None else last.get("from")
    return ROLES[role.strip().lower()] in ("assistant", "call")


def prompt_turns(value, column) -> list[dict]:
    """The turns of a prompt: one user turn for a text, else the turns that the text or value holds."""
    if isinstance(value, str):
        if (written := turns_written_in(value, ROLES)) is not None:
            return turns_in(written, column)
        if is_encoded_media(value):
            raise RowRefused(NON_TEXT, f"{column} is an image, a video or a sound: {excerpt(value)}")
        if not value.startswith("\n\nHuman:") and not is_open_transcript(value):
            return [{"role": "user", "content": value}]
        turns = transcript_turns(value)
        return turns[:-1] if is_open_transcript(value) else turns
    return turns_in(value, column)


def turns_in(value, column) -> list[dict]:
    """The turns of a list of turns, of one turn, or of an object with `messages`."""
    if isinstance(value, dict):
        listed = next((value[key] for key in ("messages", "conversations") if isinstance(value.get(key), list)), None)
        value = [value] if listed is None else listed
    if not isinstance(value, list | tuple):
        raise RowRefused("wrong type", f"{column} is {kind_of(value)}, expected text or a list of turns")
    return [_turn(turn, column) for turn in value]


def tools_in(value) -> tuple[dict, ...] | None:
    """The tools of a column or of an object with `tools`: a tuple of schemas, () for none; None for another value."""
    if is_missing(value) or value in ("", [], (), {}):
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list) and all(map(_names_a_function, value)):
        return tuple(value)
    return None


def history_turns(value) -> list[dict] | None:
    """The turns of a `history` column, [question, answer] pairs or turns, also as JSON text; None for another value."""
    value = value_of(value) if isinstance(value, str) else value
    if isinstance(value, list | tuple) and all(isinstance(item, list | tuple) and len(item) == 2 for item in value):
        roles = ("user", "assistant")
        return [{"role": role, "content": text} for item in value for role, text in zip(roles, item, strict=True)]
    if isinstance(value, list | tuple) and all(isinstance(item, dict) for item in value):
        return turns_in(value, "history")
    return None


def interleaved(prompt, *answers) -> list[list[dict]] | None:
    """The conversation with each answer, where prompt and answers are lists of as many texts, also as JSON text.

    So the data of Chatbot Arena have every turn of a side in one column. None for other values. Errors: RowRefused
    where the lists do not fit each other, or a text in them is missing.
    """
    questions = _texts_in(prompt)
    replies = [_texts_in(answer) for answer in answers] if questions else []
    if not questions or not any(replies):
        return None
    for answer, found in zip(answers, replies, strict=True):
        if found is None:
            raise RowRefused(
                "wrong type",
                f"an answer is {excerpt(answer)} beside a list of {len(questions)}, expected a list of texts",
            )
        if len(found) != len(questions):
            raise RowRefused(
                "wrong type", f"{len(questions)} texts in the prompt's list and {len(found)} in an answer's"
            )
    if None in questions or any(None in found for found in replies):
        raise RowRefused("empty", "a turn in a list of texts is null")
    turns = [zip(questions, found, strict=True) for found in replies]
    roles = ("user", "assistant")
    return [
        [{"role": role, "content": text} for both in side for role, text in zip(roles, both, strict=True)]
        for side in turns
    ]


def _texts_in(value):
    """The texts and nulls of a list of such, also one that is written as text; None for another value."""
    value = value_of(value) if isinstance(value, str) else value
    return value if isinstance(value, list) and value and all(isinstance(item, str | None) for item in value) else None


def holds_turns(value) -> bool:
    """Whether a value is a list of turns, also as text, that begins with what a person says."""
    if isinstance(value, str) and value[:2] == "[{":
        value = value_of(value)
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    role = value[0].get("role") or value[0].get("from")
    return isinstance(role, str) and ROLES.get(role.strip().lower()) in ("user", "system")


def text_key(value) -> str | None:
    """The key of the text in an object that stands for a prompt; None without one."""
    return next((key for key in _OBJECT_TEXTS if isinstance(value.get(key), str) and value[key].strip()), None)


def _turn(turn, column):
    if not isinstance(turn, dict):
        raise RowRefused(
            "wrong type", f"{column} holds {kind_of(turn)} ({excerpt(turn)}), expected turns with role and content"
        )
    # Parquet fills the keys that other turns have with null
    role = turn.get("role") if turn.get("role") is not None else turn.get("from")
    content = turn.get("content") if turn.get("content") is not None else turn.get("value")
    if is_missing(role):
        raise RowRefused("missing", f"a turn in {column} has neither role nor from: {excerpt(turn)}")
    known = ROLES.get(role.strip().lower()) if isinstance(role, str) else None
    if known is None:
        raise RowRefused("unknown role", f"{excerpt(role)} in {column}; known: {', '.join(ROLES)}")
    if len(turn) > 2 and (media := media_column({key: turn[key] for key in turn.keys() - _PLAIN_KEYS})):
        raise RowRefused(NON_TEXT, f"'{media}' in a turn of {column} holds {excerpt(turn[media])}")
    if known == "call":
        return {"role": "assistant", "content": "", "tool_calls": _written_calls(content, column)}
    more = {}
    if not _TURN_KEYS.isdisjoint(turn):
        more = {key: turn[key] for key in TURN_KEYS if turn.get(key) not in (None, "", [], {})}
    if turn.get("function_call"):  # what OpenAI's turns had before tool_calls
        more["tool_calls"] = [*_written_calls(turn["function_call"], column), *more.get("tool_calls", ())]
    if more.get("tool_calls") and not _are_calls(more["tool_calls"]):
        raise RowRefused(
            "wrong type", f"tool_calls in {column} is {excerpt(more['tool_calls'])}, expected a list of calls"
        )
    if is_missing(content) and ("tool_calls" in more or known == "system"):  # an empty system turn is none
        content = ""
    return {"role": known, "content": _content(content, column), **more}


def _are_calls(value):
    return isinstance(value, list) and all(map(_names_a_function, value))


def _names_a_function(value):
    """Whether a call or a schema is a mapping with a function's name, in OpenAI's form or the bare one."""
    function = value.get("function", value) if isinstance(value, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _written_calls(content, column):
    """The calls that a ShareGPT turn of the role function_call spells in JSON."""
    try:
        value = json.loads(content) if isinstance(content, str) else content
    except (ValueError, RecursionError):
        value = None
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise RowRefused("wrong type", f"a call of a tool in {column} is {excerpt(content)}, expected JSON with a name")
    return [
        {"type": "function", "function": {"name": call["name"], "arguments": call.get("arguments", {})}}
        for call in calls
    ]


def _content(content, column):
    if isinstance(content, str):
        return content
    if is_missing(content):
        raise RowRefused("missing", f"a turn in {column} has no content")
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list | tuple):
        raise RowRefused("wrong type", f"a turn's content in {column} is {kind_of(content)}, expected text")
    texts = []
    for part in content:
        if isinstance(part, dict):
            kind = part.get("type", "text")
            text = part.get("text") if part.get("text") is not None else part.get("value")
            if kind not in ("text", "input_text", "output_text"):
                raise RowRefused(NON_TEXT, f"a part of type {excerpt(kind)} in {column}")
        else:
            text = part
        if not isinstance(text, str):
            raise RowRefused("wrong type", f"a content part in {column} is {kind_of(text)}, expected text")
        texts.append(text)
    return "".join(texts)


_TRANSCRIPT = re.compile(r"\s*Human:")
_SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):[ ]?")


def is_transcript(value) -> bool:
    """Whether a value is a text that begins as a transcript "Human: …"."""
    return isinstance(value, str) and _TRANSCRIPT.match(value) is not None


def is_open_transcript(value) -> bool:
    """Whether a transcript ends in "Assistant:", so that the answer follows."""
    return is_transcript(value) and value.rstrip().endswith("\n\nAssistant:")


def transcript_turns(text) -> list[dict]:
    """The turns of an Anthropic HH transcript, "\\n\\nHuman: …\\n\\nAssistant: …"."""
    marks = list(_SPEAKER.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [
        {"role": ROLES[mark[1].lower()], "content": text[mark.end() : end]}
        for mark, end in zip(marks, ends, strict=True)
    ]
