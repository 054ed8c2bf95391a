"""Small charts over the optimizer steps, drawn in one way: linked axes, names at the line ends, named thresholds and events. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass, field

from .markup import plotly_text

COLORS = {
    "light": {
        "chosen": "#1b6ca8",
        "rejected": "#b3521a",
        "margin": "#5b4a9e",
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
        "margin": "#b3a5f0",
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
_EVENT_LEVELS = 3  # rows of names above a chart; a name that fits in neither is left to the hover text of its neighbours


@dataclass(frozen=True)
class Line:
    """One trace: columns step, value and, where an interval is known, low and high. Without a label it is drawn but not named."""

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
class Panel:
    """One small chart. `span` fixes the y-axis; else it follows the data and `include`. robust: a few wild single steps may leave the chart."""

    title: str
    lines: list[Line]
    when_empty: str
    thresholds: list[Threshold] = field(default_factory=list)
    span: tuple[float, float] | None = None
    include: tuple[float, ...] = ()
    robust: bool = False


@dataclass(frozen=True)
class Mark:
    step: float
    name: str
    color: str
    text: str


def small_charts(panels, rows, columns, last_step, marks, colors, height):
    """Linked small charts with one x-axis from 0 to the last planned step."""
    from plotly.subplots import make_subplots

    top, bottom = 68, 50
    # the space between two charts holds the names at the line ends of the left one and the numbers at the axis of the right one
    figure = make_subplots(rows, columns, shared_xaxes="all", horizontal_spacing=0.125, vertical_spacing=0.2 if rows > 1 else 0)
    bare(figure, colors, height)
    figure.update_layout(margin={"t": top, "b": bottom, "l": 56, "r": 88}, hovermode="x unified")
    figure.update_xaxes(range=[0, last_step], showticklabels=True, nticks=6, tickformat="d", dtick=1 if last_step <= 5 else None)  # no half steps
    for index, panel in enumerate(panels):
        row, column = index // columns + 1, index % columns + 1
        axes = figure.get_subplot(row, column)
        x, y = axes.yaxis.anchor, axes.xaxis.anchor  # an axis knows the other one's name
        px = (height - top - bottom) * (axes.yaxis.domain[1] - axes.yaxis.domain[0])
        _draw(figure, panel, x, y, row, column, max([mark.step for mark in marks], default=0.0), px, colors)
        for mark in marks:
            vertical(figure, mark.color, x, f"{y} domain", mark.step)
        if row == 1:
            _name_marks(figure, marks, x, y, last_step)
        if row == rows:
            axes.xaxis.title = {"text": "optimizer step", "font": {"size": 11, "color": colors["muted"]}, "standoff": 6}
        note(
            figure,
            panel.title,
            colors["ink"],
            12.5,
            x=0,
            xref=f"{x} domain",
            xanchor="left",
            xshift=-30,
            y=1,
            yref=f"{y} domain",
            yanchor="bottom",
            yshift=42 if row == 1 else 10,
        )
    return figure


def _draw(figure, panel, x, y, row, column, last_mark, px, colors):
    """The lines, thresholds and names of one small chart that is `px` pixels high."""
    drawn = [line for line in panel.lines if not line.points.empty]
    low, high = panel.span or _span(drawn, panel)
    pad = 0.04 * (high - low)
    axis_low, axis_high = (low - pad, high + pad) if panel.span else (low, high)
    figure.update_yaxes(range=[axis_low, axis_high], row=row, col=column)
    for line in drawn:
        figure.add_trace(_trace(line), row=row, col=column)
    if not drawn:
        figure.add_scatter(x=[None], y=[None], hoverinfo="skip", row=row, col=column)  # plotly leaves out a chart without any trace, title and all
        figure.update_yaxes(showticklabels=False, showgrid=False, row=row, col=column)
        note(figure, panel.when_empty, colors["muted"], x=0.5, xref=f"{x} domain", y=0.5, yref=f"{y} domain", xanchor="center", yanchor="middle")
        return
    for threshold in panel.thresholds:
        figure.add_shape(
            type="line",
            xref=f"{x} domain",
            x0=0,
            x1=1,
            yref=y,
            y0=threshold.value,
            y1=threshold.value,
            line={"color": threshold.color, "width": 1.2, "dash": "dot"},
        )
    end = max(max(line.points["step"].max() for line in drawn), last_mark)  # right of everything drawn, so that no name sits on a line

    def height_px(value):
        return (value - axis_low) / (axis_high - axis_low) * px

    placed = [(height_px(threshold.value), _half_px(threshold.label)) for threshold in panel.thresholds]
    for threshold in panel.thresholds:
        note(
            figure,
            threshold.label,
            threshold.color,
            x=1,
            xref=f"{x} domain",
            xshift=8,
            y=threshold.value,
            yref=y,
            xanchor="left",
            yanchor="middle",
            align="left",
        )
    named = sorted((line for line in drawn if line.label), key=lambda line: line.points["value"].iloc[-1])
    heights = [(height_px(line.points["value"].iloc[-1]), _half_px(line.label)) for line in named]
    for line, shift in zip(named, _shifts(heights, placed, px), strict=True):
        value = float(line.points["value"].iloc[-1])
        note(figure, line.label, line.color, x=end, xref=x, xshift=8, y=value, yref=y, yshift=shift, xanchor="left", yanchor="middle", align="left")


def _trace(line):
    import plotly.graph_objects as go

    points = thinned(line.points)
    trace = go.Scatter(
        name=line.name,
        x=points["step"].to_numpy(),
        y=points["value"].to_numpy(),
        mode="lines+markers" if line.symbol else "lines",
        line={"color": line.color, "width": 1 if line.pale else 2, "dash": line.dash},
        opacity=0.35 if line.pale else 1,
        cliponaxis=line.pale,
        hovertemplate="%{y:.3g}",
        hoverinfo="skip" if line.pale else None,
    )
    if line.pale:
        trace.hovertemplate = None
    if line.symbol:
        trace.marker = {"symbol": line.symbol, "size": 7, "color": line.color}
    if {"low", "high"} <= set(points.columns):
        above, below = (points["high"] - points["value"]).clip(lower=0), (points["value"] - points["low"]).clip(lower=0)
        trace.error_y = {
            "type": "data",
            "symmetric": False,
            "array": above.to_numpy(),
            "arrayminus": below.to_numpy(),
            "thickness": 1,
            "width": 0,
            "color": faded(line.color, 0.55),
        }
    return trace


def _span(drawn, panel):
    share = 0.01 if panel.robust else 0.0
    values = [line.points["value"].quantile(end) for line in drawn for end in ((share, 1 - share) if line.pale else (0.0, 1.0))]
    values += [threshold.value for threshold in panel.thresholds] + list(panel.include)
    low, high = padded(min(values, default=0.0), max(values, default=1.0), 0.07)
    return (0.0 if low < 0 <= min(values, default=0.0) else low), high  # what cannot be negative gets no negative axis


def padded(low, high, share):
    room = (high - low) * share or abs(high) * 0.1 or 0.1
    return low - room, high + room


def _half_px(label):
    return (label.count("<br>") + 1) * _LABEL_LINE_PX / 2


def _shifts(heights, placed, px):
    """By how many pixels to lift names so that none overlaps another or leaves the chart: heights and placed as (middle, half-height), rising.

    Tried from below and from above; kept is what leaves the names in the order of their lines, and then moves them least.
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


def _name_marks(figure, marks, x, y, last_step):
    """The names of the vertical lines above a chart, in rows where they would overlap."""
    chart_px, character_px = 230, 6.2  # of a chart on a narrow page; on a wider one names only get more room
    ends = [float("-inf")] * _EVENT_LEVELS
    for mark in marks:
        middle, width = mark.step / last_step * chart_px, len(mark.name) * character_px
        xanchor = "left" if middle < width / 2 else "right" if middle > chart_px - width / 2 else "center"
        start = middle - {"left": 0, "center": width / 2, "right": width}[xanchor]
        level = next((level for level, end in enumerate(ends) if start > end + 4), None)
        if level is None:
            continue
        ends[level] = start + width
        note(
            figure,
            plotly_text(mark.name, 40, 40),
            mark.color,
            10.5,
            x=mark.step,
            xref=x,
            y=1,
            yref=f"{y} domain",
            xanchor=xanchor,
            yanchor="bottom",
            yshift=12 * level + 1,
            hovertext=plotly_text(mark.text),
        )


def vertical(figure, color, x, yref, step):
    figure.add_shape(type="line", xref=x, x0=step, x1=step, yref=yref, y0=0, y1=1, line={"color": color, "width": 1, "dash": "dash"})


def note(figure, text, color, size=11, **where):
    figure.add_annotation(text=text, showarrow=False, font={"color": color, "size": size}, borderpad=0, **where)


def bare(figure, colors, height):
    """No box, no vertical grid, no legend: faint horizontals only."""
    figure.update_layout(
        template="none",
        height=height,
        autosize=True,
        showlegend=False,
        paper_bgcolor=colors["ground"],
        plot_bgcolor=colors["ground"],
        font={"family": FONT, "size": 11, "color": colors["ink"]},
        hoverlabel={"bgcolor": colors["ground"], "bordercolor": colors["muted"], "font": {"color": colors["ink"], "family": FONT}},
        uirevision="kept",  # a zoom survives new data
    )
    figure.update_xaxes(showgrid=False, zeroline=False, linecolor=colors["muted"], ticks="outside", tickcolor=colors["muted"], ticklen=3, showspikes=False)
    figure.update_yaxes(showgrid=True, gridcolor=colors["grid"], zeroline=False, showline=False, nticks=5, ticklabelstandoff=6, exponentformat="e")


def thinned(points, most: int = MOST_POINTS):
    """At most `most` rows of a DataFrame, evenly chosen; the first and the last are always among them."""
    import numpy as np

    if len(points) <= most:
        return points
    return points.iloc[np.unique(np.linspace(0, len(points) - 1, most).round().astype(int))]


def faded(color, alpha):
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
