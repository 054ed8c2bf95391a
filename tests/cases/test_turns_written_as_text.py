"""Conversations that a table keeps as text, and answers that are JSON themselves.

What a user would lose: a model that answers in JSON with roles, or answers that were taken for turns.
"""

import json

import facts
import pytest
from facts import FACTS, PAIRS, assistant, user

TOOL = {
    "type": "function",
    "function": {"name": "atlas", "description": "Finds places", "parameters": {"type": "object", "properties": {}}},
}


def talk(question, answer):
    return [user(question), assistant(answer)]


@pytest.mark.parametrize("write", [facts.jsonl, facts.table], ids=["JSONL", "CSV"])
def test_objects_with_messages_and_tools_as_json_text(tmp_path, write):
    def row(question, good, poor):
        sides = {"chosen": good, "rejected": poor}
        return {side: json.dumps({"messages": talk(question, text), "tools": [TOOL]}) for side, text in sides.items()}

    texts, report, pairs = facts.read(write(tmp_path / f"a.{'jsonl' if write is facts.jsonl else 'csv'}", row))
    assert texts == PAIRS
    assert [pair.tools for pair in pairs] == [(TOOL,)] * 4
    assert report.refused == {}


@pytest.mark.parametrize("written", [json.dumps, str], ids=["as JSON", "as Python prints it"])
@pytest.mark.parametrize("with_prompt", [True, False], ids=["beside a prompt", "alone"])
@pytest.mark.parametrize("write", [facts.jsonl, facts.table], ids=["JSONL", "CSV"])
def test_lists_of_turns_as_text(tmp_path, written, with_prompt, write):
    def row(question, good, poor):
        prompt = {"prompt": question} if with_prompt else {}
        return {**prompt, "chosen": written(talk(question, good)), "rejected": written(talk(question, poor))}

    texts, report, _ = facts.read(write(tmp_path / f"a.{'jsonl' if write is facts.jsonl else 'csv'}", row))
    assert texts == PAIRS
    assert (report.kept, report.refused, report.notes) == (4, {}, ())


@pytest.mark.parametrize("write", [facts.jsonl, facts.table], ids=["JSONL", "CSV"])
def test_answers_that_are_json_stay_answers(tmp_path, write):
    def row(question, good, _):
        return {
            "prompt": f"As JSON: {question}",
            "chosen": json.dumps({"question": question, "answer": good}),
            "rejected": json.dumps({"answer": good}),
        }

    texts, report, _ = facts.read(write(tmp_path / f"a.{'jsonl' if write is facts.jsonl else 'csv'}", row))
    assert texts == [tuple(row(*fact).values()) for fact in FACTS]
    assert report.refused == {}


@pytest.mark.parametrize("write", [facts.jsonl, facts.table], ids=["JSONL", "CSV"])
def test_so_do_those_with_the_keys_role_and_content(tmp_path, write):
    def row(question, good, _):
        return {
            "prompt": question,
            "chosen": json.dumps({"role": "gardener", "content": good}),
            "rejected": json.dumps({"role": "none", "content": good}),
        }

    texts, report, _ = facts.read(write(tmp_path / f"a.{'jsonl' if write is facts.jsonl else 'csv'}", row))
    assert texts == [tuple(row(*fact).values()) for fact in FACTS]
    assert report.refused == {}
