"""The run folder on disk: where each file lies, which names a run may have, and how one is found again.

Everything that the workbench knows of a run is a file here; the folder's layout is this class.
"""

from __future__ import annotations

import fcntl
import math
import os
import re
import time
from pathlib import Path

from ..base.errors import WorkbenchError
from ..base.files import append_jsonl
from .mailbox import Mailbox
from .names import is_reserved, leads_elsewhere, require_own_folder

#: A process belongs to these states, and must be there.
LIVE_STATES = ("queued", "loading", "scoring", "training", "paused")
#: Nothing more will happen. "suspended" is neither: its process left on purpose, to be resumed.
END_STATES = ("finished", "stopped", "failed")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class RunFolder:
    """Paths of one run and the few ways in which its files are written."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.name = self.path.name
        self.config = self.path / "config.yaml"
        self.environment = self.path / "environment.json"
        self.status = self.path / "status.json"
        self.pairs = self.path / "pairs.parquet"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.adapter = self.path / "adapter"
        self.requests = self.path / "requests"
        self.replies = self.path / "replies"
        self.mailbox = Mailbox(self.path)
        self.changes = self.path / "changes.jsonl"
        self.heartbeat = self.path / "heartbeat.json"
        self.lock = self.path / "lock"
        self.origin = self.path / "origin.json"
        self.log = self.path / "log.txt"
        self.report = self.path / "report.html"
        self.preflight = self.path / "preflight.json"

    def scores(self, step: int) -> Path:
        return self.path / "scores" / f"step-{step:06d}.parquet"

    def generations(self, step: int) -> Path:
        return self.path / "generations" / f"step-{step:06d}.jsonl"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:06d}"

    def evaluated_steps(self) -> list[int]:
        """Steps whose scores there are, in rising order."""
        return _steps_of(self.path.glob("scores/step-*.parquet"))

    def sampled_steps(self) -> list[int]:
        """Steps whose sampled answers there are, in rising order."""
        return _steps_of(self.path.glob("generations/step-*.jsonl"))

    @property
    def identity(self) -> list[int]:
        """[device, inode] of the folder itself: a copy has another one, and its status speaks of somebody else's
        process. Empty where it is gone.
        """
        try:
            found = self.path.stat()
        except OSError:
            return []
        return [found.st_dev, found.st_ino]

    def is_held(self) -> bool:
        """Whether a process has this folder's lock."""
        try:
            with open(self.lock, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # no such file, or no locks on this file system
            return False
        return False

    def append_metrics(self, record: dict):
        """Add one record to metrics.jsonl, on disk when this returns, with the time of writing; a number that JSON has
        no word for is a defect.
        """
        bad = [key for key, value in record.items() if isinstance(value, float) and not math.isfinite(value)]
        if bad:
            raise WorkbenchError(
                f"Step {record.get('step')}: {', '.join(bad)} is not a finite number, so the record is not written."
            )
        append_jsonl(self.metrics, {**record, "time": time.time()})


def _steps_of(files):
    steps = (file.stem.removeprefix("step-") for file in files)
    return sorted(int(step) for step in steps if step.isdecimal())  # "step-000020 (copy)" is no step


def new_run_folder(root: str | Path, name: str | None, stem: str) -> RunFolder:
    """A fresh, empty run folder: `root/name`, or without a name one made from `stem` and the date.

    Errors: WorkbenchError when the name is taken or unusable, or the root cannot be written.
    """
    root = Path(root).expanduser()
    if name is not None:
        path = root / check_name(name)
    try:
        root.mkdir(parents=True, exist_ok=True)
        if name is not None:
            _make_named(root, name)
        else:
            path = _fresh(
                root,
                f"{re.sub(r'[^A-Za-z0-9._-]+', '-', stem).strip('-._')[:60] or 'run'}-{time.strftime('%m%d-%H%M')}",
            )
    except OSError as error:
        raise WorkbenchError(
            f"The run folder in {str(root)!r} cannot be made: {error.strerror}. Check run.root, its rights and the free"
            " space."
        ) from None
    folder = RunFolder(path)
    for part in ("scores", "generations", "checkpoints", "requests", "replies"):
        (path / part).mkdir()
    return folder


def find_run_folder(name: str | Path, root: str | Path = "runs") -> RunFolder:
    """The folder of an existing run, by name in `root` or by path.

    Errors: WorkbenchError naming the runs that are there.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise WorkbenchError(f"A run is named by a text or a path, not by a {type(name).__name__}.")
    path = Path(root).expanduser() / name
    if not _is_run(path):
        as_path = Path(os.path.expanduser(name))
        if not _is_run(as_path):
            known = ", ".join(sorted(run_names(root))[-8:]) or "none yet; `simpo-workbench demo` makes one"
            raise WorkbenchError(f"There is no run {str(name)[:120]!r} in {str(root)!r} (there: {known}).")
        path = as_path
    require_own_folder(path)
    return RunFolder(path)


def _is_run(path):
    try:
        return (path / "config.yaml").is_file()
    except OSError:  # such as a name that is too long
        return False


def run_names(root: str | Path) -> list[str]:
    """Names of all runs in a root folder."""
    root = Path(root).expanduser()
    return (
        [path.parent.name for path in root.glob("*/config.yaml") if not leads_elsewhere(path.parent)]
        if root.is_dir()
        else []
    )


def check_name(name: str) -> str:
    """The name itself when it is a plain folder name; else a WorkbenchError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise WorkbenchError(
            f"run.name = {str(name)[:120]!r} is not usable: letters, digits, '.', '_' and '-', beginning with a letter"
            " or digit, at most 100."
        )
    if is_reserved(name):
        raise WorkbenchError(
            f"run.name = {name!r} is not usable: on Windows it names a device or is cut short, so the run could not be"
            " copied there. Add a word to it."
        )
    return name


def require_free_name(root: str | Path, name: str | None):
    """Errors: WorkbenchError when a run of this name cannot be made in a root folder: it is no plain name, or taken."""
    if name is not None and (Path(root).expanduser() / check_name(name)).exists():
        raise _taken(root, name)


def _make_named(root, name):
    try:
        (root / name).mkdir()
    except FileExistsError:
        raise _taken(root, name) from None


def _taken(root, name):
    return WorkbenchError(
        f"There is a run {name!r} in {str(root)!r} already: choose another run.name, or go on with it by"
        f" `simpo-workbench resume {name}`."
    )


def _fresh(root, name):
    for number in range(1, 1000):
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise WorkbenchError(f"There are a thousand runs named {name!r} in {str(root)!r}: give run.name.")
