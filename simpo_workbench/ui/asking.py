"""Questions of panels to models in other processes: asked at once, watched by the kernel's one thread, never waited for in a click."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from ..config import DataConfig, ModelConfig
from ..errors import WorkbenchError
from ..remote import RemoteModel, open_model
from ..runs import Run
from .following import LOCK, follow, in_background
from .panel import Panel

#: More opened models than this are not kept: the one that was asked longest ago, and is not answering, is closed. Tokenizers alone count among themselves.
MOST_OPEN = 2
_IDLE_S = 600.0


class OpenModels:
    """Models that panels of this kernel have opened, each in a process of its own and shared between the panels."""

    def __init__(self):
        self._open: OrderedDict[tuple, RemoteModel] = OrderedDict()
        self.answering: list[RemoteModel] = []

    def of(self, model: ModelConfig, data: DataConfig, adapter: Path | None = None, tokens_only: bool = False) -> RemoteModel:
        """The model with these settings, opened now or before. tokens_only: its tokenizer alone, which is there at once."""
        key = (model.model_dump_json(), data.chat_template, str(adapter), tokens_only)
        found = self._open.pop(key, None)
        if found is None or not found.run.status.alive:
            self._make_room(tokens_only)
            found = open_model(model, adapter, data, idle_s=_IDLE_S, tokens_only=tokens_only)
        self._open[key] = found
        return found

    def of_run(self, run: Run, step: int | None = None) -> RemoteModel:
        """The model of a run: with the adapter kept at `step`, or as it is now (while it trains, its own worker answers). Its base is the untrained model."""
        if step is None and run.status.alive:
            return open_model(run)
        config = run.config
        adapter = run.adapter if step is None else run.adapter_at(step) if step else None
        return self.of(config.model, config.data, adapter)

    def _make_room(self, tokens_only):
        alike = [key for key, model in self._open.items() if key[-1] == tokens_only and model not in self.answering]
        for key in alike[: max(0, len(alike) + 1 - MOST_OPEN)]:
            in_background(self._open.pop(key).close, lambda _: None, lambda error: None)

    def close(self):
        """Close all of them and free their memory."""
        with LOCK:
            models, self._open = list(self._open.values()), OrderedDict()
        for model in models:
            model.close()


OPEN_MODELS = OpenModels()


class Asking:
    """One question on its way: `done(table)` or `failed(error)` is called as a handler of the panel, `waiting(sentence)` while it waits; `cancel()` takes it back."""

    def __init__(self, panel: Panel, model: RemoteModel, kind: str, done: Callable, waiting: Callable[[str], None] | None = None, failed: Callable | None = None, **values):
        self._panel, self._model, self._waiting = panel, model, waiting or (lambda sentence: None)
        self._done, self._failed = panel.guard(done), panel.guard(failed) if failed else None
        self._question = model.ask(kind, **values)
        OPEN_MODELS.answering.append(model)
        self._follower = follow(self._look, 0.2)

    def cancel(self):
        """Nobody waits for the answer any more."""
        self._end()
        in_background(self._question.cancel, lambda _: None, self._panel.say_error)

    def _look(self):
        state = self._question.state
        if state in ("asked", "acknowledged"):
            status = self._model.run.status
            if status.alive:
                self._waiting("Loading the model …" if status.state == "loading" else "Waiting for the step to end …" if status.state == "training" else "Answering …")
                return
        self._end()
        try:
            table = self._question.result(timeout_s=5)
        except (WorkbenchError, TimeoutError, OSError) as unanswered:
            status = self._model.run.status
            error = WorkbenchError(status.message) if status.state == "failed" else unanswered  # why the process ended says more than that nobody answers
            if self._failed:
                self._failed(error)
            self._panel.say_error(error)
        else:
            self._done(table)

    def _end(self):
        self._follower.stop()
        if self._model in OPEN_MODELS.answering:
            OPEN_MODELS.answering.remove(self._model)
