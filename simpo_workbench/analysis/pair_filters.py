"""The table of pairs, before and after, and the filters that name parts of it. Pure functions of DataFrames.

Ahead and behind, right and wrong are about the lead alone, whatever the loss: its sign is that of the margin for SimPO,
but not for DPO.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..base.errors import WorkbenchError
from ..base.format import counted
from .scores import WITHIN_NOISE, compare_scores

if TYPE_CHECKING:
    import pandas as pd

#: A chosen answer that lost more than this (nats per token) has lost log-probability.
LOST_NATS = 0.1
_LEAST_NOISE = 0.0001  # a smaller noise is not spelled out
_BOTH = ["loss", "gradient_weight"]
_SCORES = ["step", "chosen_avg_logp", "rejected_avg_logp", "margin", "correct", "beyond_gamma"]
_SCORES += ["chosen_reward", "rejected_reward"]
#: Outcome of a pair, as in `compare_scores` -> the name of its filter and the meaning.
_BECAME = {
    "to right": ("flipped to right", "The chosen answer was behind and is ahead now."),
    "to wrong": ("flipped to wrong", "The chosen answer was ahead and is behind now."),
    "still right": ("still right", "The chosen answer was ahead and still is."),
    "still wrong": ("still wrong", "The chosen answer was behind and still is."),
    WITHIN_NOISE: (
        WITHIN_NOISE,
        "The chosen answer changed sides, but no further than scoring itself may err: this is not counted as a flip.",
    ),
}
_FRONT = ["pair_id", "prompt", "chosen", "rejected", "chosen_tokens", "rejected_tokens"]


@dataclass(frozen=True)
class Filter:
    """A named part of a table: `mask` is a boolean Series over its rows."""

    name: str
    meaning: str
    mask: object

    @property
    def count(self) -> int:
        return int(self.mask.sum())


def pair_table(before, after=None, noise: float = 0.0) -> pd.DataFrame:
    """One row per pair: texts, lengths, leads (nats per token), and with `after` all that `compare_scores` gives.

    before, after: scores DataFrames of one step each; with both, losses and gradient weights are there _before and
    _after too, without `after` the column is `lead`. noise: of scoring, nats per token; flips are beyond it. The user's
    own columns come last, with "_data" appended to a name that is taken. Errors: as `compare_scores`.
    """
    if after is None:
        missing = [name for name in ("pair_id", "chosen_avg_logp", "rejected_avg_logp") if name not in before]
        if missing:
            raise WorkbenchError(
                f"The table lacks the column {missing[0]!r}: give a table from wb.score or run.scores."
            )
        if before["pair_id"].duplicated().any():
            raise WorkbenchError("The table holds a pair twice: choose one step, such as scores[scores.step == 0].")
        lead = before["chosen_avg_logp"] - before["rejected_avg_logp"]
        table = before.rename(columns={"lead": "lead_data"}).assign(lead=lead)
    else:
        table = compare_scores(before, after, noise)
        both = [name for name in _BOTH if name in before and name in after]
        suffixes = ("_before", "_after")
        numbers = before[["pair_id", *both]].merge(after[["pair_id", *both]], on="pair_id", suffixes=suffixes)
        not_own = {"prompt", "chosen", "rejected", *_BOTH, *_SCORES}
        rest = before[[name for name in before.columns if name not in not_own]]
        table = table.merge(numbers, on="pair_id").merge(rest, on="pair_id", suffixes=("", "_data"))
    front = [name for name in _FRONT if name in table]
    return table[front + [name for name in table.columns if name not in front]].reset_index(drop=True)


def filters(table) -> list[Filter]:
    """The filters of a `pair_table`, "all" first. "right" and "ahead" mean a lead above 0."""
    import pandas as pd

    every = Filter("all", "Every pair.", pd.Series(True, index=table.index))
    if "flip" in table:
        right = table["lead_after"] > 0
        by_outcome = [Filter(*words, table["became"] == became) for became, words in _BECAME.items()]
        lost = f"The chosen answer became less likely by more than {LOST_NATS:g} nats per token."
        named = [
            *(outcome for outcome in by_outcome if outcome.name != WITHIN_NOISE or outcome.count),
            Filter("lead fell", "The lead of the chosen answer is smaller than before.", table["lead_change"] < 0),
            Filter("lost log-probability", lost, table["chosen_change"] < -LOST_NATS),
        ]
    else:
        right = table["lead"] > 0
        named = [
            Filter("chosen ahead", "The chosen answer is likelier per token than the rejected one.", right),
            Filter("chosen behind", "The chosen answer is no likelier per token than the rejected one.", ~right),
        ]
    if "chosen_tokens" in table:
        longer = table["rejected_tokens"] > table["chosen_tokens"]
        meaning = "The rejected answer is ahead, and it is the longer one."
        named.append(Filter("longer rejected ahead", meaning, ~right & longer))
    return [every, *named]


def noise_sentence(noise: float | None, within: int, noun: str = "flip", runs: str = "this run") -> str:
    """A sentence on how many changes of sides, `within`, are not counted because they lie within the noise of scoring.

    noise: nats per token; None where it was not measured. noun: what is counted, "flip" or "difference". runs: where
    the noise is measured.
    """
    if noise is None:
        return f"The noise of scoring was not measured in {runs}, so that every {noun} counts."
    size = f"±{noise:.2g} nats per token" if noise >= _LEAST_NOISE else f"under ±{_LEAST_NOISE:g} nats per token"
    if not within:
        return f"No {noun} lies within the noise of scoring ({size})."
    return (
        f"{counted(within, noun)} {'lies' if within == 1 else 'lie'} within the noise of scoring ({size}) and"
        f" {'is' if within == 1 else 'are'} not counted."
    )


def searchable(table) -> list[str]:
    """The texts of each pair as one string in lower case, to be searched."""
    texts = [table[name].astype(str).to_list() for name in ("prompt", "chosen", "rejected") if name in table]
    return ["\n".join(parts).casefold() for parts in zip(*texts, strict=True)] if texts else [""] * len(table)
