"""What to do about a verdict: new runs, made out of the one that is followed, that one click starts."""

from __future__ import annotations

from dataclasses import dataclass

from ...analysis.doctor import Verdict
from ...config.run_config import RunConfig
from ...runs.more_steps import resumable_steps
from ...runs.run import Run
from ...runs.status import RunStatus

#: Kind of a verdict -> what the learning rate is multiplied by, and its name. No click mends other verdicts.
_RATES = {
    "collapse": (1 / 3, "a third of the rate"),
    **dict.fromkeys(
        ("wrong answers", "repetition", "lost endings", "chosen falling", "learning rate too high"),
        (0.5, "half the rate"),
    ),
    "learning rate too low": (3, "three times the rate"),
}


@dataclass(frozen=True)
class Remedy:
    """A new run to make: the text of its button, from which step (None: from the start), with which changes."""

    words: str
    tooltip: str
    step: int | None
    changes: dict


def remedies(run: Run, config: RunConfig, verdict: Verdict, status: RunStatus, rate_scale: float) -> list[Remedy]:
    """A clone with another learning rate from the newest healthy checkpoint; and one from there that changes nothing.

    rate_scale: factor on the configured learning rate that holds now. Without a healthy checkpoint the clone starts
    anew, and the second is not offered. Empty for a verdict that these do not mend, and for a mere note.
    """
    if verdict.kind not in _RATES or verdict.severity == "note":
        return []
    factor, words = _RATES[verdict.kind]
    rate = config.training.learning_rate * rate_scale * factor
    steps = [step for step in resumable_steps(run.folder) if step <= (status.recommended_step or 0)]
    step, start = (steps[-1], f"from step {steps[-1]}") if steps else (None, "from the start")
    stop, stays = "Clone", "; this one stays as it is"
    if status.alive:
        stop, stays = "Stop, clone", "; this one is stopped and saved, and stays"
    tooltip = f"A new run {start} with learning rate {rate:.2g}{stays}"
    offered = [Remedy(f"{stop} {start} with {words}", tooltip, step, {"training.learning_rate": rate})]
    if steps:
        tooltip = f"A new run {start} with the same settings{stays}"
        offered.append(Remedy(f"Go on from step {step} as it was", tooltip, step, {}))
    return offered
