"""Requests of panels to models in other processes, watched by the kernel's one thread: no click waits for them."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...base.errors import WorkbenchError
from ...config.run_config import DataConfig, ModelConfig
from ...runs.remote import RemoteModel, open_model
from ...runs.run import Run
from ...runs.verified import read_kept
from .following import LOCK, in_background
from .panel import Panel

#: No more opened models than this are kept: the least recently used one that is not busy is closed. Tokenizers without
#: weights are counted separately.
MOST_OPEN = 2
_IDLE_S = 600.0


class OpenModels:
    """Models that panels of this kernel have opened, each in a process of its own and shared between the panels.

    `busy` lists those with a request under way.
    """

    def __init__(self):
        self._open: OrderedDict[tuple, RemoteModel] = OrderedDict()
        self.busy: list[RemoteModel] = []

    def of(
        self,
        model: ModelConfig,
        data: DataConfig,
        adapter: Path | None = None,
        tokens_only: bool = False,
        run: Run | None = None,
    ) -> RemoteModel:
        """The model with these settings, opened now or before. tokens_only and run: as in `wb.open_model`."""
        kept = json.dumps(read_kept(run.folder)) if run else None
        key = (model.model_dump_json(), data.chat_template, _stamp(adapter), kept, tokens_only)
        remote = self._open.pop(key, None)
        if remote is not None and not remote.run.status.alive:
            _close(remote)  # its process has ended; this removes its folder
            remote = None
        if remote is None:
            self._make_room(tokens_only)
            remote = open_model(model, adapter, data, idle_s=_IDLE_S, tokens_only=tokens_only, run=run)
        self._open[key] = remote
        return remote

    def of_run(self, run: Run, step: int | None = None) -> RemoteModel:
        """The model of a run with the adapter kept at `step` (0: the base model), or as it is now.

        While a run trains, its own worker replies for the model as it is now.
        """
        if step is None:
            if run.status.alive:
                return open_model(run)
            adapter = run.adapter
        else:
            adapter = run.adapter_at(step) if step else None
        config = run.config
        return self.of(config.model, config.data, adapter, run=run)

    def close(self) -> None:
        """Close all of them, in the background, and free their memory."""
        with LOCK:
            models, self._open = list(self._open.values()), OrderedDict()
        for remote in models:
            _close(remote)

    def _make_room(self, tokens_only):
        idle = [key for key, remote in self._open.items() if key[-1] == tokens_only and remote not in self.busy]
        for key in idle[: max(0, len(idle) + 1 - MOST_OPEN)]:
            _close(self._open.pop(key))


OPEN_MODELS = OpenModels()


class ModelRequest:
    """A panel's request to a model, which is opened first if need be.

    Handlers of the panel, none of which is called after `cancel()`: `done(table)`, `failed(error)`, also when `done`
    raises, and until then `waiting(sentence)` several times a second. The error is shown in the panel's line too.
    opens: returns the model, opened now or before. kind and values: as in `RemoteModel.ask`.
    """

    def __init__(
        self,
        panel: Panel,
        opens: Callable[[], RemoteModel],
        kind: str,
        done: Callable[[Any], Any],
        failed: Callable[[Exception], Any],
        waiting: Callable[[str], Any],
        **values,
    ):
        self._panel, self._opens, self._kind, self._values = panel, opens, kind, values
        self._done, self._failed, self._waiting = done, failed, waiting
        self._cancelled, self._model, self._reply, self._follower = False, None, None, None
        panel.later(self._open, self._failing(self._ask), failed, latest=self)

    def cancel(self) -> None:
        """Withdraw the request; nothing that it still brings is shown."""
        self._cancelled = True
        self._panel.drop(self)
        if self._reply is not None:
            self._end()
            in_background(self._reply.cancel, lambda _: None, self._panel.say_error)

    def _open(self):
        with LOCK:  # panels share the opened models
            return None if self._cancelled else self._opens()

    def _ask(self, model):
        self._model, self._reply = model, model.ask(self._kind, **self._values)
        OPEN_MODELS.busy.append(model)
        self._follower = self._panel.follow(self._failing(self._look), 0.2)

    def _look(self):
        status = self._model.run.status
        if status.alive and self._reply.state in ("asked", "acknowledged"):
            sentences = {"loading": "Loading the model …", "training": "Waiting for the step to end …"}
            self._waiting(sentences.get(status.state, "Answering …"))
            return
        self._end()
        self._panel.later(self._table, self._failing(self._done), self._failed, latest=self)

    def _table(self):
        try:
            return self._reply.result(timeout_s=5)
        except (WorkbenchError, TimeoutError, OSError):
            status = self._model.run.status
            if status.state == "failed":  # why the process ended says more than that no reply came
                raise WorkbenchError(status.message) from None
            raise

    def _failing(self, step):
        """`step`, which ends the request and calls `failed` before its error goes on to be shown."""

        def tried(*args):
            try:
                step(*args)
            except Exception as error:
                self._end()
                self._failed(error)
                raise

        return tried

    def _end(self):
        if self._follower is not None:
            self._follower.stop()
        if self._model in OPEN_MODELS.busy:
            OPEN_MODELS.busy.remove(self._model)


def _close(remote):
    in_background(remote.close, lambda _: None, lambda error: None)


def _stamp(adapter):
    """Identity of an adapter file, so that a replacement at the same path is noticed."""
    if adapter is None:
        return None
    path = Path(adapter).expanduser().resolve()
    try:
        weights = (path / "adapter_model.safetensors").stat()
    except OSError:
        return str(path), None
    return str(path), weights.st_mtime_ns, weights.st_size, weights.st_ino
