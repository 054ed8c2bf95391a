"""The training loop. It reads from top to bottom: prepare, evaluate, step, evaluate, save, end."""

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator

from .. import __version__, process
from ..config import RunConfig
from ..errors import WorkbenchError, first_line
from ..run_folder import RunFolder
from ..runs import Run, create_run, write_pairs
from . import checkpoints, memory
from .evaluation import evaluate
from .recorder import Recorder
from .setup import Setup, config_hash, prepare
from .step import OptimizerStep, optimizer_step

_PAUSE_POLL_S = 0.25


def train(config: RunConfig, on_record: Callable[[dict], None] | None = None) -> Run:
    """The finished (or stopped) run of a configuration, trained in this process.

    on_record: called with every metrics record as it is written. An interrupt (Ctrl-C, or the notebook's stop button) ends the run in order
    after the current step, with adapter and checkpoint saved. Errors: WorkbenchError; the run folder then says "failed" and why.
    """
    folder = create_run(config)
    run_training(folder, owner="in-process", on_record=on_record)
    return Run(folder)


def steps(config: RunConfig) -> Iterator[OptimizerStep]:
    """One OptimizerStep after the other, for notebooks that look inside; nothing is written, evaluated or saved."""
    setup = prepare(config)
    try:
        for number in range(1, setup.total_steps + 1):
            yield optimizer_step(setup, number)
    finally:
        setup.close()


def run_training(folder: RunFolder, owner: str, resume: bool = False, on_record: Callable[[dict], None] | None = None):
    """Train what a run folder's configuration says, from the start or from its newest valid checkpoint, and write everything down there."""
    owner_process = (folder.read_json(folder.status) or {}).get("process")
    if Run(folder).status.alive and owner_process != process.identify():
        raise WorkbenchError(f"The run {folder.name!r} is being trained already.")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise WorkbenchError("One run uses one device for now: start it without torchrun or accelerate launch.")
    config = RunConfig.from_yaml(folder.config)
    recorder = Recorder(folder, config, owner, on_record)
    recorder.state("loading", "Loading model and pairs.")
    if resume and owner == "in-process":
        folder.take_requests()  # what was asked of an earlier process is not meant for this one
    try:
        with _stop_signals(recorder) as stop_asked:
            checkpoint = checkpoints.newest_valid(folder) if resume else None
            setup = prepare(config, checkpoint.memory if checkpoint else None)
            try:
                _train(setup, folder, recorder, checkpoint, stop_asked)
            finally:
                setup.close()
    except KeyboardInterrupt:
        kept = any(folder.checkpoints.glob("step-*/training_state.pt"))
        message = f"Interrupted; `simpo-workbench resume {folder.name}` goes on from the last checkpoint." if kept else "Interrupted before the first checkpoint: start it anew."
        recorder.state("stopped", message, seconds_left=None)
        raise KeyboardInterrupt(message) from None
    except BaseException as error:
        error = _in_words(error, config)
        message = str(error) if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {first_line(error)}"
        with contextlib.suppress(WorkbenchError):  # a full disk must not hide the error itself
            recorder.state("failed", message, seconds_left=None)
        if not isinstance(error, WorkbenchError):
            with open(folder.log, "a", encoding="utf-8") as log:
                log.write(traceback.format_exc())
        raise error


def _in_words(error, config):
    """Errors of the machine, not of the program, as a sentence; any other error as it is."""
    if memory.is_out_of_memory(error):
        return WorkbenchError(f"{memory.shortage(config.training)} Checkpoints are whole; resume goes on from the last one.")
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return WorkbenchError(f"The run folder cannot be written: {error.strerror or first_line(error)}. Free some space; checkpoints are whole and resume goes on from the last one.")
    return error


def _train(setup: Setup, folder: RunFolder, recorder: Recorder, checkpoint: checkpoints.Resumable | None, stop_asked: threading.Event):
    every = setup.config.training
    recorder.status["total_steps"] = setup.total_steps
    if checkpoint:
        _require_same_run(setup, folder)
    folder.write_json(folder.environment, setup.environment)
    write_pairs(folder, setup.held_out_pairs)
    for sentence in setup.environment["data_notes"]:
        recorder.note(sentence)
    done = _resume(setup, folder, recorder, checkpoint) if checkpoint else 0
    if done == 0:
        recorder.state("scoring", "Scoring the untrained model on the held-out pairs.")
        _evaluate(setup, recorder, 0)
    step, stopped, collapsed = done, False, False
    while step < setup.total_steps and not stopped:
        step += 1
        recorder.state("training", step=step - 1)
        started = time.perf_counter()
        result = optimizer_step(setup, step)
        recorder.train_step(result.record, time.perf_counter() - started)
        for sentence in result.shortages:
            recorder.event(step, "out_of_memory", sentence)

        requests = folder.take_requests()
        last = step == setup.total_steps
        collapsed = evaluated = False
        if last or "evaluate" in requests or (every.eval_every and step % every.eval_every == 0):
            collapsed, evaluated = _evaluate(setup, recorder, step), True
        stopped = not last and (stop_asked.is_set() or "stop" in requests or (collapsed and every.on_collapse == "stop"))
        pausing = not (last or stopped) and ("pause" in requests or (collapsed and every.on_collapse == "pause"))
        resumable = last or stopped or pausing or "save" in requests or bool(every.save_every and step % every.save_every == 0)
        if evaluated or resumable:
            _save(setup, folder, step, resumable)
        if pausing:
            stopped = _pause(setup, folder, recorder, step, stop_asked)
    _save_final_adapter(setup, folder, step)
    if not stopped:
        recorder.state("finished", "Finished.", step=step, seconds_left=0.0)
        return
    if collapsed and every.on_collapse == "stop":
        why, remedy = "because the doctor sees a collapse", "Lower training.learning_rate and start anew."
    else:
        why, remedy = f"of {setup.total_steps}", f"`simpo-workbench resume {folder.name}` goes on from here."
    message = f"Stopped after step {step} {why}; adapter and checkpoint are saved. {remedy}"
    recorder.event(step, "stopped", message)
    recorder.state("stopped", message, step=step, seconds_left=None)


def _evaluate(setup, recorder, step) -> bool:
    """Evaluate and write it down; returns whether the doctor sees a collapse."""
    started = time.perf_counter()
    every = setup.config.generation.every
    with_answers = step in (0, setup.total_steps) or bool(every and step % every == 0)
    record, scores, answers = evaluate(setup, step, with_answers, recorder.first_evaluation())
    verdicts = recorder.evaluation(record, scores, answers, time.perf_counter() - started)
    return verdicts[0].severity == "collapse"


def _save(setup, folder, step, resumable):
    state = (setup.optimizer, setup.scheduler, setup.accelerator.scaler) if resumable else ()
    checkpoints.save_checkpoint(folder, step, config_hash(setup.config), setup.memory, setup.loaded.model, *state)
    checkpoints.prune(folder, setup.config.training.keep_checkpoints)


def _require_same_run(setup, folder):
    """Going on with other settings or other pairs would be another run under an old name: refuse it, before anything is written over."""
    before = folder.read_json(folder.environment) or {}
    names = {"config_sha256": "its configuration", "train_pairs_sha256": "the training pairs", "held_out_pairs_sha256": "the held-out pairs"}
    changed = [words for name, words in names.items() if before.get(name, setup.environment[name]) != setup.environment[name]]
    if changed:
        raise WorkbenchError(f"The run {folder.name!r} cannot go on: {' and '.join(changed)} changed since it was stopped. Put them back, or start a new run.")


def _resume(setup, folder, recorder, checkpoint) -> int:
    step = checkpoint.step
    checkpoints.restore(folder, step, setup.loaded.model, setup.optimizer, setup.scheduler, setup.accelerator.scaler)
    recorder.rewind(step)
    recorder.event(step, "resumed", " ".join([f"Went on from the checkpoint of step {step}.", *checkpoint.words]))
    return step


def _pause(setup, folder, recorder, step, stop_asked) -> bool:
    """Wait until somebody says resume (returns False) or stop (returns True)."""
    recorder.event(step, "paused", f"Paused after step {step}.")
    recorder.state("paused", f"Paused after step {step}; `simpo-workbench resume {folder.name}` goes on, `stop` ends it.", seconds_left=None)
    while True:
        requests = folder.take_requests()
        if stop_asked.is_set() or "stop" in requests:
            return True
        if "save" in requests:
            _save(setup, folder, step, resumable=True)
        if "evaluate" in requests:
            _evaluate(setup, recorder, step)
        if "resume" in requests:
            recorder.event(step, "unpaused", f"Went on after step {step}.")
            return False
        time.sleep(_PAUSE_POLL_S)


def _save_final_adapter(setup, folder, step):
    checkpoints.save_adapter(setup.loaded.model, folder.adapter)
    setup.loaded.tokenizer.save_pretrained(folder.adapter)
    loss, config = setup.config.loss, setup.config
    card = (
        f"---\nbase_model: {setup.loaded.tokenizer.name_or_path}\nlibrary_name: peft\ntags: [simpo, lora]\n---\n\n# {folder.name}\n\n"
        f"A LoRA adapter for {setup.loaded.tokenizer.name_or_path}, trained with SimPO Workbench {__version__} for {step} steps "
        f"of {config.training.pairs_per_step} preference pairs (loss {loss.kind}, β {loss.beta:g}, γ/β {loss.gamma_beta_ratio:g}, "
        f"learning rate {config.training.learning_rate:g}, base weights in {config.model.load_in}).\n"
    )
    (folder.adapter / "README.md").write_text(card, encoding="utf-8")


@contextlib.contextmanager
def _stop_signals(recorder):
    """An event that the first SIGINT or SIGTERM sets, so that training ends in order; a second one, or one before training, interrupts at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals reach only the main thread
        return

    def ask(number, frame):
        if asked.is_set() or recorder.status.get("state") in ("loading", "scoring"):
            raise KeyboardInterrupt
        asked.set()
        print("\nStopping after this step, with adapter and checkpoint saved; once more to stop at once.", file=sys.stderr, flush=True)

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
