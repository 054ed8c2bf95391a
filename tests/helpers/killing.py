"""Real workers, real signals: start a run, kill it at some moment, look at what is left, go on."""

import hashlib
import os
import signal
import time

import pytest

import simpo_workbench as wb
from simpo_workbench.base.files import read_json

DEADLINE_S = 600
SOAK = bool(os.environ.get("SIMPO_WORKBENCH_SOAK"))


def soak(*values):
    """Parameters that only `make soak` tries: more of the same."""
    return [pytest.param(value, marks=pytest.mark.skipif(not SOAK, reason="make soak runs it")) for value in values]


def wait_for(condition, what, run=None, every_s=0.05):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            log = run.folder.log.read_text()[-3000:] if run else ""
            raise AssertionError(f"waited in vain for {what}: {run and run.status}\n{log}")
        time.sleep(every_s)


def identity_of(run):
    return (read_json(run.folder.status) or {})["process"]


def saving(run):
    """Whether a checkpoint is being written right now."""
    return any(run.folder.checkpoints.glob(".step-*.tmp"))


def train_steps(run):
    return [record["step"] for record in run.records if record["kind"] == "train"]


def kill_at(run, moment, rng):
    """SIGKILL the worker at a moment: "save" while a checkpoint is written, "start" while it loads, else somewhere in
    its life. False when it had ended.
    """
    begun = max(train_steps(run), default=0)
    if moment == "start":
        time.sleep(rng.uniform(0, 3))
    else:
        wait_for(lambda: run.status.ended or max(train_steps(run), default=0) > begun, "a step", run)
        if moment == "save":
            wait_for(lambda: run.status.ended or saving(run), "a save", run, every_s=0.002)
            time.sleep(rng.uniform(0, 0.03))
        else:
            time.sleep(rng.uniform(0, 0.5))
    if run.status.ended:
        return False
    during_save = saving(run)
    os.kill(identity_of(run)["pid"], signal.SIGKILL)
    wait_for(lambda: not run.status.alive, "the worker's death", run)
    return "save" if during_save else "killed"


def resumable_step(run):
    """The newest step that can be gone on from, as the files say; 0 for the start."""
    manifests = [read_json(path) or {} for path in run.folder.checkpoints.glob("step-*/manifest.json")]
    return max((manifest["step"] for manifest in manifests if manifest.get("resumable")), default=0)


def survive(config, moments, rng):
    """(run, {"save": n, "killed": n}): the run of a configuration, killed at every moment and resumed each time, until
    it is finished.
    """
    run, counts = wb.start(config), {"save": 0, "killed": 0}
    for moment in moments:
        killed = kill_at(run, moment, rng)
        if not killed:
            break
        counts[killed] += 1
        status, done = run.status, max(train_steps(run), default=0)
        assert status.state == "failed", status
        assert "died while it was" in status.message
        assert done - resumable_step(run) <= config.training.save_every, "more was lost than one interval of saving"
        run = wb.resume(run.name, config.run.root)
    status = run.wait(DEADLINE_S)
    assert status.state == "finished", f"{status}\n{run.folder.log.read_text()[-3000:]}"
    return run, counts


def outcome(run):
    """What must not depend on interruptions: the final adapter's bytes, every step's loss and gradient norm, the
    held-out scores.
    """
    adapter = hashlib.sha256((run.adapter / "adapter_model.safetensors").read_bytes()).hexdigest()
    steps = [
        (record["step"], record["loss"], record["grad_norm"]) for record in run.records if record["kind"] == "train"
    ]
    evaluations = [(record["step"], record["eval/loss"]) for record in run.records if record["kind"] == "eval"]
    return adapter, steps, evaluations
