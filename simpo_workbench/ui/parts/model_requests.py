"""Questions of panels to models in other processes: asked at once, watched by the kernel's one thread, never waited for
in a click.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from ...base.errors import WorkbenchError
from ...config.run_config import DataConfig, ModelConfig
from ...runs.remote import RemoteModel, open_model
from ...runs.run import Run
from .following import LOCK, in_background
from .panel import Panel

#: More opened models than this are not kept: the one that was asked longest ago, and is not answering, is closed.
#: Tokenizers alone count among themselves.
MOST_OPEN = 2
_IDLE_S = 600.0


class OpenModels:
    """Models that panels of this kernel have opened, each in a process of its own and shared between the panels."""

    def __init__(self):
        self._open: OrderedDict[tuple, RemoteModel] = OrderedDict()
        self.answering: list[RemoteModel] = []

    def of(
        self, model: ModelConfig, data: DataConfig, adapter: Path | None = None, tokens_only: bool = False
    ) -> RemoteModel:
        """The model with these settings, opened now or before. tokens_only: its tokenizer alone, which is there at
        once.
        """
        key = (model.model_dump_json(), data.chat_template, _stamp(adapter), tokens_only)
        found = self._open.pop(key, None)
        if found is None or not found.run.status.alive:
            if found is not None:
                in_background(found.close, lambda _: None, lambda error: None)  # it has left; so will its folder
            self._make_room(tokens_only)
            found = open_model(model, adapter, data, idle_s=_IDLE_S, tokens_only=tokens_only)
        self._open[key] = found
        return found

    def of_run(self, run: Run, step: int | None = None) -> RemoteModel:
        """The model of a run: with the adapter kept at `step`, or as it is now (while it trains, its own worker
        answers). Its base is the untrained model.
        """
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
        """Close all of them, in the background, and free their memory."""
        with LOCK:
            models, self._open = list(self._open.values()), OrderedDict()
        for model in models:
            in_background(model.close, lambda _: None, lambda error: None)


OPEN_MODELS = OpenModels()


class ModelRequest:
    """One question on its way: `done(table)` or `failed(error)` is called as a handler of the panel,
    `waiting(sentence)` while it waits; `cancel()` takes it back.
    """

    def __init__(
        self,
        panel: Panel,
        model: RemoteModel,
        kind: str,
        done: Callable,
        waiting: Callable[[str], None] | None = None,
        failed: Callable | None = None,
        **values,
    ):
        self._panel, self._model, self._waiting = panel, model, waiting or (lambda sentence: None)
        self._done, self._failed, self._cancelled = done, failed or (lambda error: None), False
        self._question = model.ask(kind, **values)
        OPEN_MODELS.answering.append(model)
        self._follower = panel.follow(self._look, 0.2)

    def cancel(self):
        """Nobody waits for the answer any more."""
        self._cancelled = True
        self._end()
        in_background(self._question.cancel, lambda _: None, self._panel.say_error)

    def _look(self):
        try:
            waits = self._question.state in ("asked", "acknowledged") and (status := self._model.run.status).alive
        except Exception as error:
            self._end()
            self._failed(error)
            raise
        if waits:
            self._waiting(
                "Loading the model …"
                if status.state == "loading"
                else "Waiting for the step to end …"
                if status.state == "training"
                else "Answering …"
            )
            return
        self._end()
        self._panel.later(
            self._answer,
            lambda table: self._cancelled or self._done(table),
            lambda error: self._cancelled or self._failed(error),
        )

    def _answer(self):
        try:
            return self._question.result(timeout_s=5)
        except (WorkbenchError, TimeoutError, OSError):
            status = self._model.run.status
            if status.state == "failed":  # why the process ended says more than that nobody answers
                raise WorkbenchError(status.message) from None
            raise

    def _end(self):
        self._follower.stop()
        if self._model in OPEN_MODELS.answering:
            OPEN_MODELS.answering.remove(self._model)


def _stamp(adapter):
    """Which adapter this is: another one may come to stand at the same path."""
    if adapter is None:
        return None
    path = Path(adapter).expanduser().resolve()
    try:
        found = (path / "adapter_model.safetensors").stat()
    except OSError:
        return str(path), None
    return str(path), found.st_mtime_ns, found.st_size, found.st_ino
