"""The training loop. It reads from top to bottom: prepare, evaluate, step, evaluate, save, end."""

import contextlib
import errno
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator

from .._version import __version__
from ..base.errors import WorkbenchError, first_line
from ..base.files import read_json, write_json
from ..base.redaction import redact, redact_values
from ..config.run_config import RunConfig
from ..runs.device_queue import DeviceQueue
from ..runs.folder import RunFolder
from ..runs.presence import Presence
from ..runs.run import Run, create_run, write_pairs
from . import checkpoints
from .desk import Desk, Orders
from .evaluation import evaluate
from .forward import memory
from .interruption import StopAsked
from .recorder import Recorder
from .setup import Setup, prepare
from .step import OptimizerStep, optimizer_step

_PAUSE_POLL_S = 0.1
_DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENOTDIR,
    errno.ENOENT,
)
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def train(config: RunConfig, on_record: Callable[[dict], None] | None = None) -> Run:
    """The finished (or stopped) run of a configuration, trained in this process.

    on_record: called with every metrics record as it is written. An interrupt (Ctrl-C, or the notebook's stop button)
    ends the run in order after the current step, with adapter and checkpoint saved. Errors: WorkbenchError; the run
    folder then says "failed" and why.
    """
    folder = create_run(config)
    train_in_process(folder, on_record=on_record)
    return Run(folder)


def train_in_process(folder: RunFolder, resume: bool = False, on_record: Callable[[dict], None] | None = None):
    """Train a run folder here and now, beside whatever else the device does; runs that are started meanwhile wait for
    this one.
    """
    queue = DeviceQueue()
    with Presence(folder, "in-process") as presence:
        if resume:
            folder.mailbox.clear()  # what was asked of an earlier process is not meant for this one
        if not queue.take_at_once(folder.path.resolve(), folder.name) and (holder := queue.holder()):
            on_record = on_record or (lambda record: None)
            on_record(
                {
                    "kind": "note",
                    "step": 0,
                    "text": f"The run {holder['name']!r} uses this device as well: both will be slow.",
                }
            )
        try:
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
):
    """Train what a run folder's configuration says, from the start or from its newest valid checkpoint, and write
    everything down there.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise WorkbenchError("One run uses one device for now: start it without torchrun or accelerate launch.")
    config = RunConfig.from_yaml(folder.config)
    recorder = Recorder(folder, config, presence, on_record)
    recorder.state("loading", "Loading model and pairs.")
    stop_asked = StopAsked()
    try:
        with _stop_signals(recorder, stop_asked):
            checkpoints.clean(folder)
            checkpoint = checkpoints.newest_valid(folder) if resume else None
            setup = prepare(config, checkpoint.memory if checkpoint else None)
            try:
                stop_asked.check()
                _train(setup, folder, recorder, checkpoint, stop_asked)
            finally:
                setup.close()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or stop_asked.at_once:
            kept = any(folder.checkpoints.glob("step-*/training_state.pt"))
            message = (
                f"Interrupted; `simpo-workbench resume {folder.name}` goes on from"
                f" {'the last checkpoint' if kept else 'the start'}."
            )
            _last_word(recorder, "stopped", message)
            raise KeyboardInterrupt(message) from None
        error = _in_words(error, config)
        message = str(error) if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {first_line(error)}"
        presence.give_back_reserve()
        if not isinstance(error, WorkbenchError):
            with contextlib.suppress(OSError), open(folder.log, "a", encoding="utf-8") as log:
                log.write(redact(traceback.format_exc()))
        with contextlib.suppress(Exception):  # neither a full disk nor a caller's on_record may hide the error itself
            _last_word(recorder, "failed", message)
        raise error


def _last_word(recorder, state, message, **more):
    """The final state, as an event too: from it the state is told where somebody deleted status.json."""
    recorder.presence.write(state=state, message=message, seconds_left=None, **more)
    recorder.announce(state, message)
    with contextlib.suppress(OSError):  # the status says the same
        recorder.event(recorder.status["step"], state, message)


def _in_words(error, config):
    """Errors of the machine, not of the program, as a sentence; any other error as it is."""
    if memory.is_out_of_memory(error):
        return WorkbenchError(
            f"{memory.shortage(config.training)} Checkpoints are whole; resume goes on from the last one."
        )
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return WorkbenchError(
            f"The run folder cannot be written: {error.strerror or first_line(error)}. Free some space; checkpoints are"
            " whole and resume goes on from the last one."
        )
    return error


def _train(
    setup: Setup, folder: RunFolder, recorder: Recorder, checkpoint: checkpoints.Resumable | None, stop_asked: StopAsked
):
    every, desk = setup.config.training, Desk(folder, recorder.presence, setup, recorder)
    recorder.status["total_steps"] = setup.total_steps
    if checkpoint:
        _require_same_run(setup, folder)
    checkpoints.require_room(folder, setup.parameters, setup.total_steps, every, checkpoint.step if checkpoint else 0)
    write_json(folder.environment, redact_values(setup.environment))
    write_pairs(folder, setup.held_out_pairs)
    for sentence in setup.environment["data_notes"]:
        recorder.note(sentence)
    step = _resume(setup, folder, recorder, desk, checkpoint)
    if step == 0:
        recorder.state("scoring", "Scoring the untrained model on the held-out pairs.")
        _evaluate(setup, recorder, 0)
        stop_asked.check()
    orders, ending, collapsed = Orders(), None, False
    while step < setup.total_steps and not ending:
        step += 1
        if recorder.status["state"] != "training":
            recorder.state("training", step=step - 1)
        started = time.perf_counter()
        result = optimizer_step(setup, step)
        recorder.train_step(result.record, time.perf_counter() - started)
        for sentence in result.shortages:
            recorder.event(step, "out_of_memory", sentence)

        desk.replay(step)
        orders = desk.orders(step)
        last = step == setup.total_steps
        collapsed = evaluated = False
        if last or "evaluate" in orders or (every.eval_every and step % every.eval_every == 0):
            collapsed, evaluated = _evaluate(setup, recorder, step), True
            desk.done(orders, "evaluate", f"Evaluated after step {step}.")
        if not last:
            stopping = stop_asked.is_set() or "stop" in orders or (collapsed and every.on_collapse == "stop")
            ending = "stop" if stopping else "suspend" if "suspend" in orders else None
        pausing = not (last or ending) and ("pause" in orders or (collapsed and every.on_collapse == "pause"))
        best = evaluated and recorder.status["recommended_step"] == step  # to go on from, should it get worse
        resumable = (
            last
            or best
            or ending
            or pausing
            or "save" in orders
            or bool(every.save_every and step % every.save_every == 0)
        )
        if evaluated or resumable:
            _save(setup, folder, recorder, step, resumable)
        desk.done(orders, "save", f"Saved the checkpoint of step {step}.")
        desk.done(orders, "unpause", "It is not paused.")
        if pausing:
            ending, orders = _pause(setup, folder, recorder, desk, step, stop_asked, orders)
    _end(setup, folder, recorder, step, ending, collapsed and every.on_collapse == "stop")
    for kind in ("stop", "suspend", "pause"):
        desk.done(orders, kind, recorder.status["message"])


def _end(setup, folder, recorder, step, ending, collapsed):
    """The run's last files and its last word."""
    if ending == "suspend":
        message = (
            f"Suspended after step {step}: its memory is free, `simpo-workbench resume {folder.name}` goes on from"
            " here."
        )
        _last_word(recorder, "suspended", message, step=step)
        return
    _save_final_adapter(setup, folder, step)
    if not ending:
        _last_word(recorder, "finished", "Finished.", step=step)
        return
    why = "because the doctor sees a collapse" if collapsed else f"of {setup.total_steps}"
    remedy = (
        "Lower training.learning_rate and start anew."
        if collapsed
        else f"`simpo-workbench resume {folder.name}` goes on from here."
    )
    _last_word(
        recorder, "stopped", f"Stopped after step {step} {why}; adapter and checkpoint are saved. {remedy}", step=step
    )


def _evaluate(setup, recorder, step) -> bool:
    """Evaluate and write it down; returns whether the doctor sees a collapse."""
    started = time.perf_counter()
    every = setup.config.generation.every
    with_answers = step in (0, setup.total_steps) or bool(every and step % every == 0)
    recorder.presence.write(doing="evaluating")
    record, scores, answers = evaluate(setup, step, with_answers, recorder.first_evaluation())
    verdicts = recorder.evaluation(record, scores, answers, time.perf_counter() - started)
    recorder.presence.write(doing="")
    return verdicts[0].severity == "collapse"


def _save(setup, folder, recorder, step, resumable):
    state = (setup.optimizer, setup.scheduler, setup.accelerator.scaler) if resumable else ()
    checkpoints.save_checkpoint(
        folder, step, setup.environment["config_sha256"], setup.memory, setup.loaded.model, *state
    )
    checkpoints.prune(folder, setup.config.training.keep_checkpoints, recorder.status.get("recommended_step"))


def _require_same_run(setup, folder):
    """Going on with other settings or other pairs would be another run under an old name: refuse it, before anything is
    written over.
    """
    before = read_json(folder.environment) or {}
    names = {
        "config_sha256": "its configuration",
        "train_pairs_sha256": "the training pairs",
        "held_out_pairs_sha256": "the held-out pairs",
    }
    changed = [
        words for name, words in names.items() if before.get(name, setup.environment[name]) != setup.environment[name]
    ]
    if changed:
        raise WorkbenchError(
            f"The run {folder.name!r} cannot go on: {' and '.join(changed)} changed since it was stopped. Put them"
            " back, or start a new run."
        )


def _resume(setup, folder, recorder, desk, checkpoint) -> int:
    """The step to go on from: that of the checkpoint, or 0 where there is none, with nothing left of an earlier
    attempt.
    """
    if checkpoint is None:
        if recorder.records:
            recorder.rewind(-1)
        recorder.presence.write(step=0)
        return 0
    step = checkpoint.step
    checkpoints.restore(folder, step, setup.loaded.model, setup.optimizer, setup.scheduler, setup.accelerator.scaler)
    setup.set_rates()  # a clone may have another rate than the checkpoint
    desk.restore(step)
    recorder.rewind(step)
    recorder.event(step, "resumed", " ".join([f"Went on from the checkpoint of step {step}.", *checkpoint.words]))
    recorder.presence.write(step=step)
    return step


def _pause(setup, folder, recorder, desk, step, stop_asked, orders):
    """Wait until somebody says otherwise: (None | "stop" | "suspend", the orders that said so)."""
    recorder.event(step, "paused", f"Paused after step {step}.")
    message = f"Paused after step {step}; `simpo-workbench unpause {folder.name}` goes on, `stop` ends it."
    recorder.state("paused", message, seconds_left=None)
    desk.done(orders, "pause", f"Paused after step {step}.")
    while True:
        orders = desk.orders(step)
        if "save" in orders:
            _save(setup, folder, recorder, step, resumable=True)
            desk.done(orders, "save", f"Saved the checkpoint of step {step}.")
        if "evaluate" in orders:
            _evaluate(setup, recorder, step)
            desk.done(orders, "evaluate", f"Evaluated after step {step}.")
            recorder.state("paused", message)
        desk.done(orders, "pause", f"Paused after step {step}.")
        if stop_asked.is_set() or "stop" in orders:
            return "stop", orders
        if "suspend" in orders:
            return "suspend", orders
        if "unpause" in orders:
            recorder.event(step, "unpaused", f"Went on after step {step}.")
            desk.done(orders, "unpause", f"Went on after step {step}.")
            return None, orders
        time.sleep(_PAUSE_POLL_S)


def _save_final_adapter(setup, folder, step):
    checkpoints.save_adapter(setup.loaded.model, folder.adapter)
    setup.loaded.tokenizer.save_pretrained(folder.adapter)
    loss, config = setup.config.loss, setup.config
    card = (
        f"---\nbase_model: {setup.loaded.tokenizer.name_or_path}\nlibrary_name: peft\ntags: [simpo, lora]\n---\n\n#"
        f" {folder.name}\n\nA LoRA adapter for {setup.loaded.tokenizer.name_or_path}, trained with SimPO Workbench"
        f" {__version__} for {step} steps of {config.training.pairs_per_step} preference pairs (loss {loss.kind}, β"
        f" {loss.beta:g}, γ/β {loss.gamma_beta_ratio:g}, learning rate {config.training.learning_rate:g}, base weights"
        f" in {config.model.load_in}).\n"
    )
    (folder.adapter / "README.md").write_text(card, encoding="utf-8")


@contextlib.contextmanager
def _stop_signals(recorder, asked):
    """The first SIGINT or SIGTERM sets `asked`, so that training ends in order; a second one, or one before training,
    interrupts at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach only the main thread
        return

    def ask(number, frame):
        if asked.is_set() or recorder.status.get("state") in ("loading", "scoring"):
            asked.interrupt(frame)
            return
        asked.set()
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(
                "\nStopping after this step, with adapter and checkpoint saved; once more to stop at once.",
                file=sys.stderr,
                flush=True,
            )

    # what was ignored before (nohup, a shell's job in the background) is ignored on; a terminal that is closed ends a
    # run in it in order
    unless_ignored = [
        number for number in (*_STOP_SIGNALS, signal.SIGHUP) if signal.getsignal(number) not in (signal.SIG_IGN, None)
    ]
    # a worker has nothing to do with terminals: no SIGHUP, and SIGINT whatever the shell ignored that started it
    numbers = _STOP_SIGNALS if recorder.status["owner"] == "worker" else unless_ignored
    previous = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
