"""Pairs over all evaluated steps, and the same pairs in several runs: which came to lead, when, and whether another
seed agrees. Pure functions of DataFrames.

A lead is that of the chosen answer: its average log-probability minus the rejected one's, nats per token.
"""

from __future__ import annotations

from ..base.errors import WorkbenchError
from .scores import require_noise

#: What may become of a pair, and of a pair in several runs.
FLIPPED = ("to right", "to wrong", "back and forth")
AGREEMENTS = ("right in all", "right in some", "right in none", "too close to tell")


def lead_history(scores, noise=0.0):
    """One row per pair: its lead at every evaluated step, how often and when it flipped, and what became of it.

    scores: DataFrame of all steps, as `run.scores`. noise: of scoring, nats per token, as `run.scoring_noise`. Columns:
    pair_id, prompt (where the scores have it), one column per evaluated step, named by the step as an int, with the
    lead (nats per token; NaN where the pair was not scored then), missing (how many steps those are), flips, last_flip
    (the step after it; NA without one), and became: "still right", "still wrong", "to right", "to wrong", "back and
    forth" (more than one flip), or "undecided" for a pair that never left the noise. A pair is right once its lead is
    above the noise and wrong once it is as far below 0; in between it stays what it was. So of two steps the flips are
    those of `wb.compare_scores`.
    Errors: WorkbenchError for a table without these columns or with a pair twice at one step; for a noise below 0.
    """
    prompts = (
        scores.drop_duplicates("pair_id").set_index("pair_id")["prompt"]
        if {"pair_id", "prompt"} <= set(scores.columns)
        else None
    )
    return history_of(leads_by_step(scores), prompts, noise)


def leads_by_step(scores):
    """DataFrame of leads (nats per token), one row per pair_id, one column per evaluated step in rising order; NaN
    where a pair was not scored.
    """
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


def history_of(leads, prompts=None, noise=0.0):
    """The table of `lead_history` from leads by step. prompts: Series by pair_id, or None."""
    import pandas as pd

    require_noise(noise)
    flips, last, became = _course(leads.to_numpy(dtype=float), list(leads.columns), noise)
    table = leads.copy()
    table.insert(0, "pair_id", leads.index)  # as it is: sixty thousand texts take long to be made anew
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
    """(flips, step of the last one, what became) of leads (pairs, steps), each (pairs,)."""
    import numpy as np

    side = np.zeros(len(values), dtype=np.int8)  # 1 right, −1 wrong, 0 not beyond the noise so far
    first, flips, last = side.copy(), np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=np.int64)
    for step, lead in zip(steps, values.T, strict=True):
        now = np.where(lead > noise, 1, np.where(lead <= -noise, -1, side)).astype(np.int8)  # NaN is neither
        flipped = (side != 0) & (now != side)
        flips[flipped] += 1
        last[flipped] = step
        first = np.where(first == 0, now, first)
        side = now
    names = np.select(
        [flips > 1, (flips == 1) & (side > 0), flips == 1, side > 0, side < 0],
        ["back and forth", "to right", "to wrong", "still right", "still wrong"],
        "undecided",
    )
    return flips, last, names.astype(object)


def join_runs(scores: dict, steps: dict | int | None = None, noise=0.0):
    """One row per pair that all runs hold: how each run ended with it, and whether they agree.

    scores: {name: scores of all steps, as `run.scores`} of at least two runs, such as three seeds of one configuration.
    steps: {name: step} or one step for all; where it is not said, a run's last. noise: of scoring, nats per token (of
    several runs the largest). Columns: pair_id, prompt; lead_<name> at that step (nats per token) and became_<name>
    until then, as in `lead_history`, for every run; right_in (runs in which the lead is above 0), flipped_in (runs in
    which the pair flipped at least once), agreement: "right in all", "right in some", "right in none", or "too close to
    tell" where the runs differ by the sign alone and not beyond the noise. Two runs' numbers side by side:
    `wb.compare_scores`.
    Errors: WorkbenchError for fewer than two runs, a step at which a run was not evaluated, runs without a pair in
    common.
    """
    import pandas as pd

    if len(scores) < 2:
        raise WorkbenchError(
            f"{len(scores)} run is too few to join: give a dict of at least two, such as {{'seed 0': run.scores, 'seed"
            " 1': other.scores}."
        )
    if isinstance(steps, dict) and (strange := set(steps) - set(scores)):
        raise WorkbenchError(
            f"steps names {', '.join(map(repr, sorted(strange)))}, which is no run here:"
            f" {', '.join(map(repr, scores))}."
        )
    histories = {}
    for name, table in scores.items():
        leads, step = leads_by_step(table), steps.get(name) if isinstance(steps, dict) else steps
        known = list(leads.columns)
        if not known or (step is not None and step not in known):
            raise WorkbenchError(f"The run {name!r} was not evaluated at step {step}; it was at {known}.")
        until = leads[[one for one in known if step is None or one <= step]]
        histories[name] = history_of(until[until.iloc[:, -1].notna()], noise=noise).set_index("pair_id")
    first = next(iter(scores.values()))
    common = next(iter(histories.values())).index
    for history in histories.values():
        common = common[common.isin(history.index)]
    if common.empty:
        raise WorkbenchError("The runs have no pair in common: they were evaluated on different pairs.")
    joined = pd.DataFrame({"pair_id": common.to_numpy()})
    if "prompt" in first:
        joined["prompt"] = first.drop_duplicates("pair_id").set_index("pair_id")["prompt"].reindex(common).to_numpy()
    for name, history in histories.items():
        joined[f"lead_{name}"] = history.loc[common, steps_of(history)[-1]].to_numpy()
        joined[f"became_{name}"] = history.loc[common, "became"].to_numpy()
    leads = joined[[f"lead_{name}" for name in histories]]
    joined["right_in"] = (leads > 0).sum(axis=1)
    joined["flipped_in"] = sum(
        (history.loc[common, "flips"] > 0).to_numpy().astype(int) for history in histories.values()
    )
    joined["agreement"] = agreement(leads, noise)
    return joined


def agreement(leads, noise=0.0):
    """What several runs say of the same pairs, (pairs,) of AGREEMENTS: leads (pairs, runs), nats per token.

    Runs disagree where one is right and one wrong beyond the noise.
    """
    import numpy as np

    values = np.asarray(leads, dtype=float)
    right = (values > 0).sum(axis=1)
    told_apart = (values > noise).any(axis=1) & (values <= -noise).any(axis=1)
    return np.select(
        [right == values.shape[1], right == 0, told_apart], [AGREEMENTS[0], AGREEMENTS[2], AGREEMENTS[1]], AGREEMENTS[3]
    ).astype(object)


def answers_by_step(generations):
    """The answers of the fixed prompts over the steps: one row per prompt in the order of asking, columns (what, step):
    table["answer"][20] are those of step 20.

    generations: DataFrame as `run.generations`. what: answer, tokens (without the end of turn), ended, repeated_4grams
    (share, 0 … 1); missing where a prompt was not asked at a step. A prompt that was asked twice at one step counts
    once.
    Errors: WorkbenchError for a table without these columns.
    """
    import pandas as pd

    values = ["answer", "tokens", "ended", "repeated_4grams"]
    missing = [name for name in ("step", "prompt", *values) if name not in generations]
    if missing:
        raise WorkbenchError(f"The answers lack the column {missing[0]!r}: give run.generations.")
    once = generations.drop_duplicates(["step", "prompt"])
    asked = once["prompt"].drop_duplicates()
    return pd.concat(
        {value: once.pivot(index="prompt", columns="step", values=value).reindex(asked) for value in values},
        axis=1,
        names=["what"],
    )  # one by one: numbers stay numbers
