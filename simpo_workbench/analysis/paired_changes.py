"""What changed for the same pairs and prompts between two evaluations, counted case by case. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .metrics import METRICS
from .scores import CHANCE, WITHIN_NOISE, compare_scores, sign_test

if TYPE_CHECKING:
    import pandas as pd

#: Where a fair coin would be as one-sided more often than this, a change points nowhere.
_NO_SIGN = 0.5


@dataclass(frozen=True)
class PairedChange:
    """How a metric changed from case to case: it rose in `up` of n cases and fell in `down`.

    key: in METRICS. change: of the mean. unclear: cases that crossed a limit by less than the noise of scoring.
    """

    key: str
    up: int
    down: int
    n: int
    change: float
    unclear: int = 0

    @property
    def chance(self) -> float:
        """How often chance would be as one-sided (`sign_test`)."""
        return sign_test(self.up, self.down)

    @property
    def judgement(self) -> str:
        """ "better", "worse", "perhaps better", "perhaps worse", "as many each way", "no clear change", "mixed" where
        few cases changed much and many a little the other way, "no change"; "" for a metric of which neither direction
        is good in itself.
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
        word = "better" if (net > 0) == (better == "higher") else "worse"
        return word if self.chance < CHANCE else f"perhaps {word}"


def pair_changes(before: pd.DataFrame, after: pd.DataFrame, noise: float = 0.0) -> dict[str, PairedChange]:
    """Metric key -> PairedChange of the held-out pairs that both scores tables hold; {} where there is none.

    before, after: scores of one step each, as `run.scores_at`. noise: of scoring, nats per token. A pair comes ahead or
    falls behind as it flips in `wb.compare_scores`; for DPO, where being ahead is no matter of the lead, by its margin.
    """
    if not set(before["pair_id"]) & set(after["pair_id"]):
        return {}
    pairs = compare_scores(before, after, noise)
    by_lead = all((pairs[f"correct_{side}"] == (pairs[f"lead_{side}"] > 0)).all() for side in ("before", "after"))
    ahead = _of_numbers("rewards/accuracies", *(pairs[f"correct_{side}"].astype(float) for side in ("before", "after")))
    if by_lead:
        counts = pairs["became"].value_counts()
        up, down, unclear = (int(counts.get(name, 0)) for name in ("to right", "to wrong", WITHIN_NOISE))
        ahead = PairedChange(ahead.key, up, down, ahead.n, ahead.change, unclear)
    numbers = {
        "rewards/beyond_gamma": "beyond_gamma",
        "logps/chosen": "chosen_avg_logp",
        "logps/rejected": "rejected_avg_logp",
    }
    changes = [ahead]
    changes += [
        _of_numbers(key, *(pairs[f"{column}_{side}"].astype(float) for side in ("before", "after")))
        for key, column in numbers.items()
    ]
    loss_before, loss_after = (table.set_index("pair_id")["loss"].loc[pairs["pair_id"]] for table in (before, after))
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
    return PairedChange(key, up, down, len(difference), float(difference.mean()))
