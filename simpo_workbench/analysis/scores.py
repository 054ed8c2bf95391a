"""Tables of scores: shares with their uncertainty, and the same pairs before and after."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..base.errors import WorkbenchError
from ..base.format import counted
from .clusters import clusters, counted_prompts, effective_cases
from .intervals import Z95, bootstrap_interval, exact_interval

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

WITHIN_NOISE = "within the noise"
#: A change counts where one side of a coin would win by so much this seldom (`sign_test`).
CHANCE = 0.05


@dataclass(frozen=True)
class Share:
    """A share of n cases, or a mean over them or a change of one, with its 95 % interval.

    prompts: how many prompts these cases have, where some share one; 0 otherwise.
    """

    value: float
    n: int
    low: float
    high: float
    prompts: int = 0

    def __str__(self) -> str:
        cases = f"n={self.n}" + (f" on {counted(self.prompts, 'prompt')}" if self.prompts else "")
        if not math.isfinite(self.high - self.low):
            return f"{self.value:.2f} ({cases}, too few for an interval)"
        return f"{self.value:.2f} ({cases}, 95 % {self.low:.2f} to {self.high:.2f})"

    @property
    def is_clear(self) -> bool:
        """Of a change: whether 0 lies outside its interval, so that its direction is known."""
        return self.low > 0 or self.high < 0

    def as_metrics(self, key: str) -> dict[str, float]:
        """The value and the ends of its interval, as a record of metrics.jsonl has them; without endless ends."""
        ends = {f"{key}_low": self.low, f"{key}_high": self.high}
        return {key: self.value} | (ends if all(map(math.isfinite, ends.values())) else {})


def share(hits: int, n: int) -> Share:
    """The share hits / n with its exact 95 % interval, which is never too narrow, however few the cases are.

    Errors: WorkbenchError when n is 0. Source: Clopper and Pearson 1934.
    """
    if n <= 0:
        raise WorkbenchError("A share of nothing has no value: there are no cases.")
    low, high = exact_interval(hits, n)
    # rounding must not put the share outside its interval
    return Share(hits / n, n, min(hits / n, low), max(hits / n, high))


def share_of(hits, prompts=None) -> Share:
    """The share of cases that are hits with its 95 % interval, which knows which cases share a prompt.

    hits: (cases,) of true and false. prompts: one value per case; without them, and where no two cases share one, the
    interval is that of `share`. Otherwise it is the exact interval of as many independent cases as these are worth.
    Errors: WorkbenchError without cases. Source: Korn and Graubard 1998 (`effective_cases`).
    """
    import numpy as np

    hits = np.asarray(hits, dtype=float)
    n, numbers = len(hits), clusters(prompts)
    if numbers is None:
        return share(int(hits.sum()), n)
    value, worth = float(hits.mean()), effective_cases(hits, numbers)
    low, high = exact_interval(value * worth, worth)
    return Share(value, n, min(value, low), max(value, high), counted_prompts(numbers, n))


def mean_share(values: Sequence[float]) -> Share:
    """The mean of per-case shares, such as repeated 4-grams per answer, with a 95 % interval that knows their number.

    The interval is that of as many yes-or-no cases with the same mean, which vary most: equal values, even all 0, are
    no certainty. Errors: WorkbenchError without values.
    """
    if not len(values):
        raise WorkbenchError("A share of nothing has no value: there are no cases.")
    return share(min(float(len(values)), float(sum(values))), len(values))


def sign_test(up: int, down: int) -> float:
    """How often a fair coin, thrown once for each of up + down cases, would be as one-sided: the exact two-sided test,
    0 … 1; McNemar's exact test where cases join and leave a share.
    """
    ways = sum(math.comb(up + down, k) for k in range(min(up, down) + 1))
    return min(1.0, 2 * ways / 2 ** (up + down))


def share_change(gained: int, lost: int, n: int) -> Share:
    """The change of a share of the same n cases, -1 … 1, of which `gained` joined it and `lost` left it, with the
    adjusted Wald interval for paired proportions.

    Errors: WorkbenchError when n is 0. Source: Bonett and Price 2012, Adjusted Wald confidence interval for a
    difference of binomial proportions based on paired data.
    """
    return _adjusted_wald(gained - lost, gained + lost, n)


def change_of_share(before, after, prompts=None) -> Share:
    """The change of a share of the same cases, -1 … 1, with its paired interval, which knows which cases share a
    prompt.

    before, after: (cases,) of true and false. prompts: one value per case, such as the column `prompt`; see
    `mean_share_change`. Errors: WorkbenchError without cases.
    """
    import numpy as np

    return mean_share_change(np.asarray(after, dtype=int) - np.asarray(before, dtype=int), prompts)


def mean_share_change(differences: Sequence[float], prompts=None) -> Share:
    """The mean change of per-case shares, -1 … 1, with the interval of `share_change` carried over to shares of any
    size: one case more that rises from 0 to 1 and one more that falls from 1 to 0.

    differences: after minus before, one per case; those of yes and no are -1, 0 and 1. prompts: one value per case;
    cases that share one count as the independent cases that they are worth (`effective_cases`).
    Errors: WorkbenchError without cases.
    """
    differences, numbers = [float(difference) for difference in differences], clusters(prompts)
    squares, n = sum(difference * difference for difference in differences), len(differences)
    if numbers is None:
        return _adjusted_wald(sum(differences), squares, n)
    part = effective_cases(differences, numbers) / n
    change = _adjusted_wald(part * sum(differences), part * squares, part * n)
    return replace(change, value=sum(differences) / n, n=n, prompts=counted_prompts(numbers, n))


def _adjusted_wald(total, squares, n):
    """The mean of n differences of this sum and this sum of squares, with its interval (two cases more, +1 and -1)."""
    if n <= 0:
        raise WorkbenchError("A change of a share has no value without cases.")
    change, middle = total / n, total / (n + 2)
    half = Z95 * math.sqrt(max(0.0, (squares + 2) / (n + 2) - middle**2) / (n + 2))
    return Share(change, n, max(-1.0, min(change, middle - half)), min(1.0, max(change, middle + half)))


def mean_change(differences: Sequence[float], prompts=None, reach: float = 0.0) -> Share:
    """The mean of paired differences, such as of log-probabilities of the same pairs, with its bootstrap interval.

    differences: after minus before, or of two runs, one per case. prompts: one value per case; cases that share one are
    drawn together. reach: how far a case that was not seen may change where all that were seen changed alike, such as
    by the length of an answer. The interval is endless for one case or prompt, and where nothing changed and no `reach`
    is given. Errors: WorkbenchError without cases.
    """
    n, numbers = len(differences), clusters(prompts)
    if not n:
        raise WorkbenchError("A change of a mean has no value without cases.")
    mean = float(sum(differences)) / n
    low, high = bootstrap_interval(differences, numbers, reach)
    return Share(mean, n, min(mean, low), max(mean, high), 0 if numbers is None else counted_prompts(numbers, n))


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
    0, for DPO something else, since its margin counts from the base model and is 0 there for every pair. Where the
    tables were scored with different β or γ/β, margin and beyond_gamma of both are at those of `after`;
    `.attrs["objective"]` says so ("" where they are the same).
    Errors: WorkbenchError for tables without these columns, with several steps or a pair twice, or without a pair in
    common; for a noise below 0.
    """
    require_noise(noise)
    columns = ["chosen_avg_logp", "rejected_avg_logp", "margin", "correct", "beyond_gamma"]
    for name, table in (("before", before), ("after", after)):
        _require_one_step(name, table, columns)
    before, objective = _at_objective_of(after, before)
    texts = [name for name in ("prompt", "chosen", "rejected") if name in before]
    joined = _in_common(before[["pair_id", *texts, *columns]], after[["pair_id", *columns]], ("_before", "_after"))
    for side in ("before", "after"):
        joined[f"lead_{side}"] = joined[f"chosen_avg_logp_{side}"] - joined[f"rejected_avg_logp_{side}"]
    joined["lead_change"] = joined["lead_after"] - joined["lead_before"]
    joined["chosen_change"] = joined["chosen_avg_logp_after"] - joined["chosen_avg_logp_before"]
    joined["became"] = what_became(joined["lead_before"], joined["lead_after"], noise)
    joined["flip"] = joined["became"].where(joined["became"].isin(["to right", "to wrong"]), "")
    joined.attrs["objective"] = objective
    return joined


def _at_objective_of(after, before):
    """(`before` with margins and beyond_gamma at the β and γ/β of `after`, the sentence that says so or "")."""
    names = ["beta", "gamma_beta_ratio"]
    if not all(name in table for table in (before, after) for name in names):
        return before, ""
    (beta, ratio), (own_beta, own_ratio) = (table[names].iloc[0] if len(table) else (1, 0) for table in (after, before))
    if math.isclose(beta, own_beta) and math.isclose(ratio, own_ratio, abs_tol=1e-12):
        return before, ""
    margin = before["margin"] * (beta / own_beta)  # both losses' margins are β times something without β
    sentence = (
        f"Margins and shares beyond γ of both tables are at β {beta:g} and γ/β {ratio:g}; the first was scored at β"
        f" {own_beta:g} and γ/β {own_ratio:g}."
    )
    return before.assign(margin=margin, beyond_gamma=margin > beta * ratio), sentence


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
