"""The loss and the place of every pair on it: a Geometry in, plotly figures out. Pure functions.

The axes do not depend on β and γ/β: while one drags the sliders, only the pairs move. A `…_spec` is the same figure as
plain data and layout, which is made much faster.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from ..analysis.geometry import STATES, loss_at, pull_at
from ..base.format import counted
from .subplots import COLORS, bare

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: More pairs than this are drawn as bubbles, each for the pairs in one stretch of the loss.
MOST = 2000
#: The part of the loss that is drawn, in z = margin − γ: beyond it a pair pulls with more than 99.7 % of the most it
#: could, or with less than 0.3 %.
REACH = 6.0
HEIGHT = 440
_STRETCHES = 48
_WHOLE_PX = 90  # the width of a bubble that holds all pairs
_MOST_END_PX = 22
_MOST_RINGS = 300
_LINE_POINTS = 161
_LEVEL_PX = 13  # between two rows of names above a chart
_MARGIN = {"t": 74, "r": 24, "b": 46, "l": 60}
#: The colours of no pull and of full pull; between them the colour says how hard a pair pulls.
_PULLS = {"light": ("#f1eff9", "#5b4a9e"), "dark": ("#26222f", "#b3a5f0")}


def curve_figure(geometry, theme="light", chosen=None) -> go.Figure:
    """plotly Figure: the loss −log σ(z) over z = margin − γ (reward units) with the pairs on it, and below it the pull.

    geometry: from `loss_geometry`. Colours say how hard pairs pull. Up to MOST pairs are points with their pair_id as
    customdata; more are bubbles, whose area is their number of pairs and whose customdata is the pair in the middle of
    them. Pairs beyond the drawn part are triangles at its ends. chosen: pair ids to be marked by a ring.
    """
    import plotly.graph_objects as go

    return go.Figure(curve_spec(geometry, theme, chosen))


def leads_figure(geometry, theme="light") -> go.Figure:
    """plotly Figure: how far the chosen answers lead (nats per token), as bars coloured by how hard their pairs pull.

    0, γ/β, and the leads at which full pull ends and saturation begins are marked. Of MOST pairs or more, the first and
    the last bar each also hold the thousandth part that lies further out.
    """
    import plotly.graph_objects as go

    return go.Figure(leads_spec(geometry, theme))


def curve_spec(geometry, theme="light", chosen=None) -> dict:
    """`curve_figure` as plain data and layout."""
    import numpy as np

    colors, smoothing, n = COLORS[theme], geometry.label_smoothing, len(geometry.leads)
    z = np.linspace(-REACH, REACH, _LINE_POINTS)
    pull, colored, outline = (
        pull_at(z, smoothing),
        _colored(smoothing, theme),
        {"color": colors["lead"], "width": 0.8},
    )
    rings = _z_of(geometry, chosen).clip(-REACH, REACH)
    loss = {
        "name": "loss",
        "x": z,
        "y": loss_at(z, smoothing),
        "mode": "lines",
        "line": {"color": colors["muted"], "width": 1.4},
        "hoverinfo": "skip",
    }
    pulls = {
        "name": "pull",
        "x": z,
        "y": pull,
        "yaxis": "y2",
        "mode": "markers",
        "marker": {**colored, "color": pull, "size": 7},
        "hovertemplate": "z %{x:.2f}: pull %{y:.0%}<extra></extra>",
    }
    ringed = {
        "name": "chosen pairs",
        "x": rings,
        "y": loss_at(rings, smoothing),
        "mode": "markers",
        "marker": {"color": "rgba(0,0,0,0)", "size": 17, "line": {"color": colors["ink"], "width": 2}},
        "hoverinfo": "skip",
    }
    pairs = list(_points(geometry) if n <= MOST else _bubbles(geometry))
    for trace in pairs:
        trace |= {"mode": "markers", "marker": {**colored, "line": outline, "opacity": 0.9, **trace["marker"]}}
    data = [{**trace, "type": "scatter", "cliponaxis": False} for trace in (loss, pulls, *pairs, ringed)]
    area = "" if n <= MOST else "; area of a bubble: its number of pairs"
    layout = _layout(f"Loss of each pair (nats), {counted(n, 'pair')}{area}", theme)
    x_title = {"text": "z = margin − γ (reward units)", "standoff": 6}
    layout["xaxis"] |= {"title": x_title, "range": [-REACH - 0.3, REACH + 0.3], "dtick": 2, "anchor": "y2"}
    below = {"domain": [0, 0.2], "range": [-smoothing - 0.12, 1.12], "tickformat": ".0%", "tickvals": [0, 0.5, 1]}
    layout["yaxis2"] = {**layout["yaxis"], **below, "anchor": "x"}
    layout["yaxis"] |= {"domain": [0.33, 1], "range": [-0.35, REACH + 1.0], "dtick": 2, "anchor": "x"}
    layout["shapes"] = [_line(bound, colors["muted"], "dot") for bound in geometry.bounds]
    layout["shapes"].append(_line(0, colors["grid"], "solid"))
    at_left = {"x": 0, "xref": "paper", "xanchor": "left", "xshift": -30, "y": 0.2, "yshift": 14}
    notes = layout["annotations"] = [_note("Pull (gradient ÷ β)", colors["ink"], 12, **at_left)]
    if n:
        notes += [_note(text, colors["lead"], 11, y=1, **where) for text, where in _zones(geometry)]
    notes.append(_note("margin = γ", colors["muted"], 10.5, x=0, xanchor="left", xshift=3, y=0.33, yshift=-2))
    for end, count, word, where in (
        (-REACH, (geometry.z < -REACH).sum(), "left", {"xanchor": "left", "xshift": 18, "yshift": 6}),
        (REACH, (geometry.z > REACH).sum(), "right", {"xanchor": "right", "yshift": 16}),
    ):
        if count:
            place = {"x": end, "y": float(loss_at(end, smoothing)), "yref": "y", **where}
            notes.append(_note(f"{count:,} further {word}", colors["muted"], 10.5, **place))
    return {"data": data, "layout": layout}


def leads_spec(geometry, theme="light") -> dict:
    """`leads_figure` as plain data and layout."""
    import numpy as np

    colors, leads, n = COLORS[theme], geometry.leads.rising, len(geometry.leads)
    layout = _layout(f"Lead of each pair (nats per token), {counted(n, 'pair')}", theme)
    if not n:
        layout["xaxis"]["visible"] = layout["yaxis"]["visible"] = False
        layout["annotations"] = [_note("comes with the pairs", colors["muted"], 11, x=0.5, xref="paper", y=0.5)]
        return {"data": [], "layout": layout}
    edges = _edges(leads)
    counts = np.diff(np.concatenate([[0], np.searchsorted(leads, edges[1:-1], side="left"), [n]]))
    middles = (edges[:-1] + edges[1:]) / 2
    pull = pull_at(geometry.beta * (middles - geometry.gamma_beta_ratio), geometry.label_smoothing)
    colored, outline = _colored(geometry.label_smoothing, theme), {"color": colors["lead"], "width": 0.7}
    bars = {
        "type": "bar",
        "name": "pairs",
        "x": middles,
        "y": counts,
        "width": np.diff(edges),
        "marker": {**colored, "color": pull, "line": outline},
        "customdata": np.stack([edges[:-1], edges[1:]], axis=1),
        "hovertemplate": (
            "%{y:,} pairs lead by %{customdata[0]:.2f} to %{customdata[1]:.2f}: pull %{marker.color:.0%}<extra></extra>"
        ),
    }
    top = int(counts.max())
    layout |= {"bargap": 0, "shapes": [], "annotations": []}
    x_title = f"lead of the chosen answer (nats per token); margin: {geometry.beta:.3g} times that"
    layout["xaxis"] |= {"title": {"text": x_title, "standoff": 6}, "range": [edges[0], edges[-1]]}
    layout["yaxis"] |= {"title": {"text": "pairs"}, "range": [0, top * 1.06], "tickformat": ",d", "nticks": 6}
    if top <= 5:
        layout["yaxis"]["dtick"] = 1  # no half pairs
    full, saturated = (geometry.gamma_beta_ratio + bound / geometry.beta for bound in geometry.bounds[:2])
    goal = f"γ/β {geometry.gamma_beta_ratio:.3g} (γ {geometry.gamma:.3g})"
    _mark(layout, edges, full, "◂ full pull", "right", colors["lead"], 2, "dot")
    _mark(layout, edges, saturated, "saturated ▸", "left", colors["lead"], 2, "dot")
    _mark(layout, edges, 0.0, "0", "center", colors["muted"], 0, "dash")
    _mark(layout, edges, geometry.gamma_beta_ratio, goal, "center", colors["ink"], 1, "dash")
    if geometry.gamma_beta_ratio > edges[-1]:  # the axis stays; the goal is somewhere to the right of it
        at_right = {"x": 1, "xref": "paper", "xanchor": "right", "y": 1, "yshift": _LEVEL_PX}
        layout["annotations"].append(_note(f"{goal} →", colors["ink"], 11, **at_right))
    return {"data": [bars], "layout": layout}


def _points(geometry):
    """One point per pair, and one triangle for each that is beyond the drawn part."""
    import numpy as np

    z, leads = geometry.z, geometry.leads
    inside = np.abs(z) <= REACH
    for name, rows, words in (
        ("pairs", np.flatnonzero(inside), "z %{x:.2f}, loss %{y:.2f}"),
        ("pairs further out", np.flatnonzero(~inside), "beyond the drawn part"),
    ):
        x = z[rows].clip(-REACH, REACH)
        yield {
            "name": name,
            "x": x,
            "y": loss_at(x, geometry.label_smoothing),
            "marker": {"color": geometry.pull_share[rows], "size": 9, "symbol": _symbols(z[rows])},
            "customdata": leads.pair_id[rows],
            "text": [leads.labels[row] for row in rows],
            "hovertemplate": "%{text}<br>" + words + ", pull %{marker.color:.0%}<extra></extra>",
        }


def _bubbles(geometry):
    """One bubble for the pairs of each stretch of the loss, and a triangle for those beyond either end."""
    import numpy as np

    n, order = len(geometry.leads), geometry.leads.order
    rising = geometry.z[order]
    ends = np.concatenate([[0], np.searchsorted(rising, np.linspace(-REACH, REACH, _STRETCHES + 1)), [n]])
    starts, ends = ends[:-1], ends[1:]
    counts, sums = ends - starts, np.concatenate([[0.0], np.cumsum(rising)])
    means = (sums[ends] - sums[starts]) / np.maximum(counts, 1)
    outside = np.isin(np.arange(len(counts)), (0, len(counts) - 1))
    for name, wanted, words in (
        ("pairs", (counts > 0) & ~outside, "around z %{x:.2f}"),
        ("pairs further out", (counts > 0) & outside, "beyond the drawn part"),
    ):
        x, shown = means[wanted].clip(-REACH, REACH), counts[wanted]
        if name != "pairs":  # the number of those at the ends is written beside them
            shown = shown.clip(max=n * (_MOST_END_PX / _WHOLE_PX) ** 2)
        size = {"size": shown, "sizemode": "area", "sizeref": 2 * n / _WHOLE_PX**2, "sizemin": 3}
        pull = pull_at(means[wanted], geometry.label_smoothing)
        yield {
            "name": name,
            "x": x,
            "y": loss_at(x, geometry.label_smoothing),
            "marker": {"color": pull, "symbol": _symbols(means[wanted]), **size},
            "customdata": geometry.leads.pair_id[order[(starts[wanted] + ends[wanted]) // 2]],
            "text": [counted(int(count), "pair") for count in counts[wanted]],
            "hovertemplate": "%{text} " + words + ", pull %{marker.color:.0%}<extra></extra>",
        }


def _symbols(z):
    import numpy as np

    return np.select([z < -REACH, z > REACH], ["triangle-left", "triangle-right"], "circle").tolist()


def _z_of(geometry, chosen):
    """z of the first _MOST_RINGS of the chosen pairs that the geometry holds."""
    import numpy as np

    places = geometry.leads.places
    rows = [places[name] for name in (chosen if chosen is not None else ()) if name in places]
    return geometry.z[np.array(rows[:_MOST_RINGS], dtype=int)]


def _zones(geometry):
    """(name and count, place) of the zones of the loss: the outer ones at the ends, the others in their middle."""
    bounds, counts = geometry.bounds, geometry.counts
    for index, state in enumerate(STATES[: len(bounds) + 1]):
        text = f"{state} {counts[state]:,}"
        if index == 0:
            yield text, {"x": 0, "xref": "paper", "xanchor": "left", "yshift": 2}
        elif index == len(bounds):
            yield text, {"x": 1, "xref": "paper", "xanchor": "right", "yshift": 2}
        else:
            yield text, {"x": (bounds[index - 1] + bounds[index]) / 2, "yshift": 2 + _LEVEL_PX * (index - 1)}


def _mark(layout, edges, value, name, side, color, level, dash):
    """Draw a named vertical line if it is in the chart; the name stays inside."""
    low, high = float(edges[0]), float(edges[-1])
    if not low <= value <= high:
        return
    place = (value - low) / (high - low)
    if place < 0.12:
        side = "left"
    elif place > 0.88:
        side = "right"
    layout["shapes"].append({**_line(value, color, dash), "layer": "above"})
    layout["annotations"].append(_note(name, color, 11, x=value, xanchor=side, y=1, yshift=1 + _LEVEL_PX * level))


def _edges(rising):
    """Edges of 10 to 40 bars of one width over the sorted leads, with an edge at zero."""
    import numpy as np

    n = len(rising)
    low, high = (rising[0], rising[-1]) if n < MOST else np.percentile(rising, [0.1, 99.9])
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    span = (high - low) or 0.1
    spread = float(np.subtract(*np.percentile(rising, [75, 25]))) * 2 / n ** (1 / 3)  # Freedman and Diaconis
    width = min(max(spread, span / 40), span / 10)
    return np.arange(np.floor(low / width), max(np.ceil(high / width), np.floor(low / width) + 1) + 1) * width


def _colored(smoothing, theme):
    """Marker settings that show how hard a pair pulls; pairs that pull back take the colour of rejected answers."""
    none, full = _PULLS[theme]
    back = [[0, COLORS[theme]["rejected"]], [smoothing, none]] if smoothing else [[0, none]]
    return {"colorscale": [*back, [1, full]], "cmin": -smoothing, "cmax": 1 - smoothing, "showscale": False}


def _layout(title, theme):
    """A copy of the layout that all charts share, with a title."""
    layout = {key: dict(value) if isinstance(value, dict) else value for key, value in _plain(theme).items()}
    layout["title"]["text"] = title
    return layout


@cache
def _plain(theme):
    import plotly.graph_objects as go

    figure = go.Figure()
    bare(figure, COLORS[theme], HEIGHT, " ")
    return figure.to_plotly_json()["layout"] | {"hovermode": "closest", "margin": _MARGIN}


def _line(x, color, dash):
    ends = {"xref": "x", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1}
    return {"type": "line", "layer": "below", "line": {"color": color, "width": 1, "dash": dash}, **ends}


def _note(text, color, size, **where):
    place = {"xref": "x", "yref": "paper", "yanchor": "bottom", "xanchor": "center", **where}
    return {"text": text, "showarrow": False, "font": {"color": color, "size": size}, "borderpad": 0, **place}
