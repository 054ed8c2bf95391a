"""Decide what to do after a step."""

from collections.abc import Set
from dataclasses import dataclass
from typing import Literal

from ..config.run_config import TrainingConfig


@dataclass(frozen=True)
class Evaluation:
    """The result of the evaluation after a step: a collapse, or a step that is now the recommended one."""

    collapsed: bool = False
    recommended: bool = False


@dataclass(frozen=True)
class Decision:
    """What to do after a step, in this order. A resumable checkpoint holds the optimizer's state beside the adapter."""

    evaluate: bool = False
    save: Literal["adapter", "resumable"] | None = None
    ending: Literal["stop", "collapse", "suspend"] | None = None
    pause: bool = False


def decide(
    step: int,
    total_steps: int,
    requests: Set[str],
    training: TrainingConfig,
    paused: bool = False,
    evaluation: Evaluation | None = None,
) -> Decision:
    """What to do after `step`. requests: the kinds of requests that wait; a signal to stop counts as "stop".

    Asked a second time once the step is evaluated, since what is saved, paused or ended depends on the evaluation.
    """
    if paused:  # all was saved when the pause began; only requests count
        ending = _requested_ending(requests)
        return Decision(
            evaluate="evaluate" in requests,
            save="resumable" if "save" in requests else None,
            ending=ending,
            pause=ending is None and "unpause" not in requests,
        )

    last = step == total_steps
    evaluate = last or "evaluate" in requests or _is_due(step, training.eval_every)
    on_collapse = training.on_collapse if evaluation and evaluation.collapsed else "warn"
    ending, pause = None, False
    if not last:
        ending = "collapse" if on_collapse == "stop" else _requested_ending(requests)
        pause = ending is None and ("pause" in requests or on_collapse == "pause")

    save = "adapter" if evaluate else None
    recommended = evaluation is not None and evaluation.recommended  # to resume from, should later steps be worse
    if last or ending or pause or recommended or "save" in requests or _is_due(step, training.save_every):
        save = "resumable"
    return Decision(evaluate, save, ending, pause)


def _requested_ending(requests):
    return next((kind for kind in ("stop", "suspend") if kind in requests), None)


def _is_due(step, every):
    return every > 0 and step % every == 0
