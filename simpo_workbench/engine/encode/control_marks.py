"""Which texts control a conversation: control tokens, and the frame that a chat template writes around turns.

Pure functions and tables; `control_tokens` uses them.
"""

import itertools
import re
from typing import NamedTuple

from ...base.errors import WorkbenchError
from .mismatch import THINKING

MEDIA = re.compile(r"image|img|video|audio|vision|media|speech|pixel|\b[sebo]o[ia]\b", re.IGNORECASE)
_MARK = re.compile(
    r"<\|[^\s<>|]{1,40}\|>|<\|[a-z_]{1,40}>|<[a-z_]{1,40}\|>|</?[A-Za-z_]{1,40}>|<</?[A-Z]{2,40}>>"
    r"|\[/?[A-Z_]{2,40}\]|<｜[^<>\s]{1,40}｜>"
)
_THINKING = re.compile(
    r"think|thought|reason|channel|message|constrain|calls?(?![a-z])|tool.?sep|action|arg_(?:key|value)|python_tag"
    r"|(?:start|end)_response|^</?(?:function|parameter)",
    re.IGNORECASE,
)
_OF_TOOLS = re.compile(r"(?:tool|function).*(?:response|output|result|list)", re.IGNORECASE)
_PROBES = tuple(f"Zebra quartz {word} at noon" for word in ("zero", "one", "two", "three"))


class Piece(NamedTuple):
    """A text that a template writes in front of a turn, and the role of that turn."""

    role: str
    text: str


def pieces_around_turns(template) -> list[Piece]:
    """The texts that a ChatTemplate writes in front of the turns of a short conversation, the last before an answer.

    With a system turn where the template takes one, and without the second exchange where it refuses that.
    """
    roles = ("user", "assistant", "user")
    conversations = [("system", *roles)] if template.takes_system_turn else []
    for turns in (*conversations, roles, roles[:1]):
        messages = [{"role": role, "content": text} for role, text in zip(turns, _PROBES, strict=False)]
        try:
            text = template.render(messages)
        except WorkbenchError:
            continue
        pieces, rest = [], text
        for role, probe in zip(turns, _PROBES, strict=False):
            before, found, rest = rest.partition(probe)
            if not found:
                break
            pieces.append(Piece(role, before))
        else:
            return [*pieces, Piece("assistant", rest)]
    return []


def openers(pieces: list[Piece], names, ends) -> set[str]:
    """The control tokens that open a turn: the first in each piece that ends none and begins no text.

    A thinking token opens none: where headers are plain text, as "Assistant: <think>", it only follows one.
    """
    if not names:
        return set()
    literal, opening = re.compile(alternatives(names)), set()
    for _, after_end in pieces:
        for end in ends:
            after_end = after_end.replace(end, "")
        marks = (mark[0] for mark in literal.finditer(after_end))
        opening |= {mark for mark in itertools.islice(marks, 1) if not _opens_thinking(mark)}
    return opening


def frames(pieces: list[Piece], names, closing) -> list[str]:
    """What the template writes around turns that is not made of control tokens: marks such as [INST], or words.

    closing: control tokens that end a turn or begin the whole text. Words such as " ASSISTANT: " of Vicuna only where
    no other token or mark stands in front of a turn. Line breaks before them belong to them, because without these the
    words open no turn: a turn of the user needs one where the assistant's turns begin with one.
    """
    found = {}
    for _, text in pieces:
        bare = re.sub(alternatives(names), "", text) if names else text
        found.update(dict.fromkeys(mark for mark in _MARK.findall(bare) if not thinking(mark)))
    headers = [(role, _words_before(text, names, closing)) for role, text in pieces]
    if headers and headers[0][0] in [role for role, words in headers[1:] if words]:
        del headers[0]  # in front of the first turn may stand a preface
    on_lines = any(role == "assistant" and words.lstrip(" ").startswith("\n") for role, words in headers)
    for position, (role, words) in enumerate(headers):
        words = words.strip(" ").rstrip()
        if position == 0:
            words = re.split(r"\n|(?<=[.!?]) ", words)[-1]
        if re.search(r"\w", words):
            own_line = on_lines and role != "assistant" and not words.startswith("\n")
            found["\n" + words if own_line else words] = None
    return list(found)


def _words_before(text, names, closing):
    """The words with which a piece opens its turn; "" where a control token or a mark does."""
    if names:
        text = re.split(alternatives(closing & set(names)), text)[-1] if closing & set(names) else text
        text = re.split(alternatives([name for name in names if _opens_thinking(name)]), text)[0]
        if re.search(alternatives(names), text):
            return ""
    return "" if any(not thinking(mark) for mark in _MARK.findall(text)) else text


def thinking(name: str) -> bool:
    """Whether the name of a mark says that a model writes it inside its own turn: thinking, a tool call, a channel."""
    return bool(_THINKING.search(name)) and not _OF_TOOLS.search(name)


def _opens_thinking(name):
    return any(name in tags for tags in THINKING)


def alternatives(words) -> str:
    """A pattern that matches any of the words, the longest first, and tries each character once, however many."""
    tree: dict = {}
    for word in words:
        node = tree
        for character in word:
            node = node.setdefault(character, {})
        node[""] = {}
    return _pattern(tree) if tree else r"(?!)"


def _pattern(tree):
    branches = [re.escape(character) + _pattern(node) for character, node in sorted(tree.items()) if character]
    if not branches:
        return ""
    if len(branches) == 1 and "" not in tree:
        return branches[0]
    return f"(?:{'|'.join(branches)}){'?' if '' in tree else ''}"
