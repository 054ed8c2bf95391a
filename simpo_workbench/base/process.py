"""A process's identity, whether it still lives, and how to signal it safely.

A pid alone is not enough, because it is reused. Boot id, pid and kernel start ticks together name one process for ever,
without any clock time.
"""

import os
import signal
import time
from pathlib import Path


def uptime_s() -> float:
    """Seconds since boot, time asleep included: the same in all processes, and never going back as a wall clock may."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def awake_s() -> float:
    """Seconds since boot without time asleep, so that a run on a laptop that wakes up has not stalled."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def identify(pid: int | None = None) -> dict:
    """{"boot_id", "pid", "start_ticks"} of a process (this one by default).

    Errors: ProcessLookupError when there is none.
    """
    pid = os.getpid() if pid is None else pid
    return {"boot_id": _boot_id(), "pid": pid, "start_ticks": _start_ticks(pid)}


def is_alive(identity: dict | None) -> bool:
    """Whether exactly this process still runs on this machine; a zombie counts as dead."""
    if not isinstance(identity, dict) or identity.get("boot_id") != _boot_id():
        return False
    try:
        return _start_ticks(int(identity["pid"])) == identity["start_ticks"]
    except (ProcessLookupError, KeyError, TypeError, ValueError):  # gone, or not an identity at all
        return False


def command_line(identity: dict) -> list[str]:
    """The command and its arguments of exactly this process; empty when it is gone or another user's."""
    if not is_alive(identity):
        return []
    try:
        return Path(f"/proc/{identity['pid']}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return _command_line_without_proc(identity["pid"])


def send_signal(identity: dict, number: signal.Signals) -> bool:
    """Whether exactly this process was signalled: not when it is gone, pid 1, this process, or another user's."""
    if not _may_be_signalled(identity):
        return False
    try:
        os.kill(identity["pid"], number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def signal_group(identity: dict, number: signal.Signals) -> bool:
    """Whether the whole process group that this process leads was signalled: not when it leads none, or as in
    `send_signal`.
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


def kill_after(identity: dict | None, patience_s: float) -> None:
    """Wait for a process to end; after `patience_s` seconds kill it and its process group."""
    end = time.monotonic() + patience_s
    while is_alive(identity) and time.monotonic() < end:
        time.sleep(0.05)
    signal_group(identity, signal.SIGKILL)


def _may_be_signalled(identity):
    return is_alive(identity) and identity["pid"] not in (0, 1, os.getpid())


def same_boot(identity: dict | None) -> bool:
    """Whether an identity was taken on this machine since its last boot."""
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


def _command_line_without_proc(pid):
    import psutil

    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []
