"""Prompts that already hold the frame of a chat template, and how they are read as conversations.

A prompt such as "<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n" was rendered by a template before it was
stored. Rendered once more it would be a conversation inside a user turn, which no model meets in use.
"""

import dataclasses
import re
from collections import Counter
from dataclasses import dataclass

from .pair import Pair, pair_id
from .refused import RowRefused, excerpt

REASON = "framed by a template"
ADVICE = "give data.framed_prompts as_conversation to read such prompts as conversations"


@dataclass(frozen=True)
class Frame:
    """How one family of templates writes a conversation as text.

    opening: matches the start of a turn; its group "role" names who speaks, by a key of `roles`. ends: texts that end a
    turn. start: texts that may stand before the first turn.
    """

    name: str
    opening: str
    roles: dict[str, str]
    ends: tuple[str, ...]
    start: tuple[str, ...] = ()


#: Marks of widespread templates. Where a model has no such token they are harmless text, but say that data were framed.
KNOWN_MARKS = (
    *("<|im_start|>", "<|im_end|>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<|begin_of_text|>", "<|end_of_text|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "<|endoftext|>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "</s>"),
    *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|turn>", "<turn|>"),
)
_KNOWN = re.compile("|".join(map(re.escape, KNOWN_MARKS)))
_AT_END = re.compile(
    r"\s*(?:(?:<\|im_end\|>|<\|eot_id\|>|<\|end_of_text\|>|<end_of_turn>|<\|endoftext\|>|</s>|<turn\|>"
    r"|<｜end▁of▁sentence｜>|<\|END_OF_TURN_TOKEN\|>)\s*)+\Z"
)
_CHUNK = 1000  # pairs that one search goes through
_SHOWN = 5

_NAMED = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "model": "assistant"}

FRAMES = (
    Frame(
        "ChatML", r"<\|im_start\|>(?P<role>system|user|assistant)\n", _NAMED, ("<|im_end|>",), ("<s>", "<|endoftext|>")
    ),
    Frame(
        "Llama 3",
        r"<\|start_header_id\|>(?P<role>system|user|assistant)<\|end_header_id\|>\n*",
        _NAMED,
        ("<|eot_id|>",),
        ("<|begin_of_text|>",),
    ),
    Frame("Gemma", r"<start_of_turn>(?P<role>system|user|model)\n", _NAMED, ("<end_of_turn>",), ("<bos>",)),
    Frame("Gemma 4", r"<\|turn>(?P<role>system|user|model)\n", _NAMED, ("<turn|>",), ("<bos>",)),
    Frame(
        "Phi, Zephyr or GLM",
        r"<\|(?P<role>system|user|assistant)\|>\n?",
        _NAMED,
        ("<|end|>", "</s>", "<|endoftext|>"),
        ("[gMASK]<sop>", "<s>"),
    ),
    Frame(
        "DeepSeek",
        r"<｜(?P<role>User|Assistant)｜>",
        {"User": "user", "Assistant": "assistant"},
        ("<｜end▁of▁sentence｜>",),
        ("<｜begin▁of▁sentence｜>",),
    ),
    Frame(
        "Command R",
        r"<\|START_OF_TURN_TOKEN\|><\|(?P<role>SYSTEM|USER|CHATBOT)_TOKEN\|>",
        {"SYSTEM": "system", "USER": "user", "CHATBOT": "assistant"},
        ("<|END_OF_TURN_TOKEN|>",),
        ("<BOS_TOKEN>",),
    ),
    Frame(
        "Llama 2 or Mistral",
        r"(?P<role>\[INST\]|\[/INST\])[ ]?",
        {"[INST]": "user", "[/INST]": "assistant"},
        ("</s><s>", "</s>"),
        ("<s>",),
    ),
    Frame(
        "Alpaca",
        r"### (?P<role>Instruction|Input|Response):[ ]?\n*",
        {"Instruction": "user", "Input": "user", "Response": "assistant"},
        ("</s>",),
        ("<s>",),
    ),
)
_LLAMA2_SYSTEM = re.compile(r"\s*<<SYS>>\n?(.*?)\n?<</SYS>>\s*", re.DOTALL)
_ALPACA_PREFACE = re.compile(r"Below is an instruction that describes a task[^#]{0,200}")
#: What one of the frames must hold; a text without any of these is not looked at further.
_QUICK = re.compile(r"<\||<start_of_turn>|<｜|\[/INST\]|### (?:Instruction|Response):")


def framed_by(text: str) -> str | None:
    """The name of the frame that a prompt begins with and whose answer it opens, such as "ChatML"; None for others.

    Text that only mentions such marks is not framed: a user turn must come first, and the prompt must end where the
    answer begins.
    """
    found = _read(text)
    return found[0].name if found else None


def framed_turns(text: str) -> list[dict] | None:
    """The turns of a framed prompt, without the opened answer; None where it is not framed.

    What an answer's opening writes after the header (such as an empty thinking block) is the template's and left out.
    """
    found = _read(text)
    return found[1] if found else None


def unframed(pair: Pair, policy: str) -> Pair:
    """The pair with a framed prompt as `policy` (data.framed_prompts) wants it: refuse, as_conversation or keep.

    Errors: RowRefused for a framed prompt under refuse, or where its system text is a second one.
    """
    if policy == "keep" or not any(turn["role"] == "user" and _QUICK.search(turn["content"]) for turn in pair.prompt):
        return pair
    turns = []
    for turn in pair.prompt:
        found = _read(turn["content"]) if turn["role"] == "user" else None
        if found and policy == "refuse":
            raise RowRefused(REASON, f"the prompt is framed as {found[0].name} does it; {ADVICE}")
        turns += found[1] if found else [turn]
    systems = [turn["content"] for turn in turns if turn["role"] == "system"]
    if len(systems) > 1:
        raise RowRefused("two system texts", f"one is inside the framed prompt: {excerpt(systems[-1])}")
    if turns == list(pair.prompt):
        return pair
    identity = pair_id(turns, pair.chosen, pair.rejected, pair.tools, pair.chosen_turn, pair.rejected_turn)
    return dataclasses.replace(pair, pair_id=identity, prompt=tuple(turns))


def marks_note(pairs) -> str | None:
    """A sentence that counts the pairs whose texts hold KNOWN_MARKS, with the most frequent marks; None without any.

    Marks at the end of an answer are not counted: they are taken off before it is scored.
    """
    marks, holders = Counter(), 0
    for start in range(0, len(pairs), _CHUNK):
        chunk = pairs[start : start + _CHUNK]
        if not _KNOWN.search("\0".join(text for pair in chunk for text in _texts(pair))):
            continue
        for pair in chunk:
            found = {mark for text in _texts(pair) for mark in _KNOWN.findall(text)}
            marks.update(found)
            holders += bool(found)
    if not holders:
        return None
    shown = ", ".join(f"{mark!r} in {count}" for mark, count in marks.most_common(_SHOWN))
    return f"{holders} pairs hold marks of chat templates in their texts ({shown}); see data.special_tokens_in_text"


def _texts(pair):
    yield from (turn["content"] for turn in pair.prompt if isinstance(turn["content"], str))
    for answer in (pair.chosen, pair.rejected):
        yield _AT_END.sub("", answer) if answer.rstrip().endswith((">", "]")) else answer


def _read(text):
    """(Frame, turns) of a framed prompt, or None."""
    if not _QUICK.search(text):
        return None
    for frame in FRAMES:
        turns = _turns(frame, text)
        if turns:
            return frame, turns
    return None


def _turns(frame, text):
    marks = list(re.finditer(frame.opening, text))
    if not marks or frame.roles[marks[-1]["role"]] != "assistant":
        return None
    before = text[: marks[0].start()].strip()
    for start in frame.start:
        before = before.removeprefix(start).strip()
    if frame.name == "Alpaca":
        before = _ALPACA_PREFACE.sub("", before).strip()
    if before or re.sub(r"</?think>|\s", "", text[marks[-1].end() :]):
        return None
    ends = [mark.start() for mark in marks[1:]]
    turns = []
    for mark, end in zip(marks[:-1], ends, strict=True):
        role, content = frame.roles[mark["role"]], text[mark.end() : end].strip()
        for closing in frame.ends:
            content = content.removesuffix(closing).strip()
        if frame.name == "Llama 2 or Mistral" and (system := _LLAMA2_SYSTEM.match(content)) and not turns:
            turns.append({"role": "system", "content": system[1]})
            content = content[system.end() :]
        if turns and turns[-1]["role"] == role == "user" and frame.name == "Alpaca":
            turns[-1]["content"] += f"\n\n{content}"  # "### Input:" belongs to the instruction before it
        elif content or role != "system":
            turns.append({"role": role, "content": content})
    well_formed = turns and turns[-1]["role"] == "user" and all(turn["content"] for turn in turns)
    return turns if well_formed else None
