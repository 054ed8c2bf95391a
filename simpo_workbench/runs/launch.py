"""Start runs in processes of their own, resume ended ones, and clone runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from ..base import process
from ..base.errors import WorkbenchError, first_line
from ..base.files import require_json, write_atomically, write_json, write_jsonl
from ..config.live_changes import CHANGEABLE, checked_changes
from ..config.run_config import RUNS_ROOT, RunConfig
from . import status as run_status
from .before_start import require_startable
from .device_queue import DeviceQueue
from .folder import RunFolder, create_run, find_run_folder, nothing_left_of
from .manifest import Manifest
from .more_steps import is_finished_error, require_steps_left, resumable_steps
from .post_mortem import last_log
from .presence import hold, log_size
from .run import Run
from .status import WORKER_MODULE
from .verified import read_changes, read_config, read_environment, read_records, require_adapter_files

#: Settings that decide what a checkpoint's tensors and records mean: a clone from a checkpoint cannot change them.
_FIXED = ("model", "data", "lora", "training.optimizer")
#: What `run.set` may have changed that no configuration holds: a factor on the learning rate.
_SCALE = "learning_rate_scale"
#: Of what a run trained on, what a clone from a checkpoint may change.
_OF_THE_CONFIGURATION = ("config_sha256", "total_steps")
_MEMORY = ("training.max_tokens_per_microbatch", "training.gradient_checkpointing")


def start(config: RunConfig) -> Run:
    """The run of a configuration, started in a process of its own that outlives this one.

    Returns at once. While another run has the device the new one is "queued", and its message says for what it waits.
    Errors: WorkbenchError where it could not begin, as in `require_startable`; no folder is left then. What only its
    own process can find makes a "failed" run, whose reason stands in its status, its `repr` and the list of runs.
    """
    require_startable(config)
    folder = create_run(config)
    with nothing_left_of(folder):
        return launch(folder)


def start_many(configs) -> list[Run]:
    """The runs of several configurations: the first begins, the others wait in this order.

    Errors: WorkbenchError where one of them could not begin; none is started then.
    """
    configs = list(configs)
    for config in configs:
        require_startable(config)
    return [start(config) for config in configs]


def resume(name: str | Path, root: str | Path = RUNS_ROOT) -> Run:
    """An ended or suspended run, resumed in a process of its own; a paused run, which goes on.

    It resumes from its newest valid checkpoint, or without one from the beginning.
    Errors: WorkbenchError when it is being trained, or is finished; it names the call that trains longer.
    """
    folder = find_run_folder(name, root)
    status = Run(folder).status
    if status.alive and status.state == "paused":
        Run(folder).unpause()
        return Run(folder)
    if status.alive:
        raise WorkbenchError(
            f"The run {folder.name!r} is {status.state}: it needs no resume. Where it was asked to stop or suspend,"
            f" that comes after its step: wait for it with wb.attach({folder.name!r}).wait()."
        )
    if status.state == "finished":
        raise is_finished_error(folder, status.total_steps)
    return launch(folder, "--resume")


def clone(
    name: str | Path,
    root: str | Path = RUNS_ROOT,
    step: int | None = None,
    changes: dict | None = None,
    new_name: str | None = None,
) -> Run:
    """A new run with the settings of an existing one and some changes, started: from the beginning, or from the
    checkpoint of `step`.

    changes: {"training.learning_rate": 5e-5, …}. The folder's origin.json says what it was made from and every
    difference; the earlier records come along up to `step`. The learning rate follows from the new settings for all
    steps, those before `step` included, and an event says how it changes there. Errors: WorkbenchError when that step
    has no checkpoint that can be resumed, when model, data or adapter would change on the way, or when no step is left.
    """
    options = () if step is None else ("--resume",)
    folder = make_clone(find_run_folder(name, root), step, changes or {}, new_name)
    with nothing_left_of(folder):
        return launch(folder, *options)


def make_clone(source: RunFolder, step: int | None, changes: dict, new_name: str | None = None) -> RunFolder:
    """The folder of a clone that is not started yet."""
    before = read_config(source)
    after = _at_step(source, before, step).with_changes({"run.name": new_name, **changes})
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
        manifest = require_json(source.checkpoint(step) / "manifest.json") or {}
        if manifest.get("step") != step or not manifest.get("resumable"):
            raise WorkbenchError(
                f"The run {source.name!r} has no checkpoint to go on from at step {step}; it has"
                f" {resumable_steps(source)}."
            )
        require_steps_left(source, step, after)
        require_adapter_files(source, source.checkpoint(step), manifest)
    require_startable(after)
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
    except BaseException as error:
        shutil.rmtree(folder.path, ignore_errors=True)
        if not isinstance(error, (OSError, shutil.Error, WorkbenchError)):
            raise
        raise WorkbenchError(
            f"The clone of {source.name!r} cannot be made: {first_line(error)} Nothing of it is left."
        ) from None
    return folder


def _at_step(source, config, step):
    """The configuration of a run with the settings that hold after a step; None: as it was started."""
    for record in read_changes(source) if step is not None else []:
        if record["step"] <= step:
            changes = {name: value for name, value in record["changes"].items() if name != _SCALE}
            config = checked_changes(config, changes) if changes else config
    return config


def _kept_changes(source, step, different):
    """The records of changes.jsonl up to a step, without what the clone's own configuration says."""
    replaced = {*CHANGEABLE} - ({_SCALE} if "training.learning_rate" not in different else set())
    records = []
    for record in read_changes(source):
        changes = {name: value for name, value in record["changes"].items() if name not in replaced}
        if changes and record["step"] <= (step or 0):
            records.append({**record, "changes": changes})
    return records


def _copy_up_to(source, folder, step, different):
    """Copy checkpoint, records, scores and answers up to a step, and the changes during training that still hold."""
    shutil.copytree(source.checkpoint(step), folder.checkpoint(step))
    if any(path in different for path in _MEMORY):  # the memory plan that was measured is not the one wanted now
        manifest = folder.checkpoint(step) / "manifest.json"
        write_json(manifest, _without(require_json(manifest), "memory"))
    write_jsonl(folder.changes, _kept_changes(source, step, different))
    write_jsonl(folder.metrics, [record for record in read_records(source) if record["step"] <= step])
    # the hashes of the pairs must still be the same; that of the configuration is the clone's own
    write_json(folder.environment, _without(read_environment(source), "config_sha256"))
    published = Manifest.read(source.path)
    copied = []
    kinds = (
        (source.scores, source.evaluated_steps()),
        (source.generations, source.sampled_steps()),
        (source.final_scores, source.final_steps()),
    )
    paths = [path_of(done) for path_of, steps in kinds for done in steps if done <= step]
    # all looks at the final pairs: whoever chose this clone knew them
    for path in [*paths, *([source.final_looks] if source.final_looks.exists() else [])]:
        published.require(path)
        copied.append(folder.path / path.relative_to(source.path))
        copied[-1].parent.mkdir(exist_ok=True)
        shutil.copy2(path, copied[-1])
    manifest = Manifest.to_write(folder.path)
    identity = {name: value for name, value in published.identity.items() if name not in _OF_THE_CONFIGURATION}
    manifest.seal(folder.metrics, folder.changes, folder.checkpoint(step) / "manifest.json", *copied, **identity)


def _without(values, name):
    return {key: value for key, value in values.items() if key != name}


def launch(folder: RunFolder, *options: str) -> Run:
    """The run of a folder, its worker started detached.

    The worker has its own session and process group, no pipes to this process, and its output in log.txt. Errors:
    WorkbenchError when it cannot be started; the status is then what it was before.
    """
    with hold(folder):  # the worker waits for the lock, so that it writes its status after this process does
        if options:
            folder.mailbox.clear()  # requests to an earlier process are not meant for the next one
        before = folder.status.read_bytes() if folder.status.exists() else None
        known = run_status.written(folder)
        status = {
            "step": 0,
            "total_steps": 0,
            **known,
            "state": "loading",
            "message": "Starting.",
            "owner": "worker",
            "folder": folder.identity,
            "before": known.get("state"),
        }
        status |= {"answers_signals": False, "log_from": log_size(folder)}
        try:
            write_json(folder.status, {**status, "process": process.identify(), "handover": True})
            _start_worker(folder, status, options)
        except BaseException as error:
            if before is not None:
                write_atomically(folder.status, before)
            if isinstance(error, OSError):
                raise WorkbenchError(
                    f"The process of run {folder.name!r} cannot be started: {error.strerror or first_line(error)}."
                ) from None
            raise
    return Run(folder)


def _start_worker(folder, status, options):
    with open(folder.log, "ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", WORKER_MODULE, str(folder.path.resolve()), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    queue, ticket = DeviceQueue(), None
    try:
        identity = process.identify(worker.pid)
        if "--serve" not in options:  # here, so that runs wait in the order in which they were started
            ticket = queue.enter(folder.path.resolve(), folder.name, identity)
        write_json(folder.status, {**status, "process": identity})
    except BaseException as error:
        worker.kill()  # no status would name it
        worker.wait()
        if ticket is not None:
            queue.leave(ticket)
        if isinstance(error, ProcessLookupError):
            last = " / ".join(last_log(folder.log, status["log_from"])[-3:])
            raise WorkbenchError(
                f"The process of run {folder.name!r} ended at once. {last or 'It left no word.'}"
            ) from None
        raise
