"""Why a run's process died: from what it left in its folder, and from what the kernel knows."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import signal
from pathlib import Path

from ..base import process
from ..base.files import parse_json_line, read_json
from ..base.redaction import redact_values

#: On this signal a worker writes the stack of all its threads to its log.
STACK_SIGNAL = signal.SIGUSR1
#: With less than this share of the memory free at the last heartbeat, the kernel probably killed the process.
SCARCE_MEMORY = 0.03
#: A memory kill in the control group later than this after the last heartbeat may have hit another process.
FRESH_S = 60.0
_LOG_TAIL_BYTES = 1_000_000
#: How the line of a log begins that holds the last state of a process, for when status.json could not be written.
_LAST_WORD = "last word: "
#: With less space than this on the disk a process cannot say why it ends.
_NO_ROOM_BYTES = 16_384
_LAST_STATES = ("finished", "stopped", "failed", "suspended")
#: Signals that end a process without giving it a chance otherwise, and what they mean.
FATAL_SIGNALS = {
    signal.SIGXCPU: "the limit on processor time (ulimit -t, a batch system's)",
    signal.SIGQUIT: "quit, by a keyboard or another program",
    signal.SIGUSR2: "sent by another program",
    signal.SIGALRM: "an alarm that nobody waits for",
    signal.SIGVTALRM: "an alarm that nobody waits for",
    signal.SIGPROF: "a profiler's alarm that nobody waits for",
}


def write_last_word(log: Path, state: str, message: str) -> None:
    """Add the last state of this process to its log, in a form that `last_word` reads; a full disk is no error here."""
    word = redact_values({"state": state, "message": message, "process": process.identify()})
    with contextlib.suppress(OSError), open(log, "a", encoding="utf-8") as file:
        file.write(f"\n{_LAST_WORD}{json.dumps(word, ensure_ascii=False)}\n")


def last_word(log: Path, identity: dict | None) -> dict | None:
    """{"state", "message"} that exactly this process left in its log when it ended; None where there is none."""
    for line in reversed(last_log(log)):
        if line.startswith(_LAST_WORD):
            with contextlib.suppress(ValueError):
                word = parse_json_line(line.removeprefix(_LAST_WORD)) or {}
                state, message = word.get("state"), word.get("message")
                if word.get("process") == identity and state in _LAST_STATES and isinstance(message, str):
                    return {"state": state, "message": message}
    return None


_GROUP_MEMORY = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))


def cause_of_death(folder, status: dict) -> str:
    """One sentence on why a run's process ended without a final status, and the last lines of its log."""
    identity = status.get("process")
    beat = read_json(folder.heartbeat) or {}
    log = last_log(folder.log, status.get("log_from", 0))
    tail = [line for line in log if not line.startswith(_LAST_WORD)][-40:]
    if not isinstance(identity, dict):
        cause = "status.json does not say which process it was"
    elif status.get("folder") not in (None, folder.identity):
        cause = "this folder is a copy: the run's process belongs to another one"
    elif not process.same_boot(identity):
        cause = "the machine was started anew, or the folder comes from another machine"
    elif fatal := next((line for line in reversed(log) if line.startswith("Fatal Python error")), None):
        cause = f"it crashed ({fatal.removeprefix('Fatal Python error: ')})"
    elif out_of_memory(beat):
        cause = "the memory ran out and the kernel killed it"
    elif error := next(
        (line for line in reversed(tail) if re.match(r"[A-Za-z_.]*(Error|Exception|Interrupt)\b", line)), None
    ):
        cause = f"a Python error ended it ({error[:200]})"
    elif shutil.disk_usage(folder.path).free < _NO_ROOM_BYTES:
        cause = "its disk is full, so that it could not say why it ended"
    else:
        cause = "it was killed from outside (SIGKILL)"
    last = f" Last lines of its log: {' / '.join(line[:200] for line in tail[-3:])}" if tail else " It left no log."
    return f"{cause[0].upper()}{cause[1:]}.{last}"


def out_of_memory(beat: dict) -> bool:
    """Whether the kernel killed a process for memory since the last heartbeat, or memory was nearly full then."""
    kills, fresh = _kills(), process.awake_s() - beat.get("awake_s", -math.inf) < FRESH_S
    if fresh and kills is not None and beat.get("oom_kills") is not None and kills > beat["oom_kills"]:
        return True
    available, total = beat.get("available_bytes"), beat.get("total_bytes")
    return bool(available is not None and total and available < SCARCE_MEMORY * total)


def memory_facts() -> dict:
    """{"rss_bytes", "available_bytes", "total_bytes", "oom_kills"} of this process and machine; None where unknown."""
    import psutil

    machine = psutil.virtual_memory()
    return {
        "rss_bytes": psutil.Process().memory_info().rss,
        "available_bytes": machine.available,
        "total_bytes": machine.total,
        "oom_kills": _kills(),
    }


def last_log(log: Path, start: int = 0) -> list[str]:
    """The stripped, non-empty lines of a log from the byte `start` on, oldest first; of a long log only the end."""
    try:
        with open(log, "rb") as file:
            file.seek(max(start, log.stat().st_size - _LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]


def _kills():
    """How many processes of this control group the kernel has killed for memory; None where it does not count them."""
    for path in _GROUP_MEMORY:
        try:
            match = re.search(r"^oom_kill (\d+)", path.read_text(), re.MULTILINE)
        except OSError:
            continue
        if match:
            return int(match[1])
    return None
