"""Start runs in processes of their own, go on with ended ones, and make new runs out of old ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from ..base import process
from ..base.errors import WorkbenchError, first_line
from ..base.files import read_json, read_jsonl, write_json, write_jsonl
from ..config.run_config import RunConfig
from .device_queue import DeviceQueue
from .folder import RunFolder, find_run_folder
from .presence import hold, log_size
from .run import Run, create_run

#: Sections that decide what a checkpoint's tensors and records mean: a run that goes on from one cannot change them.
_FIXED = ("model", "data", "lora", "training.optimizer")
#: Settings that a change on the way (`run.set`) may have replaced: one that the clone changes goes before it.
_SET_ON_THE_WAY = {
    "loss.beta": "beta",
    "loss.gamma_beta_ratio": "gamma_beta_ratio",
    "training.learning_rate": "learning_rate_scale",
    "generation.prompts": "prompts",
}
_MEMORY = ("training.max_tokens_per_microbatch", "training.gradient_checkpointing")


def start(config: RunConfig) -> Run:
    """The run of a configuration, started in a process of its own that outlives this one; returns at once.

    While another run has the device it waits in the queue, as `queued`; its message says for what.
    """
    return launch(create_run(config))


def start_many(configs) -> list[Run]:
    """The runs of several configurations: the first begins, the others wait in this order."""
    return [start(config) for config in configs]


def resume(name: str | Path, root: str | Path = "runs") -> Run:
    """An ended or suspended run, going on from its newest valid checkpoint (without one from the start) in a process of
    its own; a paused one is told to go on.

    Errors: WorkbenchError when it is being trained, or is finished.
    """
    folder = find_run_folder(name, root)
    status = Run(folder).status
    if status.alive and status.state == "paused":
        Run(folder).unpause()
        return Run(folder)
    if status.alive:
        raise WorkbenchError(f"The run {folder.name!r} is {status.state}: it needs no resume.")
    if status.state == "finished":
        raise WorkbenchError(f"The run {folder.name!r} is finished: all {status.total_steps} steps are done.")
    return launch(folder, "--resume")


def clone(
    name: str | Path,
    root: str | Path = "runs",
    step: int | None = None,
    changes: dict | None = None,
    new_name: str | None = None,
) -> Run:
    """A new run with the settings of an existing one and some changes, started: from the beginning, or from the
    checkpoint of `step`.

    changes: {"training.learning_rate": 5e-5, …}. The folder's origin.json says what it was made from and every
    difference; the earlier records come along up to `step`. Errors: WorkbenchError when that step has no checkpoint
    that can be resumed, or when model, data or adapter would change on the way.
    """
    return launch(
        make_clone(find_run_folder(name, root), step, changes or {}, new_name),
        *(("--resume",) if step is not None else ()),
    )


def make_clone(source: RunFolder, step: int | None, changes: dict, new_name: str | None = None) -> RunFolder:
    """The folder of a clone, not started yet."""
    before = RunConfig.from_yaml(source.config)
    after = before.with_changes({"run.name": new_name, **changes})
    old, new = before.model_dump(exclude={"run"}), after.model_dump(exclude={"run"})
    different = {
        f"{section}.{field}": [old[section][field], value]
        for section, fields in new.items()
        for field, value in fields.items()
        if old[section][field] != value
    }
    if step is not None:
        fixed = [path for path in different if path.startswith(_FIXED)]
        if fixed:
            raise WorkbenchError(
                f"{', '.join(fixed)} cannot change on the way: a clone from a checkpoint keeps {', '.join(_FIXED)}."
                " Clone from the start instead (no step)."
            )
        manifest = read_json(source.checkpoint(step) / "manifest.json") or {}
        if not manifest.get("resumable"):
            raise WorkbenchError(
                f"The run {source.name!r} has no checkpoint to go on from at step {step}; it has"
                f" {resumable_steps(source)}."
            )
    folder = create_run(after, stem=source.name)
    try:
        write_json(
            folder.origin,
            {
                "run": source.name,
                "path": str(source.path.resolve()),
                "step": step,
                "changes": different,
                "changed_on_the_way": _kept_changes(source, step, different),
            },
        )
        if step is not None:
            _copy_up_to(source, folder, step, different)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise WorkbenchError(
            f"The clone of {source.name!r} cannot be made: {first_line(error)}. Nothing of it is left."
        ) from None
    return folder


def resumable_steps(folder: RunFolder) -> list[int]:
    """Steps whose checkpoints hold everything that is needed to go on."""
    found = [read_json(path) or {} for path in sorted(folder.checkpoints.glob("step-*/manifest.json"))]
    return [manifest["step"] for manifest in found if manifest.get("resumable")]


def _kept_changes(source, step, different):
    """What was changed while the source trained, up to a step, and holds in the clone as well."""
    replaced = {name for path, name in _SET_ON_THE_WAY.items() if path in different} | (
        {"gamma"} if "loss.gamma_beta_ratio" in different else set()
    )
    changes = [
        {**kept, "changes": {name: value for name, value in kept["changes"].items() if name not in replaced}}
        for kept in read_jsonl(source.changes)
        if kept["step"] <= (step or 0)
    ]
    return [kept for kept in changes if kept["changes"]]


def _copy_up_to(source, folder, step, different):
    """Checkpoint, records, scores and answers up to a step; changes that were made on the way stay made, unless the
    clone has its own.
    """
    shutil.copytree(source.checkpoint(step), folder.checkpoint(step))
    if any(path in different for path in _MEMORY):  # another plan is wanted than the one that was measured
        manifest = folder.checkpoint(step) / "manifest.json"
        write_json(manifest, {name: value for name, value in read_json(manifest).items() if name != "memory"})
    write_jsonl(folder.changes, _kept_changes(source, step, different))
    write_jsonl(folder.metrics, [record for record in read_jsonl(source.metrics) if record["step"] <= step])
    # the hashes of the pairs, which must still be the same; that of the configuration is the clone's own
    write_json(
        folder.environment,
        {name: value for name, value in (read_json(source.environment) or {}).items() if name != "config_sha256"},
    )
    for kind in ("scores", "generations"):
        for path in sorted((source.path / kind).glob("step-*")):
            if int(path.stem.removeprefix("step-")) <= step:
                shutil.copy2(path, folder.path / kind / path.name)


def launch(folder: RunFolder, *options: str) -> Run:
    """Start the worker detached: its own session and process group, no pipes to this process, everything it prints in
    log.txt.
    """
    with hold(folder):  # the worker waits for it, so that what it writes about itself comes after what is written here
        if options:
            folder.mailbox.clear()  # what was asked of an earlier process is not meant for the next one
        status = {
            "step": 0,
            "total_steps": 0,
            **(read_json(folder.status) or {}),
            "state": "loading",
            "message": "Starting.",
            "owner": "worker",
            "folder": folder.identity,
        }
        status |= {"answers_signals": False, "log_from": log_size(folder)}
        write_json(folder.status, {**status, "process": process.identify(), "handover": True})
        with open(folder.log, "ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "simpo_workbench.engine.worker", str(folder.path.resolve()), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            identity = process.identify(worker.pid)
            if "--serve" not in options:  # here, so that runs wait in the order in which they were started
                DeviceQueue().enter(folder.path.resolve(), folder.name, identity)
            write_json(folder.status, {**status, "process": identity})
        except ProcessLookupError:
            raise WorkbenchError(
                f"The process of run {folder.name!r} ended at once: see {str(folder.log)!r}."
            ) from None
        except WorkbenchError:
            worker.kill()  # nobody would know of it
            raise
    return Run(folder)
