"""What a run folder holds, read only where it is what was published: settings, records, tables, answers, adapters.

Every reader here raises WorkbenchError in one sentence for a file that is damaged or lost; none gives a number from it.
"""

from __future__ import annotations

import contextlib
import math
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.checksums import read_line
from ..base.errors import WorkbenchError
from ..base.files import file_stamp, read_json, read_jsonl, require_json
from ..base.hashes import sha256_of
from ..base.whole_lines import named, read_whole_lines
from ..config.earlier import as_it_was, config_hash
from ..config.run_config import RunConfig
from ..config.yaml_text import HEADER
from .manifest import DAMAGED, LOST, Manifest, content_problem, damaged, steps_of
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
#: Column of a table of scores -> the mean of it that an evaluation's record has.
_MEANS = {"chosen_avg_logp": "eval/logps/chosen", "rejected_avg_logp": "eval/logps/rejected"}
#: Kinds of records that measure something.
_MEASURED = ("train", "eval")
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
    config = as_it_was(RunConfig.from_yaml(folder.config))
    if manifest.state in (LOST, DAMAGED):
        known = (read_json(folder.environment) or {}).get("config_sha256")
        if known not in (None, config_hash(config)):
            raise damaged(folder.path, "config.yaml", "environment.json has the hash of other settings")
    return config


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


def read_whole_records(folder: RunFolder, all_evaluations: bool = True) -> tuple[list[dict], str]:
    """(the records on whole lines, a sentence that names the damaged ones); "" where all are whole.

    Errors: WorkbenchError where more is wrong than lines in the middle: the end of the records is damaged or lost, or
    the first or last evaluation is, so that another would stand for it; with `all_evaluations` any evaluation. Also
    where lines have no checksums, or where nothing tells which line was changed.
    """
    with contextlib.suppress(WorkbenchError):  # what is wrong is found below, line by line, which takes longer
        return folder.read_records(), ""
    manifest, path = Manifest.read(folder.path), folder.metrics
    problem = manifest.problem(path)
    if problem and not path.exists():
        raise damaged(folder.path, path.name, problem)
    whole = read_whole_lines(path)
    records = folder.checked(whole.records)
    if not whole.damaged:
        if problem:
            raise damaged(folder.path, path.name, problem)
        return records, ""
    lines, lost = named(whole.damaged), _lost_evaluations(folder, records)
    if manifest.is_cut(path):
        raise damaged(folder.path, path.name, f"{problem} ({lines})")
    steps = ", ".join(map(str, lost))
    if lost and (all_evaluations or not {lost[0], lost[-1]}.isdisjoint(_first_and_last(folder))):
        raise damaged(folder.path, path.name, f"{lines}; the evaluation of step {steps} was there")
    if not _has_its_end(folder, records, whole.before):
        raise damaged(folder.path, path.name, f"{lines}; what was measured last may have been there")
    without = f" The evaluation of step {steps} is not among them." if lost else ""
    return records, f"{path.name} of the run {folder.name!r} is damaged: {lines}. All other records are read.{without}"


def _lost_evaluations(folder, records):
    """The steps that were evaluated and have no record of it."""
    recorded = {record["step"] for record in records if record["kind"] == "eval"}
    return [step for step in folder.evaluated_steps() if step not in recorded]


def _first_and_last(folder):
    steps = folder.evaluated_steps()
    return {steps[0], steps[-1]}


def _has_its_end(folder, records, before):
    """Whether the last record that measured something is known: one stands behind the damaged lines, or it is an
    evaluation after which no step was made. before: how many records stand before the last damaged line.
    """
    if any(record["kind"] in _MEASURED for record in records[before:]):
        return True
    last = next((record for record in reversed(records) if record["kind"] in _MEASURED), {})
    status = read_json(folder.status) or {}
    return last.get("kind") == "eval" and last["step"] == status.get("step")


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


def read_whole_scores(folder: RunFolder, steps: list[int]) -> tuple[list[pd.DataFrame], list[str]]:
    """(`read_scores` of the steps that have theirs, one sentence for each other step).

    Errors: WorkbenchError where no step has, in the words of the first.
    """
    tables, problems = [], []
    for step in steps:
        try:
            tables.append(read_scores(folder, step))
        except WorkbenchError as error:
            problems.append(str(error))
    if not tables:
        raise WorkbenchError(problems[0])
    left_out = ", ".join(str(step) for step in steps if step not in {int(table["step"].iloc[0]) for table in tables})
    return tables, [*problems, f"The scores of step {left_out} are left out."] if problems else []


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
    manifest = Manifest.read(folder.path)
    manifest.require(path)
    table = read_table(path, _SCORED if columns is None else (), wanted)
    if path == folder.scores(step) and manifest.state in (LOST, DAMAGED):
        _require_recorded_means(folder, path, step)
    if (table["step"] != step).any():
        name = path.relative_to(folder.path).as_posix()
        raise damaged(folder.path, name, f"it does not hold the scores of step {step}")
    return table if columns is None else table[columns]


def _require_recorded_means(folder, path, step):
    """Raise WorkbenchError where the scores of a step, which nothing seals, do not have the means that metrics.jsonl
    has of them.
    """
    stamp = file_stamp(folder.metrics)
    if stamp is None or not folder.metrics.is_file():
        return
    record = _evaluations(folder.metrics, stamp).get(step)
    if record is None:
        return
    table = read_table(path, (), list(_MEANS))
    means = {"eval/pairs": len(table)} | {key: float(table[column].mean()) for column, key in _MEANS.items()}
    for key, mean in means.items():
        if not math.isclose(mean, record.get(key, mean), rel_tol=1e-6, abs_tol=1e-9):
            raise damaged(
                folder.path,
                f"scores/{path.name}",
                f"its {key.removeprefix('eval/')} is {mean:.6g}, and metrics.jsonl has {record[key]:.6g}",
            )


@lru_cache(maxsize=8)
def _evaluations(path, stamp):
    """{step: its record} of the evaluations in metrics.jsonl; only their lines are read. stamp: of the file."""
    records = {}
    for line in path.read_bytes().split(b"\n"):
        if b'"kind": "eval"' in line:
            with contextlib.suppress(ValueError):  # a damaged line is told by `read_whole_records`, without any number
                record, _ = read_line(line)
                records[record["step"]] = record
    return records


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
