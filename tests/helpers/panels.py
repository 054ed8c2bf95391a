"""What tests of panels share: waiting for what comes in the background, and whether a widget is shown."""

import time

from simpo_workbench.ui.parts.following import LOCK


def until(condition, seconds=120.0):
    """What the condition gives, once it is true; looked at under the lock, so that what comes in the background has
    come as a whole.
    """
    end = time.monotonic() + seconds
    while True:
        with LOCK:
            if found := condition():
                return found
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def visible(widget):
    """Whether a widget is not hidden."""
    return widget.layout.display != "none"
