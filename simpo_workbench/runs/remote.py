"""A model in another process, which answers requests through a run's folder, so that a kernel never loads a model."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..base import process
from ..base.errors import WorkbenchError
from ..base.files import read_json, write_json
from ..config.run_config import DataConfig, GenerationConfig, LossConfig, ModelConfig, RunConfig
from ..config.schema import Section
from ..pairs.data_sets import as_pairs
from ..pairs.frames import STRUCTURED
from ..pairs.pairs import prompt_list
from .folder import RunFolder
from .launch import launch
from .mailbox import REPLIED
from .reply import Reply
from .run import Run
from .status import is_own_worker

if TYPE_CHECKING:
    import pandas as pd

_POLL_S = 0.05
_CLOSING_S = 20.0


class RemoteModel:
    """A model that another process has loaded: a run's that trains, or one opened by `wb.open_model`.

    Its methods wait for the reply and return the same DataFrames as `wb.generate`, `wb.score`, `wb.explain_pair` and
    `wb.encode_pair`. Errors: WorkbenchError when the request is refused or the process is gone. `ask` returns a
    TableReply at once instead, which can be cancelled.
    """

    def __init__(self, run: Run, own: bool):
        self.run, self._own, self._closed = run, own, False

    def __repr__(self):
        return f"RemoteModel({self.run.name!r}, {'closed' if self._closed else self.run.status.state})"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def generate(
        self, prompts, generation: GenerationConfig | None = None, data: DataConfig | None = None, seed: int = 0
    ) -> pd.DataFrame:
        """Answers of the base and the tuned model, as `wb.generate`."""
        prompts = prompt_list(prompts)
        return self.ask("generate", prompts=prompts, generation=generation, data=data, seed=seed).result()

    def score(self, pairs, loss: LossConfig | None = None, data: DataConfig | None = None) -> pd.DataFrame:
        """One row per pair, as `wb.score`."""
        return self.ask("score", pairs=_rows(pairs), loss=loss, data=data).result()

    def explain_pair(self, pair, data: DataConfig | None = None) -> pd.DataFrame:
        """One row per scored token, as `wb.explain_pair`."""
        return self.ask("explain", pairs=_rows(pair), data=data).result()

    def encode_pair(self, pair, data: DataConfig | None = None) -> pd.DataFrame:
        """One row per token, as `wb.encode_pair`."""
        return self.ask("encode", pairs=_rows(pair), data=data).result()

    def ask(self, kind: str, **values) -> TableReply:
        """The TableReply of a new request, at once: `reply.result()` waits, `reply.cancel()` takes the request back.

        kind: generate (prompts, generation, data, seed), score (pairs as rows, loss, data), explain or encode (pairs:
        one row in a list, data); sections such as GenerationConfig are given as they are. Example:
        `model.ask("generate", prompts=["Hi"], generation=wb.GenerationConfig(max_new_tokens=20))`.
        """
        if self._closed:
            raise WorkbenchError("This model is closed: open it again with wb.open_model.")
        values = {name: value.model_dump() if isinstance(value, Section) else value for name, value in values.items()}
        status = self.run.status
        if not status.alive:
            raise WorkbenchError(f"The model cannot be asked to {kind}: {status.message}")
        return TableReply(self.run, kind, self.run.folder.mailbox.ask(kind, **values))

    def ready(self, timeout_s: float | None = None) -> RemoteModel:
        """Itself, once the model is loaded. Errors: WorkbenchError when it could not be; TimeoutError."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while (status := self.run.status).state in ("queued", "loading"):
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"The model is not loaded after {timeout_s:g} s.")
            time.sleep(_POLL_S)
        if not status.alive:
            raise WorkbenchError(status.message)
        return self

    def close(self) -> None:
        """End the process of an opened model and free its memory; a run goes on."""
        if not self._own or self._closed:
            return
        self._closed = True
        if self.run.status.alive:
            self.run.folder.mailbox.ask("close")
            if is_own_worker(self.run.folder, raw := read_json(self.run.folder.status) or {}):
                process.kill_after(raw["process"], _CLOSING_S)
        shutil.rmtree(self.run.path, ignore_errors=True)


class TableReply(Reply):
    """The reply to a request to a model in another process, which may still be pending."""

    _table = None

    def result(self, timeout_s: float | None = None) -> pd.DataFrame:
        """The reply's DataFrame, once it is there; attrs["step"] is the step after which a run that trains replied.

        Errors: WorkbenchError when it was refused or the process is gone; TimeoutError.
        """
        if self._table is None:
            try:
                self.wait(timeout_s)
            except KeyboardInterrupt:
                self.cancel()
                raise
            table = self.run.folder.mailbox.table(self._request)
            table.attrs["report"] = self.text
            if self.step is not None:
                table.attrs["step"] = self.step
            self.run.folder.mailbox.forget(self._request)
            self._table = table
        return self._table

    def cancel(self) -> bool:
        """Whether the request was cancelled unread; a model that generates already stops at its next token."""
        if self.state in REPLIED:
            return False
        self._last = {"state": "refused", "text": "The request was cancelled."}
        return self.run.folder.mailbox.withdraw(self._request)


def open_model(
    model: ModelConfig | Run | None = None,
    adapter: str | Path | None = None,
    data: DataConfig | None = None,
    idle_s: float = 600.0,
    tokens_only: bool = False,
    run: Run | None = None,
) -> RemoteModel:
    """A model in a process of its own, still loading when this returns, so that the kernel stays free.

    model: settings of a model (default: the demo's), or a Run: one that trains replies itself, between steps; of one
    that ended, model and final adapter are opened. The process ends after `idle_s` seconds without a request, with this
    program, or at `close()`. tokens_only: the tokenizer alone, without weights, which can only encode.
    run: whose day and thinking the chat template takes where the run has ended; that of the adapter is known without.
    """
    if isinstance(model, (str, Path)):
        raise WorkbenchError(
            f"wb.open_model takes a run (wb.attach({str(model)!r})) or the settings of a model"
            f" (wb.ModelConfig(name={str(model)!r}))."
        )
    if isinstance(model, Run):
        if model.status.alive:
            return RemoteModel(model, own=False)
        run = model
        adapter = model.adapter if adapter is None else adapter
        data = data or model.config.data
        model = model.config.model
    config = RunConfig(model=model or ModelConfig(), data=data or DataConfig())
    folder = RunFolder(tempfile.mkdtemp(prefix="simpo-workbench-model-"))
    config.to_yaml(folder.config)
    write_json(
        folder.origin,
        {
            "adapter": None if adapter is None else str(Path(adapter).expanduser().resolve()),
            "idle_s": idle_s,
            "tokens_only": tokens_only,
            "run": None if run is None else str(run.path.resolve()),
            "opener": process.identify(),
        },
    )
    return RemoteModel(launch(folder, "--serve"), own=True)


def _rows(pairs) -> list[dict]:
    """Pairs as rows that `load_pairs` reads back: messages, answers, tools and the user's own columns."""
    return [
        {
            **_plain(pair.extra),
            "prompt": list(pair.prompt),
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            **{name: value for name in STRUCTURED if (value := getattr(pair, name))},
        }
        for pair in as_pairs(pairs)
    ]


def _plain(extra):
    return {
        name: value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
        for name, value in extra.items()
    }
