"""Escaping, in one place: text from data, models, names and errors passes through here before it becomes markup.

The report's template escapes on its own (Jinja2 with autoescape); plotly's labels and JSON inside a page are left.
"""

import html
import textwrap

_DIRECTION_MARKS = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd")
_SCRIPT_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def escape(text) -> str:
    """The text, escaped for an HTML element or a quoted attribute."""
    return html.escape(str(text), quote=True)


def one_way(text: str) -> str:
    """The text with its bidirectional control characters replaced, so that it cannot reverse the text after it."""
    return text.translate(_DIRECTION_MARKS)


def plotly_text(text, width: int = 60, most: int = 300) -> str:
    """The text for a plotly label or hover box: escaped, cut after `most` characters, wrapped at `width`.

    Without escaping plotly would read <b>, <a> and $ as markup; it does not know &quot;.
    """
    text = " ".join(str(text).split())
    text = text if len(text) <= most else text[: most - 1] + "…"
    lines = textwrap.wrap(one_way(text), width)
    return "<br>".join(html.escape(line, quote=False).replace("$", "&#36;") for line in lines)


def json_for_script(json_text: str) -> str:
    """The JSON text, escaped so that it may stand inside <script>; it parses to the same value."""
    return "".join(_SCRIPT_ESCAPES.get(character, character) for character in json_text)
