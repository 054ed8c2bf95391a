"""Preference data as other trainers and services have them: ms-swift, Axolotl, OpenAI and Azure.

What a user would lose: a refusal that calls pairs "supervised answers", advice that cannot work, or earlier turns that
vanish without a word.
"""

import json

import facts
import pytest
from facts import FACTS, PAIRS, assistant, system, user

import simpo_workbench as wb

TALK = [system("Answer in one line."), user("Hi"), assistant("Good morning!")]
#: How the prompt reads with TALK in front of the question.
WITH_TALK = "System: Answer in one line.\n\nUser: Hi\n\nAssistant: Good morning!\n\nUser: "


def with_talk():
    return [(WITH_TALK + question, good, poor) for question, good, poor in PAIRS]


# --- ms-swift


def test_messages_with_a_rejected_text(tmp_path):
    def row(question, good, poor):
        return {"messages": [user(question), assistant(good)], "rejected_response": poor}

    texts, report, _ = facts.read(facts.jsonl(tmp_path / "a.jsonl", row))
    assert texts == PAIRS
    assert (report.kept, report.refused, report.notes) == (4, {}, ())


def test_messages_of_several_turns_keep_all_turns_before_the_answer(tmp_path):
    def row(question, good, poor):
        return {"messages": [*TALK, user(question), assistant(good)], "rejected_response": poor}

    texts, _, pairs = facts.read(facts.jsonl(tmp_path / "a.jsonl", row))
    assert texts == with_talk()
    assert [turn["role"] for turn in pairs[0].prompt] == ["system", "user", "assistant", "user"]


def test_messages_with_a_rejected_answer_as_turns(tmp_path):
    def row(question, good, poor):
        return {"messages": [user(question), assistant(good)], "rejected_response": [assistant(poor)]}

    texts, _, _ = facts.read(facts.jsonl(tmp_path / "a.jsonl", row))
    assert texts == PAIRS


def test_messages_with_several_rejected_answers_make_pairs_by_the_named_policy(tmp_path):
    def row(question, good, poor):
        return {"messages": [user(question), assistant(good)], "rejected_response": [poor, f"{poor} Or so."]}

    path = facts.jsonl(tmp_path / "a.jsonl", row)
    texts, report, _ = facts.read(path)
    assert texts == PAIRS
    assert report.notes == ("4 rows with more than two answers: data.pairs_from_ranking is best_worst",)
    texts, report, _ = facts.read(path, pairs_from_ranking="all")
    assert texts[:2] == [PAIRS[0], (FACTS[0][0], FACTS[0][1], f"{FACTS[0][2]} Or so.")]
    assert (report.kept, report.pairs) == (4, 8)


def test_query_and_response_with_history_and_system_keep_both(tmp_path):
    def row(question, good, poor):
        return {
            "system": "Answer in one line.",
            "query": question,
            "response": good,
            "rejected_response": poor,
            "history": [["Hi", "Good morning!"]],
        }

    path = facts.jsonl(tmp_path / "a.jsonl", row)
    texts, report, _ = facts.read(path)
    assert texts == with_talk()
    assert report.notes == ()
    # the mapping that suggests itself
    mapping = {"prompt": "query", "chosen": "response", "rejected": "rejected_response"}
    texts, _, _ = facts.read(path, columns=mapping)
    assert texts == with_talk()


def test_a_query_in_a_language_of_other_letters_is_read_alike(tmp_path):
    row = {"query": "秘鲁的首都？", "response": "利马。", "rejected_response": "库斯科。", "history": []}
    (tmp_path / "a.jsonl").write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    assert facts.read(tmp_path / "a.jsonl")[0] == [("秘鲁的首都？", "利马。", "库斯科。")]


# --- Axolotl


@pytest.mark.parametrize("answer", [assistant, str], ids=["each answer is one turn", "answers are texts"])
def test_messages_are_the_prompt_where_chosen_and_rejected_stand_beside_them(tmp_path, answer):
    def row(question, good, poor):
        return {"messages": [*TALK, user(question)], "chosen": answer(good), "rejected": answer(poor)}

    texts, report, _ = facts.read(facts.jsonl(tmp_path / "a.jsonl", row))
    assert texts == with_talk()
    assert (report.kept, report.refused, report.notes) == (4, {}, ())


# --- OpenAI and Azure


def service_row(question, good, poor):
    return {
        "input": {"messages": [system("Answer in one line."), user(question)]},
        "preferred_output": [assistant(good)],
        "non_preferred_output": [assistant(poor)],
    }


def test_the_form_of_openai_and_azure_with_a_byte_order_mark(tmp_path):
    texts, report, _ = facts.read(facts.jsonl(tmp_path / "a.jsonl", service_row, encoding="utf-8-sig"))
    assert texts == [(f"System: Answer in one line.\n\nUser: {question}", *both) for question, *both in FACTS]
    assert (report.kept, report.refused, report.notes) == (4, {}, ())


@pytest.mark.parametrize("number_of_tools", [0, 1])
def test_its_tools_are_kept_and_its_flags_are_no_prompt(tmp_path, number_of_tools):
    tools = [{"type": "function", "function": {"name": "atlas", "parameters": {"type": "object", "properties": {}}}}]

    def row(question, good, poor):
        made = service_row(question, good, poor)
        made["input"] |= {"tools": tools[:number_of_tools], "parallel_tool_calls": True}
        return made

    texts, report, pairs = facts.read(facts.jsonl(tmp_path / "a.jsonl", row))
    assert [text[1:] for text in texts] == [tuple(both) for _, *both in FACTS]
    assert [pair.tools for pair in pairs] == [tuple(tools[:number_of_tools])] * 4
    assert report.refused == {}


def test_its_input_as_a_list_of_turns(tmp_path):
    def row(question, good, poor):
        made = service_row(question, good, poor)
        return {**made, "input": made["input"]["messages"]}

    texts, _, _ = facts.read(facts.jsonl(tmp_path / "a.jsonl", row))
    assert texts[0][0] == f"System: Answer in one line.\n\nUser: {FACTS[0][0]}"
    assert [text[1:] for text in texts] == [tuple(both) for _, *both in FACTS]


# --- and what must not be read


def test_supervised_answers_are_called_so(tmp_path):
    path = facts.jsonl(tmp_path / "a.jsonl", lambda question, good, _: {"messages": [user(question), assistant(good)]})
    with pytest.raises(wb.WorkbenchError, match="looks like supervised answers"):
        wb.load_pairs(path)
