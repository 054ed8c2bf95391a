"""A sortable table of any length: the kernel sorts and cuts pages, the page gets the cells of one page, as text."""

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
    """One column: `key` in the DataFrame, title, how a value reads, and its tone ("" or a colour's name) where that
    depends on the value.
    """

    key: str
    title: str
    text: Callable[[object], str] = str
    numeric: bool = False
    wide: bool = False
    help: str = ""
    tone: Callable[[object], str] | None = None


class DataTable(anywidget.AnyWidget):
    """Rows of a DataFrame, one page at a time: click or Enter chooses a row (with Ctrl or Shift: one more), a header
    sorts.

    `id_column` names the column that identifies a row; `chosen` lists the identities of the chosen rows, in the order
    of choosing. on_error(error): called with what goes wrong when the page asks for another order, page or row; a Panel
    gives its `say_error`. Without it, it is logged.
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

    def show(self, frame, keep_page: bool = False, keep_chosen: bool = False):
        """Show a DataFrame, in the order chosen before; chosen rows that are not in it are chosen no more, unless
        `keep_chosen`.
        """
        self._frame = frame
        if self.chosen and not keep_chosen:
            there = set(frame[self._id])
            self.chosen = [one for one in self.chosen if one in there]
        self._arrange()
        self._draw(self.page if keep_page else 1)

    def choose(self, identities: list):
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
                {"key": one.key, "title": one.title, "numeric": one.numeric, "wide": one.wide, "help": one.help}
                for one in self._columns
                if one.key in self._frame
            ]
            self.rows = [self._row(record) for record in part.to_dict("records")]
            on_page, chosen = set(part[self._id]), set(self.chosen)
            self.selected = [str(one) for one in on_page & chosen]  # thousands may be chosen: the page gets its own
            self.page, self.pages = page, pages
            noun = self._noun if len(self._ordered) == 1 else f"{self._noun}s"
            self.count_text = f"{len(self._ordered):,} {noun}" + (
                f", {len(self.chosen)} chosen" if len(self.chosen) > 1 else ""
            )
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
        except Exception:  # values that have no order: the next frame would fail at them again
            self.sort_by, self.descending = before
            raise
        self._draw(1)

    def _choose_one(self, text, more):
        page = self._ordered[self._id].iloc[(self.page - 1) * PAGE_ROWS : self.page * PAGE_ROWS]
        found = next((one for one in chain(page, self._frame[self._id]) if str(one) == text), None)
        if found is None:
            return
        if self._several and more:
            self.chosen = (
                [one for one in self.chosen if one != found] if found in self.chosen else [*self.chosen, found]
            )
        else:
            self.chosen = [found]
        self._draw(self.page)
