"""The rows of a CSV or TSV text, each with its place."""

import csv
import re
from collections.abc import Iterator

from ..base.errors import WorkbenchError
from .refused import LONGEST_ROW, RowRefused, excerpt


def csv_rows(text, name) -> Iterator[tuple[str, dict | RowRefused]]:
    """(place, row) of every record of a CSV text, with the delimiter that its first line has most.

    Errors: WorkbenchError when the header cannot be read or names a column twice.
    """
    # the default of 128 KiB is shorter than some answers
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_ROW))
    first = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(_lines(text), delimiter=delimiter, strict=True)
    records = _records(reader)
    where, header = next(records, ("line 1", None))
    if not isinstance(header, list):
        raise WorkbenchError(f"{name} has no readable header line ({header.seen if header else 'nothing in it'}).")
    if twice := sorted({column for column in header if header.count(column) > 1}):
        raise WorkbenchError(
            f"{name} has two columns called {excerpt(twice[0])}. Is its first line ({where}) a header?"
        )
    return ((where, _row(record, header) if isinstance(record, list) else record) for where, record in records)


def _lines(text):
    """The lines of a text with their line ends; io.StringIO would take four bytes for every character."""
    start = 0
    for end in re.finditer(r"\r\n|\n|\r", text):
        yield text[start : end.end()]
        start = end.end()
    if start < len(text):
        yield text[start:]


def _records(reader):
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"line {line}", RowRefused("unreadable", f"{error} (a quote that never closes, or a stray one)")
            continue
        if record:
            yield f"line {line}", record


def _row(record, header):
    if len(record) > len(header):
        return RowRefused("unreadable", f"{len(record)} cells under {len(header)} columns")
    return dict.fromkeys(header) | dict(zip(header, record, strict=False))
