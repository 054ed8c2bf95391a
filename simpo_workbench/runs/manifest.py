"""The sealed manifest of a run: the hashes of its configuration, pairs, token ids, template, base weights and files.

manifest.json is written anew whenever files were published; what came after is "not sealed yet", which is a valid
state, and stands on its own checksums until then. Runs made before there was a manifest cannot be verified. Whatever a
user may write (names, notes, blind tests, the report) is outside the seal.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from ..base.checksums import is_checked_object, read_object
from ..base.errors import WorkbenchError
from ..base.files import write_json
from ..base.hashes import RECENT_S, sha256_of
from ..base.patience import ONCE, Patience

#: Files to which records are appended: their seal holds for the beginning that was there when it was made.
GROWING = ("metrics.jsonl", "changes.jsonl")
#: What `verify` and the readers say of a run's manifest.
SEALED, NONE, LOST, DAMAGED = "sealed", "none", "lost", "damaged"


class Manifest:
    """The manifest of a run folder: `files` {name: {"bytes", "sha256"}}, `identity` {fact: value}, `state`.

    identity: what the run trained on: hashes of settings, pairs, token ids and template, frozen values, fingerprints of
    the base weights and of model.adapter, and the number of steps. state: SEALED; NONE for a run from before; LOST or
    DAMAGED.
    """

    def __init__(self, folder: Path, files: dict, identity: dict, state: str):
        self.folder, self.files, self.identity, self.state = folder, files, identity, state
        self._lock = threading.Lock()

    @classmethod
    def begin(cls, folder: Path) -> Manifest:
        """The manifest of a new run, with its configuration sealed. Errors: WorkbenchError when it is not writable."""
        manifest = cls(folder, {}, {}, SEALED)
        manifest.seal(folder / "config.yaml")
        return manifest

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest in a run folder, to be read only: it is shared with other readers of the same file."""
        path = folder / "manifest.json"
        try:
            facts = path.stat()
        except OSError:
            return cls(folder, {}, {}, LOST if _had_manifest(folder) else NONE)
        read = _read.__wrapped__ if abs(time.time() - facts.st_ctime) < RECENT_S else _read
        return read(folder, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)

    @classmethod
    def to_write(cls, folder: Path) -> Manifest:
        """The manifest of the run whose process this is."""
        read = cls.read(folder)
        return cls(folder, dict(read.files), dict(read.identity), read.state)

    def seal(self, *paths: Path, patience: Patience = ONCE, **identity) -> None:
        """Take the hashes of published files, and facts of what the run trains on, into the manifest.

        Files that are not there are forgotten. Without a manifest nothing happens: see `begin`. Errors: WorkbenchError.
        """
        if self.state != SEALED:
            return
        with self._lock:
            for path in paths:
                self.files.pop(self._name(path), None)
                with contextlib.suppress(FileNotFoundError):
                    size = path.stat().st_size
                    self.files[self._name(path)] = {"bytes": size, "sha256": sha256_of(path, size)}
            self.identity |= identity
            content = {"identity": self.identity, "files": self.files}
            write_json(self.folder / "manifest.json", content, patience=patience)

    @contextlib.contextmanager
    def replacing(self, *paths: Path, patience: Patience = ONCE) -> Iterator[None]:
        """Within this block published files are replaced or deleted: their seal is broken first and made anew after.

        A process that is killed in between leaves files that are not sealed, never files that seem damaged.
        """
        if any(self._name(path) in self.files for path in paths):
            for path in paths:
                self.files.pop(self._name(path), None)
            self.seal(patience=patience)
        yield
        self.seal(*paths, patience=patience)

    def steps(self, kind: str) -> list[int]:
        """The steps of the sealed files of a kind ("scores", "generations", "checkpoints"), in rising order."""
        return steps_of(name.split("/")[1].partition(".")[0] for name in self.files if name.startswith(f"{kind}/"))

    def problem(self, path: Path, fresh: bool = False) -> str:
        """Why a sealed file is not what was published ("it is lost", …); "" where it is, or is not sealed.

        fresh: read it even where its hash is remembered.
        """
        sealed = self.files.get(self._name(path))
        return "" if sealed is None else content_problem(path, sealed["sha256"], sealed["bytes"], fresh)

    def sealed_bytes(self, path: Path) -> int:
        """How many bytes of a file are sealed; 0 where it is not."""
        return self.files.get(self._name(path), {"bytes": 0})["bytes"]

    def is_cut(self, path: Path) -> bool:
        """Whether a sealed file is lost or shorter than what was published; quick, because nothing of it is read."""
        try:
            return path.stat().st_size < self.sealed_bytes(path)
        except OSError:
            return self.sealed_bytes(path) > 0

    def require(self, *paths: Path) -> None:
        """Raise WorkbenchError where a sealed file is not what was published."""
        for path in paths:
            if problem := self.problem(path):
                raise damaged(self.folder, self._name(path), problem)

    def _name(self, path):
        return path.relative_to(self.folder).as_posix()


def steps_of(names: Iterable[str]) -> list[int]:
    """The steps in names such as "step-000020", each once and in rising order; "step-000020 (copy)" is none."""
    steps = (name.removeprefix("step-") for name in names if name.startswith("step-"))
    return sorted({int(step) for step in steps if step.isdecimal()})


def content_problem(path: Path, sha256: str, count: int | None = None, fresh: bool = False) -> str:
    """Why a file does not have this SHA-256 ("it is lost", …); "" where it has.

    count: the bytes that were published; a file that grows may have more. fresh: as in `Manifest.problem`.
    """
    try:
        size = path.stat().st_size
        if count is not None and (size < count or (size > count and path.name not in GROWING)):
            return f"it has {size:,} bytes where {count:,} were published"
        return "" if sha256_of(path, count, fresh) == sha256 else "its content is not what was published"
    except FileNotFoundError:
        return "it is lost"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def damaged(folder: Path, name: str, problem: str) -> WorkbenchError:
    """The error that says which file of a run is damaged or lost, and what to do."""
    rest = problem.removeprefix("it is lost")
    what = f"is damaged or was changed: {problem}" if rest == problem else f"is lost{rest}"
    return WorkbenchError(
        f"{name} of the run {folder.name!r} {what}. Put back a copy of it;"
        f" `simpo-workbench verify {folder.name}` names all that is damaged."
    )


@lru_cache(maxsize=1024)
def _read(folder, inode, size, modified_ns, changed_ns):
    try:
        values = read_object((folder / "manifest.json").read_bytes())
        files, identity = values["files"], dict(values["identity"])
        if not all(isinstance(facts["bytes"], int) and isinstance(facts["sha256"], str) for facts in files.values()):
            raise ValueError("a seal lacks its hash")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Manifest(folder, {}, {}, DAMAGED)
    return Manifest(folder, files, identity, SEALED)


def _had_manifest(folder):
    """Whether a run without manifest.json once had one: runs from before have no checksums in environment.json."""
    try:
        return is_checked_object((folder / "environment.json").read_bytes())
    except (OSError, ValueError):
        return False
