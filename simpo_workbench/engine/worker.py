"""The process that a run, an opened model or a preflight lives in: `python -m simpo_workbench.engine.worker RUN_FOLDER
[--resume | --serve | --preflight]`.
"""

import contextlib
import shutil
import signal
import sys
import time
from collections.abc import Callable

from ..base import process
from ..base.errors import WorkbenchError, first_line
from ..base.files import read_json, write_json
from ..base.redaction import redact_output
from ..config.run_config import RunConfig
from ..runs.device_queue import DeviceQueue
from ..runs.folder import LIVE_STATES, RunFolder
from ..runs.mailbox import MODEL_REQUESTS
from ..runs.presence import Presence
from .interruption import StopAsked

_QUEUE_POLL_S = 0.5


def main(arguments: list[str]) -> int:
    """Exit status: 0 for a run that ended in order, 1 for one that failed; status.json says why."""
    folder, asked = RunFolder(arguments[0]), StopAsked()
    signal.signal(
        signal.SIGTERM, lambda number, frame: asked.interrupt(frame)
    )  # until training brings its own way to stop in order
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until there is somebody who writes down what it did
    try:
        with Presence(folder, "worker") as presence:
            try:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
                _live(folder, presence, arguments, asked)
            except BaseException as error:
                if asked.at_once and not isinstance(error, KeyboardInterrupt):  # what a library made of it
                    error = KeyboardInterrupt()
                _last_word(presence, error)
                raise error from None
    except (WorkbenchError, KeyboardInterrupt) as error:
        print(str(error) or "Interrupted.", file=sys.stderr, flush=True)
        return 1
    return 0


def _live(folder, presence, arguments, asked):
    if "--serve" in arguments:
        from .serving import serve

        asked.check()
        serve(folder, presence)
        return
    queue = DeviceQueue()  # has the device for as long as it lives
    if "--preflight" in arguments:
        opener = (read_json(folder.origin) or {}).get("opener")
        _preflight(folder, presence, asked, queue, lambda: folder.path.is_dir() and process.is_alive(opener))
        return
    if wait_for_device(folder, presence, queue):
        from .training import run_training  # loads torch: a run that waits does without

        asked.check()
        run_training(folder, presence, resume="--resume" in arguments)
        queue.release()


def _preflight(folder, presence, asked, queue, wanted):
    """Measure, unless `wanted()` says that the program which asked is gone: then nothing of it is left."""

    def progress(sentence):
        asked.check()
        if not wanted():
            raise KeyboardInterrupt
        presence.write(message=sentence)

    try:
        if wait_for_device(folder, presence, queue, wanted):
            from .preflight import preflight

            asked.check()
            write_json(folder.preflight, preflight(RunConfig.from_yaml(folder.config), progress).as_dict())
            presence.write(state="finished", message="Measured.")
    finally:
        if not wanted():
            shutil.rmtree(folder.path, ignore_errors=True)


def _last_word(presence, error):
    """Whatever ended the process outside of training stands in its status, not only in its log."""
    if presence.status.get("state") not in LIVE_STATES:
        return
    if isinstance(error, KeyboardInterrupt):
        words = {
            "state": "stopped",
            "message": (
                f"Interrupted before it trained; `simpo-workbench resume {presence.folder.name}` goes on with it."
            ),
        }
    else:
        words = {
            "state": "failed",
            "message": (
                str(error) if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {first_line(error)}"
            ),
        }
    with contextlib.suppress(WorkbenchError):  # a full disk must not hide the error itself
        presence.write(**words)


def wait_for_device(
    folder: RunFolder, presence: Presence, queue: DeviceQueue, wanted: Callable[[], bool] = lambda: True
) -> bool:
    """Wait as `queued` until the device is this run's; False when somebody says stop before, or it is not `wanted()`
    any more.
    """
    ticket, said = queue.enter(folder.path, folder.name), None
    try:
        while not queue.take(ticket):
            if not wanted():
                return False
            for request in presence.inbox.take(MODEL_REQUESTS):
                presence.inbox.refuse(request, f"The run has no model yet. {said or 'It waits for its device.'}")
            stops = presence.inbox.take(("stop",))  # other orders wait for the first step
            if stops:
                presence.write(
                    state="stopped",
                    message=(
                        "Cancelled while it waited for its device; `simpo-workbench resume` puts it back into the"
                        " queue."
                    ),
                )
                for request in stops:
                    presence.inbox.done(request, "Cancelled.")
                return False
            message = _waits_for(queue, ticket)
            if message != said:
                presence.write(state="queued", message=message, queue=queue.device)
                said = message
            time.sleep(_QUEUE_POLL_S)
    finally:
        queue.leave(ticket)
    return True


def _waits_for(queue, ticket):
    holder, waiting = queue.holder(), queue.waiting()
    place = 1 + next((index for index, one in enumerate(waiting) if one.path == ticket.path), len(waiting))
    return (
        f"Waits for {queue.device}, which the run {holder['name'] if holder else '?'!r} has; place {place} of"
        f" {len(waiting)}."
    )


if __name__ == "__main__":
    redact_output()  # all of it goes into log.txt
    sys.exit(main(sys.argv[1:]))
