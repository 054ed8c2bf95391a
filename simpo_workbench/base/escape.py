"""Foreign text made harmless, in one place: text from data, models, names and errors passes here before it becomes
markup.

HTML pages escape on their own (Jinja2 with autoescape); what is left are plotly's labels and JSON inside a page.
"""

import html
import textwrap

_TURNS = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd")
_SCRIPT_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def escape(text) -> str:
    """Text for an HTML element or a quoted attribute."""
    return html.escape(str(text), quote=True)


def one_way(text: str) -> str:
    """A name that cannot turn around the words after it: marks that change the direction of writing are replaced."""
    return text.translate(_TURNS)


def plotly_text(text, width: int = 60, most: int = 300) -> str:
    """Text for a plotly label or hover box, where <b>, <a>, $ … would be markup: escaped, cut after `most` characters,
    wrapped at `width`.
    """
    text = " ".join(str(text).split())
    text = text if len(text) <= most else text[: most - 1] + "…"
    return "<br>".join(
        html.escape(line, quote=False).replace("$", "&#36;") for line in textwrap.wrap(one_way(text), width)
    )  # plotly does not know &quot;


def json_for_script(json_text: str) -> str:
    """JSON text that may stand inside <script>: no `</script>`, no `<!--`, and the same value when it is parsed."""
    return "".join(_SCRIPT_ESCAPES.get(character, character) for character in json_text)
