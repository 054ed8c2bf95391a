"""What one raw row of a preference file means: prompt messages, chosen and rejected text. Standard library only.

Known shapes, by column names; the first one that fits reads the row:

    prompt, chosen, rejected              texts, or messages [{role, content}]; answers may repeat the prompt's turns
    conversations, chosen, rejected       ShareGPT turns [{from, value}]; answers as texts or turns (LLaMA-Factory)
    instruction (input, history), chosen, rejected; or `output` as a list [chosen, rejected]     Alpaca
    context, answer_w, answer_l           turbo-alignment
    question, response_j, response_k      torchtune's Stack Exchange pairs
    input, output_1, output_2, label      LLMBar; the label (1 or 2) names the better answer
    chosen_messages, rejected_messages    LLaMA-Factory v1, content in parts [{type, value}]
    chosen, rejected                      whole conversations, or Anthropic HH transcripts ("\\n\\nHuman: ...")

With every shape a `system` column becomes the first turn. The answer is the final assistant turn; everything before it
is the prompt. Contents are kept unchanged, without what a format puts around them (the HH separators with their one
space). Other keys of a turn, such as `loss_weight`, are dropped.
"""

import math
import re
import reprlib
from dataclasses import dataclass

ROLES = {
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant",
    "system": "system",
}  # fmt: skip
MEDIA_COLUMNS = ("image", "images", "video", "videos", "audio", "audios")
NON_TEXT = "image or other non-text part"
#: Characters of one row: about two million tokens, more than any model reads.
LONGEST_ROW = 10_000_000
KNOWN_SHAPES = (
    "prompt/chosen/rejected, chosen/rejected (conversations or Human/Assistant transcripts),"
    " instruction/input/chosen/rejected, instruction/output (a list of two), conversations/chosen/rejected,"
    " chosen_messages/rejected_messages, context/answer_w/answer_l, question/response_j/response_k,"
    " input/output_1/output_2/label"
)


class RowRefused(Exception):
    """A row is no usable pair. reason: what the report counts by; seen: what this row holds."""

    def __init__(self, reason, seen):
        super().__init__(f"{reason}: {seen}")
        self.reason = reason
        self.seen = seen


def too_long(characters) -> RowRefused:
    """The refusal of a row with this many characters."""
    return RowRefused("too long", f"{characters:,} characters, at most {LONGEST_ROW:,} are read")


@dataclass(frozen=True)
class Shape:
    """The columns by which one known shape is recognised."""

    prompt: str | None
    chosen: str
    rejected: str
    optional: tuple[str, ...] = ("system",)
    label: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The required columns, each once."""
        return tuple(dict.fromkeys(name for name in (self.prompt, self.chosen, self.rejected, self.label) if name))


SHAPES = (
    Shape("prompt", "chosen", "rejected"),
    Shape("conversations", "chosen", "rejected"),
    Shape("instruction", "chosen", "rejected", ("system", "input", "history")),
    Shape("instruction", "output", "output", ("system", "input", "history")),
    Shape("context", "answer_w", "answer_l"),
    Shape("question", "response_j", "response_k"),
    Shape("input", "output_1", "output_2", label="label"),
    Shape(None, "chosen_messages", "rejected_messages"),
    Shape(None, "chosen", "rejected"),
)


@dataclass(frozen=True)
class RowPair:
    """One row in our schema, with the names of the columns that it was made from."""

    prompt: list[dict]
    chosen: str
    rejected: str
    used: frozenset[str]


def shape_of(row) -> Shape | None:
    """The shape of a row (dict), or None; a shape whose columns all hold a value is preferred."""
    incomplete = None
    for shape in SHAPES:
        if all(name in row for name in shape.columns) and _fits(shape, row):
            if all(not _is_missing(row[name]) for name in shape.columns):
                return shape
            incomplete = incomplete or shape
    return incomplete


def _fits(shape, row):
    if shape.chosen == "output":
        return isinstance(row["output"], list)
    if shape.prompt is None and shape.chosen == "chosen":
        return any(isinstance(row[side], list | dict) or _is_transcript(row[side]) for side in ("chosen", "rejected"))
    return True


def read_row(row) -> RowPair:
    """The pair in one raw row (dict).

    Errors: RowRefused with one of the reasons missing, empty, identical, wrong type, unreadable, unknown role,
    different histories, more than one answer turn, two system texts, image or other non-text part, no known shape.
    """
    shape = shape_of(row)
    if shape is None:
        raise _no_shape(row)
    for column in MEDIA_COLUMNS:
        if row.get(column):
            raise RowRefused(NON_TEXT, f"the column '{column}' holds {excerpt(row[column])}")
    prompt_value = _prompt_value(row, shape)
    chosen_value, rejected_value = _answer_values(row, shape)
    prompt, chosen, rejected = _combine(prompt_value, shape, chosen_value, rejected_value)
    prompt = _with_system(prompt, row.get("system"))
    _check(prompt, chosen, rejected, shape)
    return RowPair(prompt, chosen, rejected, frozenset(shape.columns + shape.optional) & row.keys())


def excerpt(value, length=60) -> str:
    """A short quotation of any value, about `length` characters at most."""
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes"
    try:
        text = repr(value[: length + 1]) if isinstance(value, str) else reprlib.repr(value)
    except ValueError:  # an int of more than 4300 digits has no repr
        return _type(value)
    return text if len(text) <= length else text[:length] + "…"


def _no_shape(row):
    if {"chosen", "rejected"} <= row.keys():
        return RowRefused(
            "missing", "no prompt: 'chosen' and 'rejected' are neither conversations nor Human/Assistant transcripts"
        )
    for shape in SHAPES:
        absent = [name for name in (shape.chosen, shape.rejected) if name not in row]
        if len(absent) == 1:
            return RowRefused("missing", f"no '{absent[0]}' beside {_names(row)}")
    if {"instruction", "output"} <= row.keys():
        return RowRefused("no known shape", f"'output' is {_type(row['output'])}, not a list of two answers")
    return RowRefused("no known shape", f"the columns {_names(row)}")


def _names(row):
    return excerpt(", ".join(sorted(map(str, row))), 120)


def _prompt_value(row, shape):
    """The prompt as text or turns; None where the answers contain it."""
    if shape.prompt is None:
        return None
    value = row[shape.prompt]
    if _is_missing(value):
        raise RowRefused("missing", f"no {shape.prompt}")
    if "input" not in shape.optional:
        return value
    if not isinstance(value, str):
        raise RowRefused("wrong type", f"instruction is {_type(value)}, expected text")
    extra_input, history = row.get("input"), row.get("history")
    if not _is_missing(extra_input) and not isinstance(extra_input, str):
        raise RowRefused("wrong type", f"input is {_type(extra_input)}, expected text")
    # LLaMA-Factory joins the two with one line break
    text = f"{value}\n{extra_input}" if extra_input and value else value or extra_input or ""
    if not history:
        return text
    if not isinstance(history, list) or not all(isinstance(turn, list | tuple) and len(turn) == 2 for turn in history):
        raise RowRefused("wrong type", f"history is {_type(history)}, expected a list of [question, answer]")
    turns = []
    for question, answer in history:
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [*turns, {"role": "user", "content": text}]


def _answer_values(row, shape):
    if shape.chosen == "output":
        answers = row["output"]
        if len(answers) != 2:
            raise RowRefused("wrong type", f"output is a list of {len(answers)}, expected [chosen, rejected]")
        return answers
    chosen, rejected = row[shape.chosen], row[shape.rejected]
    if shape.label is None:
        return chosen, rejected
    label = row[shape.label]
    if _is_missing(label):
        raise RowRefused("missing", f"no {shape.label}")
    better = None if isinstance(label, bool) else {"1": 1, "1.0": 1, "2": 2, "2.0": 2}.get(str(label).strip())
    if better is None:
        raise RowRefused("wrong type", f"{shape.label} is {excerpt(label)}, expected 1 or 2 for the better answer")
    return (chosen, rejected) if better == 1 else (rejected, chosen)


def _combine(prompt_value, shape, chosen_value, rejected_value):
    """Prompt turns and the two answer texts; turns before the answers must agree with each other and the prompt."""
    in_transcript = prompt_value is None or _is_transcript(prompt_value)
    chosen_history, chosen = _answer(chosen_value, shape.chosen, in_transcript)
    rejected_history, rejected = _answer(rejected_value, shape.rejected, in_transcript)
    if chosen_history and rejected_history and chosen_history != rejected_history:
        raise RowRefused("different histories", _first_difference(chosen_history, rejected_history))
    history = chosen_history or rejected_history
    if prompt_value is None:
        if not chosen_history or not rejected_history:
            side = shape.chosen if not chosen_history else shape.rejected
            raise RowRefused("missing", f"no prompt: {side} holds only an answer")
        return history, chosen, rejected
    prompt = _prompt_turns(prompt_value, shape.prompt)
    if _is_open_transcript(prompt_value):
        # the prompt ends in "Assistant:", so a text answer's first space is the separator's
        chosen = chosen.removeprefix(" ") if chosen is chosen_value else chosen
        rejected = rejected.removeprefix(" ") if rejected is rejected_value else rejected
    if not history or history == prompt:
        return prompt, chosen, rejected
    if chosen_history and rejected_history:
        if history[: len(prompt)] == prompt:
            return history, chosen, rejected
        if history[0]["role"] == "assistant":
            return prompt + history, chosen, rejected
        # UltraFeedback keeps the last user turn as `prompt` and the whole conversation in both answers
        if isinstance(prompt_value, str) and history[-1]["content"].strip() == prompt_value.strip():
            return history, chosen, rejected
    raise RowRefused(
        "different histories",
        f"'{shape.prompt}' and the turns before the answers: {_first_difference(prompt, history)}",
    )


def _prompt_turns(value, column):
    if not isinstance(value, str):
        return _turns([value] if isinstance(value, dict) else value, column)
    if not value.startswith("\n\nHuman:") and not _is_open_transcript(value):
        return [{"role": "user", "content": value}]
    turns = _transcript_turns(value)
    return turns[:-1] if _is_open_transcript(value) else turns


def _answer(value, side, transcripts_allowed):
    """History turns (often none) and answer text of one side."""
    if _is_missing(value):
        raise RowRefused("missing", f"no {side}")
    if isinstance(value, str):
        if not (transcripts_allowed and _is_transcript(value)):
            return [], value
        turns = _transcript_turns(value)
    else:
        turns = _turns([value] if isinstance(value, dict) else value, side)
    if not turns:
        raise RowRefused("empty", f"{side} is an empty list")
    if turns[-1]["role"] != "assistant":
        raise RowRefused("missing", f"{side} ends with a {turns[-1]['role']} turn, not with an answer")
    if len(turns) > 1 and turns[-2]["role"] == "assistant":
        raise RowRefused("more than one answer turn", f"{side} ends with two assistant turns")
    return turns[:-1], turns[-1]["content"]


def _turns(value, column):
    """[{"role", "content"}] with known role names and text contents."""
    if not isinstance(value, list | tuple):
        raise RowRefused("wrong type", f"{column} is {_type(value)}, expected text or a list of turns")
    return [_turn(turn, column) for turn in value]


def _turn(turn, column):
    if not isinstance(turn, dict):
        raise RowRefused(
            "wrong type", f"{column} holds {_type(turn)} ({excerpt(turn)}), expected turns with role and content"
        )
    # Parquet fills the keys that other turns have with null
    role = turn.get("role") if turn.get("role") is not None else turn.get("from")
    content = turn.get("content") if turn.get("content") is not None else turn.get("value")
    if _is_missing(role):
        raise RowRefused("missing", f"a turn in {column} has neither role nor from: {excerpt(turn)}")
    known = ROLES.get(role.strip().lower()) if isinstance(role, str) else None
    if known is None:
        raise RowRefused("unknown role", f"{excerpt(role)} in {column}; known: {', '.join(ROLES)}")
    if turn.get("tool_calls"):
        raise RowRefused(NON_TEXT, f"tool_calls in a turn of {column}")
    return {"role": known, "content": _content(content, column)}


def _content(content, column):
    if isinstance(content, str):
        return content
    if _is_missing(content):
        raise RowRefused("missing", f"a turn in {column} has no content")
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list | tuple):
        raise RowRefused("wrong type", f"a turn's content in {column} is {_type(content)}, expected text")
    texts = []
    for part in content:
        if isinstance(part, dict):
            kind = part.get("type", "text")
            text = part.get("text") if part.get("text") is not None else part.get("value")
            if kind != "text":
                raise RowRefused(NON_TEXT, f"a part of type {excerpt(kind)} in {column}")
        else:
            text = part
        if not isinstance(text, str):
            raise RowRefused("wrong type", f"a content part in {column} is {_type(text)}, expected text")
        texts.append(text)
    return "".join(texts)


_SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):[ ]?")


def _is_transcript(value):
    return isinstance(value, str) and re.match(r"\s*Human:", value) is not None


def _is_open_transcript(value):
    return _is_transcript(value) and value.rstrip().endswith("\n\nAssistant:")


def _transcript_turns(text):
    marks = list(_SPEAKER.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [
        {"role": ROLES[mark[1].lower()], "content": text[mark.end() : end]}
        for mark, end in zip(marks, ends, strict=True)
    ]


def _with_system(prompt, system):
    if _is_missing(system):
        return prompt
    if not isinstance(system, str):
        raise RowRefused("wrong type", f"system is {_type(system)}, expected text")
    if not system.strip():
        return prompt
    if prompt and prompt[0]["role"] == "system":
        if prompt[0]["content"] != system:
            raise RowRefused(
                "two system texts", f"the column says {excerpt(system)}, the first turn {excerpt(prompt[0]['content'])}"
            )
        return prompt
    return [{"role": "system", "content": system}, *prompt]


def _check(prompt, chosen, rejected, shape):
    where = shape.prompt or shape.chosen
    if not any(turn["role"] == "user" for turn in prompt):
        raise RowRefused("empty" if not prompt else "missing", f"{where} has no user turn")
    if prompt[-1]["role"] == "assistant":
        raise RowRefused(
            "more than one answer turn", f"{where} ends with an assistant turn, so the answer would be a second one"
        )
    if prompt[-1]["role"] == "user" and not prompt[-1]["content"].strip():
        raise RowRefused("empty", "the prompt's last user turn has no text")
    for side, text in ((shape.chosen, chosen), (shape.rejected, rejected)):
        if not text.strip():
            raise RowRefused("empty", f"{side} has no text ({excerpt(text)})")
    if chosen == rejected:
        raise RowRefused("identical", f"both answers are {excerpt(chosen)}")
    for text in (chosen, rejected, *(turn["content"] for turn in prompt)):
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise RowRefused("unreadable", f"half of a character (a lone surrogate) in {excerpt(text)}")


def _first_difference(one, other):
    for number, (left, right) in enumerate(zip(one, other, strict=False), 1):
        if left != right:
            return f"turn {number} is {excerpt(left['content'])} here and {excerpt(right['content'])} there"
    return f"{len(one)} turns here and {len(other)} there"


def _is_missing(value):
    return value is None or (isinstance(value, float) and math.isnan(value))


_TYPE_NAMES = {str: "text", bool: "true/false", list: "a list", dict: "an object", type(None): "missing"}
_TYPE_NAMES |= {int: "a number", float: "a number"}


def _type(value):
    return _TYPE_NAMES.get(type(value), f"a {type(value).__name__}")
