"""DataFrames in, plotly figures out. Pure functions.

One language for all charts: chosen solid with circles, rejected dashed with diamonds; raw values thin and pale,
smoothed ones solid, evaluations as points; names at the end of the lines. Quantities per token are in nats, so that
runs with different β compare.
"""

from __future__ import annotations

from ..analysis.scores import within_noise
from ..base.escape import plotly_text
from ..base.format import signed
from .subplots import (
    COLORS,
    Line,
    Mark,
    Panel,
    Threshold,
    bare,
    chart_spec,
    faded,
    note,
    padded,
    small_charts,
    thinned,
    vertical,
)

#: Columns of the live figure -> its height in pixels, which a page reserves for it. Two columns are for pages narrower
#: than WIDE pixels.
LIVE_HEIGHTS, WIDE = {3: 860, 2: 1330}, 1100
#: Points in one corner of the scatter: more cannot be told apart, and a page draws these at once.
MOST_IN_CORNER = 1000


def training_figure(metrics, gamma_beta_ratio, total_steps, chosen_tokens=None, theme="light", attention_drift=None):
    """plotly Figure of a run, live or finished: six small charts over the optimizer steps, those that tell the truth
    above loss and margin.

    metrics: DataFrame as `run.metrics`; it may be empty or hold only a part. gamma_beta_ratio: γ/β, nats per token
    (None for a loss without it).
    chosen_tokens: mean length of chosen answers, tokens (default: that of the held-out pairs in the metrics).
    attention_drift: draws a "look closer" line at this fall of chosen answers, nats per token. theme: "light" or
    "dark".
    """
    colors = COLORS[theme]
    panels = _truth_panels(metrics, chosen_tokens, attention_drift, colors) + _objective_panels(
        metrics, gamma_beta_ratio, colors
    )
    return small_charts(panels, 2, 3, last_step_of(metrics, total_steps), _marks(metrics, colors), colors, height=600)


def steps_figure(records, gamma_beta_ratio, theme="light"):
    """plotly Figure of single optimizer steps: log-probabilities of both sides, margin per token, and loss. records:
    the `record` of each step of `wb.steps`.
    """
    import pandas as pd

    colors, metrics = COLORS[theme], pd.DataFrame(records)
    sides = [
        Line(side, points_of(metrics, f"logps/{side}"), colors[side], side, dash, symbol)
        for side, dash, symbol in (("chosen", "solid", "circle"), ("rejected", "dash", "diamond"))
    ]
    panels = [
        Panel("Average log-prob (nats/token)", sides, "comes with step 1"),
        Panel(
            "Margin per token (nats)",
            [Line("margin", lead_of(metrics), colors["margin"], "margin")],
            "",
            [Threshold(gamma_beta_ratio, "γ/β", colors["muted"])],
            include=(0.0,),
        ),
        Panel(
            "Loss (mean per pair)",
            [Line("loss", points_of(metrics, "loss"), colors["ink"], "loss")],
            "",
            include=(0.0,),
        ),
    ]
    return small_charts(panels, 1, 3, last_step_of(metrics, 0), [], colors, height=330)


def rewards_figure(metrics, total_steps, theme="light"):
    """plotly Figure of what lies behind the training charts: rewards (β × average log-prob), learning rate, gradient
    norm, over the optimizer steps.
    """
    colors = COLORS[theme]
    return small_charts(
        _background_panels(metrics, colors),
        1,
        3,
        last_step_of(metrics, total_steps),
        _marks(metrics, colors),
        colors,
        height=330,
    )


def live_figure(
    metrics,
    gamma_beta_ratio,
    total_steps,
    theme="light",
    attention_drift=None,
    smoothing=None,
    in_rewards=False,
    columns=3,
):
    """Data and layout of a plotly figure with all charts of a run, linked: those of `training_figure` and of
    `rewards_figure`. Its traces are the same ones at every moment of a run.

    smoothing: steps around each that a smoothed line takes the mean of (default: a fifteenth of the steps); 1 leaves
    single steps as they are.
    in_rewards: log-probabilities and margin in reward units (times the β of each record) instead of nats per token.
    """
    colors = COLORS[theme]
    panels = [
        *_truth_panels(metrics, None, attention_drift, colors, in_rewards),
        *_objective_panels(metrics, gamma_beta_ratio, colors, smoothing, in_rewards),
        *_background_panels(metrics, colors, smoothing),
    ]
    rows = -(-len(panels) // columns)
    return chart_spec(
        panels,
        rows,
        columns,
        last_step_of(metrics, total_steps),
        _marks(metrics, colors),
        colors,
        height=LIVE_HEIGHTS[columns],
    )


def _truth_panels(metrics, chosen_tokens, attention_drift, colors, in_rewards=False):
    """Drift of the log-probabilities, length, repetition and endings of answers: what shows a collapse."""
    evals = records_of(metrics, "eval")
    if chosen_tokens is None and not (known := points_of(evals, "eval/chosen_tokens")).empty:
        chosen_tokens = float(known["value"].iloc[-1])
    at_first = "comes with the first sampled answers"
    look_closer = (
        [Threshold(attention_drift, "look closer<br>below", colors["attention"])]
        if attention_drift is not None and not in_rewards
        else []
    )
    return [
        Panel(
            "Reward since the start (β × nats/token)" if in_rewards else "Log-prob since the start (nats/token)",
            [
                Line("chosen", _drift(evals, "chosen", in_rewards), colors["chosen"], "chosen"),
                Line(
                    "rejected", _drift(evals, "rejected", in_rewards), colors["rejected"], "rejected", "dash", "diamond"
                ),
            ],
            "comes with the first evaluation",
            look_closer,
            include=(0.0, -0.1),  # so that scoring noise does not look like a fall
        ),
        Panel(
            "Answer length (tokens)",
            [Line("sampled answers", points_of(evals, "eval/answers/mean_tokens"), colors["answers"], "sampled")],
            at_first,
            [Threshold(chosen_tokens, "chosen,<br>in the data", colors["muted"])] if chosen_tokens is not None else [],
            include=(0.0,),
        ),
        Panel(
            _counted("Answers: share", evals, "eval/answers/n"),
            [
                Line("end properly", points_of(evals, "eval/answers/ended"), colors["answers"], "end<br>properly"),
                Line(
                    "repeated 4-grams",
                    points_of(evals, "eval/answers/repeated_4grams"),
                    colors["attention"],
                    "repeated<br>4-grams",
                    "dash",
                    "diamond",
                ),
            ],
            at_first,
            span=(0.0, 1.0),
        ),
    ]


def _objective_panels(metrics, gamma_beta_ratio, colors, smoothing=None, in_rewards=False):
    """Margin, loss and shares of held-out pairs: what is optimized."""
    train, evals = records_of(metrics, "train"), records_of(metrics, "eval")
    at_first, has_gamma = "comes with the first evaluation", gamma_beta_ratio is not None
    shares = [Line("chosen ahead", points_of(evals, "eval/rewards/accuracies"), colors["margin"], "chosen<br>ahead")]
    if has_gamma:
        shares.append(
            Line(
                "beyond γ",
                points_of(evals, "eval/rewards/beyond_gamma"),
                colors["margin"],
                "beyond γ",
                "dash",
                "diamond",
            )
        )
    if in_rewards:
        margins = (points_of(train, "rewards/margins"), points_of(evals, "eval/rewards/margins"))
        known = points_of(metrics, "beta").sort_values("step", kind="stable")["value"]
        goal = (
            [Threshold(gamma_beta_ratio * float(known.iloc[-1]), "γ", colors["muted"])]
            if has_gamma and len(known)
            else []
        )
    else:
        margins, goal = (
            (lead_of(train), lead_of(evals, "eval/")),
            [Threshold(gamma_beta_ratio, "γ/β", colors["muted"])] if has_gamma else [],
        )
    return [
        Panel(
            "Margin (reward units)" if in_rewards else "Margin per token (nats)",
            _raw_smoothed_and_held_out("margin", *margins, colors["margin"], colors["margin"], smoothing),
            at_first,
            goal,
            include=(0.0,),
            robust=True,
        ),
        Panel(
            "Loss (mean per pair)",
            _raw_smoothed_and_held_out(
                "loss",
                points_of(train, "loss"),
                points_of(evals, "eval/loss"),
                colors["muted"],
                colors["ink"],
                smoothing,
            ),
            at_first,
            robust=True,
        ),
        Panel(_counted("Held-out pairs: share", evals, "eval/pairs"), shares, at_first, span=(0.0, 1.0)),
    ]


def _background_panels(metrics, colors, smoothing=None):
    """Rewards, learning rate and gradient norm: what lies behind."""
    train, evals = records_of(metrics, "train"), records_of(metrics, "eval")
    rewards = []
    for side, dash, symbol in (("chosen", "solid", "circle"), ("rejected", "dash", "diamond")):
        points = points_of(train, f"rewards/{side}")
        rewards.append(Line(f"{side}, training, each step", points, colors[side], symbol=None, pale=True))
        held_out = points_of(evals, f"eval/rewards/{side}")
        rewards.append(
            Line(f"{side}, held-out", held_out, colors[side], side if not held_out.empty else "", dash, symbol)
        )
    norms = points_of(train, "grad_norm")
    norms = norms[norms["value"] >= 0]  # −1 stands for a step that loss scaling skipped
    return [
        Panel("Rewards, points: held-out (β × nats/token)", rewards, "comes with the first evaluation"),
        Panel(
            "Learning rate",
            [Line("learning rate", points_of(train, "learning_rate"), colors["muted"], symbol=None)],
            "comes with step 1",
            include=(0.0,),
        ),
        Panel(
            "Gradient norm",
            [
                Line("gradient norm, each step", norms, colors["muted"], symbol=None, pale=True),
                Line("gradient norm, smoothed", smoothed(norms, smoothing), colors["muted"], symbol=None),
            ],
            "comes with step 1",
            include=(0.0,),
        ),
    ]


def score_histogram(before, after, gamma_beta_ratio, theme="light"):
    """plotly Figure: how far chosen answers lead (average log-prob, chosen − rejected, nats per token) before and
    after, in shared bins.

    before, after: scores DataFrames; `after` may be None. Zero and γ/β are marked; a bin never straddles zero.
    """
    import numpy as np
    import plotly.graph_objects as go

    colors = COLORS[theme]
    sides = [
        (name, (table["chosen_avg_logp"] - table["rejected_avg_logp"]).dropna().to_numpy(), color)
        for name, table, color in (("before", before, colors["muted"]), ("after", after, colors["margin"]))
        if table is not None
    ]
    sides = [side for side in sides if len(side[1])]
    figure = go.Figure()
    if not sides:
        _title_and_axes(figure, colors, "Lead of chosen answers (nats/token)", 420)
        figure.update_xaxes(visible=False).update_yaxes(visible=False)
        figure.add_annotation(
            text="comes with the first evaluation",
            x=0.5,
            y=0.5,
            xref="paper",
            yref="paper",
            showarrow=False,
            font_color=colors["muted"],
        )
        return figure
    marked = [0.0] if gamma_beta_ratio is None else [0.0, gamma_beta_ratio]
    edges = _bins(np.concatenate([leads for _, leads, _ in sides]), marked)
    counts = {name: np.histogram(leads.clip(edges[0], edges[-1]), edges)[0] for name, leads, _ in sides}
    top = max(int(count.max()) for count in counts.values())
    for name, _, color in sides:
        outline = name == "before"
        figure.add_bar(
            name=name,
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts[name],
            width=np.diff(edges),
            marker={
                "color": faded(color, 0.12 if outline else 0.38),
                "line": {"color": color, "width": 1.4 if outline else 0.6},
            },
            customdata=np.stack([edges[:-1], edges[1:]], axis=1),
            hovertemplate=(
                f"{name}: %{{y}} pairs lead by %{{customdata[0]:.2f}} to %{{customdata[1]:.2f}}<extra></extra>"
            ),
        )
    _title_and_axes(
        figure,
        colors,
        f"Lead of chosen answers (nats/token), {max(len(leads) for _, leads, _ in sides)} held-out pairs",
        420,
    )
    figure.update_layout(barmode="overlay", bargap=0, margin={"t": 86, "r": 24, "b": 56, "l": 52})
    figure.update_xaxes(
        title_standoff=8, title="lead of the chosen answer (nats per token)", range=[edges[0], edges[-1]]
    )
    figure.update_yaxes(
        title="pairs", range=[0, top * 1.06], tickformat="d", nticks=6, dtick=1 if top <= 5 else None
    )  # no half pairs
    named = list(zip(("0", "γ/β"), marked, strict=False))
    for _, value in named:
        vertical(figure, colors["muted"], "x", "paper", value)
    close = len(named) == 2 and abs(named[1][1]) < 0.05 * (edges[-1] - edges[0])
    for index, (name, value) in enumerate(named):
        side = ("right", "left")[index] if close else "center"
        note(figure, name, colors["muted"], x=value, y=1, yref="paper", yanchor="bottom", xanchor=side)
    for index, (name, leads, color) in enumerate(sides):
        words = f"{name}: mean {signed(leads.mean())}, {(leads > 0).sum()} of {len(leads)} ahead"
        glyph = "□" if name == "before" else "■"
        note(
            figure,
            f"{glyph} {words}",
            color,
            x=0 if index == 0 else 1,
            xref="paper",
            y=1,
            yref="paper",
            yshift=18,
            yanchor="bottom",
            xanchor="left" if index == 0 else "right",
        )
    return figure


def margins_scatter(compared, theme="light", among=None, chosen=None):
    """plotly Figure: each pair's lead before (x) and after (y), nats per token, with the four corners named and counted
    (changes of sides within the noise apart); a point's customdata is its pair_id.

    compared: DataFrame from `compare_scores`. Right is a lead above 0, wrong is none, a flip one beyond the noise given
    there; above the diagonal the chosen answer gained. Of a corner with very many pairs some are drawn, evenly chosen,
    and it says so.
    among: the table that `compared` was filtered from, so that the axes stay. chosen: rows to be marked by a ring (may
    be empty).
    """
    import plotly.graph_objects as go

    colors = COLORS[theme]
    among = compared if among is None else among
    part = f"{len(compared):,} of {len(among):,}" if len(compared) < len(among) else f"{len(compared):,}"
    figure = go.Figure()
    _title_and_axes(figure, colors, f"Lead before and after (nats/token), {part} held-out pairs", 420)
    figure.update_layout(margin={"t": 62, "r": 24, "b": 56, "l": 58})
    leads = among[["lead_before", "lead_after"]]
    low, high = padded(min(leads.min().min(), 0.0), max(leads.max().max(), 0.0), 0.12)
    figure.add_shape(type="line", x0=low, y0=low, x1=high, y1=high, line={"color": colors["grid"], "width": 1.5})
    for shape in ({"x0": 0, "x1": 0, "y0": low, "y1": high}, {"x0": low, "x1": high, "y0": 0, "y1": 0}):
        figure.add_shape(type="line", line={"color": colors["muted"], "width": 1, "dash": "dot"}, **shape)
    flip, right, close = compared["flip"], compared["lead_after"] > 0, within_noise(compared)
    stays = (flip == "") & ~close
    groups = [
        ("still right", stays & right, colors["margin"], "circle-open", ("right", "top")),
        ("still wrong", stays & ~right, colors["muted"], "circle-open", ("left", "bottom")),
        ("to right", flip == "to right", colors["chosen"], "circle", ("left", "top")),
        ("to wrong", flip == "to wrong", colors["rejected"], "diamond", ("right", "bottom")),
        *([("within the noise", close, colors["muted"], "x", ("center", "top"))] if close.any() else []),
    ]
    few = len(compared) <= MOST_IN_CORNER
    for name, inside, color, symbol, (xanchor, yanchor) in groups:
        rows = compared[inside]
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
        x, y = {"left": 0.0, "center": 0.5, "right": 1.0}[xanchor], {"bottom": 0.0, "top": 1.0}[yanchor]
        words = f"{name}: {len(rows)}" if len(drawn) == len(rows) else f"{name}: {len(rows):,}, {len(drawn):,} drawn"
        note(
            figure,
            words,
            color,
            x=x,
            xref="paper",
            xanchor=xanchor,
            y=y,
            yref="paper",
            yanchor="bottom",
            bgcolor=colors["ground"],
        )
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


def smoothed(points, window: int | None = None):
    """The same steps with the mean value of the steps around each: a window of a fifteenth of the steps, at least five,
    cut off at the ends.
    """
    window = (max(5, len(points) // 15) if window is None else window) | 1
    return points.assign(value=points["value"].rolling(window, center=True, min_periods=1).mean())


def records_of(metrics, kind):
    """The records of one kind ("train", "eval", "event") in a DataFrame as `run.metrics`."""
    return metrics[metrics["kind"] == kind] if "kind" in metrics else metrics.iloc[:0]


def points_of(records, column):
    """DataFrame step, value (low, high where recorded) of one metric, without the records that lack it."""
    import pandas as pd

    if column not in records:
        return pd.DataFrame({"step": [], "value": []}, dtype=float)
    points = pd.DataFrame(
        {"step": records["step"].astype(float), "value": pd.to_numeric(records[column], errors="coerce")}
    )
    for end in ("low", "high"):
        if f"{column}_{end}" in records:
            points[end] = pd.to_numeric(records[f"{column}_{end}"], errors="coerce")
    return points[points["value"].notna()]


def lead_of(records, prefix=""):
    """Margin in nats per token: chosen − rejected average log-prob, which for SimPO is the margin divided by β; where
    they are missing, that quotient.
    """
    import pandas as pd

    nothing = pd.Series(float("nan"), index=records.index, dtype=float)
    lead = records.get(f"{prefix}logps/chosen", nothing) - records.get(f"{prefix}logps/rejected", nothing)
    lead = lead.fillna(records.get(f"{prefix}rewards/margins", nothing) / records.get("beta", nothing))
    return points_of(records.assign(lead=lead), "lead") if len(records) else points_of(records, "lead")


def _drift(evals, side, in_rewards):
    """How far the log-probability of one side moved since the first evaluation, in nats per token or times β as it is
    at each record.
    """
    drift = points_of(evals, f"eval/logps/{side}_drift")
    return (
        drift.assign(value=drift["value"] * evals.loc[drift.index, "beta"]) if in_rewards and not drift.empty else drift
    )


def _raw_smoothed_and_held_out(name, train, held_out, train_color, held_out_color, smoothing=None):
    return [
        Line(f"{name}, training, each step", train, train_color, symbol=None, pale=True),
        Line(f"{name}, training, smoothed", smoothed(train, smoothing), train_color, "training", symbol=None),
        Line(f"{name}, held-out", held_out, held_out_color, "held-out"),
    ]


def _counted(title, evals, column):
    """The title with the number of cases behind the shares, and that an interval is drawn."""
    counts = points_of(evals, column)["value"]
    return f"{title} (n {counts.iloc[-1]:.0f}, bars: 95 %)" if len(counts) else title


def last_step_of(metrics, total_steps):
    """Where an x-axis ends: at the last planned step, or the last recorded one where that is later."""
    seen = metrics["step"].max() if "step" in metrics and len(metrics) else 0
    return float(max(total_steps or 0, seen if seen == seen else 0, 1))


def _marks(metrics, colors):
    """What is worth a vertical line, one per step: events, verdicts that ask for attention, and changes of the
    objective.
    """
    found = {}
    for event in records_of(metrics, "event").to_dict("records"):
        name, color = str(event.get("event", "")), colors["muted"]
        if name == "verdict":
            severity = event.get("severity")
            if severity not in ("attention", "collapse"):
                continue
            name, color = (
                str(event.get("verdict", severity)),
                colors["attention" if severity == "attention" else "failure"],
            )
        elif name == "set" and isinstance(event.get("changes"), dict):
            name = ", ".join(_change_in_words(*change) for change in event["changes"].items())
        text = event.get("text")
        found.setdefault(float(event["step"]), []).append((name, color, text if isinstance(text, str) else name))
    train = records_of(metrics, "train")
    if {"beta", "gamma_beta_ratio"} <= set(train.columns):
        train = train.dropna(subset=["beta", "gamma_beta_ratio"])
        objective = train[["beta", "gamma_beta_ratio"]]
        changed = (objective != objective.shift()).any(axis=1)
        for row in train[changed].iloc[1:].to_dict("records"):  # the first row has none before it
            text = f"β {row['beta']:g}, γ/β {row['gamma_beta_ratio']:g} from step {row['step']:.0f} on"
            found.setdefault(float(row["step"]), []).append(("objective changed", colors["muted"], text))
    ranks = [colors["muted"], colors["attention"], colors["failure"]]
    marks = []
    for step, parts in sorted(found.items()):
        names = ", ".join(dict.fromkeys(name for name, _, _ in parts))
        marks.append(
            Mark(
                step,
                names,
                max((color for _, color, _ in parts), key=ranks.index),
                " ".join(str(text) for _, _, text in parts),
            )
        )
    return marks


def _change_in_words(name, value):
    """A change on the way, short enough for a chart: "learning rate × 0.5"."""
    words = {"learning_rate_scale": "learning rate ×", "beta": "β", "gamma_beta_ratio": "γ/β", "gamma": "γ"}
    return (
        f"{words[name]} {value:g}"
        if name in words and isinstance(value, (int, float))
        else "other prompts"
        if name == "prompts"
        else str(name)
    )


def _title_and_axes(figure, colors, title, height):
    bare(figure, colors, height)
    figure.update_layout(
        title={
            "text": title,
            "font": {"size": 12.5, "color": colors["ink"]},
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "y": 0.97,
            "yanchor": "top",
        }
    )


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
