"""The runs in a root folder: list them, find one by its settings, delete one."""

from __future__ import annotations

import contextlib
import os
import shutil
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import WorkbenchError
from ..base.files import file_stamp, read_jsonl_backwards
from ..config.held_lora import lora_label
from ..config.run_config import RUNS_ROOT, RunConfig
from .damage import damage_of, lost_files
from .folder import RunFolder, run_names
from .manifest import Manifest
from .run import Run
from .run_lora import label_of
from .verified import read_config

if TYPE_CHECKING:
    import pandas as pd

#: Column of `list_runs` -> the metric of the last evaluation.
_MEASURED = {
    "accuracy": "rewards/accuracies",
    "accuracy_low": "rewards/accuracies_low",
    "accuracy_high": "rewards/accuracies_high",
    "pairs": "pairs",
    "chosen_drift": "logps/chosen_drift",
    "right": "answers/right",
    "checked": "answers/checked",
}
_LISTED = ["name", "state", "step", "total_steps", "model", "lora", "data", "learning_rate", "beta"]
_LISTED += [*_MEASURED, "verdict", "started", "problem"]


def find_run(config: RunConfig) -> Run | None:
    """The newest finished run with these settings in their root, whatever its name; None when there is none.

    `wb.find_run(config) or wb.train(config)` trains once.
    """
    same = []
    for name in run_names(config.run.root):
        run = Run(RunFolder(Path(config.run.root).expanduser() / name))
        with contextlib.suppress(WorkbenchError):  # a damaged configuration is not this one
            if run.config.model_copy(update={"run": config.run}) == config and run.status.state == "finished":
                same.append(run)
    return max(same, key=lambda run: run.folder.config.stat().st_mtime, default=None)


def list_runs(root: str | Path = RUNS_ROOT) -> pd.DataFrame:
    """One row per run in a root folder, the newest first.

    Columns: name, state, step, total_steps, model, lora (its rank, such as "r16", and with model.adapter whose it is),
    data, learning_rate, beta, accuracy, accuracy_low and accuracy_high (95 %), pairs (behind the accuracy),
    chosen_drift (nats per token), right (share of right answers) of checked ones, verdict, started (local time),
    problem (why it failed, and what of it is damaged or lost; "" without one).
    """
    import pandas as pd

    rows = []
    for name in run_names(root):
        run = Run(RunFolder(Path(root).expanduser() / name))
        status, written = run.status, file_stamp(run.folder.config)
        if written is None:  # deleted since its name was read
            continue
        row = {"name": name, "state": status.state, "step": status.step, "total_steps": status.total_steps}
        row |= _config_facts(run.folder.config, written)
        with contextlib.suppress(WorkbenchError):  # the row says the rest; the run itself says what is wrong
            if row.get("lora", "") is None:
                row["lora"] = _adapter_label(run.folder.path, written, file_stamp(run.folder.environment))
            row |= _last_facts(run.folder.metrics, file_stamp(run.folder.metrics))
        if _has_lost_of_last(run.folder):
            row |= dict.fromkeys(_MEASURED)
        words = [*([status.message] if status.state == "failed" else []), *damage_of(run.folder, quick=True)]
        row |= {"verdict": status.verdict, "problem": " ".join(words)}
        # config.yaml is written once, at the start
        rows.append(row | {"started": datetime.fromtimestamp(status.started or written[0] / 1e9)})
    rows.sort(key=lambda row: row["started"], reverse=True)
    return pd.DataFrame(rows, columns=_LISTED)


def delete_run(name: str, root: str | Path = RUNS_ROOT) -> None:
    """Delete a run's folder with everything in it, for good.

    Errors: WorkbenchError when `root` has no such run, when a process has it, or when a part cannot be deleted.
    """
    folder = RunFolder(Path(root).expanduser() / name)
    if (
        folder.name != name
        or name == ".."
        or not folder.config.is_file()
        or not (folder.status.is_file() or folder.requests.is_dir())
    ):
        raise WorkbenchError(f"{str(name)[:120]!r} names no run in {str(root)!r}, so nothing is deleted.")
    if folder.path.is_symlink():
        raise WorkbenchError(
            f"{name!r} is a link to {str(folder.path.resolve())!r}: nothing is deleted through links. Remove the link"
            " itself where you do not need it."
        )
    _require_ended(folder)
    gone = folder.path.with_name(f".{name}.deleted-{os.getpid()}")
    try:
        folder.path.rename(gone)  # in one step, so that no process begins with half a run
        try:
            _require_ended(RunFolder(gone))
        except WorkbenchError:
            gone.rename(folder.path)
            raise
        RunFolder(gone).config.unlink()  # from here on it is no run, even when the rest fails
        shutil.rmtree(gone)
    except OSError as error:
        left = gone if gone.exists() else folder.path
        raise WorkbenchError(
            f"The run {name!r} cannot be deleted: {error.strerror}. What is left of it is in {str(left)!r}."
        ) from None


def _require_ended(folder):
    status = Run(folder).status
    if status.alive or folder.is_held():
        raise WorkbenchError(
            f"The run {folder.name!r} is {status.state} and a process has it: stop it first, then delete it."
        )


@lru_cache(maxsize=4096)
def _config_facts(path, stamp):
    try:
        config = read_config(RunFolder(path.parent))
    except WorkbenchError:  # one damaged folder must not break the list; the run itself says what is wrong
        return {"model": "(configuration unreadable)"}
    return {
        "model": config.model.name,
        "lora": None if config.model.adapter else lora_label(config, None),
        "data": config.data.train,
        "learning_rate": config.training.learning_rate,
        "beta": config.loss.beta,
    }


@lru_cache(maxsize=4096)
def _adapter_label(path, *stamps):
    """As `label_of`, of a run with model.adapter. stamps: of the files that say it."""
    folder = RunFolder(path)
    return label_of(folder, read_config(folder))


@lru_cache(maxsize=4096)
def _last_facts(path, stamp):
    """The newest β (it may have been changed during training), and accuracy and drift of the last evaluation, which are
    the same at every objective; None for each where the end of the records is damaged or lost, so that no earlier
    evaluation stands for the last one.
    """
    beta, evaluation = {}, None
    try:
        if Manifest.read(path.parent).is_cut(path):
            raise WorkbenchError(f"{path.name} ends before the last record that was published.")
        for record in read_jsonl_backwards(path, strict=True):
            if not beta and _is_number(record.get("beta")):
                beta = {"beta": record["beta"]}
            if evaluation is None and record.get("kind") == "eval":
                evaluation = record
            if beta and evaluation:
                break
    except (OSError, WorkbenchError):  # reading the run itself says what is wrong
        return dict.fromkeys(["beta", *_MEASURED])
    values = {name: (evaluation or {}).get(f"eval/{key}") for name, key in _MEASURED.items()}
    return beta | {name: value if _is_number(value) else None for name, value in values.items()}


def _has_lost_of_last(folder):
    """Whether the scores or the answers of the last evaluation are lost or cut short."""
    last = max(Manifest.read(folder.path).steps("scores"), default=0)
    names = {path(last).relative_to(folder.path).as_posix() for path in (folder.scores, folder.generations)}
    return not names.isdisjoint(lost_files(folder))


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)
