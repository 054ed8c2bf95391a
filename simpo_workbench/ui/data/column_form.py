"""Menus that say what the columns of a file hold, with its first rows and the pairs that they would make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets

from ...base.errors import WorkbenchError
from ...base.format import counted
from ...pairs.advice import tried
from ...pairs.columns import checked_mapping
from ...pairs.proposals import Proposal, propose
from ...pairs.refused import excerpt
from ..parts.html import Html, html, table
from ..parts.panel import button, enable, row, show
from .column_kinds import JUDGING, KINDS, MENUS, kind_of_mapping

TRIED_ROWS = 100
_SHOWN_ROWS = 5
_SHOWN_PAIRS = 3
_LONGEST_CELL = 140
_MOST_COLUMNS = 12  # of the preview; the menus hold all of them
_NOT_SAID = "– choose what it means –"
_TONES = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}


class ColumnForm(ipywidgets.VBox):
    """Menus that map our names to a file's columns, for every kind of row.

    on_use(mapping): called with our name -> the file's column. guard: wraps handlers, as `Panel.guard` does.
    """

    def __init__(self, on_use: Callable[[dict[str, str]], Any], guard: Callable):
        self._rows, self._others, self._filling = [], {}, False
        self.words, self.preview, self.outcome = Html(), Html(), Html()
        self.preview.add_class("swb-scroll")
        self.kind = _menu("Each row holds")
        self.kind.options, self.kind.value = [(kind.words, kind) for kind in KINDS], KINDS[0]
        self.menus = {name: _menu(words) for name, words in MENUS.items()}
        self.reading = _menu("which")
        for menu in (self.kind, self.reading, *self.menus.values()):
            menu.observe(guard(self._changed), "value")
        self.use = button("Use these columns", guard(lambda: on_use(self.mapping)), style="primary")
        menus = row(*self.menus.values(), self.reading, self.use)
        super().__init__([self.words, row(self.kind), menus, self.outcome, self.preview])
        self.add_class("swb-column")
        self._arrange()

    @property
    def mapping(self) -> dict[str, str]:
        """Our name -> the file's column, for the menus in which one is chosen; without the judging column and what it
        judges until its meaning is chosen.
        """
        readings = self.kind.value.readings
        roles = readings.get(self.reading.value) or ({} if self._must_ask() else next(iter(readings.values())))
        return self._others | {role: self.menus[menu].value for menu, role in roles.items() if self.menus[menu].value}

    def _must_ask(self):
        """Whether the chosen columns leave open which answer is the better one."""
        return self.kind.value.asks and any(self.menus[menu].value for menu in self.kind.value.menus if menu in JUDGING)

    def show(self, sentence: str, rows: list[dict], columns: dict[str, str]) -> None:
        """Show menus for the columns of these rows. columns: the mapping so far, else a tried proposal."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        proposal = None if _makes_pairs(rows, columns) else propose(rows)
        if proposal is not None:
            columns = proposal.columns
        elif not set(columns.values()) <= set(names):
            columns = {}
        kind, reading, chosen = kind_of_mapping(columns)
        shown = {column: menu for menu, column in chosen.items()}
        self._others = {role: column for role, column in columns.items() if column not in shown}
        self._rows, self._filling = rows, True
        for name, menu in self.menus.items():
            menu.options = [("– none –", ""), *((excerpt(name, 40)[1:-1], name) for name in names)]
            menu.value = chosen.get(name, "")
        self.kind.value = kind
        self._arrange()
        if kind.asks and not (proposal and proposal.question):
            self.reading.value = reading
        self._filling = False
        self.words.value = html(
            '<div class="swb-notice swb-attention"><p>{}</p><p>{}</p></div>', sentence, _advice(proposal)
        )
        self._changed()

    def _arrange(self):
        """Show the menus of the chosen kind, and no meaning chosen."""
        kind = self.kind.value
        for name, menu in self.menus.items():
            show(menu, name in kind.menus)
        show(self.reading, kind.asks)
        self.reading.options = [(_NOT_SAID, ""), *((words, words) for words in kind.readings if words)]
        self.reading.value = ""

    def _changed(self, change=None):
        if self._filling:
            return
        if change is not None and change["owner"] is self.kind:
            self._filling = True
            self._arrange()
            self._filling = False
        why_not = self._why_not()
        enable(self.use, why_not, "Read the file with these columns.")
        self.outcome.value = html('<p class="swb-muted">{}</p>', why_not) if why_not else self._tried()
        self._show_rows()

    def _why_not(self):
        kind = self.kind.value
        values = {menu: self.menus[menu].value for menu in kind.menus}
        missing = [menu for menu, value in values.items() if not value and menu not in kind.optional]
        if missing:
            return f"Choose the column of the {MENUS[missing[0]].lower()} first."
        taken = [value for value in values.values() if value]
        if twice := next((name for name in taken if taken.count(name) > 1), None):
            return f"The column {twice!r} is chosen in two menus."
        if self._must_ask() and not self.reading.value:
            return "Choose what the judging column means: a wrong guess would turn every pair the wrong way round."
        return ""

    def _tried(self):
        """What the first rows would make with the chosen columns."""
        try:
            pairs, report = tried(self._rows, checked_mapping(self.mapping))
        except WorkbenchError as error:
            return html('<p class="swb-notice swb-attention">{}</p>', str(error))
        if not pairs:
            return html('<p class="swb-notice swb-attention">No pair can be made with these columns. {}</p>', report)
        shown = [[_cell(text) for text in (pair.prompt_text, pair.chosen, pair.rejected)] for pair in pairs]
        heads = [html('<span class="swb-{}">{}</span>', tone, MENUS[name]) for name, tone in _TONES.items()]
        caption = f"What these columns make of the first {counted(len(self._rows), 'row')}"
        tone = "swb-attention" if report.refused else "swb-healthy"
        return html('<p class="swb-notice {}">{}</p>{}', tone, str(report), table(heads, shown[:_SHOWN_PAIRS], caption))

    def _show_rows(self):
        menu_of = {column: menu for menu in self.kind.value.menus if (column := self.menus[menu].value)}
        names = list(dict.fromkeys([*menu_of, *(name for record in self._rows for name in record)]))
        heads = [_head(name, menu_of.get(name)) for name in names[:_MOST_COLUMNS]]
        cells = [[_cell(record.get(name)) for name in names[:_MOST_COLUMNS]] for record in self._rows[:_SHOWN_ROWS]]
        more = f"; {len(names) - _MOST_COLUMNS} more columns are in the menus" if len(names) > _MOST_COLUMNS else ""
        self.preview.value = table(heads, cells, f"The first rows as they stand in the file{more}")


def _menu(words):
    return ipywidgets.Dropdown(
        description=words, style={"description_width": "initial"}, layout={"width": "auto", "max_width": "100%"}
    )


def _head(name, menu):
    if menu is None:
        return name
    return html('{} <span class="swb-{}">→ {}</span>', name, _TONES.get(menu, "muted"), MENUS[menu])


def _makes_pairs(rows, columns):
    known = {name for row in rows for name in row}
    return bool(columns) and set(columns.values()) <= known and bool(tried(rows, columns)[0])


def _advice(proposal: Proposal | None):
    if proposal is None:
        return "Choose what each row holds, and a column in each menu."
    if proposal.question:
        return f"The menus hold a proposal. {proposal.question}"
    return "The menus hold a proposal that was tried on these rows: check the pairs below."


def _cell(value):
    if value is None:
        return "–"
    text = value if isinstance(value, str) else excerpt(value, _LONGEST_CELL)
    text = " ".join(text[: 2 * _LONGEST_CELL].split())
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"
