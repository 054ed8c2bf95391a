"""How a pair can differ from what its chat template writes: the kinds, and how they are recognised in texts and ids."""

import operator
import re
from dataclasses import dataclass

#: Tags that open and close a model's thinking.
THINKING = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
)

SPACE, MARKS, RESHAPED, KEPT, PROMPT, UNPLACED, MERGED, IDS = (
    "white space", "end marks", "thinking tags", "reasoning kept", "prompt rewritten", "not found",
    "merged tokens", "other tokens",
)  # fmt: skip
COMPLETED, FIELD = ("opening tag left out", "thinking given in its field")
TOOLS, CALLS, RESULTS, REASONING = ("tools ignored", "tool calls ignored", "tool results ignored", "reasoning ignored")
EARLIER_REASONING, EARLIER_MARKS = ("earlier reasoning left out", "end marks of earlier answers")
DOUBLED, OPEN, FRAME = ("doubled thinking", "open thinking", "a frame inside a frame")


@dataclass(frozen=True)
class Kind:
    """severe: no conversation that the model can meet. fault: False for what is only counted under every policy.

    words: what it is, after a number of pairs.
    """

    words: str
    severe: bool = False
    fault: bool = True


KINDS = {
    SPACE: Kind("white space around an answer is left out, as the chat template writes it"),
    MARKS: Kind("an answer brings its own end marks, which are scored once"),
    RESHAPED: Kind("the chat template writes an answer differently from the data: its form is scored"),
    COMPLETED: Kind("an answer leaves the tag that opens its thinking to the prompt, which writes it"),
    FIELD: Kind("an answer's thinking is given to the chat template as reasoning, because it would open it twice"),
    KEPT: Kind("the chat template would drop an answer's reasoning: it is scored as in the data"),
    PROMPT: Kind("the chat template writes the prompt differently once an answer follows: it is kept as for sampling"),
    UNPLACED: Kind("the chat template changes an answer beyond recognition: the data's form is scored"),
    MERGED: Kind("tokens of prompt and answer would merge in one text: they stay apart as in sampling", fault=False),
    IDS: Kind("prompt and answer have other tokens apart than in one text"),
    TOOLS: Kind("the chat template has no place for tools: their list is ignored"),
    CALLS: Kind("the chat template does not write all tool calls of earlier turns: what it leaves out is ignored"),
    RESULTS: Kind("the chat template does not write the turns of tools: they are ignored"),
    REASONING: Kind("the chat template has no place for reasoning in a field of its own: it is ignored"),
    EARLIER_REASONING: Kind("the chat template leaves out the reasoning of earlier turns"),
    EARLIER_MARKS: Kind("an earlier answer brings its own end marks, which are written once"),
    DOUBLED: Kind("thinking is opened twice, or closed where none is open", severe=True),
    OPEN: Kind("an answer is inside a thinking block that it does not close", severe=True),
    FRAME: Kind("a text already holds turns that the chat template writes around it", severe=True),
}


def refused(kinds, policy: str) -> str | None:
    """The kind for which a pair is left out, or None. policy: data.on_template_mismatch."""
    if policy == "keep":
        return None
    fitting = [kind for kind in kinds if KINDS[kind].severe or (policy == "drop" and KINDS[kind].fault)]
    return max(fitting, key=lambda kind: KINDS[kind].severe, default=None)


def is_open(text: str, tags) -> bool:
    """Whether a text ends inside a thinking block."""
    return text.rfind(tags[0]) > text.rfind(tags[1])


def thinks(answer: str, tags) -> bool:
    """Whether an answer brings thinking of its own: it opens a block, or closes one that the prompt opened.

    A closing tag inside a sentence closes none: it stands alone on its line, or a blank line follows it.
    """
    opener, closer = tags
    if answer.lstrip().startswith(opener):
        return True
    at = answer.find(closer)
    return at >= 0 and opener not in answer[:at] and _closes(answer, at, at + len(closer))


def _closes(text, start, end):
    """Whether a closing tag from `start` to `end` of a text is no word of a sentence."""
    line = text[text.rfind("\n", 0, start) + 1 : start]
    rest = text[end:].partition("\n")
    return not rest[0].strip() and (not line.strip() or rest[2].startswith("\n"))


def without_empty_block(answer: str, tags) -> str:
    """An answer without a thinking block in which nothing stands, if it begins with one."""
    inside, closer, rest = answer.lstrip().removeprefix(tags[0]).partition(tags[1])
    empty = answer.lstrip().startswith(tags[0]) and closer and not inside.strip()
    return rest.lstrip("\n") if empty else answer


def thinking_fault(lead: str, answer: str, tags) -> str | None:
    """DOUBLED or OPEN, or None. lead: what the prompt has written of the answer's turn, answer: what is scored.

    A tag outside a block is a word of a sentence unless it begins a line, or ends a block as in `thinks`.
    """
    opener, closer = tags
    text, is_inside, blocks, last = lead + answer, False, 0, 0
    if opener not in text and closer not in text:
        return None
    for mark in re.finditer(f"{re.escape(opener)}|{re.escape(closer)}", text):
        follows = not text[last : mark.start()].strip()  # nothing stands between the mark and the one before it
        begins = follows or not text[text.rfind("\n", 0, mark.start()) + 1 : mark.start()].strip()
        if mark[0] == closer:
            if not is_inside and ((follows and blocks) or _closes(text, mark.start(), mark.end())):
                return DOUBLED
            is_inside, last = False, mark.end()
        elif is_inside or (begins and follows and blocks):
            return DOUBLED
        elif begins or closer in text[mark.end() :]:
            is_inside, blocks, last = True, blocks + 1, mark.end()
    return OPEN if is_inside else None


def ids_fault(whole: list[int], prompt: list[int], answer: list[int]) -> str | None:
    """MERGED or IDS where one text has other ids than its two parts, or None.

    MERGED: they differ in one place only, and it touches the border of the two.
    """
    parts = prompt + answer
    if whole == parts:
        return None
    before = next((at for at, pair in enumerate(zip(whole, parts, strict=False)) if pair[0] != pair[1]), None)
    if before is None:
        before = min(len(whole), len(parts))
    after = 0
    while after < min(len(whole), len(parts)) - before and whole[-1 - after] == parts[-1 - after]:
        after += 1
    ours, theirs = parts[before : len(parts) - after], whole[before : len(whole) - after]
    apart = len(ours) == len(theirs) and any(map(operator.eq, ours, theirs))  # equal tokens between two places
    return MERGED if before <= len(prompt) <= len(parts) - after and not apart else IDS
