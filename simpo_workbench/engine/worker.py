"""The process of a run, an opened model or a preflight.

python -m simpo_workbench.engine.worker RUN_FOLDER [--resume | --serve | --preflight]
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
from ..runs.device_queue import DeviceQueue
from ..runs.folder import LIVE_STATES, RunFolder
from ..runs.mailbox import MODEL_REQUESTS
from ..runs.presence import Presence
from ..runs.verified import read_config
from .interruption import StopSignal

_QUEUE_POLL_S = 0.5
#: Request that takes a waiting run out of the queue -> (its state then, message, reply).
_LEAVES = {
    "stop": ("stopped", "Cancelled while it waited for its device", "Cancelled."),
    "suspend": ("suspended", "Suspended while it waited for its device", "Suspended: it has left the queue."),
}


def main(arguments: list[str]) -> int:
    """Exit status: 0 for a run that ended in order, 1 for one that failed; status.json says why."""
    folder, stop = RunFolder(arguments[0]), StopSignal()
    # until training handles it in its own way
    signal.signal(signal.SIGTERM, lambda number, frame: stop.interrupt(frame))
    # until its effect can be written to the status
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with Presence(folder, "worker") as presence:
            try:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
                _work(folder, presence, arguments, stop)
            except BaseException as error:
                if stop.at_once and not isinstance(error, KeyboardInterrupt):  # a library turned it into its own error
                    error = KeyboardInterrupt()
                _write_error(presence, error)
                raise error from None
    except (WorkbenchError, KeyboardInterrupt) as error:
        print(str(error) or "Interrupted.", file=sys.stderr, flush=True)
        return 1
    return 0


def _work(folder, presence, arguments, stop):
    if "--serve" in arguments:
        from .serving import serve

        stop.check()
        serve(folder, presence)
        return
    queue = DeviceQueue()  # holds the device for as long as it lives
    if "--preflight" in arguments:
        _preflight(folder, presence, stop, queue)
    elif wait_for_device(folder, presence, queue):
        from .training import run_training  # loads torch, which a waiting run does without

        stop.check()
        run_training(folder, presence, resume="--resume" in arguments)
        queue.release()


def _preflight(folder, presence, stop, queue):
    """Measure; once the program that asked for it has ended, delete the folder and end too."""
    opener = (read_json(folder.origin) or {}).get("opener")

    def is_wanted():
        return folder.path.is_dir() and process.is_alive(opener)

    def progress(sentence):
        stop.check()
        if not is_wanted():
            raise KeyboardInterrupt
        presence.write(message=sentence)

    try:
        if wait_for_device(folder, presence, queue, is_wanted):
            from .preflight import preflight

            stop.check()
            write_json(folder.preflight, preflight(read_config(folder), progress).as_dict())
            presence.write(state="finished", message="Measured.")
    finally:
        if not is_wanted():
            shutil.rmtree(folder.path, ignore_errors=True)


def _write_error(presence, error):
    """Write what ended the process outside of training to its status, so that it is not only in the log."""
    if presence.status.get("state") not in LIVE_STATES:
        return
    message = str(error) if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {first_line(error)}"
    with contextlib.suppress(WorkbenchError):  # a full disk must not hide the error itself
        if isinstance(error, KeyboardInterrupt):
            message = f"Interrupted before it trained; `simpo-workbench resume {presence.folder.name}` continues it."
            presence.write(state="stopped", message=message)
        else:
            presence.fail(message)


def wait_for_device(
    folder: RunFolder, presence: Presence, queue: DeviceQueue, is_wanted: Callable[[], bool] = lambda: True
) -> bool:
    """Wait in state `queued` until this run has the device: True; False once it is stopped or no longer wanted."""
    ticket, message = queue.enter(folder.path, folder.name), ""
    try:
        while not queue.take(ticket):
            if not is_wanted():
                return False
            position = _position(queue, ticket)
            if position != message:
                message = position
                presence.write(state="queued", message=message, queue=queue.device)
            if _answer_while_waiting(presence, message):
                return False
            time.sleep(_QUEUE_POLL_S)
    finally:
        queue.leave(ticket)
    return True


def _answer_while_waiting(presence, message):
    """Reply to all requests to a run that waits for its device; whether one of them takes it out of the queue."""
    inbox = presence.inbox
    for request in inbox.take((*MODEL_REQUESTS, "save", "evaluate")):
        inbox.refuse(request, f"The run has no model yet. {message}")
    inbox.acknowledge(("pause", "unpause", "set"), f"Comes after its first step. {message}")
    leaving = inbox.take(tuple(_LEAVES))
    if leaving:
        state, text, outcome = _LEAVES[leaving[0].kind]
        presence.write(state=state, message=f"{text}; `simpo-workbench resume` puts it back into the queue.")
        for request in leaving:
            inbox.done(request, outcome)
    return bool(leaving)


def _position(queue, ticket):
    holder, waiting = queue.holder(), queue.waiting()
    paths = [other.path for other in waiting]
    place = 1 + (paths.index(ticket.path) if ticket.path in paths else len(paths))
    name = holder["name"] if holder else "?"
    return f"Waits for {queue.device}, which the run {name!r} has; place {place} of {len(waiting)}."


if __name__ == "__main__":
    redact_output()  # all of it goes into log.txt
    sys.exit(main(sys.argv[1:]))
