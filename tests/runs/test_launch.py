"""What a user would lose: a run that dies with the notebook, or that nobody can find again."""

import os
import signal
import subprocess
import sys

import pytest
from waiting import DEADLINE_S, wait_for

import simpo_workbench as wb
from simpo_workbench.base.files import read_json


def steps_done(run):
    return sum(record["kind"] == "train" for record in run.records)


def test_a_started_run_outlives_the_process_that_started_it(tiny_config):
    """Start it from a child that ends at once; then attach by name, from here."""
    config_path = f"{tiny_config.run.root}.yaml"
    tiny_config.to_yaml(config_path)
    code = (
        f"import simpo_workbench as wb; run = wb.start(wb.RunConfig.from_yaml({config_path!r}));"
        " print(run.status.state)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert child.stdout.strip() == "loading", child.stderr
    run = wb.attach("tiny", tiny_config.run.root)
    status = run.wait(timeout_s=DEADLINE_S)
    assert (status.state, status.owner, status.alive) == ("finished", "worker", False), run.folder.log.read_text()
    assert steps_done(run) == 6
    with pytest.raises(wb.WorkbenchError, match="is finished: it cannot be asked to stop"):
        run.stop()
    with pytest.raises(wb.WorkbenchError, match="is finished: all 6 steps are done"):
        wb.resume("tiny", tiny_config.run.root)


def test_stop_from_outside_saves_and_resume_goes_on(tiny_config):
    config = tiny_config.with_changes({"training.max_steps": 400, "training.eval_every": 0, "training.save_every": 0})
    run = wb.start(config)
    identity = read_json(run.folder.status)["process"]
    assert os.getpgid(identity["pid"]) == identity["pid"]  # a process group of its own
    wait_for(lambda: steps_done(run) >= 2, "two steps")
    run.stop()
    status = run.wait(timeout_s=DEADLINE_S)
    assert status.state == "stopped"
    assert run.adapter.is_dir()
    done = status.step
    again = wb.resume("tiny", config.run.root)
    with pytest.raises(wb.WorkbenchError, match="it needs no resume. .* wait for it with wb.attach"):
        wb.resume("tiny", config.run.root)
    wait_for(lambda: steps_done(again) >= done + 2, "two more steps")
    again.stop()
    again.wait(timeout_s=DEADLINE_S)
    numbers = [record["step"] for record in again.records if record["kind"] == "train"]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_killed_worker_is_shown_as_failed_and_never_as_running(tiny_config):
    run = wb.start(tiny_config.with_changes({"training.max_steps": 400, "training.eval_every": 0}))
    wait_for(lambda: steps_done(run) >= 3, "three steps")
    os.kill(read_json(run.folder.status)["process"]["pid"], signal.SIGKILL)
    wait_for(lambda: not run.status.alive, "the worker's death")
    assert run.status.state == "failed"
    assert "died while it was training" in run.status.message
    resumed = wb.resume("tiny", tiny_config.run.root)
    wait_for(lambda: resumed.status.state == "training", "training")
    resumed.stop()
    assert resumed.wait(timeout_s=DEADLINE_S).state == "stopped"
