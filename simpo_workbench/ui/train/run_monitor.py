"""A run as it happens: the verdict, then the few numbers that matter, then the charts, those of health first."""

from __future__ import annotations

import time

import ipywidgets
import traitlets

from ...analysis import doctor
from ...analysis.metrics import METRICS
from ...base.errors import WorkbenchError
from ...base.format import counted, duration
from ...charts import training as training_charts
from ...config.run_config import RunConfig
from ...report.facts import headline_of, tiles
from ...runs.launch import clone
from ...runs.metrics_tail import MetricsTail
from ...runs.run import Run
from ..parts.following import POLL_S
from ..parts.html import Html, Markup, html, joined, table
from ..parts.live_figure import LiveFigure
from ..parts.panel import Panel, button, column, row, show
from .remedies import remedies
from .run_controls import RunControls
from .run_samples import RunSamples
from .run_start import RunStart

#: State -> its shape and tone; the shape stands before the state's name.
STATES = {
    "queued": ("◌", "muted"),
    "loading": ("◌", "muted"),
    "scoring": ("◐", "answers"),
    "training": ("●", "answers"),
    "paused": ("❚❚", "attention"),
    "suspended": ("◇", "attention"),
    "stalled": ("▲", "attention"),
    "finished": ("✓", "answers"),
    "stopped": ("■", "attention"),
    "failed": ("✕", "failure"),
}
#: A run that has ended may be resumed: it is looked at this often then.
_ENDED_POLL_S = 2.0
#: Charts are drawn at most this often, and take at most about this share of the time.
_DRAW_S, _DRAW_SHARE = 0.9, 0.15
_LOG_BYTES = 20_000
#: Metrics in the table for screen readers.
_COLUMNS = (
    *("logps/chosen_drift", "logps/rejected_drift", "answers/mean_tokens", "answers/ended", "answers/repeated_4grams"),
    *("answers/right", "answers/became_wrong", "answers/became_right"),
    *("loss", "rewards/accuracies", "rewards/beyond_gamma"),
)
#: Those that only a run has whose prompts have checks.
_OF_CHECKED = ("answers/right", "answers/became_wrong", "answers/became_right")


def badge(state: str) -> Markup:
    """A run's state as shape and name."""
    shape, tone = STATES.get(state, ("", "muted"))
    return html('<span class="swb-badge swb-tone-{}" role="status">{} {}</span>', tone, shape, state)


class RunMonitor(Panel):
    """Follows `run` while it trains and shows it when it has ended; without a run, or after one, it starts `config`.

    Setting `run` follows another one. Everything is read from the run's folder, by a thread that works while a cell is
    busy.
    """

    title = "Train"
    run = traitlets.Instance(Run, allow_none=True)
    config = traitlets.Instance(RunConfig, allow_none=True)
    _follower = None

    def __init__(self, run: Run | None = None, config: RunConfig | None = None, line: Html | None = None):
        super().__init__(line)
        self._forget()
        self.starter = RunStart(config, self.guard(self._started), self.line)
        self.controls = RunControls(self._look_soon, self.line)
        self.samples = RunSamples(line=self.line)
        self.head, self.bar, self.verdict, self.tiles, self.log_text = Html(), Html(), Html(), Html(), Html()
        self.remedy = button("", self.guard(lambda: self._heal(0)), "", "", "remedy")
        self.second_remedy = button("", self.guard(lambda: self._heal(1)), "", "", "remedy")
        self.figure = LiveFigure(training_charts.live_height(), linked=True, on_width=self.guard(self._fit))
        self._columns = 3
        self.units = ipywidgets.ToggleButtons(
            options=[("nats per token", False), ("reward units", True)],
            style={"button_width": "auto"},
            tooltips=["comparable between runs", "times β"],
        )
        self.smoothing = ipywidgets.IntSlider(
            value=0,
            min=0,
            max=50,
            description="Smoothing",
            continuous_update=False,
            readout=False,
            layout={"width": "240px"},
        )
        self.smoothing_words = Html()
        for control in (self.units, self.smoothing):
            control.observe(self.guard(lambda _: self._draw()), "value")
        words = (
            "Thin lines: single steps; solid: smoothed; points: held-out evaluations. Rewards are negative; only the"
            " difference matters."
        )
        about_charts = Html(html('<span class="swb-muted">{}</span>', words))
        options = row(self.units, self.smoothing, self.smoothing_words, about_charts)
        self._log_fold = ipywidgets.Accordion([self.log_text], titles=("Log of the run",), selected_index=None)
        self._log_fold.observe(self.guard(lambda _: self._show_log()), "selected_index")
        self._about = column(
            row(self.head, classes="swb-spread"),
            self.bar,
            row(self.verdict, column(self.remedy, self.second_remedy, classes="swb-remedies"), classes="swb-verdict"),
            self.tiles,
        )
        self._readable = column(self.controls, self.figure, options, self.samples, self._log_fold)
        self._live = column(self._about, self._readable)
        self.compose(self.starter, self._live)
        self.observe(self.guard(self._follow_run), "run")
        self.observe(lambda change: setattr(self.starter, "config", change["new"]), "config")
        self.config, self.run = config, run
        if run is None:
            self._follow_run(None)

    # --- following

    def close(self) -> None:
        """Stop following the run, and close the panel; the run goes on."""
        self._stop_following()
        self.starter.close()
        super().close()

    def _stop_following(self):
        if self._follower is not None:
            self._follower.stop()
            self._follower = None

    def _forget(self):
        """Forget what was read of a run."""
        self._followed = self._tail = self._seen = self._status = None
        self._verdicts, self._remedies, self._damaged = [], [], 0
        self._evaluations, self._objective = [], None  # at the run's last objective, and that objective
        self._drawn_at, self._draw_took, self._stale = 0.0, 0.0, True

    def _follow_run(self, _):
        self._stop_following()
        self._forget()
        run = self.run
        self.samples.attach(run)
        show(self._live, run is not None)
        if run is None:
            self.controls.attach(None)
            show(self.starter, True)
            return
        try:
            self._run_config, self._headline = run.config, headline_of(run)
        except WorkbenchError as error:
            self._show_unreadable(run, error)
            return
        show(self._readable, True)
        # `run` may be set to another one at any moment
        self._followed, self._tail = run, MetricsTail(run.folder.metrics)
        self.controls.attach(run, self._run_config)
        self._show_log()
        self._follower = self.follow(self._look, POLL_S)
        self.guard(self._look)()

    def _started(self, run):
        self.run = run

    def _look_soon(self):
        if self._follower is not None:
            self._follower.every_s = POLL_S
            self._follower.look_now()

    def _look(self):
        """Read what is new and show it."""
        run, status = self._followed, self._followed.status
        new = self._tail.read()
        if new:
            self._stale = True
            self._take_measured(new)
            events = [record for record in new if record.get("kind") == "event"]
            if events and self._seen is not None:
                self._say_event(events[-1])
        if self._tail.damaged_lines > self._damaged:
            lines = counted(self._tail.damaged_lines, "line")
            self.say(f"{lines} of {run.folder.metrics.name} cannot be read and are missing in the charts.", "error")
        self._damaged = self._tail.damaged_lines
        self.controls.update(status)
        if new or status != self._seen:
            self._show_state(run, status)
        self._seen = status
        if self._stale and time.monotonic() - self._drawn_at > max(_DRAW_S, self._draw_took / _DRAW_SHARE):
            self._draw()
        self._show_log()
        if self._follower is not None:
            self._follower.every_s = POLL_S if status.alive or self._stale else _ENDED_POLL_S

    def _say_event(self, event):
        at = time.strftime("%H:%M:%S", time.localtime(event.get("time", time.time())))
        self.say(f"{at} step {event.get('step')}: {event.get('text', event.get('event'))}")

    def _take_measured(self, new):
        objective = self._tail.objective(self._run_config.loss)
        is_evaluated = any(record.get("kind") == "eval" for record in new)
        if not is_evaluated and objective == self._objective:
            return
        if objective != (self._objective or self._run_config.loss):
            self._headline = headline_of(self._followed, objective)
        self._objective = objective
        self._evaluations = self._tail.evaluations_at_last_objective(self._run_config.loss)
        norms = [{"kind": "train", "step": step, "grad_norm": norm} for step, norm in self._tail.points("grad_norm")]
        self._verdicts = doctor.diagnose([*norms, *self._evaluations], self._followed.status.total_steps)
        if is_evaluated:
            self.samples.refresh()

    # --- showing

    def _show_state(self, run, status):
        state = "stalled" if status.stalled else status.state
        self._status = status
        done = status.step / status.total_steps if status.total_steps else 0.0
        left = f"{duration(status.seconds_left)} left" if status.seconds_left is not None and status.alive else ""
        where = f"step {status.step:,} of {status.total_steps:,}" if status.total_steps else ""
        evaluations, tail = self._evaluations, self._tail
        judged = f"evaluated at step {evaluations[-1]['step']:,}" if evaluations else ""
        facts = " · ".join(part for part in (where, status.doing, left, judged) if part)
        self.head.value = html(
            '{}&ensp;<b>{}</b>&ensp;<span class="swb-muted">{}</span>&ensp;<span class="swb-muted">{}</span>',
            badge(state),
            run.name,
            self._headline,
            facts,
        )
        pattern = (
            '<div class="swb-progress" role="progressbar" aria-valuemin="0" aria-valuemax="{}" aria-valuenow="{}"'
            ' aria-label="{}"><div style="width:{}%"></div></div>'
        )
        self.bar.value = html(pattern, status.total_steps, status.step, "optimizer steps", f"{100 * done:.1f}")
        self._show_verdict(status)
        parts = tiles(
            status,
            self._run_config,
            evaluations,
            tail.column("pairs_per_second"),
            tail.column("peak_memory_bytes"),
            self._final_of(run, status),
        )
        self.tiles.value = html('<dl class="swb-tiles">{}</dl>', joined(map(_tile, parts)))
        show(self.starter, self._may_start(status))

    def _final_of(self, run, status):
        """The run's result on its final pairs, once it has ended; None before and where it has none."""
        if status.alive or not run.folder.final_steps():
            return None
        try:
            return run.final
        except WorkbenchError as error:
            self.say_error(error)
            return None

    def _may_start(self, status):
        return self.config is not None and (not status.alive or self.starter.measuring)

    def _show_verdict(self, status):
        worst = self._verdicts[0] if self._verdicts else None
        self._remedies = []
        if not self._followed.path.is_dir():
            words = (
                f"The run's folder {self._followed.path} is gone: it was deleted or moved. What is shown was read"
                " before."
            )
            self.verdict.value = html('<div class="swb-notice swb-failed">{}</div>', words)
        elif status.state == "failed" or status.stalled:
            words = "Failed." if status.state == "failed" else ""
            self.verdict.value = html('<div class="swb-notice swb-failed"><b>{}</b> {}</div>', words, status.message)
        elif status.state in ("queued", "loading") or worst is None:
            words = status.message or "The doctor's verdict comes with the second evaluation."
            self.verdict.value = html('<div class="swb-notice">{}</div>', words)
        else:
            more = joined(html("<p>{}</p>", str(verdict)) for verdict in self._verdicts[1:])
            short, colon, numbers = worst.seen.partition(": ")
            pattern = '<div class="swb-notice swb-{}"><b>{}</b> {} {} {}{}</div>'
            self.verdict.value = html(
                pattern, worst.severity, short + colon.strip(), numbers, worst.cause, worst.remedy, more
            )
            scale = self.controls.holding["learning_rate_scale"] or 1.0
            self._remedies = remedies(self._followed, self._run_config, worst, status, scale)
        self._offer(self._remedies)

    def _offer(self, offered):
        for place, control in enumerate((self.remedy, self.second_remedy)):
            show(control, place < len(offered))
            if place < len(offered):
                control.description, control.tooltip = offered[place].words, offered[place].tooltip

    def _heal(self, place):
        if place >= len(self._remedies):  # a double click
            return
        run, remedy, self._remedies = self._followed, self._remedies[place], []
        for control in (self.remedy, self.second_remedy):
            control.disabled = True
        self.say(f"Making a new run from {run.name} …")
        # first the clone: a run is stopped only for one that is there
        self.later(
            lambda: clone(run.path, step=remedy.step, changes=remedy.changes),
            lambda new_run: self._healed(run, new_run),
            lambda error: self._healed(run, None),
        )

    def _healed(self, run, new_run):
        for control in (self.remedy, self.second_remedy):
            control.disabled = False
        self._seen = None  # so that the state is shown again, with its remedies
        if new_run is None:
            return
        self.say(f"{new_run.name} was made from {run.name}.", "good")
        if self._followed is run:
            self.run = new_run
        if run.status.alive:
            run.stop()

    def _show_unreadable(self, run, error):
        """Show a run whose configuration cannot be read: its name, and why."""
        show(self._readable, False)
        self._offer([])
        show(self.starter, self.config is not None)
        self.head.value, self.bar.value, self.tiles.value = html("<b>{}</b>", run.name), "", ""
        notice = '<div class="swb-notice swb-failed"><b>{}</b> {}</div>'
        self.verdict.value = html(notice, "It cannot be shown:", str(error))
        self.say_error(error)

    def _draw(self):
        if self._tail is None:
            return
        began, frame = time.monotonic(), self._tail.frame(self._evaluations)
        objective = self._objective or self._run_config.loss
        ratio = objective.gamma_beta_ratio if objective.has_target_margin else None
        total = self._status.total_steps if self._status else 0
        window = 2 * self.smoothing.value + 1 if self.smoothing.value else None
        self.smoothing_words.value = html(
            '<span class="swb-muted">{}</span>', f"mean of {window} steps" if window else "automatic"
        )
        spec = training_charts.live_figure(
            frame, ratio, total, self.theme, doctor.CHOSEN_DRIFT_ATTENTION, window, self.units.value, self._columns
        )
        self.figure.show(spec)
        self.figure.describe(*_in_words(self._followed.name, self._evaluations))
        self._drawn_at = time.monotonic()
        self._draw_took, self._stale = self._drawn_at - began, False

    def _fit(self, width):
        columns = 3 if width >= training_charts.WIDE else 2
        if columns != self._columns:
            self._columns = columns
            self._draw()

    def redraw(self) -> None:
        self._draw()

    def _show_log(self):
        if self._log_fold.selected_index is None or self._tail is None:
            return
        try:
            with open(self._followed.folder.log, "rb") as file:
                file.seek(max(0, self._followed.folder.log.stat().st_size - _LOG_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            text = ""
        self.log_text.value = html('<pre class="swb-text" tabindex="0">{}</pre>', text or "The log is empty.")

    def snapshot(self) -> Markup:
        if self.run is None:
            return self.starter.snapshot()
        if self._tail is None:
            return html("{}{}", self.head.value, self.verdict.value)
        sentence, rows = _in_words(self._followed.name, self._evaluations)
        return html(
            "{}{}{}<p>{}</p>{}{}",
            self.head.value,
            self.verdict.value,
            self.tiles.value,
            sentence,
            rows,
            self.samples.snapshot(),
        )


def _tile(tile):
    return html(
        '<div class="swb-tile" title="{}"><dd>{}</dd><dt>{}</dt><dd class="swb-fact">{}</dd></div>',
        tile["help"],
        tile["value"],
        tile["name"],
        tile["fact"],
    )


def _in_words(name, evaluations):
    """A sentence about the charts, and the evaluations as a table, for screen readers."""
    charts = f"Charts of {name} over the optimizer steps"
    if not evaluations:
        return f"{charts}; nothing was evaluated yet.", ""
    checked = any("eval/answers/right" in record for record in evaluations)
    keys = [key for key in _COLUMNS if checked or key not in _OF_CHECKED]
    rows = [
        [str(record["step"]), *(METRICS[key].text(record.get(f"eval/{key}")) for key in keys)] for record in evaluations
    ]
    columns = ["step", *(METRICS[key].title for key in keys)]
    return f"{charts}; the {len(rows)} evaluations are in the table below.", table(
        columns, rows, "Held-out evaluations"
    )
