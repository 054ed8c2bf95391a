"""Menus that say which column of a file is the prompt, the chosen and the rejected answer, and its first rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets

from ...pairs.advice import tried_guess
from ...pairs.columns import COLUMN_ROLES
from ...pairs.refused import excerpt
from ..parts.html import Html, html, table
from ..parts.panel import button, enable, row

_LONGEST_CELL = 140
_MOST_COLUMNS = 12  # of the preview; the menus hold all of them
_ROLE_WORDS = {"prompt": "Prompt", "chosen": "Chosen answer", "rejected": "Rejected answer", "system": "System turn"}


class ColumnForm(ipywidgets.VBox):
    """Menus that map our four names to a file's columns.

    on_use(mapping): called with our name -> the file's column. guard: wraps handlers, as `Panel.guard` does.
    """

    def __init__(self, on_use: Callable[[dict[str, str]], Any], guard: Callable):
        self._rows, self._filling = [], False
        self.words, self.preview = Html(), Html()
        self.preview.add_class("swb-scroll")
        self.menus = {
            role: ipywidgets.Dropdown(
                description=_ROLE_WORDS[role], style={"description_width": "initial"}, layout={"width": "auto"}
            )
            for role in COLUMN_ROLES
        }
        for menu in self.menus.values():
            menu.observe(guard(self._changed), "value")
        self.use = button("Use these columns", guard(lambda: on_use(self.mapping)), style="primary")
        super().__init__([self.words, row(*self.menus.values(), self.use), self.preview])
        self.add_class("swb-column")

    @property
    def mapping(self) -> dict[str, str]:
        """Our name -> the file's column, for the menus in which one is chosen."""
        return {role: menu.value for role, menu in self.menus.items() if menu.value}

    def show(self, sentence: str, rows: list[dict], columns: dict[str, str]) -> None:
        """Show menus for the columns of these rows. columns: the mapping so far, else a tried guess."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        fits = columns and set(columns.values()) <= set(names)
        guess = columns if fits else tried_guess(rows) or {}
        self._rows, self._filling = rows, True
        for role, menu in self.menus.items():
            menu.options = [("– none –", ""), *((excerpt(name, 40)[1:-1], name) for name in names)]
            menu.value = guess.get(role, "")
        self._filling = False
        advice = "Choose a column in each menu."
        if guess and not fits:
            advice = "The menus hold a guess from the names: check it against the rows."
        self.words.value = html('<div class="swb-notice swb-attention"><p>{}</p><p>{}</p></div>', sentence, advice)
        self._changed()

    def _changed(self, _=None):
        if self._filling:
            return
        missing = [role for role in ("prompt", "chosen", "rejected") if role not in self.mapping]
        taken = list(self.mapping.values())
        twice = next((name for name in taken if taken.count(name) > 1), None)
        why_not = f"The column {twice!r} is chosen in two menus." if twice else ""
        if missing:
            why_not = f"Choose the column of the {missing[0]} first."
        enable(self.use, why_not, "Read the file with these columns.")
        self._show_rows()

    def _show_rows(self):
        role_of = {name: role for role, name in self.mapping.items()}
        names = list(dict.fromkeys([*role_of, *(name for record in self._rows for name in record)]))
        heads = [
            html('{} <span class="swb-{}">→ {}</span>', name, role_of[name], role_of[name]) if name in role_of else name
            for name in names[:_MOST_COLUMNS]
        ]
        cells = [[_cell(record.get(name)) for name in names[:_MOST_COLUMNS]] for record in self._rows]
        more = f"; {len(names) - _MOST_COLUMNS} more columns are in the menus" if len(names) > _MOST_COLUMNS else ""
        self.preview.value = table(heads, cells, f"The first rows as they stand in the file{more}")


def _cell(value):
    if value is None:
        return "–"
    text = value if isinstance(value, str) else excerpt(value, _LONGEST_CELL)
    text = " ".join(text[: 2 * _LONGEST_CELL].split())
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"
