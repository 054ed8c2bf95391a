"""Small files that other processes read while they are written: replaced in one step, appended line by line, read without trusting them."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from .errors import WorkbenchError


def write_atomically(path: Path, content: bytes, durable: bool = True):
    """Replace a file's content in one step: written beside it, flushed to disk (unless it is worth nothing after a power cut), renamed."""
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise WorkbenchError(f"{str(path)!r} cannot be written: {error.strerror}. What was there before is untouched.") from error


def write_json(path: Path, value: dict, durable: bool = True):
    """Replace a JSON file in one step, so that a reader sees the old or the new one, never half of it."""
    write_atomically(path, json.dumps(value, ensure_ascii=False, indent=1).encode(), durable)


def read_json(path: Path) -> dict | None:
    """The JSON object in a file; None when it is missing or unreadable."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def append_jsonl(path: Path, record: dict):
    """Add one record to a JSON-lines file in one write, flushed to disk; a torn last line that an earlier process left is cut off first."""
    line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
    with open(path, "ab+", buffering=0) as file:  # unbuffered: a buffer would write its rest after the failure, when the file is closed
        end = file.tell()
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.truncate(_end_of_last_line(file, end))
        start = file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):  # half a line helps nobody
                file.truncate(start)
            raise


def read_jsonl(path: Path) -> list[dict]:
    """The objects in a JSON-lines file that may be growing: a torn last line is ignored, a missing file is empty."""
    try:
        # Not splitlines(): a text may hold U+2028 or U+0085, which JSON leaves as they are and which end no line here.
        lines = path.read_text(encoding="utf-8", errors="replace").rstrip("\n").split("\n")
    except FileNotFoundError:
        return []
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            if number == len(lines):
                break
            raise WorkbenchError(f"{path.name}, line {number} is damaged: {line[:80]!r}. Remove that line to read the rest.") from None
        if isinstance(record, dict):
            records.append(record)
    return records


def records_from_the_end(path: Path) -> Iterator[dict]:
    """The objects in a JSON-lines file, the last one first, read in blocks as they are asked for; lines that are torn or damaged are passed over."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        return
    with file:
        end, rest = file.seek(0, os.SEEK_END), b""
        while end or rest:
            start = max(0, end - 65536)
            file.seek(start)
            lines = (file.read(end - start) + rest).split(b"\n")
            rest, end = lines.pop(0) if start else b"", start  # the first line may have begun in the block before
            for line in reversed(lines):
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(record, dict):
                    yield record


def write_jsonl(path: Path, records: list[dict]):
    """Replace a JSON-lines file in one step."""
    write_atomically(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode())


def _end_of_last_line(file, end):
    """Where the last whole line of a file ends, in bytes."""
    while end:
        start = max(0, end - 65536)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
