"""What changed for the same pairs and prompts between two evaluations, counted case by case. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..base.format import signed
from .metrics import METRICS, SHARE
from .scores import (
    CHANCE,
    WITHIN_NOISE,
    Share,
    compare_scores,
    mean_change,
    mean_share_change,
    share_change,
    sign_test,
)

if TYPE_CHECKING:
    import pandas as pd

#: Where a fair coin would be as one-sided more often than this, a change points nowhere.
_NO_SIGN = 0.5
#: What is said of a change that may be chance.
TOO_FEW = "too few to tell"


@dataclass(frozen=True)
class PairedChange:
    """How a metric changed from case to case: it rose in `up` of n cases and fell in `down`.

    key: in METRICS. change: of the mean, with its paired 95 % interval low … high. unclear: cases that crossed a limit
    by less than the noise of scoring.
    """

    key: str
    up: int
    down: int
    n: int
    change: float
    low: float
    high: float
    unclear: int = 0

    @property
    def chance(self) -> float:
        """How often chance would be as one-sided (`sign_test`)."""
        return sign_test(self.up, self.down)

    @property
    def interval(self) -> str:
        """The ends of the interval in words, signed: "+0.02 to +0.31"; "" where it is endless (one case)."""
        metric = METRICS[self.key]
        digits = 2 if metric.unit == SHARE else 0 if self.key == "answers/mean_tokens" else 3
        if not all(map(math.isfinite, (self.low, self.high))):
            return ""
        return f"{signed(self.low, digits)} to {signed(self.high, digits)}"

    @property
    def judgement(self) -> str:
        """ "better" or "worse" where neither the interval nor the sign test leaves room for chance; else "too few to
        tell", "no clear change", "as many each way", "mixed" where few cases changed much and many a little the other
        way, or "no change"; "" for a metric of which neither direction is good in itself.
        """
        better = METRICS[self.key].better
        if not better:
            return ""
        net = self.up - self.down
        if not net:
            return "as many each way" if self.up else "no change"
        if net * self.change <= 0:
            return "mixed"
        if self.chance > _NO_SIGN:
            return "no clear change"
        if self.low <= 0 <= self.high or self.chance >= CHANCE:
            return TOO_FEW
        return "better" if (net > 0) == (better == "higher") else "worse"


def pair_changes(before: pd.DataFrame, after: pd.DataFrame, noise: float = 0.0) -> dict[str, PairedChange]:
    """Metric key -> PairedChange of the held-out pairs that both scores tables hold; {} where there is none.

    before, after: scores of one step each, as `run.scores_at`, of one run or of two that share pairs. noise: of
    scoring, nats per token. A pair comes ahead or falls behind as it flips in `wb.compare_scores`; for DPO, where being
    ahead is no matter of the lead, by its margin. Losses of different objectives do not compare, so there is none of
    these.
    """
    if not set(before["pair_id"]) & set(after["pair_id"]):
        return {}
    pairs = compare_scores(before, after, noise)
    by_lead = all((pairs[f"correct_{side}"] == (pairs[f"lead_{side}"] > 0)).all() for side in ("before", "after"))
    sides = [pairs[f"correct_{side}"].astype(float) for side in ("before", "after")]
    ahead = _of_numbers("rewards/accuracies", *sides)
    if by_lead:
        counts = pairs["became"].value_counts()
        up, down, unclear = (int(counts.get(name, 0)) for name in ("to right", "to wrong", WITHIN_NOISE))
        interval = share_change(up, down, ahead.n)
        ahead = _change(ahead.key, up, down, replace(interval, value=ahead.change), unclear)
    numbers = {
        "rewards/beyond_gamma": "beyond_gamma",
        "logps/chosen": "chosen_avg_logp",
        "logps/rejected": "rejected_avg_logp",
        "lead": "lead",
    }
    changes = [ahead]
    changes += [
        _of_numbers(key, *(pairs[f"{column}_{side}"].astype(float) for side in ("before", "after")))
        for key, column in numbers.items()
    ]
    if not pairs.attrs["objective"]:
        loss_before, loss_after = (
            table.set_index("pair_id")["loss"].loc[pairs["pair_id"]] for table in (before, after)
        )
        changes.append(_of_numbers("loss", loss_before, loss_after))
    return {change.key: change for change in changes}


def answers_side_by_side(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """One row per prompt that both tables answer, in the order of `before`, with the columns of both, _base and _tuned.

    before, after: answers of one step each, as in `run.generations`. A prompt that is asked twice has two rows.
    """
    sides = [table.assign(occurrence=table.groupby("prompt").cumcount()) for table in (before, after)]
    return sides[0].merge(sides[1], on=["prompt", "occurrence"], suffixes=("_base", "_tuned"))


def is_checked(answers: pd.DataFrame) -> pd.Series:
    """Whether both answers of a row of `answers_side_by_side` are known to be right or wrong."""
    return answers["right_base"].isin([True, False]) & answers["right_tuned"].isin([True, False])


def answer_changes(answers: pd.DataFrame) -> dict[str, PairedChange]:
    """Metric key -> PairedChange of the answers in a table from `answers_side_by_side`; {} for an empty one."""
    if not len(answers):
        return {}
    changes = [
        _of_numbers(key, *(answers[f"{column}_{side}"].astype(float) for side in ("base", "tuned")))
        for key, column in (
            ("answers/mean_tokens", "tokens"),
            ("answers/ended", "ended"),
            ("answers/repeated_4grams", "repeated_4grams"),
        )
    ]
    checked = answers[is_checked(answers)]
    if len(checked):
        right = (checked[f"right_{side}"].astype(float) for side in ("base", "tuned"))
        changes.insert(0, _of_numbers("answers/right", *right))
    return {change.key: change for change in changes}


def _of_numbers(key, before, after):
    difference = after.to_numpy() - before.to_numpy()
    up, down = int((difference > 0).sum()), int((difference < 0).sum())
    return _change(key, up, down, (mean_share_change if METRICS[key].unit == SHARE else mean_change)(difference))


def _change(key, up, down, mean: Share, unclear=0):
    return PairedChange(key, up, down, mean.n, float(mean.value), float(mean.low), float(mean.high), unclear)
