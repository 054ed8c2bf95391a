"""The run folder on disk: where each file lies, which names a run may have, and how a run is created and found.

Everything that the workbench knows about a run is a file in its folder; `RunFolder` is the folder's layout.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import math
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from ..base.errors import SettingWarning, WorkbenchError
from ..base.files import NewLine, read_jsonl
from ..config.run_config import DEMO, RUNS_ROOT, RunConfig
from ..pairs.pairs import Pairs
from .mailbox import Mailbox, make_private
from .manifest import Manifest, steps_of
from .names import is_reserved, leads_elsewhere, require_own_folder
from .tables import write_table

#: In these states a run has a living process.
LIVE_STATES = ("queued", "loading", "scoring", "training", "paused")
#: In these states nothing more happens. "suspended" is neither: its process left on purpose, to be resumed.
END_STATES = ("finished", "stopped", "failed")
#: So many runs are named where one is not found.
_NAMED = 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class RunFolder:
    """The paths of one run's files, and the few ways in which they are written."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.name = self.path.name
        self.config = self.path / "config.yaml"
        self.environment = self.path / "environment.json"
        self.status = self.path / "status.json"
        self.pairs = self.path / "pairs.parquet"
        self.final_pairs = self.path / "final" / "pairs.parquet"
        self.final_looks = self.path / "final" / "looks.json"
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
        self.manifest = self.path / "manifest.json"

    def scores(self, step: int) -> Path:
        return self.path / "scores" / f"step-{step:06d}.parquet"

    def final_scores(self, step: int) -> Path:
        return self.path / "final" / f"step-{step:06d}.parquet"

    def generations(self, step: int) -> Path:
        return self.path / "generations" / f"step-{step:06d}.jsonl"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:06d}"

    def evaluated_steps(self) -> list[int]:
        """The steps that were scored, in rising order, also those whose scores are lost."""
        return self._steps("scores", "step-*.parquet")

    def final_steps(self) -> list[int]:
        """The steps that were scored on the final pairs, in rising order, also those whose scores are lost."""
        return self._steps("final", "step-*.parquet")

    def sampled_steps(self) -> list[int]:
        """The steps at which answers were sampled, in rising order, also those whose answers are lost."""
        return self._steps("generations", "step-*.jsonl")

    def _steps(self, kind, pattern):
        there = steps_of(path.stem for path in (self.path / kind).glob(pattern))
        return sorted({*there, *Manifest.read(self.path).steps(kind)})

    @property
    def identity(self) -> list[int]:
        """[device, inode] of the folder; empty where it is gone.

        A copy has another identity, so that the process named in its status is known to be another run's.
        """
        try:
            facts = self.path.stat()
        except OSError:
            return []
        return [facts.st_dev, facts.st_ino]

    def is_held(self) -> bool:
        """Whether a process holds this folder's lock."""
        try:
            with open(self.lock, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # no such file, or no locks on this file system
            return False
        return False

    def read_records(self) -> list[dict]:
        """The records of metrics.jsonl, in the order in which they were written.

        Errors: WorkbenchError for a damaged, lost or doubled line, or one that is no record of a step.
        """
        Manifest.read(self.path).require(self.metrics)
        return self.checked(read_jsonl(self.metrics))

    def checked(self, records: list[dict]) -> list[dict]:
        """The records themselves. Errors: WorkbenchError for one that has no step or kind."""
        for number, record in enumerate(records, 1):
            if not isinstance(record.get("step"), int) or not isinstance(record.get("kind"), str):
                raise WorkbenchError(
                    f"{self.metrics.name}, record {number} is damaged: it has no step or kind. Remove that line to read"
                    " the rest."
                )
        return records

    def metrics_line(self, record: dict) -> NewLine:
        """A record on its way into metrics.jsonl, with the time of now; it is on disk when its `write` returns.

        Errors: WorkbenchError for a NaN or an infinity, which JSON cannot hold.
        """
        bad = [key for key, value in record.items() if isinstance(value, float) and not math.isfinite(value)]
        if bad:
            raise WorkbenchError(
                f"Step {record.get('step')}: {', '.join(bad)} is not a finite number, so the record is not written."
            )
        return NewLine(self.metrics, {**record, "time": time.time()})

    def append_metrics(self, record: dict) -> None:
        """Add one record to metrics.jsonl, as `metrics_line` makes it. Errors: as there; OSError."""
        self.metrics_line(record).write()

    def write_pairs(self, pairs: Pairs, path: Path) -> None:
        """Write the texts and extra columns of held-out or final pairs once, for readers to join to the scores.

        path: `pairs` or `final_pairs`. Values that no column type holds become JSON text.
        """
        frame = pairs.to_frame()
        frame["prompt"] = [pair.prompt_text for pair in pairs]
        path.parent.mkdir(exist_ok=True)
        write_table(path, frame)


def new_run_folder(root: str | Path, name: str | None, stem: str) -> RunFolder:
    """A new, empty run folder: `root/name`, or without a name one made from `stem` and the date.

    Errors: WorkbenchError when the name is taken or unusable, or the root cannot be written.
    """
    root = Path(root).expanduser()
    if name is not None:
        check_name(name)
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder = RunFolder(_make_named(root, name) if name is not None else _make_dated(root, stem))
        with nothing_left_of(folder):
            for part in ("scores", "generations", "checkpoints"):
                (folder.path / part).mkdir()
            for part in (folder.requests, folder.replies):
                make_private(part)
    except OSError as error:
        raise WorkbenchError(
            f"The run folder in {str(root)!r} cannot be made: {error.strerror}. Check run.root, its rights and the free"
            " space."
        ) from None
    return folder


def create_run(config: RunConfig, stem: str | None = None) -> RunFolder:
    """A new run folder with the configuration in it, named after `stem` where the configuration gives no name.

    Warns with `SettingWarning` of settings that are known to ruin SimPO. Errors: WorkbenchError as in `new_run_folder`.
    """
    for sentence in config.warnings():
        warnings.warn(sentence, SettingWarning, stacklevel=3)
    stem = stem or ("plain-answers" if config.data.train == DEMO else Path(config.data.train).stem)
    folder = new_run_folder(config.run.root, config.run.name, stem)
    with nothing_left_of(folder):
        config.to_yaml(folder.config)
        Manifest.begin(folder.path)
    return folder


@contextlib.contextmanager
def nothing_left_of(folder: RunFolder) -> Iterator[None]:
    """Within this block an error deletes the folder of a run that has not begun."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise


def find_run_folder(name: str | Path, root: str | Path = RUNS_ROOT) -> RunFolder:
    """The folder of an existing run, by name in `root` or by path.

    Errors: WorkbenchError naming the runs that there are.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise WorkbenchError(f"A run is named by a text or a path, not by a {type(name).__name__}.")
    path = Path(root).expanduser() / name
    if not _is_run(path):
        as_path = Path(os.path.expanduser(name))
        if not _is_run(as_path):
            known = _known_names(str(name), run_names(root))
            raise WorkbenchError(f"There is no run {str(name)[:120]!r} in {str(root)!r} (there: {known}).")
        path = as_path
    require_own_folder(path)
    return RunFolder(path)


def _known_names(wanted, names):
    """The names of the runs that there are, those most like `wanted` first, and how many are left out."""
    if not names:
        return "none yet; `simpo-workbench demo` makes one"
    near = difflib.get_close_matches(wanted, names, n=_NAMED, cutoff=0.5)
    shown = [*near, *sorted(set(names) - set(near))][:_NAMED]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")


def _is_run(path):
    try:
        return (path / "config.yaml").is_file()
    except OSError:  # such as a name that is too long
        return False


def run_names(root: str | Path) -> list[str]:
    """The names of all runs in a root folder; none where there is no such folder."""
    folders = [path.parent for path in Path(root).expanduser().glob("*/config.yaml")]
    return [folder.name for folder in folders if not leads_elsewhere(folder)]


def check_name(name: str) -> str:
    """The name itself. Errors: WorkbenchError unless it is a plain folder name."""
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


def require_free_name(root: str | Path, name: str | None) -> None:
    """Raise WorkbenchError when the name is unusable, or a run in this root folder has it."""
    if name is not None and (Path(root).expanduser() / check_name(name)).exists():
        raise _taken(root, name)


def _make_named(root, name) -> Path:
    path = root / name
    try:
        path.mkdir()
    except FileExistsError:
        raise _taken(root, name) from None
    return path


def _taken(root, name):
    return WorkbenchError(
        f"There is a run {name!r} in {str(root)!r} already: choose another run.name, or go on with it by"
        f" `simpo-workbench resume {name}`."
    )


def _make_dated(root, stem) -> Path:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:60] or "run"
    name = f"{stem}-{time.strftime('%m%d-%H%M')}"
    for number in range(1, 1000):
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise WorkbenchError(f"There are a thousand runs named {name!r} in {str(root)!r}: give run.name.")
