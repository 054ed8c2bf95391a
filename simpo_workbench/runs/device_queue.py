"""One run per device: which run has it, which ones wait for it, and in which order.

    <cache>/devices/<device>/held        locked by the process that uses the device; the kernel unlocks it at its death
    <cache>/devices/<device>/<id>.json   a run that waits: {"run", "name", "process", "place"}

A waiting process that died is skipped, so a dead run never blocks the queue. A run uses the first device that
CUDA_VISIBLE_DEVICES shows it. The folder is $SIMPO_WORKBENCH_DEVICES where that is set.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..base import process
from ..base.errors import WorkbenchError
from ..base.files import read_json, write_json
from ..base.paths import cache_folder

if TYPE_CHECKING:
    import pandas as pd

_GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")


@dataclass(frozen=True)
class Ticket:
    """A waiting run's place in the queue. place: lower ones come first."""

    path: Path
    run: str
    name: str
    process: dict
    place: float


def device_name() -> str:
    """The device that a run started here would use: "cpu", or "gpu-" and the first of CUDA_VISIBLE_DEVICES (or 0)."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1") or not any(Path(name).exists() for name in _GPU_FILES):
        return "cpu"
    first = (visible or "0").split(",")[0].strip()
    return f"gpu-{re.sub(r'[^A-Za-z0-9._-]', '_', first)[:80]}"


class DeviceQueue:
    """The queue for one device, on this machine and for this user."""

    def __init__(self, device: str | None = None):
        self.device = device or device_name()
        self.folder = Path(os.environ.get("SIMPO_WORKBENCH_DEVICES") or cache_folder() / "devices") / self.device
        self._held = None

    def enter(self, run: Path, name: str, identity: dict | None = None) -> Ticket:
        """The ticket of a process, by default this one: a new one at the end of the queue, or the one it has already.

        Errors: WorkbenchError when the cache folder cannot be written.
        """
        identity = identity or process.identify()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkbenchError(
                f"{str(self.folder)!r} cannot be made: {error.strerror}. Point SIMPO_WORKBENCH_CACHE to a folder that"
                " can be written."
            ) from None
        waiting = self.waiting()
        mine = next((ticket for ticket in waiting if ticket.process == identity), None)
        if mine is not None:
            return mine
        last = max((ticket.place for ticket in waiting), default=0.0)
        path = self.folder / f"{uuid.uuid4().hex}.json"
        write_json(path, {"run": str(run), "name": name, "process": identity, "place": last + 1.0})
        return _read(path)

    def leave(self, ticket: Ticket) -> None:
        """Leave the queue."""
        ticket.path.unlink(missing_ok=True)

    def waiting(self) -> list[Ticket]:
        """The waiting runs, the next one first; tickets of dead processes are deleted."""
        tickets = []
        for ticket in map(_read, self.folder.glob("*.json")):
            if ticket is not None and process.is_alive(ticket.process):
                tickets.append(ticket)
            elif ticket is not None:
                ticket.path.unlink(missing_ok=True)
        return sorted(tickets, key=lambda ticket: (ticket.place, ticket.path.name))

    def holder(self) -> dict | None:
        """{"run", "name", "process"} of the run that has the device; None when it is free."""
        held = read_json(self.folder / "held")
        return held if held and process.is_alive(held.get("process")) else None

    def take(self, ticket: Ticket) -> bool:
        """Whether this ticket got the device: it was free, and no run waits before it.

        It is held until `release` or the end of this process.
        """
        waiting = self.waiting()
        if waiting and waiting[0].path != ticket.path:
            return False
        if not self.take_at_once(ticket.run, ticket.name):
            return False
        self.leave(ticket)
        return True

    def take_at_once(self, run: str | Path, name: str) -> bool:
        """Whether the run got the device, which was free, past the queue: for runs in a kernel, which cannot wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = open(self.folder / "held", "a+b")  # noqa: SIM115 - held until the end
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        self._held = file
        # written in place: a rename would leave the lock on a file without a name
        file.truncate(0)
        file.write(json.dumps({"run": str(run), "name": name, "process": process.identify()}).encode())
        file.flush()
        return True

    def release(self) -> None:
        """Give the device back."""
        if self._held is not None:
            self._held.truncate(0)
            self._held.close()
            self._held = None

    def move(self, run: Path, place: int) -> int:
        """The place that a waiting run got: the one asked for (1 is next), or the last.

        Errors: WorkbenchError when it does not wait here.
        """
        waiting = self.waiting()
        mine = next((ticket for ticket in waiting if Path(ticket.run) == Path(run)), None)
        if mine is None and (holder := self.holder()) and Path(holder["run"]) == Path(run):
            raise WorkbenchError(f"The run {Path(run).name!r} has {self.device} already.")
        if mine is None:
            raise WorkbenchError(f"The run {Path(run).name!r} does not wait for {self.device}.")
        others = [ticket.place for ticket in waiting if ticket is not mine]
        at = min(max(place - 1, 0), len(others))
        bounds = [others[0] - 2.0, *others, others[-1] + 2.0] if others else [0.0, 0.0]
        raw = read_json(mine.path)
        if raw is not None:  # else it has just got the device
            write_json(mine.path, {**raw, "place": (bounds[at] + bounds[at + 1]) / 2})
        return at + 1


def list_queue(device: str | None = None) -> pd.DataFrame:
    """One row per run in a device's queue: place (0 has the device), name, state, run (its folder).

    device: by default the one that a run started here would use.
    """
    import pandas as pd

    queue = DeviceQueue(device)
    holder = queue.holder()
    rows = [(0, holder["name"], holder["run"])] if holder else []
    rows += [(number, ticket.name, ticket.run) for number, ticket in enumerate(queue.waiting(), 1)]
    states = [(read_json(Path(run, "status.json")) or {}).get("state", "") for _, _, run in rows]
    return pd.DataFrame(
        [(place, name, state, run) for (place, name, run), state in zip(rows, states, strict=True)],
        columns=["place", "name", "state", "run"],
    )


def _read(path) -> Ticket | None:
    raw = read_json(path) or {}
    if not {"run", "name", "process", "place"} <= raw.keys() or not isinstance(raw["place"], (int, float)):
        return None
    return Ticket(path, str(raw["run"]), str(raw["name"]), raw["process"], float(raw["place"]))
