"""A process's identity, whether it still lives, and how to signal it safely.

A pid alone says nothing: it is reused. Boot id, pid and kernel start ticks together name one process for ever, without
any clock time.
"""

import os
import signal
import time
from pathlib import Path


def uptime_s() -> float:
    """Seconds since boot, time asleep included: the same for all processes, and it never goes backwards as the wall
    clock may.
    """
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def awake_s() -> float:
    """Seconds since boot without those asleep: a laptop that wakes up has not stalled."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def identify(pid: int | None = None) -> dict:
    """{"boot_id", "pid", "start_ticks"} of a process (this one by default).

    Errors: ProcessLookupError when there is none.
    """
    pid = os.getpid() if pid is None else pid
    return {"boot_id": _boot_id(), "pid": pid, "start_ticks": _start_ticks(pid)}


def is_alive(identity: dict | None) -> bool:
    """Whether exactly this process runs on this machine since the same boot; a zombie is dead."""
    if not isinstance(identity, dict) or identity.get("boot_id") != _boot_id():
        return False
    try:
        return _start_ticks(int(identity["pid"])) == identity["start_ticks"]
    except (ProcessLookupError, KeyError, TypeError, ValueError):  # gone, or not an identity at all
        return False


def send_signal(identity: dict, number: signal.Signals) -> bool:
    """Signal exactly this process; False when it is gone or is not ours to signal (pid 1, or the process that asks)."""
    if not _may_be_signalled(identity):
        return False
    try:
        os.kill(identity["pid"], number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def signal_group(identity: dict, number: signal.Signals) -> bool:
    """Signal the whole group that this process leads, data loaders and all; False when it leads none, is gone or is not
    ours to signal.
    """
    if not _may_be_signalled(identity):
        return False
    try:
        if os.getpgid(identity["pid"]) != identity["pid"] or os.getpgrp() == identity["pid"]:
            return False
        os.killpg(identity["pid"], number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _may_be_signalled(identity):
    return is_alive(identity) and identity["pid"] not in (0, 1, os.getpid())


def same_boot(identity: dict | None) -> bool:
    """Whether an identity was taken on this machine since its last start."""
    return isinstance(identity, dict) and identity.get("boot_id") == _boot_id()


def _boot_id():
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # macOS has no /proc: the boot time serves
        import psutil

        return str(int(psutil.boot_time()))


def _start_ticks(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return _start_ticks_without_proc(pid)
    fields = stat.rpartition(")")[2].split()  # the name in front may hold spaces and parentheses
    if fields[0] in ("Z", "X"):
        raise ProcessLookupError(pid)
    return int(fields[19])  # field 22 of proc(5), starttime


def _start_ticks_without_proc(pid):
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            raise ProcessLookupError(pid)
        return int(process.create_time() * 100)
    except psutil.NoSuchProcess:
        raise ProcessLookupError(pid) from None
