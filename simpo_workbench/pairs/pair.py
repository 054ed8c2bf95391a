"""One preference pair, and what identifies it: ids that follow from its content alone. Standard library only."""

import hashlib
import json
from dataclasses import dataclass, field

#: ensure_ascii keeps the bytes the same on every platform; what JSON does not know, such as a date, is its text.
_CANONICAL = json.JSONEncoder(ensure_ascii=True, sort_keys=True, separators=(",", ":"), default=str)


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference pair. `prompt` is a tuple of {"role", "content"}; `extra` holds the source's other columns.

    A turn may have the keys tool_calls, tool_call_id, name, reasoning_content and thinking as well. tools: the tools
    that the model may call, as JSON schemas. chosen_turn, rejected_turn: the whole answer turn where it is more than
    the text in `chosen` or `rejected`, else None. where: the pair's place in its source ("line 17"); not compared.
    """

    pair_id: str
    prompt: tuple[dict, ...]
    chosen: str
    rejected: str
    extra: dict = field(default_factory=dict)
    tools: tuple[dict, ...] = ()
    chosen_turn: dict | None = None
    rejected_turn: dict | None = None
    where: str = field(default="", compare=False)

    @property
    def prompt_text(self) -> str:
        """The prompt as readable text."""
        return prompt_text(self.prompt)


def pair_id(prompt, chosen, rejected, tools=(), chosen_turn=None, rejected_turn=None) -> str:
    """16 hex digits that depend on the pair's content alone: the start of a SHA-256 over its canonical JSON."""
    content = {"prompt": _turns(prompt), "chosen": chosen, "rejected": rejected}
    more = {"tools": list(tools), "chosen_turn": chosen_turn, "rejected_turn": rejected_turn}
    return _digest(content | {name: value for name, value in more.items() if value})[:16]


def prompt_key(messages) -> str:
    """64 hex digits that identify the prompt; a split by prompt groups by them."""
    return _digest(_turns(messages))


def prompt_text(messages) -> str:
    """The prompt as readable text: the content of a single user turn, else a transcript "System: …", "User: …"."""
    messages = list(messages)
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in messages)


def _turns(messages):
    if all(len(turn) == 2 and turn["role"] is not None for turn in messages):
        return list(messages)
    # Parquet fills the keys that other turns have with null
    return [{key: value for key, value in turn.items() if value is not None or key == "content"} for turn in messages]


def _digest(value):
    return hashlib.sha256(_CANONICAL.encode(value).encode("ascii")).hexdigest()
