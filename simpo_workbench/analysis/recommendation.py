"""The step whose checkpoint is recommended, and why. Pure functions of the records."""

from __future__ import annotations

from .changes import as_dicts
from .doctor import is_healthy


def recommend(records) -> int | None:
    """The step of the recommended checkpoint: most held-out pairs beyond γ among the healthy evaluations, the earlier
    one at a tie.

    records: at one objective, as `run.records`; where they name several, shares beyond γ do not compare, and the pairs
    with the chosen answer ahead are counted instead.
    0 means that no trained step is healthy or better than the base model; None that nothing was evaluated yet.
    """
    evaluations = [record for record in as_dicts(records) if record.get("kind") == "eval"]
    if not evaluations:
        return None
    # health is judged by answers where there are any
    sampled = [record for record in evaluations if "eval/answers/ended" in record] or evaluations
    healthy = [record for record in sampled if is_healthy(evaluations[0], record)]
    if not healthy:
        return 0
    won = f"eval/rewards/{'beyond_gamma' if _has_one_objective(evaluations) else 'accuracies'}"
    return max(healthy, key=lambda record: (record[won], -record["step"]))["step"]


def _has_one_objective(evaluations):
    objectives = [(record.get("beta"), record.get("gamma_beta_ratio")) for record in evaluations]
    return len({(beta, ratio and round(ratio, 9)) for beta, ratio in objectives}) == 1


def why_recommended(records) -> str:
    """Why `recommend` names the step it names, in a few words."""
    step = recommend(records)
    evaluations = [record for record in as_dicts(records) if record.get("kind") == "eval"]
    if step is None:
        return "comes with the first evaluation"
    by_gamma = evaluations[-1].get("gamma_beta_ratio", 1) > 0 and _has_one_objective(evaluations)
    won = "beyond γ" if by_gamma else "won by the chosen answer"
    if step > 0:
        tied = _as_good(evaluations, step, f"eval/rewards/{'beyond_gamma' if by_gamma else 'accuracies'}")
        also = f", as many as at step {' and '.join(map(str, tied))}: the earliest" if tied else ""
        return f"most pairs {won} among the healthy ones{also}"
    if len(evaluations) == 1:
        return "the base model: nothing else is evaluated yet"
    sampled = [record for record in evaluations[1:] if "eval/answers/ended" in record]
    if "eval/answers/ended" in evaluations[0] and not sampled:
        return "the base model, until answers of a later step are sampled"
    if any(is_healthy(evaluations[0], evaluation) for evaluation in sampled or evaluations[1:]):
        return f"the base model: no trained step has more pairs {won}"
    return "the base model: no trained step is healthy"


def _as_good(evaluations, step, won):
    """The later healthy steps with as many pairs won as the recommended one."""
    best = next(record[won] for record in evaluations if record["step"] == step)
    sampled = [record for record in evaluations if "eval/answers/ended" in record] or evaluations
    return [
        record["step"]
        for record in sampled
        if record["step"] > step and record[won] == best and is_healthy(evaluations[0], record)
    ]
