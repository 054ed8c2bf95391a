"""What a user would lose: the reason why a run ended, and trust in the next one that is told."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from bare_run import make_run

from simpo_workbench import WorkbenchError
from simpo_workbench.base import process
from simpo_workbench.base.files import read_json, write_json
from simpo_workbench.runs import post_mortem, status
from simpo_workbench.runs import run as run_module
from simpo_workbench.runs.folder import RunFolder

# --- the last word


def dying(tmp_path, code):
    """The status of a run whose worker's process does something in its presence; it is dead when this returns."""
    run = make_run(tmp_path, state="loading")
    whole = f"""
        import os, signal, sys, time
        from simpo_workbench.base.errors import WorkbenchError
        from simpo_workbench.runs import presence as module
        from simpo_workbench.runs.folder import RunFolder
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a shell's background job inherits that it is ignored
        with module.Presence(RunFolder({str(run.path)!r}), "worker") as presence:
            presence.write(state="training", step=4)
            {textwrap.indent(textwrap.dedent(code), " " * 12).strip()}
    """
    environment = {**os.environ, "SIMPO_WORKBENCH_PATIENCE_S": "0.2"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(whole)], env=environment, capture_output=True, timeout=120)
    return run.status


def test_a_last_status_that_could_not_be_written_is_in_the_log(tmp_path):
    found = dying(
        tmp_path,
        """
        def full(path, *arguments, **keywords):
            raise WorkbenchError("cannot be written: No space left on device.")
        module.write_json = full
        try:
            presence.write(state="failed", message="Loss is not finite at step 4. token=hf_abcdefghijklmnopqrstuvwx123")
        except WorkbenchError:
            os._exit(1)
        """,
    )
    assert (found.state, found.step, found.alive) == ("failed", 4, False)
    assert found.message.startswith("Loss is not finite at step 4.")
    assert "hf_abc" not in found.message
    assert "killed" not in found.message


@pytest.mark.parametrize("name", ["SIGXCPU", "SIGQUIT", "SIGUSR2"])
def test_a_signal_that_ends_the_process_is_named(tmp_path, name):
    found = dying(tmp_path, f"os.kill(os.getpid(), signal.{name})\ntime.sleep(60)")
    assert found.state == "failed"
    assert found.message.startswith(f"The signal {name} ended its process: ")


def test_a_kill_leaves_no_word_and_is_called_so(tmp_path):
    found = dying(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    assert found.message.startswith(
        "The process of this run died while it was training. It was killed from outside (SIGKILL)."
    )


def test_the_word_of_another_process_is_not_taken_for_this_ones(tmp_path):
    log = tmp_path / "log.txt"
    post_mortem.write_last_word(log, "failed", "An earlier end.")
    assert post_mortem.last_word(log, process.identify()) == {"state": "failed", "message": "An earlier end."}
    assert post_mortem.last_word(log, {**process.identify(), "start_ticks": 1}) is None
    for damaged in ('last word: {"state": "fai', 'last word: {"state": "alive", "message": 3}', "last word: []"):
        log.write_text(damaged + "\n")
        assert post_mortem.last_word(log, process.identify()) is None


# --- who may be signalled


@pytest.fixture
def own_worker(tmp_path):
    """(run, process) whose command line is a worker's for the run's folder; it sleeps."""
    run = make_run(tmp_path)
    command = [sys.executable, "-c", "import time; time.sleep(600)", status.WORKER_MODULE, str(run.path)]
    with subprocess.Popen(command) as child:
        folder = {"folder": run.folder.identity, "process": process.identify(child.pid)}
        write_json(run.folder.status, {**read_json(run.folder.status), **folder})
        yield run, child
        child.kill()


def change(run, **values):
    write_json(run.folder.status, {**read_json(run.folder.status), **values})


def test_a_worker_that_agrees_in_everything_is_ended(own_worker, monkeypatch):
    monkeypatch.setattr(run_module, "TERM_PATIENCE_S", 5.0)
    run, child = own_worker
    run.stop(patience_s=0.1)
    assert child.wait(10) == -signal.SIGTERM


@pytest.mark.parametrize("kind", ["another folder's worker", "no worker", "no folder", "another folder"])
def test_a_process_that_does_not_agree_is_not_signalled(own_worker, tmp_path, kind):
    """A folder from somewhere else may name any process of this user."""
    run, child = own_worker
    (tmp_path / "two").mkdir()
    commands = {
        "another folder's worker": [status.WORKER_MODULE, str(tmp_path / "two")],
        "no worker": ["editor", str(run.path)],
    }
    if kind in commands:
        with subprocess.Popen([sys.executable, "-c", "input()", *commands[kind]], stdin=subprocess.PIPE) as other:
            change(run, process=process.identify(other.pid))
            with pytest.raises(WorkbenchError, match="is not its worker by its command line, so it is not signalled"):
                run.stop(patience_s=0.1)
            assert other.poll() is None
            with pytest.raises(WorkbenchError, match="no worker process that could be asked"):
                run.dump_stack()
            assert other.poll() is None
            other.kill()
    else:
        raw = read_json(run.folder.status)
        raw["folder"] = [1, 2]
        if kind == "no folder":
            del raw["folder"]
        assert not status.is_own_worker(run.folder, raw)
    assert child.poll() is None


def test_the_worker_of_a_folder_that_is_gone_is_nobodys(own_worker):
    run, _ = own_worker
    raw = read_json(run.folder.status)
    assert status.is_own_worker(run.folder, raw)
    assert not status.is_own_worker(RunFolder(run.path.with_name("gone")), raw)
