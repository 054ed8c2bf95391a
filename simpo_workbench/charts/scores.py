"""Charts of scores tables: how far the chosen answers lead, before and after. Pure functions.

Leads are in nats per token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..analysis.scores import WITHIN_NOISE
from ..base.escape import plotly_text
from ..base.format import signed
from .subplots import COLORS, bare, faded, note, padded, thinned, vertical

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: Points in one corner of the scatter: more cannot be told apart, and a page draws these at once.
MOST_IN_CORNER = 1000
_HEIGHT = 420


def score_histogram(before, after, gamma_beta_ratio, theme="light") -> go.Figure:
    """plotly Figure: how far chosen answers lead (average log-prob, chosen − rejected, nats per token) before and
    after, in shared bins.

    before, after: scores DataFrames; `after` may be None. Zero and γ/β are marked; a bin never straddles zero.
    """
    import numpy as np
    import plotly.graph_objects as go

    colors = COLORS[theme]
    sides = [
        (name, (table["chosen_avg_logp"] - table["rejected_avg_logp"]).dropna().to_numpy(), color)
        for name, table, color in (("before", before, colors["muted"]), ("after", after, colors["lead"]))
        if table is not None
    ]
    sides = [side for side in sides if len(side[1])]
    figure = go.Figure()
    if not sides:
        bare(figure, colors, _HEIGHT, "Lead of chosen answers (nats/token)")
        figure.update_xaxes(visible=False).update_yaxes(visible=False)
        note(figure, "comes with the first evaluation", colors["muted"], x=0.5, y=0.5, xref="paper", yref="paper")
        return figure
    marked = [0.0] if gamma_beta_ratio is None else [0.0, gamma_beta_ratio]
    edges = _bins(np.concatenate([leads for _, leads, _ in sides]), marked)
    counts = {name: np.histogram(leads.clip(edges[0], edges[-1]), edges)[0] for name, leads, _ in sides}
    top = max(int(count.max()) for count in counts.values())
    for name, _, color in sides:
        outline = name == "before"
        fill = {
            "color": faded(color, 0.12 if outline else 0.38),
            "line": {"color": color, "width": 1.4 if outline else 0.6},
        }
        figure.add_bar(
            name=name,
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts[name],
            width=np.diff(edges),
            marker=fill,
            customdata=np.stack([edges[:-1], edges[1:]], axis=1),
            hovertemplate=(
                f"{name}: %{{y}} pairs lead by %{{customdata[0]:.2f}} to %{{customdata[1]:.2f}}<extra></extra>"
            ),
        )
    pairs = max(len(leads) for _, leads, _ in sides)
    bare(figure, colors, _HEIGHT, f"Lead of chosen answers (nats/token), {pairs} held-out pairs")
    figure.update_layout(barmode="overlay", bargap=0, margin={"t": 86, "r": 24, "b": 56, "l": 52})
    figure.update_xaxes(
        title_standoff=8, title="lead of the chosen answer (nats per token)", range=[edges[0], edges[-1]]
    )
    no_half_pairs = 1 if top <= 5 else None
    figure.update_yaxes(title="pairs", range=[0, top * 1.06], tickformat="d", nticks=6, dtick=no_half_pairs)
    named = list(zip(("0", "γ/β"), marked, strict=False))
    for _, value in named:
        vertical(figure, colors["muted"], "x", "paper", value)
    close = len(named) == 2 and abs(named[1][1]) < 0.05 * (edges[-1] - edges[0])
    for index, (name, value) in enumerate(named):
        side = ("right", "left")[index] if close else "center"
        note(figure, name, colors["muted"], x=value, y=1, yref="paper", yanchor="bottom", xanchor=side)
    for index, (name, leads, color) in enumerate(sides):
        glyph = "□" if name == "before" else "■"
        words = f"{glyph} {name}: mean {signed(leads.mean())}, {(leads > 0).sum()} of {len(leads)} ahead"
        where = {"x": 0, "xanchor": "left"} if index == 0 else {"x": 1, "xanchor": "right"}
        note(figure, words, color, xref="paper", y=1, yref="paper", yshift=18, yanchor="bottom", **where)
    return figure


def lead_scatter(compared, theme="light", among=None, chosen=None) -> go.Figure:
    """plotly Figure: each pair's lead before (x) and after (y), nats per token, its four corners named and counted.

    compared: DataFrame from `compare_scores`, whose column `became` says which corner a pair belongs to; those within
    the noise are a group of their own. Above the diagonal the chosen answer gained. A point's customdata is its
    pair_id. Of a corner with very many pairs some are drawn, evenly chosen, and its label says so.
    among: the table that `compared` was filtered from, so that the axes stay. chosen: rows to be marked by a ring (may
    be empty).
    """
    import plotly.graph_objects as go

    colors = COLORS[theme]
    among = compared if among is None else among
    part = f"{len(compared):,} of {len(among):,}" if len(compared) < len(among) else f"{len(compared):,}"
    figure = go.Figure()
    bare(figure, colors, _HEIGHT, f"Lead before and after (nats/token), {part} held-out pairs")
    figure.update_layout(margin={"t": 62, "r": 24, "b": 56, "l": 58})
    leads = among[["lead_before", "lead_after"]]
    low, high = padded(min(leads.min().min(), 0.0), max(leads.max().max(), 0.0), 0.12)
    figure.add_shape(type="line", x0=low, y0=low, x1=high, y1=high, line={"color": colors["grid"], "width": 1.5})
    for shape in ({"x0": 0, "x1": 0, "y0": low, "y1": high}, {"x0": low, "x1": high, "y0": 0, "y1": 0}):
        figure.add_shape(type="line", line={"color": colors["muted"], "width": 1, "dash": "dot"}, **shape)
    groups = [
        ("still right", colors["lead"], "circle-open", "right", "top"),
        ("still wrong", colors["muted"], "circle-open", "left", "bottom"),
        ("to right", colors["chosen"], "circle", "left", "top"),
        ("to wrong", colors["rejected"], "diamond", "right", "bottom"),
        (WITHIN_NOISE, colors["muted"], "x", "center", "top"),
    ]
    few = len(compared) <= MOST_IN_CORNER
    for name, color, symbol, xanchor, yanchor in groups:
        rows = compared[compared["became"] == name]
        if name == WITHIN_NOISE and rows.empty:
            continue
        drawn = thinned(rows, MOST_IN_CORNER)
        figure.add_scatter(
            name=name,
            x=drawn["lead_before"].to_numpy(),
            y=drawn["lead_after"].to_numpy(),
            mode="markers",
            marker={"color": color, "symbol": symbol, "size": 8 if few else 5},
            customdata=drawn["pair_id"].to_numpy(),
            text=[plotly_text(prompt, most=160 if few else 60) for prompt in drawn.get("prompt", drawn["pair_id"])],
            hovertemplate="%{text}<br>%{x:.2f} → %{y:.2f}<extra>" + name + "</extra>",
            cliponaxis=False,
        )
        where = {
            "x": {"left": 0.0, "center": 0.5, "right": 1.0}[xanchor],
            "xanchor": xanchor,
            "y": {"bottom": 0.0, "top": 1.0}[yanchor],
            "yanchor": "bottom",
        }
        words = f"{name}: {len(rows)}" if len(drawn) == len(rows) else f"{name}: {len(rows):,}, {len(drawn):,} drawn"
        note(figure, words, color, xref="paper", yref="paper", bgcolor=colors["ground"], **where)
    if chosen is not None:
        ring = {"color": "rgba(0,0,0,0)", "size": 15, "line": {"color": colors["ink"], "width": 2}}
        figure.add_scatter(
            name="chosen pairs",
            x=chosen["lead_before"].to_numpy(),
            y=chosen["lead_after"].to_numpy(),
            mode="markers",
            marker=ring,
            hoverinfo="skip",
            cliponaxis=False,
        )
    figure.update_xaxes(title_standoff=8, title="lead before (nats per token)", range=[low, high])
    figure.update_yaxes(title="lead after (nats per token)", range=[low, high])
    return figure


def _bins(values, marked):
    """Edges of 10 to 40 bins of one width over all values and marked places, with an edge at zero."""
    import numpy as np

    low, high = min(values.min(), *marked, 0.0), max(values.max(), *marked, 0.0)
    span = (high - low) or 0.1
    spread = np.subtract(*np.percentile(values, [75, 25])) * 2 / len(values) ** (1 / 3)  # Freedman and Diaconis
    width = min(max(spread, span / 40), span / 10)
    first, last = np.floor(low / width), np.ceil(high / width)
    last = max(last, first + 1)
    return np.arange(first, last + 1) * width
