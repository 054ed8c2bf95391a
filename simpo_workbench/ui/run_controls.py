"""What can be asked of a run while it trains: pause, evaluate, save, stop, and settings that change on the way."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets

from ..changes import LARGEST_SCALE
from ..files import records_from_the_end
from ..launch import resume
from ..runs import Request, Run
from .html import Html
from .panel import Panel, button, column, enable, row, show

_STOPPABLE = ("training", "paused", "scoring", "loading", "queued")
_DONE = {"pause": "Paused", "resume": "Goes on", "stop": "Stopping", "suspend": "Suspended", "save": "Saved", "evaluate": "Evaluated", "set": "Changed"}


class RunControls(Panel):
    """Buttons for a run. `update(status, record)` says what can be asked now; `record` is the newest training record, with β and γ/β as they are."""

    title = "Controls"

    def __init__(self, on_changed: Callable[[], None] = lambda: None, line: Html | None = None):
        super().__init__(line)
        self.run: Run | None = None
        self._requests: list[Request] = []
        self._on_changed, self._state, self._shown, self.learning_rate_scale = on_changed, None, None, 1.0
        ask = self._asker
        self.pause = button("Pause", ask("pause", lambda: self.run.pause()), "pause", "Wait after this step; the model stays in memory")
        self.unpause = button("Go on", self.guard(self._go_on), "play", "Go on from here")
        self.suspend = button("Free the memory", ask("suspend", lambda: self.run.suspend()), "eject", "Save a checkpoint, end the process; Go on starts it again")
        self.evaluate = button("Evaluate now", ask("evaluate", lambda: self.run.evaluate()), "check", "Score the held-out pairs and answer the sample prompts after this step")
        self.save = button("Save checkpoint", ask("save", lambda: self.run.save()), "save", "Save a checkpoint after this step")
        self.change = button("Change while training…", self.guard(self._toggle_change), "sliders", "β, γ/β and the learning rate, from the next step on")
        self.stop = button("Stop and save", ask("stop", lambda: self.run.stop()), "stop", "End after this step, with adapter and checkpoint", "danger")
        self.beta = ipywidgets.BoundedFloatText(description="β", min=0.01, max=1000, step=0.1, layout={"width": "150px"}, style={"description_width": "30px"})
        self.ratio = ipywidgets.BoundedFloatText(description="γ/β", min=0, max=100, step=0.05, layout={"width": "150px"}, style={"description_width": "30px"})
        self.scale = ipywidgets.BoundedFloatText(description="learning rate ×", value=1.0, min=0, max=LARGEST_SCALE, step=0.1, layout={"width": "210px"}, style={"description_width": "100px"})
        self.apply = button("Apply", self.guard(self._apply), "", "Applies after the step that runs now", "primary")
        words = (
            "A change of β or γ/β changes the objective: loss and rewards before and after it do not compare, margins in nats per token do, and the charts say "
            "“objective changed”. The learning rate is multiplied by its factor from the next step on; 1 is the configured rate."
        )
        self._changes = column(row(self.beta, self.ratio, self.scale, self.apply), Html(words, layout={"max_width": "900px"}))
        self._changes.add_class("swb-notice")
        show(self._changes, False)
        left = row(self.pause, self.unpause, self.evaluate, self.save, self.change, self.suspend)
        self.compose(row(left, self.stop, classes="swb-spread"), self._changes)

    def attach(self, run: Run | None, has_gamma: bool = True):
        """Control this run; without γ in its loss there is none to change."""
        self.run, self._requests, self._state, self._shown, self.learning_rate_scale = run, [], None, None, 1.0
        self.scale.value = 1.0
        show(self.ratio, has_gamma)
        show(self._changes, False)

    def update(self, status, record: dict):
        """Enable what can be asked in this state, and say what came of earlier requests."""
        self._follow_requests()
        self._show_values(status.step, record)
        if (status.state, status.alive) == self._state:
            return
        self._state = (status.state, status.alive)
        waiting = status.state in ("paused", "suspended") or (not status.alive and status.state in ("stopped", "failed"))
        show(self.pause, not waiting)
        show(self.unpause, waiting)
        gone = "" if status.alive else f"The run is {status.state}: nobody is there to ask."
        early = gone or ("" if status.state in ("training", "paused") else f"It is {status.state}: this waits until it trains.")
        paused = "It is paused: go on first." if status.state == "paused" else ""
        enable(self.pause, early, "Wait after this step; the model stays in memory")
        enable(self.evaluate, early or paused, "Score the held-out pairs and answer the sample prompts after this step")
        enable(self.save, early, "Save a checkpoint after this step")
        enable(self.change, early, "β, γ/β and the learning rate, from the next step on")
        enable(self.suspend, early, "Save a checkpoint, end the process; Go on starts it again")
        enable(self.apply, early, "Applies after the step that runs now")
        enable(self.stop, gone if status.state not in _STOPPABLE else "", "End after this step, with adapter and checkpoint")

    def _asker(self, kind, ask):
        def asked():
            self._requests.append(ask())
            self.say(f"Asked the run to {'go on' if kind == 'resume' else kind}.")

        return self.guard(asked)

    def _go_on(self):
        if self.run.status.alive:
            self._requests.append(self.run.unpause())
            self.say("Asked the run to go on.")
            return
        resume(self.run.path)
        self.say(f"{self.run.name} goes on from its newest checkpoint.", "good")
        self._on_changed()

    def _toggle_change(self):
        show(self._changes, self._changes.layout.display == "none")

    def _show_values(self, step, record):
        """What holds now; a field changes when that does, not while somebody types another value."""
        scale = _scale_at(self.run, step)
        if scale != self.learning_rate_scale:
            self.learning_rate_scale = self.scale.value = scale
        now = tuple(record.get(name) for name in ("beta", "gamma_beta_ratio"))
        if None in now or now == self._shown:
            return
        self._shown = now
        self.beta.value, self.ratio.value = now

    def _apply(self):
        now = dict(zip(("beta", "gamma_beta_ratio"), self._shown or (None, None), strict=True))
        wanted = {"beta": self.beta.value, "gamma_beta_ratio": self.ratio.value}
        changes = {name: value for name, value in wanted.items() if value != now[name]}
        if self.scale.value != self.learning_rate_scale:
            changes["learning_rate_scale"] = self.scale.value
        if not changes:
            self.say("Nothing is changed: the fields say what holds already.")
            return
        self._requests.append(self.run.set(**changes))
        self.say(f"Asked for {', '.join(f'{name} {value:g}' for name, value in changes.items())} from the next step on.")

    def _follow_requests(self):
        for request in list(self._requests):
            if request.state not in ("done", "refused"):
                continue
            self._requests.remove(request)
            refused = request.state == "refused"
            self.say(request.text or _DONE[request.kind] + ".", "error" if refused else "good")


def _scale_at(run, step):
    """The factor on the learning rate that holds at a step, by the run's own record of what was changed on the way."""
    made = (record["changes"] for record in records_from_the_end(run.folder.changes) if record["step"] <= step)
    return float(next((changes["learning_rate_scale"] for changes in made if "learning_rate_scale" in changes), 1.0))
