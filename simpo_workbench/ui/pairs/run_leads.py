"""The scores and sample answers of a run's evaluated steps: read once, and after that only what is new."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from ...analysis.leads import lead_history_of, leads_by_step
from ...base.errors import WorkbenchError
from ...base.files import file_stamp
from ...runs.folder import RunFolder, run_names
from ...runs.manifest import Manifest
from ...runs.run import Run
from ...runs.verified import read_answers, read_scores, read_texts

if TYPE_CHECKING:
    import pandas as pd

_KEPT_HISTORIES = 12  # one of sixty thousand pairs and thirty steps takes some 10 MB
_NUMBERS = ["pair_id", "chosen_tokens", "rejected_tokens", "chosen_avg_logp", "rejected_avg_logp", "gamma_beta_ratio"]


@dataclass(frozen=True)
class RunLeads:
    """Scores and sample answers read from a run.

    scores: {step: (stamp of the file, DataFrame by pair_id)}; answers: {step: (stamp, records)}; texts: DataFrame by
    pair_id; noise: of scoring, nats per token (None: not measured).
    """

    name: str
    scores: dict = field(default_factory=dict)
    answers: dict = field(default_factory=dict)
    texts: object = None
    noise: float | None = None
    _histories: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def steps(self) -> list[int]:
        """The evaluated steps, in rising order."""
        return sorted(self.scores)

    @cached_property
    def leads(self) -> pd.DataFrame:
        """DataFrame (pairs, steps), nats per token."""
        import pandas as pd

        tables = {step: table for step, (_, table) in sorted(self.scores.items())}
        leads = {step: table["chosen_avg_logp"] - table["rejected_avg_logp"] for step, table in tables.items()}
        return pd.concat(leads, axis=1, sort=False)

    @property
    def gamma_beta_ratio(self) -> float | None:
        """γ/β at the newest step; None for a loss without it."""
        newest = self.scores[self.steps[-1]][1]
        if "gamma_beta_ratio" not in newest or not len(newest):
            return None
        return float(newest["gamma_beta_ratio"].iloc[0]) or None

    @cached_property
    def prompts(self) -> pd.Series | None:
        """Series of the prompts in the order of the leads; None where the texts have none."""
        return self.texts["prompt"].reindex(self.leads.index) if "prompt" in self.texts else None

    def lead_history(self, noise: float, until: int | None = None) -> pd.DataFrame:
        """The `lead_history` until a step (default: the last); it is kept for the next call, so do not change it."""
        steps = [step for step in self.leads if until is None or step <= until]
        key = noise, len(steps)
        if key not in self._histories:
            if len(self._histories) == _KEPT_HISTORIES:
                del self._histories[next(iter(self._histories))]
            self._histories[key] = lead_history_of(self.leads[steps], self.prompts, noise)
        return self._histories[key]

    def reached(self, step: int) -> int:
        """The last evaluated step that is not after `step`, or the first one."""
        return max((evaluated for evaluated in self.steps if evaluated <= step), default=self.steps[0])

    def pair(self, pair_id: str, until: int) -> dict:
        """A pair's texts and its numbers at the first and last step up to `until` that scored it, for `pair_card`."""
        steps = [step for step in self.steps if step <= until and pair_id in self.scores[step][1].index]
        ends = {"": steps[0]} if len(steps) == 1 else {"_before": steps[0], "_after": steps[-1]}
        pair = {"pair_id": pair_id}
        if pair_id in self.texts.index:
            pair |= self.texts.loc[pair_id].to_dict()
        for end, step in ends.items():
            numbers = self.scores[step][1].loc[pair_id]
            pair |= {name: value for name, value in numbers.items() if name.endswith("_tokens")}
            pair |= {f"{name}{end}": numbers[name] for name in ("chosen_avg_logp", "rejected_avg_logp")}
            pair[f"lead{end}"] = numbers["chosen_avg_logp"] - numbers["rejected_avg_logp"]
        return pair


def runs_beside(run: Run) -> list[str]:
    """Names of the other runs in the same root that were evaluated."""
    root = run.path.parent
    return sorted(name for name in run_names(root) if name != run.name and RunFolder(root / name).evaluated_steps())


def read_run_leads(
    run: Run, beside: str, known: RunLeads | None = None, known_other: RunLeads | None = None
) -> tuple[RunLeads | None, RunLeads | None, list[str]]:
    """(RunLeads of the run, RunLeads of the run called `beside`, names of the runs that could be chosen for it).

    RunLeads are None for a run that was not evaluated yet. Files that did not change since known and known_other were
    read are not read again. Errors: WorkbenchError when the two runs have no pair in common.
    """
    here, names, other = _read_run(run.folder, known), runs_beside(run), None
    if here is not None and beside in names:
        other = _read_run(RunFolder(run.path.parent / beside), known_other)
        if other is not None and not here.leads.index.isin(other.leads.index).any():
            raise WorkbenchError(
                f"The runs {run.name!r} and {beside!r} have no pair in common: they were evaluated on different pairs."
            )
    return here, other, names


def run_leads_of_scores(scores) -> RunLeads:
    """RunLeads of a DataFrame of all steps, as `run.scores`: without answers, and its noise is not known.

    Errors: WorkbenchError for a table that is not one.
    """
    leads_by_step(scores)  # for its checks
    # rows are taken by label, so every label must be there once; the page knows pairs by text
    scores = scores.reset_index(drop=True).assign(pair_id=scores["pair_id"].map(str).to_numpy())
    texts = scores.drop_duplicates("pair_id").set_index("pair_id")
    texts = texts[[name for name in ("prompt", "chosen", "rejected") if name in texts]]
    numbers = scores[[name for name in _NUMBERS if name in scores]]
    rows_of = scores.groupby("step").groups
    by_step = {int(step): (None, numbers.loc[rows].set_index("pair_id")) for step, rows in rows_of.items()}
    return RunLeads("scores", by_step, {}, texts)


def _read_run(folder, known):
    if known is None or known.name != folder.name:
        known = RunLeads(folder.name)
    scores = _new_files(folder, folder.evaluated_steps(), folder.scores, known.scores, _read_scores)
    if not scores:
        return None
    answers = _new_files(folder, folder.sampled_steps(), folder.generations, known.answers, read_answers)
    texts, noise = known.texts, known.noise
    if texts is None:
        texts = read_texts(folder, ["pair_id", "prompt", "chosen", "rejected"]).set_index("pair_id")
    if noise is None:  # its record comes a moment after the first scores
        noise = Run(folder).scoring_noise
    return replace(known, scores=scores, answers=answers, texts=texts, noise=noise)


def _read_scores(folder, step):
    return read_scores(folder, step, _NUMBERS).set_index("pair_id")


def _new_files(folder, steps, path_of, known, read):
    """{step: (stamp, content)} of the steps' files; those in `known` with the same stamp are not read again."""
    files = {}
    for step in steps:
        path = path_of(step)
        stamp = file_stamp(path)
        try:
            files[step] = known[step] if step in known and known[step][0] == stamp else (stamp, read(folder, step))
        except WorkbenchError:
            # a run that goes back to a checkpoint removes files
            if path.exists() or Manifest.read(folder.path).problem(path):
                raise
    return files
