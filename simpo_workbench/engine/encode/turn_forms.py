"""Turns as a chat template takes them: tools, tool calls, and reasoning in a field of its own.

Templates read these under different names and in different forms. What one takes is found by rendering probes.
"""

import functools
import json
import re
from collections import Counter

#: Keys under which data and templates have reasoning beside the content.
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
_USER = {"role": "user", "content": "x"}
_NAME, _VALUE, _THOUGHT, _RESULT = "zebra_quartz", "basalt", "Mauve gravel", "Ochre slate"
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "Looks up a stone.",
        "parameters": {"type": "object", "properties": {"stone": {"type": "string", "description": "Its name."}}},
    },
}


def is_plain(turn: dict) -> bool:
    """Whether a turn is a role and a text, which every template takes."""
    return len(turn) == 2 and turn["role"] != "tool" and type(turn["content"]) is str


def reasoning_of(turn: dict) -> str:
    """The reasoning that a turn has in a field of its own, or an empty text."""
    values = (turn.get(key) for key in REASONING_KEYS)
    return next((value for value in values if isinstance(value, str) and value.strip()), "")


def tool_names(turn: dict) -> list[str]:
    """The names of the functions that a turn calls."""
    return [call.get("function", call).get("name", "") for call in turn.get("tool_calls") or ()]


def call_texts(turn: dict) -> tuple[tuple[str, ...], ...]:
    """What a template has to write of a turn's calls: every name and every argument's value, in the possible forms."""
    texts = []
    for call in turn.get("tool_calls") or ():
        function = call.get("function", call)
        texts += [(function.get("name", ""),), *_forms_of(_arguments(function.get("arguments"), False))]
    return tuple(texts)


def holds_texts(written: str, texts) -> bool:
    """Whether a text holds each of `call_texts` as a word of its own, and as often as it is among them."""
    return all(
        len(re.findall("|".join(rf"(?<!\w){re.escape(form)}(?!\w)" for form in forms), written)) >= number
        for forms, number in Counter(texts).items()
    )


def _forms_of(value):
    """Tuples of the forms in which templates write the values inside an argument; of a blank text there are none."""
    if isinstance(value, dict | list | tuple):
        return [forms for item in (value.values() if isinstance(value, dict) else value) for forms in _forms_of(item)]
    if not isinstance(value, str):
        return [tuple(dict.fromkeys((json.dumps(value), str(value))))]
    escaped = [json.dumps(value.strip(), ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True)]
    twice = [json.dumps(text, ensure_ascii=False)[1:-1] for text in escaped]  # JSON in JSON
    return [tuple(dict.fromkeys((value.strip(), *escaped, *twice)))] if value.strip() else []


class TurnForms:
    """What one template takes. render: (messages, tools) -> text; it may raise anything."""

    def __init__(self, render):
        self._render = render

    def _writes(self, messages, *texts, tools=None):
        try:
            rendered = self._render(messages, tools)
        except Exception:  # a template can raise anything; what it refuses it does not take
            return False
        return all(text in rendered for text in texts)

    @functools.cached_property
    def takes_tools(self) -> bool:
        """Whether the template writes a list of tools."""
        return self._writes([_USER], _NAME, tools=[_TOOL])

    @functools.cached_property
    def reasoning_key(self) -> str | None:
        """The key under which the template reads the reasoning of a last turn, or None."""
        for key in REASONING_KEYS:
            if self._writes([_USER, {"role": "assistant", "content": "y", key: _THOUGHT}], _THOUGHT):
                return key
        return None

    @functools.cache  # noqa: B019 (an encoder has one, and they end together)
    def splits_thinking(self, tags) -> bool:
        """Whether thinking in the text of an answer must be given in a field: the template would open it twice."""
        turn = {"role": "assistant", "content": f"{tags[0]}\n{_THOUGHT}\n{tags[1]}\n\ny"}
        try:
            return self.reasoning_key is not None and self._render([_USER, turn], None).count(tags[0]) > 1
        except Exception:  # as in _writes
            return False

    @functools.cached_property
    def _call_form(self):
        """(arguments as JSON text, content of a turn without text) that make the template write calls, or None."""
        for as_text in (False, True):
            for content in (None, ""):
                turn = self._with_calls({"role": "assistant", "content": content, "tool_calls": [_call()]}, as_text)
                if self._writes([_USER, turn], _NAME, _VALUE, tools=[_TOOL]):
                    return as_text, content
        return None

    @functools.cached_property
    def takes_calls(self) -> bool:
        """Whether the template writes tool calls."""
        return self._call_form is not None

    @functools.cached_property
    def takes_results(self) -> bool:
        """Whether the template writes the turns of tools."""
        turns = [{"role": "assistant", "content": "", "tool_calls": [_call()]}, _result()]
        return self._writes(self.turns([_USER, *turns]), _RESULT, tools=[_TOOL])

    def tools(self, tools) -> list[dict] | None:
        """The tools as the template takes them; None where there are none, or it has no place for them."""
        if not tools or not self.takes_tools:
            return None
        return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]

    def turns(self, messages) -> list[dict]:
        """The messages in the forms that the template reads; plain turns are as they were."""
        return [turn if is_plain(turn) else self._turn(turn) for turn in messages]

    def _turn(self, turn):
        # Parquet fills the keys that other turns have with null
        turn = {key: value for key, value in turn.items() if value is not None or key == "content"}
        reasoning = reasoning_of(turn)
        for key in REASONING_KEYS:
            turn.pop(key, None)
        if reasoning and self.reasoning_key:
            turn[self.reasoning_key] = reasoning
        if not turn.get("tool_calls"):
            turn.pop("tool_calls", None)
            return {**turn, "content": turn.get("content") or ""}
        as_text, empty = self._call_form or (False, "")
        return self._with_calls({**turn, "content": turn.get("content") or empty}, as_text)

    @staticmethod
    def _with_calls(turn, as_text):
        calls = []
        for call in turn["tool_calls"]:
            call = dict(call) if "function" in call else {"type": "function", "function": call}
            function = dict(call["function"])
            function["arguments"] = _arguments(function.get("arguments"), as_text)
            calls.append({"type": "function", **call, "function": function})
        return {**turn, "tool_calls": calls}


def _arguments(value, as_text):
    """The arguments of a call as a dict or as JSON text; what is no JSON object stays as it is."""
    if as_text:
        return value if isinstance(value, str) else json.dumps(value or {}, ensure_ascii=False)
    if isinstance(value, str):
        try:
            parsed = json.loads(value)
        except ValueError:
            return value
        return parsed if isinstance(parsed, dict) else value
    return {} if value is None else value


def _call():
    # Mistral's templates want ids of nine letters and digits
    return {"id": "abcde1234", "type": "function", "function": {"name": _NAME, "arguments": {"stone": _VALUE}}}


def _result():
    return {"role": "tool", "name": _NAME, "tool_call_id": "abcde1234", "content": _RESULT}
