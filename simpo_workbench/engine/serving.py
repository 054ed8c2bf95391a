"""A worker without training: it loads a model and answers questions until nobody needs it any more."""

import shutil
import time

from .. import process
from ..config import RunConfig
from ..errors import WorkbenchError, first_line
from ..files import read_json
from ..mailbox import CONTROL
from ..run_folder import RunFolder
from . import answering, memory, models
from .presence import Presence

_POLL_S = 0.05
_OPENER_POLL_S = 1.0


def serve(folder: RunFolder, presence: Presence):
    """Answer until "close", until nothing was asked for `idle_s`, or until the process that opened the model is gone."""
    config, opened = RunConfig.from_yaml(folder.config), read_json(folder.origin) or {}
    presence.write(state="loading", message="Loading the model.")
    try:
        loaded = models.load_model(config.model, adapter=opened.get("adapter"), data=config.data)
    except Exception as error:
        short = memory.is_out_of_memory(error)
        message = "There is not enough memory for the model beside what the device holds: close other models, or suspend the run." if short else first_line(error)
        presence.write(state="failed", message=str(error) if isinstance(error, WorkbenchError) else message)
        raise
    presence.write(state="paused", message="Ready.")  # alive, and nothing moves by itself
    with loaded:
        last = looked = time.monotonic()
        while time.monotonic() - last < opened.get("idle_s", 600.0):
            for letter in presence.post.take():
                if letter.kind in ("close", "stop"):
                    presence.write(state="finished", message="Closed.")
                    presence.post.done(letter, "Closed.")
                    return
                if letter.kind in CONTROL:
                    presence.post.refuse(letter, f"This is an opened model and no training: it cannot {letter.kind}.")
                    continue
                answering.answer(presence.post, letter, loaded, config)
                last = time.monotonic()
            if time.monotonic() - looked > _OPENER_POLL_S:
                looked = time.monotonic()
                if not folder.path.is_dir() or not process.is_alive(opened.get("opener")):
                    break
            time.sleep(_POLL_S)
    presence.write(state="finished", message="Closed: nobody asked for a while, or the program that opened it is gone.")
    if not process.is_alive(opened.get("opener")):
        shutil.rmtree(folder.path, ignore_errors=True)  # nobody else will
