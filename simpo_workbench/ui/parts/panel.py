"""What all panels share: style and theme, the message line, and handlers that show their errors as sentences."""

from __future__ import annotations

import functools
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets

from ..._version import __version__
from ...base.errors import WorkbenchError, first_line
from .following import LOCK, POLL_S, Follower, follow, in_background
from .html import Html, Markup, html

_HERE = Path(__file__).parent


class Frame(anywidget.AnyWidget):
    """An invisible widget that loads the style sheet, reports the page's theme, and keeps keys from JupyterLab."""

    _esm = _HERE / "frame.js"
    _css = _HERE / "style.css"
    theme = traitlets.Unicode("light").tag(sync=True)
    label = traitlets.Unicode("").tag(sync=True)


class Panel(ipywidgets.VBox):
    """A panel of the workbench, which can also be shown alone.

    `theme` is the page's, "light" or "dark"; `trouble` is the traceback of the last unexpected error, else "".
    line: the message line to use; without it the panel has its own, at its end.
    """

    title = "SimPO Workbench"
    theme = traitlets.Unicode("light")
    trouble = ""
    filling = False
    _page_theme = "light"  # the theme reported last, with which later panels begin

    def __init__(self, line: Html | None = None):
        self._frame = Frame(label=self.title, theme=Panel._page_theme)
        self._own_line = line is None
        self.line = line or Html()
        self.line.add_class("swb-line")
        super().__init__([self._frame])
        self.theme = Panel._page_theme
        self.add_class("swb")
        self._frame.observe(self._page_changed_theme, "theme")
        self._views, self._was_shown = 0, False
        self._latest: dict[object, object] = {}
        self._frame.on_msg(self._count_views)

    def compose(self, *children: ipywidgets.Widget) -> None:
        """Show these from top to bottom, and below them the message line if it is the panel's own."""
        self.children = (self._frame, *children, *([self.line] if self._own_line else []))

    def say(self, text: str | Markup, tone: str = "note") -> None:
        """Show a message in the line. tone: note, good or error."""
        self.line.value = html(
            '<div role="status" class="swb-said swb-{}">{}{}</div>',
            tone,
            html("<b>{}</b> ", "Error:") if tone == "error" else "",
            text,
        )

    def say_error(self, error: BaseException) -> None:
        """Show an error as a sentence; the traceback of one that the workbench did not expect is kept in `trouble`."""
        if isinstance(error, (WorkbenchError, TimeoutError)):
            self.say(str(error), "error")
            return
        self.trouble = "".join(traceback.format_exception(error))
        self.say(
            f"{type(error).__name__}: {first_line(error)}. This is a fault of the workbench; the panel's attribute"
            " `trouble` has its traceback.",
            "error",
        )

    def later(
        self,
        work: Callable[[], Any],
        done: Callable[[Any], Any],
        failed: Callable[[Exception], Any] | None = None,
        latest: object = None,
    ) -> threading.Thread:
        """Run `work()` in a thread and then `done(result)`, or `failed(error)` before the error is shown, as handlers.

        latest: a key; what an earlier call with this key still brings, result or error, is dropped.
        """
        call = object()
        if latest is not None:
            self._latest[latest] = call

        def unless_dropped(handler):
            def handle(value):
                if latest is not None:
                    if self._latest.get(latest) is not call:
                        return
                    del self._latest[latest]
                handler(value)

            return handle

        def fail(error):
            if failed is not None:
                self.guard(failed)(error)
            self.say_error(error)

        return in_background(work, unless_dropped(self.guard(done)), unless_dropped(fail))

    def drop(self, key: object) -> None:
        """Ignore the result or error of the pending `later` call with this key."""
        self._latest.pop(key, None)

    def follow(self, look: Callable[[], Any], every_s: float = POLL_S) -> Follower:
        """A Follower that goes on after errors, showing each once, and pauses while the panel is in no page."""
        shown = None

        def tolerant():
            nonlocal shown
            if self.forgotten:
                return
            try:
                look()
            except Exception as error:
                if repr(error) != shown:
                    shown = repr(error)
                    self.say_error(error)
            else:
                shown = None

        return follow(tolerant, every_s)

    def guard(self, handler: Callable) -> Callable:
        """The handler, called under the lock and with its errors shown in the line instead of as a traceback."""

        @functools.wraps(handler)
        def guarded(*args, **kwargs):
            with LOCK:
                try:
                    return handler(*args, **kwargs)
                except Exception as error:
                    self.say_error(error)

        return guarded

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """While the panel fills its own controls `filling` is true, so that handlers do not take it for a choice."""
        before, self.filling = self.filling, True
        try:
            yield
        finally:
            self.filling = before

    def redraw(self) -> None:
        """Draw again what depends on the theme; panels with charts override it."""

    def snapshot(self) -> Markup:
        """What the panel shows now, as HTML that needs no kernel; panels override it."""
        return html("<p>{}</p>", "This panel needs a running kernel.")

    @property
    def forgotten(self) -> bool:
        """Whether the panel was shown but is no longer in a page, for example because its cell was run again."""
        return self._was_shown and self._views <= 0

    def _count_views(self, _, message, buffers):
        if isinstance(message, dict) and message.get("views") in (1, -1):
            self._views = max(0, self._views + message["views"])
            self._was_shown = True

    def _page_changed_theme(self, change):
        self.theme = Panel._page_theme = change["new"]
        self.guard(self.redraw)()

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        with LOCK:
            still = self.guard(self.snapshot)() or Markup(self.line.value)
        note = (
            f"SimPO Workbench {__version__}, {self.title}: a still picture of a live panel. Run the notebook to use it."
        )
        text = f"{self.title}\n{still.striptags()}"
        # the classes keep JupyterLab and others from taking text between dollar signs for formulas
        return {
            **bundle,
            "text/plain": text[:2000],
            "text/html": str(
                html(
                    '<div class="swb-still mathjax_ignore tex2jax_ignore" style="overflow-wrap: anywhere; overflow-x:'
                    ' auto"><p><small>{}</small></p>{}</div>',
                    note,
                    still,
                )
            ),
        }


def button(
    text: str, on_click: Callable[[], Any], icon: str = "", tooltip: str = "", style: str = "", disabled: bool = False
) -> ipywidgets.Button:
    """A button that calls `on_click()`; style: "", "primary" or "danger"."""
    widget = ipywidgets.Button(
        description=text, icon=icon, tooltip=tooltip, disabled=disabled, layout=ipywidgets.Layout(width="auto")
    )
    widget.add_class("swb-button")
    if style:
        widget.add_class(f"swb-{style}")
    widget.on_click(lambda _: on_click())
    return widget


def enable(control: ipywidgets.Widget, why_not: str = "", tooltip: str = "") -> None:
    """Enable a control, or disable it with the reason `why_not` as its tooltip."""
    control.disabled = bool(why_not)
    control.tooltip = why_not or tooltip


def row(*children: ipywidgets.Widget, classes: str = "") -> ipywidgets.HBox:
    """Widgets side by side, wrapping where the width ends."""
    return _with_classes(ipywidgets.HBox(list(children)), f"swb-row {classes}")


def column(*children: ipywidgets.Widget, classes: str = "") -> ipywidgets.VBox:
    """Widgets below each other."""
    return _with_classes(ipywidgets.VBox(list(children)), f"swb-column {classes}")


def _with_classes(box, classes):
    for name in classes.split():
        box.add_class(name)
    return box


def show(widget: ipywidgets.Widget, visible: bool) -> None:
    """Show or hide a widget."""
    widget.layout.display = None if visible else "none"
