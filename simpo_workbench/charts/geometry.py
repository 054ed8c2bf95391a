"""The loss and where every pair stands on it: a Geometry in, plotly figures out. Pure functions.

The axes do not depend on β and γ/β: while one drags, the pairs move and nothing else does. Each figure is also to be
had as plain data and layout, which are made much faster.
"""

from __future__ import annotations

from functools import cache

from ..analysis.geometry import STATES, loss_at, pull_at
from ..base.format import counted
from .subplots import COLORS, bare

#: Above this many pairs they are drawn as bubbles, each the pairs of one stretch of the loss.
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
#: The colours of no pull and of full pull; between them the colour says how hard a pair pulls.
_PULLS = {"light": ("#f1eff9", "#5b4a9e"), "dark": ("#26222f", "#b3a5f0")}


def curve_figure(geometry, theme="light", chosen=None):
    """plotly Figure: the loss −log σ(z) over z = margin − γ (reward units) with the pairs on it, coloured by how hard
    they pull; below it the pull itself in the same colours.

    geometry: from `loss_geometry`. Up to MOST pairs are points with their pair_id as customdata; more are bubbles,
    whose area is their number of pairs and whose customdata is the pair in the middle of them. Pairs beyond the drawn
    part are triangles at its ends. chosen: pair ids to be marked by a ring.
    """
    import plotly.graph_objects as go

    return go.Figure(curve_spec(geometry, theme, chosen))


def leads_figure(geometry, theme="light"):
    """plotly Figure: how far the chosen answers lead (nats per token; β times that is the margin), as bars coloured by
    how hard their pairs pull.

    0, γ/β, and the leads at which full pull ends and saturation begins are marked. Of MOST pairs or more one in a
    thousand at either side stands in the first or the last bar.
    """
    import plotly.graph_objects as go

    return go.Figure(leads_spec(geometry, theme))


def curve_spec(geometry, theme="light", chosen=None) -> dict:
    """`curve_figure` as plain data and layout."""
    import numpy as np

    colors, smoothing, n = COLORS[theme], geometry.label_smoothing, len(geometry.leads)
    z, colored, outline = (
        np.linspace(-REACH, REACH, _LINE_POINTS),
        _colored(smoothing, theme),
        {"color": colors["margin"], "width": 0.8},
    )
    pull = pull_at(z, smoothing)
    rings = _z_of(geometry, chosen).clip(-REACH, REACH)
    ring = {"color": "rgba(0,0,0,0)", "size": 17, "line": {"color": colors["ink"], "width": 2}}
    data = [
        {
            "name": "loss",
            "x": z,
            "y": loss_at(z, smoothing),
            "mode": "lines",
            "line": {"color": colors["muted"], "width": 1.4},
            "hoverinfo": "skip",
        },
        {
            "name": "pull",
            "x": z,
            "y": pull,
            "yaxis": "y2",
            "mode": "markers",
            "marker": {**colored, "color": pull, "size": 7},
            "hovertemplate": "z %{x:.2f}: pull %{y:.0%}<extra></extra>",
        },
        *(_points(geometry) if n <= MOST else _bubbles(geometry)),
        {
            "name": "chosen pairs",
            "x": rings,
            "y": loss_at(rings, smoothing),
            "mode": "markers",
            "marker": ring,
            "hoverinfo": "skip",
        },
    ]
    for trace in data:
        trace |= {"type": "scatter", "cliponaxis": False}
        if trace["name"].startswith("pairs"):
            trace |= {"mode": "markers", "marker": {**colored, "line": outline, "opacity": 0.9, **trace["marker"]}}
    area = "" if n <= MOST else "; area of a bubble: its number of pairs"
    layout = _layout(f"Loss of each pair (nats), {counted(n, 'pair')}{area}", theme)
    layout["margin"] = {"t": 74, "r": 24, "b": 46, "l": 60}
    layout["xaxis"] |= {
        "title": {"text": "z = margin − γ (reward units)", "standoff": 6},
        "range": [-REACH - 0.3, REACH + 0.3],
        "dtick": 2,
        "anchor": "y2",
    }
    layout["yaxis2"] = {
        **layout["yaxis"],
        "domain": [0, 0.2],
        "range": [-smoothing - 0.12, 1.12],
        "tickformat": ".0%",
        "tickvals": [0, 0.5, 1],
        "anchor": "x",
    }
    layout["yaxis"] |= {"domain": [0.33, 1], "range": [-0.35, REACH + 1.0], "dtick": 2, "anchor": "x"}
    notes = layout["annotations"] = [
        _note("Pull (gradient ÷ β)", colors["ink"], 12, x=0, xref="paper", xanchor="left", xshift=-30, y=0.2, yshift=14)
    ]
    layout["shapes"] = [_line(bound, colors["muted"], "dot") for bound in geometry.bounds] + [
        _line(0, colors["grid"], "solid")
    ]
    if n:
        for text, where in _zones(geometry):
            notes.append(_note(text, colors["margin"], 11, y=1, **where))
    notes.append(_note("margin = γ", colors["muted"], 10.5, x=0, xanchor="left", xshift=3, y=0.33, yshift=-2))
    if left := int((geometry.z < -REACH).sum()):
        notes.append(
            _note(
                f"{left:,} further left",
                colors["muted"],
                10.5,
                x=-REACH,
                xanchor="left",
                xshift=18,
                y=float(loss_at(-REACH, smoothing)),
                yref="y",
                yshift=6,
            )
        )
    if right := int((geometry.z > REACH).sum()):
        notes.append(
            _note(
                f"{right:,} further right",
                colors["muted"],
                10.5,
                x=REACH,
                xanchor="right",
                y=float(loss_at(REACH, smoothing)),
                yref="y",
                yshift=16,
            )
        )
    return {"data": data, "layout": layout}


def leads_spec(geometry, theme="light") -> dict:
    """`leads_figure` as plain data and layout."""
    import numpy as np

    colors, leads, n = COLORS[theme], geometry.leads.rising, len(geometry.leads)
    layout = _layout(f"Margin per token (nats), {counted(n, 'pair')}", theme)
    layout["margin"] = {"t": 74, "r": 24, "b": 46, "l": 60}
    if not n:
        layout["xaxis"]["visible"] = layout["yaxis"]["visible"] = False
        layout["annotations"] = [_note("comes with the pairs", colors["muted"], 11, x=0.5, xref="paper", y=0.5)]
        return {"data": [], "layout": layout}
    edges = _edges(leads)
    counts = np.diff(np.concatenate([[0], np.searchsorted(leads, edges[1:-1], side="left"), [n]]))
    middles = (edges[:-1] + edges[1:]) / 2
    pull = pull_at(geometry.beta * (middles - geometry.gamma_beta_ratio), geometry.label_smoothing)
    bars = {
        "type": "bar",
        "name": "pairs",
        "x": middles,
        "y": counts,
        "width": np.diff(edges),
        "marker": {
            **_colored(geometry.label_smoothing, theme),
            "color": pull,
            "line": {"color": colors["margin"], "width": 0.7},
        },
        "customdata": np.stack([edges[:-1], edges[1:]], axis=1),
        "hovertemplate": (
            "%{y:,} pairs lead by %{customdata[0]:.2f} to %{customdata[1]:.2f}: pull %{marker.color:.0%}<extra></extra>"
        ),
    }
    top = int(counts.max())
    layout |= {"bargap": 0, "shapes": [], "annotations": []}
    layout["xaxis"] |= {
        "title": {
            "text": f"lead of the chosen answer (nats per token); margin: {geometry.beta:.3g} times that",
            "standoff": 6,
        },
        "range": [edges[0], edges[-1]],
    }
    layout["yaxis"] |= {
        "title": {"text": "pairs"},
        "range": [0, top * 1.06],
        "tickformat": ",d",
        "nticks": 6,
        **({"dtick": 1} if top <= 5 else {}),
    }  # no half pairs
    full, saturated = (geometry.gamma_beta_ratio + bound / geometry.beta for bound in geometry.bounds[:2])
    goal = f"γ/β {geometry.gamma_beta_ratio:.3g} (γ {geometry.gamma:.3g})"
    _mark(layout, edges, full, "◂ full pull", "right", colors["margin"], 2, "dot")
    _mark(layout, edges, saturated, "saturated ▸", "left", colors["margin"], 2, "dot")
    _mark(layout, edges, 0.0, "0", "center", colors["muted"], 0, "dash")
    _mark(layout, edges, geometry.gamma_beta_ratio, goal, "center", colors["ink"], 1, "dash")
    if geometry.gamma_beta_ratio > edges[-1]:  # the axis stays; the goal is somewhere to the right of it
        layout["annotations"].append(
            _note(f"{goal} →", colors["ink"], 11, x=1, xref="paper", xanchor="right", y=1, yshift=_LEVEL_PX)
        )
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
        x = means[wanted].clip(-REACH, REACH)
        shown = (
            counts[wanted] if name == "pairs" else counts[wanted].clip(max=n * (_MOST_END_PX / _WHOLE_PX) ** 2)
        )  # those at the ends are counted in words
        size = {"size": shown, "sizemode": "area", "sizeref": 2 * n / _WHOLE_PX**2, "sizemin": 3}
        yield {
            "name": name,
            "x": x,
            "y": loss_at(x, geometry.label_smoothing),
            "marker": {
                "color": pull_at(means[wanted], geometry.label_smoothing),
                "symbol": _symbols(means[wanted]),
                **size,
            },
            "customdata": geometry.leads.pair_id[order[(starts[wanted] + ends[wanted]) // 2]],
            "text": [counted(int(count), "pair") for count in counts[wanted]],
            "hovertemplate": "%{text} " + words + ", pull %{marker.color:.0%}<extra></extra>",
        }


def _symbols(z):
    return ["triangle-left" if value < -REACH else "triangle-right" if value > REACH else "circle" for value in z]


def _z_of(geometry, chosen):
    """z of the chosen pairs that are there, of the first _MOST_RINGS."""
    import numpy as np

    places = geometry.leads.places
    rows = [places[name] for name in (chosen if chosen is not None else ()) if name in places]
    return geometry.z[np.array(rows[:_MOST_RINGS], dtype=int)]


def _zones(geometry):
    """The names of the zones of the loss with their counts, each with its place: the outer ones at the ends, those
    between in the middle of their zone.
    """
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
    """A named vertical line, if it is in the chart; the name stays in it."""
    low, high = float(edges[0]), float(edges[-1])
    if not low <= value <= high:
        return
    place = (value - low) / (high - low)
    anchor = "left" if place < 0.12 else "right" if place > 0.88 else side
    layout["shapes"].append({**_line(value, color, dash), "layer": "above"})
    layout["annotations"].append(_note(name, color, 11, x=value, xanchor=anchor, y=1, yshift=1 + _LEVEL_PX * level))


def _edges(rising):
    """Edges of 10 to 40 bars of one width over the leads from small to large, with an edge at zero."""
    import numpy as np

    n = len(rising)
    low, high = (rising[0], rising[-1]) if n < MOST else np.percentile(rising, [0.1, 99.9])
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    span = (high - low) or 0.1
    spread = float(np.subtract(*np.percentile(rising, [75, 25]))) * 2 / n ** (1 / 3)  # Freedman and Diaconis
    width = min(max(spread, span / 40), span / 10)
    return np.arange(np.floor(low / width), max(np.ceil(high / width), np.floor(low / width) + 1) + 1) * width


def _colored(smoothing, theme):
    """How hard a pair pulls as a colour, from none to all; below none, where label smoothing makes pairs pull back,
    towards that of rejected answers.
    """
    none, full = _PULLS[theme]
    back = [[0, COLORS[theme]["rejected"]], [smoothing, none]] if smoothing else [[0, none]]
    return {"colorscale": [*back, [1, full]], "cmin": -smoothing, "cmax": 1 - smoothing, "showscale": False}


def _layout(title, theme):
    """The plain layout of all charts with a title, to be filled."""
    plain = {key: dict(value) if isinstance(value, dict) else value for key, value in _plain(theme).items()}
    return {
        **plain,
        "title": {
            "text": title,
            "font": {"size": 12.5, "color": COLORS[theme]["ink"]},
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "y": 0.98,
            "yanchor": "top",
        },
    }


@cache
def _plain(theme):
    import plotly.graph_objects as go

    figure = go.Figure()
    bare(figure, COLORS[theme], HEIGHT)
    return figure.to_plotly_json()["layout"] | {"hovermode": "closest"}


def _line(x, color, dash):
    return {
        "type": "line",
        "layer": "below",
        "xref": "x",
        "x0": x,
        "x1": x,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": color, "width": 1, "dash": dash},
    }


def _note(text, color, size, **where):
    return {
        "text": text,
        "showarrow": False,
        "font": {"color": color, "size": size},
        "borderpad": 0,
        "xref": "x",
        "yref": "paper",
        "yanchor": "bottom",
        "xanchor": "center",
        **where,
    }
