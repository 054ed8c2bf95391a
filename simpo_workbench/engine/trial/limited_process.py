"""The parent's side of a trial: what comes from strangers is first read by a script in a limited process of its own.

In the process that trains, or in the user's kernel, a text that takes all time or memory could not be stopped.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

from ...base.errors import WorkbenchError, first_line
from . import process_limits

_MOST_OUTPUT_BYTES = 10_000


def verdict(script, task: dict, libraries, limits: tuple[int, int], patience_s: float, what: str, doing: str) -> dict:
    """What a script says of a task: {"refused": the rest of a sentence or None}, and what else it answers.

    script: a file that reads the task as JSON from standard input and ends in `process_limits.answer_within`.
    libraries: the packages that it imports. limits: its seconds of processor time and bytes. patience_s: wall-clock
    time. what, doing: of sentences such as "<what> needs more than 20 s <doing>". Errors: WorkbenchError when the
    process cannot be started, or ends before it is ready.
    """
    # the libraries are those of this process; the shared file comes last, so that its folder hides no library
    folders = [str(Path(importlib.util.find_spec(library).origin).parents[1]) for library in libraries]
    folders.append(str(Path(process_limits.__file__).parent))
    # -I and -S: the user's environment and start-up files have no effect
    command = [sys.executable, "-I", "-S", str(script), *dict.fromkeys(folders)]
    # nothing else is passed on: this process's environment may hold access tokens
    passed_on = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
    environment = {name: os.environ[name] for name in passed_on if name in os.environ}
    # no threads, which the limits forbid, no GPU, and no network
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
    environment |= {"TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    try:
        result = subprocess.run(
            command, input=json.dumps(task).encode(), capture_output=True, env=environment, timeout=patience_s
        )
    except subprocess.TimeoutExpired:
        return {"refused": f"needs more than {patience_s:.0f} s {doing}"}
    except OSError as error:
        raise WorkbenchError(
            f"{what} cannot be tried: no process can be started ({error.strerror}). Free some memory and do it again."
        ) from None
    ready, _, answer = result.stdout[:_MOST_OUTPUT_BYTES].decode(errors="replace").partition("\n")
    errors = result.stderr.decode(errors="replace").strip().splitlines() or ["it printed no error"]
    if ready != process_limits.READY:
        raise WorkbenchError(f"{what} cannot be tried in a process of its own: {first_line(errors[-1])}.")
    try:
        return json.loads(answer)
    except ValueError:  # a limit or an error ended the process before its verdict
        return {"refused": _why_it_ended(result.returncode, errors[-1], limits, doing)}


def _why_it_ended(returncode, last_error, limits, doing):
    if "retry-limit" in last_error:  # the tokenizers' own bound on one search, which ends the process
        return "has a regular expression that goes back and forth without bounds"
    if returncode == 1 and "MemoryError" not in last_error:
        return f"cannot be read ({first_line(last_error)})"
    cpu_s, memory = limits
    return f"needs more than {cpu_s} s of processor time or {memory // 1024**2} MB {doing}"
