"""What is left of a JSON-lines file of which some lines are damaged: the whole ones, and which are not."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .checksums import UNCHECKED, read_line
from .errors import WorkbenchError
from .files import read_jsonl


class WholeLines(NamedTuple):
    """records: the objects on whole lines. damaged: {place of a line, counted from 1: what is wrong with it}.
    before: how many of the records stand before the last damaged place.
    """

    records: list[dict]
    damaged: dict[int, str]
    before: int


def read_whole_lines(path: Path) -> WholeLines:
    """The lines of a JSON-lines file that are whole; a torn last line is ignored, a missing file is empty.

    A line's checksum says that it is whole, its number that it is in its place. Errors: WorkbenchError where the file
    cannot be read, or a line is damaged that has no checksum, because it is from before there were any.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return WholeLines([], {}, 0)
    except OSError as error:
        raise WorkbenchError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
    *lines, torn = content.split(b"\n")
    records, damaged, before, number_before, between = [], {}, 0, UNCHECKED, 0
    for place, line in enumerate(lines, 1):
        wrong, record, number = _read(line)
        if not wrong:
            wrong = _wrong_place(number, number_before, between)
        if wrong:
            damaged[place], before = wrong, len(records)
        if record is None:
            between += 1
        elif number > number_before or number == UNCHECKED == number_before:
            records.append(record)
            number_before, between = number, 0
    if damaged and number_before == UNCHECKED:
        read_jsonl(path)  # raises the error that names the line
    wrong, record, number = _read(torn)
    if record is not None and not _wrong_place(number, number_before, between):
        records.append(record)
    return WholeLines(records, damaged, before)


def _read(line):
    """(what is wrong with a line, its object or None, its number)."""
    try:
        value, number = read_line(line)
    except ValueError as error:
        return str(error), None, UNCHECKED
    return ("", value, number) if isinstance(value, dict) else ("it holds no object", None, UNCHECKED)


def _wrong_place(number, before, between):
    """What is wrong with the number of a whole line; "" where nothing is.

    before: the number of the last whole line. between: how many damaged lines came after it.
    """
    if number == UNCHECKED:
        return "" if before == UNCHECKED else "it has no checksum"
    if number <= before:
        return f"it is line number {number} once more"
    if number > before + 1 + between:
        lost = number - before - 1 - between
        return f"{lost} {'line' if lost == 1 else 'lines'} before it {'is' if lost == 1 else 'are'} missing"
    return ""


def named(damaged: dict[int, str], most: int = 5) -> str:
    """The damaged lines in words: "line 9: its checksum does not agree; line 12: …"."""
    shown = [f"line {place}: {wrong}" for place, wrong in list(damaged.items())[:most]]
    more = [f"and {len(damaged) - most} more"] if len(damaged) > most else []
    return "; ".join([*shown, *more])
