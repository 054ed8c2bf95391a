"""The training loop, from top to bottom: prepare, evaluate, step, decide, evaluate, save, end."""

import contextlib
import errno
import functools
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator

from .._version import __version__
from ..base.errors import WorkbenchError, first_line
from ..base.files import read_json, require_json, write_json
from ..base.patience import error_number, reason_of
from ..base.redaction import redact, redact_values
from ..config.run_config import RunConfig
from ..config.schedule import learning_rate
from ..runs.before_start import require_startable
from ..runs.device_queue import DeviceQueue
from ..runs.folder import RunFolder, create_run
from ..runs.manifest import DAMAGED, LOST, NONE, SEALED
from ..runs.more_steps import rate_change
from ..runs.presence import Presence
from ..runs.run import Run
from ..runs.verified import FROZEN, read_config
from . import checkpoints, final_pairs
from .decide import Evaluation, decide
from .desk import Desk
from .evaluation import evaluate
from .forward import memory
from .identity import require_same
from .interruption import StopSignal, stop_signals
from .recorder import Recorder
from .setup import Setup, prepare
from .step import OptimizerStep, optimizer_step

_PAUSE_POLL_S = 0.1
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ACCESS = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOTDIR, errno.ENOENT}


def train(config: RunConfig, on_record: Callable[[dict], None] | None = None) -> Run:
    """The finished (or stopped) run of a configuration, trained in this process.

    on_record: called with every metrics record as it is written. An interrupt (Ctrl-C, or the notebook's stop button)
    ends the run in order after the current step, with adapter and checkpoint saved. Errors: WorkbenchError; the run
    folder then says "failed" and why. A run that failed before its first record leaves no folder: the error says all.
    """
    require_startable(config)
    folder = create_run(config)
    try:
        train_in_process(folder, on_record=on_record)
    except BaseException:
        began = folder.metrics.exists() or folder.evaluated_steps()
        if not began and Run(folder).status.state == "failed":  # one that was stopped can go on
            shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return Run(folder)


def train_in_process(folder: RunFolder, resume: bool = False, on_record: Callable[[dict], None] | None = None) -> None:
    """Train a run folder in this process, whatever else uses the device; runs started meanwhile wait for this one."""
    queue = DeviceQueue()
    with Presence(folder, "in-process") as presence:
        if resume:
            folder.mailbox.clear()  # those requests were meant for an earlier process
        try:
            holder = None if queue.take_at_once(folder.path.resolve(), folder.name) else queue.holder()
            if holder and on_record:
                text = f"The run {holder['name']!r} uses this device as well: both will be slow."
                on_record({"kind": "note", "step": 0, "text": text})
            run_training(folder, presence, resume, on_record)
        finally:
            queue.release()


def steps(config: RunConfig) -> Iterator[OptimizerStep]:
    """One OptimizerStep after the other, for notebooks that look inside; nothing is written, evaluated or saved."""
    setup = prepare(config)
    try:
        for number in range(1, setup.total_steps + 1):
            yield optimizer_step(setup, number)
    finally:
        setup.close()


def run_training(
    folder: RunFolder, presence: Presence, resume: bool = False, on_record: Callable[[dict], None] | None = None
) -> None:
    """Train what a run folder's configuration says and record it there; resume: from the newest valid checkpoint.

    Errors: WorkbenchError; KeyboardInterrupt after a stop that did not wait for the end of a step.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise WorkbenchError("One run uses one device for now: start it without torchrun or accelerate launch.")
    config = _own_config(folder, presence, resume)
    recorder = _own_recorder(folder, config, presence, on_record)
    recorder.state("loading", "Loading model and pairs.")
    stop = StopSignal()
    try:
        with stop_signals(stop, presence):
            checkpoints.clean(folder)
            checkpoint = checkpoints.newest_valid(folder) if resume else None
            known = (read_json(folder.environment) or {}) | recorder.manifest.identity
            kept = known.get(FROZEN) if resume else None
            setup = prepare(config, checkpoint.memory if checkpoint else None, recorder.doing, kept)
            recorder.doing("")
            try:
                stop.check()
                _train(setup, recorder, checkpoint, stop)
            finally:
                setup.close()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or stop.at_once:
            resumable = any(folder.checkpoints.glob("step-*/training_state.pt"))
            start = "the last checkpoint" if resumable else "the start"
            message = f"Interrupted; `simpo-workbench resume {folder.name}` continues from {start}."
            recorder.end("stopped", message)
            raise KeyboardInterrupt(message) from None
        presence.give_back_reserve()
        error = _explained(error, config, began=bool(recorder.records))
        message = str(error)
        if not isinstance(error, WorkbenchError):
            message = f"{type(error).__name__}: {first_line(error)}"
            with contextlib.suppress(OSError), open(folder.log, "a", encoding="utf-8") as log:
                log.write(redact(traceback.format_exc()))
        with contextlib.suppress(Exception):  # neither a full disk nor a caller's on_record may hide the error itself
            # nothing of a run that was to be resumed has changed yet, or nothing of a new one is recorded
            if presence.before or not recorder.records:
                presence.fail(message)
            else:
                recorder.end("failed", message)
        raise error


def _own_config(folder, presence, resume):
    """The configuration that the run began with. Errors: WorkbenchError where it was changed, which ends the run."""
    try:
        return read_config(folder)
    except WorkbenchError as error:
        changed = f"The run {folder.name!r} cannot go on: its configuration changed since it was stopped. {error}"
        message = changed if resume else str(error)
        presence.fail(message)
        raise WorkbenchError(message) from None


def _own_recorder(folder, config, presence, on_record):
    """The recorder of a run. Errors: WorkbenchError where its records are damaged or lost, which ends the run."""
    try:
        return Recorder(folder, config, presence, on_record)
    except WorkbenchError as error:
        presence.fail(str(error))
        raise


def _explained(error, config, began):
    """A full memory or disk as a WorkbenchError; any other error as it is. began: whether the run has records."""
    intact = "heckpoints are intact and resume continues from the last one." if began else ""
    if memory.is_out_of_memory(error):
        shortage = memory.shortage(config.training)
        return WorkbenchError(f"{shortage} C{intact}" if began else shortage)
    if (number := error_number(error)) in _NO_SPACE | _NO_ACCESS:
        remedy = "Free some space" if number in _NO_SPACE else "Check the disk"
        rest = f"; c{intact}" if began else "."
        return WorkbenchError(f"The run folder cannot be written: {reason_of(error)}. {remedy}{rest}")
    return error


def _train(setup: Setup, recorder: Recorder, checkpoint: checkpoints.Resumable | None, stop: StopSignal):
    training, total_steps, desk = setup.config.training, setup.total_steps, Desk(recorder, setup)
    step = _begin(setup, recorder, desk, checkpoint)
    if step == 0:
        recorder.state("scoring", "Scoring the base model on the held-out pairs.")
        _evaluate(setup, recorder, desk, 0)
        final_pairs.score_base(setup, recorder, setup.config.loss)
        stop.check()
    paused, ending = False, None
    while step < total_steps and not ending:
        if paused:
            time.sleep(_PAUSE_POLL_S)
        else:
            step += 1
            _step(setup, recorder, desk, step)
        requests = desk.take(step)
        decision = decide(step, total_steps, requests | stop.requests, training, paused)
        if decision.evaluate:
            evaluation = _evaluate(setup, recorder, desk, step)
            desk.done("evaluate", f"Evaluated after step {step}.")
            # the signal may have come during the evaluation
            decision = decide(step, total_steps, requests | stop.requests, training, paused, evaluation)
        if decision.save:
            _save(setup, recorder, step, decision.save == "resumable")
            desk.done("save", f"Saved the checkpoint of step {step}.")
        _record_pause(recorder, desk, step, paused, decision)
        paused, ending = decision.pause, decision.ending
    _end(setup, recorder, desk, step, ending)
    for kind in ("stop", "suspend", "pause"):
        desk.done(kind, recorder.status["message"])


def _save(setup, recorder, step, resumable):
    """Save a checkpoint after all records up to it. This alone ends a run whose disk has a fault that does not pass."""
    best = recorder.status.get("recommended_step")
    recorder.finish_writes()
    checkpoints.save_checkpoint(recorder.folder, step, setup, resumable, recorder.patience)
    keep = setup.config.training.keep_checkpoints
    recorder.patience.attempt(lambda: checkpoints.prune(recorder.folder, keep, best), "the older checkpoints")
    recorder.seal_checkpoints()
    recorder.note_faults(step)


def _begin(setup, recorder, desk, checkpoint) -> int:
    """The step to start from, with the run folder prepared for what comes after it."""
    folder, start = recorder.folder, checkpoint.step if checkpoint else 0
    _require_same_run(setup, recorder)
    checkpoints.require_room(folder, setup.parameters, setup.total_steps, setup.config.training, start)
    recorder.presence.before = None  # from here on the folder changes
    recorder.status["total_steps"] = setup.total_steps
    unchecked = _what_is_not_compared(recorder)
    recorder.begin_manifest(setup.identity)
    texts = {folder.pairs: setup.held_out_pairs} | ({folder.final_pairs: setup.final_pairs} if setup.final else {})
    with recorder.manifest.replacing(folder.environment, *texts, patience=recorder.patience):
        write_json(folder.environment, redact_values(setup.environment), patience=recorder.patience)
        for path, pairs in texts.items():
            recorder.patience.attempt(functools.partial(folder.write_pairs, pairs, path), path.name)
    for sentence in setup.environment["data_notes"]:
        recorder.note(sentence)
    if checkpoint:
        checkpoints.restore(folder, start, setup)
        desk.restore(start)
        recorder.rewind(start)
        rate = learning_rate(
            setup.applied_updates,
            setup.total_steps,
            desk.settings.config.training,
            desk.settings.learning_rate_scale,
        )
        jump = rate_change(folder, start, rate, recorder.records)
        notes = [f"Went on from the checkpoint of step {start}.", unchecked, jump, *checkpoint.notes]
        recorder.event(start, "resumed", " ".join(filter(None, notes)))
    elif recorder.records:  # of an attempt that left no checkpoint
        recorder.rewind(-1)
    recorder.presence.write(step=start)
    return start


def _require_same_run(setup, recorder):
    """Raise WorkbenchError if what the run trains on has changed, as far as its manifest or its environment tells."""
    try:
        before = require_json(recorder.folder.environment) or {}
    except WorkbenchError:
        if recorder.manifest.state != SEALED:
            raise
        before = {}
    require_same(recorder.folder.name, before | recorder.manifest.identity, setup.identity)


def _what_is_not_compared(recorder):
    """A sentence where a resumed run has no manifest to be compared with, or no base weights in it; "" where it has."""
    missing = {NONE: "was made before there was one", LOST: "is lost", DAMAGED: "is damaged"}
    state = recorder.manifest.state
    if state not in missing:
        base = recorder.manifest.identity.get("base")
        if base and not base.get("files"):
            return "Its manifest names no file of the base model: its weights were not compared."
        return ""
    return (
        f"Its manifest {missing[state]}: only the hashes of settings and pairs in environment.json were compared, not"
        " base weights, tokenizer, template or starting adapter."
    )


def _step(setup, recorder, desk, step):
    if recorder.status["state"] != "training":
        recorder.state("training", step=step - 1)
    started = time.perf_counter()
    result = optimizer_step(setup, step, settings=desk.settings)
    recorder.train_step(result.record, time.perf_counter() - started)
    for sentence in result.shortages:
        recorder.event(step, "out_of_memory", sentence)
    desk.replay(step)


def _evaluate(setup, recorder, desk, step) -> Evaluation:
    started, config = time.perf_counter(), desk.settings.config
    every = config.generation.every
    with_answers = step in (0, setup.total_steps) or (every > 0 and step % every == 0)
    recorder.doing("evaluating")
    first = recorder.first_evaluation()
    first_answers = recorder.first_answers() if with_answers else []
    first_scores = recorder.read_scores(first["step"]) if first else None
    record, scores, answers = evaluate(
        setup, config, step, with_answers, first, first_answers, first_scores, recorder.progress, recorder.scored
    )
    verdicts = recorder.evaluation(record, scores, answers, time.perf_counter() - started)
    recorder.doing("")
    return Evaluation(
        collapsed=verdicts[0].severity == "collapse", recommended=recorder.status["recommended_step"] == step
    )


def _record_pause(recorder, desk, step, was_paused, decision):
    """Record where a pause begins or ends, and reply to the requests for it."""
    if decision.pause and not was_paused:
        recorder.event(step, "paused", f"Paused after step {step}.")
        remedy = f"`simpo-workbench unpause {recorder.folder.name}` goes on, `stop` ends it."
        recorder.state("paused", f"Paused after step {step}; {remedy}", seconds_left=None)
    if decision.pause:
        desk.done("pause", f"Paused after step {step}.")
    elif was_paused and not decision.ending:
        recorder.event(step, "unpaused", f"Went on after step {step}.")
        desk.done("unpause", f"Went on after step {step}.")
    desk.done("unpause", "It is not paused.")


def _end(setup, recorder, desk, step, ending):
    """Save the final adapter and score the final pairs, unless the run is suspended, and record the final state."""
    go_on = f"`simpo-workbench resume {recorder.folder.name}` continues from here."
    saved = "adapter and checkpoint are saved."
    state, message = {
        None: ("finished", "Finished."),
        "suspend": ("suspended", f"Suspended after step {step}: its memory is free, {go_on}"),
        "stop": ("stopped", f"Stopped after step {step} of {setup.total_steps}; {saved} {go_on}"),
        "collapse": (
            "stopped",
            f"Stopped after step {step} because the doctor sees a collapse; {saved} Lower training.learning_rate and"
            " start anew.",
        ),
    }[ending]
    if ending != "suspend":
        recorder.patience.renew()
        _save_final_adapter(setup, recorder, step)
        final_pairs.score_recommended(setup, recorder, desk.settings.config.loss, step)
        recorder.note_faults(step)
    recorder.end(state, message, step=step)


def _save_final_adapter(setup, recorder, step):
    loss, config, folder = setup.config.loss, setup.config, recorder.folder
    card = (
        f"---\nbase_model: {setup.loaded.tokenizer.name_or_path}\nlibrary_name: peft\ntags: [simpo, lora]\n---\n\n#"
        f" {folder.name}\n\nA LoRA adapter for {setup.loaded.tokenizer.name_or_path}, trained with SimPO Workbench"
        f" {__version__} for {step} steps of {config.training.pairs_per_step} preference pairs (loss {loss.kind}, β"
        f" {loss.beta:g}, γ/β {loss.gamma_beta_ratio:g}, learning rate {config.training.learning_rate:g}, base weights"
        f" in {config.model.load_in}).\n"
    )
    checkpoints.save_final_adapter(folder, step, setup, card, recorder.patience)
    recorder.manifest.seal(folder.adapter / "manifest.json")
