"""The queue for the device: which run has it, which wait, and buttons to change the order or leave."""

from __future__ import annotations

import ipywidgets

from ...runs.run import attach
from ..parts.html import Html, html
from ..parts.panel import Panel, button, column, enable, row


class QueueView(ipywidgets.VBox):
    """A part of a panel that shows a queue as `wb.runs.list_queue()` gives it.

    Rows keep their place, so that the keyboard's focus stays where it is.
    """

    def __init__(self, panel: Panel):
        self._panel, self._queue = panel, None
        self.words = Html()
        self.waiting: list[_Waiting] = []
        super().__init__([self.words])
        self.layout.margin = "0 0 8px"

    def show_queue(self, queue) -> None:
        """Show this queue unless it is shown already."""
        if self._queue is not None and queue.equals(self._queue):
            return
        self._queue = queue
        holder, line = queue[queue["place"] == 0], queue[queue["place"] > 0].to_dict("records")
        has_it = f"{holder['name'].iloc[0]} has the device" if len(holder) else "The device is free"
        self.words.value = html(
            '<div class="swb-muted">{}{}</div>',
            has_it,
            "; these runs wait, and begin in this order:" if line else ", and no run waits for it.",
        )
        while len(self.waiting) < len(line):
            self.waiting.append(_Waiting(self._panel))
        for place, (part, run) in enumerate(zip(self.waiting, line, strict=False), 1):
            part.show_run(run, place, len(line))
        self.children = [self.words, column(*self.waiting[: len(line)])] if line else [self.words]


class _Waiting(ipywidgets.HBox):
    """One place in the queue, with its buttons."""

    def __init__(self, panel):
        self._panel, self._run, self._place = panel, None, 0
        self.words = Html()
        self.up = button("Up", panel.guard(lambda: self._move(-1)), "arrow-up")
        self.down = button("Down", panel.guard(lambda: self._move(1)), "arrow-down")
        self.cancel = button("Cancel", panel.guard(self._leave), "times")
        super().__init__([row(self.up, self.down, self.cancel, self.words)])

    def show_run(self, run, place, last):
        self._run, self._place, name = run, place, run["name"]
        self.words.value = html("{}. <b>{}</b> <span class='swb-muted'>{}</span>", place, name, run["state"])
        enable(self.up, "It is the next one already." if place == 1 else "", f"{name}: one place earlier")
        enable(self.down, "It is the last one already." if place == last else "", f"{name}: one place later")
        self.cancel.tooltip = f"{name}: leave the queue without training; it can be resumed later"

    def _move(self, by):
        place = attach(self._run["run"]).move_to(self._place + by)
        self._panel.say(f"The run {self._run['name']!r} is number {place} now.")
        self._panel.refresh()

    def _leave(self):
        attach(self._run["run"]).stop()
        self._panel.say(f"The run {self._run['name']!r} leaves the queue.")
        self._panel.refresh()
