"""One run per device: who has it, who waits for it, and in which order.

    <cache>/devices/<device>/held        locked by the process that uses the device; the kernel lets go when it dies, however it dies
    <cache>/devices/<device>/<id>.json   a run that waits: {"run", "name", "process", "place"}

A waiting process that died is passed over, so a dead run never blocks the queue. A run uses the first device that
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

from ..base import process
from ..base.errors import WorkbenchError
from ..base.files import read_json, write_json
from ..base.paths import cache_folder

_GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")


@dataclass(frozen=True)
class Ticket:
    """A run that has or wants the device. place: lower ones come first."""

    path: Path
    run: str
    name: str
    process: dict
    place: float


def device_name() -> str:
    """The device that a run started here would use: "cpu", or "gpu-" with the first device that CUDA_VISIBLE_DEVICES
    names (0 without it).
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1") or not any(Path(name).exists() for name in _GPU_FILES):
        return "cpu"
    first = (visible or "0").split(",")[0].strip()
    return f"gpu-{re.sub(r'[^A-Za-z0-9._-]', '_', first)[:80]}"


class DeviceQueue:
    """The queue before one device, on this machine and for this user."""

    def __init__(self, device: str | None = None):
        self.device = device or device_name()
        self.folder = Path(os.environ.get("SIMPO_WORKBENCH_DEVICES") or cache_folder() / "devices") / self.device
        self._held = None

    def enter(self, run: Path, name: str, identity: dict | None = None) -> Ticket:
        """A place at the end of the queue for a process, by default this one; the place it has where it stands here
        already.

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

    def leave(self, ticket: Ticket):
        """Give the place up."""
        ticket.path.unlink(missing_ok=True)

    def waiting(self) -> list[Ticket]:
        """Those who wait, the next one first; places of dead processes are cleared away."""
        tickets = []
        for path in self.folder.glob("*.json") if self.folder.is_dir() else []:
            ticket = _read(path)
            if ticket is None or not process.is_alive(ticket.process):
                if ticket is not None:
                    path.unlink(missing_ok=True)
                continue
            tickets.append(ticket)
        return sorted(tickets, key=lambda ticket: (ticket.place, ticket.path.name))

    def holder(self) -> dict | None:
        """{"run", "name", "process"} of whoever has the device; None when it is free."""
        held = read_json(self.folder / "held")
        return held if held and process.is_alive(held.get("process")) else None

    def take(self, ticket: Ticket) -> bool:
        """Take the device if it is free and nobody waits before this ticket; it is held until `release` or the end of
        this process.
        """
        waiting = self.waiting()
        if waiting and waiting[0].path != ticket.path:
            return False
        if not self.take_at_once(ticket.run, ticket.name):
            return False
        self.leave(ticket)
        return True

    def take_at_once(self, run: str | Path, name: str) -> bool:
        """Take the device if it is free, whoever waits: for runs inside a kernel, which cannot stand in a queue."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = open(self.folder / "held", "a+b")  # noqa: SIM115 - held until the end
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        self._held = file
        # written in place: a rename would leave the lock on a file that nobody sees any more
        file.truncate(0)
        file.write(json.dumps({"run": str(run), "name": name, "process": process.identify()}).encode())
        file.flush()
        return True

    def release(self):
        """Let the next one have it."""
        if self._held is not None:
            self._held.truncate(0)
            self._held.close()
            self._held = None

    def move(self, run: Path, place: int) -> int:
        """The place that a waiting run got: the wanted one, 1 being the next, or the last.

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
        before = others[at - 1] if at else (others[0] - 2.0 if others else 0.0)
        after = others[at] if at < len(others) else before + 2.0
        raw = read_json(mine.path)
        if raw is not None:  # else it has just got the device
            write_json(mine.path, {**raw, "place": (before + after) / 2})
        return at + 1


def queue(device: str | None = None):
    """DataFrame of a device's queue (by default of the one that a run started here would use): place (0 has it), name,
    state, run (its folder).
    """
    import pandas as pd

    line = DeviceQueue(device)
    holder = line.holder()
    rows = [(0, holder["name"], holder["run"])] if holder else []
    rows += [(number, ticket.name, ticket.run) for number, ticket in enumerate(line.waiting(), 1)]
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
