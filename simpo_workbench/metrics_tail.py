"""A growing metrics.jsonl, read on from where the last look ended: a run of ten thousand steps is not read anew for every point."""

from __future__ import annotations

import json
import os
from pathlib import Path


class MetricsTail:
    """The records of a run as they come. `evaluations`, `events`: lists of records; training records are kept as columns of numbers alone.

    `read()` takes what is new; a file that was written anew (a resumed run drops what came after its checkpoint) is read again from its beginning.
    """

    def __init__(self, path: Path):
        self.path = path
        self._forget()

    def _forget(self):
        self._end, self._identity, self.damaged_lines = 0, None, 0
        self.evaluations: list[dict] = []
        self.events: list[dict] = []
        self.last_train: dict = {}
        self._columns: dict[str, list] = {"step": []}

    def read(self) -> list[dict]:
        """The records that are new since the last look. A torn last line waits until it is whole; a damaged one is counted in `damaged_lines`."""
        try:
            with open(self.path, "rb") as file:
                identity, size = _identity(file.fileno())
                if identity != self._identity or size < self._end:
                    self._forget()
                    self._identity = identity
                file.seek(self._end)
                content = file.read()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._end += len(whole)
        new = []
        for line in whole.split(b"\n")[:-1]:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                self.damaged_lines += 1
                continue
            if isinstance(record, dict):
                new.append(record)
                self._take(record)
        return new

    @property
    def steps(self) -> int:
        """How many training steps were read."""
        return len(self._columns["step"])

    def column(self, name: str) -> list[float]:
        """One metric of all training steps, without those that lack it."""
        return [value for value in self._columns.get(name, []) if value == value]

    def frame(self):
        """DataFrame of all records as `run.metrics` has it, in the order of kinds: training, evaluations, events."""
        import numpy as np
        import pandas as pd

        train = pd.DataFrame({name: np.asarray(values, dtype=float) for name, values in self._columns.items()})
        train["kind"] = "train"
        rest = pd.DataFrame([*self.evaluations, *self.events], columns=None if self.evaluations or self.events else ["kind", "step"])
        return pd.concat([part for part in (train, rest) if len(part)], ignore_index=True) if len(train) or len(rest) else rest

    def _take(self, record):
        kind = record.get("kind")
        if kind == "eval":
            self.evaluations.append(record)
        elif kind == "event":
            self.events.append(record)
        elif kind == "train":
            self.last_train = record
            before = self.steps
            for name, value in record.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    self._columns.setdefault(name, [float("nan")] * before).append(value)
            for values in self._columns.values():  # a metric that this record lacks
                if len(values) <= before:
                    values.append(float("nan"))


def _identity(file):
    found = os.fstat(file)
    return (found.st_dev, found.st_ino), found.st_size
