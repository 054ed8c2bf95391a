"""The leads of all pairs over all evaluated steps as one plotly figure, of one run or of several laid over each other.

Pure functions.
"""

from __future__ import annotations

from ..analysis.leads import FLIPPED, steps_of
from ..base.escape import plotly_text
from ..base.format import counted
from .runs import RUN_COLORS, line_labels
from .subplots import COLORS, bare, faded, note, padded, thinned, vertical

HEIGHT = 460
#: Lines of one kind in one figure: more cannot be told apart, and a page draws these at once.
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
_FAR = 3.0  # interquartile ranges beyond the quartiles: what lies further out would flatten all others


def lead_history_figure(history, gamma_beta_ratio=None, theme="light", chosen=(), most_lines=MOST_LINES):
    """plotly Figure: how far the chosen answer of every pair leads over the evaluated steps (nats per token); a point's
    customdata is its pair_id.

    history: DataFrame from `lead_history`. Drawn are the median and the middle 50 % and 80 % of all pairs, and pairs as
    thin lines: those that flipped in their colours, the others pale; of a kind with more than `most_lines` pairs so
    many, evenly chosen by where they end, and it says so.
    gamma_beta_ratio: γ/β, nats per token (None for a loss without it). chosen: pair_ids drawn thick. `with_step` marks
    a step in it. The axis leaves out what lies very far from all others, and says how many pairs that are.
    """
    import plotly.graph_objects as go

    colors, steps, figure = COLORS[theme], steps_of(history), go.Figure()
    if not steps or history.empty:
        return _nothing_yet(figure, colors)
    low, high = _range(history[steps].to_numpy(dtype=float), gamma_beta_ratio)
    _lay_out(
        figure,
        colors,
        f"Lead of each pair over the steps (nats/token), {counted(len(history), 'held-out pair')}",
        steps,
        low,
        high,
    )
    quantiles = history[steps].quantile(list(_QUANTILES.values()))
    _band(figure, steps, quantiles.loc[0.1], quantiles.loc[0.9], faded(colors["margin"], 0.10), "middle 80 %")
    _band(figure, steps, quantiles.loc[0.25], quantiles.loc[0.75], faded(colors["margin"], 0.16), "middle 50 %")
    for place, (name, sample, color, dash) in enumerate(_KINDS):
        rows = history[history["became"] == name] if name in FLIPPED else history[~history["became"].isin(FLIPPED)]
        drawn = thinned(rows.sort_values(steps[-1], kind="stable"), most_lines)
        strength = 0.35 if name not in FLIPPED else 0.85 if len(drawn) <= _FEW_LINES else 0.5
        _lines(figure, name, drawn, steps, {"color": faded(colors[color], strength), "width": 1.2, "dash": dash})
        words = f"{sample} {name}: {len(rows):,}" + (f", {len(drawn):,} drawn" if len(drawn) < len(rows) else "")
        note(
            figure,
            words,
            colors[color],
            x=0.5 * (place % 2),
            xref="paper",
            xanchor="left",
            y=1,
            yref="paper",
            yanchor="bottom",
            yshift=6 + 16 * (place // 2),
        )
    _median(figure, "median", steps, quantiles.loc[0.5], colors["margin"])
    _chosen_lines(figure, "chosen pairs", history, chosen, steps, colors["ink"])
    _mark_thresholds(figure, colors, low, high, gamma_beta_ratio)
    _name_ends(
        figure,
        [
            (name, float(quantiles.loc[share, steps].dropna().iloc[-1]), colors["margin"])
            for name, share in _QUANTILES.items()
        ],
        low,
        high,
    )
    _say_who_left(figure, history[steps], low, high, colors)
    return figure


def lead_histories_figure(histories: dict, gamma_beta_ratio=None, theme="light", chosen=()):
    """plotly Figure of several runs: median lead and the middle 50 % of pairs over the evaluated steps (nats per
    token), each run in a colour of its own.

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
    labels, quartiles = (
        line_labels(list(histories)),
        {name: history[steps_of(history)].quantile([0.25, 0.5, 0.75]) for name, history in histories.items()},
    )
    steps = sorted({step for history in histories.values() for step in steps_of(history)})
    picked = [
        history.loc[history["pair_id"].isin(chosen), steps_of(history)].to_numpy(dtype=float).ravel()
        for history in histories.values()
    ]
    low, high = _range(
        np.concatenate([*(found.to_numpy().ravel() for found in quartiles.values()), *picked]), gamma_beta_ratio
    )
    _lay_out(figure, colors, "Lead over the steps (nats/token): median and middle 50 % of pairs", steps, low, high)
    ends = []
    for (name, history), color in zip(histories.items(), RUN_COLORS[theme], strict=False):
        own, found, label = steps_of(history), quartiles[name], plotly_text(name)
        _band(figure, own, found.loc[0.25], found.loc[0.75], faded(color, 0.14), f"{label}, middle 50 %")
        _median(figure, label, own, found.loc[0.5], color)
        _chosen_lines(figure, f"{label}, chosen pairs", history, chosen, own, color, dash="dot", symbol="diamond-open")
        ends.append((plotly_text(labels[name]), float(found.loc[0.5].dropna().iloc[-1]), color))
        said = (
            f"{label}: {counted(len(history), 'pair')}, {int((history[own[-1]] > 0).sum()):,} ahead at step {own[-1]}"
        )
        shown = f"{plotly_text(labels[name])} = {said}" if labels[name] != name else said
        note(
            figure,
            shown,
            color,
            x=0,
            xref="paper",
            xanchor="left",
            y=1,
            yref="paper",
            yanchor="bottom",
            yshift=6 + 16 * (len(histories) - len(ends)),
        )
    _mark_thresholds(figure, colors, low, high, gamma_beta_ratio)
    _name_ends(figure, ends, low, high)
    if len(chosen):
        note(
            figure,
            "◇ ··· chosen pairs",
            colors["ink"],
            x=1,
            xref="paper",
            xanchor="right",
            y=1,
            yref="paper",
            yanchor="bottom",
            yshift=6,
        )
    figure.update_layout(margin_t=_MARGIN["t"] + 16 * max(0, len(histories) - 2))
    return figure


def with_step(figure, step, theme="light"):
    """A figure of this module with a step marked in it, as a new figure."""
    import plotly.graph_objects as go

    marked, colors = go.Figure(figure), COLORS[theme]
    if step is not None and marked.layout.xaxis.range:
        first, last = marked.layout.xaxis.range
        if first < step < last:  # the ends of the axis are lines already
            vertical(marked, colors["muted"], "x", "paper", step)
        side = "left" if step <= first else "right" if step >= last else "center"
        note(
            marked,
            f"step {step}",
            colors["ink"],
            x=step,
            xanchor=side,
            y=0,
            yref="paper",
            yanchor="bottom",
            yshift=2,
            bgcolor=colors["ground"],
        )
    return marked


def _nothing_yet(figure, colors):
    _title(figure, colors, "Lead of each pair over the steps (nats/token)")
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    note(figure, "comes with the first evaluation", colors["muted"], x=0.5, xref="paper", y=0.5, yref="paper")
    return figure


def _title(figure, colors, title):
    bare(figure, colors, HEIGHT)
    figure.update_layout(
        title={
            "text": title,
            "font": {"size": 12.5, "color": colors["ink"]},
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "y": 0.975,
            "yanchor": "top",
        },
        margin=_MARGIN,
        hovermode="closest",
    )


def _lay_out(figure, colors, title, steps, low, high):
    _title(figure, colors, title)
    first, last = steps[0], steps[-1] if len(steps) > 1 else steps[0] + 1
    figure.update_xaxes(
        title="optimizer step",
        title_standoff=8,
        range=[first, last],
        nticks=8,
        tickformat="d",
        dtick=1 if last - first <= 5 else None,
    )
    figure.update_yaxes(title="lead of the chosen answer (nats per token)", range=[low, high])


def _range(values, gamma_beta_ratio):
    """(low, high) of an axis over all values but those very far out, with 0 and γ/β."""
    import numpy as np

    values = values[np.isfinite(values)]
    marked = [0.0] if gamma_beta_ratio is None else [0.0, gamma_beta_ratio]
    if not values.size:
        return padded(min(marked), max(marked), 0.07)
    first, third = np.quantile(values, [0.25, 0.75])
    far = _FAR * (third - first) or np.inf  # where half of all are alike, nothing says what is far
    inside = values[(values >= first - far) & (values <= third + far)]
    return padded(float(min(inside.min(), *marked)), float(max(inside.max(), *marked)), 0.05)


def _band(figure, steps, low, high, color, name):
    known = [step for step in steps if low[step] == low[step]]
    x, y = [*known, *reversed(known)], [*(high[step] for step in known), *(low[step] for step in reversed(known))]
    figure.add_scatter(
        name=name, x=x, y=y, mode="lines", fill="toself", fillcolor=color, line={"width": 0}, hoverinfo="skip"
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
    """One trace for all these pairs, with a gap after each: a trace per pair would take a browser seconds."""
    import numpy as np

    gap = len(steps) + 1
    y = np.full((len(rows), gap), np.nan)
    y[:, :-1] = rows[steps].to_numpy(dtype=float)
    ids = np.repeat(rows["pair_id"].to_numpy(dtype=object), gap)
    prompts = [plotly_text(prompt, most=60) for prompt in rows.get("prompt", rows["pair_id"])]
    figure.add_scatter(
        name=name,
        x=np.tile(np.array([*steps, steps[-1]], dtype=float), len(rows)),
        y=y.ravel(),
        mode="markers" if len(steps) == 1 else "lines+markers" if symbol else "lines",
        line=line,
        marker={"size": 7 if symbol else 4, "symbol": symbol or "circle", "color": line["color"]},
        connectgaps=False,
        customdata=ids,
        text=np.repeat(np.array(prompts, dtype=object), gap),
        hovertemplate="%{text}<br>step %{x}: %{y:+.2f}<extra>" + name + "</extra>",
    )


def _chosen_lines(figure, name, history, chosen, steps, color, dash="solid", symbol="circle"):
    rows = history[history["pair_id"].isin(list(chosen))]
    _lines(
        figure,
        name,
        thinned(rows, MOST_LINES),
        steps,
        {"color": color, "width": 3 if dash == "solid" else 2, "dash": dash},
        symbol,
    )


def _mark_thresholds(figure, colors, low, high, gamma_beta_ratio):
    """0 and γ/β, each with its name; that of 0 stands below its line, so that the two never meet."""
    for value, name, anchor in ((0.0, "0", "top"), (gamma_beta_ratio, "γ/β", "bottom")):
        if value is not None and low <= value <= high:
            figure.add_shape(
                type="line",
                xref="paper",
                x0=0,
                x1=1,
                y0=value,
                y1=value,
                line={"color": colors["muted"], "width": 1.2, "dash": "dot"},
            )
            note(
                figure,
                name,
                colors["muted"],
                x=0,
                xref="paper",
                xanchor="left",
                xshift=4,
                y=value,
                yanchor=anchor,
                yshift=2 if anchor == "bottom" else -2,
                bgcolor=colors["ground"],
            )


def _name_ends(figure, ends, low, high):
    """Names right of the line ends, (name, value, colour) each: in the order of their values, and moved apart where
    they would overlap.
    """
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
    for (name, _, color), height, place in zip(ends, heights, placed, strict=True):
        note(
            figure,
            name,
            color,
            x=1,
            xref="paper",
            xanchor="left",
            xshift=8,
            y=low + height / px,
            yanchor="middle",
            yshift=place - height,
        )


def _say_who_left(figure, leads, low, high, colors):
    left = int(((leads < low) | (leads > high)).any(axis=1).sum())
    if left:
        words = f"{counted(left, 'pair')} {'leaves' if left == 1 else 'leave'} the picture"
        note(
            figure,
            words,
            colors["muted"],
            x=1,
            xref="paper",
            xanchor="right",
            xshift=-4,
            y=1,
            yref="paper",
            yanchor="top",
            bgcolor=colors["ground"],
        )
