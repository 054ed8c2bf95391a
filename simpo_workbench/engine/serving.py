"""A worker without training: it loads a model, or a tokenizer alone, and answers requests while they are needed."""

import contextlib
import shutil
import time
from collections.abc import Callable

from ..base import process
from ..base.errors import WorkbenchError, first_line
from ..base.files import read_json
from ..config.run_config import DataConfig, RunConfig
from ..pairs.pairs import load_pairs
from ..runs.folder import RunFolder
from ..runs.mailbox import CONTROL, Inbox, Request
from ..runs.presence import Presence
from ..runs.run import Run
from ..runs.verified import read_config, read_kept

_POLL_S = 0.05
_OPENER_POLL_S = 1.0


def serve(folder: RunFolder, presence: Presence) -> None:
    """Answer until a "close", until no request has come for `idle_s`, or until the process that opened the model has
    ended.
    """
    config, opened = read_config(folder), read_json(folder.origin) or {}
    with contextlib.ExitStack() as stack:
        if opened.get("tokens_only"):
            reply = _with_tokenizer(presence, config, opened.get("run"))
        else:
            reply = _with_model(presence, config, opened, stack)
        presence.write(state="paused", message="Ready.")  # alive, but idle until a request comes
        last_request = last_look = time.monotonic()
        while time.monotonic() - last_request < opened.get("idle_s", 600.0):
            for request in presence.inbox.take():
                if request.kind in ("close", "stop"):
                    presence.write(state="finished", message="Closed.")
                    presence.inbox.done(request, "Closed.")
                    return
                if request.kind in CONTROL:
                    sentence = f"This is an opened model and no training: it cannot {request.kind}."
                    presence.inbox.refuse(request, sentence)
                    continue
                reply(request)
                last_request = time.monotonic()
            if time.monotonic() - last_look > _OPENER_POLL_S:
                last_look = time.monotonic()
                if not folder.path.is_dir() or not process.is_alive(opened.get("opener")):
                    break
            time.sleep(_POLL_S)
    presence.write(state="finished", message="Closed: unused for a while, or the program that opened it has ended.")
    if not process.is_alive(opened.get("opener")):
        shutil.rmtree(folder.path, ignore_errors=True)  # otherwise the opener does it


def _with_model(presence, config, opened, stack) -> Callable[[Request], None]:
    """Load the model and return the function that answers requests; `stack` closes the model."""
    # torch and PEFT, which a tokenizer does without
    from . import replies
    from .forward import memory
    from .model import models

    presence.write(state="loading", message="Loading the model.")
    try:
        run = opened.get("run") and Run(RunFolder(opened["run"]))
        loaded = stack.enter_context(models.load_model(config.model, opened.get("adapter"), config.data, run))
    except Exception as error:
        message = first_line(error)
        if isinstance(error, WorkbenchError):
            message = str(error)
        elif memory.is_out_of_memory(error):
            message = (
                "There is not enough memory for the model in addition to what the device holds: close other models, or"
                " suspend the run."
            )
        presence.write(state="failed", message=message)
        raise
    return lambda request: replies.reply(presence.inbox, request, loaded, config)


def _with_tokenizer(presence, config, run) -> Callable[[Request], None]:
    """Load the tokenizer alone and return the function that answers requests."""
    presence.write(state="loading", message="Loading the tokenizer.")
    try:
        from .encode.template_values import values_of_folder
        from .model.tokenizer import model_folder, tokenizer_in

        model = model_folder(config.model, weights=False)
        tokenizer = tokenizer_in(model, config.model, config.data)
        values = values_of_folder(model, read_kept(RunFolder(run)) if run else None)
    except Exception as error:
        presence.write(state="failed", message=str(error) if isinstance(error, WorkbenchError) else first_line(error))
        raise
    return lambda request: _encode(presence.inbox, request, tokenizer, config, values)


def _encode(inbox: Inbox, request: Request, tokenizer, config: RunConfig, values):
    from .encode.pair_tokens import encode_pair

    if request.kind != "encode":
        inbox.refuse(
            request,
            f"Only the tokenizer of this model is open, without its weights: it can encode, but not {request.kind}."
            " Open the whole model with wb.open_model.",
        )
        return
    try:
        data = DataConfig.model_validate(request.values["data"]) if request.values.get("data") else config.data
        table = encode_pair(
            tokenizer,
            load_pairs(request.values.get("pairs", []), framed_prompts=data.framed_prompts),
            data,
            values,
        )
        inbox.done(request, table.attrs["report"], table=table)
    except WorkbenchError as error:
        inbox.refuse(request, str(error))
    except Exception as error:  # whatever a tokenizer raises must not end the process
        inbox.refuse(request, f"The request failed: {type(error).__name__}: {first_line(error)}.")
