"""What the process of a run does besides its work: hold the folder, write heartbeats, acknowledge requests, and keep
status.json.

A thread of its own does it, so that a step of ten minutes leaves no gap of ten minutes. It imports no torch: a run that
waits in the queue is a small process.
"""

import contextlib
import faulthandler
import fcntl
import os
import signal
import threading
import time
from typing import BinaryIO

from ..base import process
from ..base.errors import WorkbenchError
from ..base.files import read_json, write_json
from ..base.locks import only_shared, open_lock
from ..base.patience import ONCE, patience_of_a_run
from ..base.redaction import redact_values
from . import post_mortem
from . import status as run_status
from .folder import LIVE_STATES, RunFolder
from .mailbox import Inbox

POLL_S = 0.2
BEAT_S = 1.0
#: The process that starts a worker holds the folder until the worker's identity is written, which takes milliseconds.
HANDOVER_S = 20.0
_SWEEP_S = 60.0
#: Space that is freed when the disk is full, so that the final state of a run can still be written.
RESERVE_BYTES = 256 * 1024


class Presence:
    """The process of a run, as a context: `with Presence(folder, "worker") as presence`.

    status: the content of status.json; `write` changes it. inbox: the requests to this run. patience: how long its
    writes wait for faults of the disk to pass. before: the state of the run before this process, for as long as nothing
    else of it has changed; None for a new run. Errors: WorkbenchError when another process holds the folder.
    """

    def __init__(self, folder: RunFolder, owner: str):
        self.folder, self.inbox, self.patience = folder, Inbox(folder.path), patience_of_a_run()
        self._lock_file = hold(folder)
        previous = run_status.written(folder)
        # a worker's launcher has recorded it, because its own state is "loading" already
        before = previous.pop("before", None) if owner == "worker" else previous.get("state")
        self.before: str | None = "failed" if before in LIVE_STATES else before
        self.status = {"step": 0, "total_steps": 0, "started": time.time(), "log_from": log_size(folder), **previous}
        if owner != "worker":  # for a worker its launcher has recorded the size of the log
            self.status["log_from"] = log_size(folder)
        self.status |= {
            "owner": owner,
            "process": process.identify(),
            "folder": folder.identity,
            "seconds_left": None,
            "doing": "",
            "median_step_s": None,
        }
        self._status_lock, self._end, self._written = threading.Lock(), threading.Event(), None
        self._fault: _Fault | None = None
        self._thread = threading.Thread(target=self._attend, name="presence", daemon=True)
        self._reserve = folder.path / ".reserve"
        self._log = None

    def __enter__(self):
        with contextlib.suppress(OSError):
            self._reserve.write_bytes(bytes(RESERVE_BYTES))
        if self.status["owner"] == "worker" and threading.current_thread() is threading.main_thread():
            self._log = open(self.folder.log, "ab", buffering=0)
            faulthandler.enable(self._log)
            faulthandler.register(post_mortem.STACK_SIGNAL, self._log, all_threads=True)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a closed terminal does not stop it
            for number in post_mortem.FATAL_SIGNALS:
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, self._die)
            self.status["answers_signals"] = True
        self.status.pop("handover", None)
        with contextlib.suppress(WorkbenchError):  # the thread beats again in a second
            self._beat()
        self.write(state="loading", message="Starting.")
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()
        with contextlib.suppress(OSError, WorkbenchError):  # the final state is written already
            for request in self.inbox.take():
                self.inbox.refuse(request, f"The run is {self.status.get('state')}; its process has ended.")
        self.give_back_reserve()
        # faulthandler and its log stay until the process ends: by default the signal would kill it
        self._lock_file.close()

    def write(self, **changes) -> None:
        """Change the status and write it.

        A status on the way that cannot be written ends nothing: this process's thread tries again every second. Errors:
        WorkbenchError when the last status cannot be written, even after the reserve was freed and all patience spent.
        """
        with self._status_lock:
            self.status |= {"progress_awake_s": process.awake_s(), **changes}
            state = self.status.get("state")
            if state in ("failed", "stopped"):
                post_mortem.write_last_word(self.folder.log, state, self.status.get("message", ""))
            try:
                self._write(ONCE)
            except WorkbenchError:
                if state in LIVE_STATES:
                    return
                self.give_back_reserve()
                post_mortem.write_last_word(self.folder.log, state, self.status.get("message", ""))
                self.patience.renew()
                self._write(self.patience)

    def fail(self, message: str) -> None:
        """Write why the run failed; one that was to be resumed and has not gone on keeps the state from before.

        Errors: as `write`.
        """
        self.write(state=self.before or "failed", message=message, seconds_left=None, doing="")

    def give_back_reserve(self) -> None:
        """Free the space that was kept for the final state."""
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def _die(self, number, _):
        """Say in the log which signal ends this process, and let it do so. The status is left: its lock may be held by
        the very code that was interrupted.
        """
        name, meaning = signal.Signals(number).name, post_mortem.FATAL_SIGNALS[number]
        post_mortem.write_last_word(self.folder.log, "failed", f"The signal {name} ended its process: {meaning}.")
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _write(self, patience):
        try:
            write_json(self.folder.status, redact_values(self.status), patience=patience)
        except WorkbenchError as error:
            self._fault = self._fault or _Fault(error)
            self._fault.failures += 1
            raise
        self._written = dict(self.status)
        if (fault := self._fault) is not None:
            self.patience.passed("status.json", fault.failures, fault.error, time.monotonic() - fault.began)
            self._fault = None

    def _attend(self):
        next_beat = next_sweep = 0.0
        while not self._end.wait(POLL_S):
            tasks, now = [self.inbox.collect], time.monotonic()
            if now >= next_beat:
                next_beat = now + BEAT_S
                tasks += [self._beat, self._restore_status]
            if now >= next_sweep:
                next_sweep = now + _SWEEP_S
                tasks.append(self.inbox.sweep)
            for task in tasks:
                # a full disk or a moved folder must not end the run here: it shows in the main thread, where it matters
                with contextlib.suppress(OSError, WorkbenchError):
                    task()

    def _beat(self):
        write_json(self.folder.heartbeat, {"awake_s": process.awake_s(), **post_mortem.memory_facts()}, durable=False)

    def _restore_status(self):
        """Write status.json if that failed before, or again if it was deleted or damaged."""
        if not self._status_lock.acquire(blocking=False):  # the main thread writes it, perhaps for a minute
            return
        try:
            if self._fault or (self._written is not None and read_json(self.folder.status) is None):
                self._write(ONCE)
        finally:
            self._status_lock.release()


class _Fault:
    """Why, since when and how often status.json could not be written."""

    def __init__(self, error: WorkbenchError):
        self.error, self.began, self.failures = error, time.monotonic(), 0


def hold(folder: RunFolder) -> BinaryIO:
    """The open and locked lock file of a run folder, which one process at a time can have.

    The kernel unlocks it when the process ends, however it ends. Errors: WorkbenchError when another process has it.
    """
    try:
        file = open_lock(folder.lock)
    except OSError as error:
        raise WorkbenchError(
            f"The run folder {str(folder.path)!r} cannot be written: {error.strerror}. Check its rights and the free"
            " space."
        ) from None
    end = time.monotonic() + HANDOVER_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            # the process that launches this one holds the folder for a moment, and one that ends until its memory is
            # free
            taken = time.monotonic() > end or _another_is_at_work(folder)
            if taken and not _another_is_at_work(folder) and only_shared(file):
                file.close()
                raise WorkbenchError(
                    f"Another program, perhaps another user's, has locked {str(folder.lock)!r} for reading: end it, or"
                    " delete that file."
                ) from None
        except OSError:  # a file system without locks: only the identity in status.json tells
            taken = _another_is_at_work(folder)
            if not taken:
                return file
        if taken:
            file.close()
            raise WorkbenchError(f"The run {folder.name!r} is being trained already.")
        time.sleep(0.05)


def _another_is_at_work(folder):
    """Whether status.json names a living process, other than this one and the one that launches it."""
    status = read_json(folder.status) or {}
    at_work = (
        status.get("state") in LIVE_STATES and process.is_alive(status.get("process")) and not status.get("handover")
    )
    return at_work and status["process"] != process.identify()


def log_size(folder: RunFolder) -> int:
    """Bytes in a run's log; what comes after them belongs to the next process."""
    return folder.log.stat().st_size if folder.log.exists() else 0
