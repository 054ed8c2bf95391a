"""Start a run in a process of its own, and go on with an ended one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from . import process
from .config import RunConfig
from .errors import WorkbenchError
from .run_folder import RunFolder, find_run_folder
from .runs import Run, create_run


def start(config: RunConfig) -> Run:
    """The run of a configuration, started in a process of its own that outlives this one; returns at once."""
    return _launch(create_run(config))


def resume(name: str | Path, root: str | Path = "runs") -> Run:
    """An ended run, going on from its newest valid checkpoint in a process of its own; a paused one is told to go on.

    Errors: WorkbenchError when it is being trained, is finished, or has no checkpoint.
    """
    folder = find_run_folder(name, root)
    status = Run(folder).status
    if status.alive and status.state == "paused":
        Run(folder).unpause()
        return Run(folder)
    if status.alive:
        raise WorkbenchError(f"The run {folder.name!r} is {status.state}: it needs no resume.")
    if status.state == "finished":
        raise WorkbenchError(f"The run {folder.name!r} is finished: all {status.total_steps} steps are done.")
    if not any(folder.checkpoints.glob("step-*/manifest.json")):
        raise WorkbenchError(f"The run {folder.name!r} has no checkpoint to go on from: start it anew.")
    folder.take_requests()  # what was asked of the earlier process is not meant for the next one
    return _launch(folder, "--resume")


def _launch(folder: RunFolder, *options: str) -> Run:
    """Start the worker detached: its own session and process group, no pipes to this process, everything it prints in log.txt."""
    with open(folder.log, "ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "simpo_workbench.engine.worker", str(folder.path.resolve()), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        identity = process.identify(worker.pid)
    except ProcessLookupError:
        raise WorkbenchError(f"The process of run {folder.name!r} ended at once: see {str(folder.log)!r}.") from None
    status = folder.read_json(folder.status) or {}
    folder.write_json(folder.status, {**status, "state": "loading", "message": "Starting.", "owner": "worker", "process": identity})
    return Run(folder)
