"""A worker without training: it loads a model, or its tokenizer alone, and answers questions until nobody needs it any
more.
"""

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

_POLL_S = 0.05
_OPENER_POLL_S = 1.0


def serve(folder: RunFolder, presence: Presence):
    """Answer until "close", until nothing was asked for `idle_s`, or until the process that opened the model is
    gone.
    """
    config, opened = RunConfig.from_yaml(folder.config), read_json(folder.origin) or {}
    with contextlib.ExitStack() as stack:
        answer = (
            _tokens_alone(presence, config)
            if opened.get("tokens_only")
            else _whole_model(presence, config, opened.get("adapter"), stack)
        )
        presence.write(state="paused", message="Ready.")  # alive, and nothing moves by itself
        last = looked = time.monotonic()
        while time.monotonic() - last < opened.get("idle_s", 600.0):
            for request in presence.inbox.take():
                if request.kind in ("close", "stop"):
                    presence.write(state="finished", message="Closed.")
                    presence.inbox.done(request, "Closed.")
                    return
                if request.kind in CONTROL:
                    presence.inbox.refuse(
                        request, f"This is an opened model and no training: it cannot {request.kind}."
                    )
                    continue
                answer(request)
                last = time.monotonic()
            if time.monotonic() - looked > _OPENER_POLL_S:
                looked = time.monotonic()
                if not folder.path.is_dir() or not process.is_alive(opened.get("opener")):
                    break
            time.sleep(_POLL_S)
    presence.write(state="finished", message="Closed: nobody asked for a while, or the program that opened it is gone.")
    if not process.is_alive(opened.get("opener")):
        shutil.rmtree(folder.path, ignore_errors=True)  # nobody else will


def _whole_model(presence, config, adapter, stack) -> Callable[[Request], None]:
    """Loads the model, which `stack` closes; returns what answers a request."""
    from . import answering
    from .forward import memory
    from .model import models  # torch and PEFT, which a tokenizer does without

    presence.write(state="loading", message="Loading the model.")
    try:
        loaded = stack.enter_context(models.load_model(config.model, adapter=adapter, data=config.data))
    except Exception as error:
        short = memory.is_out_of_memory(error)
        message = (
            "There is not enough memory for the model beside what the device holds: close other models, or suspend the"
            " run."
            if short
            else first_line(error)
        )
        presence.write(state="failed", message=str(error) if isinstance(error, WorkbenchError) else message)
        raise
    return lambda request: answering.answer(presence.inbox, request, loaded, config)


def _tokens_alone(presence, config) -> Callable[[Request], None]:
    """Loads the tokenizer; returns what answers a request."""
    presence.write(state="loading", message="Loading the tokenizer.")
    try:
        from .model.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(config.model, config.data)
    except Exception as error:
        presence.write(state="failed", message=str(error) if isinstance(error, WorkbenchError) else first_line(error))
        raise
    return lambda request: _encode(presence.inbox, request, tokenizer, config)


def _encode(inbox: Inbox, request: Request, tokenizer, config: RunConfig):
    from .encode.pair_tokens import encode_pair

    if request.kind != "encode":
        inbox.refuse(
            request,
            f"Only the tokenizer of this model is open, without its weights: it can encode, but not {request.kind}. Open"
            " the whole model with wb.open_model.",
        )
        return
    try:
        data = DataConfig.model_validate(request.values["data"]) if request.values.get("data") else config.data
        table = encode_pair(tokenizer, load_pairs(request.values.get("pairs", [])), data)
        inbox.done(request, table.attrs["report"], table=table)
    except WorkbenchError as error:
        inbox.refuse(request, str(error))
    except Exception as error:  # whatever a tokenizer raises: the next question may be a better one
        inbox.refuse(request, f"The question failed: {type(error).__name__}: {first_line(error)}.")
