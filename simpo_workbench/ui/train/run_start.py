"""Before a run begins: the time and memory it will take, measured by a few real steps in another process."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import traitlets

from ...base.errors import SettingWarning
from ...base.format import duration
from ...config.run_config import RunConfig
from ...report.facts import headline
from ...runs.folder import require_free_name
from ...runs.launch import start
from ...runs.preflight_result import PreflightResult
from ...runs.remote_preflight import start_preflight
from ...runs.run import Run
from ..parts.html import Html, Markup, html, joined, table
from ..parts.panel import Panel, button, column, enable, row, show

#: Whether a run fits -> the notice's class and first words.
_FIT = {"fits": ("fits", "Fits"), "tight": ("tight", "Tight"), "does not fit": ("failed", "Does not fit")}
_MEASURE_TIP = "Measures a few real steps first, then asks"
_SKIP_TIP = "Begin at once; time and memory show while it trains"
_DOUBLE_CLICK_S = 1.0


class RunStart(Panel):
    """Starts a run of `config`: measures first, shows whether it fits, asks once, then calls `on_started(run)`."""

    title = "Start"
    config = traitlets.Instance(RunConfig, allow_none=True)

    def __init__(
        self, config: RunConfig | None = None, on_started: Callable[[Run], None] | None = None, line: Html | None = None
    ):
        super().__init__(line)
        self._on_started = on_started or (lambda run: None)
        self._measuring = self._measured = self._follower = None
        self._begun_at = -_DOUBLE_CLICK_S
        self.start = button("Start …", self.guard(self._measure), "play", _MEASURE_TIP, "primary")
        self.cancel = button("Cancel", self.guard(self._cancel), "times", "Stop measuring")
        self.confirm = button(
            "Start training", self.guard(self._begin), "play", "Train in a process of its own", "primary"
        )
        self.skip = button("Start without measuring", self.guard(self._begin), "", _SKIP_TIP)
        self.decline = button("Not now", self.guard(self._reset), "", "Keep the settings and start nothing")
        self.about, self.warned, self.measured = Html(), Html(), Html()
        buttons = row(self.start, self.cancel, self.skip, self.confirm, self.decline)
        self.compose(column(buttons, self.about, self.warned, self.measured))
        self.observe(self.guard(lambda _: self._reset()), "config")
        self.config = config
        self._reset()

    @property
    def measuring(self) -> bool:
        """Whether a measurement is under way."""
        return self._measuring is not None

    def close(self) -> None:
        """End a measurement, and take the panel away."""
        self._cancel()
        super().close()

    def _reset(self):
        if self._measuring is not None:
            self._cancel()
        self._measured, self.measured.value = None, ""
        self._arrange()

    def _arrange(self):
        measuring, asking = self._measuring is not None, self._measured is not None
        show(self.start, not measuring and not asking)
        show(self.skip, not asking)
        show(self.cancel, measuring)
        show(self.confirm, asking)
        show(self.decline, asking)
        missing = "" if self.config is not None else "Choose settings in 1 Setup first."
        enable(self.start, missing, _MEASURE_TIP)
        enable(self.skip, missing, _SKIP_TIP)
        if self.config is None:
            self.about.value, warned = html('<span class="swb-muted">{}</span>', missing), []
        else:
            self.about.value = html("<b>{}</b> {}", "Next run:", next_run(self.config))
            warned = self.config.warnings()
        notice = '<div class="swb-notice swb-attention"><b>{}</b> {}</div>'
        worth_a_look = html(notice, "Worth a second look:", " ".join(warned))
        self.warned.value = worth_a_look if warned and not asking else ""

    def _measure(self):
        if self._measuring is not None:  # a double click
            return
        require_free_name(self.config.run.root, self.config.run.name)  # before it takes time to measure
        self._measuring, began = start_preflight(self.config), time.monotonic()
        self._tell("Starting a process to measure in.", began)
        self._follower = self.follow(lambda: self._look(began), 0.25)
        self._arrange()

    def _look(self, began):
        try:
            result = self._measuring.result()
        except Exception as error:
            self._stop_looking()
            notice = '<div class="swb-notice swb-failed"><b>{}</b> {}</div>'
            self.measured.value = html(notice, "It does not start:", str(error))
            self.say_error(error)
            return
        if result is None:
            self._tell(self._measuring.status.message, began)
            return
        self._stop_looking()
        self._measured = result
        self.measured.value = preflight_notice(result)
        self.say(f"Measured in {duration(time.monotonic() - began)}: {result.verdict}")
        self._arrange()

    def _tell(self, message, began):
        text = f"Measuring before the start, {duration(time.monotonic() - began)} so far: {message}"
        self.measured.value = html('<div class="swb-notice" role="status">{}</div>', text)

    def _stop_looking(self):
        self._follower.stop()
        self._measuring = None
        self._arrange()

    def _cancel(self):
        measuring = self._measuring
        if measuring is None:  # a double click
            return
        self._stop_looking()
        self.measured.value = ""
        self.later(measuring.cancel, lambda _: self.say("The measurement was cancelled; nothing was started."))

    def _begin(self):
        if time.monotonic() - self._begun_at < _DOUBLE_CLICK_S:  # else it would start two runs
            return
        if self._measuring is not None:
            self._cancel()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SettingWarning)  # the form shows them
            run = start(self.config)
        self._begun_at = time.monotonic()
        self._reset()
        self.say(f"Started {run.name} in {run.path}.", "good")
        self._on_started(run)

    def snapshot(self) -> Markup:
        return joined([self.about.value, self.measured.value])


def next_run(config: RunConfig) -> str:
    """One line that says what a start would train."""
    training, name = config.training, f", as {config.run.name}" if config.run.name else ""
    length = f"{training.max_steps:,} steps" if training.max_steps else f"{training.epochs:g} passes"
    return (
        f"{headline(config)} · pairs {config.data.train} · {length}, {training.pairs_per_step} pairs a step · learning"
        f" rate {training.learning_rate:g}{name}"
    )


def preflight_notice(result: PreflightResult) -> Markup:
    """Whether a run fits, the measured table, and what to know before it starts."""
    level, words = _FIT[result.fit]
    notes = joined(html("<p>{}</p>", text) for text in (result.base_standing, *result.data_notes, *result.warnings))
    reason = result.verdict.partition(": ")[2]
    measured = table(["measured", "what a run takes"], result.rows())
    pattern = '<div class="swb-notice swb-{}"><b>{}.</b> {}{}{}</div>'
    return html(pattern, level, words, reason[0].upper() + reason[1:], measured, notes)
