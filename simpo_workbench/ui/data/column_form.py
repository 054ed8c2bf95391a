"""Which column of a file is the prompt, which the chosen answer, which the rejected: menus filled with a guess, above
the file's first rows.
"""

from __future__ import annotations

import ipywidgets

from ...pairs.columns import COLUMN_ROLES, guess_columns
from ...pairs.shapes import excerpt
from ..parts.html import Html, html, table
from ..parts.panel import button, enable, row

_LONGEST_CELL = 140
_MOST_COLUMNS = 12  # of the preview; the menus hold all of them
_ROLE_WORDS = {"prompt": "Prompt", "chosen": "Chosen answer", "rejected": "Rejected answer", "system": "System turn"}


class ColumnForm(ipywidgets.VBox):
    """Menus for our four names over a file's columns.

    `on_use(mapping)` is called with our name -> the file's column. guard: wraps handlers, as `Panel.guard`.
    """

    def __init__(self, on_use, guard):
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
        """Our name -> the file's column, for the menus that name one."""
        return {role: menu.value for role, menu in self.menus.items() if menu.value}

    def show(self, sentence: str, rows: list[dict], columns: dict[str, str]):
        """The menus over the columns of these rows. columns: the mapping so far; where it does not fit, a guess stands
        in the menus.
        """
        names = list(dict.fromkeys(name for one in rows for name in one))
        fits = columns and set(columns.values()) <= set(names)
        guess = columns if fits else guess_columns(names) or {}
        self._rows, self._filling = rows, True
        for role, menu in self.menus.items():
            menu.options = [("– none –", ""), *((excerpt(name, 40)[1:-1], name) for name in names)]
            menu.value = guess.get(role, "")
        self._filling = False
        guessed = (
            "The menus hold a guess from the names: check it against the rows."
            if guess and not fits
            else "Say which is which."
        )
        self.words.value = html('<div class="swb-notice swb-attention"><p>{}</p><p>{}</p></div>', sentence, guessed)
        self._changed()

    def _changed(self, _=None):
        if self._filling:
            return
        missing = [role for role in ("prompt", "chosen", "rejected") if role not in self.mapping]
        taken = list(self.mapping.values())
        twice = next((name for name in taken if taken.count(name) > 1), None)
        enable(
            self.use,
            (
                f"Choose the column of the {missing[0]} first."
                if missing
                else f"The column {twice!r} stands in two menus."
                if twice
                else ""
            ),
            "Read the file with these columns.",
        )
        self._show_rows()

    def _show_rows(self):
        role_of = {name: role for role, name in self.mapping.items()}
        names = list(dict.fromkeys([*role_of, *(name for one in self._rows for name in one)]))
        heads = [
            html('{} <span class="swb-{}">→ {}</span>', name, role_of[name], role_of[name]) if name in role_of else name
            for name in names[:_MOST_COLUMNS]
        ]
        cells = [[_cell(one.get(name)) for name in names[:_MOST_COLUMNS]] for one in self._rows]
        more = f"; {len(names) - _MOST_COLUMNS} more columns are in the menus" if len(names) > _MOST_COLUMNS else ""
        self.preview.value = table(heads, cells, f"The first rows as they stand in the file{more}")


def _cell(value):
    text = value if isinstance(value, str) else "–" if value is None else excerpt(value, _LONGEST_CELL)
    text = " ".join(text[: 2 * _LONGEST_CELL].split())
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"
