"""What a user would lose: a notebook that stands still while memory and time are measured, or a process left behind."""

import subprocess
import sys
from pathlib import Path

import pytest
from waiting import wait_for

import simpo_workbench as wb
from simpo_workbench.base import process
from simpo_workbench.base.files import read_json
from simpo_workbench.runs.remote_preflight import start_preflight


@pytest.fixture
def config(tiny_config):
    return tiny_config.with_changes({"data.max_tokens": 60, "training.max_steps": 40, "training.eval_every": 10})


def result_of(measuring):
    return wait_for(measuring.result, "the result", lambda: measuring.status)


def test_in_a_process_of_its_own(config):
    here = wb.preflight(config)
    measuring = start_preflight(config)
    messages = set()
    wait_for(lambda: messages.add(measuring.status.message) or not measuring.status.alive, "the end")
    there = result_of(measuring)
    assert there.base_leads == pytest.approx(here.base_leads, abs=1e-5)
    assert (there.steps, there.evaluations, there.dropped) == (here.steps, here.evaluations, here.dropped)
    assert any("on the longest pairs" in message for message in messages), messages
    assert measuring.result() is there, "asked again"
    assert wb.list_runs(config.run.root).empty
    with pytest.raises(wb.WorkbenchError, match="There is no model folder"):
        result_of(start_preflight(config.with_changes({"model.name": "./nowhere"})))


def test_cancelled_it_is_gone_at_once(config):
    measuring = start_preflight(config)
    identity = read_json(measuring._run.folder.status)["process"]
    measuring.cancel()
    wait_for(lambda: not process.is_alive(identity), "its end")
    assert not measuring._run.path.exists()


def test_it_ends_with_the_program_that_asked_for_it(config, tmp_path):
    config.to_yaml(tmp_path / "config.yaml")
    code = f"""
import os, simpo_workbench as wb
measuring = wb.runs.start_preflight(wb.RunConfig.from_yaml({str(tmp_path / "config.yaml")!r}))
print(measuring._run.path, flush=True)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    folder = Path(done.stdout.strip())
    wait_for(lambda: not folder.exists(), "its end")
    assert list(tmp_path.glob("runs/*")) == []
