"""Small files that other processes read while they are written: replaced in one step, or appended line by line.

All JSON lines of the workbench's own files are read and written here, with their checksums. A last line without its end
is torn: its writer was killed, or is still writing. Users' files, in which a bad row is refused and counted, are read
in pairs/files.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .checksums import LINE_END_BYTES, UNCHECKED, checked_line, checked_object, number_of_line, read_line, read_object
from .errors import WorkbenchError
from .locks import locked, set_rights
from .patience import ONCE, Patience

_BLOCK_BYTES = 65536
_BOM = b"\xef\xbb\xbf"


def write_atomically(
    path: Path, content: bytes, durable: bool = True, patience: Patience = ONCE, rights: int | None = None
) -> None:
    """Replace a file's content in one step: written beside it, flushed to disk where `durable`, renamed.

    rights: of the file, such as 0o600; by default those that the user's umask leaves.

    Errors: WorkbenchError when it cannot be written in spite of `patience`; the file is then as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")

    def write():
        with open(beside, "wb") as file:
            if rights is not None:
                set_rights(file.fileno(), rights)
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(beside, path)

    try:
        patience.attempt(write, path.name)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise WorkbenchError(
            f"{str(path)!r} cannot be written: {error.strerror}. What was there before is untouched."
        ) from error


def write_json(
    path: Path, value: dict, durable: bool = True, patience: Patience = ONCE, rights: int | None = None
) -> None:
    """Replace a JSON file in one step, so that a reader sees the old or the new one; it has a checksum."""
    write_atomically(path, checked_object(value), durable, patience, rights)


def read_json(path: Path) -> dict | None:
    """The JSON object in a file; None when it is missing, unreadable or damaged."""
    try:
        return read_object(path.read_bytes())
    except (OSError, ValueError):
        return None


def require_json(path: Path) -> dict | None:
    """The JSON object in a file; None when it is missing. Errors: WorkbenchError when it is damaged or unreadable."""
    try:
        return read_object(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WorkbenchError(f"{str(path)!r} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise WorkbenchError(
            f"{str(path)!r} is damaged: it does not hold what was written. Put back a copy of it."
        ) from None


def file_stamp(path: Path) -> tuple[int, int] | None:
    """(time of the last change in nanoseconds, size) of a file, for what was read of it before; None without it."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size


def parse_json(text: str | bytes) -> Any:
    """The value that a JSON text holds. Errors: ValueError when it is not JSON, such as a blank line."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_json_line(line: str | bytes) -> dict | None:
    """The object on one line of a JSON-lines file; None for a value that is no object. Errors: as `parse_json`."""
    value = parse_json(line)
    return value if isinstance(value, dict) else None


def read_jsonl(path: Path) -> list[dict]:
    """The objects in a JSON-lines file that may be growing: a torn last line is ignored, a missing file is empty.

    Errors: WorkbenchError for any other line that is damaged, blank, missing or doubled.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise WorkbenchError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
    # Not splitlines(): a text may hold U+2028 or U+0085, which JSON leaves as they are and which end no line here.
    *lines, last = content.removeprefix(_BOM).rstrip(b"\n").split(b"\n")
    records, number = _objects(enumerate(lines, 1), path.name, UNCHECKED)
    try:
        record, _ = read_line(last, number)
    except ValueError as error:
        if number and content.endswith(b"\n"):
            raise _damaged_line(path.name, len(lines) + 1, last, error) from None
        return records
    return [*records, record] if isinstance(record, dict) else records


def read_jsonl_from(path: Path, start: int = 0) -> tuple[list[dict], int]:
    """(objects on the complete lines from the byte `start` on, the byte where the last complete line ends): start the
    next call there.

    Errors: OSError; WorkbenchError for a damaged line, or when no line begins at `start`, because the file was changed
    by something other than appended lines.
    """
    with open(path, "rb") as file:
        if start and (file.seek(start - 1), file.read(1))[1] != b"\n":
            raise WorkbenchError(f"{str(path)!r} was changed by something other than appended lines. Open it again.")
        content = file.read()
    content = content[: content.rfind(b"\n") + 1]
    lines = (content if start else content.removeprefix(_BOM)).split(b"\n")
    source = f"{path.name}, read from byte {start}" if start else path.name
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    return _objects(numbered, source, None if start else UNCHECKED)[0], start + len(content)


def read_jsonl_backwards(path: Path, strict: bool = False) -> Iterator[dict]:
    """The objects in a JSON-lines file, the last one first, read block by block; torn and damaged lines are skipped.

    Errors: with `strict` WorkbenchError at a damaged line that is not the torn last one, or where a line is missing.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        return
    except OSError as error:
        raise WorkbenchError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
    with file:
        end, rest, after = file.seek(0, os.SEEK_END), b"", None
        torn = True  # until a line with its end was seen
        while end or rest:
            start = max(0, end - _BLOCK_BYTES)
            file.seek(start)
            lines = (file.read(end - start) + rest).split(b"\n")
            rest, end = lines.pop(0) if start else b"", start  # the first line may have begun in the block before
            for line in reversed(lines):
                try:
                    record, number = read_line(line)
                    if strict and after and number + 1 != after:
                        raise ValueError(f"the line before number {after} is missing")
                except ValueError as error:
                    if strict and line and not torn:
                        raise _damaged_line(path.name, "near its end", line, error, checked=True) from None
                else:
                    after = number
                    if isinstance(record, dict):
                        yield record
                torn = False


class NewLine:
    """One record on its way to the end of a JSON-lines file: `write` may be called again after it failed, and never
    adds it twice.
    """

    def __init__(self, path: Path, record: dict, create: bool = True):
        self.path, self._create = path, create
        self._record, self._line, self._start = record, b"", None

    def write(self) -> None:
        """Add the record in one write, flushed to disk; a torn last line that an earlier process left is cut off first.

        Writers lock the file, so that none takes another's unfinished line for a torn one. Errors: OSError.
        """
        opener = None if self._create else lambda name, flags: os.open(name, flags & ~os.O_CREAT)
        # unbuffered: a buffer would write its rest after the failure, when the file is closed
        with open(self.path, "ab+", buffering=0, opener=opener) as file, locked(file):
            if self._is_there(file):
                os.fsync(file.fileno())
            else:
                self._append(file)

    def _append(self, file):
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.truncate(_end_of_last_line(file, end))
        self._start = file.seek(0, os.SEEK_END)
        file.seek(max(0, self._start - LINE_END_BYTES))
        rest = self._line = checked_line(self._record, number_of_line(file.read(LINE_END_BYTES)) + 1)
        try:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):  # half a line is worse than none; if this fails too, `_is_there` does it
                file.truncate(self._start)
            raise

    def _is_there(self, file):
        """Whether the line of an earlier, failed attempt stands whole before another writer's. What else is left of
        that attempt is cut off: after a failed flush nobody knows which part of it is on the disk.
        """
        if self._start is None:
            return False
        end = file.seek(0, os.SEEK_END)
        file.seek(min(self._start, end))
        left = file.read(len(self._line))
        if left and self._line.startswith(left) and self._start + len(left) == end:
            file.truncate(self._start)
            return False
        return left == self._line


def append_jsonl(path: Path, record: dict, create: bool = True, patience: Patience = ONCE) -> None:
    """Add one record to a JSON-lines file, as `NewLine.write` does.

    create: whether a missing file is made. Errors: OSError, once `patience` is spent.
    """
    patience.attempt(NewLine(path, record, create).write, path.name)


def write_jsonl(path: Path, records: list[dict], patience: Patience = ONCE) -> None:
    """Replace a JSON-lines file in one step."""
    write_atomically(path, _lines(records), patience=patience)


def create_jsonl(path: Path, records: list[dict], checked: bool = False) -> None:
    """Make a JSON-lines file, flushed to disk, where there is none; of several processes that try, one succeeds.

    checked: whether its lines have checksums; not those that other programs are to read. Errors: FileExistsError when
    the file exists; WorkbenchError when it cannot be written, and then none is left.
    """
    try:
        with open(path, "xb") as file:
            try:
                file.write(_lines(records, checked))
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                path.unlink(missing_ok=True)
                raise
    except FileExistsError:
        raise
    except OSError as error:
        raise WorkbenchError(f"{str(path)!r} cannot be written: {error.strerror}.") from error


def _objects(numbered_lines, source, before) -> tuple[list[dict], int | None]:
    """(the objects on (number, line) of a source, the last line's own number). before: as in `read_line`.

    Errors: WorkbenchError that names a damaged line of it.
    """
    records = []
    for number, line in numbered_lines:
        try:
            record, before = read_line(line, before)
        except ValueError as error:
            raise _damaged_line(source, number, line, error, checked=bool(before)) from None
        if isinstance(record, dict):
            records.append(record)
    return records, before


def _damaged_line(source, number, line, error, checked=True):
    if checked or "check" in str(error) or "line number" in str(error):
        return WorkbenchError(
            f"{source}, line {number} is damaged: {error}. Put back a copy of the file; `simpo-workbench verify` names"
            " all that is damaged."
        )
    text = line[:320].decode(errors="replace")[:80]
    return WorkbenchError(f"{source}, line {number} is damaged: {text!r}. Remove that line to read the rest.")


def _lines(records, checked=True) -> bytes:
    if checked:
        return b"".join(checked_line(record, number) for number, record in enumerate(records, UNCHECKED + 1))
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def _end_of_last_line(file, end):
    """The byte where the last complete line of a file ends."""
    while end:
        start = max(0, end - _BLOCK_BYTES)
        file.seek(start)
        line_end = file.read(end - start).rfind(b"\n")
        if line_end >= 0:
            return start + line_end + 1
        end = start
    return 0
