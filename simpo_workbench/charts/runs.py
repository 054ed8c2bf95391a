"""Several runs in one set of charts, each with a colour, a dash and a symbol of its own. Pure functions.

Here a colour says which run, and the title of a chart says what of it is drawn; so these colours are none of those that
mean chosen, rejected or margin.
"""

from __future__ import annotations

from itertools import takewhile
from string import ascii_uppercase

from ..base.escape import plotly_text
from .subplots import COLORS, Line, Panel, Threshold, small_charts
from .training import last_step_of, lead_of, points_of, records_of

#: More runs than this are not told apart in one chart.
MOST_RUNS = 8
RUN_COLORS = {
    "light": ["#00687a", "#9c2f7f", "#5c6b00", "#3d4fc4", "#a34a00", "#4d5a68", "#b00058", "#1d6b35"],
    "dark": ["#4fd3e6", "#f29ad6", "#c5d44a", "#a9b4ff", "#ffb076", "#c0ccd8", "#ff8fb8", "#7fd89a"],
}
_DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash"]
_SYMBOLS = ["circle", "diamond", "square", "triangle-up", "cross", "x", "star", "triangle-down"]
_LONGEST_LABEL = 9  # characters between two charts on a narrow page
HEIGHT = 600
#: What the short titles of the charts mean.
MEANING = (
    "Drift: change of the log-probability since the start, in nats per token. The others: margin per token, and shares"
    " with 95 % intervals. Points are evaluations on held-out pairs."
)


def runs_figure(metrics, gamma_beta_ratio=None, total_steps=0, theme="light"):
    """plotly Figure of several runs laid over each other at their evaluations: what shows a collapse above, what was
    aimed at below.

    metrics: {name: DataFrame as `run.metrics`}, at most MOST_RUNS of them. gamma_beta_ratio: γ/β, nats per token, where
    it is the same in all runs, else None.
    total_steps: the last planned step of the longest run.
    """
    colors = COLORS[theme]
    styles = dict(zip(metrics, zip(RUN_COLORS[theme], _DASHES, _SYMBOLS, strict=True), strict=False))
    evaluations = {name: records_of(table, "eval") for name, table in metrics.items()}
    labels = line_labels(list(metrics))

    def lines(found_in):
        drawn = []
        for name, table in evaluations.items():
            color, dash, symbol = styles[name]
            drawn.append(Line(plotly_text(name), found_in(table), color, plotly_text(labels[name]), dash, symbol))
        return drawn

    def lines_of(column):
        return lines(lambda table: points_of(table, column))

    first, sampled = "comes with the first evaluation", "comes with the first sampled answers"
    panels = [
        Panel("Chosen drift (nats)", lines_of("eval/logps/chosen_drift"), first, include=(0.0, -0.1)),
        Panel("Rejected drift (nats)", lines_of("eval/logps/rejected_drift"), first, include=(0.0, -0.1)),
        Panel("Repeated 4-grams", lines_of("eval/answers/repeated_4grams"), sampled, span=(0.0, 1.0)),
        Panel(
            "Margin (nats/token)",
            lines(lambda table: lead_of(table, "eval/")),
            first,
            [Threshold(gamma_beta_ratio, "γ/β", colors["muted"])] if gamma_beta_ratio is not None else [],
            include=(0.0,),
        ),
        Panel("Chosen ahead", lines_of("eval/rewards/accuracies"), first, span=(0.0, 1.0)),
        Panel("Ends properly", lines_of("eval/answers/ended"), sampled, span=(0.0, 1.0)),
    ]
    last = max((last_step_of(table, total_steps) for table in metrics.values()), default=1.0)
    return small_charts(panels, 2, 3, last, [], colors, HEIGHT)


def last_values(metrics):
    """(columns, rows) of a table with what the charts show at the last evaluation of each run, for those who do not see
    them.
    """
    columns = {
        "chosen log-prob since the start": "eval/logps/chosen_drift",
        "rejected log-prob since the start": "eval/logps/rejected_drift",
        "repeated 4-grams": "eval/answers/repeated_4grams",
        "chosen ahead": "eval/rewards/accuracies",
        "end properly": "eval/answers/ended",
    }
    rows = []
    for name, table in metrics.items():
        evaluations = records_of(table, "eval")
        found = [lead_of(evaluations, "eval/"), *(points_of(evaluations, column) for column in columns.values())]
        rows.append(
            [name, *(f"{points['value'].iloc[-1]:.2f}".replace("-", "−") if len(points) else "–" for points in found)]
        )
    return ["run", "margin per token", *columns], rows


def line_labels(names: list[str]) -> dict[str, str]:
    """What stands for each name at the end of its lines: the part that the others do not share, or letters where such
    parts are too long for the place.
    """
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False)) if len(names) > 1 else []
    common = "".join(letters[0] for letters in alike)
    shared = max(common.rfind(mark) + 1 for mark in "-_. ")
    if shared < 3 or any(len(name) <= shared for name in names):
        shared = 0
    short = [("…" if shared else "") + name[shared:] for name in names]
    fits = all(len(label) <= _LONGEST_LABEL for label in short)
    return dict(zip(names, short if fits else ascii_uppercase, strict=False))
