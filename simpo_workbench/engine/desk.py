"""What is asked of a run while it trains: taken between steps, done, and answered.

Changes of settings are kept, so that a resumed run makes them again.
"""

from dataclasses import dataclass

from ..base.errors import WorkbenchError
from ..base.files import append_jsonl, read_jsonl
from ..config.live_changes import checked_changes
from ..runs.folder import RunFolder
from ..runs.mailbox import CONTROL, MODEL_REQUESTS, Request
from ..runs.presence import Presence
from . import answering
from .recorder import Recorder
from .setup import Setup, sample_prompts

_OPPOSITE = {"pause": "unpause", "unpause": "pause"}


@dataclass(frozen=True)
class Orders:
    """What is to be done after a step. requests: those that still want an answer."""

    requests: tuple[Request, ...] = ()

    def __contains__(self, kind):
        return any(request.kind == kind for request in self.requests)


class Desk:
    """Takes requests for a run: `orders(step)` at every step boundary."""

    def __init__(self, folder: RunFolder, presence: Presence, setup: Setup, recorder: Recorder):
        self.folder, self.presence, self.setup, self.recorder = folder, presence, setup, recorder
        self._kept = read_jsonl(folder.changes)

    def restore(self, step: int):
        """Make all changes that hold at the checkpoint of this step; they were recorded when they were made."""
        for kept in self._kept:
            if kept["step"] <= step:
                apply_changes(self.setup, kept["changes"])

    def replay(self, step: int):
        """Make the changes again that were made after this step, before the run was interrupted and went back to a
        checkpoint.
        """
        for kept in self._kept:
            if kept["step"] == step:
                self._apply(kept["changes"], step, "again, as before the interruption")

    def orders(self, step: int) -> Orders:
        """What was asked since the last look.

        Settings are changed here and now; questions are answered; the rest is the loop's.
        """
        waiting = []
        for request in self.presence.inbox.take(CONTROL):
            if request.kind == "set":
                self._set(request, step)
                continue
            if request.kind in _OPPOSITE:  # whoever changes his mind within a step means what he said last
                for earlier in [one for one in waiting if one.kind == _OPPOSITE[request.kind]]:
                    self.presence.inbox.done(
                        earlier, f"Taken back by the {request.kind} that came after it.", step=step
                    )
                    waiting.remove(earlier)
            waiting.append(request)
        self.answer_questions()
        return Orders(tuple(waiting))

    def answer_questions(self):
        """Answer what was asked of the model as it is now."""
        for request in self.presence.inbox.take(MODEL_REQUESTS):
            if request.kind == "close":
                self.presence.inbox.refuse(request, "A run that trains is not closed: stop it.")
            else:
                answering.answer(self.presence.inbox, request, self.setup.loaded, self.setup.config)
                self.presence.write()  # a long answer is no stall

    def done(self, orders: Orders, kind: str, text: str):
        """Tell everybody who asked for it that it is done; what leaves no event of its own gets one here, so that
        charts can mark it.
        """
        step = self.presence.status["step"]
        if kind in ("save", "evaluate") and kind in orders:
            self.recorder.event(step, f"{kind}d", f"{text.removesuffix('.')}, as somebody asked.")
        for request in orders.requests:
            if request.kind == kind:
                self.presence.inbox.done(request, text, step=step)

    def _set(self, request, step):
        try:
            checked_changes(self.setup.config, request.values)
        except WorkbenchError as error:
            self.presence.inbox.refuse(request, str(error))
            return
        # kept before it is done: whatever happens next, the run and its resumed self do the same
        kept = {"step": step, "changes": request.values}
        append_jsonl(self.folder.changes, kept)
        self._kept.append(kept)
        sentence = self._apply(request.values, step, "")
        self.presence.inbox.done(request, sentence, step=step)

    def _apply(self, changes, step, why):
        apply_changes(self.setup, changes)
        sentence = (
            f"After step {step}:"
            f" {', '.join(f'{name} = {_shown(value)}' for name, value in changes.items())}{f' ({why})' if why else ''}."
        )
        self.recorder.event(step, "set", sentence, changes=changes)
        return sentence


def apply_changes(setup: Setup, changes: dict):
    """Change the settings of a training between two steps."""
    setup.config = checked_changes(setup.config, changes)
    if "prompts" in changes:
        setup.prompts = sample_prompts(setup.config, setup.held_out, setup.held_out_pairs)
    if "learning_rate_scale" in changes:
        setup.learning_rate_scale = float(changes["learning_rate_scale"])
        setup.set_rates()


def _shown(value):
    return f"{len(value)} prompts" if isinstance(value, list) else f"{value:g}"
