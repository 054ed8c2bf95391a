"""What a user would lose: a click that does nothing, a pause that arrives after the stop, a run that dies of a strange
file.
"""

import json
import os

import pandas as pd
import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.runs import mailbox
from simpo_workbench.runs.mailbox import Inbox, Mailbox


@pytest.fixture
def box(tmp_path):
    (tmp_path / "requests").mkdir()
    return Mailbox(tmp_path), Inbox(tmp_path)


def test_a_request_is_acknowledged_then_done_and_its_reply_forgotten(box):
    asker, inbox = box
    request = asker.ask("set", beta=4.0)
    assert asker.reply(request) is None
    inbox.collect()
    assert asker.reply(request)["state"] == "acknowledged"
    (taken,) = inbox.take()
    assert (taken.id, taken.kind, taken.values) == (request, "set", {"beta": 4.0})
    assert inbox.take() == []
    inbox.done(taken, "After step 7: beta = 4.", step=7)
    assert asker.reply(request) == {"state": "done", "text": "After step 7: beta = 4.", "step": 7}
    asker.forget(request)
    assert asker.reply(request) is None


def test_requests_come_in_the_order_of_asking_even_if_the_clock_goes_backwards(box, monkeypatch):
    asker, inbox = box
    clock = iter([1e9, 5e8, 1e8])
    monkeypatch.setattr(mailbox.time, "time", lambda: next(clock))
    for kind in ("pause", "unpause", "stop"):
        asker.ask(kind)
    assert [request.kind for request in inbox.take()] == ["pause", "unpause", "stop"]


def test_the_loop_takes_control_requests_and_leaves_those_to_the_model(box):
    asker, inbox = box
    for kind in ("generate", "pause", "score", "stop"):
        asker.ask(kind)
    assert [request.kind for request in inbox.take(mailbox.CONTROL)] == ["pause", "stop"]
    assert [request.kind for request in inbox.take(mailbox.MODEL_REQUESTS)] == ["generate", "score"]


def test_an_answer_brings_its_table(box):
    asker, inbox = box
    request = asker.ask("score", pairs=[])
    table = pd.DataFrame({"pair_id": ["a", "b"], "margin": [0.1, float("nan")]})
    inbox.done(inbox.take()[0], "2 of 2 pairs.", table=table)
    pd.testing.assert_frame_equal(asker.table(request), table)


def test_a_withdrawn_request_is_not_taken(box):
    asker, inbox = box
    assert asker.withdraw(asker.ask("generate"))
    assert inbox.take() == []
    late = asker.ask("generate")
    inbox.collect()
    assert not asker.withdraw(late)  # somebody has it already, but has not begun
    assert inbox.take() == []
    assert os.listdir(asker.requests) == []


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
def test_strange_files_are_thrown_away_and_the_next_request_is_read(box, content):
    asker, inbox = box
    (asker.requests / f"{0:020d}-{'0' * 32}.json").write_bytes(content)
    asker.ask("stop")
    assert [request.kind for request in inbox.take()] == ["stop"]
    assert os.listdir(asker.requests) == []


def test_a_request_of_a_gigabyte_is_not_read(box, monkeypatch):
    asker, inbox = box
    monkeypatch.setattr(mailbox, "MAX_REQUEST_BYTES", 100)
    asker.ask("generate", prompts=["x" * 200])
    assert inbox.take() == []


def test_what_cannot_be_asked_is_said(box):
    asker, _ = box
    with pytest.raises(WorkbenchError, match="'explode' cannot be asked of a run: it knows stop, pause"):
        asker.ask("explode")


def test_what_was_asked_of_an_earlier_process_is_forgotten(box):
    asker, inbox = box
    asker.ask("stop")
    asker.clear()
    assert inbox.take() == []


def test_a_request_counts_even_if_its_acknowledgement_cannot_be_written(box, monkeypatch):
    """A full disk must not swallow the request to stop."""
    asker, inbox = box
    asker.ask("stop")

    def full(*_, **__):
        raise WorkbenchError("no space left")

    monkeypatch.setattr(mailbox, "write_atomically", full)
    assert [request.kind for request in inbox.take()] == ["stop"]


def test_replies_of_an_older_folder_are_read_with_their_tables(tmp_path):
    """Replies were kept in `answers/` once."""
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "1234.json").write_text('{"state": "done", "text": "2 pairs."}')
    pd.DataFrame({"pair_id": ["a", "b"]}).to_parquet(tmp_path / "answers" / "1234.parquet")
    asker = Mailbox(tmp_path)
    assert asker.reply("1234")["text"] == "2 pairs."
    assert asker.table("1234")["pair_id"].tolist() == ["a", "b"]
    asker.forget("1234")
    assert asker.reply("1234") is None
