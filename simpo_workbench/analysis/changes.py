"""How an evaluation differs from step 0, with paired 95 % intervals: computed, and as its record tells."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..base.format import signed
from .clusters import prompts_of
from .scores import Share, mean_change, mean_share_change, share


@dataclass(frozen=True)
class Measured(Share):
    """A change with the ends of its 95 % interval and its number of cases (0: unknown)."""

    def __str__(self):
        ends = f", 95 % {signed(self.low)} to {signed(self.high)}" if math.isfinite(self.high - self.low) else ""
        return f"change {signed(self.value)}{ends}{f', n={self.n}' if self.n else ''}"


def own_interval(record: dict, key: str, n: int) -> Share | None:
    """A share of an evaluation with its interval: as it was recorded, else that of n independent cases; None where
    neither is known.
    """
    value, low, high = (record.get(f"eval/{name}") for name in (key, f"{key}_low", f"{key}_high"))
    if low is not None and high is not None:
        return Share(value, n, low, high)
    return share(round(value * n), n) if n else None


def drift(record: dict) -> Measured:
    """The change of the chosen answers' average log-probability since step 0, nats per token."""
    return _of_record(record, "logps/chosen_drift", int(record.get("eval/pairs", 0)))


def answers_change(first: dict, last: dict, name: str) -> Measured:
    """The change of a metric of sampled answers since step 0; 0 where one of the two sampled none.

    name: "repeated_4grams", "ended" or "mean_tokens". Records made before changes were recorded have intervals of the
    two values alone: theirs is then that of two independent samples, which is too wide for the same prompts, never too
    narrow. Source: Newcombe 1998, method 10.
    """
    key = f"eval/answers/{name}"
    if key not in first or key not in last:  # not every evaluation samples answers
        return Measured(0.0, 0, 0.0, 0.0)
    if f"{key}_change" in last:
        return _of_record(last, f"answers/{name}_change", int(last.get("eval/answers/compared", 0)))
    change, n = last[key] - first[key], int(last.get("eval/answers/n", 0))
    ends = [record.get(f"{key}_{end}") for record in (first, last) for end in ("low", "high")]
    if None in ends:
        return Measured(change, n, change, change)
    below = math.hypot(last[key] - ends[2], ends[1] - first[key])
    above = math.hypot(ends[3] - last[key], first[key] - ends[0])
    return Measured(change, n, change - below, change + above)


def _of_record(record, key, n):
    """The change under a key: one without ends of an interval is taken as it is, but that of one case, and
    no change at all, say nothing."""
    value = record[f"eval/{key}"]
    low, high = record.get(f"eval/{key}_low"), record.get(f"eval/{key}_high")
    if low is None or high is None:  # older records have no ends; endless ones are never recorded
        low, high = (-math.inf, math.inf) if n == 1 or value == 0 else (value, value)
    return Measured(value, n, low, high)


def score_changes(before, after) -> dict[str, Share]:
    """Metric key -> change of a mean or a share over the held-out pairs of both tables, with its paired interval; {}
    where they have no pair in common.

    before, after: scores of one step each, at one objective. Pairs that share a prompt, by the column `prompt` of
    `after`, count as what they are worth.
    """
    columns = ["chosen_avg_logp", "rejected_avg_logp", "correct", "beyond_gamma"]
    texts = [name for name in ("prompt",) if name in after]
    both = before[["pair_id", *columns]].merge(
        after[["pair_id", *texts, *columns]], on="pair_id", suffixes=("", "_now")
    )
    if both.empty:
        return {}
    chosen, rejected = (both[f"{column}_now"] - both[column] for column in columns[:2])
    correct, beyond = (both[f"{column}_now"].astype(int) - both[column].astype(int) for column in columns[2:])
    prompts = prompts_of(both)
    return {
        "logps/chosen_drift": mean_change(chosen, prompts),
        "logps/rejected_drift": mean_change(rejected, prompts),
        "lead_change": mean_change(chosen - rejected, prompts),
        "rewards/accuracies_change": mean_share_change(correct, prompts),
        "rewards/beyond_gamma_change": mean_share_change(beyond, prompts),
    }


def answer_changes_since(before: list[dict], after: list[dict]) -> dict[str, float]:
    """Metrics of the answers to prompts that both have: how many, and changes with their paired intervals."""
    first = {answer["prompt"]: answer for answer in before}
    both = [(first[answer["prompt"]], answer) for answer in after if answer["prompt"] in first]
    if not both:
        return {}

    def differences(name):
        return [float(now[name]) - float(then[name]) for then, now in both]

    # an answer that was not seen may become nothing, or twice as long
    longest = max(float(answer["tokens"]) for pair in both for answer in pair)
    changes = {
        "answers/ended_change": mean_share_change(differences("ended")),
        "answers/repeated_4grams_change": mean_share_change(differences("repeated_4grams")),
        "answers/mean_tokens_change": mean_change(differences("tokens"), reach=longest),
    }
    return {"eval/answers/compared": len(both), **as_metrics(changes)}


def as_metrics(changes: dict[str, Share]) -> dict[str, float]:
    """Changes by metric key as a record of metrics.jsonl has them."""
    return {name: value for key, change in changes.items() for name, value in change.as_metrics(f"eval/{key}").items()}


def newest_answers(evaluations: list[dict]) -> dict:
    """What the newest sampled answers looked like: an evaluation without answers is judged by those before it."""
    of_answers = (
        {name: value for name, value in record.items() if name.startswith("eval/answers/")}
        for record in reversed(evaluations)
    )
    return next(filter(None, of_answers), {})


def as_dicts(records) -> list[dict]:
    """Plain dicts without missing values, from a list or a DataFrame."""
    rows = records.to_dict("records") if hasattr(records, "to_dict") else records
    return [{key: value for key, value in row.items() if value == value and value is not None} for row in rows]
