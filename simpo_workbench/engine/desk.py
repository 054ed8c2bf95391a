"""Requests to a run while it trains: taken between two steps, done, and replied to.

Changes of settings are recorded in changes.jsonl, so that a resumed run makes them again.
"""

from ..base.errors import WorkbenchError
from ..base.files import append_jsonl
from ..base.format import counted
from ..runs.mailbox import CONTROL, MODEL_REQUESTS, Request
from ..runs.verified import read_changes
from . import replies
from .recorder import Recorder
from .setup import Settings, Setup

_OPPOSITE = {"pause": "unpause", "unpause": "pause"}


class Desk:
    """Takes the requests of a run: `take` after every step, `done` for what the loop has done.

    settings: those that hold for the next step.
    """

    def __init__(self, recorder: Recorder, setup: Setup):
        self.recorder, self.presence, self.setup = recorder, recorder.presence, setup
        self.settings = Settings(setup.config)
        self._changes = read_changes(recorder.folder)
        self._waiting: list[Request] = []

    def restore(self, step: int) -> None:
        """Make all changes that hold at the checkpoint of this step; their events were recorded when they were made."""
        for past in self._changes:
            if past["step"] <= step:
                self.settings = self.settings.changed(past["changes"])

    def replay(self, step: int) -> None:
        """Make the changes again that were made after this step before the run was interrupted and went back to an
        earlier checkpoint.
        """
        for past in self._changes:
            if past["step"] == step:
                self.settings = self.settings.changed(past["changes"])
                self._record_change(past["changes"], step, " (again, as before the interruption)")

    def take(self, step: int) -> set[str]:
        """The kinds of requests that wait for the loop after this step.

        Settings are changed and requests to the model are answered here and now.
        """
        for request in self.presence.inbox.take(CONTROL):
            if request.kind == "set":
                self._set(request, step)
                continue
            if request.kind in _OPPOSITE:  # of a pause and an unpause within one step the later one counts
                self.done(_OPPOSITE[request.kind], f"Cancelled by the {request.kind} that followed.")
            self._waiting.append(request)
        for request in self.presence.inbox.take(MODEL_REQUESTS):
            if request.kind == "close":
                self.presence.inbox.refuse(request, "A run that trains is not closed: stop it.")
            else:
                replies.reply(self.presence.inbox, request, self.setup.loaded, self.settings.config, step)
                self.presence.write()  # a long answer is not a stall
        return {request.kind for request in self._waiting}

    def done(self, kind: str, text: str) -> None:
        """Reply to the waiting requests of a kind that they are done; `save` and `evaluate` are recorded as events, so
        that charts can mark them.
        """
        done = [request for request in self._waiting if request.kind == kind]
        self._waiting = [request for request in self._waiting if request.kind != kind]
        step = self.presence.status["step"]
        if done and kind in ("save", "evaluate"):
            self.recorder.event(step, f"{kind}d", f"{text.removesuffix('.')}, on request.")
        for request in done:
            self.presence.inbox.done(request, text, step=step)

    def _set(self, request, step):
        try:
            settings = self.settings.changed(request.values)
            self.setup.require_room_for_answers(settings.config.generation)
        except WorkbenchError as error:
            self.presence.inbox.refuse(request, str(error))
            return
        # recorded before it holds: whatever happens next, the run and its resumed self do the same
        change = {"step": step, "changes": request.values}
        try:
            append_jsonl(self.recorder.folder.changes, change, patience=self.recorder.patience)
        except OSError as error:
            reason = f"The change cannot be recorded, so it is not made: {error.strerror}. Ask again later."
            self.presence.inbox.refuse(request, reason)
            return
        self._changes.append(change)
        self.settings = settings
        self.presence.inbox.done(request, self._record_change(request.values, step), step=step)

    def _record_change(self, changes, step, remark=""):
        """The sentence of the event that is recorded."""
        values = ", ".join(f"{name} = {_shown(value)}" for name, value in changes.items())
        sentence = f"After step {step}: {values}{remark}."
        # the objective holds from here on, also before the next step or evaluation names it
        loss = self.settings.config.loss
        objective = {"beta": loss.beta, "gamma_beta_ratio": loss.target_margin / loss.beta}
        is_new = {"beta", "gamma", "gamma_beta_ratio"} & set(changes)
        self.recorder.event(step, "set", sentence, changes=changes, **(objective if is_new else {}))
        return sentence


def _shown(value):
    return counted(len(value), "prompt") if isinstance(value, list) else f"{value:g}"
