"""What a run folder holds, read only where it is what was published: settings, records, tables, answers, adapters.

Every reader here raises WorkbenchError in one sentence for a file that is damaged or lost; none gives a number from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import WorkbenchError
from ..base.files import read_jsonl, require_json
from ..base.hashes import sha256_of
from ..config.earlier import as_it_was
from ..config.run_config import RunConfig
from ..config.yaml_text import HEADER
from .manifest import Manifest, content_problem, damaged, steps_of
from .tables import read_table

if TYPE_CHECKING:
    import pandas as pd

    from .folder import RunFolder

#: The last setting of every configuration that the workbench has written, so that one that was cut is noticed.
_LAST_SETTING = "\n  root: "
_WEIGHTS = "adapter_model.safetensors"
#: What a run keeps of its chat template, in its manifest and in environment.json.
FROZEN = "frozen"
#: Columns that the tables of a run must have.
_SCORED = ("step", "pair_id", "chosen_avg_logp", "rejected_avg_logp")
_TEXTS = ("pair_id", "prompt", "chosen", "rejected")


def read_config(folder: RunFolder) -> RunConfig:
    """The configuration that a run was started with; settings that came later are as they were before.

    Errors: WorkbenchError where config.yaml was cut, emptied or changed since.
    """
    manifest = Manifest.read(folder.path)
    if problem := manifest.problem(folder.config):
        unreadable = _why_not_read(folder.config)
        error = damaged(folder.path, "config.yaml", f"{problem}{unreadable}")
        if unreadable:
            raise error
        call = f"wb.clone({folder.name!r}, changes={{…}})"  # it may have been edited for other settings
        raise WorkbenchError(f"{error} Other settings are no edit: with the old file back, {call} trains with them.")
    if "config.yaml" not in manifest.files:
        _require_whole_config(folder)
    return as_it_was(RunConfig.from_yaml(folder.config))


def _why_not_read(path):
    """What cannot be understood in a configuration, as an addition to a sentence; "" where it can be read."""
    try:
        RunConfig.from_yaml(path)
    except WorkbenchError as error:
        return f" ({str(error).rstrip('.')})"
    return ""


def _require_whole_config(folder):
    """Raise WorkbenchError where a config.yaml that no manifest seals is empty or does not reach its end."""
    try:
        text = folder.config.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise WorkbenchError(f"Cannot read the configuration {str(folder.config)!r}: {error.strerror}.") from None
    settings = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    is_ours = text.startswith(f"# {HEADER[:20]}")
    if not settings or (is_ours and not (text.endswith("\n") and _LAST_SETTING in text[text.rfind("\nrun:") :])):
        raise damaged(folder.path, "config.yaml", "it ends before its last setting")


def read_environment(folder: RunFolder) -> dict:
    """What environment.json says; empty before it was written. Errors: WorkbenchError where it is damaged or lost."""
    Manifest.read(folder.path).require(folder.environment)
    return require_json(folder.environment) or {}


def read_kept(folder: RunFolder) -> dict:
    """What a run keeps of its chat template, for TemplateValues; empty before it has begun, and for a run from before
    that was kept.

    Errors: WorkbenchError where neither manifest.json nor environment.json can tell.
    """
    identity = Manifest.read(folder.path).identity
    if FROZEN in identity:
        return identity[FROZEN] or {}
    environment = require_json(folder.environment)
    if environment is None and folder.metrics.exists():
        lost = "it is lost, and with it the day that the run's chat template takes for today"
        raise damaged(folder.path, "environment.json", lost)
    return (environment or {}).get(FROZEN) or {}


def read_records(folder: RunFolder) -> list[dict]:
    """The metrics records of a run. Errors: WorkbenchError where one is damaged, lost or doubled."""
    return folder.read_records()


def read_changes(folder: RunFolder) -> list[dict]:
    """The settings that were changed while a run trained. Errors: as `read_records`."""
    Manifest.read(folder.path).require(folder.changes)
    return read_jsonl(folder.changes)


def read_answers(folder: RunFolder, step: int) -> list[dict]:
    """The answers that were sampled at a step. Errors: WorkbenchError where the file is damaged, lost or another's."""
    path = folder.generations(step)
    Manifest.read(folder.path).require(path)
    if not path.exists():
        raise damaged(folder.path, f"generations/{path.name}", "it is lost")
    answers = read_jsonl(path)
    if wrong := {answer.get("step") for answer in answers} - {step}:
        raise damaged(folder.path, f"generations/{path.name}", f"it holds answers of step {wrong.pop()}")
    return answers


def read_scores(folder: RunFolder, step: int, columns: list[str] | None = None) -> pd.DataFrame:
    """One row per held-out pair at one evaluated step, without its texts.

    Errors: WorkbenchError where the file is damaged, lost or another step's.
    """
    return _read_scores(folder, folder.scores(step), step, columns)


def read_final_scores(folder: RunFolder, step: int) -> pd.DataFrame:
    """One row per final pair at step 0 or the step that was recommended. Errors: as `read_scores`."""
    return _read_scores(folder, folder.final_scores(step), step, None)


def read_final_looks(folder: RunFolder) -> list[tuple[str, int]]:
    """(run, step) of every trained step that these final pairs were ever scored for, in that order; those of a run that
    this one was cloned from come first. Errors: WorkbenchError where the file is damaged or lost.
    """
    Manifest.read(folder.path).require(folder.final_looks)
    values = require_json(folder.final_looks)
    if values is None:
        return []
    if not isinstance(values.get("looks"), list):
        raise damaged(folder.path, "final/looks.json", "it names no steps")
    return [(str(look["run"]), int(look["step"])) for look in values["looks"]]


def _read_scores(folder, path, step, columns):
    wanted = None if columns is None else [*dict.fromkeys(["step", *columns])]
    Manifest.read(folder.path).require(path)
    table = read_table(path, _SCORED if columns is None else (), wanted)
    if (table["step"] != step).any():
        name = path.relative_to(folder.path).as_posix()
        raise damaged(folder.path, name, f"it does not hold the scores of step {step}")
    return table if columns is None else table[columns]


def read_texts(folder: RunFolder, columns: list[str] | None = None, final: bool = False) -> pd.DataFrame:
    """One row per held-out or final pair: its id, texts and extra columns.

    Errors: WorkbenchError where the file is damaged.
    """
    path = folder.final_pairs if final else folder.pairs
    Manifest.read(folder.path).require(path)
    return read_table(path, _TEXTS if columns is None else (), columns)


def final_adapter(folder: RunFolder) -> Path | None:
    """The folder of a run's final adapter; None while there is none.

    Errors: WorkbenchError where it is damaged or lost, or older than the newest adapter that was published.
    """
    manifest = Manifest.read(folder.path)
    own = require_json(folder.adapter / "manifest.json")
    if own is None and not (folder.adapter / "adapter_config.json").is_file():
        if "adapter/manifest.json" in manifest.files:
            raise damaged(folder.path, "adapter", "it is lost")
        return None
    newest = max([*published_steps(folder), *manifest.steps("checkpoints")], default=0)
    if own is None:
        if "adapter/manifest.json" in manifest.files:
            raise damaged(folder.path, "adapter/manifest.json", "it is lost")
        older = not _is_of(folder, newest)
    else:
        require_adapter_files(folder, folder.adapter, own)
        older = own["step"] < newest
    if older:
        raise WorkbenchError(
            f"The final adapter of the run {folder.name!r} is older than its newest checkpoint, of step {newest}:"
            f" run.adapter_at({newest}) gives that one, and wb.resume({folder.name!r}) ends the run with a new one."
        )
    return folder.adapter


def _is_of(folder, step):
    """Whether a final adapter from before adapters had manifests has the weights of a checkpoint that is known."""
    manifest = require_json(folder.checkpoint(step) / "manifest.json") or {}
    expected = manifest.get("files", {}).get(f"adapter/{_WEIGHTS}") if isinstance(manifest.get("files"), dict) else None
    weights = folder.adapter / _WEIGHTS
    return expected is None or (weights.is_file() and sha256_of(weights) == expected)


def adapter_of(folder: RunFolder, step: int) -> Path | None:
    """The folder of the adapter that was kept at a step; None where there is none.

    Errors: WorkbenchError where it is damaged or lost, or that of another step.
    """
    path, manifest = folder.checkpoint(step), Manifest.read(folder.path)
    own = require_json(path / "manifest.json")
    if own is None:
        if step in manifest.steps("checkpoints"):
            raise damaged(folder.path, f"checkpoints/{path.name}", "it is lost")
        return path / "adapter" if (path / "adapter").is_dir() else None
    if own.get("step") != step:
        raise damaged(folder.path, f"checkpoints/{path.name}", f"it is that of step {own.get('step')}")
    require_adapter_files(folder, path, own, "adapter/")
    return path / "adapter"


def published_steps(folder: RunFolder) -> list[int]:
    """The steps of the checkpoints that stand in a run folder, in rising order."""
    return steps_of(path.name for path in folder.checkpoints.glob("step-*") if path.is_dir())


def require_adapter_files(folder: RunFolder, path: Path, own: dict, below: str = "") -> None:
    """Raise WorkbenchError unless the files that a manifest of a checkpoint or adapter names are as they were written.

    own: that manifest. below: only files whose names begin so.
    """
    name = path.relative_to(folder.path).as_posix()
    files = own.get("files")
    if not isinstance(files, dict) or not isinstance(own.get("step"), int):
        raise damaged(folder.path, f"{name}/manifest.json", "it does not name its step and files")
    for file, digest in files.items():
        if file.startswith(below):
            require_file(folder, path / file, digest)


def require_file(folder: RunFolder, path: Path, digest: str) -> None:
    """Raise WorkbenchError unless a file has this SHA-256."""
    if problem := content_problem(path, digest):
        raise damaged(folder.path, path.relative_to(folder.path).as_posix(), problem)
