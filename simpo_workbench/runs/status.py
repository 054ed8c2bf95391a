"""Where a run stands, from its folder alone: what its process wrote last, and whether it lives and makes progress."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..base import process
from ..base.errors import WorkbenchError
from ..base.files import read_json
from .folder import END_STATES, LIVE_STATES, RunFolder
from .manifest import Manifest
from .post_mortem import cause_of_death, last_word

#: A step that takes this many times the usual one, and at least this many seconds, has stalled; an evaluation or the
#: first step has after STALLED_EVALUATION_S.
STALLED_STEPS, STALLED_S, STALLED_EVALUATION_S = 10, 120.0, 900.0
#: A living process writes a heartbeat every second; after so long without one it is stopped or hangs.
SILENT_S = 30.0
_BEATS_S = 5.0
_STATES = (*LIVE_STATES, *END_STATES, "suspended")
#: Field of status.json -> the types that it may have.
_TYPES = {
    **dict.fromkeys(("message", "owner", "verdict", "doing"), str),
    **dict.fromkeys(("step", "total_steps", "recommended_step"), int),
    **dict.fromkeys(("seconds_left", "progress_awake_s", "median_step_s", "started"), (int, float)),
    **dict.fromkeys(("log_from",), int),
}
#: What a worker's command line names, before its run folder.
WORKER_MODULE = "simpo_workbench.engine.worker"


@dataclass(frozen=True)
class RunStatus:
    """The state of a run. A run whose process is dead is never shown as running."""

    state: str
    step: int
    total_steps: int
    message: str
    owner: str
    alive: bool
    recommended_step: int | None
    verdict: str
    seconds_left: float | None
    stalled: bool = False
    #: What its process does beside training steps, such as "scoring 40 of 60 pairs"; "" where that is nothing.
    doing: str = ""
    #: When the run was first started, seconds since 1970; None where that is not known.
    started: float | None = None

    @property
    def progress(self) -> str:
        """The step in words: "step 3 of 8", or "before its first step" while nobody knows of how many."""
        return f"step {self.step} of {self.total_steps}" if self.total_steps else "before its first step"

    @property
    def ended(self) -> bool:
        return self.state in END_STATES


def read(folder: RunFolder) -> RunStatus:
    """Where the run stands; when its process died it is "failed", with the cause and the last lines of its log."""
    raw, alive = _raw_status(folder)
    if raw["state"] in LIVE_STATES and not alive:
        raw, alive = _raw_status(folder)  # it may have ended in order after its status was read
    state, message = raw["state"], raw.get("message", "")
    stalled = _stall(folder, raw) if alive else ""
    if state in LIVE_STATES and not alive:
        if word := last_word(folder.log, raw.get("process")):
            state, message = word["state"], word["message"]
        else:
            cause = cause_of_death(folder, raw)
            state, died = "failed", f"The process of this run died while it was {state}. {cause}"
            message = f"{died} {message}" if raw.get("rebuilt") else died
    elif stalled:
        message = f"Stalled: {stalled} run.dump_stack() shows where it stands."
    return RunStatus(
        state=state,
        step=raw.get("step") or 0,
        total_steps=raw.get("total_steps") or 0,
        message=message,
        owner=raw.get("owner", ""),
        alive=alive and state in LIVE_STATES,
        recommended_step=raw.get("recommended_step"),
        verdict=raw.get("verdict", ""),
        seconds_left=raw.get("seconds_left"),
        stalled=bool(stalled),
        doing=raw.get("doing", "") if alive and state in LIVE_STATES else "",
        started=raw.get("started"),
    )


def written(folder: RunFolder) -> dict:
    """What status.json says, or the records where it is lost or damaged; empty for a run that has not begun."""
    raw = read_json(folder.status)
    if raw is not None and _is_whole(raw):
        return raw
    return _status_from_records(folder, alive=False) if folder.metrics.exists() else {}


def _raw_status(folder) -> tuple[dict, bool]:
    """(what status.json says, whether the process lives); from the metrics records where status.json is unreadable."""
    raw = read_json(folder.status)
    if raw is not None and _is_whole(raw):
        return raw, is_alive(folder, raw)
    # a living process writes a missing or damaged status.json again within a second
    alive = folder.is_held() or _silence_s(folder) < _BEATS_S
    return _status_from_records(folder, alive), alive


def _is_whole(raw) -> bool:
    """Whether a status has a known state, and values of the right types: a damaged one must not reach any display."""
    return raw.get("state") in _STATES and all(
        raw.get(name) is None or (isinstance(raw[name], types) and raw[name] == raw[name])
        for name, types in _TYPES.items()
    )


def _status_from_records(folder, alive) -> dict:
    try:
        records, known = folder.read_records(), ""
    except WorkbenchError:  # reading the records themselves says where
        records, known = [], " The records are damaged as well, so its step is not known."
    ended = (*END_STATES, "suspended")
    last, event = {}, None
    for record in records:
        if record.get("kind") == "train" or record.get("event") in (*ended, "resumed", "paused", "unpaused"):
            last, event = record, record.get("event")
    message = "status.json is missing or damaged."
    if event == "paused" or (event in ended and not alive):
        state, message = event, str(last.get("text", ""))
    elif not alive:
        state, message = "failed", "status.json is missing or damaged, and no process tends this run."
    elif not last or event in (*ended, "resumed"):  # a process that lives after an end was resumed, and has not stepped
        state = "loading"
    else:
        state = "training"
    step = last.get("step", 0)
    message = f"{message}{known}" if known else f"{message} (read from the records)"
    total_steps = Manifest.read(folder.path).identity.get("total_steps", step)
    # the first record comes some seconds after the start
    started = {"started": records[0]["time"]} if records and isinstance(records[0].get("time"), float) else {}
    return {"state": state, "step": step, "total_steps": total_steps, "message": message, "rebuilt": True} | started


def _silence_s(folder):
    """Seconds since the last heartbeat; infinite where there is none."""
    beat = (read_json(folder.heartbeat) or {}).get("awake_s")
    return process.awake_s() - beat if isinstance(beat, (int, float)) else math.inf


def is_alive(folder: RunFolder, raw: dict) -> bool:
    """Whether the process that a status names lives and still has this run. raw: what status.json says."""
    if raw.get("folder", folder.identity) != folder.identity or not process.is_alive(raw.get("process")):
        return False
    # a kernel outlives the run that it trained, but the folder's lock does not
    return raw.get("owner") != "in-process" or folder.is_held()


def is_own_worker(folder: RunFolder, raw: dict) -> bool:
    """Whether a status names this folder's living worker beyond doubt, so that it may be signalled: the folder's
    identity, boot id, start ticks and the folder on the worker's command line all agree.

    raw: what status.json says. A folder that was copied or came from somewhere else may name any process.
    """
    if raw.get("owner") != "worker" or not folder.identity or raw.get("folder") != folder.identity:
        return False
    command = process.command_line(raw.get("process"))
    if WORKER_MODULE not in command:
        return False
    arguments = command[command.index(WORKER_MODULE) + 1 :]
    return bool(arguments) and RunFolder(arguments[0]).identity == folder.identity


def _stall(folder, raw):
    """Why a living run seems to hang; empty when it does not."""
    since, silent_s = raw.get("progress_awake_s"), _silence_s(folder)
    if SILENT_S < silent_s < math.inf:
        return f"its process has given no sign for {silent_s:.0f} s."
    if raw.get("state") != "training" or since is None:
        return ""
    still_s, usual_s = process.awake_s() - since, raw.get("median_step_s")
    limit_s = STALLED_EVALUATION_S if raw.get("doing") or not usual_s else max(STALLED_STEPS * usual_s, STALLED_S)
    if still_s <= limit_s:
        return ""
    return f"no progress for {still_s:.0f} s{f', where a step takes {usual_s:.1f} s' if usual_s else ''}."
