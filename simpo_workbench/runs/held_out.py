"""Held-out numbers of a run at its last objective: also those of steps before `run.set` changed β or γ/β."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from ..analysis.metrics import score_metrics
from ..analysis.objective import at_objective, is_at, last_objective
from .verified import read_scores

if TYPE_CHECKING:
    import pandas as pd

    from ..config.run_config import LossConfig
    from .folder import RunFolder


def at_last_objective(folder: RunFolder, loss: LossConfig, records: list[dict]) -> list[dict]:
    """The records, those of evaluations at the last objective among them; the same list where it never changed.

    loss: as the run was configured. An evaluation of another objective is computed anew from its scores, and keeps its
    own as measured_beta and measured_gamma_beta_ratio; where they are gone, what depends on the objective is left out.
    """
    return at_one_objective(folder, last_objective(loss, records), records)


def at_one_objective(folder: RunFolder, objective: LossConfig, records: list[dict]) -> list[dict]:
    """As `at_last_objective`, at an objective of choice."""
    evaluations = [record for record in records if record.get("kind") == "eval"]
    if all(is_at(record, objective) for record in evaluations):
        return records
    first, first_scores = evaluations[0], scores_at_objective(folder, evaluations[0]["step"], objective)
    anew = []
    for record in records:
        if record.get("kind") != "eval" or is_at(record, objective):
            anew.append(record)
            continue
        own = {f"measured_{name}": record[name] for name in ("beta", "gamma_beta_ratio")}
        scores = scores_at_objective(folder, record["step"], objective)
        if scores is None:
            anew.append(_without_objective(record) | own)
            continue
        is_first = record is first
        numbers = score_metrics(scores, None if is_first else first, None if is_first else first_scores)
        anew.append({**record, **numbers, **own})
    return anew


#: What an evaluation's record holds that depends on β and γ/β.
_OF_OBJECTIVE = ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/beyond_gamma")


def _without_objective(record):
    names = tuple(f"eval/{key}" for key in _OF_OBJECTIVE)
    return {name: value for name, value in record.items() if not name.startswith(names)}


def scores_at_objective(folder: RunFolder, step: int, objective: LossConfig) -> pd.DataFrame | None:
    """The scores of one evaluated step, without texts, at an objective; None where the file is gone."""
    path = folder.scores(step)
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return _scores(path, (facts.st_mtime_ns, facts.st_size), objective.model_dump_json()).copy()


@lru_cache(maxsize=64)
def _scores(path, stamp, objective):
    from ..config.run_config import LossConfig
    from .folder import RunFolder

    scores = read_scores(RunFolder(path.parents[1]), int(path.stem.removeprefix("step-")))
    return at_objective(scores, LossConfig.model_validate_json(objective))
