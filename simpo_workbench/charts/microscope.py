"""Charts of one pair token by token: log-probabilities along both answers, and where the lead is won.

Pure functions: DataFrames in, plotly figures out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..analysis.microscope import SIDES, THIRDS, nats, thirds, token_name
from ..base.escape import plotly_text
from ..base.format import counted, signed
from .subplots import COLORS, MOST_POINTS, bare, faded, note, padded, thinned

if TYPE_CHECKING:
    import plotly.graph_objects as go

HEIGHT = 360
_DASHES = {"chosen": "solid", "rejected": "dash"}
_SYMBOLS = {"chosen": "circle", "rejected": "diamond"}
_ROOM = {"chosen": (0.55, 1.0), "rejected": (0.0, 0.45)}  # of the chart's height
_MARKERS = 150  # tokens of an answer, beyond which markers would touch
_LABEL_PX = 15
_INSIDE_PX = HEIGHT - 96 - 46
_AT_RIGHT = {"x": 1, "xref": "paper", "xanchor": "left", "xshift": 8, "yanchor": "middle"}


def token_figure(tokens, theme="light") -> go.Figure:
    """plotly Figure: the log-probability of every token (nats) along the chosen and the rejected answer.

    tokens: DataFrame from `token_leads`. The chosen answer is above (solid, circles), the rejected one below (dashed,
    diamonds), both with the same y-axis; with base_logp the base model is a thin pale line. The averages, which the
    loss compares, are named at the right. Of a very long answer 2,000 tokens are drawn, evenly chosen, and the figure
    says so. theme: "light" or "dark".
    """
    import plotly.graph_objects as go

    colors, figure, tuned = COLORS[theme], go.Figure(), "base_logp" in tokens
    longest = int(tokens["position"].max())
    lowest = min(tokens[name].min() for name in ("logp", *(["base_logp"] if tuned else [])))
    axis = padded(min(float(lowest), -1.0), 0.0, 0.06)
    for side, number in zip(SIDES, ("", "2"), strict=True):
        rows = tokens[tokens["side"] == side].sort_values("position")
        drawn, place = thinned(rows), {"xaxis": f"x{number}", "yaxis": f"y{number}"}
        if tuned:
            figure.add_scatter(
                name=f"{side}, base",
                x=drawn["position"].to_numpy(),
                y=drawn["base_logp"].to_numpy(),
                mode="lines",
                line={"color": faded(colors[side], 0.5), "width": 1},
                hoverinfo="skip",
                **place,
            )
        figure.add_scatter(
            name=side,
            x=drawn["position"].to_numpy(),
            y=drawn["logp"].to_numpy(),
            mode="lines+markers" if len(drawn) <= _MARKERS else "lines",
            line={"color": colors[side], "width": 1.6, "dash": _DASHES[side]},
            marker={"symbol": _SYMBOLS[side], "size": 5, "color": colors[side]},
            text=list(_hover(drawn)),
            hovertemplate="%{text}<extra></extra>",
            cliponaxis=False,
            **place,
        )
        _name_averages(figure, rows, side, number, axis, colors, tuned)
        words = f"{side}, {counted(len(rows), 'token')}" + (f", {len(drawn):,} drawn" if len(drawn) < len(rows) else "")
        above = {"y": _ROOM[side][1], "yref": "paper", "yanchor": "bottom", "yshift": 3}
        note(figure, words, colors[side], 11.5, x=0, xref="paper", xanchor="left", **above)
        x_axis = {"anchor": f"y{number}", "range": [0.5, longest + 0.5], "tickformat": ",d", "nticks": 9}
        y_axis = {"anchor": f"x{number}", "domain": _ROOM[side], "range": axis}
        figure.update_layout({f"xaxis{number}": x_axis, f"yaxis{number}": y_axis})
    bare(figure, colors, HEIGHT, "Log-probability of every token (nats)" + ("; thin: the base model" if tuned else ""))
    figure.update_layout(
        margin={"t": 66, "b": 46, "l": 52, "r": 112},
        hovermode="closest",
        xaxis={"showticklabels": False},
        xaxis2={"title": {"text": "token of the answer", "standoff": 6}, "matches": "x"},
    )
    return figure


def won_figure(tokens, theme="light") -> go.Figure:
    """plotly Figure: what the tokens up to a place add to the change of the lead (nats per token).

    tokens: DataFrame from `token_leads`; without base_logp it is the lead itself. The x-axis goes from 0 to 100 % of
    each answer, where the lines end at the whole change. The chosen answer's part (solid), the rejected one's (dashed)
    and their sum are named at their ends, the sums of the thirds above. theme: "light" or "dark".
    """
    import numpy as np
    import plotly.graph_objects as go

    colors, figure, changed = COLORS[theme], go.Figure(), "change_share" in tokens
    column = "change_share" if changed else "lead_share"
    paths = {side: _path(tokens[tokens["side"] == side].sort_values("position"), column) for side in SIDES}
    grid = np.unique(np.concatenate([paths[side][0] for side in SIDES]))
    paths["lead"] = grid, sum(np.interp(grid, *paths[side]) for side in SIDES)
    looks = {
        "chosen": {"color": colors["chosen"], "dash": _DASHES["chosen"], "width": 1.6},
        "rejected": {"color": colors["rejected"], "dash": _DASHES["rejected"], "width": 1.6},
        "lead": {"color": colors["lead"], "width": 2.6},
    }
    for name, (x, y) in paths.items():
        few = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).round().astype(int))
        label = "lead" if name == "lead" else f"{name} answer"
        template = f"first %{{x:.0f}} %: {label} %{{y:+.3f}}<extra></extra>"
        figure.add_scatter(
            name=name, x=x[few], y=y[few], mode="lines", line=looks[name], hovertemplate=template, cliponaxis=False
        )
    lowest, highest = min(y.min() for _, y in paths.values()), max(y.max() for _, y in paths.values())
    axis = padded(min(0.0, lowest), max(0.0, highest), 0.08)
    figure.add_shape(type="line", x0=0, x1=100, y0=0, y1=0, line={"color": colors["muted"], "width": 1, "dash": "dot"})
    for place in (100 / 3, 200 / 3):
        line = {"color": colors["grid"], "width": 1.2}
        figure.add_shape(type="line", xref="x", x0=place, x1=place, yref="paper", y0=0, y1=1, line=line)
    parts = thirds(tokens)
    for number, (name, part) in enumerate(zip(THIRDS, parts, strict=True)):
        where = {"x": 100 / 6 * (2 * number + 1), "xref": "x", "xanchor": "center"}
        where |= {"y": 1, "yref": "paper", "yanchor": "bottom", "yshift": 3}
        note(figure, f"{name} third {nats(part, *parts)}", colors["lead"], 10.5, **where)
    names = {"lead": "change of lead" if changed else "lead", "chosen": "chosen adds", "rejected": "rejected adds"}
    ends = {name: float(y[-1]) for name, (_, y) in paths.items()}
    for name, y in zip(ends, _apart(list(ends.values()), axis), strict=True):
        words = f"{names[name]} {nats(ends[name], *ends.values())}"
        note(figure, words, looks[name]["color"], y=y, yref="y", **_AT_RIGHT)
    bare(figure, colors, HEIGHT, f"Where the lead {'is won' if changed else 'comes from'} (nats per token)")
    figure.update_layout(margin={"t": 66, "b": 46, "l": 56, "r": 148}, hovermode="closest")
    figure.update_xaxes(
        title={"text": "share of each answer read", "standoff": 6},
        range=[0, 100],
        tickvals=[*range(0, 101, 20)],
        ticktext=[f"{share} %" for share in range(0, 101, 20)],
    )
    figure.update_yaxes(range=axis)
    return figure


def _hover(rows):
    tuned = "base_logp" in rows
    for row in rows.to_dict("records"):
        was = f", base {signed(row['base_logp'])}, change {signed(row['change'])}" if tuned else ""
        yield f"{plotly_text(token_name(row['token']))}, token {row['position']:,}<br>{signed(row['logp'])} nats{was}"


def _name_averages(figure, rows, side, number, axis, colors, tuned):
    averages = {"average": rows["logp"].mean()}
    if tuned:
        averages["base"] = rows["base_logp"].mean()
    places = _apart(list(averages.values()), axis, _ROOM[side][1] - _ROOM[side][0])
    for (name, value), y in zip(averages.items(), places, strict=True):
        width, opacity = (1.2, 1) if name == "average" else (0.8, 0.6)
        line = {"color": colors[side], "width": width, "dash": "dot"}
        ends = {"xref": f"x{number} domain", "x0": 0, "x1": 1, "yref": f"y{number}", "y0": value, "y1": value}
        figure.add_shape(type="line", line=line, opacity=opacity, **ends)
        note(figure, f"{name} {signed(value)}", colors[side], y=y, yref=f"y{number}", **_AT_RIGHT)


def _path(rows, column):
    """(percent of the answer read, what its tokens up to there add), both from 0 on."""
    import numpy as np

    percent, added = 100 * rows["place"].to_numpy(), rows[column].to_numpy().cumsum()
    return np.concatenate([[0.0], percent]), np.concatenate([[0.0], added])


def _apart(values, axis, room=1.0):
    """Where to write names at these values: moved apart by a line's height at least, as little as possible, within the
    axis.
    """
    least = (axis[1] - axis[0]) * _LABEL_PX / (_INSIDE_PX * room)
    order = sorted(range(len(values)), key=values.__getitem__)
    placed = [values[index] for index in order]
    for _ in range(len(placed)):
        for below in range(len(placed) - 1):
            if (lacking := least - (placed[below + 1] - placed[below])) > 0:
                placed[below] -= lacking / 2
                placed[below + 1] += lacking / 2
    shift = max(0.0, axis[0] - placed[0]) - max(0.0, placed[-1] - axis[1])
    place_of = dict(zip(order, placed, strict=True))
    return [float(place_of[index] + shift) for index in range(len(values))]
