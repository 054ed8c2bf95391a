"""Stops by signal, at any moment.

An exception that a signal handler raises while a C++ library is being loaded aborts the process, and some libraries
swallow it or turn it into an error of their own (seen with torch 2.13: a few of a hundred). So the signal is
remembered, nothing is raised during an import, and the code that runs next checks for it.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

from ..runs.presence import Presence


class StopSignal(threading.Event):
    """Set by a signal that asks for a stop after the current step; `at_once`: by one that does not wait for that."""

    at_once = False

    @property
    def requests(self) -> set[str]:
        """The request that the signal means, as `decide` takes it; empty before a signal."""
        return {"stop"} if self.is_set() else set()

    def interrupt(self, frame) -> None:
        """Raise KeyboardInterrupt in `frame`, unless it is importing: then the next `check` raises it."""
        self.at_once = True
        if not _is_importing(frame):
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt if a stop at once was asked for."""
        if self.at_once:
            raise KeyboardInterrupt


@contextlib.contextmanager
def stop_signals(stop: StopSignal, presence: Presence) -> Iterator[None]:
    """Within this context the first SIGINT or SIGTERM sets `stop`, so that training ends after the current step.

    A second one, or one before training, interrupts at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach only the main thread
        return

    def handle(number, frame):
        if stop.is_set() or presence.status.get("state") in ("loading", "scoring"):
            stop.interrupt(frame)
            return
        stop.set()
        with contextlib.suppress(OSError):  # the terminal may be gone
            notice = "\nStopping after this step, with adapter and checkpoint saved; once more to stop at once."
            print(notice, file=sys.stderr, flush=True)

    if presence.status["owner"] == "worker":
        # independent of terminals: no SIGHUP, and SIGINT even where the shell that started it ignored that
        numbers = [signal.SIGINT, signal.SIGTERM]
    else:
        # what was ignored before (nohup, a background job of a shell) stays ignored; a closed terminal stops the run
        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        numbers = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _is_importing(frame):
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
