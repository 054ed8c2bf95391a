"""What the recommended step is worth on the final pairs, on which it was not chosen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..analysis.metrics import METRICS, score_metrics
from ..analysis.objective import at_objective
from ..analysis.paired_changes import PairedChange, pair_changes
from ..analysis.recommendation import recommend
from ..analysis.scores import join_texts
from ..base.format import counted
from . import verified

if TYPE_CHECKING:
    import pandas as pd

    from ..config.run_config import LossConfig
    from .folder import RunFolder
    from .status import RunStatus

#: The metric that the sentence names.
_HEADLINE = "rewards/accuracies"


@dataclass(frozen=True)
class FinalResult:
    """The final pairs at step 0 and at the recommended `step`; `str()` is the sentence.

    brief: the result alone; "" without one. step: None where it has not been scored on them. pairs: how many were
    scored. before, after: metrics of both as a record of metrics.jsonl has them, with eval/ before the keys. changes:
    metric key -> the paired change of the same pairs, with its interval and judgement. scores: one row per pair and
    step, as `run.scores`. looks: (run, step) of every trained step that these pairs were ever scored for.
    """

    sentence: str
    brief: str = ""
    step: int | None = None
    pairs: int = 0
    before: dict = field(default_factory=dict)
    after: dict = field(default_factory=dict)
    changes: dict[str, PairedChange] = field(default_factory=dict)
    scores: pd.DataFrame | None = None
    looks: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return self.sentence

    @property
    def table(self) -> pd.DataFrame:
        """One row per metric: its values at step 0 and at the step, the paired change with its 95 % interval, in how
        many pairs it rose and fell, and the judgement; empty where the step is not scored.
        """
        import pandas as pd

        rows = [
            {
                "metric": METRICS[key].title,
                "base": self.before[f"eval/{key}"],
                "recommended": self.after[f"eval/{key}"],
                "change": change.change,
                "low": change.low,
                "high": change.high,
                **{name: getattr(change, name) for name in ("up", "down", "n", "judgement")},
            }
            for key, change in self.changes.items()
            if f"eval/{key}" in self.before
        ]
        columns = ["metric", "base", "recommended", "change", "low", "high", "up", "down", "n", "judgement"]
        return pd.DataFrame(rows, columns=columns)


def final_result(
    folder: RunFolder, records: list[dict], objective: LossConfig, status: RunStatus, noise: float
) -> FinalResult:
    """The FinalResult of a run. records: as `run.records`. objective, noise: as `run.objective`, `run.scoring_noise`.

    Errors: WorkbenchError where a file of the final pairs is damaged or lost.
    """
    share = str(verified.read_environment(folder).get("final_share", ""))
    scored = folder.final_steps()
    if not scored:
        return FinalResult(share)
    looks = tuple(verified.read_final_looks(folder))
    step = recommend(records) if status.recommended_step is None else status.recommended_step
    if not step:
        now = " now" if status.alive else ""
        base = f"The base model is the recommended one{now}: there is no trained step to score on the final pairs."
        return FinalResult(_with_looks(base, looks), looks=looks)
    if step not in scored:
        return FinalResult(_with_looks(_not_scored(step, records, status), looks), looks=looks)
    texts = verified.read_texts(folder, final=True)
    prompts = dict(zip(texts["pair_id"], texts["prompt"], strict=True))
    tables = [at_objective(verified.read_final_scores(folder, done), objective) for done in (0, step)]
    # pairs that share a prompt count as what they are worth
    tables = [table.assign(prompt=table["pair_id"].map(prompts)) for table in tables]
    before = score_metrics(tables[0], None)
    after = score_metrics(tables[1], before, tables[0])
    changes = pair_changes(*tables, noise)
    scores = join_texts(_joined(tables).drop(columns="prompt"), texts)
    brief = _brief(before, after, changes)
    sentence = f"On {counted(len(tables[1]), 'final pair')}, which had no part in choosing step {step}: {brief}."
    return FinalResult(_with_looks(sentence, looks), brief, step, len(tables[1]), before, after, changes, scores, looks)


def _joined(tables):
    import pandas as pd

    return pd.concat(tables, ignore_index=True)


def _brief(before, after, changes):
    metric, change = METRICS[_HEADLINE], changes[_HEADLINE]
    values = " → ".join(metric.text(record[f"eval/{_HEADLINE}"]) for record in (before, after))
    interval = f", 95 % {change.interval}" if change.interval else ""
    return f"{metric.label} {values} (change {change.value}{interval}; {change.judgement})"


def _not_scored(step, records, status):
    if status.alive:
        return f"The final pairs are scored when the run ends, for the step that is then recommended (now {step})."
    told = next((record["text"] for record in reversed(records) if record.get("event") == "final"), "")
    if told.startswith("The final pairs are not scored"):
        return told
    return f"Step {step} is not scored on the final pairs: that happens when a run ends in order."


def _with_looks(sentence, looks):
    """The sentence, followed by how often these pairs were looked at where that is more than once."""
    if len(looks) < 2:
        return sentence
    names = {run for run, _ in looks}
    steps = ", ".join(f"{step} of {run}" if len(names) > 1 else str(step) for run, step in looks)
    return (
        f"{sentence} These pairs have been scored for {len(looks)} trained steps by now ({steps}); whoever chooses by"
        " their results needs new ones."
    )
