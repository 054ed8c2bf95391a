"""A sortable table of any length: the kernel sorts it and sends the cells of one page of rows, as text."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import anywidget
import traitlets

from .following import LOCK

PAGE_ROWS = 50
_LONGEST_CELL = 200

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Column:
    """One column: its `key` in the DataFrame and its title.

    text: value -> what a cell shows. tone: value -> "" or the name of a colour.
    """

    key: str
    title: str
    text: Callable[[object], str] = str
    numeric: bool = False
    wide: bool = False
    help: str = ""
    tone: Callable[[object], str] | None = None


class DataTable(anywidget.AnyWidget):
    """Rows of a DataFrame, one page at a time. A click or Enter chooses a row, with Ctrl or Shift one more row; a click
    on a header sorts.

    id_column: the column that identifies a row; `chosen` lists the identities of the chosen rows, in order of choosing.
    on_error(error): called when what the page asks for fails, for example a Panel's `say_error`; by default it is
    logged.
    """

    _esm = Path(__file__).parent / "table.js"
    columns = traitlets.List().tag(sync=True)
    rows = traitlets.List().tag(sync=True)
    selected = traitlets.List().tag(sync=True)
    sort_by = traitlets.Unicode("").tag(sync=True)
    descending = traitlets.Bool(False).tag(sync=True)
    page = traitlets.Int(1).tag(sync=True)
    pages = traitlets.Int(1).tag(sync=True)
    count_text = traitlets.Unicode("").tag(sync=True)
    empty_text = traitlets.Unicode("").tag(sync=True)
    label = traitlets.Unicode("").tag(sync=True)
    version = traitlets.Int(0).tag(sync=True)
    chosen = traitlets.List()

    def __init__(
        self,
        columns: list[Column],
        id_column: str,
        label: str,
        empty_text: str = "Nothing to show.",
        several: bool = False,
        noun: str = "row",
        on_error: Callable[[Exception], None] | None = None,
    ):
        self._columns, self._id, self._several, self._noun, self._frame = columns, id_column, several, noun, None
        self._on_error = on_error or (
            lambda error: _log.error("A table cannot show what was asked for.", exc_info=error)
        )
        super().__init__(label=label, empty_text=empty_text)
        self.on_msg(self._heard)

    def show(self, frame, keep_page: bool = False, keep_chosen: bool = False) -> None:
        """Show a DataFrame, sorted as before; chosen rows that it lacks are dropped, unless `keep_chosen`."""
        self._frame = frame
        if self.chosen and not keep_chosen:
            present = set(frame[self._id])
            self.chosen = [identity for identity in self.chosen if identity in present]
        self._arrange()
        self._draw(self.page if keep_page else 1)

    def choose(self, identities: list) -> None:
        """Choose rows and turn to the page of the first."""
        self.chosen = list(identities)
        if self._frame is None or not identities:
            self._draw(self.page)
            return
        places = (self._ordered[self._id] == identities[0]).to_numpy().nonzero()[0]
        self._draw(int(places[0]) // PAGE_ROWS + 1 if len(places) else self.page)

    def _arrange(self):
        frame = self._frame
        if self.sort_by and self.sort_by in frame:
            frame = frame.sort_values(self.sort_by, ascending=not self.descending, kind="stable", na_position="last")
        self._ordered = frame

    def _draw(self, page):
        if self._frame is None:
            return
        pages = max(1, -(-len(self._ordered) // PAGE_ROWS))
        page = min(max(page, 1), pages)
        part = self._ordered.iloc[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]
        with self.hold_sync():
            self.columns = [
                {
                    "key": column.key,
                    "title": column.title,
                    "numeric": column.numeric,
                    "wide": column.wide,
                    "help": column.help,
                }
                for column in self._columns
                if column.key in self._frame
            ]
            self.rows = [self._row(record) for record in part.to_dict("records")]
            on_page, chosen = set(part[self._id]), set(self.chosen)
            self.selected = [str(identity) for identity in on_page & chosen]  # thousands may be chosen in all
            self.page, self.pages = page, pages
            noun = self._noun if len(self._ordered) == 1 else f"{self._noun}s"
            chosen_text = f", {len(self.chosen)} chosen" if len(self.chosen) > 1 else ""
            self.count_text = f"{len(self._ordered):,} {noun}{chosen_text}"
            self.version += 1

    def _row(self, record):
        shown = [column for column in self._columns if column.key in record]
        values = [record[column.key] for column in shown]
        cells = [
            "–" if value is None or value != value else column.text(value)
            for column, value in zip(shown, values, strict=True)
        ]
        tones = [column.tone(value) if column.tone else "" for column, value in zip(shown, values, strict=True)]
        cells = [cell if len(cell) <= _LONGEST_CELL else cell[: _LONGEST_CELL - 1] + "…" for cell in cells]
        return {"id": str(record[self._id]), "cells": cells, "tones": tones}

    def _heard(self, _, message, buffers):
        with LOCK:
            if self._frame is None or not isinstance(message, dict):
                return
            try:
                if message.get("sort") in [column["key"] for column in self.columns]:
                    self._sort(message["sort"])
                elif isinstance(message.get("page"), int):
                    self._draw(message["page"])
                elif "choose" in message:
                    self._choose_one(str(message["choose"]), bool(message.get("more")))
            except Exception as error:
                self._on_error(error)

    def _sort(self, key):
        before = self.sort_by, self.descending
        self.sort_by, self.descending = key, not self.descending if self.sort_by == key else True
        try:
            self._arrange()
        except Exception:  # values without an order: sorting the next frame by them would fail again
            self.sort_by, self.descending = before
            raise
        self._draw(1)

    def _choose_one(self, text, more):
        page = self._ordered[self._id].iloc[(self.page - 1) * PAGE_ROWS : self.page * PAGE_ROWS]
        identities = chain(page, self._frame[self._id])
        identity = next((identity for identity in identities if str(identity) == text), None)
        if identity is None:
            return
        if not (self._several and more):
            self.chosen = [identity]
        elif identity in self.chosen:
            self.chosen = [other for other in self.chosen if other != identity]
        else:
            self.chosen = [*self.chosen, identity]
        self._draw(self.page)
