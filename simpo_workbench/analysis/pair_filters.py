"""Per-pair tables as people look through them: leads, what became of each pair, and the filters that name it. Pure
functions of DataFrames.

Ahead and behind, right and wrong are said of the lead alone, whatever the loss: its sign is that of the margin for
SimPO, but not for DPO.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..base.errors import WorkbenchError
from ..base.format import counted
from .scores import WITHIN_NOISE, compare_scores

#: A chosen answer that lost more than this (nats per token) has lost log-probability.
LOST_NATS = 0.1
_LEAST_NOISE = 0.0001  # a smaller noise is not spelled out
_BOTH = ("loss", "gradient_weight")
#: What became of a pair, as in `compare_scores` -> the name of its filter and the meaning.
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


def pair_table(before, after=None, noise=0.0):
    """One row per pair: texts, tokens, and leads (chosen − rejected average log-prob, nats per token); with `after`
    those of `compare_scores`, losses and gradient weights too.

    before, after: scores DataFrames of one step each. Without `after` the lead is called `lead`. noise: of scoring,
    nats per token: flips are beyond it. The user's own columns come last. Errors: as `compare_scores`.
    """
    if after is None:
        missing = [name for name in ("pair_id", "chosen_avg_logp", "rejected_avg_logp") if name not in before]
        if missing:
            raise WorkbenchError(
                f"The table lacks the column {missing[0]!r}: give a table from wb.score or run.scores."
            )
        if before["pair_id"].duplicated().any():
            raise WorkbenchError("The table holds a pair twice: choose one step, such as scores[scores.step == 0].")
        table = before.assign(lead=before["chosen_avg_logp"] - before["rejected_avg_logp"])
    else:
        table = compare_scores(before, after, noise)
        both = [name for name in _BOTH if name in before and name in after]
        numbers = before[["pair_id", *both]].merge(
            after[["pair_id", *both]], on="pair_id", suffixes=("_before", "_after")
        )
        rest = before.drop(columns=[name for name in before.columns if name in table and name != "pair_id"])
        rest = rest.drop(
            columns=[
                name
                for name in (
                    *_BOTH,
                    "step",
                    "chosen_avg_logp",
                    "rejected_avg_logp",
                    "margin",
                    "correct",
                    "beyond_gamma",
                    "chosen_reward",
                    "rejected_reward",
                )
                if name in rest
            ]
        )
        table = table.merge(numbers, on="pair_id").merge(rest, on="pair_id")
    front = [name for name in _FRONT if name in table]
    return table[front + [name for name in table.columns if name not in front]].reset_index(drop=True)


def filters(table) -> list[Filter]:
    """The filters of a `pair_table`, "all" first; masks are computed once. "right" and "ahead": the lead is above 0."""
    import pandas as pd

    found = [Filter("all", "Every pair.", pd.Series(True, index=table.index))]
    if "flip" in table:
        right = table["lead_after"] > 0
        by_outcome = [Filter(*words, table["became"] == became) for became, words in _BECAME.items()]
        found += [one for one in by_outcome if one.name != WITHIN_NOISE or one.count]
        found += [
            Filter("lead fell", "The lead of the chosen answer is smaller than before.", table["lead_change"] < 0),
            Filter(
                "lost log-probability",
                f"The chosen answer became less likely by more than {LOST_NATS:g} nats per token.",
                table["chosen_change"] < -LOST_NATS,
            ),
        ]
    else:
        right = table["lead"] > 0
        found += [
            Filter("chosen ahead", "The chosen answer is likelier per token than the rejected one.", right),
            Filter("chosen behind", "The chosen answer is no likelier per token than the rejected one.", ~right),
        ]
    if "chosen_tokens" in table:
        longer = table["rejected_tokens"] > table["chosen_tokens"]
        found.append(
            Filter("longer rejected ahead", "The rejected answer is ahead, and it is the longer one.", ~right & longer)
        )
    return found


def noise_sentence(noise, within, noun="flip", runs="this run") -> str:
    """What the noise of scoring means for what is counted: `within` changes of sides lie within it. noise: nats per
    token; None where it was not measured.

    noun: what is counted, "flip" or "difference". runs: where it is measured, such as "this run".
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
    """The texts of each pair in one line of search, lower case."""
    texts = [table[name].astype(str).to_list() for name in ("prompt", "chosen", "rejected") if name in table]
    return ["\n".join(parts).casefold() for parts in zip(*texts, strict=True)] if texts else [""] * len(table)
