"""Requests to a run while it trains: pause, evaluate, save, stop, and changes of settings."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets

from ...base.files import file_stamp
from ...config.live_changes import checked_changes
from ...config.run_config import RunConfig
from ...runs.launch import resume
from ...runs.reply import Reply
from ...runs.run import Run
from ...runs.verified import read_changes
from ..parts.html import Html
from ..parts.panel import Panel, button, column, enable, row, show

_PAUSE_TIP = "Wait after this step; the model stays in memory"
_SUSPEND_TIP = "Save a checkpoint, end the process; Go on starts it again"
_EVALUATE_TIP = "Score the held-out pairs and answer the sample prompts after this step"
_SAVE_TIP = "Save a checkpoint after this step"
_CHANGE_TIP = "β, γ/β and the learning rate, from the next step on"
_APPLY_TIP = "Applies after the step that runs now"
_STOP_TIP = "End after this step, with adapter and checkpoint"
_STOPPABLE = ("training", "paused", "scoring", "loading", "queued")
_DONE = {
    "pause": "Paused",
    "unpause": "Goes on",
    "stop": "Stopping",
    "suspend": "Suspended",
    "save": "Saved",
    "evaluate": "Evaluated",
    "set": "Changed",
}


class RunControls(Panel):
    """Buttons for a run. `update(status)` enables those that can be used now.

    `holding`: the present β, γ/β and factor on the learning rate.
    """

    title = "Controls"

    def __init__(self, on_changed: Callable[[], None] = lambda: None, line: Html | None = None):
        super().__init__(line)
        self.run: Run | None = None
        self._requests: list[Reply] = []
        self._on_changed, self._state, self._changes_stamp, self.holding = on_changed, None, None, {}
        request = self._requester
        self.pause = button("Pause", request("pause", lambda: self.run.pause()), "pause", _PAUSE_TIP)
        self.unpause = button("Go on", self.guard(self._go_on), "play", "Go on from here")
        self.suspend = button("Free the memory", request("suspend", lambda: self.run.suspend()), "eject", _SUSPEND_TIP)
        self.evaluate = button("Evaluate now", request("evaluate", lambda: self.run.evaluate()), "check", _EVALUATE_TIP)
        self.save = button("Save checkpoint", request("save", lambda: self.run.save()), "save", _SAVE_TIP)
        self.change = button("Change while training …", self.guard(self._toggle_change), "sliders", _CHANGE_TIP)
        self.stop = button("Stop and save", request("stop", lambda: self.run.stop()), "stop", _STOP_TIP, "danger")
        # no bounds here: a field that corrects a number would request a value that was not typed; the request itself is
        # checked, with a message
        self.beta, self.ratio = _number("β", 0.1, 150, 30), _number("γ/β", 0.05, 150, 30)
        self.scale = _number("learning rate ×", 0.1, 210, 100)
        self.apply = button("Apply", self.guard(self._apply), "", _APPLY_TIP, "primary")
        words = (
            "A change of β or γ/β changes the objective: loss and rewards before and after it do not compare, leads"
            " in nats per token do, and the charts say “objective changed”. The learning rate is multiplied by its"
            " factor from the next step on; 1 is the configured rate."
        )
        self._changes = column(
            row(self.beta, self.ratio, self.scale, self.apply), Html(words, layout={"max_width": "900px"})
        )
        self._changes.add_class("swb-notice")
        show(self._changes, False)
        left = row(self.pause, self.unpause, self.evaluate, self.save, self.change, self.suspend)
        self.compose(row(left, self.stop, classes="swb-spread"), self._changes)

    def attach(self, run: Run | None, config: RunConfig | None = None) -> None:
        """Control this run, which began with this configuration."""
        self.run, self._config, self._requests = run, config, []
        self._state, self._changes_stamp, self.holding = None, None, {}
        show(self._changes, False)
        if config is not None:
            show(self.ratio, config.loss.has_target_margin)
            self._show_values(0)

    def update(self, status) -> None:
        """Enable the buttons that this state allows, and show the replies to earlier requests."""
        self._follow_requests()
        self._show_values(status.step)
        if (status.state, status.alive) == self._state:
            return
        self._state = (status.state, status.alive)
        ended = not status.alive and status.state in ("stopped", "failed")
        waiting = status.state in ("paused", "suspended") or ended
        show(self.pause, not waiting)
        show(self.unpause, waiting)
        gone = "" if status.alive else f"The run is {status.state}: it has no process that could do this."
        why_not = gone
        if not gone and status.state not in ("training", "paused"):
            why_not = f"It is {status.state}: this waits until it trains."
        paused = "It is paused: go on first." if status.state == "paused" else ""
        enable(self.pause, why_not, _PAUSE_TIP)
        enable(self.evaluate, why_not or paused, _EVALUATE_TIP)
        enable(self.save, why_not, _SAVE_TIP)
        enable(self.change, why_not, _CHANGE_TIP)
        enable(self.suspend, why_not, _SUSPEND_TIP)
        enable(self.apply, why_not, _APPLY_TIP)
        enable(self.stop, gone if status.state not in _STOPPABLE else "", _STOP_TIP)

    def _requester(self, kind, request):
        def send():
            self._requests.append(request())
            self.say(f"Asked the run to {kind}.")

        return self.guard(send)

    def _go_on(self):
        if self.run.status.alive:
            self._requests.append(self.run.unpause())
            self.say("Asked the run to go on.")
            return
        run = self.run
        self.unpause.disabled = True
        self.say(f"{run.name} is started again.")
        self.later(lambda: resume(run.path), lambda _: self._goes_on(run), lambda error: self._goes_on(None))

    def _goes_on(self, run):
        self.unpause.disabled, self._state = False, None
        if run is not None:
            self.say(f"{run.name} continues from its newest checkpoint.", "good")
            self._on_changed()

    def _toggle_change(self):
        show(self._changes, self._changes.layout.display == "none")

    def _show_values(self, step):
        """Show the values at this step; a field changes only when its value did, not while another one is typed."""
        stamp = file_stamp(self.run.folder.changes)
        stamp = stamp and (*stamp, step)  # before the first change all steps have the same values
        if self.holding and stamp == self._changes_stamp:
            return
        self._changes_stamp, before, self.holding = stamp, self.holding, _holding(self.run, self._config, step)
        for name, field in (("beta", self.beta), ("gamma_beta_ratio", self.ratio), ("learning_rate_scale", self.scale)):
            if self.holding[name] != before.get(name):
                field.value = self.holding[name]

    def _apply(self):
        wanted = {
            "beta": self.beta.value,
            "gamma_beta_ratio": self.ratio.value,
            "learning_rate_scale": self.scale.value,
        }
        changes = {name: value for name, value in wanted.items() if value != self.holding[name]}
        if not changes:
            self.say("Nothing is changed: the run already has these values.")
            return
        self._requests.append(self.run.set(**changes))
        values = ", ".join(f"{name} {value:g}" for name, value in changes.items())
        self.say(f"Asked for {values} from the next step on.")

    def _follow_requests(self):
        for request in list(self._requests):
            if request.state not in ("done", "refused"):
                continue
            self._requests.remove(request)
            refused = request.state == "refused"
            self.say(request.text or _DONE[request.kind] + ".", "error" if refused else "good")


def _number(description, step, width, description_width):
    """A field for a number; widths in pixels."""
    return ipywidgets.FloatText(
        description=description,
        step=step,
        layout={"width": f"{width}px"},
        style={"description_width": f"{description_width}px"},
    )


def _holding(run, config, step):
    """β, γ/β and the factor on the learning rate at a step: the run's configuration with its recorded changes."""
    scale = 1.0
    for record in read_changes(run.folder):
        if record["step"] <= step:
            config = checked_changes(config, record["changes"])
            scale = float(record["changes"].get("learning_rate_scale", scale))
    return {"beta": config.loss.beta, "gamma_beta_ratio": config.loss.gamma_beta_ratio, "learning_rate_scale": scale}
