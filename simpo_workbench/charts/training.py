"""DataFrames in, plotly figures out: a run over its optimizer steps. Pure functions.

One language for all charts: chosen solid with circles, rejected dashed with diamonds; raw values thin and pale,
smoothed ones solid, evaluations as points; names at the end of the lines. Quantities per token are in nats, so that
runs with different β compare.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..analysis.metrics import METRICS
from .subplots import COLORS, Line, Mark, Subplot, Threshold, chart_spec, small_charts

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_COLUMNS = 3
#: On pages narrower than this, in pixels, the live figure has two columns.
WIDE = 1100
AT_FIRST_EVALUATION, AT_FIRST_ANSWERS = "comes with the first evaluation", "comes with the first sampled answers"
AT_STEP_1 = "comes with step 1"
#: side -> dash and symbol of its lines
_LOOKS = {"chosen": ("solid", "circle"), "rejected": ("dash", "diamond")}


def training_figure(
    metrics, gamma_beta_ratio, total_steps, chosen_tokens=None, theme="light", attention_drift=None
) -> go.Figure:
    """plotly Figure of a run, live or finished: small charts over the optimizer steps, those that show a collapse above
    lead and loss.

    metrics: DataFrame as `run.metrics`; it may be empty or hold only a part. gamma_beta_ratio: γ/β, nats per token
    (None for a loss without it).
    chosen_tokens: mean length of chosen answers, tokens (default: that of the held-out pairs in the metrics).
    attention_drift: draws a "look closer" line at this fall of chosen answers, nats per token. theme: "light" or
    "dark".
    """
    colors = COLORS[theme]
    subplots = [
        *_health_subplots(metrics, chosen_tokens, attention_drift, colors),
        *_objective_subplots(metrics, gamma_beta_ratio, colors),
    ]
    last_step = last_step_of(metrics, total_steps)
    return small_charts(subplots, _COLUMNS, last_step, _marks(metrics, colors), colors)


def steps_figure(records, gamma_beta_ratio, theme="light") -> go.Figure:
    """plotly Figure of single optimizer steps: log-probabilities of both sides, lead, and loss. records: the `record`
    of each step of `wb.steps`.
    """
    import pandas as pd

    colors, metrics = COLORS[theme], pd.DataFrame(records)
    sides = [
        Line(side, points_of(metrics, f"logps/{side}"), colors[side], side, *look) for side, look in _LOOKS.items()
    ]
    lead = Line("lead", lead_of(metrics), colors["lead"], "lead")
    goal = [Threshold(gamma_beta_ratio, "γ/β", colors["muted"])]
    loss = Line("loss", points_of(metrics, "loss"), colors["ink"], "loss")
    subplots = [
        Subplot("Average log-prob (nats/token)", sides, AT_STEP_1),
        Subplot(METRICS["lead"].heading, [lead], AT_STEP_1, goal, include=(0.0,)),
        Subplot(METRICS["loss"].heading, [loss], AT_STEP_1, include=(0.0,)),
    ]
    return small_charts(subplots, _COLUMNS, last_step_of(metrics, 0), [], colors)


def rewards_figure(metrics, total_steps, theme="light") -> go.Figure:
    """plotly Figure of rewards (β × average log-prob), learning rate and gradient norm over the steps."""
    colors = COLORS[theme]
    subplots, last_step = _background_subplots(metrics, colors), last_step_of(metrics, total_steps)
    return small_charts(subplots, _COLUMNS, last_step, _marks(metrics, colors), colors)


def live_figure(
    metrics,
    gamma_beta_ratio,
    total_steps,
    theme="light",
    attention_drift=None,
    smoothing=None,
    in_rewards=False,
    columns=_COLUMNS,
) -> dict:
    """Data and layout of a plotly figure with all charts of a run, linked: those of `training_figure` and of
    `rewards_figure`. Its traces are the same ones at every moment of a run.

    smoothing: steps around each that a smoothed line takes the mean of (default: a fifteenth of the steps); 1 leaves
    single steps as they are.
    in_rewards: rewards and margin (times the β of each record) instead of log-probabilities and lead.
    """
    colors = COLORS[theme]
    subplots = [
        *_health_subplots(metrics, None, attention_drift, colors, in_rewards),
        *_objective_subplots(metrics, gamma_beta_ratio, colors, smoothing, in_rewards),
        *_background_subplots(metrics, colors, smoothing),
    ]
    return chart_spec(subplots, columns, last_step_of(metrics, total_steps), _marks(metrics, colors), colors)


def live_height() -> int:
    """Height of `live_figure` in pixels, which a page reserves before there are metrics."""
    import pandas as pd

    return live_figure(pd.DataFrame(), None, 0)["layout"]["height"]


def _health_subplots(metrics, chosen_tokens, attention_drift, colors, in_rewards=False):
    """Drift of the log-probabilities, length, repetition and endings of answers: what shows a collapse."""
    evals = records_of(metrics, "eval")
    if chosen_tokens is None and not (known := points_of(evals, "eval/chosen_tokens")).empty:
        chosen_tokens = float(known["value"].iloc[-1])
    in_data, look_closer = [], []
    if chosen_tokens is not None:
        in_data = [Threshold(chosen_tokens, "chosen,<br>in the data", colors["muted"])]
    if attention_drift is not None and not in_rewards:
        look_closer = [Threshold(attention_drift, "look closer<br>below", colors["attention"])]
    drifts = []
    for side, look in _LOOKS.items():
        points = _per_token(evals, f"eval/logps/{side}_drift", in_rewards)
        drifts.append(Line(side, points, colors[side], side, *look))
    length = Line("sampled answers", points_of(evals, "eval/answers/mean_tokens"), colors["answers"], "sampled")
    checked = points_of(evals, "eval/answers/checked")["value"]
    right = f"right<br>(of {checked.iloc[-1]:.0f})" if len(checked) else ""
    shares = [
        _held_out(evals, "answers/ended", colors["answers"], "end<br>properly"),
        _held_out(evals, "answers/right", colors["lead"], right, "dot", "square"),
        _held_out(evals, "answers/repeated_4grams", colors["attention"], "repeated<br>4-grams", "dash", "diamond"),
    ]
    return [
        Subplot(
            "Reward since the start (β × nats/token)" if in_rewards else "Log-prob since the start (nats/token)",
            drifts,
            AT_FIRST_EVALUATION,
            look_closer,
            include=(0.0, -0.1),  # so that scoring noise does not look like a fall
        ),
        Subplot(METRICS["answers/mean_tokens"].heading, [length], AT_FIRST_ANSWERS, in_data, include=(0.0,)),
        Subplot(_counted("Answers: share", evals, "eval/answers/n"), shares, AT_FIRST_ANSWERS, span=(0.0, 1.0)),
    ]


def _objective_subplots(metrics, gamma_beta_ratio, colors, smoothing=None, in_rewards=False):
    """Lead (or margin), loss and shares of held-out pairs: what is optimized."""
    train, evals = records_of(metrics, "train"), records_of(metrics, "eval")
    shares = [_held_out(evals, "rewards/accuracies", colors["lead"], "chosen<br>ahead")]
    goal = gamma_beta_ratio
    if gamma_beta_ratio is not None:
        shares.append(_held_out(evals, "rewards/beyond_gamma", colors["lead"], "beyond γ", "dash", "diamond"))
    if in_rewards:
        metric, goal_name = METRICS["rewards/margins"], "γ"
        points = points_of(train, "rewards/margins"), points_of(evals, "eval/rewards/margins")
        betas = points_of(metrics, "beta").sort_values("step", kind="stable")["value"]
        goal = goal * float(betas.iloc[-1]) if goal is not None and len(betas) else None
    else:
        metric, goal_name = METRICS["lead"], "γ/β"
        points = lead_of(train), lead_of(evals, "eval/")
    goals = [] if goal is None else [Threshold(goal, goal_name, colors["muted"])]
    leads = _raw_smoothed_and_held_out(metric.label, *points, colors["lead"], colors["lead"], smoothing)
    points = points_of(train, "loss"), points_of(evals, "eval/loss")
    losses = _raw_smoothed_and_held_out("loss", *points, colors["muted"], colors["ink"], smoothing)
    title = _counted("Held-out pairs: share", evals, "eval/pairs")
    return [
        Subplot(metric.heading, leads, AT_FIRST_EVALUATION, goals, include=(0.0,), robust=True),
        Subplot(METRICS["loss"].heading, losses, AT_FIRST_EVALUATION, robust=True),
        Subplot(title, shares, AT_FIRST_EVALUATION, span=(0.0, 1.0)),
    ]


def _background_subplots(metrics, colors, smoothing=None):
    """Subplots of rewards, learning rate and gradient norm."""
    train, evals = records_of(metrics, "train"), records_of(metrics, "eval")
    rewards = []
    for side, look in _LOOKS.items():
        points = points_of(train, f"rewards/{side}")
        rewards.append(Line(f"{side}, training, each step", points, colors[side], symbol=None, pale=True))
        held_out = points_of(evals, f"eval/rewards/{side}")
        rewards.append(Line(f"{side}, held-out", held_out, colors[side], "" if held_out.empty else side, *look))
    rate = Line("learning rate", points_of(train, "learning_rate"), colors["muted"], symbol=None)
    norms = points_of(train, "grad_norm")
    norms = norms[norms["value"] >= 0]  # older runs: −1 means a step that loss scaling skipped
    norms = [
        Line("gradient norm, each step", norms, colors["muted"], symbol=None, pale=True),
        Line("gradient norm, smoothed", smoothed(norms, smoothing), colors["muted"], symbol=None),
    ]
    return [
        Subplot("Rewards, points: held-out (β × nats/token)", rewards, AT_FIRST_EVALUATION),
        Subplot(METRICS["learning_rate"].heading, [rate], AT_STEP_1, include=(0.0,)),
        Subplot(METRICS["grad_norm"].heading, norms, AT_STEP_1, include=(0.0,)),
    ]


def _held_out(evals, key, color, label, dash="solid", symbol="circle"):
    """The line of one metric at the evaluations; `label` stands at its end and has little room."""
    return Line(METRICS[key].label, points_of(evals, f"eval/{key}"), color, label, dash, symbol)


def smoothed(points, window: int | None = None) -> pd.DataFrame:
    """The same steps with the mean value of the steps around each: a window of a fifteenth of the steps, at least five,
    cut off at the ends.
    """
    window = (max(5, len(points) // 15) if window is None else window) | 1
    return points.assign(value=points["value"].rolling(window, center=True, min_periods=1).mean())


def records_of(metrics, kind) -> pd.DataFrame:
    """The records of one kind ("train", "eval", "event") in a DataFrame as `run.metrics`."""
    return metrics[metrics["kind"] == kind] if "kind" in metrics else metrics.iloc[:0]


def points_of(records, column) -> pd.DataFrame:
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


def lead_of(records, prefix="") -> pd.DataFrame:
    """DataFrame step, value of the lead, nats per token: chosen minus rejected average log-probability.

    Where these are missing it is the margin divided by β, which is the same for SimPO.
    """
    import pandas as pd

    nothing = pd.Series(float("nan"), index=records.index, dtype=float)
    lead = records.get(f"{prefix}logps/chosen", nothing) - records.get(f"{prefix}logps/rejected", nothing)
    lead = lead.fillna(records.get(f"{prefix}rewards/margins", nothing) / records.get("beta", nothing))
    return points_of(records if records.empty else records.assign(lead=lead), "lead")


def _per_token(records, column, in_rewards):
    """`points_of` a metric in nats per token; with in_rewards in reward units, times the β of each record.

    For every line of `live_figure` that its switch to reward units changes, whose heading must change too. A metric
    that is recorded in reward units (rewards/…) is read with `points_of`.
    """
    points = points_of(records, column)
    if not in_rewards or points.empty:
        return points
    beta = records.loc[points.index, "beta"]
    return points.assign(**{name: points[name] * beta for name in points.columns if name != "step"})


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


def last_step_of(metrics, total_steps) -> float:
    """End of the x-axis: the last planned step, or the last recorded one if that is later."""
    seen = metrics["step"].max() if "step" in metrics and len(metrics) else 0
    return float(max(total_steps or 0, seen if seen == seen else 0, 1))


def _marks(metrics, colors):
    """The vertical lines to draw, at most one per step: events, verdicts that ask for attention, changed objectives."""
    by_step = {}
    for event in records_of(metrics, "event").to_dict("records"):
        name, color = str(event.get("event", "")), colors["muted"]
        if name == "verdict":
            severity = event.get("severity")
            if severity not in ("attention", "collapse"):
                continue
            name = str(event.get("verdict", severity))
            color = colors["attention" if severity == "attention" else "failure"]
        elif name == "set" and isinstance(event.get("changes"), dict):
            name = ", ".join(_change_in_words(*change) for change in event["changes"].items())
        text = event.get("text")
        by_step.setdefault(float(event["step"]), []).append((name, color, text if isinstance(text, str) else name))
    train = records_of(metrics, "train")
    if {"beta", "gamma_beta_ratio"} <= set(train.columns):
        train = train.dropna(subset=["beta", "gamma_beta_ratio"])
        objective = train[["beta", "gamma_beta_ratio"]]
        changed = (objective != objective.shift()).any(axis=1)
        for row in train[changed].iloc[1:].to_dict("records"):  # the first row has none before it
            text = f"β {row['beta']:g}, γ/β {row['gamma_beta_ratio']:g} from step {row['step']:.0f} on"
            by_step.setdefault(float(row["step"]), []).append(("objective changed", colors["muted"], text))
    ranks = [colors["muted"], colors["attention"], colors["failure"]]
    marks = []
    for step, events in sorted(by_step.items()):
        names, event_colors, texts = zip(*events, strict=True)
        marks.append(Mark(step, ", ".join(dict.fromkeys(names)), max(event_colors, key=ranks.index), " ".join(texts)))
    return marks


def _change_in_words(name, value):
    """A change on the way, short enough for a chart: "learning rate × 0.5"."""
    words = {"learning_rate_scale": "learning rate ×", "beta": "β", "gamma_beta_ratio": "γ/β", "gamma": "γ"}
    if name in words and isinstance(value, (int, float)):
        return f"{words[name]} {value:g}"
    return "other prompts" if name == "prompts" else str(name)
