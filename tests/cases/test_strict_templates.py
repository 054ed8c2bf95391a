"""Templates that take only user and assistant in turn: system texts, empty ones, and conversations that they refuse.

What a user would lose: a whole run for the sake of one row, or blank lines in front of every question.
"""

import json

import facts
import pytest
from facts import FACTS, assistant, system, user

import simpo_workbench as wb

#: Two roles in turn, no system turn, and no trimming of what is given.
STRICT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role not in ('user', 'assistant') %}"
    "{{ raise_exception('Only the roles user and assistant are known.') }}{% endif %}"
    "{% if (m.role == 'user') == (loop.index0 % 2 == 1) %}{{ raise_exception('Roles have to take turns.') }}{% endif %}"
    "{{ '<|start|>' + m.content + '<|end|>' if m.role == 'user' else m.content + eos_token }}{% endfor %}"
)


def encoded(path):
    return facts.encoded(facts.encoder(STRICT, eos="<|eot|>"), facts.read(path)[2])


def row_with(*before):
    return lambda question, good, poor: {
        "prompt": [*before, user(question)],
        "chosen": [assistant(good)],
        "rejected": [assistant(poor)],
    }


PLAIN = [(f"<s><|start|>{question}<|end|>", f"{good}<|eot|>", f"{poor}<|eot|>") for question, good, poor in FACTS]


def test_a_system_turn_is_put_into_the_user_turn_and_said(tmp_path):
    texts, report = encoded(facts.jsonl(tmp_path / "a.jsonl", row_with(system("Use few words."))))
    assert texts[0][0] == f"<s><|start|>Use few words.\n\n{FACTS[0][0]}<|end|>"
    assert "no system turn: system text was put in front of the first user turn" in str(report)


@pytest.mark.parametrize("blank", ["", " ", "\n\n", None], ids=["empty", "a space", "line breaks", "null"])
@pytest.mark.parametrize("as_column", [False, True], ids=["as a turn", "as a column"])
def test_an_empty_system_text_is_none(tmp_path, blank, as_column):
    def column(question, good, poor):
        return {"system": blank, "prompt": question, "chosen": good, "rejected": poor}

    path = facts.jsonl(tmp_path / "a.jsonl", column if as_column else row_with(system(blank)))
    texts, report = encoded(path)
    assert texts == PLAIN
    assert str(report) == "4 pairs encoded."


def test_a_system_column_beside_an_empty_system_turn_is_the_system_text(tmp_path):
    def row(*fact):
        return {"system": "Use few words.", **row_with(system(""))(*fact)}

    assert (
        facts.read(facts.jsonl(tmp_path / "a.jsonl", row))[0][0][0] == f"System: Use few words.\n\nUser: {FACTS[0][0]}"
    )


def test_no_system_turn_at_all(tmp_path):
    texts, report = encoded(facts.jsonl(tmp_path / "a.jsonl", row_with()))
    assert texts == PLAIN
    assert str(report) == "4 pairs encoded."


REFUSED = {
    "two user turns in a row": [user("Listen."), user("What is 7 + 8?")],
    "the assistant begins": [assistant("Welcome!"), user("What is 7 + 8?")],
}


@pytest.mark.parametrize("prompt", list(REFUSED.values()), ids=list(REFUSED))
def test_one_conversation_that_the_template_refuses_is_one_refused_row(tmp_path, prompt):
    path = facts.jsonl(tmp_path / "a.jsonl", row_with())
    lines = path.read_text().splitlines()
    refused = {"prompt": prompt, "chosen": [assistant("15")], "rejected": [assistant("16")]}
    path.write_text("\n".join([*lines[:2], json.dumps(refused), *lines[2:]]))
    texts, report = encoded(path)
    assert texts == PLAIN
    assert sum(report.dropped.values()) == 1
    assert "Dropped 1: the chat template refuses the conversation: Roles have to take turns" in str(report)
    assert "(first: line 3, pair " in str(report)


def test_so_does_a_run_which_trains_the_others(tiny_config, tmp_path):
    (tmp_path / "strict.jinja").write_text(STRICT)
    train = [row_with()(f"{question} {number}", good, poor) for number in range(2) for question, good, poor in FACTS]
    train.insert(5, {"prompt": REFUSED["the assistant begins"], "chosen": "15", "rejected": "16"})
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train))
    run = wb.train(
        tiny_config.with_changes(
            {
                "data.train": str(tmp_path / "train.jsonl"),
                "data.chat_template": str(tmp_path / "strict.jinja"),
                "training.max_steps": 1,
                "training.learning_rate": 5e-5,
            }
        )
    )
    assert run.status.state == "finished"
    (said,) = [note for note in run.environment["data_notes"] if "refuses the conversation" in note]
    assert "line 6" in said
