"""A stop that is asked for by a signal, at any moment.

An exception that a signal handler throws while a C++ library is being loaded aborts the process, and some libraries
swallow it or turn it into an error of their own (seen with torch 2.13: a few of a hundred). So what was asked is
remembered, nothing is thrown into an import, and whoever runs next looks here.
"""

import threading


class StopAsked(threading.Event):
    """Set once somebody asked for a stop in order; `at_once`: one that does not wait for the end of a step."""

    at_once = False

    def interrupt(self, frame):
        """KeyboardInterrupt for what runs in `frame`, unless it is importing: then at the next `check`."""
        self.at_once = True
        if not _is_importing(frame):
            raise KeyboardInterrupt

    def check(self):
        """KeyboardInterrupt when a stop at once was asked for."""
        if self.at_once:
            raise KeyboardInterrupt


def _is_importing(frame):
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
