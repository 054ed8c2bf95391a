"""The leads of all pairs over the evaluated steps: which pairs flipped, when, and whether another run agrees.

Pure functions of DataFrames. A lead is the chosen answer's average log-probability minus the rejected one's, in nats
per token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..base.errors import WorkbenchError
from .scores import require_noise, sides

if TYPE_CHECKING:
    import pandas as pd

#: Outcomes of pairs that flipped.
FLIPPED = ("to right", "to wrong", "back and forth")
#: Where a pair of two runs belongs.
GROUPS = ("both right", "only this run", "only that run", "neither", "too close to tell")


def lead_history(scores, noise: float = 0.0) -> pd.DataFrame:
    """One row per pair: its lead at every evaluated step, how often and when it flipped, and the outcome.

    scores: DataFrame of all steps, as `run.scores`. noise: of scoring, nats per token, as `run.scoring_noise`.
    Columns: pair_id; prompt (where the scores have it); one column per evaluated step, named by the step as an int,
    with the lead (nats per token; NaN where the pair was not scored then); missing: the number of those steps; flips;
    last_flip: the step after it (NA without one); became: "still right", "still wrong", "to right", "to wrong", "back
    and forth" (more than one flip), or "undecided" for a pair that never left the noise. A pair is right once its lead
    is above the noise and wrong once it is as far below 0; in between it stays what it was. So the flips of two steps
    are those of `wb.compare_scores`.
    Errors: WorkbenchError for a table without these columns or with a pair twice at one step; for a noise below 0.
    """
    prompts = None
    if {"pair_id", "prompt"} <= set(scores.columns):
        prompts = scores.drop_duplicates("pair_id").set_index("pair_id")["prompt"]
    return lead_history_of(leads_by_step(scores), prompts, noise)


def leads_by_step(scores) -> pd.DataFrame:
    """DataFrame of leads, one row per pair_id and one column per evaluated step; NaN where a pair was not scored."""
    import pandas as pd

    missing = [name for name in ("step", "pair_id", "chosen_avg_logp", "rejected_avg_logp") if name not in scores]
    if missing:
        raise WorkbenchError(
            f"The scores lack the column {missing[0]!r}: give run.scores, which holds all evaluated steps."
        )
    if scores.duplicated(["step", "pair_id"]).any():
        raise WorkbenchError("The scores hold a pair twice at one step: give those of one run.")
    scores = scores.reset_index(drop=True)  # rows are taken by label, and concatenated tables have labels twice
    leads = scores["chosen_avg_logp"] - scores["rejected_avg_logp"]
    columns = {
        int(step): pd.Series(leads[rows].to_numpy(), index=scores.loc[rows, "pair_id"].to_numpy(), dtype=float)
        for step, rows in scores.groupby("step", sort=True).groups.items()
    }
    return pd.concat(columns, axis=1, sort=False) if columns else pd.DataFrame(index=pd.Index([], dtype=object))


def lead_history_of(leads, prompts=None, noise: float = 0.0) -> pd.DataFrame:
    """The table of `lead_history` from leads by step. prompts: Series by pair_id, or None."""
    import pandas as pd

    require_noise(noise)
    flips, last, became = _course(leads.to_numpy(dtype=float), list(leads.columns), noise)
    table = leads.copy()
    table.insert(0, "pair_id", leads.index)  # the index itself: to copy sixty thousand texts takes long
    if prompts is not None:
        table.insert(1, "prompt", prompts.reindex(leads.index))
    table["missing"] = leads.isna().sum(axis=1).to_numpy()
    table["flips"] = flips
    table["last_flip"] = pd.array(last, dtype="Int64")
    table.loc[flips == 0, "last_flip"] = pd.NA
    table["became"] = became
    return table.reset_index(drop=True)


def steps_of(history) -> list[int]:
    """The evaluated steps of a `lead_history`, in rising order."""
    return [name for name in history.columns if isinstance(name, int)]


def _course(values, steps, noise):
    """(number of flips, step of the last one, outcome of each pair), each (pairs,), of leads (pairs, steps)."""
    import numpy as np

    side = np.zeros(len(values), dtype=np.int8)  # 1 right, −1 wrong, 0 not beyond the noise so far
    flips, last = np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=np.int64)
    for step, lead in zip(steps, values.T, strict=True):
        beyond = sides(lead, noise)
        now = np.where(beyond == 0, side, beyond)
        flipped = (side != 0) & (now != side)
        flips[flipped] += 1
        last[flipped] = step
        side = now
    names = np.select(
        [flips > 1, (flips == 1) & (side > 0), flips == 1, side > 0, side < 0],
        ["back and forth", "to right", "to wrong", "still right", "still wrong"],
        "undecided",
    )
    return flips, last, names.astype(object)


def compare_histories(here, there, noise: float = 0.0) -> pd.DataFrame:
    """The pairs that two runs hold and scored at their last steps, one row each: how both ended, and who was right.

    here, there: DataFrames from `lead_history`, of which the last step counts. Columns: pair_id, prompt (where `here`
    has it), lead_here and lead_there (nats per token), became_here and became_there, group (one of GROUPS). A pair is
    right in a run when its lead is above 0. "only this run" and "only that run" need leads on both sides of 0, each
    beyond the noise of scoring (nats per token); pairs that differ by the sign alone are "too close to tell".
    """
    import numpy as np

    columns = ["pair_id", *(["prompt"] if "prompt" in here else [])]
    rows = here[columns].assign(lead_here=here[steps_of(here)[-1]], became_here=here["became"])
    others = there[["pair_id"]].assign(lead_there=there[steps_of(there)[-1]], became_there=there["became"])
    rows = rows.merge(others, on="pair_id").dropna(subset=["lead_here", "lead_there"]).reset_index(drop=True)
    right_here, right_there = rows["lead_here"] > 0, rows["lead_there"] > 0
    side_here, side_there = sides(rows["lead_here"], noise), sides(rows["lead_there"], noise)
    cases = [
        right_here & right_there,
        (side_here > 0) & (side_there < 0),
        (side_here < 0) & (side_there > 0),
        ~right_here & ~right_there,
    ]
    rows["group"] = np.select(cases, GROUPS[:4], GROUPS[4]).astype(object)
    return rows
