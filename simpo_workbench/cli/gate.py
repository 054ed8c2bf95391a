"""The gate to the terminal: control characters in what a command prints are shown, not sent.

An escape sequence in a prompt, an answer or a file's name could otherwise hide text or move the cursor. All that is
printed goes through here: `print`, click and libraries by the streams, rich by its consoles.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from rich.console import Console
from rich.segment import Segment

from ..base.escape import shown_controls

#: What progress bars of libraries print: a return to the line's start before their text, cursor movements alone.
_OF_A_BAR = re.compile(r"(?:\n|\r|\x1b\[A)+\Z|\r")


class _ShownStream:
    """A text stream that passes on what is written to it with control characters shown."""

    def __init__(self, stream):
        #: rich calls a stream so that stands in for another: its consoles write to that one, with colors of their own
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        bar = _OF_A_BAR.match(text)
        end = bar.end() if bar else 0
        self.rich_proxied_file.write(text[:end] + shown_controls(text[end:]))
        return len(text)

    def writelines(self, lines) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name):
        return getattr(self.rich_proxied_file, name)


class ShownConsole(Console):
    """A rich console whose own colors and cursor movements pass, and control characters in texts are shown."""

    def render(self, renderable, options=None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else shown_controls(segment.text)
            yield segment if text is segment.text else Segment(text, segment.style)


def show_controls() -> None:
    """Show control characters in whatever this process prints from now on."""
    for name in ("stdout", "stderr"):
        if not isinstance(getattr(sys, name), _ShownStream):
            setattr(sys, name, _ShownStream(getattr(sys, name)))


def output() -> Console:
    """Where results are printed: the terminal in its width, or 140 columns of plain text."""
    console = ShownConsole()
    return console if console.is_terminal else ShownConsole(width=140)


def progress_output() -> Console:
    """Where progress is printed: the standard error stream."""
    return ShownConsole(stderr=True)
