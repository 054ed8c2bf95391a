"""What changed for the same pairs and prompts between two evaluations, counted case by case. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..base.format import signed
from .clusters import clusters, prompt_signs, prompts_of
from .metrics import METRICS, SHARE
from .scores import (
    CHANCE,
    WITHIN_NOISE,
    Share,
    compare_scores,
    mean_change,
    mean_share_change,
    sign_test,
)

if TYPE_CHECKING:
    import pandas as pd

#: Where a fair coin would be as one-sided more often than this, a change points nowhere.
_NO_SIGN = 0.5
#: Metrics of which a case changes by all or nothing: the number of cases and the mean say the same.
_YES_OR_NO = ("rewards/accuracies", "rewards/beyond_gamma", "answers/right", "answers/ended")
#: What is said of a change that may be chance.
TOO_FEW = "too few to tell"


@dataclass(frozen=True)
class PairedChange:
    """How a metric changed from case to case: it rose in `up` of n cases and fell in `down`.

    key: in METRICS. change: of the mean, with its paired 95 % interval low … high. unclear: cases that crossed a limit
    by less than the noise of scoring. prompts_up, prompts_down: prompts with more cases that rose than fell, and the
    other way, where cases share prompts; else None.
    """

    key: str
    up: int
    down: int
    n: int
    change: float
    low: float
    high: float
    unclear: int = 0
    prompts_up: int | None = None
    prompts_down: int | None = None

    @property
    def chance(self) -> float:
        """How often chance would be as one-sided (`sign_test`); cases that share a prompt count once together."""
        if self.prompts_up is None or self.prompts_down is None:
            return sign_test(self.up, self.down)
        return sign_test(self.prompts_up, self.prompts_down)

    @property
    def value(self) -> str:
        """The change in words, signed, with as many digits as its interval."""
        return signed(self.change, self._digits)

    @property
    def interval(self) -> str:
        """The ends of the interval in words, signed: "+0.02 to +0.31"; "" where it is endless (one case)."""
        if not all(map(math.isfinite, (self.low, self.high))):
            return ""
        return f"{signed(self.low, self._digits)} to {signed(self.high, self._digits)}"

    @property
    def _digits(self):
        if METRICS[self.key].unit == SHARE:
            return 2
        return 0 if self.key == "answers/mean_tokens" else 3

    @property
    def is_clear(self) -> bool:
        """Whether the mean changed for certain: 0 lies outside its interval."""
        return self.low > 0 or self.high < 0

    @property
    def is_one_sided(self) -> bool:
        """Whether chance would hardly turn the cases as one-sidedly."""
        return self.chance < CHANCE

    @property
    def points_somewhere(self) -> bool:
        """Whether a fair coin would be as one-sided in less than half of all cases."""
        return self.chance <= _NO_SIGN

    @property
    def judgement(self) -> str:
        """ "better" or "worse" where neither the interval nor the sign test leaves room for chance ("rose" or "fell"
        for a metric of which neither direction is good in itself), "too few to tell" where the interval holds 0,
        "mixed" where the mean changed for certain but the cases do not say so or say the opposite, "as many each way"
        or "no change".
        """
        net = self.up - self.down
        if not net and not self.is_clear:
            return "as many each way" if self.up else "no change"
        if net * self.change <= 0 and (self.is_clear or self.is_one_sided or self.key not in _YES_OR_NO):
            return "mixed"
        if self.is_clear and self.is_one_sided:
            better = METRICS[self.key].better
            if not better:
                return "rose" if net > 0 else "fell"
            return "better" if (net > 0) == (better == "higher") else "worse"
        return "mixed" if self.is_clear and self.key not in _YES_OR_NO else TOO_FEW


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
    prompts = prompts_of(pairs)
    sides = [pairs[f"correct_{side}"].astype(float) for side in ("before", "after")]
    ahead = _of_numbers("rewards/accuracies", *sides, prompts)
    if by_lead:
        flips = pairs["became"].map({"to right": 1, "to wrong": -1}).fillna(0).to_numpy()
        unclear = int((pairs["became"] == WITHIN_NOISE).sum())
        flipped = mean_share_change(flips, prompts)
        ahead = _change(ahead.key, flips, replace(flipped, value=ahead.change), prompts, unclear)
    numbers = {
        "rewards/beyond_gamma": "beyond_gamma",
        "logps/chosen": "chosen_avg_logp",
        "logps/rejected": "rejected_avg_logp",
        "lead": "lead",
    }
    changes = [ahead]
    changes += [
        _of_numbers(key, *(pairs[f"{column}_{side}"].astype(float) for side in ("before", "after")), prompts)
        for key, column in numbers.items()
    ]
    if not pairs.attrs["objective"]:
        loss_before, loss_after = (
            table.set_index("pair_id")["loss"].loc[pairs["pair_id"]] for table in (before, after)
        )
        changes.append(_of_numbers("loss", loss_before, loss_after, prompts))
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
        _of_numbers(key, *(answers[f"{column}_{side}"].astype(float) for side in ("base", "tuned")), answers["prompt"])
        for key, column in (
            ("answers/mean_tokens", "tokens"),
            ("answers/ended", "ended"),
            ("answers/repeated_4grams", "repeated_4grams"),
        )
    ]
    checked = answers[is_checked(answers)]
    if len(checked):
        right = (checked[f"right_{side}"].astype(float) for side in ("base", "tuned"))
        changes.insert(0, _of_numbers("answers/right", *right, checked["prompt"]))
    return {change.key: change for change in changes}


def _of_numbers(key, before, after, prompts):
    difference = after.to_numpy() - before.to_numpy()
    if METRICS[key].unit == SHARE:
        mean = mean_share_change(difference, prompts)
    else:
        # an answer that was not seen may become nothing, or twice as long
        reach = max(before.max(), after.max()) if key == "answers/mean_tokens" else 0.0
        mean = mean_change(difference, prompts, reach)
    return _change(key, difference, mean, prompts)


def _change(key, differences, mean: Share, prompts, unclear=0):
    up, down = prompt_signs(differences, None)
    numbers = clusters(prompts)
    by_prompt = (None, None) if numbers is None else prompt_signs(differences, numbers)
    ends = (float(mean.value), float(mean.low), float(mean.high))
    change = PairedChange(key, up, down, mean.n, *ends, unclear, *by_prompt)
    if key in _YES_OR_NO and not change.is_one_sided:  # the exact test knows better than an interval of few cases
        change = replace(change, low=min(change.low, 0.0), high=max(change.high, 0.0))
    return change
