"""A plotly figure in a page that fills the width, keeps its height and zoom, and changes in one message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anywidget
import ipywidgets
import traitlets

from .html import Html, Markup, html
from .plotly_once import figure_widget


class _Chart(anywidget.AnyWidget):
    """Keeps the figure beside it as wide as its place. reading_line: shows the values of all charts at the pointer."""

    _esm = Path(__file__).parent / "chart.js"
    reading_line = traitlets.Bool(False).tag(sync=True)
    drawn = traitlets.Int(0).tag(sync=True)
    width = traitlets.Int(0).tag(sync=True)


class LiveFigure(ipywidgets.VBox):
    """Shows figures one after the other as one FigureWidget.

    on_choose(trace_name, point_indices): called when points are clicked or selected. on_box((x low, x high), (y low, y
    high)): called instead when a box is drawn. linked: small charts over one x-axis, read together at the pointer.
    on_width(pixels): called when the width changes.
    """

    def __init__(
        self,
        height: int,
        on_choose: Callable[[str, list[int]], None] | None = None,
        on_box: Callable[[tuple, tuple], None] | None = None,
        linked: bool = False,
        on_width: Callable[[int], None] | None = None,
    ):
        self.widget = figure_widget()
        self.widget._config = {**self.widget._config, "responsive": True, "displaylogo": False, "displayModeBar": False}
        self._on_choose, self._on_box, self._box = on_choose, on_box, None
        self._shown = {"data": [], "layout": {}}
        self.words = Html()
        self.words.add_class("swb-sr")
        self._chart = _Chart(reading_line=linked)
        if on_width is not None:
            self._chart.observe(lambda change: on_width(change["new"]), "width")
        super().__init__([self.widget, self._chart, self.words])
        self.add_class("swb-figure")
        self.layout.min_height = f"{height}px"  # before anything is drawn too

    def show(self, figure) -> None:
        """Show a plotly Figure or its data and layout; what has not changed is not sent again."""
        spec = figure if isinstance(figure, dict) else figure.to_plotly_json()
        before, self._shown = self._shown, spec
        with self.widget.batch_update():
            if [_kind(trace) for trace in spec["data"]] == [_kind(trace) for trace in before["data"]]:
                for trace, old, new in zip(self.widget.data, before["data"], spec["data"], strict=True):
                    trace.update(_changed(old, new), overwrite=True)
            else:
                self.widget.data = []
                self.widget.add_traces(spec["data"])
                self._listen()
                self._chart.drawn += 1
            self.widget.layout.update(_changed(before["layout"], spec["layout"]), overwrite=True)

    def describe(self, sentence: str, table: Markup | str = "") -> None:
        """Give screen readers what the figure shows, as a sentence and a table."""
        self.words.value = html("<p>{}</p>{}", sentence, table)

    def forget_box(self) -> None:
        """Remove the drawn box."""
        # the widget does not know of the box and sends only changes, so it gets another one first
        for boxes in ([{"type": "rect", "x0": 0, "x1": 0, "y0": 0, "y1": 0}], []):
            self.widget.layout.selections = boxes

    def _listen(self):
        if self._on_choose is None:
            return
        for trace in self.widget.data:
            trace.on_click(self._chosen)
            trace.on_selection(self._chosen)

    def _chosen(self, trace, points, how):
        if self._on_box is not None and hasattr(how, "xrange"):
            if how is not self._box:  # every trace reports the same box
                self._box = how
                self._on_box(tuple(sorted(how.xrange)), tuple(sorted(how.yrange)))
        elif points.point_inds:
            self._on_choose(trace.name, list(points.point_inds))


def _kind(trace):
    return trace.get("type"), trace.get("name"), trace.get("xaxis")


def _changed(old, new):
    """The keys that differ, with their new values; None for keys that are gone."""
    return {
        **{key: None for key in old if key not in new},
        **{key: value for key, value in new.items() if key not in old or not _same(value, old[key])},
    }


def _same(value, other):
    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() == other.keys() and all(_same(value[key], other[key]) for key in value)
    if hasattr(value, "tobytes") and hasattr(other, "tobytes"):
        return value.shape == other.shape and value.tobytes() == other.tobytes()
    return type(value) is type(other) and value == other
