"""What a user would lose: an answer, when they ask a run that waits for its device."""

import time

import pytest
from click.testing import CliRunner

import simpo_workbench as wb
from simpo_workbench.cli.main import main
from simpo_workbench.runs.device_queue import DeviceQueue
from simpo_workbench.runs.remote import RemoteModel


@pytest.fixture
def held(tmp_path, monkeypatch):
    """A device of this test's own, held by this process until `release`."""
    monkeypatch.setenv("SIMPO_WORKBENCH_DEVICES", str(tmp_path / "devices"))
    queue = DeviceQueue()
    assert queue.take_at_once("/runs/other", "other")
    yield queue
    queue.release()


def queued(config):
    run = wb.start(config)
    end = time.monotonic() + 60
    while run.status.state != "queued":
        assert time.monotonic() < end, run.status
        time.sleep(0.05)
    return run


def acknowledged(reply):
    """The reply's text; within a second, as it is promised."""
    end = time.monotonic() + 5  # a second, and what a busy machine may add
    while not (reply.state == "acknowledged" and reply.text):
        assert time.monotonic() < end, reply
        time.sleep(0.02)
    return reply.text


def test_a_waiting_run_answers_every_request_at_once_and_keeps_what_it_said(tiny_config, held):
    run = queued(tiny_config)
    waits = r"Waits for \S+, which the run 'other' has; place 1 of 1\."
    change = run.set(learning_rate_scale=0.5)
    pause, unpause = run.pause(), run.unpause()
    for reply in (change, pause, unpause):
        assert acknowledged(reply).startswith("Comes after its first step. Waits for ")
        assert reply.first_word(5) == reply.text
    for refused in (run.save(), run.evaluate(), RemoteModel(run, own=False).ask("generate", prompts=["Hi"])):
        with pytest.raises(wb.WorkbenchError, match=f"The run has no model yet. {waits}"):
            refused.wait(5)
    said = CliRunner().invoke(main, ["set", "tiny", "--root", str(tiny_config.run.root), "--beta", "3"])
    assert (said.exit_code, "Comes after its first step." in said.output) == (0, True), said.output

    held.release()
    assert change.wait(120).text == "After step 1: learning_rate_scale = 0.5."
    assert change.step == 1
    assert (pause.wait(60).text, unpause.wait(60).text) == (
        "Cancelled by the unpause that followed.",
        "It is not paused.",
    )
    assert run.wait(120).state == "finished"
    assert run.objective.beta == 3


@pytest.mark.parametrize(("kind", "state"), [("stop", "stopped"), ("suspend", "suspended")])
def test_a_waiting_run_leaves_the_queue_at_once_and_can_be_put_back(tiny_config, held, kind, state):
    run = queued(tiny_config)
    getattr(run, kind)().wait(10)
    assert run.wait(20).state == state
    assert "`simpo-workbench resume` puts it back" in run.status.message
    assert DeviceQueue().waiting() == []
    held.release()
    assert wb.resume("tiny", tiny_config.run.root).wait(120).state == "finished"
