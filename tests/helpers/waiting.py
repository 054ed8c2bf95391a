"""Waiting for what another process does: with a deadline of minutes, because the machine may be busy."""

import time

DEADLINE_S = 300


def wait_for(condition, what="it", detail=lambda: ""):
    """What the condition returns, once that is true; AssertionError with the detail after five minutes."""
    end = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < end, f"waited in vain for {what} {detail()}"
        time.sleep(0.02)
    return value
