"""A preflight in another process, so that a kernel never loads a model."""

from __future__ import annotations

import shutil
import signal
import tempfile
from pathlib import Path

from ..base import process
from ..base.errors import WorkbenchError
from ..base.files import read_json, write_json
from ..config.run_config import RunConfig
from .folder import RunFolder
from .launch import launch
from .preflight_result import PreflightResult
from .run import Run
from .status import RunStatus, is_own_worker

_CANCEL_S = 10.0


class RemotePreflight:
    """A preflight in a process of its own: `status` while it measures, `result()` afterwards, `cancel()` to end it.

    No file of it is kept.
    """

    def __init__(self, run: Run):
        self._run, self._result = run, None

    @property
    def status(self) -> RunStatus:
        """The status; its message says what is measured now, or what it waits for."""
        return self._run.status

    def result(self) -> PreflightResult | None:
        """The result; None while it is measured.

        Errors: WorkbenchError for what would end the run as well, or when it was cancelled.
        """
        if self._result is None:
            status = self._run.status
            if status.alive:
                return None
            values = read_json(self._run.folder.preflight)
            shutil.rmtree(self._run.path, ignore_errors=True)
            if values is None:
                raise WorkbenchError("The preflight was cancelled." if status.state == "stopped" else status.message)
            self._result = PreflightResult.from_dict(values)
        return self._result

    def cancel(self) -> None:
        """End it and free its memory; returns when it has ended."""
        raw = read_json(self._run.folder.status) or {}
        # SIGTERM first, so that it deletes what it wrote to measure saving
        if is_own_worker(self._run.folder, raw) and process.send_signal(raw["process"], signal.SIGTERM):
            process.kill_after(raw["process"], _CANCEL_S)
        shutil.rmtree(self._run.path, ignore_errors=True)


def start_preflight(config: RunConfig) -> RemotePreflight:
    """A preflight (see `wb.preflight`) in a process of its own, so that the kernel stays free.

    It waits for the device like a run, and ends with this program.
    """
    folder = RunFolder(tempfile.mkdtemp(prefix="simpo-workbench-preflight-"))
    root = Path(config.run.root).expanduser().absolute()
    config.with_changes({"run.root": str(root)}).to_yaml(folder.config)
    write_json(folder.origin, {"opener": process.identify()})
    return RemotePreflight(launch(folder, "--preflight"))
