"""HTML fragments that are safe by their type: all that panels show as HTML is escaped here, and only here.

`html("<b>{}</b>", name)` escapes `name` and returns a fragment (`Markup`); fragments are put into others unescaped.
"""

from __future__ import annotations

from collections.abc import Iterable

import ipywidgets
import traitlets
from markupsafe import Markup, escape

__all__ = ["Html", "Markup", "escape", "facts", "html", "joined", "table"]


def html(pattern: str, /, *args, **kwargs) -> Markup:
    """A fragment from a literal pattern, never from foreign text; arguments are escaped unless they are fragments."""
    return Markup(pattern).format(*args, **kwargs)


def joined(parts: Iterable, between: str | Markup = "") -> Markup:
    """Fragments, and texts escaped, one after the other."""
    return escape(between).join(escape(part) for part in parts)


def facts(*parts: str) -> Markup:
    """Facts in a row, such as "36 tokens · ends properly"; empty ones are left out."""
    return html('<div class="swb-facts">{}</div>', joined((part for part in parts if part), " · "))


def table(columns: list[str], rows: Iterable[Iterable], caption: str = "") -> Markup:
    """A plain table; cells are texts or fragments."""
    head = joined(html('<th scope="col">{}</th>', name) for name in columns)
    body = joined(html("<tr>{}</tr>", joined(html("<td>{}</td>", cell) for cell in row)) for row in rows)
    return html(
        '<table class="swb-table">{}<thead><tr>{}</tr></thead><tbody>{}</tbody></table>',
        html("<caption>{}</caption>", caption) if caption else "",
        head,
        body,
    )


class Html(ipywidgets.HTML):
    """An HTML widget for fragments; a plain text is escaped, so that markup in it is shown as text."""

    def __init__(self, value: str | Markup = "", **kwargs):
        super().__init__(value=value, **kwargs)
        self.add_class("swb-html")

    @traitlets.validate("value")
    def _only_fragments(self, proposal):
        return escape(proposal["value"])
