"""What can be asked of a run while it trains: pause, evaluate, save, stop, and settings that change on the way."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets

from ...base.files import read_jsonl
from ...config.live_changes import checked_changes
from ...config.run_config import RunConfig
from ...runs.launch import resume
from ...runs.run import Reply, Run
from ..parts.html import Html
from ..parts.panel import Panel, button, column, enable, row, show

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
    """Buttons for a run. `update(status)` says what can be asked now.

    `holding`: β, γ/β and the factor on the learning rate as they are.
    """

    title = "Controls"

    def __init__(self, on_changed: Callable[[], None] = lambda: None, line: Html | None = None):
        super().__init__(line)
        self.run: Run | None = None
        self._requests: list[Reply] = []
        self._on_changed, self._state, self._kept, self.holding = on_changed, None, None, {}
        ask = self._asker
        self.pause = button(
            "Pause", ask("pause", lambda: self.run.pause()), "pause", "Wait after this step; the model stays in memory"
        )
        self.unpause = button("Go on", self.guard(self._go_on), "play", "Go on from here")
        self.suspend = button(
            "Free the memory",
            ask("suspend", lambda: self.run.suspend()),
            "eject",
            "Save a checkpoint, end the process; Go on starts it again",
        )
        self.evaluate = button(
            "Evaluate now",
            ask("evaluate", lambda: self.run.evaluate()),
            "check",
            "Score the held-out pairs and answer the sample prompts after this step",
        )
        self.save = button(
            "Save checkpoint", ask("save", lambda: self.run.save()), "save", "Save a checkpoint after this step"
        )
        self.change = button(
            "Change while training…",
            self.guard(self._toggle_change),
            "sliders",
            "β, γ/β and the learning rate, from the next step on",
        )
        self.stop = button(
            "Stop and save",
            ask("stop", lambda: self.run.stop()),
            "stop",
            "End after this step, with adapter and checkpoint",
            "danger",
        )
        # no bounds here: a field that bends a number would ask for something that nobody typed; the request itself is
        # checked, in words
        self.beta = ipywidgets.FloatText(
            description="β", step=0.1, layout={"width": "150px"}, style={"description_width": "30px"}
        )
        self.ratio = ipywidgets.FloatText(
            description="γ/β", step=0.05, layout={"width": "150px"}, style={"description_width": "30px"}
        )
        self.scale = ipywidgets.FloatText(
            description="learning rate ×", step=0.1, layout={"width": "210px"}, style={"description_width": "100px"}
        )
        self.apply = button("Apply", self.guard(self._apply), "", "Applies after the step that runs now", "primary")
        words = (
            "A change of β or γ/β changes the objective: loss and rewards before and after it do not compare, margins"
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

    def attach(self, run: Run | None, config: RunConfig | None = None):
        """Control this run, which began with this configuration."""
        self.run, self._config, self._requests, self._state, self._kept, self.holding = run, config, [], None, None, {}
        show(self._changes, False)
        if config is not None:
            show(self.ratio, config.loss.kind != "dpo")  # without γ in its loss there is none to change
            self._show_values(0)

    def update(self, status):
        """Enable what can be asked in this state, and say what came of earlier requests."""
        self._follow_requests()
        self._show_values(status.step)
        if (status.state, status.alive) == self._state:
            return
        self._state = (status.state, status.alive)
        waiting = status.state in ("paused", "suspended") or (
            not status.alive and status.state in ("stopped", "failed")
        )
        show(self.pause, not waiting)
        show(self.unpause, waiting)
        gone = "" if status.alive else f"The run is {status.state}: nobody is there to ask."
        early = gone or (
            "" if status.state in ("training", "paused") else f"It is {status.state}: this waits until it trains."
        )
        paused = "It is paused: go on first." if status.state == "paused" else ""
        enable(self.pause, early, "Wait after this step; the model stays in memory")
        enable(self.evaluate, early or paused, "Score the held-out pairs and answer the sample prompts after this step")
        enable(self.save, early, "Save a checkpoint after this step")
        enable(self.change, early, "β, γ/β and the learning rate, from the next step on")
        enable(self.suspend, early, "Save a checkpoint, end the process; Go on starts it again")
        enable(self.apply, early, "Applies after the step that runs now")
        enable(
            self.stop,
            gone if status.state not in _STOPPABLE else "",
            "End after this step, with adapter and checkpoint",
        )

    def _asker(self, kind, ask):
        def asked():
            self._requests.append(ask())
            self.say(f"Asked the run to {'go on' if kind == 'unpause' else kind}.")

        return self.guard(asked)

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
            self.say(f"{run.name} goes on from its newest checkpoint.", "good")
            self._on_changed()

    def _toggle_change(self):
        show(self._changes, self._changes.layout.display == "none")

    def _show_values(self, step):
        """What holds at this step; a field changes when that does, not while somebody types another value."""
        try:
            found = self.run.folder.changes.stat()
            kept = (found.st_mtime_ns, found.st_size, step)
        except OSError:
            kept = None
        if self.holding and kept == self._kept:
            return
        self._kept, before, self.holding = kept, self.holding, _holding(self.run, self._config, step)
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
            self.say("Nothing is changed: the fields say what holds already.")
            return
        self._requests.append(self.run.set(**changes))
        self.say(
            f"Asked for {', '.join(f'{name} {value:g}' for name, value in changes.items())} from the next step on."
        )

    def _follow_requests(self):
        for request in list(self._requests):
            if request.state not in ("done", "refused"):
                continue
            self._requests.remove(request)
            refused = request.state == "refused"
            self.say(request.text or _DONE[request.kind] + ".", "error" if refused else "good")


def _holding(run, config, step):
    """β, γ/β and the factor on the learning rate at a step: what the run began with, and its own record of what was
    changed on the way.
    """
    scale = 1.0
    for record in read_jsonl(run.folder.changes):
        if record["step"] <= step:
            config = checked_changes(config, record["changes"])
            scale = float(record["changes"].get("learning_rate_scale", scale))
    return {"beta": config.loss.beta, "gamma_beta_ratio": config.loss.gamma_beta_ratio, "learning_rate_scale": scale}
