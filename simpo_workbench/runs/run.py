"""A run as users hold it: status, metrics, scores and answers as DataFrames, and requests to the process that trains.

One reader serves live and finished runs: everything comes from the run folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from ..analysis.objective import at_objective, last_objective, objective_note
from ..analysis.scores import compare_scores, join_texts
from ..base import process
from ..base.errors import DamageWarning, WorkbenchError
from ..base.escape import shown_controls
from ..base.files import read_json, write_json
from ..base.format import in_one_line
from ..config.live_changes import checked_changes, with_rate_as_scale
from ..config.run_config import RUNS_ROOT, LossConfig, RunConfig
from . import status as run_status
from . import verified
from .damage import damage_of
from .device_queue import DeviceQueue
from .final_result import FinalResult, final_result
from .folder import LIVE_STATES, RunFolder, find_run_folder
from .held_out import at_last_objective
from .manifest import steps_of
from .post_mortem import STACK_SIGNAL
from .reply import Reply
from .run_lora import label_of, read_lora
from .status import RunStatus

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_POLL_S = 0.25
#: Characters of the reason that the `repr` of a failed run gives.
_LONGEST_REASON = 300
#: After SIGTERM a worker has this long to finish its step, save and leave; then its whole group is killed.
TERM_PATIENCE_S = 30.0
_DEATH_S = 15.0


class Run:
    """One run, live or finished, read from its folder: `wb.attach(name)`."""

    def __init__(self, folder: RunFolder):
        self.folder = folder
        self.name = folder.name
        self.path = folder.path

    def __repr__(self):
        status, adapter = self.status, ""
        with contextlib.suppress(WorkbenchError):  # the rest is shown where the configuration is damaged
            adapter = f", LoRA {label_of(self.folder, config)}" if (config := self.config).model.adapter else ""
        words = [*([status.message] if status.state == "failed" else []), *damage_of(self.folder, quick=True)]
        reason = f": {shown_controls(in_one_line(' '.join(words), _LONGEST_REASON))}" if any(words) else ""
        return f"Run({self.name!r}, {status.state}, {status.progress}{adapter}{reason})"

    @property
    def config(self) -> RunConfig:
        """The exact configuration of the run. Errors: WorkbenchError where config.yaml was cut, emptied or changed."""
        return verified.read_config(self.folder)

    @property
    def lora(self) -> dict | None:
        """The settings of the adapter that it trains: `config.lora`, or with model.adapter that adapter's own.

        None where these cannot be read any more. Errors: WorkbenchError where a file of the run is damaged.
        """
        return read_lora(self.folder, self.config)

    @property
    def status(self) -> RunStatus:
        """The state of the run; when its process died it is "failed", with the cause and the last lines of its log."""
        return run_status.read(self.folder)

    @property
    def environment(self) -> dict:
        """Versions, device, seeds, data hashes and the reports on the pairs; empty before the run has prepared.

        Errors: WorkbenchError where environment.json is damaged or lost.
        """
        return verified.read_environment(self.folder)

    @property
    def records(self) -> list[dict]:
        """All metrics records, those of evaluations at one objective: the last one, where β or γ/β changed on the way.

        See `run.objective_note`. The records as they were written are the lines of metrics.jsonl. Damaged lines of
        training steps and events are left out and named by a DamageWarning. Errors: WorkbenchError where an evaluation
        or the end of the records is damaged or lost.
        """
        return self._at_last_objective(self._records())

    @property
    def objective(self) -> LossConfig:
        """The loss with the β and γ/β that the run used last: those of all its held-out numbers."""
        return last_objective(self.config.loss, self._records())

    @property
    def objective_note(self) -> str:
        """The sentence that names this objective and the earlier ones; "" where it never changed."""
        records = self._records()
        return objective_note(self.config.loss, records) if _changed(records) else ""

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per record: kind ("train", "eval", "event"), step, time, and a column per metric.

        Damaged lines are left out and named by a DamageWarning, also those of evaluations but the first and the last.
        Errors: as `records`.
        """
        import pandas as pd

        records = self._at_last_objective(self._records(all_evaluations=False))
        return pd.DataFrame(records, columns=None if records else ["kind", "step", "time"])

    @property
    def scores(self) -> pd.DataFrame:
        """One row per evaluated step and held-out pair, with the pair's texts, all at `run.objective`.

        Steps whose scores are damaged or lost are left out and named by a DamageWarning. Errors: WorkbenchError where
        no step is left.
        """
        import pandas as pd

        tables, problems = verified.read_whole_scores(self.folder, self._evaluated_steps())
        if problems:
            warnings.warn(" ".join(problems), DamageWarning, stacklevel=2)
        scores = at_objective(pd.concat(tables, ignore_index=True), self.objective)
        return join_texts(scores, verified.read_texts(self.folder))

    def scores_at(self, step: int) -> pd.DataFrame:
        """One row per held-out pair at one evaluated step, with its texts, at `run.objective`; quicker than filtering
        `scores`.

        Errors: WorkbenchError naming the steps that there are.
        """
        if step not in (evaluated := self._evaluated_steps()):
            raise WorkbenchError(f"The run {self.name!r} was not evaluated at step {step}; it was at {evaluated}.")
        scores = at_objective(verified.read_scores(self.folder, step), self.objective)
        return join_texts(scores, verified.read_texts(self.folder))

    def _records(self, all_evaluations=True):
        """The records as they were written; a warning names those that are damaged."""
        records, damage = verified.read_whole_records(self.folder, all_evaluations)
        if damage:
            warnings.warn(damage, DamageWarning, stacklevel=3)
        return records

    def _at_last_objective(self, records):
        return at_last_objective(self.folder, self.config.loss, records) if _changed(records) else records

    def _evaluated_steps(self):
        if not (steps := self.folder.evaluated_steps()):
            raise WorkbenchError(f"The run {self.name!r} has no scores yet: the first come before its first step.")
        return steps

    @property
    def scoring_noise(self) -> float | None:
        """Nats per token by which one model's leads differ between two packings, measured at step 0; None where it was
        not measured. See `wb.analysis.scoring_noise`.
        """
        return _scoring_noise(self._records())

    @property
    def final(self) -> FinalResult:
        """What the recommended step is worth on the final pairs, which had no part in choosing it, or the sentence that
        says why that is not known. See `data.final_fraction`.

        Errors: WorkbenchError where one of its files is damaged.
        """
        written = self._records() if self.folder.final_steps() else []  # once: there may be many
        loss = self.config.loss
        records = at_last_objective(self.folder, loss, written) if _changed(written) else written
        noise = _scoring_noise(written) or 0.0
        return final_result(self.folder, records, last_objective(loss, written), self.status, noise)

    @property
    def generations(self) -> pd.DataFrame:
        """One row per sampled answer: step, prompt, answer, tokens, ended, repeated_4grams, right, reference.

        right: whether it passes its prompt's check. reference: an answer to compare with. None where the prompt has
        none.
        """
        import pandas as pd

        answers = [
            record for step in self.folder.sampled_steps() for record in verified.read_answers(self.folder, step)
        ]
        columns = ["step", "prompt", "answer", "tokens", "ended", "repeated_4grams"]
        table = pd.DataFrame(answers, columns=columns)
        for name in ("right", "reference"):  # not columns of DataFrame(), which would put NaN where there is none
            table[name] = pd.Series([answer.get(name) for answer in answers], dtype=object)
        return table

    @property
    def adapter(self) -> Path:
        """Folder of the final adapter, in PEFT's format.

        Errors: WorkbenchError while there is none, and where it is damaged or older than the newest checkpoint.
        """
        if (adapter := verified.final_adapter(self.folder)) is None:
            raise WorkbenchError(
                f"The run {self.name!r} has no final adapter yet (it is {self.status.state}); run.adapter_at(step)"
                " gives a checkpoint's."
            )
        return adapter

    def adapter_at(self, step: int) -> Path:
        """Folder of the adapter that was kept at an evaluated or saved step.

        Errors: WorkbenchError naming the steps that there are; also where it is damaged.
        """
        if (path := verified.adapter_of(self.folder, step)) is None:
            raise WorkbenchError(
                f"The run {self.name!r} kept no adapter at step {step}; it has {self.adapter_steps()}."
            )
        return path

    def adapter_steps(self) -> list[int]:
        """Steps whose adapters were kept."""
        return steps_of(path.parent.name for path in self.folder.checkpoints.glob("step-*/adapter"))

    def compare(self, before: int = 0, after: int | None = None) -> pd.DataFrame:
        """The held-out pairs at two evaluated steps side by side, by default the first and the last.

        Flips are those beyond the run's scoring noise: see `wb.compare_scores`.
        """
        after = self._evaluated_steps()[-1] if after is None else after
        return compare_scores(self.scores_at(before), self.scores_at(after), self.scoring_noise or 0.0)

    def plot(self) -> go.Figure:
        """The run's charts as one plotly figure."""
        from ..charts.training import training_figure

        return training_figure(self.metrics, self.objective.gamma_beta_ratio, self.status.total_steps)

    def stop(self, patience_s: float | None = None) -> Reply:
        """Ask the run to stop after the next step; adapter and checkpoint are saved.

        patience_s: wait that many seconds, then send SIGTERM, and 30 s later kill the process group (SIGKILL); the run
        can still be resumed from its last checkpoint. Without it nothing is waited for. Errors: WorkbenchError when it
        would have to be killed and lives inside a kernel.
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
        """Ask for settings to change after the next step.

        changes: learning_rate_scale (times the configured rate), or learning_rate in place of the configured one, whose
        schedule it follows; beta, gamma_beta_ratio or gamma, prompts. Each is recorded as an event; a resumed run makes
        it again. Errors: WorkbenchError for what is unknown or out of bounds.
        """
        config = self.config
        changes = with_rate_as_scale(config, changes)
        checked_changes(config, changes)
        return self._ask("set", **changes)

    def move_to(self, place: int) -> int:
        """The place that the waiting run got in the queue: the one asked for (1 is next), or the last.

        Errors: WorkbenchError when it does not wait.
        """
        return DeviceQueue((read_json(self.folder.status) or {}).get("queue")).move(self.path.resolve(), place)

    def dump_stack(self) -> str:
        """The stack of every thread of the run's process, as it was just written to the run's log.

        Errors: WorkbenchError when the run has no living worker.
        """
        raw = read_json(self.folder.status) or {}
        size = self.folder.log.stat().st_size if self.folder.log.exists() else 0
        # a process that has just begun, and does not listen to the signal yet, would die of it
        if not (
            raw.get("answers_signals")
            and run_status.is_own_worker(self.folder, raw)
            and process.send_signal(raw["process"], STACK_SIGNAL)
        ):
            raise WorkbenchError(
                f"The run {self.name!r} has no worker process that could be asked; it is {self.status.state}."
            )
        end, text, before = time.monotonic() + 3.0, "", None
        while time.monotonic() < end and (not text or text != before):  # until the log stops growing
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
        """Await the final status, so that a notebook's widgets still react."""
        while not (status := self.status).ended and status.state != "suspended":
            await asyncio.sleep(_POLL_S)
        return status

    def _ask(self, kind, **values):
        status = self.status
        if not status.alive:
            remedy = ""
            if kind == "unpause" and status.state != "finished":
                remedy = f" wb.resume({self.name!r}) continues it."
            what = f"it cannot be asked to {kind}"
            if kind == "set":
                what = "its settings cannot be changed any more"
                remedy = f" wb.clone({self.name!r}, changes={{…}}) starts a new run with other settings."
            raise WorkbenchError(f"The run {self.name!r} is {status.state}: {what}.{remedy}")
        return Reply(self, kind, self.folder.mailbox.ask(kind, **values))

    def _insist(self, patience_s):
        """Wait for the end; then send SIGTERM, then SIGKILL to the worker's group."""
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
        if not run_status.is_own_worker(self.folder, raw):
            raise WorkbenchError(
                f"Process {identity['pid']}, which the run {self.name!r} names, is not its worker by its command line,"
                " so it is not signalled: end it yourself if it should end."
            )
        process.send_signal(identity, signal.SIGTERM)
        if self._ends_within(TERM_PATIENCE_S):
            return
        if run_status.is_own_worker(self.folder, raw) and not process.signal_group(identity, signal.SIGKILL):
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
                f" {self.name}` continues from its last checkpoint."
            )
            write_json(self.folder.status, {**raw, "state": "stopped", "message": message, "seconds_left": None})

    def _ends_within(self, seconds):
        end = time.monotonic() + seconds
        while self.status.alive:
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True


def attach(name: str | Path, root: str | Path = RUNS_ROOT) -> Run:
    """An existing run, live or ended, by name in `root` or by the path of its folder."""
    return Run(find_run_folder(name, root))


def _scoring_noise(records):
    return next((record.get("eval/scoring_noise") for record in records if record["kind"] == "eval"), None)


def _changed(records):
    """Whether some record was made at another β or γ/β than the one before."""
    objectives = [(record["beta"], record.get("gamma_beta_ratio")) for record in records if "beta" in record]
    return any(one != other for one, other in itertools.pairwise(objectives))
