"""A script that renders one chat template under limits of time and memory, in an isolated process of its own.

`template_check` runs it. The Jinja environment is made as transformers makes it, so that the same template text means
the same here. Reads JSON from standard input (template, variables); its verdict is {"refused": reason or null}. It
imports the standard library and Jinja2 only, so that it starts in a tenth of a second.
"""

import itertools
import json
import sys
from datetime import datetime

LIMITS = (3, 512 * 1024**2)  # seconds of processor time, bytes
MOST_CHARACTERS = 4_000_000  # of one rendered conversation; the longest one below has about 20 000

_LONG = "What is the capital of France? " * 200
_TURNS = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi, <b>you</b>."},
    {"role": "user", "content": _LONG},
]
CONVERSATIONS = (
    [{"role": "user", "content": "x"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}],
    [{"role": "user", "content": "x"}, {"role": "assistant", "content": "Zebra quartz"}],
    _TURNS,
    [{"role": "system", "content": "Be brief."}, *_TURNS, {"role": "assistant", "content": _LONG}],
    [*_TURNS[:2] * 12, _TURNS[0]],
)


def main() -> None:
    sys.path += sys.argv[1:]
    from process_limits import answer_within

    task = json.load(sys.stdin)
    environment, security_error = _environment()
    answer_within(
        *LIMITS, lambda: {"refused": _refusal(environment, security_error, task["template"], task["variables"])}
    )


def _refusal(environment, security_error, text, variables):
    """Why a template cannot be used, as the rest of a sentence; None where it can.

    Errors that a template raises itself, such as Gemma's on system turns, are no reason: rendering reports them.
    """
    variables = {"tools": None, "documents": None, **variables}
    try:
        template = environment.from_string(text)
        for messages, add_generation_prompt in itertools.product(CONVERSATIONS, (True, False)):
            values = {**variables, "messages": messages, "add_generation_prompt": add_generation_prompt}
            size = 0
            try:
                for part in template.generate(**values):
                    size += len(part)
                    if size > MOST_CHARACTERS:
                        return f"writes more than {MOST_CHARACTERS:,} characters for a short conversation"
            except (MemoryError, OverflowError, RecursionError, security_error):
                raise
            except Exception:  # raise_exception or an undefined name
                continue
    except security_error as error:
        return f"accesses what no template may access ({str(error)[:120]})"
    except OverflowError:
        return "loops or counts without bounds"
    except (MemoryError, RecursionError):
        raise
    except Exception:  # a syntax error: rendering reports it with line and reason
        return None
    return None


def _environment():
    """(sandbox, its SecurityError): extensions, filters and globals as in transformers.utils.chat_template_utils."""
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """{% generation %} … {% endgeneration %} marks the assistant's text; here it is only its content."""

        tags = {"generation"}  # noqa: RUF012 (as Jinja's extensions declare it)

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

        def _content(self, caller):
            return caller()

    def raise_exception(message):
        raise TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment, SecurityError


if __name__ == "__main__":
    main()
