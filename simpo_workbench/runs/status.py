"""Where a run stands, from its folder alone: what its process wrote last, and whether that process still lives and
moves.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from ..base import process
from ..base.errors import WorkbenchError
from ..base.files import read_json, read_jsonl
from .folder import END_STATES, LIVE_STATES, RunFolder
from .post_mortem import cause_of_death

#: A step that takes this many times the usual one, and this many seconds at least, has stalled; so has an evaluation,
#: or a first step, after that time.
STALLED_STEPS, STALLED_S, STALLED_EVALUATION_S = 10, 120.0, 900.0
#: A living process beats every second; without a sign for so long it is stopped or hangs.
SILENT_S = 30.0
_BEATS_S = 5.0
_RESTORE_S = 2.5


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands. A dead process is never shown as running."""

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

    @property
    def ended(self):
        return self.state in END_STATES


def read(folder: RunFolder) -> RunStatus:
    """State, step, message and recommended checkpoint; a run whose process died is "failed" with the cause and the last
    lines of its log.
    """
    raw = _raw_status(folder)
    alive = is_alive(folder, raw)
    if (
        not alive and raw.get("state") in LIVE_STATES
    ):  # it may have ended in order between the two looks: the last word counts
        raw = _raw_status(folder)
        alive = is_alive(folder, raw)
    state, message = raw["state"], raw.get("message", "")
    stalled = _stall(folder, raw) if alive else ""
    if state in LIVE_STATES and not alive:
        state, message = "failed", f"The process of this run died while it was {state}. {cause_of_death(folder, raw)}"
    elif stalled:
        message = f"Stalled: {stalled} run.stack() shows where it stands."
    return RunStatus(
        state=state,
        step=raw.get("step", 0),
        total_steps=raw.get("total_steps", 0),
        message=message,
        owner=raw.get("owner", ""),
        alive=alive and state in LIVE_STATES,
        recommended_step=raw.get("recommended_step"),
        verdict=raw.get("verdict", ""),
        seconds_left=raw.get("seconds_left"),
        stalled=bool(stalled),
    )


def _raw_status(folder):
    """What status.json says; where somebody deleted or damaged it, what a living process writes anew, or what the
    records tell.
    """
    raw = read_json(folder.status)
    if raw is None and _silence_s(folder) < _BEATS_S:
        end = time.monotonic() + _RESTORE_S
        while raw is None and time.monotonic() < end:
            time.sleep(0.1)
            raw = read_json(folder.status)
    if raw is not None and isinstance(raw.get("state"), str):
        return raw
    try:
        records = read_jsonl(folder.metrics)
    except WorkbenchError:  # damaged as well; whoever reads the records is told where
        records = []
    last = next((record for record in reversed(records) if record.get("kind") in ("train", "event")), {})
    told = last.get("event") in (*END_STATES, "suspended")
    state = last["event"] if told else "failed"
    words = f"{last['text']} (" if told else "status.json is missing or damaged, and no process tends this run. ("
    return {
        "state": state,
        "step": last.get("step", 0),
        "total_steps": last.get("step", 0),
        "message": f"{words}read from the records)",
    }


def _silence_s(folder):
    """Seconds since the last heartbeat; infinite when there is none."""
    beat = (read_json(folder.heartbeat) or {}).get("awake_s")
    return process.awake_s() - beat if isinstance(beat, (int, float)) else math.inf


def is_alive(folder: RunFolder, raw: dict) -> bool:
    """Whether the process that a status names lives and still has this very run; raw: what status.json says."""
    if raw.get("folder", folder.identity) != folder.identity or not process.is_alive(raw.get("process")):
        return False
    # a kernel outlives the run that it trained: there the folder's lock tells
    return raw.get("owner") != "in-process" or folder.is_held()


def _stall(folder, raw):
    """Why a living run is thought to hang; empty when it is not."""
    since, silent_s = raw.get("progress_awake_s"), _silence_s(folder)
    if SILENT_S < silent_s < math.inf:
        return f"its process has given no sign for {silent_s:.0f} s."
    if raw.get("state") != "training" or since is None:
        return ""
    still_s, usual_s = process.awake_s() - since, raw.get("median_step_s")
    limit_s = STALLED_EVALUATION_S if raw.get("doing") or not usual_s else max(STALLED_STEPS * usual_s, STALLED_S)
    return (
        f"no progress for {still_s:.0f} s{f', where a step takes {usual_s:.1f} s' if usual_s else ''}."
        if still_s > limit_s
        else ""
    )
