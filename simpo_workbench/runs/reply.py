"""The reply to a request to a run, which may still be pending."""

from __future__ import annotations

import time

from ..base.errors import WorkbenchError
from .mailbox import REPLIED

#: A process writes its last state first and its last replies then.
_LAST_REPLIES_S = 1.0


class Reply:
    """The reply to a request to a run, which may still be pending.

    `state` is "asked", within a second "acknowledged", then "done" or "refused"; `text` is the outcome. A run that
    waits for its device replies at once too: stop and suspend take it out of the queue; a pause and changed settings
    come after its first step, which `text` says meanwhile; what needs its model is refused.
    run: the Run that was asked.
    """

    def __init__(self, run, kind: str, request: str):
        self.run, self.kind, self._request, self._last = run, kind, request, {}

    def __repr__(self):
        after = "" if self.step is None else f" after step {self.step}"
        text = f", {self.text}" if self.text else ""
        return f"Reply({self.kind!r} of {self.run.name!r}: {self.state}{after}{text})"

    @property
    def state(self) -> str:
        return self._reply.get("state", "asked")

    @property
    def text(self) -> str:
        return self._reply.get("text", "")

    @property
    def step(self) -> int | None:
        """The step after which the run did it; None before, and of a model that does not train."""
        return self._reply.get("step")

    def wait(self, timeout_s: float | None = None) -> Reply:
        """Itself, once the request is done.

        Errors: WorkbenchError when it was refused or the run ended before; TimeoutError after `timeout_s` seconds.
        """
        self._wait(timeout_s)
        return self

    def _wait(self, timeout_s, is_enough=lambda: False):
        end, gone = None if timeout_s is None else time.monotonic() + timeout_s, None
        while (state := self.state) not in REPLIED and not is_enough():
            status = self.run.status
            gone = None if status.alive else gone or time.monotonic()
            if gone and time.monotonic() - gone > _LAST_REPLIES_S:
                raise WorkbenchError(
                    f"The run {self.run.name!r} is {status.state} and did not {self.kind}. {status.message}"
                )
            if end is not None and time.monotonic() > end:
                raise TimeoutError(
                    f"The run {self.run.name!r} did not {self.kind} within {timeout_s:g} s: it is {status.state}."
                )
            time.sleep(0.05)
        if state == "refused":
            raise WorkbenchError(self.text)

    def first_word(self, timeout_s: float | None = None) -> str:
        """The outcome, or before it what a run that waits for its device says of it. Errors: as `wait`."""
        self._wait(timeout_s, lambda: self.state == "acknowledged" and self.text)
        return self.text

    @property
    def _reply(self):
        if self._last.get("state") not in REPLIED:  # a final reply stays true when its file is swept away
            self._last = self.run.folder.mailbox.reply(self._request) or self._last
        return self._last
