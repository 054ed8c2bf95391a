"""What all panels share: the frame with style and theme, a line for what happened last, and handlers whose errors are
said in words.
"""

from __future__ import annotations

import functools
import traceback
from contextlib import contextmanager
from pathlib import Path

import anywidget
import ipywidgets
import traitlets

from ..._version import __version__
from ...base.errors import WorkbenchError, first_line
from .following import LOCK, POLL_S, Follower, follow, in_background
from .html import Html, Markup, html

_HERE = Path(__file__).parent


class Frame(anywidget.AnyWidget):
    """Takes no room: brings the style sheet, knows the page's theme, and leaves keys to the panel's controls."""

    _esm = _HERE / "frame.js"
    _css = _HERE / "style.css"
    theme = traitlets.Unicode("light").tag(sync=True)
    label = traitlets.Unicode("").tag(sync=True)


class Panel(ipywidgets.VBox):
    """A panel of the workbench, usable alone. `theme` is the page's ("light" or "dark"); `trouble` the traceback of the
    last unexpected error, else "".

    line: where the panel says what happened last; without it, it has a line of its own at the end.
    """

    title = "SimPO Workbench"
    theme = traitlets.Unicode("light")
    trouble = ""
    filling = False
    _page_theme = "light"  # what the page said last: a panel that comes later begins with it

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
        self._frame.on_msg(self._count_views)

    def compose(self, *children: ipywidgets.Widget):
        """Show these from top to bottom, and the line below them where the panel has its own."""
        self.children = (self._frame, *children, *([self.line] if self._own_line else []))

    def say(self, text: str | Markup, tone: str = "note"):
        """What happened last, in the one line. tone: note, good, or error."""
        self.line.value = html(
            '<div role="status" class="swb-said swb-{}">{}{}</div>',
            tone,
            html("<b>{}</b> ", "Error:") if tone == "error" else "",
            text,
        )

    def say_error(self, error: BaseException):
        """An error in a sentence.

        One that is not ours is a fault of this program: its traceback is kept in `trouble`, not shown.
        """
        if isinstance(error, (WorkbenchError, TimeoutError)):
            self.say(str(error), "error")
            return
        self.trouble = "".join(traceback.format_exception(error))
        self.say(
            f"{type(error).__name__}: {first_line(error)}. This is a fault of the workbench; the panel's attribute"
            " `trouble` has its traceback.",
            "error",
        )

    def later(self, work, done, failed=None):
        """Do `work()` in a thread, then `done(result)` as a handler; an error is said, after `failed(error)` where one
        is given.
        """

        def after_failure(error):
            if failed is not None:
                self.guard(failed)(error)
            self.say_error(error)

        return in_background(work, self.guard(done), after_failure)

    def follow(self, look, every_s: float = POLL_S) -> Follower:
        """A Follower that goes on after errors: each is said once, and the next look is tried all the same.

        It rests while the panel is in no page.
        """
        said = None

        def tolerant():
            nonlocal said
            if self.forgotten:
                return
            try:
                look()
            except Exception as error:
                if repr(error) != said:
                    said = repr(error)
                    self.say_error(error)
            else:
                said = None

        return follow(tolerant, every_s)

    def guard(self, handler):
        """The handler under the lock, with every error said in the line instead of shown as a traceback."""

        @functools.wraps(handler)
        def guarded(*args, **kwargs):
            with LOCK:
                try:
                    return handler(*args, **kwargs)
                except Exception as error:
                    self.say_error(error)

        return guarded

    @contextmanager
    def quietly(self):
        """Controls are filled by the panel itself: `filling` is true meanwhile, for nobody chose anything."""
        before, self.filling = self.filling, True
        try:
            yield
        finally:
            self.filling = before

    def redraw(self):
        """Draw anew what depends on the theme. Panels with charts override it."""

    def snapshot(self) -> Markup:
        """What the panel shows now, as HTML that needs no kernel. Panels override it."""
        return html("<p>{}</p>", "This panel needs a running kernel.")

    @property
    def forgotten(self) -> bool:
        """Whether the panel was shown and is in no page any more, such as after its cell was run again: then nothing is
        followed for it.
        """
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
        # without a kernel JupyterLab and others look for formulas between dollar signs in it
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
    text: str, on_click, icon: str = "", tooltip: str = "", style: str = "", disabled: bool = False
) -> ipywidgets.Button:
    """A button that calls `on_click()`; style: "", "primary" or "danger".

    Its tooltip says why it is disabled while it is.
    """
    made = ipywidgets.Button(
        description=text, icon=icon, tooltip=tooltip, disabled=disabled, layout=ipywidgets.Layout(width="auto")
    )
    made.add_class("swb-button")
    if style:
        made.add_class(f"swb-{style}")
    made.on_click(lambda _: on_click())
    return made


def enable(made: ipywidgets.Widget, why_not: str = "", tooltip: str = ""):
    """Enable a control, or disable it with its reason as tooltip."""
    made.disabled = bool(why_not)
    made.tooltip = why_not or tooltip


def row(*children: ipywidgets.Widget, classes: str = "") -> ipywidgets.HBox:
    """Widgets side by side, going on below where the room ends."""
    made = ipywidgets.HBox(list(children))
    for name in ("swb-row", *classes.split()):
        made.add_class(name)
    return made


def column(*children: ipywidgets.Widget, classes: str = "") -> ipywidgets.VBox:
    """Widgets below each other."""
    made = ipywidgets.VBox(list(children))
    for name in ("swb-column", *classes.split()):
        made.add_class(name)
    return made


def show(widget: ipywidgets.Widget, visible: bool):
    """Show or hide a widget."""
    widget.layout.display = None if visible else "none"
