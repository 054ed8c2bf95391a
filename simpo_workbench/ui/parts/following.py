"""The kernel's one daemon thread that looks at files twice a second, and the lock for all that changes panels.

The thread only sets traits of widgets and never prints or displays. It is a thread because a blocking cell would stop
an asyncio poll.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

POLL_S = 0.5
#: Held while a panel is changed: by the thread below, by background work that has ended, and by handlers of clicks.
LOCK = threading.RLock()

_log = logging.getLogger(__name__)
_followers: list[Follower] = []
_wake = threading.Event()
_thread: threading.Thread | None = None


class Follower:
    """Calls `look()` every `every_s` seconds until `stop`; an error in it is logged, kept in `trouble`, and ends it."""

    def __init__(self, look: Callable[[], None], every_s: float):
        self._look, self.every_s, self.trouble, self._due, self.active = look, every_s, None, 0.0, True

    def stop(self) -> None:
        """Call `look` no more."""
        self.active = False

    def look_now(self) -> None:
        """Call `look` at once, in the thread."""
        self._due = 0.0
        _wake.set()

    def _tick(self, now):
        if not self.active or now < self._due:
            return
        try:
            with LOCK:
                if self.active:  # it may have been stopped while this waited for the lock
                    self._look()
        except Exception as error:  # the other panels must go on
            self.trouble, self.active = error, False
            _log.exception("A panel can no longer be kept up to date.")
        self._due = time.monotonic() + self.every_s


def follow(look: Callable[[], None], every_s: float = POLL_S) -> Follower:
    """A Follower, started in the kernel's one thread for them."""
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
    """Run `work()` in a thread, which is returned, and then `done(result)` or `failed(error)` under the lock."""

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
