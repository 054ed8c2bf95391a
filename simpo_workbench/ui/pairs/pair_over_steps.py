"""A run over all its evaluated steps, as panels hold it: read once, and after that only what is new."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from functools import cached_property

from ...analysis.leads import AGREEMENTS, agreement, history_of, leads_by_step, steps_of
from ...base.errors import WorkbenchError
from ...base.files import read_jsonl
from ...runs.folder import RunFolder, run_names
from ...runs.run import Run

_KEPT_HISTORIES = 12  # of sixty thousand pairs and thirty steps one takes some 10 MB
_NUMBERS = ["pair_id", "chosen_tokens", "rejected_tokens", "chosen_avg_logp", "rejected_avg_logp", "gamma_beta_ratio"]
#: Where a pair of two runs belongs, by what `agreement` says of both.
GROUPS = {
    "both right": AGREEMENTS[0],
    "only this run": "this",
    "only that run": "that",
    "neither": AGREEMENTS[2],
    "too close to tell": AGREEMENTS[3],
}


@dataclass(frozen=True)
class Journey:
    """What was read of a run: scores {step: (stamp of the file, DataFrame by pair_id)}, answers {step: (stamp,
    records)}, texts by pair_id, the noise of scoring.
    """

    name: str
    scores: dict = field(default_factory=dict)
    answers: dict = field(default_factory=dict)
    texts: object = None
    noise: float | None = None
    _histories: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def steps(self) -> list[int]:
        return sorted(self.scores)

    @cached_property
    def leads(self):
        """DataFrame (pairs, steps), nats per token."""
        import pandas as pd

        leads = {
            step: found["chosen_avg_logp"] - found["rejected_avg_logp"]
            for step, (_, found) in sorted(self.scores.items())
        }
        return pd.concat(leads, axis=1, sort=False)

    @property
    def gamma_beta_ratio(self) -> float | None:
        """γ/β at the newest step; None for a loss without it."""
        newest = self.scores[self.steps[-1]][1]
        return (
            (float(newest["gamma_beta_ratio"].iloc[0]) or None)
            if "gamma_beta_ratio" in newest and len(newest)
            else None
        )

    @cached_property
    def prompts(self):
        """Series of the prompts in the order of the leads; None where the texts have none."""
        return self.texts["prompt"].reindex(self.leads.index) if "prompt" in self.texts else None

    def history(self, noise: float, until: int | None = None):
        """The `lead_history` until a step (default: all of it).

        Of the steps looked at last it is kept, so it is not to be changed.
        """
        steps = [step for step in self.leads if until is None or step <= until]
        key = noise, len(steps)
        if key not in self._histories:
            if len(self._histories) == _KEPT_HISTORIES:
                del self._histories[next(iter(self._histories))]
            self._histories[key] = history_of(self.leads[steps], self.prompts, noise)
        return self._histories[key]

    def reached(self, step: int) -> int:
        """The last evaluated step that is not after `step`, or the first one."""
        return max((one for one in self.steps if one <= step), default=self.steps[0])

    def pair(self, pair_id: str, until: int) -> dict:
        """A pair's texts and numbers at the first and at the last step up to `until` at which it was scored, as
        `pair_card` takes them.
        """
        steps = [step for step in self.steps if step <= until and pair_id in self.scores[step][1].index]
        numbers = [
            self.scores[step][1].loc[pair_id].to_dict()
            for step in (steps[:1] if len(steps) < 2 else (steps[0], steps[-1]))
        ]
        made = {"pair_id": pair_id, **(self.texts.loc[pair_id].to_dict() if pair_id in self.texts.index else {})}
        made |= {name: value for one in numbers for name, value in one.items() if name.endswith("_tokens")}
        for one, end in zip(numbers, ("",) if len(numbers) == 1 else ("_before", "_after"), strict=True):
            made |= {f"{name}{end}": one[name] for name in ("chosen_avg_logp", "rejected_avg_logp")}
            made[f"lead{end}"] = one["chosen_avg_logp"] - one["rejected_avg_logp"]
        return made | ({"flip": ""} if len(numbers) == 2 else {})


def runs_beside(run: Run) -> list[str]:
    """Names of the other runs in the same root that were evaluated."""
    root = run.path.parent
    return sorted(name for name in run_names(root) if name != run.name and RunFolder(root / name).evaluated_steps())


def read_journeys(run: Run, beside: str, known: Journey | None = None, known_other: Journey | None = None):
    """(Journey of a run, Journey of the one beside it, names of those that could be); files that were known and have
    not changed are not read again.

    A Journey is None where nothing was evaluated yet, or none is wanted. Errors: WorkbenchError when the two runs have
    no pair in common.
    """
    journey, names, other = _journey(run.folder, known), runs_beside(run), None
    if journey is not None and beside in names:
        other = _journey(RunFolder(run.path.parent / beside), known_other)
        if other is not None and not journey.leads.index.isin(other.leads.index).any():
            raise WorkbenchError(
                f"The runs {run.name!r} and {beside!r} have no pair in common: they were evaluated on different pairs."
            )
    return journey, other, names


def journey_of_scores(scores) -> Journey:
    """A Journey of a DataFrame of all steps, as `run.scores`; without sampled answers, and its noise is not known."""
    leads_by_step(scores)  # refuses in words what is no such table
    scores = scores.reset_index(drop=True).assign(
        pair_id=scores["pair_id"].map(str).to_numpy()
    )  # rows are taken by label, and a page names pairs by text
    texts = scores.drop_duplicates("pair_id").set_index("pair_id")
    texts = texts[[name for name in ("prompt", "chosen", "rejected") if name in texts]]
    numbers = scores[[name for name in _NUMBERS if name in scores]]
    return Journey(
        "scores",
        {
            int(step): (None, numbers.loc[rows].set_index("pair_id"))
            for step, rows in scores.groupby("step").groups.items()
        },
        {},
        texts,
    )


def joined(now, other: Journey, there: int, noise: float):
    """The pairs of two runs, one row each: lead_here and lead_there (nats per token), became_here and became_there,
    group: a name of GROUPS.

    now: the `lead_history` of this run until the step that is looked at. there: the step of the other run.
    """
    import numpy as np

    theirs = other.history(noise, there).set_index("pair_id")
    mine = now[now["pair_id"].isin(theirs.index)].reset_index(drop=True)
    theirs = theirs.loc[mine["pair_id"]].reset_index(drop=True)
    rows = mine[["pair_id", *(["prompt"] if "prompt" in mine else [])]].assign(
        lead_here=mine[steps_of(mine)[-1]],
        lead_there=theirs[there],
        became_here=mine["became"],
        became_there=theirs["became"],
    )
    rows = rows.dropna(subset=["lead_here", "lead_there"]).reset_index(drop=True)
    found = agreement(rows[["lead_here", "lead_there"]], noise)
    names = {value: name for name, value in GROUPS.items()}
    rows["group"] = [
        names[one] for one in np.where(found == AGREEMENTS[1], np.where(rows["lead_here"] > 0, "this", "that"), found)
    ]
    return rows


def _journey(folder, known):
    import pandas as pd

    known = known if known is not None and known.name == folder.name else Journey(folder.name)
    scores = _new_files(
        folder.evaluated_steps(),
        folder.scores,
        known.scores,
        lambda path: pd.read_parquet(path, columns=_NUMBERS).set_index("pair_id"),
    )
    if not scores:
        return None
    answers = _new_files(folder.sampled_steps(), folder.generations, known.answers, read_jsonl)
    texts = (
        known.texts
        if known.texts is not None
        else pd.read_parquet(folder.pairs, columns=["pair_id", "prompt", "chosen", "rejected"]).set_index("pair_id")
    )
    noise = (
        known.noise if known.noise is not None else Run(folder).scoring_noise
    )  # its record comes a moment after the first scores
    return replace(known, scores=scores, answers=answers, texts=texts, noise=noise)


def _new_files(steps, path_of, known, read):
    found = {}
    for step in steps:
        path = path_of(step)
        with contextlib.suppress(FileNotFoundError):  # a run that goes back to a checkpoint takes files away
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            found[step] = known[step] if step in known and known[step][0] == stamp else (stamp, read(path))
    return found
