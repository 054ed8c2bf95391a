"""Prompts that already hold the frame of a chat template, and how they are read as conversations.

A prompt such as "<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n" was rendered by a template before it was
stored. Rendered once more it would be a conversation inside a user turn, which no model meets in use.
"""

import dataclasses
import re
from collections import Counter

from ..base.errors import WorkbenchError
from ..base.format import counted
from .frame_table import FRAMES, OPENINGS, PREFACES, SPEAKERS, may_be_framed
from .pair import Pair, pair_id
from .refused import RowRefused, excerpt

REASON = "framed by a template"
ADVICE = "give data.framed_prompts as_conversation to read such prompts as conversations"


#: Marks of widespread templates. Where a model has no such token they are harmless text, but say that data were framed.
KNOWN_MARKS = (
    *("<|im_start|>", "<|im_end|>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<|begin_of_text|>", "<|end_of_text|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "<|endoftext|>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "</s>"),
    *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|turn>", "<turn|>", "<extra_id_0>", "<extra_id_1>"),
    *("<|header_start|>", "<|header_end|>", "<|start_of_role|>", "<|end_of_role|>", "<|prompter|>"),
)
_KNOWN = re.compile("|".join(map(re.escape, KNOWN_MARKS)))
_AT_END = re.compile(
    r"\s*(?:(?:<\|im_end\|>|<\|eot_id\|>|<\|end_of_text\|>|<end_of_turn>|<\|endoftext\|>|</s>|<turn\|>"
    r"|<｜end▁of▁sentence｜>|<\|END_OF_TURN_TOKEN\|>)\s*)+\Z"
)
_CHUNK = 1000  # pairs that one search goes through
_SHOWN = 5
_FIRST_CHARACTERS = frozenset(opening[0] for opening in (*OPENINGS, *SPEAKERS))

_LLAMA2_SYSTEM = re.compile(r"\s*<<SYS>>\n?(.*?)\n?<</SYS>>\s*", re.DOTALL)


def framed_by(text: str) -> str | None:
    """The name of the frame that a prompt is written in, such as "ChatML"; None for other texts.

    Text that only mentions such marks is not framed: a user turn must come first, and the prompt must end where the
    answer begins, or with the mark that ends a user turn.
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
    if policy == "keep":
        return pair
    answers = {"chosen": _unopened(pair.chosen, pair.prompt), "rejected": _unopened(pair.rejected, pair.prompt)}
    framed = any(turn["role"] == "user" and may_be_framed(turn["content"]) for turn in pair.prompt)
    if not framed and answers["chosen"] is answers["rejected"] is None:
        return pair
    opened = {side: found for side, found in answers.items() if found}
    if opened and policy == "refuse":
        (side, (frame, _, before)), *_ = opened.items()
        what = f"is framed as {frame.name} does it" if before else f"begins with the mark of {frame.name} that opens it"
        raise RowRefused(REASON, f"the {side} answer {what}; {ADVICE}")
    turns = _unframed_turns(pair.prompt, policy)
    for side, (_, _, before) in opened.items():
        if before and before != turns:
            raise RowRefused(
                "different histories", f"the turns framed in the {side} answer are not those of the prompt"
            )
    if turns == list(pair.prompt) and not opened:
        return pair
    changed = {"prompt": tuple(turns), **_answers_without_ends(pair)}
    for side, (_, text, _) in opened.items():
        turn = getattr(pair, f"{side}_turn")
        changed |= {side: text, f"{side}_turn": turn and {**turn, "content": text}}
    if any(not changed[side].strip() and not changed[f"{side}_turn"] for side in opened):
        raise RowRefused("empty", "an answer holds nothing but a template's marks")
    pair = dataclasses.replace(pair, **changed)
    identity = pair_id(turns, pair.chosen, pair.rejected, pair.tools, pair.chosen_turn, pair.rejected_turn)
    return dataclasses.replace(pair, pair_id=identity)


def unframed_row(row: dict, policy: str) -> dict:
    """The row with turns in place of `chosen` and `rejected`, where both are whole framed conversations; else the row.

    For rows without a prompt of their own. Errors: RowRefused for such a row under refuse (data.framed_prompts).
    """
    texts = row.get("chosen"), row.get("rejected")
    if policy == "keep" or not all(isinstance(text, str) for text in texts):
        return row
    found = [_conversation(text.lstrip()) for text in texts]
    if None in found:
        return row
    if policy == "refuse":
        raise RowRefused(REASON, f"chosen and rejected are framed as {found[0][0].name} does it; {ADVICE}")
    turns = [[*before, {"role": "assistant", "content": answer}] for _, answer, before in found]
    return row | dict(zip(("chosen", "rejected"), turns, strict=True))


def _answers_without_ends(pair):
    """The answers of a framed prompt without its frame's end marks, of those that bring some."""
    found = next((found for turn in pair.prompt if turn["role"] == "user" and (found := _read(turn["content"]))), None)
    if found is None:
        return {}
    cut = {side: _without_ends(found[0], getattr(pair, side)) for side in ("chosen", "rejected")}
    return {side: text for side, text in cut.items() if not getattr(pair, f"{side}_turn")}


def unframed_prompt(turns: list[dict], policy: str) -> list[dict]:
    """The turns of a prompt that a user gives, with a framed one as `policy` (data.framed_prompts) wants it.

    Errors: WorkbenchError for a framed prompt under refuse, or where its system text is a second one.
    """
    try:
        return list(turns) if policy == "keep" else _unframed_turns(turns, policy)
    except RowRefused as refused:
        shown = excerpt(str(turns[-1].get("content")))
        raise WorkbenchError(f"The prompt {shown} cannot be answered: {refused.seen}.") from None


def _unframed_turns(prompt, policy):
    """The turns of a prompt without frames in them. Errors: RowRefused, as in `unframed`."""
    turns = []
    for turn in prompt:
        is_text = turn["role"] == "user" and isinstance(turn["content"], str)
        found = _read(turn["content"]) if is_text else None
        if found and policy == "refuse":
            raise RowRefused(REASON, f"the prompt is framed as {found[0].name} does it; {ADVICE}")
        turns += found[1] if found else [turn]
    systems = [turn["content"] for turn in turns if turn["role"] == "system"]
    if len(systems) > 1:
        raise RowRefused("two system texts", f"one is inside the framed prompt: {excerpt(systems[-1])}")
    return turns


def _unopened(answer, prompt):
    """(Frame, the answer without it, turns before it) of an answer that begins with a frame; None for other answers.

    It begins with the mark that opens it (no turns before it), or is a whole conversation that ends in the answer. One
    of speakers' names, which an answer may hold of its own, has to begin with the prompt's turns.
    """
    text = answer.lstrip()
    if text[:1] not in _FIRST_CHARACTERS:
        return None
    if text.startswith(SPEAKERS):
        found = _conversation(text)
        return found if found and found[2] == list(prompt) else None
    if not text.startswith(OPENINGS):
        return None
    for frame in FRAMES:
        mark = re.match(frame.opening, text)
        if mark and frame.roles[mark["role"]] == "assistant":
            return frame, text[mark.end() :], []
    return _conversation(text)


def _conversation(text):
    """(Frame, answer, turns before it) of a whole framed conversation that ends in an answer; None for other texts."""
    for frame in FRAMES:
        marks = list(re.finditer(frame.opening, text))
        if len(marks) > 1 and frame.roles[marks[-1]["role"]] == "assistant":
            before = _turns(frame, text[: marks[-1].end()])
            if before:
                return frame, _without_ends(frame, text[marks[-1].end() :]).strip(), before
    return None


def _without_ends(frame, text):
    """A text without the marks that end a turn in a frame; a text without one as it is."""
    while text.rstrip().endswith(frame.ends):
        end = next(end for end in frame.ends if text.rstrip().endswith(end))
        text = text.rstrip().removesuffix(end).rstrip()
    return text


def marks_note(pairs) -> str | None:
    """A sentence that counts the pairs whose texts hold KNOWN_MARKS, with the most frequent marks; None without any.

    Marks at the end of an answer are not counted: they are taken off before it is scored.
    """
    marks, holders = Counter(), 0
    for start in range(0, len(pairs), _CHUNK):
        chunk = pairs[start : start + _CHUNK]
        if not _KNOWN.search("\0".join([text for pair in chunk for text in _texts(pair)])):
            continue
        for pair in chunk:
            found = {mark for text in _texts(pair) for mark in _KNOWN.findall(text)}
            marks.update(found)
            holders += bool(found)
    if not holders:
        return None
    shown = ", ".join(f"{mark!r} in {count}" for mark, count in marks.most_common(_SHOWN))
    hold = "holds" if holders == 1 else "hold"
    return (
        f"{counted(holders, 'pair')} {hold} marks of chat templates in the texts ({shown}); see"
        " data.special_tokens_in_text"
    )


def _texts(pair):
    texts = [turn["content"] for turn in pair.prompt if isinstance(turn["content"], str)]
    for answer in (pair.chosen, pair.rejected):
        texts.append(_AT_END.sub("", answer) if answer.rstrip()[-1:] in (">", "]") else answer)
    return texts


def _read(text):
    """(Frame, turns) of a framed prompt, or None."""
    if not may_be_framed(text):
        return None
    for frame in FRAMES:
        turns = _turns(frame, text)
        if turns:
            return frame, turns
    return None


def _turns(frame, text):
    marks = list(re.finditer(frame.opening, text))
    if not marks:
        return None
    opens_answer = frame.roles[marks[-1]["role"]] == "assistant"
    if not (opens_answer or frame.bare or text.rstrip().endswith(frame.ends)):
        return None
    before = text[: marks[0].start()].strip()
    for start in frame.start:
        before = before.removeprefix(start).strip()
    if frame.name in PREFACES:
        before = PREFACES[frame.name].sub("", before).strip()
    bare_turn = frame.bare and before
    if (before and not bare_turn) or (opens_answer and re.sub(r"</?think>|\s", "", text[marks[-1].end() :])):
        return None
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    turns = [{"role": "user", "content": before}] if bare_turn else []
    for mark, end in zip(marks[:-1] if opens_answer else marks, ends, strict=False):
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
