"""Several runs compared: their charts laid over each other, and the settings in which they differ."""

from __future__ import annotations

from pathlib import Path

import ipywidgets

from ...base.errors import WorkbenchError
from ...charts.runs import HEIGHT, MEANING, MOST_RUNS, RUN_COLORS, last_values, line_labels, runs_figure
from ...config.held_lora import PATTERNS
from ...config.run_config import RunConfig, settings
from ...runs.metrics_tail import MetricsTail
from ...runs.run import Run, attach
from ...runs.verified import read_changes
from ..parts.fields import number_text
from ..parts.html import Html, html, joined, table
from ..parts.live_figure import LiveFigure
from ..parts.panel import Panel, show

_LONGEST_VALUE = 120
_CHANGED = "changed while it trained"


class SeveralRuns(ipywidgets.VBox):
    """A part of a panel: the charts of some runs in one figure, and a table of the settings in which they differ."""

    def __init__(self, panel: Panel):
        self._panel, self._names, self._read = panel, [], None
        self._tails, self._reading, self._again = {}, False, False
        self.words = Html()
        self.key = Html()
        self.figure: LiveFigure | None = None
        self.settings = Html()
        super().__init__([self.words, self.settings])
        self.layout.display = "none"

    def show_runs(self, names: list[str]) -> None:
        """Show these runs of the panel's root, or nothing for an empty list.

        They are read in the background, each from where the last reading ended.
        """
        self._names = names
        show(self, bool(names))
        if not names:
            self._tails = {}
            return
        left_out = f" The charts show the first {MOST_RUNS}." if len(names) > MOST_RUNS else ""
        self.words.value = html(
            '<h3>{}</h3><div class="swb-muted">{}</div>', f"{len(names)} runs compared", f"{MEANING}{left_out}"
        )
        self._look()

    def _look(self):
        if self._reading:  # a tail must not be read twice at a time
            self._again = True
            return
        names, root, tails = self._names, self._panel.root, self._tails
        self._reading = True

        def read():
            runs = [attach(name, root) for name in names]
            current = {run.path: tails.get(run.path) or MetricsTail(run.folder.metrics) for run in runs}
            return names, root, _read(runs, current), current

        self._panel.later(read, self._arrived, lambda _: self._look_again())

    def _arrived(self, result):
        names, root, read, tails = result
        self._tails = tails if self._names else {}
        try:
            if names == self._names and root == self._panel.root:  # else others were chosen meanwhile
                self._show(read)
        finally:
            self._look_again()

    def _look_again(self):
        self._reading, again, self._again = False, self._again, False
        if again and self._names:
            self._look()

    def redraw(self) -> None:
        """Draw the charts again, in the colours of the theme."""
        if self._read is not None and self._names:
            self._draw()

    def _show(self, read):
        self._read = read
        self._draw()
        columns, rows = config_differences(*(self._read[name] for name in ("configs", "changes", "loras")))
        if rows:
            differences = table(columns, rows)
        else:
            words = "All settings are the same; names, and the machines that trained them, may differ."
            differences = html('<p class="swb-muted">{}</p>', words)
        frame = '<h3>{}</h3><div class="swb-table-frame">{}</div>'
        self.settings.value = html(frame, "Settings that differ", differences)

    def _draw(self):
        metrics = self._read["metrics"]
        if self.figure is None:
            self.figure = LiveFigure(HEIGHT)
        ratio, total_steps = self._read["gamma_beta_ratio"], self._read["total_steps"]
        self.figure.show(runs_figure(metrics, ratio, total_steps, self._panel.theme))
        # only now: a plotly figure that is put into the page empty would stay 700 pixels wide
        self.children = [self.words, self.key, self.figure, self.settings]
        labels, colors = line_labels(list(metrics)), RUN_COLORS[self._panel.theme]
        names = [
            html('<b style="color: {}">{}</b> <bdi>{}</bdi>', color, label, name)
            for (name, label), color in zip(labels.items(), colors, strict=False)
        ]
        self.key.value = html('<div class="swb-text">{}</div>', joined(names, " · ")) if "A" in labels.values() else ""
        columns, rows = last_values(metrics)
        self.figure.describe(
            f"Charts of {len(metrics)} runs over their optimizer steps: log-probabilities, repetition and endings of"
            " answers, lead, and pairs with the chosen answer ahead.",
            table(columns, rows, "At the last evaluation"),
        )


def config_differences(
    configs: dict[str, RunConfig | None],
    changes: dict[str, str] | None = None,
    loras: dict[str, dict | None] | None = None,
) -> tuple[list[str], list[list[str]]]:
    """(columns, rows) of the settings in which runs differ, one column per run, without the section `run`.

    configs: by the run's name; None for one that cannot be read. changes: what was changed while a run trained. loras:
    `run.lora` of each, which holds in place of the section `lora`; None for one that is not known. Without it the
    sections are compared.
    """
    rows = []

    def value_of(name, info):
        config = configs[name]
        if config is None or (info.section == "lora" and loras is not None and loras.get(name) is None):
            return "?"
        if info.section == "lora" and loras is not None:
            return _text(loras[name][info.name])
        return _text(getattr(getattr(config, info.section), info.name))

    for info in settings():
        values = [value_of(name, info) for name in configs]
        if info.section != "run" and len({value for value in values if value != "?"}) > 1:
            rows.append([info.path, *values])
    for pattern in PATTERNS if loras else ():
        values = [_text((loras.get(name) or {}).get(pattern)) for name in configs]
        if len(set(values)) > 1:
            rows.append([f"{pattern} of model.adapter", *values])
    if changes and any(changes.values()):
        rows.append([_CHANGED, *(changes.get(name) or "–" for name in configs)])
    return ["setting", *configs], rows


def _read(runs: list[Run], tails: dict[Path, MetricsTail]) -> dict:
    import pandas as pd

    configs, loras, changes, metrics, ratios = {}, {}, {}, {}, set()
    for run in runs:
        configs[run.name], loras[run.name] = _config(run), _lora(run)
        changes[run.name] = "; ".join(
            f"step {change['step']}: {name} {_text(value)}"
            for change in read_changes(run.folder)
            for name, value in change["changes"].items()
        )
        if len(metrics) < MOST_RUNS:
            tail, config = tails[run.path], configs[run.name]
            tail.read()
            records = tail.evaluations_at_last_objective(config.loss) if config else tail.evaluations
            metrics[run.name] = pd.DataFrame(records, columns=None if records else ["kind", "step"])
            objective = tail.objective(config.loss) if config else None
            ratios.add(objective.gamma_beta_ratio if objective and objective.has_target_margin else None)
    return {
        "configs": configs,
        "loras": loras,
        "changes": changes,
        "metrics": metrics,
        "gamma_beta_ratio": ratios.pop() if len(ratios) == 1 else None,
        "total_steps": max(run.status.total_steps for run in runs),
    }


def _config(run):
    try:
        return run.config
    except WorkbenchError:  # edited by hand: the other runs are compared all the same
        return None


def _lora(run):
    try:
        return run.lora
    except WorkbenchError:  # as above; its adapter's settings are shown as unknown
        return None


def _text(value):
    if value is None:
        return "none"
    text = number_text(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
