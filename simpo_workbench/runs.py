"""Runs as users hold them: status, metrics, scores and generations as DataFrames, and requests to whoever trains.

One reader serves live and finished runs: everything comes from the run folder.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from . import process
from .config import DEMO, RunConfig
from .errors import SettingWarning, WorkbenchError
from .run_folder import END_STATES, LIVE_STATES, RunFolder, find_run_folder, new_run_folder, read_jsonl, run_names
from .scores import compare_scores, join_texts

_POLL_S = 0.25


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands. A dead process is never shown as running."""

    state: str
    step: int
    total_steps: int
    message: str
    owner: str
    alive: bool
    recommended_step: int | None
    verdict: str
    seconds_left: float | None

    @property
    def ended(self):
        return self.state in END_STATES


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
        """State, step, message and recommended checkpoint; a run whose process died is "failed" with the last lines of its log."""
        raw = self.folder.read_json(self.folder.status) or {}
        alive = process.is_alive(raw.get("process"))
        if not alive and raw.get("state") in LIVE_STATES:  # it may have ended in order between the two looks: the last word counts
            raw = self.folder.read_json(self.folder.status) or {}
            alive = process.is_alive(raw.get("process"))
        state, message = raw.get("state", "failed"), raw.get("message", "status.json is missing or damaged.")
        if state in LIVE_STATES and not alive:
            state, message = "failed", f"The process of this run died while it was {state}. {self._last_log_line()}".strip()
        return RunStatus(
            state=state,
            step=raw.get("step", 0),
            total_steps=raw.get("total_steps", 0),
            message=message,
            owner=raw.get("owner", ""),
            alive=alive and state in LIVE_STATES,
            recommended_step=raw.get("recommended_step"),
            verdict=raw.get("verdict", ""),
            seconds_left=raw.get("seconds_left"),
        )

    @property
    def environment(self) -> dict:
        """Versions, device, seeds, data hashes and the reports on the pairs."""
        return self.folder.read_json(self.folder.environment) or {}

    @property
    def records(self) -> list[dict]:
        """All metrics records as they were written."""
        return read_jsonl(self.folder.metrics)

    @property
    def metrics(self):
        """DataFrame of all records: kind ("train", "eval", "event"), step, time, and one column per metric (NaN where a record has none)."""
        import pandas as pd

        records = self.records
        return pd.DataFrame(records, columns=None if records else ["kind", "step", "time"])

    @property
    def scores(self):
        """DataFrame of all held-out pairs at all evaluated steps: one row per step and pair, with the pair's texts."""
        import pandas as pd

        files = sorted((self.path / "scores").glob("step-*.parquet"))
        if not files:
            raise WorkbenchError(f"The run {self.name!r} has no scores yet: the first come before its first step.")
        numbers = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
        return join_texts(numbers, pd.read_parquet(self.folder.pairs))

    @property
    def generations(self):
        """DataFrame of sampled answers: step, prompt, answer, tokens, ended, repeated_4grams."""
        import pandas as pd

        files = sorted((self.path / "generations").glob("step-*.jsonl"))
        return pd.DataFrame([record for file in files for record in read_jsonl(file)], columns=["step", "prompt", "answer", "tokens", "ended", "repeated_4grams"])

    @property
    def adapter(self) -> Path:
        """Folder of the final adapter in PEFT's own format. Errors: WorkbenchError while there is none."""
        if not (self.folder.adapter / "adapter_config.json").is_file():
            raise WorkbenchError(f"The run {self.name!r} has no final adapter yet (it is {self.status.state}); run.adapter_at(step) gives a checkpoint's.")
        return self.folder.adapter

    def adapter_at(self, step: int) -> Path:
        """Folder of the adapter that was kept at an evaluated or saved step. Errors: WorkbenchError naming the steps that there are."""
        path = self.folder.checkpoint(step) / "adapter"
        if not path.is_dir():
            raise WorkbenchError(f"The run {self.name!r} kept no adapter at step {step}; it has {self.adapter_steps()}.")
        return path

    def adapter_steps(self) -> list[int]:
        """Steps whose adapters were kept."""
        return sorted(int(path.parent.name.removeprefix("step-")) for path in self.folder.checkpoints.glob("step-*/adapter"))

    def compare(self, before: int = 0, after: int | None = None):
        """The held-out pairs at two evaluated steps side by side (by default before training and last): see `wb.compare_scores`."""
        scores = self.scores
        after = int(scores["step"].max()) if after is None else after
        evaluated = sorted({int(step) for step in scores["step"]})
        for step in (before, after):
            if step not in evaluated:
                raise WorkbenchError(f"The run {self.name!r} was not evaluated at step {step}; it was at {evaluated}.")
        return compare_scores(scores[scores["step"] == before], scores[scores["step"] == after])

    def plot(self):
        """The run's charts as one plotly figure."""
        from .figures import training_figure

        return training_figure(self.metrics, self.config.loss.gamma_beta_ratio, self.status.total_steps)

    def stop(self):
        """Ask the run to stop at the next step; adapter and checkpoint are saved."""
        self._ask("stop")

    def pause(self):
        """Ask the run to wait after the next step."""
        self._ask("pause")

    def unpause(self):
        """Ask a paused run to go on."""
        self._ask("resume")

    def save(self):
        """Ask for a checkpoint after the next step."""
        self._ask("save")

    def evaluate(self):
        """Ask for an evaluation after the next step."""
        self._ask("evaluate")

    def wait(self, timeout_s: float | None = None) -> RunStatus:
        """The final status, once the run has ended. Errors: TimeoutError after `timeout_s` seconds."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while not (status := self.status).ended:
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"The run {self.name!r} is still {status.state} after {timeout_s:g} s.")
            time.sleep(_POLL_S)
        return status

    async def finished(self) -> RunStatus:
        """The final status; while a notebook cell awaits it, clicks get through."""
        while not (status := self.status).ended:
            await asyncio.sleep(_POLL_S)
        return status

    def _ask(self, request):
        status = self.status
        if status.ended:
            raise WorkbenchError(f"The run {self.name!r} is {status.state}: nobody is there to {request} it.")
        self.folder.ask(request)

    def _last_log_line(self):
        try:
            lines = [line for line in self.folder.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        except OSError:
            lines = []
        return f"Last line of its log: {lines[-1].strip()[:300]}" if lines else "It left no log."


def create_run(config: RunConfig) -> RunFolder:
    """A fresh run folder with the configuration in it; says by `SettingWarning` what is known to ruin SimPO.

    Errors: WorkbenchError when the name is taken or unusable, or the root cannot be written.
    """
    for sentence in config.warnings():
        warnings.warn(sentence, SettingWarning, stacklevel=3)
    folder = new_run_folder(config.run.root, config.run.name, "plain-answers" if config.data.train == DEMO else Path(config.data.train).stem)
    config.to_yaml(folder.config)
    return folder


def attach(name: str | Path, root: str | Path = "runs") -> Run:
    """An existing run, live or ended, by name in `root` or by the path of its folder."""
    return Run(find_run_folder(name, root))


def list_runs(root: str | Path = "runs"):
    """DataFrame of all runs in a root folder, the newest first: name, state, step, total_steps, model, learning_rate, beta, accuracy, chosen_drift, verdict."""
    import pandas as pd

    rows = []
    for name in run_names(root):
        run = attach(name, root)
        status = run.status
        last = _last_evaluation(run)
        row = {"name": name, "state": status.state, "step": status.step, "total_steps": status.total_steps}
        row |= _config_facts(run)
        row |= {"accuracy": last.get("eval/rewards/accuracies"), "chosen_drift": last.get("eval/logps/chosen_drift"), "verdict": status.verdict}
        rows.append((run.folder.config.stat().st_mtime, row))
    rows.sort(key=lambda item: item[0], reverse=True)
    columns = ["name", "state", "step", "total_steps", "model", "learning_rate", "beta", "accuracy", "chosen_drift", "verdict"]
    return pd.DataFrame([row for _, row in rows], columns=columns)


def _config_facts(run):
    try:
        config = run.config
    except WorkbenchError:  # a list must not fail because one folder was edited by hand; the run itself says what is wrong
        return {"model": "(configuration unreadable)"}
    return {"model": config.model.name, "learning_rate": config.training.learning_rate, "beta": config.loss.beta}


def _last_evaluation(run):
    try:
        evaluations = [record for record in run.records if record.get("kind") == "eval"]
    except WorkbenchError:  # as above: damaged metrics leave two cells empty
        return {}
    return evaluations[-1] if evaluations else {}


def write_pairs(folder: RunFolder, pairs):
    """Keep the evaluation pairs' texts and extra columns once, for readers to join; values that no column type holds become JSON text."""
    frame = pairs.to_frame()
    frame["prompt"] = [pair.prompt_text for pair in pairs]
    frame.to_parquet(folder.pairs, index=False)
