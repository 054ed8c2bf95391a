"""Panels behind a menu, one visible at a time; each is made when it is first turned to."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets
import traitlets

from ...base.errors import WorkbenchError
from ...runs.run import Run
from .html import Html, Markup, html
from .panel import Panel, show


class Sections(Panel):
    """A menu of panels. Subclasses make a panel in `_make(name)`, and turn to the first one in their constructor."""

    def __init__(self, names: tuple[str, ...], look: str, line: Html | None = None):
        super().__init__(line)
        self._panels: dict[str, Panel] = {}
        self.menu = ipywidgets.ToggleButtons(options=names, style={"button_width": "auto"})
        self.menu.add_class(look)
        self._opening = Html()
        self._body = ipywidgets.VBox([self._opening])
        self.menu.observe(self.guard(lambda _: self.turn_to(self.menu.value)), "value")

    def turn_to(self, name: str) -> Panel:
        """Turn to a panel by its name in the menu, and return it."""
        if name not in self.menu.options:
            raise WorkbenchError(f"There is no panel {str(name)[:80]!r}: choose one of {', '.join(self.menu.options)}.")
        if self.menu.value != name:
            self.menu.value = name  # its handler calls this again
            return self._panels[name]
        if name not in self._panels:
            for panel in self._panels.values():  # the old panel must not be seen under the new name meanwhile
                show(panel, False)
            self._opening.value = html('<p class="swb-muted" role="status">{}</p>', f"Opening {name} …")
            try:
                self._panels[name] = self._make(name)
            finally:
                self._opening.value = ""
            self._body.children = (*self._body.children, self._panels[name])
        elif hasattr(self._panels[name], "refresh"):
            self._panels[name].refresh()
        for other, panel in self._panels.items():
            show(panel, other == name)
        return self._panels[name]

    def made(self, name: str) -> Panel | None:
        """The panel of this name; None until it is first turned to."""
        return self._panels.get(name)

    @property
    def panel(self) -> Panel:
        """The visible panel."""
        return self._panels[self.menu.value]

    def close(self) -> None:
        for panel in self._panels.values():
            panel.close()
        super().close()

    def snapshot(self) -> Markup:
        return self.panel.snapshot()

    def _make(self, name):
        raise NotImplementedError


class RunSections(Sections):
    """Panels of one run. makers: name in the menu -> callable with run= and line= that returns the panel.

    on_made(name, panel): called for each new panel.
    """

    run = traitlets.Instance(Run, allow_none=True)

    def __init__(
        self,
        makers: dict[str, Callable[..., Panel]],
        run: Run | None = None,
        line: Html | None = None,
        on_made: Callable[[str, Panel], None] | None = None,
    ):
        self._makers, self._on_made = makers, on_made
        super().__init__(tuple(makers), "swb-parts", line)
        self.run = run
        self.compose(self.menu, self._body)
        self.observe(self.guard(self._hand_on_run), "run")
        self.turn_to(self.menu.options[0])

    def refresh(self) -> None:
        """Read again what the visible panel shows, if anything changed since."""
        if hasattr(self.panel, "refresh"):
            self.panel.refresh()

    def _make(self, name):
        panel = self._makers[name](run=self.run, line=self.line)
        if self._on_made is not None:
            self._on_made(name, panel)
        return panel

    def _hand_on_run(self, _):
        for panel in self._panels.values():
            panel.run = self.run
