"""Preference data of tool use, with a template that takes tools and with one that does not.

What a user would lose: prompts without the tool list that the model meets in use, and calls that vanish from the
history; all without a word.
"""

import json

import facts
import pytest
import tiny
from facts import assistant, user

PORTS = {
    "type": "function",
    "function": {
        "name": "tide_table",
        "description": "High and low water of a harbour",
        "parameters": {"type": "object", "properties": {"harbour": {"type": "string"}}, "required": ["harbour"]},
    },
}
#: Writes the names of tools, calls with their arguments, and the turns of tools.
TAKES_TOOLS = (
    "{% if tools %}{{ '<|start|>tools' }}{% for t in tools %} {{ t['function']['name'] }}{% endfor %}<|end|>\n"
    "{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{{ m['content'] or '' }}"
    "{% for c in m['tool_calls'] or [] %}"
    "{{ '=> ' + c['function']['name'] + ' ' + (c['function']['arguments'] | tojson) }}{% endfor %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CALL = {
    "id": "call_7",
    "type": "function",
    "function": {"name": "tide_table", "arguments": json.dumps({"harbour": "Brest"})},
}
WRITTEN_CALL = '=> tide_table {"harbour": "Brest"}'
HISTORY = [
    user("When is low water in Brest?"),
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_7", "content": '{"low": "14:05"}'},
]
HARBOURS = [(harbour, "I look it up in the tide table.", f"Go to {harbour} and see.") for harbour in ("Brest", "Cork")]


def both(path):
    """(texts, report) of the pairs of a file for a template that takes tools, and for one that does not."""
    pairs = facts.read(path)[2]
    return [facts.encoded(facts.encoder(template), pairs) for template in (TAKES_TOOLS, tiny.CHATML)]


def rendered(template, turns, tools):
    """What the tokenizer itself makes of a conversation."""
    tokenizer = facts.encoder(template).tokenizer
    return tokenizer.apply_chat_template(turns, tools=tools, tokenize=False).removesuffix("\n")


@pytest.mark.parametrize("written", [lambda tools: tools, json.dumps], ids=["a list", "JSON text"])
def test_a_column_of_tools_beside_plain_answers(tmp_path, written):
    def row(harbour, good, poor):
        prompt = [user(f"When is low water in {harbour}?")]
        return {"tools": written([PORTS]), "prompt": prompt, "chosen": [assistant(good)], "rejected": [assistant(poor)]}

    (texts, report), (without, said) = both(facts.jsonl(tmp_path / "a.jsonl", row, HARBOURS))
    turns = [user("When is low water in Brest?"), assistant(HARBOURS[0][1])]
    assert texts[0][0] + texts[0][1] == rendered(TAKES_TOOLS, turns, [PORTS])
    assert texts[0][0].startswith("<|start|>tools tide_table<|end|>")
    assert (len(texts), report.mismatches) == (2, {})
    assert len(without) == 2
    assert "In 2 pairs the chat template has no place for tools: their list is ignored" in str(said)


@pytest.mark.parametrize("form", ["prompt", "messages"], ids=["turns beside a prompt", "messages, one turn each"])
def test_calls_and_results_in_the_history(tmp_path, form):
    def row(*_):
        answers = {"chosen": assistant("At 14:05."), "rejected": assistant("At noon, perhaps.")}
        answers = answers if form == "messages" else {side: [turn] for side, turn in answers.items()}
        return {"tools": [PORTS], form: HISTORY, **answers}

    (texts, report), (_, said) = both(facts.jsonl(tmp_path / "a.jsonl", row, HARBOURS[:1]))
    assert len(texts) == 1
    assert f"assistant\n{WRITTEN_CALL}<|im_end|>" in texts[0][0]
    assert 'tool\n{"low": "14:05"}<|im_end|>' in texts[0][0]
    assert texts[0][1:] == ("At 14:05.<|im_end|>", "At noon, perhaps.<|im_end|>")
    assert report.mismatches == {}
    assert "does not write all tool calls of earlier turns" in str(said)
    assert "has no place for tools" in str(said)


def test_a_call_as_the_answer_is_scored_or_the_row_refused_with_a_reason_that_names_it(tmp_path):
    def row(*_):
        chosen = {"role": "assistant", "content": "", "tool_calls": [CALL]}
        return {"tools": [PORTS], "prompt": HISTORY[:1], "chosen": [chosen], "rejected": [assistant("At noon.")]}

    (texts, report), (without, said) = both(facts.jsonl(tmp_path / "a.jsonl", row, HARBOURS[:1]))
    assert [text[1:] for text in texts] == [(f"{WRITTEN_CALL}<|im_end|>", "At noon.<|im_end|>")]
    assert report.mismatches == {}
    assert without == []
    assert "Dropped 1: an answer is a tool call, which the chat template does not write" in str(said)
