"""Held-out numbers of a run at its last objective: also those of steps before `run.set` changed β or γ/β."""

from __future__ import annotations

from functools import lru_cache

from ..analysis.metrics import score_metrics
from ..analysis.objective import at_objective, is_at, last_objective
from ..base.files import file_stamp
from ..config.run_config import LossConfig
from .folder import RunFolder
from .verified import read_scores, read_texts


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
    first = evaluations[0]
    return [
        record if record.get("kind") != "eval" or is_at(record, objective) else _moved(folder, objective, record, first)
        for record in records
    ]


#: What an evaluation's record holds that depends on β and γ/β.
_OF_OBJECTIVE = ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/beyond_gamma")
#: What changes since step 0 count from.
_OF_FIRST = ("eval/logps/chosen", "eval/logps/rejected")


def _without_objective(record):
    names = tuple(f"eval/{key}" for key in _OF_OBJECTIVE)
    return {name: value for name, value in record.items() if not name.startswith(names)}


def _moved(folder, objective, record, first):
    """An evaluation's record at another objective. first: the record of step 0."""
    own = {f"measured_{name}": record[name] for name in ("beta", "gamma_beta_ratio")}
    path, first_path = (folder.scores(evaluation["step"]) for evaluation in (record, first))
    if (stamp := file_stamp(path)) is None:
        return _without_objective(record) | own
    of_first = None if record is first else (first_path, file_stamp(first_path), *(first[key] for key in _OF_FIRST))
    return {**record, **_numbers(path, stamp, of_first, objective.model_dump_json()), **own}


@lru_cache(maxsize=1024)
def _numbers(path, stamp, of_first, objective):
    """`score_metrics` of a scores file at an objective (as JSON).

    of_first: file and stamp of the scores of step 0, and the values of its record that changes count from.
    """
    scores = _scores(path, stamp, objective)
    if of_first is None:
        return score_metrics(scores, None)
    first_path, first_stamp, *values = of_first
    first_scores = None if first_stamp is None else _scores(first_path, first_stamp, objective)
    return score_metrics(scores, dict(zip(_OF_FIRST, values, strict=True)), first_scores)


@lru_cache(maxsize=2)  # that of step 0, beside the one in work
def _scores(path, stamp, objective):
    folder = RunFolder(path.parents[1])
    scores = read_scores(folder, int(path.stem.removeprefix("step-")))
    # pairs that share a prompt count as what they are worth
    scores["prompt"] = scores["pair_id"].map(_prompts(folder.pairs, file_stamp(folder.pairs)))
    return at_objective(scores, LossConfig.model_validate_json(objective))


@lru_cache(maxsize=2)
def _prompts(path, stamp):
    """The prompt of each held-out pair, by the pair's id."""
    texts = read_texts(RunFolder(path.parent), ["pair_id", "prompt"])
    return dict(zip(texts["pair_id"], texts["prompt"], strict=True))
