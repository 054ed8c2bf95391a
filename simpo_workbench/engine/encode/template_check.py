"""A chat template is a program that comes with a model: each is tried in a limited process before it is used here.

Jinja's sandbox keeps a template away from files and modules, but does not stop it from using all memory or from looping
without end. Because constants are computed while a template is compiled, even compiling it can do that.
"""

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

from ...base.errors import WorkbenchError, first_line
from . import template_probe

LONGEST_TEMPLATE = 1_000_000  # characters; the longest in use have about 50 000
PATIENCE_S = 20.0  # wall-clock time; `template_probe.CPU_S` counts processor time
_MOST_OUTPUT_BYTES = 10_000
_REMEDY = "Choose another with data.chat_template, or another model."


def require_bounded_template(tokenizer, options: dict) -> None:
    """Raise WorkbenchError unless the tokenizer's chat template renders short conversations within time and memory.

    options: what else the template is given, such as enable_thinking. Results are cached, so a second check costs
    nothing.
    """
    try:
        text = tokenizer.get_chat_template()
    except (ValueError, TypeError) as error:
        raise WorkbenchError(
            f"The model {tokenizer.name_or_path!r} has no usable chat template: {str(error).split('. ')[0][:200]}."
            f" {_REMEDY}"
        ) from None
    if not isinstance(text, str) or len(text) > LONGEST_TEMPLATE:
        what = f"{len(text):,} characters" if isinstance(text, str) else f"a {type(text).__name__}"
        raise WorkbenchError(
            f"The chat template is {what}, expected a text of at most {LONGEST_TEMPLATE:,} characters. {_REMEDY}"
        )
    variables = json.dumps({**tokenizer.special_tokens_map, **options}, sort_keys=True, default=str)
    reason = _why_refused(text, variables)
    if reason:
        raise WorkbenchError(f"The chat template {reason}: it is not used. {_REMEDY}")


@functools.lru_cache(maxsize=64)
def _why_refused(text: str, variables: str) -> str | None:
    """Why the probe refuses a template, as the rest of a sentence; None for a good one."""
    # -I and -S: the user's environment and start-up files have no effect; Jinja2 is the one of this process
    command = [sys.executable, "-I", "-S", template_probe.__file__, *_folders_of("jinja2", "markupsafe")]
    # nothing else is passed on: this process's environment may hold access tokens
    passed_on = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
    environment = {name: os.environ[name] for name in passed_on if name in os.environ}
    task = json.dumps({"template": text, "variables": json.loads(variables)})
    try:
        result = subprocess.run(command, input=task.encode(), capture_output=True, env=environment, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return f"is not done after {PATIENCE_S:.0f} s"
    except OSError as error:
        raise WorkbenchError(
            f"The chat template cannot be tried: no process can be started ({error.strerror}). Free some memory and do"
            " it again."
        ) from None
    ready, _, verdict = result.stdout[:_MOST_OUTPUT_BYTES].decode(errors="replace").partition("\n")
    if ready != template_probe.READY:
        errors = result.stderr.decode(errors="replace").strip().splitlines() or ["it printed no error"]
        raise WorkbenchError(f"The chat template cannot be tried in a process of its own: {first_line(errors[-1])}.")
    try:
        return json.loads(verdict).get("refused")
    except ValueError:  # a limit ended the process before its verdict
        return (
            f"needs more than {template_probe.CPU_S} s of processor time or {template_probe.MEMORY_BYTES // 1024**2} MB"
            " for a short conversation"
        )


def _folders_of(*packages):
    """The folders that the packages are installed in, each once."""
    return list(dict.fromkeys(str(Path(importlib.util.find_spec(package).origin).parents[1]) for package in packages))
