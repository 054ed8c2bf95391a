"""What moves by itself in a kernel: one daemon thread that looks at files twice a second, and one lock for everything
that changes panels.

Widgets are touched from the thread by their traits alone; nothing is printed or displayed from it. A blocking cell
stops an asyncio poll, but not a thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

POLL_S = 0.5
#: Held by whoever changes a panel: the thread below, background work that has ended, and the handlers of clicks.
LOCK = threading.RLock()

_log = logging.getLogger(__name__)
_followers: list[Follower] = []
_wake = threading.Event()
_thread: threading.Thread | None = None


class Follower:
    """Something that is looked at every `every_s` seconds until `stop`.

    An error in `look` ends it, and stands in `trouble` and in the log of this module.
    """

    def __init__(self, look: Callable[[], None], every_s: float):
        self._look, self.every_s, self.trouble, self._due, self.active = look, every_s, None, 0.0, True

    def stop(self):
        """Look no more."""
        self.active = False

    def look_now(self):
        """Look at once, in the thread."""
        self._due = 0.0
        _wake.set()

    def _tick(self, now):
        if not self.active or now < self._due:
            return
        try:
            with LOCK:
                if self.active:  # whoever had the lock may have stopped it
                    self._look()
        except Exception as error:  # one panel's trouble must not stop the others
            self.trouble, self.active = error, False
            _log.exception("A panel cannot be kept up to date any more.")
        self._due = time.monotonic() + self.every_s


def follow(look: Callable[[], None], every_s: float = POLL_S) -> Follower:
    """A Follower that looks from now on, in the kernel's one thread for this."""
    global _thread
    follower = Follower(look, every_s)
    with LOCK:
        _followers.append(follower)
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_attend, name="simpo-workbench-panels", daemon=True)
            _thread.start()
    _wake.set()
    return follower


def in_background(work: Callable, done: Callable, failed: Callable) -> threading.Thread:
    """Do `work` in a thread, then `done(result)` or `failed(error)` under the lock, so that a click never keeps the
    kernel busy.
    """

    def run():
        try:
            result = work()
        except Exception as error:
            with LOCK:
                failed(error)
        else:
            with LOCK:
                done(result)

    thread = threading.Thread(target=run, name="simpo-workbench-work", daemon=True)
    thread.start()
    return thread


def _attend():
    while True:
        _wake.wait(min([POLL_S, *(follower.every_s for follower in list(_followers))]))
        _wake.clear()
        now = time.monotonic()
        for follower in list(_followers):
            follower._tick(now)
            if not follower.active:
                _followers.remove(follower)
