"""Lead histories as plotly figures: the leads of all pairs over the evaluated steps, of one run or of several.

Pure functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..analysis.leads import FLIPPED, steps_of
from ..base.escape import plotly_text
from ..base.format import counted
from .runs import RUN_COLORS, line_labels
from .subplots import COLORS, bare, faded, note, padded, thinned, vertical

if TYPE_CHECKING:
    import plotly.graph_objects as go

HEIGHT = 460
#: Lines of one kind in one figure: more cannot be told apart, and a page would draw them slowly.
MOST_LINES = 100
_FEW_LINES = 40  # more are drawn paler, so that the median shows through
_KINDS = [
    ("no flip", "—", "muted", "solid"),
    ("back and forth", "···", "attention", "dot"),
    ("to right", "—", "chosen", "solid"),
    ("to wrong", "- -", "rejected", "dash"),
]
_QUANTILES = {"10 %": 0.1, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "90 %": 0.9}
_MARGIN = {"t": 80, "r": 64, "b": 56, "l": 58}
_LABEL_PX = 13
_FAR = 3.0  # interquartile ranges beyond the quartiles; leads further out would flatten all others
_ABOVE = {"xref": "paper", "y": 1, "yref": "paper", "yanchor": "bottom"}


def lead_history_figure(history, gamma_beta_ratio=None, theme="light", chosen=(), most_lines=MOST_LINES) -> go.Figure:
    """plotly Figure: the lead of every pair over the evaluated steps (nats per token); `with_step` marks a step in it.

    history: DataFrame from `lead_history`. Drawn are the median, the middle 50 % and 80 % of all pairs, and the pairs
    as thin lines, those that flipped in colour; a point's customdata is its pair_id. Of a kind with more than
    `most_lines` pairs so many are drawn, evenly chosen by where they end, and the figure says so. The axis leaves out
    leads very far from all others, and the figure says how many pairs that are.
    gamma_beta_ratio: γ/β, nats per token (None for a loss without it). chosen: pair_ids drawn thick.
    """
    import plotly.graph_objects as go

    colors, steps, figure = COLORS[theme], steps_of(history), go.Figure()
    if not steps or history.empty:
        return _nothing_yet(figure, colors)
    low, high = _range(history[steps].to_numpy(dtype=float), gamma_beta_ratio)
    _lay_out(figure, colors, f"Lead history (nats/token), {counted(len(history), 'held-out pair')}", steps, low, high)
    quantiles = history[steps].quantile(list(_QUANTILES.values()))
    _band(figure, steps, quantiles.loc[0.1], quantiles.loc[0.9], faded(colors["lead"], 0.10), "middle 80 %")
    _band(figure, steps, quantiles.loc[0.25], quantiles.loc[0.75], faded(colors["lead"], 0.16), "middle 50 %")
    for place, (name, sample, color, dash) in enumerate(_KINDS):
        flipped = name in FLIPPED
        rows = history[history["became"] == name] if flipped else history[~history["became"].isin(FLIPPED)]
        drawn = thinned(rows.sort_values(steps[-1], kind="stable"), most_lines)
        strength = 0.35
        if flipped:
            strength = 0.85 if len(drawn) <= _FEW_LINES else 0.5
        _lines(figure, name, drawn, steps, {"color": faded(colors[color], strength), "width": 1.2, "dash": dash})
        words = f"{sample} {name}: {len(rows):,}" + (f", {len(drawn):,} drawn" if len(drawn) < len(rows) else "")
        note(figure, words, colors[color], x=0.5 * (place % 2), xanchor="left", yshift=6 + 16 * (place // 2), **_ABOVE)
    _median(figure, "median", steps, quantiles.loc[0.5], colors["lead"])
    _chosen_lines(figure, "chosen pairs", history, chosen, steps, colors["ink"])
    _mark_thresholds(figure, colors, low, high, gamma_beta_ratio)
    ends = {name: float(quantiles.loc[share, steps].dropna().iloc[-1]) for name, share in _QUANTILES.items()}
    _name_ends(figure, [(name, end, colors["lead"]) for name, end in ends.items()], low, high)
    _say_who_left(figure, history[steps], low, high, colors)
    return figure


def lead_histories_figure(histories: dict, gamma_beta_ratio=None, theme="light", chosen=()) -> go.Figure:
    """plotly Figure of several runs: median lead and middle 50 % of pairs over the evaluated steps (nats per token).

    histories: {name: DataFrame from `lead_history`}, at most as many as RUN_COLORS has colours. chosen: pair_ids whose
    lines are drawn for every run, dotted; a point's customdata is its pair_id. gamma_beta_ratio: where it is the same
    in all runs, else None. `with_step` marks a step in it.
    """
    import numpy as np
    import plotly.graph_objects as go

    colors, figure = COLORS[theme], go.Figure()
    histories = {name: history for name, history in histories.items() if steps_of(history) and not history.empty}
    if not histories:
        return _nothing_yet(figure, colors)
    labels = line_labels(list(histories))
    quartiles = {name: history[steps_of(history)].quantile([0.25, 0.5, 0.75]) for name, history in histories.items()}
    steps = sorted({step for history in histories.values() for step in steps_of(history)})
    values = [table.to_numpy().ravel() for table in quartiles.values()]
    for history in histories.values():
        values.append(history.loc[history["pair_id"].isin(chosen), steps_of(history)].to_numpy(dtype=float).ravel())
    low, high = _range(np.concatenate(values), gamma_beta_ratio)
    _lay_out(figure, colors, "Lead history (nats/token): median and middle 50 % of pairs", steps, low, high)
    ends = []
    for (name, history), color in zip(histories.items(), RUN_COLORS[theme], strict=False):
        own, quartile, label = steps_of(history), quartiles[name], plotly_text(name)
        _band(figure, own, quartile.loc[0.25], quartile.loc[0.75], faded(color, 0.14), f"{label}, middle 50 %")
        _median(figure, label, own, quartile.loc[0.5], color)
        _chosen_lines(figure, f"{label}, chosen pairs", history, chosen, own, color, dash="dot", symbol="diamond-open")
        ends.append((plotly_text(labels[name]), float(quartile.loc[0.5].dropna().iloc[-1]), color))
        ahead = int((history[own[-1]] > 0).sum())
        words = f"{label}: {counted(len(history), 'pair')}, {ahead:,} ahead at step {own[-1]}"
        if labels[name] != name:
            words = f"{plotly_text(labels[name])} = {words}"
        note(figure, words, color, x=0, xanchor="left", yshift=6 + 16 * (len(histories) - len(ends)), **_ABOVE)
    _mark_thresholds(figure, colors, low, high, gamma_beta_ratio)
    _name_ends(figure, ends, low, high)
    if len(chosen):
        note(figure, "◇ ··· chosen pairs", colors["ink"], x=1, xanchor="right", yshift=6, **_ABOVE)
    figure.update_layout(margin_t=_MARGIN["t"] + 16 * max(0, len(histories) - 2))
    return figure


def with_step(figure, step, theme="light") -> go.Figure:
    """A figure of this module with a step marked in it, as a new figure."""
    import plotly.graph_objects as go

    marked, colors = go.Figure(figure), COLORS[theme]
    if step is not None and marked.layout.xaxis.range:
        first, last = marked.layout.xaxis.range
        if first < step < last:  # the ends of the axis are lines already
            vertical(marked, colors["muted"], "x", "paper", step)
        side = "center"
        if not first < step < last:
            side = "left" if step <= first else "right"
        at_bottom = {"y": 0, "yref": "paper", "yanchor": "bottom", "yshift": 2}
        note(marked, f"step {step}", colors["ink"], x=step, xanchor=side, bgcolor=colors["ground"], **at_bottom)
    return marked


def _nothing_yet(figure, colors):
    bare(figure, colors, HEIGHT, "Lead history (nats/token)")
    figure.update_layout(margin=_MARGIN, hovermode="closest")
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    note(figure, "comes with the first evaluation", colors["muted"], x=0.5, xref="paper", y=0.5, yref="paper")
    return figure


def _lay_out(figure, colors, title, steps, low, high):
    bare(figure, colors, HEIGHT, title)
    figure.update_layout(margin=_MARGIN, hovermode="closest")
    first, last = steps[0], steps[-1] if len(steps) > 1 else steps[0] + 1
    dtick = 1 if last - first <= 5 else None
    figure.update_xaxes(
        title="optimizer step", title_standoff=8, range=[first, last], nticks=8, tickformat="d", dtick=dtick
    )
    figure.update_yaxes(title="lead of the chosen answer (nats per token)", range=[low, high])


def _range(values, gamma_beta_ratio):
    """(low, high) of an axis with 0, γ/β and all values except those very far out."""
    import numpy as np

    values = values[np.isfinite(values)]
    marked = [0.0] if gamma_beta_ratio is None else [0.0, gamma_beta_ratio]
    if not values.size:
        return padded(min(marked), max(marked), 0.07)
    first, third = np.quantile(values, [0.25, 0.75])
    far = _FAR * (third - first) or np.inf  # of values half of which are alike, none is called far
    inside = values[(values >= first - far) & (values <= third + far)]
    return padded(float(min(inside.min(), *marked)), float(max(inside.max(), *marked)), 0.05)


def _band(figure, steps, low, high, color, name):
    known = [step for step in steps if low[step] == low[step]]
    figure.add_scatter(
        name=name,
        x=[*known, *reversed(known)],
        y=[*(high[step] for step in known), *(low[step] for step in reversed(known))],
        mode="lines",
        fill="toself",
        fillcolor=color,
        line={"width": 0},
        hoverinfo="skip",
    )


def _median(figure, name, steps, values, color):
    figure.add_scatter(
        name=name,
        x=steps,
        y=values.to_numpy(),
        mode="lines+markers",
        line={"color": color, "width": 2.5},
        marker={"size": 6, "color": color},
        cliponaxis=False,
        hovertemplate="step %{x}: median %{y:+.2f}<extra>" + name + "</extra>",
    )


def _lines(figure, name, rows, steps, line, symbol=None):
    """Draw all these pairs as one trace with a gap after each: a trace per pair would take a browser seconds."""
    import numpy as np

    gap = len(steps) + 1
    y = np.full((len(rows), gap), np.nan)
    y[:, :-1] = rows[steps].to_numpy(dtype=float)
    ids = np.repeat(rows["pair_id"].to_numpy(dtype=object), gap)
    prompts = [plotly_text(prompt, most=60) for prompt in rows.get("prompt", rows["pair_id"])]
    mode = "lines+markers" if symbol else "lines"
    figure.add_scatter(
        name=name,
        x=np.tile(np.array([*steps, steps[-1]], dtype=float), len(rows)),
        y=y.ravel(),
        mode="markers" if len(steps) == 1 else mode,
        line=line,
        marker={"size": 7 if symbol else 4, "symbol": symbol or "circle", "color": line["color"]},
        connectgaps=False,
        customdata=ids,
        text=np.repeat(np.array(prompts, dtype=object), gap),
        hovertemplate="%{text}<br>step %{x}: %{y:+.2f}<extra>" + name + "</extra>",
    )


def _chosen_lines(figure, name, history, chosen, steps, color, dash="solid", symbol="circle"):
    rows = thinned(history[history["pair_id"].isin(list(chosen))], MOST_LINES)
    _lines(figure, name, rows, steps, {"color": color, "width": 3 if dash == "solid" else 2, "dash": dash}, symbol)


def _mark_thresholds(figure, colors, low, high, gamma_beta_ratio):
    """Draw 0 and γ/β, each with its name; that of 0 is below its line, so that the two never meet."""
    at_left = {"x": 0, "xref": "paper", "xanchor": "left", "xshift": 4, "bgcolor": colors["ground"]}
    for value, name, anchor, shift in ((0.0, "0", "top", -2), (gamma_beta_ratio, "γ/β", "bottom", 2)):
        if value is not None and low <= value <= high:
            line = {"color": colors["muted"], "width": 1.2, "dash": "dot"}
            figure.add_shape(type="line", xref="paper", x0=0, x1=1, y0=value, y1=value, line=line)
            note(figure, name, colors["muted"], y=value, yanchor=anchor, yshift=shift, **at_left)


def _name_ends(figure, ends, low, high):
    """Write names, (name, value, colour) each, right of the line ends, moved apart where they would overlap."""
    px = (HEIGHT - _MARGIN["t"] - _MARGIN["b"]) / (high - low)
    ends = sorted(ends, key=lambda end: end[1])
    heights = [min(max((value - low) * px, 0), (high - low) * px) for _, value, _ in ends]
    placed = list(heights)
    for index in range(1, len(placed)):
        placed[index] = max(placed[index], placed[index - 1] + _LABEL_PX)
    over = (high - low) * px + _LABEL_PX / 2
    for index in range(len(placed) - 1, -1, -1):
        placed[index] = min(placed[index], over)
        over = placed[index] - _LABEL_PX
    at_right = {"x": 1, "xref": "paper", "xanchor": "left", "xshift": 8, "yanchor": "middle"}
    for (name, _, color), height, place in zip(ends, heights, placed, strict=True):
        note(figure, name, color, y=low + height / px, yshift=place - height, **at_right)


def _say_who_left(figure, leads, low, high, colors):
    left = int(((leads < low) | (leads > high)).any(axis=1).sum())
    if left:
        words = f"{counted(left, 'pair')} {'leaves' if left == 1 else 'leave'} the picture"
        corner = {"x": 1, "xref": "paper", "xanchor": "right", "xshift": -4, "y": 1, "yref": "paper", "yanchor": "top"}
        note(figure, words, colors["muted"], bgcolor=colors["ground"], **corner)
