"""Writes down what a run does: status, metrics, scores, answers and events, for readers that only look at the
folder.
"""

import statistics
from collections.abc import Callable

from ..analysis import doctor
from ..base.files import read_jsonl, write_jsonl
from ..base.redaction import redact, redact_values
from ..config.run_config import RunConfig
from ..runs.folder import RunFolder
from ..runs.presence import Presence

RECENT_STEPS = 20  # the time left is judged by so many steps


class Recorder:
    """One writer per run.

    `on_record` is called with every metrics record and change of state, for progress bars in the same process.
    """

    def __init__(
        self, folder: RunFolder, config: RunConfig, presence: Presence, on_record: Callable[[dict], None] | None = None
    ):
        self.folder, self.config, self.presence, self.on_record = folder, config, presence, on_record
        self.records = read_jsonl(folder.metrics)
        self.step_seconds: list[float] = []
        self.evaluation_seconds: list[float] = []

    @property
    def status(self) -> dict:
        """What status.json says, or will say at the next change of state."""
        return self.presence.status

    def state(self, state: str, message: str = "", **more):
        """Move to a state and say what is going on."""
        message = redact(message)
        if state != self.status.get("state"):
            self.announce(state, message)
        self.presence.write(state=state, message=message, **more)

    def announce(self, state: str, message: str):
        """Tell whoever listens in this process about a state."""
        if self.on_record:
            self.on_record(
                {
                    "kind": "state",
                    "state": state,
                    "message": message,
                    "step": self.status["step"],
                    "total_steps": self.status["total_steps"],
                }
            )

    def train_step(self, record: dict, seconds: float):
        """One optimizer step's record, and where the run stands after it."""
        self.step_seconds.append(seconds)
        self._append(record)
        recent = statistics.median(self.step_seconds[-RECENT_STEPS:])
        self.state(
            "training", step=record["step"], seconds_left=self._seconds_left(record["step"]), median_step_s=recent
        )

    def evaluation(self, record: dict, scores, answers: list[dict], seconds: float):
        """One evaluation: its scores and answers first, its record last, so that a record never names a file that is
        not there.
        """
        step = record["step"]
        self.evaluation_seconds.append(seconds)
        beside = self.folder.scores(step).with_suffix(".tmp")
        scores.to_parquet(beside, index=False)
        beside.replace(self.folder.scores(step))
        if answers:
            write_jsonl(self.folder.generations(step), answers)
        self._append(record)
        verdicts = doctor.diagnose(self.records, self.status["total_steps"])
        self._note_change_of_verdict(step, verdicts[0])
        self.presence.write(
            recommended_step=doctor.recommend(self.records), verdict=str(verdicts[0]), severity=verdicts[0].severity
        )
        return verdicts

    def event(self, step: int, event: str, text: str, **more):
        """Something worth a mark on the charts."""
        self._append({"kind": "event", "step": step, "event": event, "text": text, **more})

    def note(self, text: str):
        """Something that readers of the log and of the terminal should know, such as how many pairs were dropped."""
        text = redact(text)
        with open(self.folder.log, "a", encoding="utf-8") as log:
            log.write(text + "\n")
        if self.on_record:
            self.on_record({"kind": "note", "text": text, "step": self.status["step"]})

    def rewind(self, step: int):
        """Forget everything after `step`: the run goes on from there."""
        self.records = [record for record in self.records if record["step"] <= step]
        write_jsonl(self.folder.metrics, self.records)
        for pattern in ("scores/step-*.parquet", "generations/step-*.jsonl"):
            for path in self.folder.path.glob(pattern):
                if int(path.stem.removeprefix("step-")) > step:
                    path.unlink()

    def first_evaluation(self) -> dict | None:
        """The record of step 0, against which drifts are measured."""
        return next((record for record in self.records if record["kind"] == "eval"), None)

    def _append(self, record):
        record = redact_values(record)
        self.folder.append_metrics(record)
        self.records.append(record)
        if self.on_record:
            self.on_record(
                {**record, "seconds_left": self.status.get("seconds_left"), "total_steps": self.status["total_steps"]}
            )

    def _note_change_of_verdict(self, step, verdict):
        last = next((record for record in reversed(self.records) if record.get("event") == "verdict"), None)
        if (verdict.severity != "healthy" and (last is None or last["verdict"] != verdict.kind)) or (
            last and last["verdict"] != verdict.kind
        ):
            self._append(
                {
                    "kind": "event",
                    "step": step,
                    "event": "verdict",
                    "verdict": verdict.kind,
                    "severity": verdict.severity,
                    "text": str(verdict),
                }
            )

    def _seconds_left(self, step):
        total, every = self.status["total_steps"], self.config.training.eval_every
        evaluations = (total // every - step // every if every else 0) + (1 if not every or total % every else 0)
        per_step = statistics.median(self.step_seconds[-RECENT_STEPS:])
        per_evaluation = self.evaluation_seconds[-1] if self.evaluation_seconds else 0.0
        return (total - step) * per_step + evaluations * per_evaluation
