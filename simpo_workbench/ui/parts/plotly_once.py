"""plotly's FigureWidget, with its five megabytes of JavaScript sent once per kernel and not in every widget."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import anywidget
import ipywidgets
import traitlets

if TYPE_CHECKING:
    import plotly.graph_objects as go


class _Library(anywidget.AnyWidget):
    """Carries plotly's widget code to the page; never shown."""

    _esm = "export default {}"
    version = traitlets.Unicode().tag(sync=True)
    code = traitlets.Unicode().tag(sync=True)
    _one = None

    @classmethod
    def one(cls) -> _Library:
        """The one of this kernel; a new one if all widgets were closed."""
        import plotly
        import plotly.graph_objects as go

        if cls._one is None or cls._one.comm is None:
            cls._one = cls(version=plotly.__version__, code=str(go.FigureWidget._esm))
        return cls._one


def figure_widget() -> go.FigureWidget:
    """A new, empty plotly FigureWidget."""
    return _kind()()


@cache
def _kind():
    import pandas  # noqa: F401 - plotly fails if a thread has imported pandas only in part
    import plotly.graph_objects as go

    class Figure(go.FigureWidget):
        _esm = Path(__file__).with_name("plotly_once.js")
        library = traitlets.Instance(_Library).tag(sync=True, **ipywidgets.widget_serialization)

        @traitlets.default("library")
        def _library(self):
            return _Library.one()

    return Figure
