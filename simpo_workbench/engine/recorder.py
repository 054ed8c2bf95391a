"""Writes what a run does to its folder: status, metrics, scores, answers and events."""

import contextlib
import io
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..analysis import doctor, recommendation
from ..base.errors import WorkbenchError
from ..base.files import write_atomically, write_json, write_jsonl
from ..base.format import duration
from ..base.patience import PendingWrites
from ..base.redaction import redact, redact_values
from ..config.run_config import RunConfig
from ..runs.folder import RunFolder
from ..runs.held_out import at_last_objective
from ..runs.manifest import SEALED, Manifest
from ..runs.presence import Presence
from ..runs.verified import published_steps, read_answers, read_final_looks, read_scores

if TYPE_CHECKING:
    import pandas as pd

#: The time left is estimated from the durations of so many steps.
RECENT_STEPS = 20
#: Seconds between two records of progress, each of which writes status.json.
PROGRESS_EVERY_S = 0.5
#: The time that an activity has left is said once this share of it is done, and so many seconds have passed.
PACE_SHARE, PACE_S = 0.2, 3.0


@dataclass
class _Activity:
    """What is under way: its words, when it began, how much is done, and when that was last written (seconds)."""

    words: str = ""
    began: float = 0.0
    done: int = 0
    told: float = 0.0


class Recorder:
    """The only writer of a run.

    on_record: called with every metrics record and change of state, and with what goes into no file: how far an
    activity is (kind "progress") and an evaluation's scores before its answers are sampled (kind "scores"). It is for
    progress bars in the same process.
    """

    def __init__(
        self, folder: RunFolder, config: RunConfig, presence: Presence, on_record: Callable[[dict], None] | None = None
    ):
        self.folder, self.config, self.presence, self.on_record = folder, config, presence, on_record
        self.manifest = Manifest.to_write(folder.path)
        self.records = folder.read_records()
        self.patience = presence.patience
        self._writes = PendingWrites(self.patience)
        self._first_answers: list[dict] = []
        self.step_seconds: list[float] = []
        self.evaluation_seconds: list[float] = []
        self._activity = _Activity()

    @property
    def status(self) -> dict:
        """The current status; written to status.json at the next change of state."""
        return self.presence.status

    def state(self, state: str, message: str = "", **more) -> None:
        """Record a state, with a sentence on what happens in it and other fields of the status."""
        message = redact(message)
        if state != self.status.get("state"):
            self._announce(state, message)
        self.presence.write(state=state, message=message, **more)

    def doing(self, words: str) -> None:
        """Write to the status what is done now, where that takes a while; "" once it is over."""
        self._activity = _Activity()
        self._write_doing(words)

    def progress(self, words: str, done: int, total: int) -> None:
        """Write to the status how much of an activity is done, and the time it has left once its pace is known.

        words: such as "scoring {} of {} pairs". An activity begins with `done` at 0. Calls that follow too closely are
        left out.
        """
        now = time.monotonic()
        if done == 0 or self._activity.words != words or done < self._activity.done:
            self._activity = _Activity(words, now)
        elif now - self._activity.told < PROGRESS_EVERY_S:
            return
        activity = self._activity
        activity.done, activity.told = done, now
        text, spent_s = words.format(done, total), now - activity.began
        if PACE_SHARE * total <= done < total and spent_s >= PACE_S:
            text += f", {duration(spent_s / done * (total - done))} left"
        self._write_doing(text)

    def scored(self, record: dict) -> None:
        """Tell what an evaluation's record holds of its scores; it is recorded with the answers, by `evaluation`."""
        if self.on_record:
            self.on_record({**redact_values(record), "kind": "scores"})

    def end(self, state: str, message: str, **more) -> None:
        """Record the final state, as an event too, so that a deleted status.json can be rebuilt."""
        self.presence.write(state=state, message=message, seconds_left=None, **more)
        self._announce(state, message)
        with contextlib.suppress(OSError, WorkbenchError):  # the status says the same
            self.event(self.status["step"], state, message)
            self._seal(self.folder.metrics, self.folder.changes)

    def train_step(self, record: dict, seconds: float) -> None:
        """Record one optimizer step, and the status after it."""
        step = record["step"]
        self.step_seconds.append(seconds)
        self._append(record)
        median = statistics.median(self.step_seconds[-RECENT_STEPS:])
        seconds_left = self._seconds_left(step, median)
        self.state("training", step=step, seconds_left=seconds_left, median_step_s=median)
        self.note_faults(step)

    def note_faults(self, step: int) -> None:
        """Record an event for every fault of the disk that passed since the last call."""
        for sentence in self.patience.take_notes():
            self.event(step, "disk_fault", sentence)

    def finish_writes(self) -> None:
        """Do what could not be written until now, with all patience: a checkpoint never comes before its records.

        Errors: OSError or WorkbenchError when it still cannot be written.
        """
        self.patience.renew()
        self._writes.finish()

    def evaluation(self, record: dict, scores, answers: list[dict], seconds: float) -> list[doctor.Verdict]:
        """Record one evaluation; returns the doctor's verdicts after it.

        Its scores and answers are written first, its record last, so that a record never names a missing file.
        """
        step = record["step"]
        self.evaluation_seconds.append(seconds)
        files, content = self.folder, _parquet(scores)
        self._writes.add(lambda: write_atomically(files.scores(step), content), f"the scores of step {step}")
        if answers:
            self._first_answers = self._first_answers or answers
            self._writes.add(lambda: write_jsonl(files.generations(step), answers), f"the answers of step {step}")
        self._append(record)
        self._seal(files.scores(step), files.generations(step), files.metrics, files.changes)
        records = at_last_objective(self.folder, self.config.loss, self.records)
        verdicts = doctor.diagnose(records, self.status["total_steps"])
        self._note_change_of_verdict(step, verdicts[0])
        self.presence.write(
            recommended_step=recommendation.recommend(records), verdict=str(verdicts[0]), severity=verdicts[0].severity
        )
        return verdicts

    def settle_recommended(self) -> int | None:
        """The recommended step at the objective of now, which may have changed since the last evaluation; the status
        names it from here on.
        """
        step = recommendation.recommend(at_last_objective(self.folder, self.config.loss, self.records))
        if step != self.status.get("recommended_step"):
            self.presence.write(recommended_step=step)
        return step

    def final_scores(self, step: int, scores: "pd.DataFrame") -> None:
        """Record the scores of the final pairs at step 0 or the recommended step.

        That they were looked at is written first, and stays when the run goes on from an earlier step: no look is ever
        forgotten. Errors: WorkbenchError where the earlier looks are damaged.
        """
        path, looks_path, content = self.folder.final_scores(step), self.folder.final_looks, _parquet(scores)
        looks = [{"run": run, "step": done} for run, done in read_final_looks(self.folder)] if step else []
        if step and (this := {"run": self.folder.name, "step": step}) not in looks:
            looks.append(this)

        def write():
            with self.manifest.replacing(looks_path, path):
                path.parent.mkdir(exist_ok=True)
                if step:
                    write_json(looks_path, {"looks": looks})
                write_atomically(path, content)

        self._writes.add(write, f"the final pairs' scores of step {step}")

    def event(self, step: int, event: str, text: str, **more) -> None:
        """Record something that charts mark."""
        self._append({"kind": "event", "step": step, "event": event, "text": text, **more})

    def note(self, text: str) -> None:
        """Write a sentence to log and terminal, such as how many pairs were dropped."""
        text = redact(text)
        self._writes.add(lambda: self._log(text), "log.txt")
        if self.on_record:
            self.on_record({"kind": "note", "text": text, "step": self.status["step"]})

    def rewind(self, step: int) -> None:
        """Delete all records, scores and answers after `step`: the run continues from there."""
        self.records = [record for record in self.records if record["step"] <= step]
        folder = self.folder
        later = [folder.scores(done) for done in folder.evaluated_steps() if done > step]
        later += [folder.generations(done) for done in folder.sampled_steps() if done > step]
        later += [folder.final_scores(done) for done in folder.final_steps() if done > step]
        with self.manifest.replacing(folder.metrics, *later, patience=self.patience):
            write_jsonl(folder.metrics, self.records, self.patience)
            for path in later:
                path.unlink(missing_ok=True)

    def begin_manifest(self, identity: dict) -> None:
        """Seal what the run trains on; begins the manifest of a run that has none, or whose manifest was damaged."""
        if self.manifest.state != SEALED:
            self.manifest = Manifest.begin(self.folder.path)
        self.manifest.seal(patience=self.patience, **identity)

    def seal_checkpoints(self) -> None:
        """Seal the checkpoints that were published."""
        steps = {*self.manifest.steps("checkpoints"), *published_steps(self.folder)}
        self._seal(*(self.folder.checkpoint(step) / "manifest.json" for step in steps))

    def _seal(self, *paths):
        """Take files into the manifest once all that was written before is on the disk."""
        self._writes.add(lambda: self.manifest.seal(*paths), "manifest.json")

    def read_scores(self, step: int) -> "pd.DataFrame | None":
        """The scores table of an evaluated step; None where it is gone. Errors: WorkbenchError where it is damaged."""
        return read_scores(self.folder, step) if self.folder.scores(step).is_file() else None

    def first_evaluation(self) -> dict | None:
        """The record of step 0, against which drifts are measured."""
        return next((record for record in self.records if record["kind"] == "eval"), None)

    def first_answers(self) -> list[dict]:
        """The answers of the first evaluation; kept in memory because their file may still wait to be written."""
        first = self.first_evaluation()
        if first and not self._first_answers and first["step"] in self.folder.sampled_steps():
            self._first_answers = read_answers(self.folder, first["step"])
        return self._first_answers if first else []

    def _log(self, text):
        with open(self.folder.log, "a", encoding="utf-8") as log:
            log.write(text + "\n")

    def _write_doing(self, words):
        self.presence.write(doing=words)
        if self.on_record:
            self.on_record({"kind": "progress", "step": self.status["step"], "text": words})

    def _announce(self, state, message):
        if self.on_record:
            position = {"step": self.status["step"], "total_steps": self.status["total_steps"]}
            self.on_record({"kind": "state", "state": state, "message": message, **position})

    def _append(self, record):
        record = redact_values(record)
        line = self.folder.metrics_line(record)
        self.records.append(record)
        self._writes.add(line.write, "metrics.jsonl")
        if self.on_record:
            position = {"seconds_left": self.status.get("seconds_left"), "total_steps": self.status["total_steps"]}
            self.on_record({**record, **position})

    def _note_change_of_verdict(self, step, verdict):
        recorded = (record["verdict"] for record in reversed(self.records) if record.get("event") == "verdict")
        previous = next(recorded, None)
        is_new = verdict.severity != "healthy" if previous is None else verdict.kind != previous
        if is_new:
            self.event(step, "verdict", str(verdict), verdict=verdict.kind, severity=verdict.severity)

    def _seconds_left(self, step, seconds_per_step):
        total, every = self.status["total_steps"], self.config.training.eval_every
        evaluations = 1  # the last step is always evaluated
        if every:
            evaluations = math.ceil(total / every) - step // every
        seconds_per_evaluation = self.evaluation_seconds[-1] if self.evaluation_seconds else 0.0
        return (total - step) * seconds_per_step + evaluations * seconds_per_evaluation


def _parquet(table):
    """The bytes of a table's file, with a checksum for every page."""
    content = io.BytesIO()
    table.to_parquet(content, index=False, write_page_checksum=True)
    return content.getvalue()
