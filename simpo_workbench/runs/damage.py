"""What of a run is damaged, lost or can no longer be verified, in sentences for the list, the report and `repr`.

`verify` reads every file anew; this is for readers that must stay quick.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..base.errors import WorkbenchError
from ..base.files import read_json
from ..base.whole_lines import named, read_whole_lines
from .folder import RunFolder
from .manifest import DAMAGED, GROWING, LOST, Manifest, content_problem
from .verified import published_steps

#: Records of so many bytes are hashed for the list of runs.
_QUICK_BYTES = 4 * 1024**2
#: Larger files are hashed by their own readers only.
_MOST_BYTES = 64 * 1024**2
_MOST_NAMED = 3
_UNVERIFIED = {
    LOST: "manifest.json is lost, so nothing here can be verified beyond the files' own checksums.",
    DAMAGED: "manifest.json is damaged, so nothing here can be verified beyond the files' own checksums.",
}


def damage_of(folder: RunFolder, quick: bool = False) -> list[str]:
    """Sentences on what of a run is damaged or lost; none for a whole run.

    quick: only whether files are there and long enough, and the content of small records.
    """
    manifest = Manifest.read(folder.path)
    sentences = [_UNVERIFIED[manifest.state]] if manifest.state in _UNVERIFIED else []
    problems = [*_of_files(folder, manifest, quick), *([] if quick else _of_adapters(folder, manifest))]
    sentences += [sentence_on(name, problem) for name, problem in problems[:_MOST_NAMED]]
    if len(problems) > _MOST_NAMED:
        more = len(problems) - _MOST_NAMED
        sentences.append(f"And {more} more; `simpo-workbench verify {folder.name}` names all.")
    return sentences


def sentence_on(name: str, problem: str) -> str:
    """One sentence on a file of a run. problem: as of `Manifest.problem`."""
    return f"{name} is lost." if problem == "it is lost" else f"{name} is damaged: {problem}."


def lost_files(folder: RunFolder) -> set[str]:
    """The names of published files that are lost or cut short; quick, because none is read."""
    return {name for name, facts in Manifest.read(folder.path).files.items() if _is_cut(folder.path, name, facts)}


def _of_files(folder, manifest, quick) -> Iterator[tuple[str, str]]:
    """(name, problem) of published files."""
    for name, facts in sorted(manifest.files.items()):
        path, problem = folder.path / name, ""
        if not path.exists():
            problem = "it is lost"
        elif _is_cut(folder.path, name, facts):
            problem = f"it is shorter than the {facts['bytes']:,} bytes that were published"
        elif facts["bytes"] <= (_QUICK_BYTES if quick else _MOST_BYTES) and (name in GROWING or not quick):
            problem = manifest.problem(path)
        if problem:
            yield name, f"{problem}{lines_of(path)}" if name in GROWING else problem


def lines_of(path: Path) -> str:
    """The damaged lines of a file of records, as an addition to a sentence; "" where none can be named."""
    try:
        damaged = read_whole_lines(path).damaged
    except WorkbenchError as error:
        return f" ({str(error).partition('. ')[0]})"
    return f" ({named(damaged)})" if damaged else ""


def _of_adapters(folder, manifest) -> Iterator[tuple[str, str]]:
    """(name, problem) of the files in checkpoints and the final adapter, by their own manifests."""
    for place in (*(folder.checkpoint(step) for step in published_steps(folder)), folder.adapter):
        own = read_json(place / "manifest.json") or {}
        files = own.get("files")
        for file, digest in sorted(files.items()) if isinstance(files, dict) else ():
            path = place / file
            try:
                is_small = path.stat().st_size <= _MOST_BYTES
            except OSError:
                is_small = True
            if problem := content_problem(path, digest) if is_small else "":
                yield path.relative_to(folder.path).as_posix(), problem


def _is_cut(folder, name, facts):
    try:
        return os.stat(f"{folder}/{name}").st_size < facts["bytes"]
    except OSError:
        return True
