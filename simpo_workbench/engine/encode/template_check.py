"""Chat templates are programs that come with a model: each is tried once, in a process with limits, before it is
compiled or rendered here.

Jinja's sandbox keeps a template away from files and modules, but not from all of the memory or from a loop that never
ends; and because constants are computed while a template is compiled, compiling alone can do it.
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
PATIENCE_S = 20.0  # by the clock, where `template_probe.CPU_S` counts processor time
_MOST_OUTPUT_BYTES = 10_000
_REMEDY = "Choose another with data.chat_template, or another model."


def require_bounded_template(tokenizer, options: dict):
    """Nothing, when a tokenizer's chat template renders some conversations within seconds and half a gigabyte; asked
    again, it costs nothing.

    options: what the template is given besides, such as enable_thinking. Errors: WorkbenchError in one sentence.
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
    why = _why_refused(text, json.dumps({**tokenizer.special_tokens_map, **options}, sort_keys=True, default=str))
    if why:
        raise WorkbenchError(f"The chat template {why}: it is not used. {_REMEDY}")


@functools.lru_cache(maxsize=64)
def _why_refused(text: str, variables: str) -> str | None:
    """What the probe says against a template; None for a good one."""
    # -I and -S: neither the user's environment nor any start-up file has a say; Jinja2 is the one that this process has
    command = [sys.executable, "-I", "-S", template_probe.__file__, *_folders_of("jinja2", "markupsafe")]
    # a name that is not set is not passed on: tokens in this process's environment are no business of a template
    environment = {
        name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ
    }
    asked = json.dumps({"template": text, "variables": json.loads(variables)})
    try:
        done = subprocess.run(command, input=asked.encode(), capture_output=True, env=environment, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return f"is not done after {PATIENCE_S:.0f} s"
    except OSError as error:
        raise WorkbenchError(
            f"The chat template cannot be tried: no process can be started ({error.strerror}). Free some memory and do"
            " it again."
        ) from None
    ready, _, answer = done.stdout[:_MOST_OUTPUT_BYTES].decode(errors="replace").partition("\n")
    if ready != template_probe.READY:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise WorkbenchError(f"The chat template cannot be tried in a process of its own: {first_line(said[-1])}.")
    try:
        return json.loads(answer).get("refused")
    except ValueError:  # the limits ended it in the middle
        return (
            f"needs more than {template_probe.CPU_S} s of processor time or {template_probe.MEMORY_BYTES // 1024**2} MB"
            " for a short conversation"
        )


def _folders_of(*packages):
    """The folders that hold some packages, each once."""
    return list(dict.fromkeys(str(Path(importlib.util.find_spec(package).origin).parents[1]) for package in packages))
