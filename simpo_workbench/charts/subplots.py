"""Small charts over the optimizer steps, all drawn alike: linked axes, names at line ends, thresholds and events.

Pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..base.escape import plotly_text

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

COLORS = {
    "light": {
        "chosen": "#1b6ca8",
        "rejected": "#b3521a",
        "lead": "#5b4a9e",
        "answers": "#1f7a5f",
        "attention": "#8a6100",
        "failure": "#b3261e",
        "ink": "#212121",
        "muted": "#616161",
        "grid": "#e8e8e8",
        "ground": "#ffffff",
    },
    "dark": {
        "chosen": "#6db3f2",
        "rejected": "#f0985a",
        "lead": "#b3a5f0",
        "answers": "#5cc4a1",
        "attention": "#e0b040",
        "failure": "#f28b82",
        "ink": "#e6e6e6",
        "muted": "#a3a3a3",
        "grid": "#2b2b2b",
        "ground": "#111111",
    },
}
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
MOST_POINTS = 2000  # per trace: more cannot be seen, and every one is sent to the browser
_LABEL_LINE_PX = 14
# rows of names above a chart; a name that fits in none is left to the hover text of its neighbours
_EVENT_LEVELS = 3


@dataclass(frozen=True)
class Line:
    """One trace: columns step, value and, where an interval is known, low and high.

    Without a label it is drawn but not named.
    """

    name: str
    points: object
    color: str
    label: str = ""
    dash: str = "solid"
    symbol: str | None = "circle"
    pale: bool = False


@dataclass(frozen=True)
class Threshold:
    """A horizontal line that is named at its right end."""

    value: float
    label: str
    color: str


@dataclass(frozen=True)
class Subplot:
    """One small chart.

    `span` fixes the y-axis; else it follows the data and `include`. robust: a few wild single steps may leave the
    chart.
    """

    title: str
    lines: list[Line]
    when_empty: str
    thresholds: list[Threshold] = field(default_factory=list)
    span: tuple[float, float] | None = None
    include: tuple[float, ...] = ()
    robust: bool = False


@dataclass(frozen=True)
class Mark:
    """A named vertical line in every chart; `text` shows when the pointer is over the name."""

    step: float
    name: str
    color: str
    text: str


def figure_height(count: int, columns: int) -> int:
    """Height in pixels of a figure with this many small charts."""
    return 60 + 270 * -(-count // columns)


def small_charts(subplots, columns, last_step, marks, colors) -> go.Figure:
    """plotly Figure of linked small charts with one x-axis from 0 to the last planned step."""
    import plotly.graph_objects as go

    return go.Figure(chart_spec(subplots, columns, last_step, marks, colors))


def chart_spec(subplots, columns, last_step, marks, colors) -> dict:
    """The same figure as plain data and layout, which takes a twentieth of the time: for figures that change often."""
    rows, height = -(-len(subplots) // columns), figure_height(len(subplots), columns)
    top, bottom = 68, 50
    # the space between two charts holds the names at the line ends of the left one and the numbers at the axis of the
    # right one
    across = 0.125 if columns > 2 else 0.17
    down = {1: 0.0, 2: 0.2}.get(rows, 0.36 / rows)
    width, room = (1 - across * (columns - 1)) / columns, (1 - down * (rows - 1)) / rows
    layout = {
        **_plain_layout(colors, height),
        "margin": {"t": top, "b": bottom, "l": 56, "r": 88},
        "hovermode": "x unified",
    }
    traces, layout["annotations"], layout["shapes"] = [], [], []
    for index, subplot in enumerate(subplots):
        row, column = divmod(index, columns)
        number = "" if index == 0 else str(index + 1)
        x, y, bottom_edge = f"x{number}", f"y{number}", 1 - row * (room + down) - room
        layout[f"xaxis{number}"] = {
            **_x_style(colors),
            "anchor": y,
            "domain": [column * (width + across), column * (width + across) + width],
            "range": [0, last_step],
            "nticks": 6,
            "tickformat": "d",
        }
        if last_step <= 5:
            layout[f"xaxis{number}"]["dtick"] = 1  # no half steps
        if index:
            layout[f"xaxis{number}"]["matches"] = "x"
        if index + columns >= len(subplots):  # the lowest of its column
            font = {"size": 11, "color": colors["muted"]}
            layout[f"xaxis{number}"]["title"] = {"text": "optimizer step", "font": font, "standoff": 6}
        layout[f"yaxis{number}"] = {
            **_y_style(colors),
            "anchor": x,
            "domain": [max(0.0, bottom_edge), min(1.0, bottom_edge + room)],
        }
        px, last_mark = (height - top - bottom) * room, max((mark.step for mark in marks), default=0.0)
        _draw(traces, layout, subplot, x, y, f"yaxis{number}", last_mark, px, colors)
        layout["shapes"] += [_vertical(mark.color, x, f"{y} domain", mark.step) for mark in marks]
        if row == 0:
            layout["annotations"] += _mark_names(marks, x, y, last_step)
        place = {"x": 0, "xref": f"{x} domain", "xanchor": "left", "xshift": -30}
        place |= {"y": 1, "yref": f"{y} domain", "yanchor": "bottom", "yshift": 42 if row == 0 else 10}
        layout["annotations"].append(_note(subplot.title, colors["ink"], 12.5, **place))
    return {"data": traces, "layout": layout}


def _draw(traces, layout, subplot, x, y, axis, last_mark, px, colors):
    """The lines, thresholds and names of one small chart that is `px` pixels high."""
    drawn, notes = [line for line in subplot.lines if not line.points.empty], layout["annotations"]
    low, high = subplot.span or _span(drawn, subplot)
    pad = 0.04 * (high - low)
    axis_low, axis_high = (low - pad, high + pad) if subplot.span else (low, high)
    layout[axis]["range"] = [axis_low, axis_high]
    # lines without points too: a live figure keeps its traces, and plotly leaves out a chart that has none, with its
    # title
    traces += [{**_trace(line), "xaxis": x, "yaxis": y} for line in subplot.lines]
    if not drawn:
        layout[axis] |= {"showticklabels": False, "showgrid": False}
        middle = {"xanchor": "center", "yanchor": "middle"}
        place = {"x": 0.5, "xref": f"{x} domain", "y": 0.5, "yref": f"{y} domain"}
        notes.append(_note(subplot.when_empty, colors["muted"], **place, **middle))
        return
    for threshold in subplot.thresholds:
        line = {"color": threshold.color, "width": 1.2, "dash": "dot"}
        place = {"xref": f"{x} domain", "x0": 0, "x1": 1, "yref": y, "y0": threshold.value, "y1": threshold.value}
        layout["shapes"].append({"type": "line", **place, "line": line})
    # right of everything drawn, so that no name lies on a line
    end = max(*(line.points["step"].max() for line in drawn), last_mark)

    def height_px(value):
        return (value - axis_low) / (axis_high - axis_low) * px

    at_end = {"xshift": 8, "xanchor": "left", "yanchor": "middle", "align": "left", "yref": y}
    placed = [(height_px(threshold.value), _half_px(threshold.label)) for threshold in subplot.thresholds]
    for threshold in subplot.thresholds:
        notes.append(_note(threshold.label, threshold.color, x=1, xref=f"{x} domain", y=threshold.value, **at_end))
    named = sorted((line for line in drawn if line.label), key=lambda line: line.points["value"].iloc[-1])
    heights = [(height_px(line.points["value"].iloc[-1]), _half_px(line.label)) for line in named]
    for line, shift in zip(named, _shifts(heights, placed, px), strict=True):
        height = float(line.points["value"].iloc[-1])
        notes.append(_note(line.label, line.color, x=float(end), xref=x, y=height, yshift=shift, **at_end))


def _trace(line):
    if line.points.empty:
        return {"type": "scatter", "name": line.name, "x": [None], "y": [None], "hoverinfo": "skip"}
    points = thinned(line.points)
    trace = {
        "type": "scatter",
        "name": line.name,
        "x": points["step"].to_numpy(),
        "y": points["value"].to_numpy(),
        "mode": "lines+markers" if line.symbol else "lines",
        "line": {"color": line.color, "width": 1 if line.pale else 2, "dash": line.dash},
        "opacity": 0.35 if line.pale else 1,
        "cliponaxis": line.pale,
        **({"hoverinfo": "skip"} if line.pale else {"hovertemplate": "%{y:.3g}"}),
    }
    if line.symbol:
        trace["marker"] = {"symbol": line.symbol, "size": 7, "color": line.color}
    if {"low", "high"} <= set(points.columns):
        above, below = (points["high"] - points["value"]).clip(lower=0), (points["value"] - points["low"]).clip(lower=0)
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": above.to_numpy(),
            "arrayminus": below.to_numpy(),
            "thickness": 1,
            "width": 0,
            "color": faded(line.color, 0.55),
        }
    return trace


def _span(drawn, subplot):
    share = 0.01 if subplot.robust else 0.0
    values = [
        line.points["value"].quantile(end)
        for line in drawn
        for end in ((share, 1 - share) if line.pale else (0.0, 1.0))
    ]
    values += [threshold.value for threshold in subplot.thresholds] + list(subplot.include)
    lowest, highest = min(values, default=0.0), max(values, default=1.0)
    low, high = padded(lowest, highest, 0.07)
    return (0.0 if low < 0 <= lowest else low), high  # what cannot be negative gets no negative axis


def padded(low: float, high: float, share: float) -> tuple[float, float]:
    """An axis from low to high with this share of its length left free at both ends."""
    room = (high - low) * share or abs(high) * 0.1 or 0.1
    return low - room, high + room


def _half_px(label):
    return (label.count("<br>") + 1) * _LABEL_LINE_PX / 2


def _shifts(heights, placed, px):
    """By how many pixels to lift each name so that none overlaps another or leaves the chart.

    heights, placed: (middle, half the height) of the names to lift and of those that stay, rising. Of the solutions
    from below and from above the one is taken that keeps the order of the lines, and then the one that moves least.
    """
    tried = []
    for order in (range(len(heights)), reversed(range(len(heights)))):
        taken, shifts = list(placed), [0.0] * len(heights)
        for index in order:
            middle, half = heights[index]
            shifts[index] = _free_shift(middle, half, taken, px)
            taken.append((middle + shifts[index], half))
        ends = [middle + shift for (middle, _), shift in zip(heights, shifts, strict=True)]
        tried.append((ends != sorted(ends), sum(map(abs, shifts)), shifts))
    return min(tried)[2]


def _free_shift(middle, half, taken, px):
    for distance in range(int(2 * px)):
        for shift in (-distance, distance):
            inside = half - 3 <= middle + shift <= px + half
            if inside and all(abs(middle + shift - other) >= half + other_half for other, other_half in taken):
                return shift
    return 0


def _mark_names(marks, x, y, last_step):
    """The names of the vertical lines above a chart, in rows where they would overlap."""
    chart_px, character_px = 230, 6.2  # of a chart on a narrow page; on a wider one names only get more room
    ends, notes = [float("-inf")] * _EVENT_LEVELS, []
    for mark in marks:
        middle, width = mark.step / last_step * chart_px, len(mark.name) * character_px
        xanchor = "center"
        if middle < width / 2:
            xanchor = "left"
        elif middle > chart_px - width / 2:
            xanchor = "right"
        start = middle - {"left": 0, "center": width / 2, "right": width}[xanchor]
        level = next((level for level, end in enumerate(ends) if start > end + 4), None)
        if level is None:
            continue
        ends[level] = start + width
        where = {
            "x": mark.step,
            "xref": x,
            "xanchor": xanchor,
            "y": 1,
            "yref": f"{y} domain",
            "yanchor": "bottom",
            "yshift": 12 * level + 1,
        }
        notes.append(_note(plotly_text(mark.name, 40, 40), mark.color, 10.5, hovertext=plotly_text(mark.text), **where))
    return notes


def vertical(figure, color, x, yref, step) -> None:
    """Add a vertical line to a plotly Figure."""
    figure.add_shape(**_vertical(color, x, yref, step))


def _vertical(color, x, yref, step):
    return {
        "type": "line",
        "xref": x,
        "x0": step,
        "x1": step,
        "yref": yref,
        "y0": 0,
        "y1": 1,
        "line": {"color": color, "width": 1, "dash": "dash"},
    }


def note(figure, text, color, size=11, **where) -> None:
    """Add a text without arrow and frame to a plotly Figure."""
    figure.add_annotation(**_note(text, color, size, **where))


def _note(text, color, size=11, **where):
    return {"text": text, "showarrow": False, "font": {"color": color, "size": size}, "borderpad": 0, **where}


def bare(figure, colors, height, title=None) -> None:
    """Give a plotly Figure the look of all charts: no box, vertical grid or legend; a small title at the top left."""
    figure.update_layout(**_plain_layout(colors, height))
    if title is not None:
        font = {"size": 12.5, "color": colors["ink"]}
        place = {"x": 0, "xref": "paper", "xanchor": "left", "y": 0.97, "yanchor": "top"}
        figure.update_layout(title={"text": title, "font": font, **place})
    figure.update_xaxes(**_x_style(colors))
    figure.update_yaxes(**_y_style(colors))


def _plain_layout(colors, height):
    return {
        "template": "none",
        "height": height,
        "autosize": True,
        "showlegend": False,
        "paper_bgcolor": colors["ground"],
        "plot_bgcolor": colors["ground"],
        "font": {"family": FONT, "size": 11, "color": colors["ink"]},
        "hoverlabel": {
            "bgcolor": colors["ground"],
            "bordercolor": colors["muted"],
            "font": {"color": colors["ink"], "family": FONT},
        },
        "uirevision": "kept",  # a zoom survives new data
    }


def _x_style(colors):
    return {
        "showgrid": False,
        "zeroline": False,
        "linecolor": colors["muted"],
        "ticks": "outside",
        "tickcolor": colors["muted"],
        "ticklen": 3,
        "showspikes": False,
    }


def _y_style(colors):
    return {
        "showgrid": True,
        "gridcolor": colors["grid"],
        "zeroline": False,
        "showline": False,
        "nticks": 5,
        "ticklabelstandoff": 6,
        "exponentformat": "e",
    }


def thinned(points, most: int = MOST_POINTS) -> pd.DataFrame:
    """At most `most` rows of a DataFrame, evenly chosen, with the first and the last."""
    import numpy as np

    if len(points) <= most:
        return points
    return points.iloc[np.unique(np.linspace(0, len(points) - 1, most).round().astype(int))]


def faded(color: str, alpha: float) -> str:
    """A colour "#rrggbb" with this opacity, as CSS."""
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
