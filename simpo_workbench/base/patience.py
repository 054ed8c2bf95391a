"""Faults of a disk that pass: what failed is tried again, with a growing pause, and remembered for the run's events."""

from __future__ import annotations

import errno
import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar

#: Errors of a disk or a network share that may be gone a moment later: a bad transfer, a server that was restarted, a
#: disk or a quota that is full until somebody frees some space.
PASSING = (errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EDQUOT, errno.ETIMEDOUT)
#: How long the process of a run waits for such an error to pass.
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
                    self._note(name, failures, last, time.monotonic() - began)
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

    def _note(self, name, failures, error, seconds):
        while error_number(error) is None:  # `passes` has seen that one of the causes has a number
            error = error.__cause__
        times = "once" if failures == 1 else f"{failures} times"
        reason = getattr(error, "strerror", None) or str(error)
        self.note(f"Writing {name} failed {times} ({reason}) and succeeded after {seconds:.1f} s; nothing is lost.")


#: Tries once: for programs in which somebody waits for the outcome, such as a panel.
ONCE = Patience(0.0)
