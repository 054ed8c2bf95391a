"""A chat template is a program that comes with a model: each is tried in a limited process before it is used here.

Jinja's sandbox keeps a template away from files and modules, but does not stop it from using all memory or from looping
without end. Because constants are computed while a template is compiled, even compiling it can do that.
"""

import functools
import json

from ...base.errors import WorkbenchError
from ..trial import limited_process
from . import template_probe

LONGEST_TEMPLATE = 1_000_000  # characters; the longest in use have about 50 000
PATIENCE_S = 20.0  # wall-clock time; `template_probe.LIMITS` counts processor time
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
    task = {"template": text, "variables": json.loads(variables)}
    what, doing = "The chat template", "for a short conversation"
    verdict = limited_process.verdict(
        template_probe.__file__, task, ("jinja2", "markupsafe"), template_probe.LIMITS, PATIENCE_S, what, doing
    )
    return verdict.get("refused")
