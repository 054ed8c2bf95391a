"""Where a run stands: a dead run that is shown as running would mislead for hours."""

import fcntl
import os
import shutil
import time

import pytest
from bare_run import make_run, set_state

from simpo_workbench.base import process
from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.base.files import read_json, write_json
from simpo_workbench.runs import run as run_module
from simpo_workbench.runs.folder import END_STATES, LIVE_STATES
from simpo_workbench.runs.run import attach


@pytest.mark.parametrize("state", LIVE_STATES)
def test_a_run_whose_process_lives_is_what_it_says(tmp_path, worker, state):
    run = make_run(
        tmp_path,
        state=state,
        identity=process.identify(worker.pid),
        seconds_left=64.0,
        verdict="Healthy: …",
        recommended_step=2,
    )
    status = run.status
    assert (status.state, status.alive, status.ended) == (state, True, False)
    assert (status.step, status.total_steps, status.owner) == (3, 10, "worker")
    assert (status.seconds_left, status.verdict, status.recommended_step) == (64.0, "Healthy: …", 2)
    assert repr(run) == f"Run('one', {state}, step 3 of 10)"


@pytest.mark.parametrize("state", LIVE_STATES)
def test_a_dead_process_is_never_shown_as_running(tmp_path, worker, state):
    run = make_run(tmp_path, state=state, identity=process.identify(worker.pid))
    run.folder.log.write_text("Loading the model.\nKilled: out of memory\n\n  \n")
    worker.kill()
    worker.wait()
    status = run.status
    assert (status.state, status.alive, status.ended) == ("failed", False, True)
    assert status.message.startswith(
        f"The process of this run died while it was {state}. It was killed from outside (SIGKILL)."
    )
    assert status.message.endswith("Last lines of its log: Loading the model. / Killed: out of memory")
    assert status.step == 3, "how far it came is still told"


def test_a_zombie_is_dead(tmp_path, worker):
    """A worker started by a notebook stays a zombie until the kernel asks for its exit status, which it never does."""
    run = make_run(tmp_path, identity=process.identify(worker.pid))
    assert run.status.alive
    worker.stdin.close()
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    assert (run.status.state, run.status.alive) == ("failed", False)


def test_a_stranger_with_the_same_pid_is_not_the_run(tmp_path, worker):
    identity = process.identify(worker.pid)
    run = make_run(tmp_path, identity={**identity, "start_ticks": identity["start_ticks"] - 1})
    assert run.status.state == "failed"
    assert "It left no log." in run.status.message


@pytest.mark.parametrize("state", END_STATES)
def test_an_ended_run_is_what_it_says_whether_its_process_lives_or_not(tmp_path, state):
    run = make_run(tmp_path, state=state, identity=process.identify(), message="Said at the end.")
    assert (run.status.state, run.status.alive, run.status.ended, run.status.message) == (
        state,
        False,
        True,
        "Said at the end.",
    )


def test_a_run_that_ends_between_two_looks_is_finished_and_not_failed(tmp_path, monkeypatch):
    """The status is read, then the process looked for: a run that writes "finished" and leaves in between has not
    died.
    """
    run = make_run(tmp_path, identity=process.identify())

    def ends_now(_):
        set_state(run, "finished", message="Finished.", step=10)
        return False

    monkeypatch.setattr(run_module.process, "is_alive", ends_now)
    assert (run.status.state, run.status.message, run.status.step) == ("finished", "Finished.", 10)


@pytest.mark.parametrize("content", [None, "", '{"state": "tra', "[]"])
def test_a_run_without_a_readable_status_has_failed_and_says_why(tmp_path, content):
    run = make_run(tmp_path)
    run.folder.status.unlink()
    if content is not None:
        run.folder.status.write_text(content)
    assert (run.status.state, run.status.step) == ("failed", 0)
    assert run.status.message.startswith("status.json is missing or damaged, and no process tends this run.")


def event(name):
    return {"kind": "event", "step": 7, "event": name, "text": "So it was."}


@pytest.mark.parametrize(
    ("records", "state"),
    [
        ([], "loading"),
        ([{"kind": "train", "step": 7}], "training"),
        ([{"kind": "train", "step": 7}, event("paused")], "paused"),
        ([{"kind": "train", "step": 7}, event("paused"), event("saved"), event("set")], "paused"),
        ([{"kind": "train", "step": 7}, event("paused"), event("unpaused")], "training"),
        ([{"kind": "train", "step": 7}, event("stopped")], "loading"),
        ([{"kind": "train", "step": 7}, event("suspended"), event("resumed")], "loading"),
    ],
)
def test_a_live_run_without_a_status_lives_and_is_not_waited_for(tmp_path, monkeypatch, records, state):
    """Its process writes the status again within a second; until then the records say where it stands."""
    run = make_run(tmp_path)
    for record in records:
        run.folder.append_metrics(record)
    run.folder.status.unlink()
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it slept"))
    with open(run.folder.lock, "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert (run.status.state, run.status.alive, run.status.step) == (state, True, 7 if records else 0)
    assert not run.status.alive


@pytest.mark.parametrize("state", ["finished", "stopped", "failed", "suspended"])
def test_an_ended_run_without_a_status_is_still_what_it_was(tmp_path, state):
    run = make_run(tmp_path, state=state)
    run.folder.append_metrics({"kind": "train", "step": 7})
    run.folder.append_metrics({"kind": "event", "step": 7, "event": state, "text": "So it was."})
    run.folder.status.unlink()
    assert (run.status.state, run.status.step) == (state, 7)
    assert "So it was." in run.status.message


def test_a_copied_folder_is_not_the_run(tmp_path, worker):
    """Whoever stops the copy must not stop the original, and the copy is not shown as training."""
    run = make_run(tmp_path, identity=process.identify(worker.pid))
    write_json(run.folder.status, {**read_json(run.folder.status), "folder": run.folder.identity})
    assert run.status.alive
    shutil.copytree(run.path, tmp_path / "copy")
    status = attach("copy", tmp_path).status
    assert (status.state, status.alive) == ("failed", False)
    assert "This folder is a copy: the run's process belongs to another one." in status.message
    with pytest.raises(WorkbenchError, match="cannot be asked to stop"):
        attach("copy", tmp_path).stop(patience_s=0)
    assert worker.poll() is None


@pytest.mark.parametrize(
    ("usual_s", "silent_s", "doing", "expected"),
    [
        (1, 119, "", False),
        (1, 121, "", True),
        (60, 599, "", False),
        (60, 601, "", True),
        (1, 800, "evaluating", False),
        (1, 901, "evaluating", True),
    ],
)
def test_a_run_that_makes_no_progress_has_stalled(tmp_path, worker, usual_s, silent_s, doing, expected):
    since = process.awake_s() - silent_s
    run = make_run(
        tmp_path, identity=process.identify(worker.pid), median_step_s=usual_s, progress_awake_s=since, doing=doing
    )
    assert (run.status.stalled, run.status.alive) == (expected, True)
    assert ("Stalled: no progress for" in run.status.message) is expected
    assert run.status.doing == doing


@pytest.mark.parametrize("state", [*LIVE_STATES, *END_STATES])
def test_what_a_dead_process_did_is_not_shown_as_done_now(tmp_path, worker, state):
    run = make_run(tmp_path, state=state, identity=process.identify(worker.pid), doing="scoring 40 of 60 pairs")
    worker.kill()
    worker.wait()
    assert run.status.doing == ""


@pytest.mark.parametrize("identity", [None, "x", {}, {"pid": 1}])
def test_a_damaged_identity_is_a_dead_process(tmp_path, identity):
    assert make_run(tmp_path, identity=identity).status.state == "failed"
