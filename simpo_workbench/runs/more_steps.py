"""More steps after the end of a run: the new run that takes them, and what becomes of the learning rate."""

from __future__ import annotations

import shlex

from ..base.errors import WorkbenchError
from ..base.files import read_json, require_json
from ..config.run_config import RUNS_ROOT, RunConfig
from ..config.schedule import learning_rate, total_steps
from .folder import RunFolder
from .verified import read_config, read_records, require_adapter_files

#: Settings from which the learning rate of a step follows.
RATE_SETTINGS = tuple(
    f"training.{name}"
    for name in ("epochs", "max_steps", "pairs_per_step", "learning_rate", "scheduler", "warmup_ratio")
)


def is_finished_error(folder: RunFolder, steps: int) -> WorkbenchError:
    """The error for a run of `steps` steps that has nothing left to do, with the call that trains one epoch more."""
    text = f"The run {folder.name!r} is finished: all {steps} steps are done."
    last = _last_training_record(folder)
    resumable = resumable_steps(folder)
    start = newest_whole_step(folder)
    if last is None or start is None:
        none = " None of its checkpoints is whole." if resumable else ""
        return WorkbenchError(f"{text}{none} To train longer, start a new run: wb.clone({folder.name!r}, changes=…).")
    config = read_config(folder)
    training, pairs = config.training, _training_pairs(config, last)
    more = ("training.epochs", round(training.epochs + 1, 6))
    if training.max_steps:
        more = ("training.max_steps", training.max_steps + max(1, round(pairs / training.pairs_per_step)))
    longer = config.with_changes(dict([more]))
    place = str(folder.path.parent)
    root, option = ("", "") if place == RUNS_ROOT else (f", root={place!r}", f" --root {shlex.quote(place)}")
    scheduled = learning_rate(last["step"] - 1, steps, training)
    scale = last["learning_rate"] / scheduled if scheduled > 0 else 1.0  # what run.set may have changed it by
    rate = learning_rate(start, total_steps(longer, pairs), longer.training, scale)
    which = "its last checkpoint" if start == resumable[-1] else f"step {start}, its newest checkpoint that is whole"
    return WorkbenchError(
        f"{text} One epoch more is a new run that goes on from {which}: wb.clone({folder.name!r}{root},"
        f" step={start}, changes={{{more[0]!r}: {more[1]:g}}}), or `simpo-workbench clone {folder.name}{option} --step"
        f" {start} --{more[0]} {more[1]:g}`. {_rate_sentence(training, last, rate)}"
    )


def require_steps_left(folder: RunFolder, step: int, after: RunConfig) -> None:
    """Raise WorkbenchError if a clone from the checkpoint of `step` would end without a step of its own."""
    last = _last_training_record(folder)
    if last is None:
        return
    steps = total_steps(after, _training_pairs(read_config(folder), last))
    if steps <= step:
        raise WorkbenchError(
            f"A clone of {folder.name!r} from step {step} would be finished at once: with these settings it has"
            f" {steps} steps. Raise training.epochs (now {after.training.epochs:g})"
            f"{' or training.max_steps' if after.training.max_steps else ''}, or clone from an earlier step"
            f" ({resumable_steps(folder)})."
        )


def rate_change(folder: RunFolder, start: int, rate: float, records: list[dict]) -> str:
    """The sentence on the learning rate of a clone that goes on after step `start` with another schedule; "" for any
    other run.

    rate: of its next step. records: those that came along.
    """
    origin = read_json(folder.origin) or {}
    changed = [path for path in RATE_SETTINGS if path in (origin.get("changes") or {})]
    before = next((record for record in reversed(records) if record["kind"] == "train"), None)
    if origin.get("step") != start or not changed or before is None:
        return ""
    return (
        f"The learning rate goes on at {rate:.2e}; step {before['step']} had {before['learning_rate']:.2e}"
        f" ({', '.join(changed)} changed)."
    )


def resumable_steps(folder: RunFolder) -> list[int]:
    """Steps whose checkpoints hold everything that is needed to go on."""
    manifests = [read_json(path) or {} for path in sorted(folder.checkpoints.glob("step-*/manifest.json"))]
    return [manifest["step"] for manifest in manifests if manifest.get("resumable")]


def newest_whole_step(folder: RunFolder) -> int | None:
    """The newest step whose checkpoint can be gone on from and is as it was written; None where there is none."""
    for step in reversed(resumable_steps(folder)):
        checkpoint = folder.checkpoint(step)
        try:
            require_adapter_files(folder, checkpoint, require_json(checkpoint / "manifest.json") or {})
        except WorkbenchError:  # whoever asks for this step is told
            continue
        return step
    return None


def _rate_sentence(training, last, rate):
    if training.scheduler.startswith("constant"):
        return f"The learning rate stays at about {rate:.2e}."
    return (
        f"The learning rate then follows the {training.scheduler} over all steps, the new ones included: it ended at"
        f" {last['learning_rate']:.2e} and goes on at about {rate:.2e}; with training.scheduler constant it is"
        " training.learning_rate throughout."
    )


def _last_training_record(folder):
    return next((record for record in reversed(read_records(folder)) if record["kind"] == "train"), None)


def _training_pairs(config, record):
    """Number of encoded training pairs, from the share of an epoch that a step's record names."""
    return round(record["step"] * config.training.pairs_per_step / record["epoch"])
