"""The process that a run, or an opened model, lives in: `python -m simpo_workbench.engine.worker RUN_FOLDER [--resume | --serve]`."""

import signal
import sys
import time

from ..device_queue import DeviceQueue
from ..errors import WorkbenchError
from ..mailbox import QUESTIONS
from ..redaction import redact_output
from ..run_folder import RunFolder
from .presence import Presence

_QUEUE_POLL_S = 0.5


def main(arguments: list[str]) -> int:
    """Exit status: 0 for a run that ended in order, 1 for one that failed; status.json says why."""
    folder = RunFolder(arguments[0])
    try:
        with Presence(folder, "worker") as presence:
            if "--serve" in arguments:
                from .serving import serve

                serve(folder, presence)
                return 0
            queue = DeviceQueue()
            if wait_for_device(folder, presence, queue):
                from .training import run_training  # loads torch: a run that waits does without

                run_training(folder, presence, resume="--resume" in arguments)
    except (WorkbenchError, KeyboardInterrupt) as error:
        print(error or "Interrupted.", file=sys.stderr, flush=True)
        return 1
    return 0


def wait_for_device(folder: RunFolder, presence: Presence, queue: DeviceQueue) -> bool:
    """Wait as `queued` until the device is this run's; False when somebody says stop before."""
    ticket, said = queue.enter(folder.path, folder.name), None
    previous = signal.signal(signal.SIGTERM, _leave)
    try:
        while not queue.take(ticket):
            for letter in presence.post.take(("stop", *QUESTIONS)):  # the rest waits for the first step
                if letter.kind == "stop":
                    return _cancel(presence, letter)
                presence.post.refuse(letter, f"The run has no model yet. {said or 'It waits for its device.'}")
            message = _waits_for(queue, ticket)
            if message != said:
                presence.write(state="queued", message=message)
                said = message
            time.sleep(_QUEUE_POLL_S)
    except KeyboardInterrupt:
        return _cancel(presence, None)
    finally:
        signal.signal(signal.SIGTERM, previous)
        queue.leave(ticket)
    return True


def _cancel(presence, letter):
    presence.write(state="stopped", message="Cancelled while it waited for its device; `simpo-workbench resume` puts it back into the queue.")
    if letter is not None:
        presence.post.done(letter, "Cancelled.")
    return False


def _waits_for(queue, ticket):
    holder, waiting = queue.holder(), queue.waiting()
    place = 1 + next((index for index, one in enumerate(waiting) if one.path == ticket.path), len(waiting))
    return f"Waits for {queue.device}, which the run {holder['name'] if holder else '?'!r} has; place {place} of {len(waiting)}."


def _leave(number, frame):
    raise KeyboardInterrupt


if __name__ == "__main__":
    redact_output()  # all of it goes into log.txt
    sys.exit(main(sys.argv[1:]))
