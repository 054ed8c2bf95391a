"""What a user would lose: a click that does nothing, a pause that arrives after the stop, a run that dies of a strange
file.
"""

import json
import os

import pandas as pd
import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.runs import mailbox
from simpo_workbench.runs.mailbox import Mailbox, Postmaster


@pytest.fixture
def box(tmp_path):
    (tmp_path / "requests").mkdir()
    return Mailbox(tmp_path), Postmaster(tmp_path)


def test_a_letter_is_acknowledged_then_done_and_its_answer_forgotten(box):
    asking, post = box
    letter = asking.ask("set", beta=4.0)
    assert asking.answer(letter) is None
    post.collect()
    assert asking.answer(letter)["state"] == "acknowledged"
    (taken,) = post.take()
    assert (taken.id, taken.kind, taken.values) == (letter, "set", {"beta": 4.0})
    assert post.take() == []
    post.done(taken, "After step 7: beta = 4.", step=7)
    assert asking.answer(letter) == {"state": "done", "text": "After step 7: beta = 4.", "step": 7}
    asking.forget(letter)
    assert asking.answer(letter) is None


def test_letters_come_in_the_order_of_asking_even_if_the_clock_goes_backwards(box, monkeypatch):
    asking, post = box
    clock = iter([1e9, 5e8, 1e8])
    monkeypatch.setattr(mailbox.time, "time", lambda: next(clock))
    for kind in ("pause", "resume", "stop"):
        asking.ask(kind)
    assert [letter.kind for letter in post.take()] == ["pause", "resume", "stop"]


def test_the_loop_takes_orders_and_leaves_questions(box):
    asking, post = box
    for kind in ("generate", "pause", "score", "stop"):
        asking.ask(kind)
    assert [letter.kind for letter in post.take(mailbox.CONTROL)] == ["pause", "stop"]
    assert [letter.kind for letter in post.take(mailbox.QUESTIONS)] == ["generate", "score"]


def test_an_answer_brings_its_table(box):
    asking, post = box
    letter = asking.ask("score", pairs=[])
    table = pd.DataFrame({"pair_id": ["a", "b"], "margin": [0.1, float("nan")]})
    post.done(post.take()[0], "2 of 2 pairs.", table=table)
    pd.testing.assert_frame_equal(asking.table(letter), table)


def test_a_question_taken_back_is_not_asked(box):
    asking, post = box
    assert asking.withdraw(asking.ask("generate"))
    assert post.take() == []
    late = asking.ask("generate")
    post.collect()
    assert not asking.withdraw(late)  # somebody has it already, but has not begun
    assert post.take() == []
    assert os.listdir(asking.requests) == []


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"id": "0", "kind": "stop", "values": {}}',  # not the id in its name
        json.dumps({"id": "0" * 32, "kind": "rm -rf", "values": {}}).encode(),
        json.dumps({"id": "0" * 32, "kind": "stop", "values": []}).encode(),
        b"[" * 100_000,
    ],
)
def test_strange_files_are_thrown_away_and_the_next_letter_is_read(box, content):
    asking, post = box
    (asking.requests / f"{0:020d}-{'0' * 32}.json").write_bytes(content)
    asking.ask("stop")
    assert [letter.kind for letter in post.take()] == ["stop"]
    assert os.listdir(asking.requests) == []


def test_a_letter_of_a_gigabyte_is_not_read(box, monkeypatch):
    asking, post = box
    monkeypatch.setattr(mailbox, "MOST_BYTES", 100)
    asking.ask("generate", prompts=["x" * 200])
    assert post.take() == []


def test_what_cannot_be_asked_is_said(box):
    asking, _ = box
    with pytest.raises(WorkbenchError, match="'explode' cannot be asked of a run: it knows stop, pause"):
        asking.ask("explode")


def test_what_was_asked_of_an_earlier_process_is_forgotten(box):
    asking, post = box
    asking.ask("stop")
    asking.clear()
    assert post.take() == []


def test_a_letter_counts_even_if_its_acknowledgement_cannot_be_written(box, monkeypatch):
    """A full disk must not swallow the request to stop."""
    asking, post = box
    asking.ask("stop")

    def full(*_, **__):
        raise WorkbenchError("no space left")

    monkeypatch.setattr(mailbox, "write_atomically", full)
    assert [letter.kind for letter in post.take()] == ["stop"]
