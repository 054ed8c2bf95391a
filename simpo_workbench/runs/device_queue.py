"""One run per device: which run has it, which ones wait for it, and in which order.

    <cache>/devices/<device>/held        locked by the process that uses the device; the kernel unlocks it at its death
    <cache>/devices/<device>/<id>.json   a run that waits: {"run", "name", "process", "place"}

A waiting process that died is skipped, so a dead run never blocks the queue; one that is stopped or hangs is passed
over while it gives no sign, and keeps its place. A run uses the first device that CUDA_VISIBLE_DEVICES shows it.

The folder is $SIMPO_WORKBENCH_DEVICES where that is set. Its files are for their owner alone (0600), unless that folder
belongs to a group on purpose (chmod 2770): then they are for the group (0660), and several people share one queue.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..base import process
from ..base.errors import WorkbenchError
from ..base.files import read_json, write_json
from ..base.locks import (
    FOLDER_OF_THE_GROUP,
    OF_THE_GROUP,
    PRIVATE,
    PRIVATE_FOLDER,
    belongs_to_a_group,
    only_shared,
    open_lock,
    set_rights,
)
from ..base.paths import cache_folder

if TYPE_CHECKING:
    import pandas as pd

#: A waiting process looks twice a second whether it is its turn; after so long without a look it is passed over.
SILENT_S = 30.0
#: A shared lock on a device that is held for so long by no run of ours is passed over.
SHARED_LOCK_S = 10.0
_GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")


@dataclass(frozen=True)
class Ticket:
    """A waiting run's place in the queue.

    place: lower ones come first. silent: its process is stopped or hangs, so that others go before it.
    """

    path: Path
    run: str
    name: str
    process: dict
    place: float
    silent: bool = False


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
        devices = Path(os.environ.get("SIMPO_WORKBENCH_DEVICES") or cache_folder() / "devices")
        self.folder = devices / self.device
        shared = belongs_to_a_group(devices)
        self._rights = OF_THE_GROUP if shared else PRIVATE
        self._folder_rights = FOLDER_OF_THE_GROUP if shared else PRIVATE_FOLDER
        self._held, self._blocked_since = None, None

    def enter(self, run: Path, name: str, identity: dict | None = None) -> Ticket:
        """The ticket of a process, by default this one: a new one at the end of the queue, or the one it has already.

        Errors: WorkbenchError when the cache folder cannot be written.
        """
        identity = identity or process.identify()
        self._make_folder()
        waiting = self.waiting()
        mine = next((ticket for ticket in waiting if ticket.process == identity), None)
        if mine is not None:
            return mine
        last = max((ticket.place for ticket in waiting), default=0.0)
        path = self.folder / f"{uuid.uuid4().hex}.json"
        self._write(path, {"run": str(run), "name": name, "process": identity, "place": last + 1.0})
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
        held = read_json(self.folder / "held") or {}
        return held if {"run", "name"} <= held.keys() and process.is_alive(held.get("process")) else None

    def take(self, ticket: Ticket) -> bool:
        """Whether this ticket got the device: it was free, and no run waits before it that gives signs of life.

        It is held until `release` or the end of this process. Whoever waits calls this at least every few seconds.
        """
        self._sign(ticket.path)
        first = next((other for other in self.waiting() if not other.silent or other.path == ticket.path), ticket)
        if first.path != ticket.path:
            return False
        if not self.take_at_once(ticket.run, ticket.name):
            return False
        self.leave(ticket)
        return True

    def take_at_once(self, run: str | Path, name: str) -> bool:
        """Whether the run got the device, which was free, past the queue: for runs in a kernel, which cannot wait.

        Errors: WorkbenchError when another user's folder is in the way.
        """
        self._make_folder()
        path = self.folder / "held"
        try:
            file = open_lock(path, self._rights)
        except OSError as error:
            raise self._unusable(path, error) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._pass_over_shared_lock(file, path)
            file.close()
            return False
        if not _is_at(file, path):  # somebody has replaced it meanwhile: the next look finds the new one
            file.close()
            return False
        self._held = file
        # written in place: a rename would leave the lock on a file without a name
        file.truncate(0)
        file.write(json.dumps({"run": str(run), "name": name, "process": process.identify()}).encode())
        file.flush()
        return True

    def _pass_over_shared_lock(self, file, path):
        """After SHARED_LOCK_S put a new file in the place of one that is locked by readers alone: a run holds the lock
        itself, so no run has the device.
        """
        if self.holder() is not None or not only_shared(file):
            self._blocked_since = None
            return
        now = process.awake_s()
        self._blocked_since = now if self._blocked_since is None else self._blocked_since
        if now - self._blocked_since > SHARED_LOCK_S and _is_at(file, path):
            self._blocked_since = None
            with contextlib.suppress(OSError):
                path.unlink()

    def _make_folder(self):
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise self._unusable(self.folder, error) from None
        set_rights(self.folder, self._folder_rights)

    def _unusable(self, path, error):
        return WorkbenchError(
            f"{str(path)!r} cannot be used: {error.strerror}. Point SIMPO_WORKBENCH_DEVICES to a folder of your own, or"
            " share it with a group (docs/reliability.md)."
        )

    def _write(self, path, ticket):
        write_json(path, ticket, rights=self._rights)
        self._sign(path)

    def _sign(self, path):
        """Note on a ticket that its process is alive: as its time of change, in seconds since boot without sleep, which
        no clock that is set changes.
        """
        now = process.awake_s()
        try:
            os.utime(path, (now, now))
        except PermissionError:  # another user has moved it, and so owns it
            if (ticket := read_json(path)) is not None:
                self._write(path, ticket)
        except OSError:  # it is gone
            pass

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
        others = [ticket for ticket in waiting if ticket is not mine]
        at = min(max(place - 1, 0), len(others))
        between = _between(others, at)
        if between is None:  # after some fifty moves no number is left there: all get new ones, in the same order
            for number, ticket in reversed(list(enumerate(others, 1))):
                self._move_to(ticket, others[-1].place + number)
            others = [ticket for ticket in self.waiting() if ticket.path != mine.path]
            between = _between(others, min(at, len(others)))
        self._move_to(mine, between)
        return at + 1

    def _move_to(self, ticket, place):
        raw = read_json(ticket.path)
        if raw is not None:  # else it has just got the device
            self._write(ticket.path, {**raw, "place": place})


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


def _between(others, at) -> float | None:
    """A place in front of the ticket at index `at`, behind the one before it; None where no number is left there."""
    if not others:
        return 0.0
    low = others[at - 1].place if at else others[0].place - 2.0
    high = others[at].place if at < len(others) else others[-1].place + 2.0
    between = (low + high) / 2
    return between if low < between < high else None


def _is_at(file, path):
    """Whether an open file still is the one at this path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def _read(path) -> Ticket | None:
    raw = read_json(path) or {}
    place = raw.get("place")
    if not {"run", "name", "process"} <= raw.keys() or not isinstance(place, (int, float)) or not math.isfinite(place):
        return None
    try:
        silent = process.awake_s() - path.stat().st_mtime > SILENT_S
    except OSError:
        return None
    return Ticket(path, str(raw["run"]), str(raw["name"]), raw["process"], float(place), silent)
