"""Tables of scores: shares with their uncertainty, and the same pairs before and after."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..base.errors import WorkbenchError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Z95 = 1.959963984540054  # 97.5th percentile of the standard normal
WITHIN_NOISE = "within the noise"
#: A change counts where one side of a coin would win by so much this seldom (`sign_test`).
CHANCE = 0.05


@dataclass(frozen=True)
class Share:
    """A share of n cases with its 95 % interval."""

    value: float
    n: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} (n={self.n}, 95 % {self.low:.2f} to {self.high:.2f})"

    def as_metrics(self, key: str) -> dict[str, float]:
        """The value and the ends of its interval, as a record of metrics.jsonl has them."""
        return {key: self.value, f"{key}_low": self.low, f"{key}_high": self.high}


def share(hits: int, n: int) -> Share:
    """The share hits / n with Wilson's score interval, which is right for small n and for shares near 0 and 1.

    Errors: WorkbenchError when n is 0. Source: Wilson 1927.
    """
    if n <= 0:
        raise WorkbenchError("A share of nothing has no value: there are no cases.")
    p, z2 = hits / n, Z95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # rounding must not put the share outside its interval
    return Share(p, n, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)))


def mean_share(values: list[float]) -> Share:
    """The mean of per-case shares, such as repeated 4-grams per answer, with the normal 95 % interval within 0 … 1.

    Errors: WorkbenchError without values.
    """
    n = len(values)
    if n == 0:
        raise WorkbenchError("A share of nothing has no value: there are no cases.")
    mean = sum(values) / n
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else 0.5
    half = Z95 * spread / math.sqrt(n)
    return Share(mean, n, max(0.0, mean - half), min(1.0, mean + half))


def sign_test(up: int, down: int) -> float:
    """How often a fair coin, thrown once for each of up + down cases, would be as one-sided: the exact two-sided test,
    0 … 1.
    """
    ways = sum(math.comb(up + down, k) for k in range(min(up, down) + 1))
    return min(1.0, 2 * ways / 2 ** (up + down))


def share_change(gained: int, lost: int, n: int) -> Share:
    """The change of a share of the same n cases, -1 … 1, of which `gained` joined it and `lost` left it, with the
    adjusted Wald interval for paired proportions.

    Errors: WorkbenchError when n is 0. Source: Bonett and Price 2012, Adjusted Wald confidence interval for a
    difference of binomial proportions based on paired data.
    """
    if n <= 0:
        raise WorkbenchError("A change of a share has no value without cases.")
    change, joined, left = (gained - lost) / n, (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = Z95 * math.sqrt((joined + left - (joined - left) ** 2) / (n + 2))
    middle = joined - left
    return Share(change, n, max(-1.0, min(change, middle - half)), min(1.0, max(change, middle + half)))


def repeated_4gram_share(tokens: list) -> float:
    """Share of an answer's 4-grams that occurred earlier in it; 0 when it is shorter than 4 tokens."""
    grams = [tuple(tokens[i : i + 4]) for i in range(len(tokens) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def pair_texts(pairs) -> pd.DataFrame:
    """DataFrame of a Pairs' texts and extra columns, the prompt as readable text, for `join_texts`."""
    texts = pairs.df.copy()
    texts["prompt"] = [pair.prompt_text for pair in pairs]
    return texts


def join_texts(numbers, texts) -> pd.DataFrame:
    """A scores table from its numbers and the pairs' texts, joined on pair_id in the order of `numbers`.

    First come step (if there is one), pair_id, prompt, chosen, rejected; then the numbers; then the user's own columns,
    with "_data" appended to a name that is taken.
    """
    texts = texts.rename(columns={"step": "step_data"})  # also without steps in the numbers: the name is reserved
    joined = numbers.merge(texts, on="pair_id", how="left", suffixes=("", "_data"))
    front = [name for name in ("step", "pair_id", "prompt", "chosen", "rejected") if name in joined]
    return joined[front + [name for name in joined.columns if name not in front]]


def compare_scores(before, after, noise=0.0) -> pd.DataFrame:
    """One row for each pair that both tables have, joined on pair_id.

    before, after: scores DataFrames of one step each (`run.scores` filtered by step, or `wb.score`), of one run or of
    any two.
    noise: of scoring, nats per token, as `run.scoring_noise` measured it. Columns: prompt, chosen, rejected, then
    chosen_avg_logp, rejected_avg_logp and lead (their difference, nats per token), margin, correct and beyond_gamma
    each with _before and _after, lead_change, chosen_change (nats per token), became (see `what_became`), and flip: the
    same where it is "to right" or "to wrong", else "". `correct` is margin above 0: for SimPO the same as a lead above
    0, for DPO something else, since its margin counts from the base model and is 0 there for every pair. Leads are in
    nats per token, so that tables with different β compare; margins are in each table's own reward units.
    Errors: WorkbenchError for tables without these columns, with several steps or a pair twice, or without a pair in
    common; for a noise below 0.
    """
    require_noise(noise)
    columns = ["chosen_avg_logp", "rejected_avg_logp", "margin", "correct", "beyond_gamma"]
    for name, table in (("before", before), ("after", after)):
        _require_one_step(name, table, columns)
    texts = [name for name in ("prompt", "chosen", "rejected") if name in before]
    joined = _in_common(before[["pair_id", *texts, *columns]], after[["pair_id", *columns]], ("_before", "_after"))
    for side in ("before", "after"):
        joined[f"lead_{side}"] = joined[f"chosen_avg_logp_{side}"] - joined[f"rejected_avg_logp_{side}"]
    joined["lead_change"] = joined["lead_after"] - joined["lead_before"]
    joined["chosen_change"] = joined["chosen_avg_logp_after"] - joined["chosen_avg_logp_before"]
    joined["became"] = what_became(joined["lead_before"], joined["lead_after"], noise)
    joined["flip"] = joined["became"].where(joined["became"].isin(["to right", "to wrong"]), "")
    return joined


def sides(leads, noise: float = 0.0) -> np.ndarray:
    """int8 array in the shape of the leads: 1 right (above the noise), -1 wrong (as far below 0), 0 in between or NaN.

    A lead as large as the noise may in truth be 0, and 0 is wrong; so without a noise only NaN is neither.
    """
    import numpy as np

    leads = np.asarray(leads, dtype=float)
    return (leads > noise).astype(np.int8) - (leads <= -noise).astype(np.int8)


def what_became(before, after, noise: float = 0.0) -> np.ndarray:
    """The outcome of each pair by its leads before and after, (pairs,): "to right", "to wrong", "still right", "still
    wrong" or "within the noise".

    A flip, to right or to wrong, counts only where both leads lie beyond the noise, one on each side of 0: then neither
    sign can be an accident of how the pairs were packed. A lead that crossed 0 without that is within the noise.
    """
    import numpy as np

    before, after = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    side_before, side_after = sides(before, noise), sides(after, noise)
    cases = [
        (side_before < 0) & (side_after > 0),
        (side_before > 0) & (side_after < 0),
        (before > 0) != (after > 0),
        after > 0,
    ]
    return np.select(cases, ["to right", "to wrong", WITHIN_NOISE, "still right"], "still wrong").astype(object)


def scoring_noise(one, again) -> float:
    """The largest difference, nats per token, between the leads of the same pairs scored twice by the same model.

    one, again: DataFrames with pair_id, chosen_avg_logp and rejected_avg_logp, such as two of `wb.score`; pairs that
    only one of them has are left out. A pair that is packed with other pairs is scored a little differently: by about
    1e-6 in fp32, 1e-2 in bf16. Smaller changes of a lead say nothing.
    Errors: WorkbenchError for tables without these columns, with several steps or a pair twice, or without a pair in
    common.
    """
    columns = ["chosen_avg_logp", "rejected_avg_logp"]
    for name, table in (("one", one), ("again", again)):
        _require_one_step(name, table, columns)
    joined = _in_common(one[["pair_id", *columns]], again[["pair_id", *columns]], ("", "_again"))
    lead = joined["chosen_avg_logp"] - joined["rejected_avg_logp"]
    lead_again = joined["chosen_avg_logp_again"] - joined["rejected_avg_logp_again"]
    return float((lead - lead_again).abs().max())


def require_noise(noise) -> None:
    """Raise WorkbenchError unless a noise of scoring is a number of 0 or more."""
    if not (isinstance(noise, numbers.Real) and 0 <= noise < math.inf):
        raise WorkbenchError(
            f"noise = {noise!r} is no noise of scoring: give nats per token, 0 or more, such as run.scoring_noise or"
            " 0.0."
        )


def _require_one_step(name, table, columns):
    missing = [column for column in ("pair_id", *columns) if column not in table]
    if missing:
        raise WorkbenchError(
            f"The table {name!r} lacks the column {missing[0]!r}: give tables from wb.score or run.scores."
        )
    if "step" in table and table["step"].nunique() > 1:
        raise WorkbenchError(
            f"The table {name!r} holds {table['step'].nunique()} steps: choose one, such as scores[scores.step == 0]."
        )
    if table["pair_id"].duplicated().any():
        raise WorkbenchError(f"The table {name!r} holds a pair twice.")


def _in_common(one, other, suffixes):
    joined = one.merge(other, on="pair_id", suffixes=suffixes)
    if joined.empty:
        raise WorkbenchError("The two tables have no pair in common: they are scores of different pairs.")
    return joined
