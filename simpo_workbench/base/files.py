"""Small files that other processes read while they are written: replaced in one step, appended line by line, read
without trusting them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from .errors import WorkbenchError

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # what file systems say that have none


def write_atomically(path: Path, content: bytes, durable: bool = True):
    """Replace a file's content in one step: written beside it, flushed to disk (unless it is worth nothing after a
    power cut), renamed.
    """
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
        raise WorkbenchError(
            f"{str(path)!r} cannot be written: {error.strerror}. What was there before is untouched."
        ) from error


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


def append_jsonl(path: Path, record: dict, create: bool = True):
    """Add one record to a JSON-lines file in one write, flushed to disk; a torn last line that an earlier process left
    is cut off first.

    Writers wait for each other: what one has not finished is no torn line to the next. create: whether a missing file
    is made. Errors: OSError.
    """
    line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
    opener = None if create else lambda name, flags: os.open(name, flags & ~os.O_CREAT)
    # unbuffered: a buffer would write its rest after the failure, when the file is closed
    with open(path, "ab+", buffering=0, opener=opener) as file, _alone(file):
        end = file.seek(0, os.SEEK_END)
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
        lines = path.read_text(encoding="utf-8-sig", errors="replace").rstrip("\n").split("\n")
    except FileNotFoundError:
        return []
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            if number == len(lines):
                break
            raise WorkbenchError(
                f"{path.name}, line {number} is damaged: {line[:80]!r}. Remove that line to read the rest."
            ) from None
        if isinstance(record, dict):
            records.append(record)
    return records


def read_jsonl_from(path: Path, start: int = 0) -> tuple[list[dict], int]:
    """The objects on the whole lines of a JSON-lines file from the byte `start` on, and the byte where the last whole
    line ends: the start of the next look.

    Errors: OSError; WorkbenchError for a damaged line, or where no line begins at `start`, because the file was changed
    otherwise than by adding to it.
    """
    with open(path, "rb") as file:
        if start and (file.seek(start - 1), file.read(1))[1] != b"\n":
            raise WorkbenchError(
                f"{str(path)!r} is not as it was left: something else than new lines has changed it. Open it again."
            )
        content = file.read()
    content, records = content[: content.rfind(b"\n") + 1], []
    for line in content.decode("utf-8" if start else "utf-8-sig", errors="replace").split("\n"):
        try:
            record = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            raise WorkbenchError(
                f"{path.name} has a damaged line: {line[:80]!r}. Remove that line to read the rest."
            ) from None
        if isinstance(record, dict):
            records.append(record)
    return records, start + len(content)


def records_from_the_end(path: Path) -> Iterator[dict]:
    """The objects in a JSON-lines file, the last one first, read in blocks as they are asked for; lines that are torn
    or damaged are passed over.
    """
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
    write_atomically(path, _lines(records))


def create_jsonl(path: Path, records: list[dict]):
    """Make a JSON-lines file, flushed to disk, where there is none: of several that try at once, one does.

    Errors: FileExistsError where there is one, which stays as it is; WorkbenchError where it cannot be written, and
    then none is left.
    """
    content = _lines(records)
    try:
        with open(path, "xb") as file:
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                path.unlink(missing_ok=True)
                raise
    except FileExistsError:
        raise
    except OSError as error:
        raise WorkbenchError(f"{str(path)!r} cannot be written: {error.strerror}.") from error


def _lines(records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


@contextlib.contextmanager
def _alone(file):
    """No other writer meanwhile, where the file system has locks; where it has none, nothing is held."""
    held = True
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        held = False
    try:
        yield
    finally:
        if held:  # closing is not enough: a process forked meanwhile has the file open too
            fcntl.flock(file, fcntl.LOCK_UN)


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
