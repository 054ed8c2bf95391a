"""The content of the pair table, read from runs or given scores; and the writing of pairs to a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ...analysis.pair_filters import Filter, filters, pair_table, searchable
from ...base.errors import WorkbenchError
from ...runs.folder import RunFolder
from ...runs.run import Run
from .run_leads import runs_beside

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LoadedPairs:
    """The evaluated steps, the two that are shown, and the table of their pairs with its filters.

    noise: of scoring, nats per token; None where it was not measured. after_of: name of the run that `after` is a step
    of, "" for the run itself; after_steps: that run's steps; others: the runs that could be chosen.
    """

    steps: list[int]
    before: int | None
    after: int | None
    table: object
    filters: list[Filter]
    noise: float | None = None
    after_of: str = ""
    after_steps: list[int] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @cached_property
    def places(self) -> pd.Index:
        """Index of the pair ids, in the order of the table."""
        import pandas as pd

        return pd.Index(self.table["pair_id"])

    @cached_property
    def light(self) -> pd.DataFrame:
        """The table without the answers, so that sorting and filtering it copies less."""
        return self.table.drop(columns=["chosen", "rejected"], errors="ignore")

    @cached_property
    def texts(self) -> list[str]:
        """The texts that are searched, made at the first search."""
        return searchable(self.table)


def loaded_pairs(before, after, noise: float) -> LoadedPairs:
    """LoadedPairs of one or two scores tables without a run. noise: of scoring, nats per token."""
    table = pair_table(before, after, noise)
    return LoadedPairs([], None, None, table, filters(table), noise)


def read_pairs(run: Run, before: int | None, after: int | None, after_of: str) -> LoadedPairs | None:
    """LoadedPairs of a run; None when nothing was evaluated yet.

    before, after: evaluated steps (None: the first, the last). after_of: name of the run of `after`, "" for the same.
    """
    steps, others = run.folder.evaluated_steps(), runs_beside(run)
    if not steps:
        return None
    second = Run(RunFolder(run.path.parent / after_of)) if after_of in others else run
    after_steps = second.folder.evaluated_steps()
    before = before if before in steps else steps[0]
    after = after if after in after_steps else after_steps[-1]
    two = second is not run or len(steps) > 1
    noises = [each.scoring_noise for each in ((run,) if second is run else (run, second))]
    noise = None if None in noises else max(noises)
    table = pair_table(run.scores_at(before), second.scores_at(after) if two else None, noise or 0.0)
    other = "" if second is run else second.name
    return LoadedPairs(steps, before, after, table, filters(table), noise, other, after_steps, others)


def write_pairs(rows, path: Path) -> None:
    """Write a DataFrame as CSV or JSONL, by the ending of the path.

    Errors: WorkbenchError for another ending, and for a file that exists or cannot be written.
    """
    if path.suffix not in (".csv", ".jsonl"):
        raise WorkbenchError(f"{path.name!r} does not say how to write it: end the name with .csv or .jsonl.")
    if path.exists():
        raise WorkbenchError(f"{str(path)!r} is there already: choose another name, nothing is replaced.")
    try:
        if path.suffix == ".csv":
            rows.to_csv(path, index=False)
        else:
            rows.to_json(path, orient="records", lines=True, force_ascii=False)
    except OSError as error:
        raise WorkbenchError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from None
