"""What a run's process does beside its work: it holds the folder, beats, acknowledges what is asked, and keeps the
status file true.

All of it goes by a thread of its own, so that a step of ten minutes is no silence of ten minutes. It imports no torch:
a run that waits in the queue is a small process.
"""

import contextlib
import faulthandler
import fcntl
import signal
import threading
import time

from ..base import process
from ..base.errors import WorkbenchError
from ..base.files import read_json, write_json
from ..base.redaction import redact_values
from . import post_mortem
from .folder import LIVE_STATES, RunFolder
from .mailbox import Inbox

POLL_S = 0.2
BEAT_S = 1.0
#: Whoever starts a worker holds the folder until the worker's identity is written down, which takes milliseconds.
HANDOVER_S = 20.0
_SWEEP_S = 60.0
#: Room that is given back when the disk is full, so that the last words of a run can still be written.
RESERVE_BYTES = 256 * 1024


class Presence:
    """The process that a run lives in, as a context: `with Presence(folder, "worker") as presence`.

    status: what stands in status.json; `write` replaces it. inbox: the requests of this run. Errors: WorkbenchError when
    another process has the folder.
    """

    def __init__(self, folder: RunFolder, owner: str):
        self.folder, self.inbox = folder, Inbox(folder.path)
        self._lock_file = hold(folder)
        previous = read_json(folder.status) or {}
        self.status = {"step": 0, "total_steps": 0, "started": time.time(), "log_from": log_size(folder), **previous}
        if owner != "worker":  # for a worker its launcher has noted where the log was
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
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a closed terminal is no reason to stop
            self.status["answers_signals"] = True
        self.status.pop("handover", None)
        self._beat()
        self.write(state="loading", message="Starting.")
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()
        with contextlib.suppress(OSError, WorkbenchError):  # the last word is written already
            for request in self.inbox.take():
                self.inbox.refuse(request, f"The run is {self.status.get('state')}: nobody is there any more.")
        self._reserve.unlink(missing_ok=True)
        # faulthandler and its log stay until the process ends: the signal's own effect would be to kill
        self._lock_file.close()

    def write(self, **changes):
        """Change the status and write it down.

        Errors: WorkbenchError when the disk is full even after the reserve was given back.
        """
        with self._status_lock:
            self.status |= {"progress_awake_s": process.awake_s(), **changes}
            try:
                self._write()
            except WorkbenchError:
                if not self._reserve.exists():
                    raise
                self.give_back_reserve()
                self._write()

    def give_back_reserve(self):
        """Free the room that was kept for last words."""
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def _write(self):
        write_json(self.folder.status, redact_values(self.status))
        self._written = dict(self.status)

    def _attend(self):
        next_beat = next_sweep = 0.0
        while not self._end.wait(POLL_S):
            # whatever goes wrong here - a full disk, a folder that somebody moves - must not end the run; it shows
            # where it matters, in the main thread
            with contextlib.suppress(OSError, WorkbenchError):
                self.inbox.collect()
                if (now := time.monotonic()) >= next_beat:
                    next_beat = now + BEAT_S
                    self._beat()
                    self._restore_status()
                if now >= next_sweep:
                    next_sweep = now + _SWEEP_S
                    self.inbox.sweep()

    def _beat(self):
        write_json(self.folder.heartbeat, {"awake_s": process.awake_s(), **post_mortem.memory_facts()}, durable=False)

    def _restore_status(self):
        """Somebody deleted or damaged status.json: write it again."""
        with self._status_lock:
            if self._written is not None and read_json(self.folder.status) is None:
                self._write()


def hold(folder: RunFolder):
    """The open lock file of a run folder: whoever has it is the only process there.

    The kernel lets go when the process ends, however it ends.
    """
    try:
        file = open(folder.lock, "a+b")  # noqa: SIM115 - the caller closes it, and that is what lets go
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
            # the one that launches this process holds the folder for a moment, and one that has ended until it has
            # freed its memory
            taken = time.monotonic() > end or _another_is_at_work(folder)
        except OSError:  # a file system without locks: the identity in status.json is all there is
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
    """Bytes in a run's log: what comes behind them belongs to the next process."""
    return folder.log.stat().st_size if folder.log.exists() else 0
