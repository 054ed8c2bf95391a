"""A growing metrics.jsonl, read on from where the last read ended: no run of ten thousand steps is read again for every
point.

It differs from `base.files.read_jsonl_from`: a chart goes on without a damaged line, and starts over when the file was
replaced.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..analysis.objective import last_objective
from ..base.checksums import UNCHECKED, read_line
from .folder import RunFolder
from .held_out import at_one_objective
from .manifest import Manifest

if TYPE_CHECKING:
    import pandas as pd

    from ..config.run_config import LossConfig


class MetricsTail:
    """The records of a run as they come. `evaluations` and `events` are lists of records; of training records only the
    columns of numbers are kept. `last_measured` is the newest record with an objective.

    `read()` takes what is new. A file that was replaced (a resumed run drops what came after its checkpoint) is read
    again from its beginning.
    """

    def __init__(self, path: Path):
        self.path = path
        self._forget()

    def _forget(self):
        self._end, self._last_line, self._identity, self.damaged_lines = 0, b"", None, 0
        self._is_cut = False
        self._number: int | None = UNCHECKED  # of the last line; None after a damaged one
        self.evaluations: list[dict] = []
        self.events: list[dict] = []
        self.last_measured: dict = {}
        self._columns: dict[str, list] = {"step": []}

    def read(self) -> list[dict]:
        """The records that are new since the last call.

        A torn last line waits until it is complete; a damaged line is counted in `damaged_lines`, and so is an end that
        was published and is lost.
        """
        sealed = Manifest.read(self.path.parent).sealed_bytes(self.path)  # before its records, which may grow meanwhile
        new = self._new_records()
        if not self._is_cut and self._end < sealed:
            self._is_cut = True
            self.damaged_lines += 1
        return new

    def _new_records(self):
        try:
            with open(self.path, "rb") as file:
                identity, size = _identity(file.fileno())
                file.seek(self._end - len(self._last_line))
                if identity != self._identity or size < self._end or file.read(len(self._last_line)) != self._last_line:
                    self._forget()
                    self._identity = identity
                file.seek(self._end)
                content = file.read()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._end += len(whole)
        new = []
        if whole:
            self._last_line = whole[whole.rfind(b"\n", 0, -1) + 1 :]
        for line in whole.split(b"\n")[:-1]:
            record = self._record_on(line)
            if record and isinstance(record.get("step"), int):
                new.append(record)
                self._take(record)
            else:
                self.damaged_lines += 1
        return new

    def _record_on(self, line):
        """The object on a line; None where it is damaged. A line that is missing or doubled is counted as damaged."""
        try:
            record, number = read_line(line)
        except ValueError:
            self._number = None
            return None
        before, self._number = self._number, number
        if before is not None and number and number != before + 1:
            if number <= before:  # a doubled line would count a step twice
                return None
            self.damaged_lines += 1
        return record if isinstance(record, dict) else None

    @property
    def steps(self) -> int:
        """The number of training steps read so far."""
        return len(self._columns["step"])

    def points(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of one metric, for every training step that has it."""
        return [
            (int(step), value)
            for step, value in zip(self._columns["step"], self._columns.get(name, []), strict=False)
            if value == value
        ]

    def column(self, name: str) -> list[float]:
        """The values of one metric, for every training step that has it."""
        return [value for value in self._columns.get(name, []) if value == value]

    def frame(self, evaluations: list[dict] | None = None) -> pd.DataFrame:
        """DataFrame of all records with the columns of `run.metrics`: first training, then evaluations, then events.

        evaluations: in place of those that were read, such as `evaluations_at_last_objective`.
        """
        import numpy as np
        import pandas as pd

        train = pd.DataFrame({name: np.asarray(values, dtype=float) for name, values in self._columns.items()})
        train["kind"] = "train"
        records = [*(self.evaluations if evaluations is None else evaluations), *self.events]
        rest = pd.DataFrame(records, columns=None if records else ["kind", "step"])
        parts = [part for part in (train, rest) if len(part)]
        return pd.concat(parts, ignore_index=True) if parts else rest

    def objective(self, loss: LossConfig) -> LossConfig:
        """The loss with the β and γ/β of the newest record. loss: as the run was configured."""
        return last_objective(loss, [self.last_measured])

    def evaluations_at_last_objective(self, loss: LossConfig) -> list[dict]:
        """The evaluations as `run.records` has them, all at `objective`. Errors: WorkbenchError for damaged scores."""
        return at_one_objective(RunFolder(self.path.parent), self.objective(loss), self.evaluations)

    def _take(self, record):
        kind = record.get("kind")
        if kind in ("eval", "train") or "beta" in record:  # also an event that sets it
            self.last_measured = record
        if kind == "eval":
            self.evaluations.append(record)
        elif kind == "event":
            self.events.append(record)
        elif kind == "train":
            before = self.steps
            for name, value in record.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
                    if name not in self._columns:
                        self._columns[name] = [float("nan")] * before
                    self._columns[name].append(value)
            for values in self._columns.values():  # a metric that this record lacks
                if len(values) <= before:
                    values.append(float("nan"))


def _identity(file):
    facts = os.fstat(file)
    return (facts.st_dev, facts.st_ino), facts.st_size
