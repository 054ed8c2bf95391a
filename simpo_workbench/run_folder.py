"""The run folder on disk: where each file lies, atomic writes, and readers that ignore a torn last line.

Everything that the workbench knows of a run is a file here; The folder's layout is this class.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
from pathlib import Path

from .errors import WorkbenchError

LIVE_STATES = ("queued", "loading", "scoring", "training", "paused")
END_STATES = ("finished", "stopped", "failed")
REQUESTS = ("stop", "pause", "resume", "save", "evaluate")
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
        self.log = self.path / "log.txt"
        self.report = self.path / "report.html"

    def scores(self, step: int) -> Path:
        return self.path / "scores" / f"step-{step:06d}.parquet"

    def generations(self, step: int) -> Path:
        return self.path / "generations" / f"step-{step:06d}.jsonl"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:06d}"

    def write_json(self, path: Path, value: dict):
        """Replace a JSON file in one step, so that a reader sees the old or the new one, never half of it."""
        write_atomically(path, json.dumps(value, ensure_ascii=False, indent=1).encode())

    def read_json(self, path: Path) -> dict | None:
        """The JSON object in a file; None when it is missing or unreadable."""
        try:
            value = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def append_metrics(self, record: dict):
        """Add one record to metrics.jsonl, flushed, with the time of writing; a number that JSON has no word for is a defect."""
        bad = [key for key, value in record.items() if isinstance(value, float) and not math.isfinite(value)]
        if bad:
            raise WorkbenchError(f"Step {record.get('step')}: {', '.join(bad)} is not a finite number, so the record is not written.")
        line = json.dumps({**record, "time": time.time()}, ensure_ascii=False)
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()

    def ask(self, request: str):
        """Leave a request (stop, pause, resume, save, evaluate) for whoever trains here; it is taken at the next step."""
        self.requests.mkdir(exist_ok=True)
        self.write_json(self.requests / f"{time.time_ns()}-{request}.json", {"request": request})

    def take_requests(self) -> list[str]:
        """The requests left since the last call, oldest first; each is taken once."""
        taken = []
        for path in sorted(self.requests.glob("[0-9]*-*.json")):
            request = (self.read_json(path) or {}).get("request")
            path.unlink(missing_ok=True)
            if request in REQUESTS:
                taken.append(request)
        return taken


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
            path = _fresh(root, f"{re.sub(r'[^A-Za-z0-9._-]+', '-', stem).strip('-._')[:60] or 'run'}-{time.strftime('%m%d-%H%M')}")
    except OSError as error:
        raise WorkbenchError(f"The run folder in {str(root)!r} cannot be made: {error.strerror}. Check run.root, its rights and the free space.") from None
    folder = RunFolder(path)
    for part in ("scores", "generations", "checkpoints", "requests"):
        (path / part).mkdir()
    return folder


def find_run_folder(name: str | Path, root: str | Path = "runs") -> RunFolder:
    """The folder of an existing run, by name in `root` or by path. Errors: WorkbenchError naming the runs that are there."""
    path = Path(root).expanduser() / name
    if not _is_run(path):
        as_path = Path(os.path.expanduser(name))
        if not _is_run(as_path):
            known = ", ".join(sorted(run_names(root))[-8:]) or "none yet; `simpo-workbench demo` makes one"
            raise WorkbenchError(f"There is no run {str(name)!r} in {str(root)!r} (there: {known}).")
        path = as_path
    return RunFolder(path)


def _is_run(path):
    try:
        return (path / "config.yaml").is_file()
    except OSError:  # such as a name that is too long
        return False


def run_names(root: str | Path) -> list[str]:
    """Names of all runs in a root folder."""
    root = Path(root).expanduser()
    return [path.parent.name for path in root.glob("*/config.yaml")] if root.is_dir() else []


def check_name(name: str) -> str:
    """The name itself when it is a plain folder name; else a WorkbenchError."""
    if not _NAME.fullmatch(name):
        raise WorkbenchError(f"run.name = {name!r} is not usable: letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 100.")
    return name


def read_jsonl(path: Path) -> list[dict]:
    """The objects in a JSON-lines file that may be growing: a torn last line is ignored, a missing file is empty."""
    try:
        # Not splitlines(): a text may hold U+2028 or U+0085, which JSON leaves as they are and which end no line here.
        lines = path.read_text(encoding="utf-8", errors="replace").rstrip("\n").split("\n")
    except FileNotFoundError:
        return []
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            if number == len(lines):
                break
            raise WorkbenchError(f"{path.name}, line {number} is damaged: {line[:80]!r}. Remove that line to read the rest.") from None
        if isinstance(record, dict):
            records.append(record)
    return records


def write_jsonl(path: Path, records: list[dict]):
    """Replace a JSON-lines file in one step."""
    write_atomically(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode())


def write_atomically(path: Path, content: bytes):
    """Replace a file's content in one step: written beside it, flushed to disk, renamed."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise WorkbenchError(f"{str(path)!r} cannot be written: {error.strerror}. What was there before is untouched.") from None


def _make_named(root, name):
    try:
        (root / name).mkdir()
    except FileExistsError:
        raise WorkbenchError(f"There is a run {name!r} in {str(root)!r} already: choose another run.name, or go on with it by `simpo-workbench resume {name}`.") from None


def _fresh(root, name):
    for number in range(1, 1000):
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise WorkbenchError(f"There are a thousand runs named {name!r} in {str(root)!r}: give run.name.")
