"""Runs as users hold them: status, metrics, scores and generations as DataFrames, and requests to whoever trains.

One reader serves live and finished runs: everything comes from the run folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
import warnings
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from ..analysis.scores import compare_scores, join_texts
from ..base import process
from ..base.errors import SettingWarning, WorkbenchError
from ..base.files import read_json, read_jsonl, read_jsonl_backwards, write_json
from ..config.live_changes import checked_changes
from ..config.run_config import DEMO, RunConfig
from . import status as run_status
from .folder import LIVE_STATES, RunFolder, find_run_folder, new_run_folder, run_names
from .mailbox import REPLIED
from .post_mortem import STACK_SIGNAL
from .status import RunStatus

_POLL_S = 0.25
#: After SIGTERM a worker has this long to finish its step, save and leave; then its whole group is killed.
TERM_PATIENCE_S = 30.0
_DEATH_S = 15.0
_LAST_WORDS_S = 1.0  # a process writes its state first and answers then
_LISTED = ["name", "state", "step", "total_steps", "model", "data", "learning_rate", "beta"]
_LISTED += ["accuracy", "accuracy_low", "accuracy_high", "pairs", "chosen_drift", "verdict", "started"]


class Reply:
    """Something that was asked of a run: `state` is asked, acknowledged (within a second), then done or refused; `text`
    says what came of it.
    """

    def __init__(self, run: Run, kind: str, request: str):
        self.run, self.kind, self._request, self._last = run, kind, request, {}

    def __repr__(self):
        return f"Reply({self.kind!r} of {self.run.name!r}: {self.state}{f', {self.text}' if self.text else ''})"

    @property
    def state(self) -> str:
        return self._reply.get("state", "asked")

    @property
    def text(self) -> str:
        return self._reply.get("text", "")

    def wait(self, timeout_s: float | None = None) -> Reply:
        """Itself, once it is done. Errors: WorkbenchError when it was refused or the run ended before; TimeoutError."""
        end, gone = None if timeout_s is None else time.monotonic() + timeout_s, None
        while (state := self.state) not in REPLIED:
            status = self.run.status
            gone = None if status.alive else gone or time.monotonic()
            if gone and time.monotonic() - gone > _LAST_WORDS_S:
                raise WorkbenchError(
                    f"The run {self.run.name!r} is {status.state} and did not {self.kind}. {status.message}"
                )
            if end is not None and time.monotonic() > end:
                raise TimeoutError(
                    f"The run {self.run.name!r} did not {self.kind} within {timeout_s:g} s: it is {status.state}."
                )
            time.sleep(0.05)
        if state == "refused":
            raise WorkbenchError(self.text)
        return self

    @property
    def _reply(self):
        if self._last.get("state") not in REPLIED:  # a final answer stays true when its file is swept away
            self._last = self.run.folder.mailbox.reply(self._request) or self._last
        return self._last


class Run:
    """One run, live or finished, read from its folder: `wb.attach(name)`."""

    def __init__(self, folder: RunFolder):
        self.folder = folder
        self.name = folder.name
        self.path = folder.path

    def __repr__(self):
        status = self.status
        return f"Run({self.name!r}, {status.state}, step {status.step} of {status.total_steps})"

    @property
    def config(self) -> RunConfig:
        """The exact configuration of the run."""
        return RunConfig.from_yaml(self.folder.config)

    @property
    def status(self) -> RunStatus:
        """State, step, message and recommended checkpoint; a run whose process died is "failed" with the cause and the
        last lines of its log.
        """
        return run_status.read(self.folder)

    @property
    def environment(self) -> dict:
        """Versions, device, seeds, data hashes and the reports on the pairs."""
        return read_json(self.folder.environment) or {}

    @property
    def records(self) -> list[dict]:
        """All metrics records as they were written."""
        return read_jsonl(self.folder.metrics)

    @property
    def metrics(self):
        """DataFrame of all records: kind ("train", "eval", "event"), step, time, and one column per metric (NaN where a
        record has none).
        """
        import pandas as pd

        records = self.records
        return pd.DataFrame(records, columns=None if records else ["kind", "step", "time"])

    @property
    def scores(self):
        """DataFrame of all held-out pairs at all evaluated steps: one row per step and pair, with the pair's texts."""
        import pandas as pd

        numbers = pd.concat(
            [pd.read_parquet(self.folder.scores(step)) for step in self._evaluated_steps()], ignore_index=True
        )
        return join_texts(numbers, pd.read_parquet(self.folder.pairs))

    def scores_at(self, step: int):
        """DataFrame of all held-out pairs at one evaluated step, with their texts; quicker than a part of `scores`.

        Errors: WorkbenchError naming the steps that there are.
        """
        import pandas as pd

        if step not in (evaluated := self._evaluated_steps()):
            raise WorkbenchError(f"The run {self.name!r} was not evaluated at step {step}; it was at {evaluated}.")
        return join_texts(pd.read_parquet(self.folder.scores(step)), pd.read_parquet(self.folder.pairs))

    def _evaluated_steps(self):
        if not (steps := self.folder.evaluated_steps()):
            raise WorkbenchError(f"The run {self.name!r} has no scores yet: the first come before its first step.")
        return steps

    @property
    def scoring_noise(self) -> float | None:
        """Nats per token by which the same model's leads differed in another packing, measured before step 1 (see
        `wb.scoring_noise`); None where it was not.
        """
        return next((record.get("eval/scoring_noise") for record in self.records if record["kind"] == "eval"), None)

    @property
    def generations(self):
        """DataFrame of sampled answers: step, prompt, answer, tokens, ended, repeated_4grams."""
        import pandas as pd

        answers = [
            record for step in self.folder.sampled_steps() for record in read_jsonl(self.folder.generations(step))
        ]
        return pd.DataFrame(answers, columns=["step", "prompt", "answer", "tokens", "ended", "repeated_4grams"])

    @property
    def adapter(self) -> Path:
        """Folder of the final adapter in PEFT's own format. Errors: WorkbenchError while there is none."""
        if not (self.folder.adapter / "adapter_config.json").is_file():
            raise WorkbenchError(
                f"The run {self.name!r} has no final adapter yet (it is {self.status.state}); run.adapter_at(step)"
                " gives a checkpoint's."
            )
        return self.folder.adapter

    def adapter_at(self, step: int) -> Path:
        """Folder of the adapter that was kept at an evaluated or saved step.

        Errors: WorkbenchError naming the steps that there are.
        """
        path = self.folder.checkpoint(step) / "adapter"
        if not path.is_dir():
            raise WorkbenchError(
                f"The run {self.name!r} kept no adapter at step {step}; it has {self.adapter_steps()}."
            )
        return path

    def adapter_steps(self) -> list[int]:
        """Steps whose adapters were kept."""
        return sorted(
            int(path.parent.name.removeprefix("step-")) for path in self.folder.checkpoints.glob("step-*/adapter")
        )

    def compare(self, before: int = 0, after: int | None = None):
        """The held-out pairs at two evaluated steps side by side (by default before training and last), flips beyond
        the run's noise: see `wb.compare_scores`.
        """
        after = self._evaluated_steps()[-1] if after is None else after
        return compare_scores(self.scores_at(before), self.scores_at(after), self.scoring_noise or 0.0)

    def plot(self):
        """The run's charts as one plotly figure."""
        from ..charts.training import training_figure

        return training_figure(self.metrics, self.config.loss.gamma_beta_ratio, self.status.total_steps)

    def stop(self, patience_s: float | None = None) -> Reply:
        """Ask the run to stop at the next step; adapter and checkpoint are saved.

        patience_s: wait so long for it, then send SIGTERM, and 30 s later kill its whole process group (SIGKILL); it
        can still be resumed from its last checkpoint. Without it this only asks. Errors: WorkbenchError when it would
        have to be killed and lives inside a kernel.
        """
        request = self._ask("stop")
        if patience_s is not None:
            self._insist(patience_s)
        return request

    def pause(self) -> Reply:
        """Ask the run to wait after the next step."""
        return self._ask("pause")

    def unpause(self) -> Reply:
        """Ask a paused run to go on."""
        return self._ask("unpause")

    def suspend(self) -> Reply:
        """Ask the run to save a checkpoint, end its process and so free its memory; `wb.resume` goes on."""
        return self._ask("suspend")

    def save(self) -> Reply:
        """Ask for a checkpoint after the next step."""
        return self._ask("save")

    def evaluate(self) -> Reply:
        """Ask for an evaluation after the next step."""
        return self._ask("evaluate")

    def set(self, **changes) -> Reply:
        """Change settings after the next step: learning_rate_scale (times the configured rate), beta, gamma_beta_ratio
        or gamma, prompts.

        Each is recorded as an event; a resumed run makes it again. Errors: WorkbenchError for what is unknown or out of
        bounds.
        """
        checked_changes(self.config, changes)
        return self._ask("set", **changes)

    def move_to(self, place: int) -> int:
        """The place that a run got which waits for its device: the wanted one, 1 being the next, or the last.

        Errors: WorkbenchError when it does not wait.
        """
        from .device_queue import DeviceQueue

        return DeviceQueue((read_json(self.folder.status) or {}).get("queue")).move(self.path.resolve(), place)

    def stack(self) -> str:
        """Where every thread of the run's process stands now, as it is written into its log.

        Errors: WorkbenchError when it is no worker that lives.
        """
        raw = read_json(self.folder.status) or {}
        size = self.folder.log.stat().st_size if self.folder.log.exists() else 0
        # a process that has just begun, and does not listen to the signal yet, would die of it
        if not (
            raw.get("owner") == "worker"
            and raw.get("answers_signals")
            and self.status.alive
            and process.send_signal(raw["process"], STACK_SIGNAL)
        ):
            raise WorkbenchError(
                f"The run {self.name!r} has no worker process that could be asked; it is {self.status.state}."
            )
        end, text, before = time.monotonic() + 3.0, "", None
        while time.monotonic() < end and (not text or text != before):  # until nothing is added any more
            time.sleep(0.1)
            before = text
            with open(self.folder.log, "rb") as file:
                file.seek(size)
                text = file.read().decode(errors="replace")
        return text

    def wait(self, timeout_s: float | None = None) -> RunStatus:
        """The final status, once the run has ended or was suspended. Errors: TimeoutError after `timeout_s` seconds."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while not (status := self.status).ended and status.state != "suspended":
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"The run {self.name!r} is still {status.state} after {timeout_s:g} s.")
            time.sleep(_POLL_S)
        return status

    async def finished(self) -> RunStatus:
        """The final status; while a notebook cell awaits it, clicks get through."""
        while not (status := self.status).ended and status.state != "suspended":
            await asyncio.sleep(_POLL_S)
        return status

    def _ask(self, kind, **values):
        status = self.status
        if not status.alive:
            remedy = (
                f" wb.resume({self.name!r}) goes on with it."
                if kind == "unpause" and status.state != "finished"
                else ""
            )
            raise WorkbenchError(f"The run {self.name!r} is {status.state}: nobody is there to {kind} it.{remedy}")
        return Reply(self, kind, self.folder.mailbox.ask(kind, **values))

    def _insist(self, patience_s):
        """Wait for the end; then SIGTERM, then SIGKILL to the worker's group."""
        if self._ends_within(patience_s):
            return
        raw = read_json(self.folder.status) or {}
        identity = raw.get("process")
        if raw.get("owner") != "worker":
            raise WorkbenchError(
                f"The run {self.name!r} lives inside another program (a notebook's kernel, a terminal) and is never"
                " signalled: interrupt it there."
            )
        if not run_status.is_alive(self.folder, raw):
            return
        process.send_signal(identity, signal.SIGTERM)
        if self._ends_within(TERM_PATIENCE_S):
            return
        if not process.signal_group(identity, signal.SIGKILL):
            process.send_signal(identity, signal.SIGKILL)  # it leads no group
        end = time.monotonic() + _DEATH_S
        while run_status.is_alive(self.folder, raw):
            if time.monotonic() > end:
                raise WorkbenchError(
                    f"Process {identity['pid']} of the run {self.name!r} does not die of SIGKILL: it hangs in a driver"
                    " or a network disk."
                )
            time.sleep(0.05)
        raw = read_json(self.folder.status) or raw
        if raw.get("state") in LIVE_STATES:
            message = (
                f"Killed: it did not stop within {patience_s + TERM_PATIENCE_S:.0f} s. `simpo-workbench resume"
                f" {self.name}` goes on from its last checkpoint."
            )
            write_json(self.folder.status, {**raw, "state": "stopped", "message": message, "seconds_left": None})

    def _ends_within(self, seconds):
        end = time.monotonic() + seconds
        while self.status.alive:
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True


def create_run(config: RunConfig, stem: str | None = None) -> RunFolder:
    """A fresh run folder with the configuration in it, named after `stem` where the configuration names none; says by
    `SettingWarning` what is known to ruin SimPO.

    Errors: WorkbenchError when the name is taken or unusable, or the root cannot be written.
    """
    for sentence in config.warnings():
        warnings.warn(sentence, SettingWarning, stacklevel=3)
    stem = stem or ("plain-answers" if config.data.train == DEMO else Path(config.data.train).stem)
    folder = new_run_folder(config.run.root, config.run.name, stem)
    config.to_yaml(folder.config)
    return folder


def attach(name: str | Path, root: str | Path = "runs") -> Run:
    """An existing run, live or ended, by name in `root` or by the path of its folder."""
    return Run(find_run_folder(name, root))


def find_run(config: RunConfig) -> Run | None:
    """The newest finished run with these settings in their root, whatever its name; None when there is none:
    `wb.find_run(config) or wb.train(config)` trains once.
    """
    found = []
    for run in (Run(RunFolder(Path(config.run.root).expanduser() / name)) for name in run_names(config.run.root)):
        with contextlib.suppress(WorkbenchError):  # a damaged configuration is not this one
            if run.config.model_copy(update={"run": config.run}) == config and run.status.state == "finished":
                found.append(run)
    return max(found, key=lambda run: run.folder.config.stat().st_mtime, default=None)


def list_runs(root: str | Path = "runs"):
    """DataFrame of all runs in a root folder, the newest first.

    Columns: name, state, step, total_steps, model, data, learning_rate, beta, accuracy, accuracy_low and accuracy_high
    (95 %), pairs (behind the accuracy), chosen_drift (nats per token), verdict, started (local time).
    """
    import pandas as pd

    rows = []
    for name in run_names(root):
        run = Run(RunFolder(Path(root).expanduser() / name))
        status, written = run.status, _stamp(run.folder.config)
        if written is None:  # deleted since its name was read
            continue
        row = {"name": name, "state": status.state, "step": status.step, "total_steps": status.total_steps}
        row |= _config_facts(run.folder.config, written)
        row |= _last_facts(run.folder.metrics, _stamp(run.folder.metrics))
        rows.append(row | {"verdict": status.verdict, "started": datetime.fromtimestamp(written[0] / 1e9)})
    rows.sort(key=lambda row: row["started"], reverse=True)
    return pd.DataFrame(rows, columns=_LISTED)


def delete_run(name: str, root: str | Path = "runs"):
    """Remove a run's folder with everything in it, for good.

    Errors: WorkbenchError when it is no run's own folder in `root`, when a process has it, or when a part of it cannot
    be removed.
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
        folder.path.rename(gone)  # at once, so that nobody begins with half a run
        try:
            _require_ended(RunFolder(gone))
        except WorkbenchError:
            gone.rename(folder.path)
            raise
        RunFolder(gone).config.unlink()  # from here on it is no run, wherever the rest fails
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


def _stamp(path):
    """(time of writing in nanoseconds, size) of a file; None without it.

    What was read of a file holds while its stamp stays.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=4096)
def _config_facts(path, stamp):
    try:
        config = RunConfig.from_yaml(path)
    except (
        WorkbenchError
    ):  # a list must not fail because one folder was edited by hand; the run itself says what is wrong
        return {"model": "(configuration unreadable)"}
    return {
        "model": config.model.name,
        "data": config.data.train,
        "learning_rate": config.training.learning_rate,
        "beta": config.loss.beta,
    }


@lru_cache(maxsize=4096)
def _last_facts(path, stamp):
    """β as it is now (it may have been changed on the way), and accuracy and drift of the last evaluation; nothing for
    what no record tells.
    """
    beta, evaluation = {}, None
    for record in read_jsonl_backwards(path):
        if not beta and "beta" in record:
            beta = {"beta": record["beta"]}
        if evaluation is None and record.get("kind") == "eval":
            evaluation = record
        if beta and evaluation:
            break
    columns = {
        "accuracy": "rewards/accuracies",
        "accuracy_low": "rewards/accuracies_low",
        "accuracy_high": "rewards/accuracies_high",
        "pairs": "pairs",
        "chosen_drift": "logps/chosen_drift",
    }
    return beta | {name: (evaluation or {}).get(f"eval/{key}") for name, key in columns.items()}


def write_pairs(folder: RunFolder, pairs):
    """Keep the evaluation pairs' texts and extra columns once, for readers to join; values that no column type holds
    become JSON text.
    """
    frame = pairs.to_frame()
    frame["prompt"] = [pair.prompt_text for pair in pairs]
    frame.to_parquet(folder.pairs, index=False)
