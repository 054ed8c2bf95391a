"""Checkpoints: everything a run needs to be resumed as if it had never stopped."""

import dataclasses
import os
import pickle
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..base.errors import WorkbenchError, first_line
from ..base.files import read_json, write_json
from ..base.hashes import sha256_of
from ..base.patience import ONCE, Patience, passes, reason_of
from ..config.run_config import TrainingConfig
from ..runs.folder import RunFolder
from ..runs.manifest import Manifest
from ..runs.verified import published_steps
from .forward.memory import MemoryPlan
from .model.models import TUNED
from .setup import Setup

_STATE = "training_state.pt"
_MANIFEST = "manifest.json"
#: For records, scores and answers of the held-out pairs, and the log.
_MARGIN_BYTES = 32_000_000


def save_adapter(model, folder: Path) -> None:
    """Write the trained adapter in PEFT's own format (safetensors)."""
    # save_embedding_layers: by default peft asks the hub at every save whether the base model's vocabulary has changed
    model.save_pretrained(str(folder), selected_adapters=[TUNED], safe_serialization=True, save_embedding_layers=False)


@dataclass(frozen=True)
class Resumable:
    """A checkpoint to resume from.

    memory: the memory plan of the run, None in old checkpoints. notes: a sentence for every newer one that is damaged.
    """

    step: int
    memory: MemoryPlan | None
    notes: list[str]


def save_checkpoint(
    folder: RunFolder, step: int, setup: Setup, resumable: bool = True, patience: Patience = ONCE
) -> None:
    """Publish checkpoints/step-N with one rename: the adapter and, if resumable, the training state.

    The memory plan is kept because another plan adds the same numbers in another order: with it a resumed run on a CPU
    is the uninterrupted one, bit for bit (on a GPU some kernels add in an order of their own). manifest.json holds
    every file's SHA-256, so that a damaged checkpoint is recognized. A checkpoint of that step is replaced.

    Errors: WorkbenchError when it cannot be written in spite of `patience`.
    """
    final = folder.checkpoint(step)
    beside = final.with_name(f".{final.name}.tmp")
    try:
        patience.attempt(lambda: _publish(final, beside, step, setup, resumable), f"the checkpoint of step {step}")
    # torch and safetensors wrap a full disk in errors of their own
    except (OSError, RuntimeError, SafetensorError, WorkbenchError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        reason = reason_of(error) if isinstance(error, OSError) or passes(error) else first_line(error)
        raise WorkbenchError(
            f"The checkpoint of step {step} cannot be written to {str(final)!r}: {reason}. Earlier checkpoints are"
            " untouched."
        ) from None


def save_final_adapter(folder: RunFolder, step: int, setup: Setup, card: str, patience: Patience = ONCE) -> None:
    """Publish adapter/ with one rename: the adapter, its tokenizer, a README with the text of `card`, and
    manifest.json, which names its step and every file's SHA-256. An earlier one is replaced.

    Errors: WorkbenchError when it cannot be written in spite of `patience`; an earlier one is then as it was.
    """
    final = folder.adapter
    beside = final.with_name(f".{final.name}.tmp")

    def publish():
        shutil.rmtree(beside, ignore_errors=True)
        save_adapter(setup.loaded.model, beside)
        setup.loaded.tokenizer.save_pretrained(beside)
        (beside / "README.md").write_text(card, encoding="utf-8")
        write_json(beside / _MANIFEST, {"step": step, "files": _digests(beside)})
        _put_in_place(beside, final)

    try:
        patience.attempt(publish, "the final adapter")
    except (OSError, RuntimeError, SafetensorError, WorkbenchError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        reason = reason_of(error) if isinstance(error, OSError) or passes(error) else first_line(error)
        raise WorkbenchError(
            f"The final adapter cannot be written to {str(final)!r}: {reason}. The checkpoint of step {step} has it"
            " already."
        ) from None


def _publish(final, beside, step, setup, resumable):
    """Write a checkpoint beside its place, flush it to disk, and rename it."""
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    save_adapter(setup.loaded.model, beside / "adapter")
    if resumable:
        scaler = setup.accelerator.scaler
        state = {
            "optimizer": setup.optimizer.state_dict(),
            "applied_updates": setup.applied_updates,
            "random": random_states(),
            "scaler": scaler.state_dict() if scaler else {},
        }
        _save_tensors(state, beside / _STATE)
    manifest = {
        "step": step,
        "config_sha256": setup.environment["config_sha256"],
        "resumable": resumable,
        "memory": dataclasses.asdict(setup.memory),
        "files": _digests(beside),
    }
    write_json(beside / _MANIFEST, manifest)
    _put_in_place(beside, final)


def _digests(folder):
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}


def _put_in_place(beside, final):
    """Flush a folder to the disk and give it its name, in the place of an earlier one."""
    aside = final.with_name(f".{final.name}.old")
    for path in [*beside.rglob("*"), beside]:
        _fsync(path)
    if final.exists():  # at every moment one of the two exists under a name that `clean` knows
        shutil.rmtree(aside, ignore_errors=True)
        final.rename(aside)
    beside.rename(final)
    _fsync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _save_tensors(state, path):
    """torch.save, but with the system's own error when the disk is full, where torch reports a wrong position."""
    with open(path, "wb") as file:
        watched = _Watched(file)
        try:
            torch.save(state, watched)
        except RuntimeError:
            raise watched.error or RuntimeError(f"{path.name} could not be written") from None


class _Watched:
    """A file for writing that remembers its first error."""

    def __init__(self, file):
        self.file, self.error = file, None

    def write(self, content):
        try:
            written = self.file.write(content)
            self.file.flush()  # so that the error is raised here, and not when the file is closed
            return written
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self):
        self.file.flush()


def prune(folder: RunFolder, keep: int, best: int | None = None) -> None:
    """Delete the training state of all resumable checkpoints but the newest `keep` and that of step `best`.

    Their adapters stay.
    """
    resumable = 0
    for path in _newest_first(folder):
        manifest = _manifest(path)
        if manifest is None:
            continue
        resumable += manifest["resumable"]
        if manifest["resumable"] and resumable > keep and manifest["step"] != best:
            files = {name: digest for name, digest in manifest["files"].items() if name != _STATE}
            write_json(path / _MANIFEST, {**manifest, "files": files, "resumable": False})
            manifest["resumable"] = False
        if not manifest["resumable"]:  # also where an earlier process died between these two
            (path / _STATE).unlink(missing_ok=True)


def clean(folder: RunFolder) -> None:
    """Delete what a process left that died while it wrote a checkpoint or the final adapter; put back what was being
    replaced.
    """
    for aside in [*folder.checkpoints.glob(".step-*.old"), *folder.path.glob(".adapter.old")]:
        final = aside.with_name(aside.name[1:].removesuffix(".old"))
        if not final.exists():
            aside.rename(final)
        shutil.rmtree(aside, ignore_errors=True)
    for beside in [*folder.checkpoints.glob(".step-*.tmp"), *folder.path.glob(".adapter.tmp")]:
        shutil.rmtree(beside, ignore_errors=True)


def newest_valid(folder: RunFolder) -> Resumable | None:
    """The newest checkpoint with training state and undamaged files; None when none was ever made.

    Errors: WorkbenchError when there are some and all are damaged or lost.
    """
    lost = set(Manifest.read(folder.path).steps("checkpoints")) - set(published_steps(folder))
    notes = [f"{folder.checkpoint(step).name} is lost." for step in sorted(lost, reverse=True)]
    for path in _newest_first(folder):
        manifest = _manifest(path)
        if manifest is None:
            notes.append(f"{path.name} has no readable manifest of its own step and was passed over.")
        elif manifest["resumable"]:
            damaged = damaged_files(path, manifest)
            if not damaged:
                memory = MemoryPlan(**manifest["memory"]) if "memory" in manifest else None
                return Resumable(manifest["step"], memory, notes)
            notes.append(f"{path.name} is damaged ({damaged[0]}) and was passed over.")
    if notes:
        raise WorkbenchError(
            f"The run {folder.name!r} has no checkpoint to go on from. {' '.join(notes)} Clone it to begin anew with"
            " the same settings."
        )
    return None


def damaged_files(path: Path, manifest: dict) -> list[str]:
    """Names of the files of a checkpoint that are missing or differ from what was written."""
    return [
        name
        for name, digest in manifest["files"].items()
        if not (path / name).is_file() or sha256_of(path / name, fresh=True) != digest
    ]


def require_room(folder: RunFolder, parameters, total_steps: int, training: TrainingConfig, done: int) -> None:
    """Raise WorkbenchError unless the disk has room for the checkpoints that the run will keep after step `done`."""
    adapter = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
    intervals = [every for every in (training.eval_every, training.save_every) if every]
    kept = sum(
        step == total_steps or any(step % every == 0 for every in intervals)
        for step in range(done + 1, total_steps + 1)
    )
    # the optimizer keeps two numbers for every parameter; while a checkpoint is written there is one more than is kept
    needed = adapter * (kept + 1) + 2 * adapter * (training.keep_checkpoints + 2) + _MARGIN_BYTES
    free = shutil.disk_usage(folder.path).free
    if free < needed:
        raise WorkbenchError(
            f"The disk under {str(folder.path)!r} has {free / 1e9:.2f} GB free, and the rest of this run keeps"
            f" {needed / 1e9:.2f} GB: {kept} adapters of {adapter / 1e6:.1f} MB and the state of"
            f" {training.keep_checkpoints + 2} checkpoints. Free some space, or save and evaluate less often"
            " (training.save_every, training.eval_every)."
        )


def restore(folder: RunFolder, step: int, setup: Setup) -> None:
    """Restore adapter, optimizer, count of updates and random states from a checkpoint, bit for bit.

    Errors: WorkbenchError for a checkpoint of another model, or one that holds more than tensors.
    """
    path = folder.checkpoint(step)
    load_adapter(setup, path / "adapter", step)
    try:
        state = torch.load(path / _STATE, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its hash was right, so it was made this way
        raise WorkbenchError(
            f"The checkpoint of step {step} holds more than tensors in {_STATE} and is not read: {first_line(error)}."
        ) from None
    setup.optimizer.load_state_dict(state["optimizer"])
    for group in setup.optimizer.param_groups:  # a clone may have another than the checkpoint
        group["weight_decay"] = setup.config.training.weight_decay
    # earlier checkpoints hold the state of a scheduler, which counted the updates
    setup.applied_updates = state["scheduler"]["last_epoch"] if "scheduler" in state else state["applied_updates"]
    if setup.accelerator.scaler is not None and state["scaler"]:
        setup.accelerator.scaler.load_state_dict(state["scaler"])
    set_random_states(state["random"])


def load_adapter(setup: Setup, adapter: Path, step: int) -> None:
    """Give the model the adapter of a checkpoint, bit for bit. Errors: WorkbenchError for that of another model."""
    weights = load_file(adapter / "adapter_model.safetensors")
    result = set_peft_model_state_dict(setup.loaded.model, weights, adapter_name=TUNED)
    if result.unexpected_keys:
        raise WorkbenchError(
            f"The checkpoint of step {step} belongs to another model: it holds {result.unexpected_keys[0]!r}."
        )


def random_states() -> dict:
    """The states of all random generators that training uses: torch's, CUDA's, Python's, NumPy's."""
    numpy_state = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": list(random.getstate()[1]),
        "numpy": [torch.from_numpy(numpy_state[1].astype(np.int64)), numpy_state[2], numpy_state[3], numpy_state[4]],
    }


def set_random_states(states: dict) -> None:
    """Restore the states from `random_states`."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():  # the machine may have fewer devices now
        torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])
    random.setstate((3, tuple(states["python"]), None))
    keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))


def _newest_first(folder):
    return [folder.checkpoint(step) for step in reversed(published_steps(folder))]


def _manifest(path):
    """The manifest of a checkpoint; None where there is none, it lacks something or is that of another step."""
    manifest = read_json(path / _MANIFEST) or {}
    step = manifest.get("step")
    complete = isinstance(step, int) and path.name == f"step-{step:06d}" and isinstance(manifest.get("files"), dict)
    return manifest if complete and "resumable" in manifest else None


def _fsync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
