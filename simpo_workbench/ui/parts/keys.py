"""Keys of a panel, each also a button. They work while the focus is in the panel and in no field that is typed into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets


class Keys(anywidget.AnyWidget):
    """Buttons that say their key. on_press(name) is called for what was pressed while its buttons, and what they are
    about, were in the page.

    A press carries the `number` of what the page shows, and one for another number is let go: however fast somebody
    presses, nothing is chosen that was not seen.
    """

    _esm = Path(__file__).parent / "keys.js"
    actions = traitlets.List().tag(sync=True)
    number = traitlets.Int(0).tag(sync=True)
    label = traitlets.Unicode("").tag(sync=True)
    version = traitlets.Int(0).tag(sync=True)
    page = traitlets.Int(0).tag(sync=True)

    def __init__(self, label: str, on_press: Callable[[str], None]):
        self._on_press = on_press
        super().__init__(label=label)
        self.on_msg(self._heard)

    def offer(self, number: int, actions: list[dict]):
        """Show these buttons for what is called `number`.

        Each: name, keys (the first one stands on the button), text, and why_not where it cannot be used now.
        """
        with self.hold_sync():
            self.number, self.actions = number, actions
            self.version += 1

    def turned(self):
        """Another page of the panel is shown: bring it into view."""
        self.page += 1

    def _heard(self, _, message, buffers):
        pressed, number = (message.get("press"), message.get("number")) if isinstance(message, dict) else (None, None)
        if number == self.number and any(one["name"] == pressed and not one.get("why_not") for one in self.actions):
            self._on_press(pressed)
