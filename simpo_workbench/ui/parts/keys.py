"""Keys of a panel, each also a button; they work while the focus is in the panel but not in a text field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets


class Keys(anywidget.AnyWidget):
    """Buttons that show their keys. on_press(name): called for a press while the buttons were in the page.

    A press carries the `number` of what the page showed and is ignored if that changed, however fast keys are pressed.
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

    def offer(self, number: int, actions: list[dict]) -> None:
        """Show these buttons for what has this number.

        Each: name, keys (the first is shown on the button), text, and why_not if it cannot be used now.
        """
        with self.hold_sync():
            self.number, self.actions = number, actions
            self.version += 1

    def turned(self) -> None:
        """Scroll to the panel's page that was just turned to."""
        self.page += 1

    def _heard(self, _, message, buffers):
        if not isinstance(message, dict) or message.get("number") != self.number:
            return
        pressed = message.get("press")
        if any(action["name"] == pressed and not action.get("why_not") for action in self.actions):
            self._on_press(pressed)
