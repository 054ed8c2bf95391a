"""Whether a run is what was published: its files and the weights it trained on, compared with its manifest."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.checksums import is_checked_object
from ..base.errors import WorkbenchError
from ..base.files import read_json, read_jsonl, require_json
from ..base.format import counted
from ..base.hashes import WHOLE_BYTES, file_fingerprint
from ..config.run_config import RUNS_ROOT
from .damage import lines_of
from .folder import find_run_folder
from .manifest import DAMAGED, GROWING, LOST, NONE, SEALED, Manifest, content_problem
from .run import Run
from .verified import published_steps, read_config

if TYPE_CHECKING:
    import pandas as pd

WHOLE, NOT_SEALED, UNVERIFIED, GONE, BROKEN, REBUILT = (
    "whole",
    "not sealed yet",
    "unverified",
    "lost",
    "damaged",
    "rebuilt",
)
#: A run with one of these states in its table is not what was published.
BAD = (GONE, BROKEN)
_MOST_NAMED = 5
_ALWAYS = ("config.yaml", "environment.json", "status.json", "metrics.jsonl", "changes.jsonl", "pairs.parquet")


_PUBLISHED = ("scores/step-*.parquet", "generations/step-*.jsonl", "final/*.parquet", "final/looks.json")


def verify(run: Run | str | Path, root: str | Path = RUNS_ROOT, full: bool = False) -> pd.DataFrame:
    """One row per published file of a run, and per file of the weights it was trained on: `file`, `state`, `detail`.

    The damaged and lost ones come first. `attrs["report"]` is the verdict in a sentence; it stands below the table.

    state: "whole", "damaged", "lost", "rebuilt" (detail says from what), "not sealed yet" (published since the manifest
    was last written), "unverified" (from before there was a manifest, or no longer at hand). Every file is read anew;
    of large base weights headers and sampled pages, and all of them with `full`. Errors: WorkbenchError where there is
    no such run.
    """
    folder = run.folder if isinstance(run, Run) else find_run_folder(run, root)
    manifest = Manifest.read(folder.path)
    rows = [_manifest_row(manifest), *_files(folder, manifest), *_checkpoints(folder, manifest)]
    first_read: dict[str, dict] = {}
    rows += _weights(manifest, full, first_read)
    if first_read and not folder.is_held():
        _keep_whole_hashes(folder.path, first_read)
    # the state says it already
    rows = [(name, state, "" if (state, detail) == (GONE, "it is lost") else detail) for name, state, detail in rows]
    rows.sort(key=lambda row: row[1] not in BAD)
    table = _table_class()(rows, columns=["file", "state", "detail"])
    table.attrs["report"] = _verdict(folder.name, rows)
    return table


@lru_cache(maxsize=1)
def _table_class():
    """A DataFrame that shows its files' names in full, and the verdict."""
    import pandas as pd

    class Verification(pd.DataFrame):
        @property
        def _constructor(self):
            return pd.DataFrame

        def __repr__(self):
            return f"{self.to_string()}\n{self.attrs.get('report', '')}"

        def _repr_html_(self):
            with pd.option_context("display.max_colwidth", None, "display.max_rows", None):
                return f"{super()._repr_html_()}<p>{html.escape(self.attrs.get('report', ''))}</p>"

    return Verification


def _verdict(name, rows):
    """One sentence on all files of a run."""
    number = counted(len(rows), "file")
    bad = [f"{file} ({state})" for file, state, _ in rows if state in BAD]
    if bad:
        names = ", ".join(bad[:_MOST_NAMED]) + (f" and {len(bad) - _MOST_NAMED} more" if len(bad) > _MOST_NAMED else "")
        verb = "is" if len(bad) == 1 else "are"
        return f"{len(bad)} of {number} of the run {name!r} {verb} not what was published: {names}."
    states = Counter(state for _, state, _ in rows)
    rest = ", ".join(f"{count} {state}" for state, count in states.items() if state != WHOLE)
    if rest:
        return f"No file of the run {name!r} is damaged or lost: {states[WHOLE]} of {number} are whole, {rest}."
    return f"All {number} of the run {name!r} are whole."


def _manifest_row(manifest):
    return {
        SEALED: ("manifest.json", WHOLE, ""),
        NONE: ("manifest.json", UNVERIFIED, "the run was made before there was a manifest"),
        LOST: ("manifest.json", GONE, "what has checksums of its own is checked by them"),
        DAMAGED: ("manifest.json", BROKEN, "what has checksums of its own is checked by them"),
    }[manifest.state]


def _files(folder, manifest) -> Iterator[tuple[str, str, str]]:
    """Rows of all files but checkpoints and the final adapter, which have manifests of their own."""
    there = [path for pattern in _PUBLISHED for path in folder.path.glob(pattern)]
    names = {path.relative_to(folder.path).as_posix() for path in there}
    names |= {name for name in _ALWAYS if (folder.path / name).exists()} | {"config.yaml", "status.json"}
    for name in sorted(names | {name for name in manifest.files if not _has_own_manifest(name)}):
        path = folder.path / name
        if name == "status.json":
            yield _status(folder)
        elif name in manifest.files:
            problem = manifest.problem(path, fresh=True)
            problem = f"{problem}{lines_of(path)}" if problem and name in GROWING else problem
            problem = problem or _own_problem(folder, path)
            yield (name, GONE if not path.exists() else BROKEN, problem) if problem else (name, WHOLE, "")
        else:
            problem = _own_problem(folder, path)
            state = NOT_SEALED if manifest.state == SEALED else UNVERIFIED
            yield (name, BROKEN, problem) if problem else (name, state, "")


def _has_own_manifest(name):
    return name.startswith(("checkpoints/", "adapter/"))


def _own_problem(folder, path):
    """What is wrong with a file by its own checksums; "" where nothing is, or it has none."""
    try:
        if path == folder.config:
            read_config(folder)
        elif path.suffix == ".jsonl":
            read_jsonl(path)
        elif path.suffix == ".json":
            require_json(path)
        elif path.suffix == ".parquet":
            _read_all(path)
    except WorkbenchError as error:
        return str(error)
    return ""


def _read_all(path):
    import pyarrow.parquet as parquet

    try:
        parquet.read_table(path, page_checksum_verification=True)
    except Exception as error:  # a damaged file makes pyarrow raise many types
        raise WorkbenchError(f"it cannot be read ({str(error).splitlines()[0][:200]})") from None


def _status(folder):
    """The row of status.json, which readers rebuild from the records where it is damaged or lost."""
    try:
        content = folder.status.read_bytes()
        whole = isinstance((read_json(folder.status) or {}).get("state"), str)
    except OSError:
        content, whole = None, False
    if whole:
        return "status.json", WHOLE if is_checked_object(content) else UNVERIFIED, ""
    problem = "it is lost" if content is None else "its content is not what was written"
    try:
        if read_jsonl(folder.metrics):
            return "status.json", REBUILT, f"{problem}; what it says is read from metrics.jsonl"
    except WorkbenchError:
        pass
    return "status.json", GONE if content is None else BROKEN, problem


def _checkpoints(folder, manifest) -> Iterator[tuple[str, str, str]]:
    steps = sorted({*published_steps(folder), *manifest.steps("checkpoints")})
    for step in steps:
        yield from _with_own_manifest(folder, manifest, folder.checkpoint(step), step)
    if folder.adapter.exists() or "adapter/manifest.json" in manifest.files:
        yield from _with_own_manifest(folder, manifest, folder.adapter, None)


def _with_own_manifest(folder, manifest, path, step) -> Iterator[tuple[str, str, str]]:
    """Rows of a checkpoint or the final adapter: its manifest and the files that it names. step: None for any."""
    name = f"{path.relative_to(folder.path).as_posix()}/manifest.json"
    try:
        own = require_json(path / "manifest.json")
    except WorkbenchError:
        yield name, BROKEN, "its content is not what was written"
        return
    if own is None:
        lost = name in manifest.files or step is not None
        yield name, GONE if lost else UNVERIFIED, "" if lost else "the adapter was made before it had a manifest"
        return
    if not isinstance(own.get("files"), dict) or step not in (None, own.get("step")):
        yield name, BROKEN, f"it is that of step {own.get('step')}"
        return
    state = NOT_SEALED if manifest.state == SEALED else UNVERIFIED
    yield name, WHOLE if name in manifest.files and not manifest.problem(path / "manifest.json", True) else state, ""
    for file, digest in sorted(own["files"].items()):
        problem = content_problem(path / file, digest, fresh=True)
        row = name.removesuffix("manifest.json") + file
        yield row, {"": WHOLE, "it is lost": GONE}.get(problem, BROKEN), problem


def _keep_whole_hashes(folder, first_read):
    """Put the hashes of weights that were read whole for the first time into the manifest, for the next time."""
    manifest = Manifest.to_write(folder)
    changed = {}
    for kind, hashes in first_read.items():
        known = manifest.identity[kind]
        files = {
            name: facts | ({"sha256": hashes[name]} if name in hashes else {}) for name, facts in known["files"].items()
        }
        changed[kind] = {**known, "files": files}
    manifest.seal(**changed)


def _weights(manifest, full, first_read) -> Iterator[tuple[str, str, str]]:
    """Rows of the files that the run was trained on: the base model's, and those of model.adapter."""
    for kind, title in (("base", "base model"), ("adapter", "model.adapter")):
        known = manifest.identity.get(kind) or {}
        if not known.get("files"):
            if kind == "base" or known:
                yield title, UNVERIFIED, _why_unknown(manifest, known)
            continue
        folder = Path(known["folder"])
        for name, facts in sorted(known["files"].items()):
            row = f"{title}: {folder / name}"
            if not folder.is_dir():
                yield row, UNVERIFIED, "not found, nothing of it was read: the folder is not at hand"
                continue
            state, detail, now = _weights_state(folder / name, facts, full)
            if full and state == WHOLE and "sha256" not in facts:
                detail = "its size, header and sampled pages agree; it was read whole for the first time"
                first_read.setdefault(kind, {})[name] = now["sha256"]
            yield row, state, detail


def _why_unknown(manifest, known):
    """Why nothing can be said of the weights that a run was trained on."""
    if manifest.state != SEALED:
        return "its weights were not read: without a manifest nothing tells which they were"
    if known:
        return "its weights were not read: the manifest names no file of them; the next resume seals them"
    return "its weights were not read: the run has not loaded them yet"


def _weights_state(path, facts, full):
    """(state, detail, fingerprint now) of one file of weights."""
    try:
        now = file_fingerprint(path, whole=full)
    except FileNotFoundError:
        return GONE, "it is lost", {}
    except OSError as error:
        return BROKEN, f"it cannot be read: {error.strerror}", {}
    if any(facts[key] != now[key] for key in facts if key in now):
        return BROKEN, "its content is not what the run was trained on", {}
    if full or now["bytes"] <= WHOLE_BYTES:
        return WHOLE, "all of it was read", now
    return WHOLE, "its size, header and sampled pages agree", now
