"""Tables of scores: shares with their uncertainty, and the same pairs before and after."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import WorkbenchError

_Z95 = 1.959963984540054  # 97.5th percentile of the standard normal


@dataclass(frozen=True)
class Share:
    """A share of n cases with its 95 % interval."""

    value: float
    n: int
    low: float
    high: float

    def __str__(self):
        return f"{self.value:.2f} (n={self.n}, 95 % {self.low:.2f} to {self.high:.2f})"


def share(hits: int, n: int) -> Share:
    """The share hits / n with Wilson's score interval (Wilson 1927), which holds for small n and for shares near 0 and 1."""
    if n <= 0:
        raise WorkbenchError("A share of nothing has no value: there are no cases.")
    p, z2 = hits / n, _Z95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Share(p, n, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)))  # rounding must not put the share outside


def mean_share(values: list[float]) -> Share:
    """The mean of n per-case shares (such as repeated 4-grams per answer) with the normal 95 % interval of a mean, kept within 0 … 1."""
    n = len(values)
    if n == 0:
        raise WorkbenchError("A share of nothing has no value: there are no cases.")
    mean = sum(values) / n
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else 0.5
    half = _Z95 * spread / math.sqrt(n)
    return Share(mean, n, max(0.0, mean - half), min(1.0, mean + half))


def repeated_4gram_share(tokens: list) -> float:
    """Share of an answer's 4-grams that occurred earlier in it; 0 when it is shorter than 4 tokens."""
    grams = [tuple(tokens[i : i + 4]) for i in range(len(tokens) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def pair_texts(pairs):
    """DataFrame of a Pairs' texts and extra columns, the prompt as readable text: what a scores table is joined with."""
    texts = pairs.df.copy()
    texts["prompt"] = [pair.prompt_text for pair in pairs]
    return texts


def join_texts(numbers, texts):
    """A scores table from its numbers and the pairs' texts, joined on pair_id in the order of `numbers`.

    First step (where there is one), pair_id, prompt, chosen, rejected; then the numbers; then the user's own columns, with "_data" behind a name that is taken.
    """
    texts = texts.rename(columns={"step": "step_data"})  # also where the numbers have no step: the name is ours
    joined = numbers.merge(texts, on="pair_id", how="left", suffixes=("", "_data"))
    front = [name for name in ("step", "pair_id", "prompt", "chosen", "rejected") if name in joined]
    return joined[front + [name for name in joined.columns if name not in front]]


def compare_scores(before, after):
    """The pairs that both tables hold, joined on pair_id, one row each.

    before, after: scores DataFrames of one step each (`run.scores` filtered by step, or `wb.score`).
    Columns: prompt, chosen, rejected, then chosen_avg_logp, rejected_avg_logp and lead (their difference, nats per token), margin, correct and
    beyond_gamma each with _before and _after, lead_change, chosen_change (nats per token), and flip ("to right", "to wrong" or ""): whether the
    chosen answer came to lead (lead above 0), or leads no more. `correct` is what the table says, margin above 0: for SimPO the same as a lead above 0,
    for DPO another thing, since its margin counts from the untrained model and is 0 there for every pair.
    Leads are in nats per token, so that tables with different β compare; margins are in each table's own reward units.
    """
    columns = ["chosen_avg_logp", "rejected_avg_logp", "margin", "correct", "beyond_gamma"]
    for name, table in (("before", before), ("after", after)):
        missing = [column for column in ("pair_id", *columns) if column not in table]
        if missing:
            raise WorkbenchError(f"The table {name!r} lacks the column {missing[0]!r}: give tables from wb.score or run.scores.")
        if "step" in table and table["step"].nunique() > 1:
            raise WorkbenchError(f"The table {name!r} holds {table['step'].nunique()} steps: choose one, such as scores[scores.step == 0].")
        if table["pair_id"].duplicated().any():
            raise WorkbenchError(f"The table {name!r} holds a pair twice.")
    texts = [name for name in ("prompt", "chosen", "rejected") if name in before]
    joined = before[["pair_id", *texts, *columns]].merge(after[["pair_id", *columns]], on="pair_id", suffixes=("_before", "_after"))
    if joined.empty:
        raise WorkbenchError("The two tables have no pair in common: they are scores of different pairs.")
    for side in ("before", "after"):
        joined[f"lead_{side}"] = joined[f"chosen_avg_logp_{side}"] - joined[f"rejected_avg_logp_{side}"]
    joined["lead_change"] = joined["lead_after"] - joined["lead_before"]
    joined["chosen_change"] = joined["chosen_avg_logp_after"] - joined["chosen_avg_logp_before"]
    led, leads = joined["lead_before"] > 0, joined["lead_after"] > 0
    joined["flip"] = ""
    joined.loc[~led & leads, "flip"] = "to right"
    joined.loc[led & ~leads, "flip"] = "to wrong"
    return joined
