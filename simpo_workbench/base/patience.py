"""Faults of a disk that pass: what failed is tried again, with a growing pause, and remembered for the run's events."""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from .errors import WorkbenchError

#: Errors of a disk or a network share that may be gone a moment later: a bad transfer, a server that was restarted, a
#: disk or a quota that is full until somebody frees some space.
PASSING = (errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EDQUOT, errno.ETIMEDOUT)
#: How long the process of a run waits for such an error to pass; $SIMPO_WORKBENCH_PATIENCE_S is another time.
PATIENCE_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0

Result = TypeVar("Result")


def passes(error: BaseException) -> bool:
    """Whether an error is one that may be gone a moment later, also where it is the cause of another one."""
    while error is not None:
        if error_number(error) in PASSING:
            return True
        error = error.__cause__
    return False


def error_number(error: BaseException) -> int | None:
    """The number of a system error, also of one that the Rust code of safetensors tells in words; None of others."""
    if isinstance(error, OSError):
        return error.errno
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match[1]) if match else None


def reason_of(error: BaseException) -> str:
    """A fault in the system's words, such as "No space left on device"."""
    while error_number(error) is None and error.__cause__ is not None:
        error = error.__cause__
    number = error_number(error)
    return os.strerror(number) if number else str(error)


def patience_of_a_run() -> Patience:
    """The patience of a run's process. Errors: WorkbenchError when the environment asks for no number of seconds."""
    text = os.environ.get("SIMPO_WORKBENCH_PATIENCE_S", str(PATIENCE_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise WorkbenchError(f"SIMPO_WORKBENCH_PATIENCE_S is {text[:40]!r}: give seconds from 0 to 86400.")
    return Patience(seconds)


class Patience:
    """How long writes wait for a fault of the disk to pass, and which faults did.

    seconds: for each write; 0 tries once. After a write that failed in spite of all patience every other one is tried
    once, until one succeeds, so that a full disk does not cost a minute for every record.
    """

    def __init__(self, seconds: float = PATIENCE_S):
        self.seconds = seconds
        self._exhausted, self._lock = False, threading.Lock()
        self._passed: list[str] = []

    def attempt(self, write: Callable[[], Result], name: str) -> Result:
        """What `write` returns, called again while it fails with an error that may pass.

        name: of what is written, for the sentence on a fault that passed. Errors: those of `write`, once the patience
        is spent, and at once those that do not pass.
        """
        began, failures, pause_s = time.monotonic(), 0, _FIRST_PAUSE_S
        while True:
            try:
                result = write()
            except Exception as error:
                if not passes(error):
                    raise
                failures, last, spent_s = failures + 1, error, time.monotonic() - began
                if self._exhausted or spent_s + pause_s > self.seconds:
                    self._exhausted = self.seconds > 0
                    raise
            else:
                self._exhausted = False
                if failures:
                    self.passed(name, failures, last, time.monotonic() - began)
                return result
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def take_notes(self) -> list[str]:
        """A sentence for every fault that passed since the last call."""
        with self._lock:
            notes, self._passed = self._passed, []
        return notes

    def note(self, sentence: str) -> None:
        """Keep a sentence for the next `take_notes`."""
        with self._lock:
            self._passed.append(sentence)

    def renew(self) -> None:
        """Wait again also where the last write failed in spite of all patience: before what must not be lost."""
        self._exhausted = False

    def passed(self, name: str, failures: int, error: BaseException, seconds: float) -> None:
        """Note that writing `name` succeeded `seconds` after its first of `failures` failures."""
        times = "once" if failures == 1 else f"{failures} times"
        self.note(f"Writing {name} failed {times} ({reason_of(error)}) and succeeded after {seconds:.1f} s.")


#: Tries once: for programs in which somebody waits for the outcome, such as a panel.
ONCE = Patience(0.0)


class PendingWrites:
    """Writes that are done in their order. One that fails in spite of all patience is kept, with all that come after
    it, and tried again with the next one: a record never gets in front of an earlier one, and none is lost.
    """

    def __init__(self, patience: Patience):
        self._patience = patience
        self._waiting: deque[tuple[Callable[[], object], str]] = deque()
        self._began, self._error = 0.0, None

    def add(self, write: Callable[[], object], name: str) -> None:
        """Do a write, or keep it while the disk has a fault that may pass. Errors: those that do not pass."""
        self._waiting.append((write, name))
        try:
            self.finish()
        except (OSError, WorkbenchError) as error:
            if not passes(error):
                raise
            if self._error is None:
                self._began, self._error = time.monotonic(), error

    def finish(self) -> None:
        """Do all writes that wait. Errors: that of the first one that fails; it and those behind it still wait."""
        kept = len(self._waiting)
        while self._waiting:
            write, name = self._waiting[0]
            self._patience.attempt(write, name)
            self._waiting.popleft()
        if self._error is not None:
            waited_s, reason = time.monotonic() - self._began, reason_of(self._error)
            self._patience.note(
                f"The run folder could not be written for {waited_s:.0f} s longer ({reason}); {kept} writes were kept"
                " in memory meanwhile and are done now."
            )
            self._error = None
