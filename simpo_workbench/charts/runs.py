"""Several runs in one set of charts, each with a colour, a dash and a symbol of its own. Pure functions.

Here a colour says which run, and the title of a chart says what of it is drawn; so these colours are none of those that
mean chosen, rejected or margin.
"""

from __future__ import annotations

from itertools import takewhile
from string import ascii_uppercase
from typing import TYPE_CHECKING

from ..analysis.metrics import METRICS, SHARE
from ..base.escape import plotly_text
from .subplots import COLORS, Line, Subplot, Threshold, figure_height, small_charts
from .training import AT_FIRST_ANSWERS, AT_FIRST_EVALUATION, last_step_of, lead_of, points_of, records_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: More runs than this are not told apart in one chart.
MOST_RUNS = 8
RUN_COLORS = {
    "light": ["#00687a", "#9c2f7f", "#5c6b00", "#3d4fc4", "#a34a00", "#4d5a68", "#b00058", "#1d6b35"],
    "dark": ["#4fd3e6", "#f29ad6", "#c5d44a", "#a9b4ff", "#ffb076", "#c0ccd8", "#ff8fb8", "#7fd89a"],
}
_DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash"]
_SYMBOLS = ["circle", "diamond", "square", "triangle-up", "cross", "x", "star", "triangle-down"]
_LONGEST_LABEL = 9  # characters between two charts on a narrow page
_COLUMNS = 3
#: Metrics of the charts, row by row: what shows a collapse above, what was aimed at below.
SHOWN = (
    *("logps/chosen_drift", "logps/rejected_drift", "answers/repeated_4grams"),
    *("lead", "rewards/accuracies", "answers/ended"),
)
HEIGHT = figure_height(len(SHOWN), _COLUMNS)
MEANING = (
    "Drift: change of the log-probability since the start. Lead: how much likelier per token chosen answers are than"
    " rejected ones. The others are shares with 95 % intervals. Points are evaluations on held-out pairs."
)


def runs_figure(metrics, gamma_beta_ratio=None, total_steps=0, theme="light") -> go.Figure:
    """plotly Figure of several runs laid over each other at their evaluations, one chart for each metric of SHOWN.

    metrics: {name: DataFrame as `run.metrics`}, at most MOST_RUNS of them. gamma_beta_ratio: γ/β, nats per token, where
    it is the same in all runs, else None.
    total_steps: the last planned step of the longest run.
    """
    colors = COLORS[theme]
    styles = dict(zip(metrics, zip(RUN_COLORS[theme], _DASHES, _SYMBOLS, strict=True), strict=False))
    evaluations = {name: records_of(table, "eval") for name, table in metrics.items()}
    labels = line_labels(list(metrics))
    goal = [] if gamma_beta_ratio is None else [Threshold(gamma_beta_ratio, "γ/β", colors["muted"])]
    subplots = []
    for key in SHOWN:
        lines = []
        for name, table in evaluations.items():
            color, dash, symbol = styles[name]
            lines.append(Line(plotly_text(name), _points(table, key), color, plotly_text(labels[name]), dash, symbol))
        subplots.append(
            Subplot(
                METRICS[key].heading,
                lines,
                AT_FIRST_ANSWERS if key.startswith("answers/") else AT_FIRST_EVALUATION,
                goal if key == "lead" else [],
                span=(0.0, 1.0) if METRICS[key].unit == SHARE else None,
                include=(0.0, -0.1) if key.endswith("_drift") else (0.0,),
            )
        )
    last = max((last_step_of(table, total_steps) for table in metrics.values()), default=1.0)
    return small_charts(subplots, _COLUMNS, last, [], colors)


def last_values(metrics) -> tuple[list[str], list[list[str]]]:
    """(columns, rows) of a table with what the charts show at the last evaluation of each run, for screen readers; and
    right answers where a run has them.
    """
    checked = any("eval/answers/right" in table for table in metrics.values())
    keys, rows = [*SHOWN, *(["answers/right"] if checked else [])], []
    for name, table in metrics.items():
        points = {key: _points(records_of(table, "eval"), key)["value"] for key in keys}
        values = {key: None if values.empty else float(values.iloc[-1]) for key, values in points.items()}
        rows.append([name, *(METRICS[key].text(value, short=True) for key, value in values.items())])
    return ["run", *(METRICS[key].title for key in keys)], rows


def _points(evaluations, key):
    return lead_of(evaluations, "eval/") if key == "lead" else points_of(evaluations, f"eval/{key}")


def line_labels(names: list[str]) -> dict[str, str]:
    """Short labels for the line ends: the part of each name that differs, else letters."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False)) if len(names) > 1 else []
    common = "".join(letters[0] for letters in alike)
    shared = max(common.rfind(mark) + 1 for mark in "-_. ")
    if shared < 3 or any(len(name) <= shared for name in names):
        shared = 0
    short = [("…" if shared else "") + name[shared:] for name in names]
    fits = all(len(label) <= _LONGEST_LABEL for label in short)
    return dict(zip(names, short if fits else ascii_uppercase, strict=False))
