"""Escaping, in one place: text from data, models, names and errors passes through here before it becomes markup or
is printed.

The report's template escapes on its own (Jinja2 with autoescape); plotly's labels and JSON inside a page are left.
"""

import html
import re
import textwrap

_DIRECTION_MARKS = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd")
_SURROGATES = range(0xD800, 0xE000)  # of file names that are no UTF-8: printing one raises an error
_PICTURES = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {0x7F: "\u2421"}
_PICTURES |= dict.fromkeys([*range(0x80, 0xA0), *_SURROGATES], "\ufffd") | _DIRECTION_MARKS
_CONTROLS = re.compile(f"[{re.escape(''.join(map(chr, _PICTURES)))}]")
_SCRIPT_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def escape(text) -> str:
    """The text, escaped for an HTML element or a quoted attribute."""
    return html.escape(str(text), quote=True)


def one_way(text: str) -> str:
    """The text with its bidirectional control characters replaced, so that it cannot reverse the text after it."""
    return text.translate(_DIRECTION_MARKS)


def shown_controls(text: str) -> str:
    """The text for a terminal, in as many characters: control characters as pictures (␛), or � where they have none.

    Line breaks and tabs stay.
    """
    return text.translate(_PICTURES) if _CONTROLS.search(text) else text


def json_for_terminal(json_text: str) -> str:
    """The JSON text with the control characters that JSON leaves as they are escaped; it parses to the same value."""
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", json_text)


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
