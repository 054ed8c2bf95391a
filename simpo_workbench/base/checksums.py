"""Checksums inside the workbench's own JSON: one per line of a JSON-lines file, one per JSON file.

Both begin with "format" and end with the CRC-32 of all bytes before it; a line has its number in front of that. So a
changed, missing, doubled or moved line is noticed, and no cut takes both ends. What has none of them was written by an
earlier version, or by hand, and cannot be checked.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

#: The number that stands for a line without a checksum, and for the beginning of a file.
UNCHECKED = 0
#: Version of the layout of checked lines and files.
FORMAT = 1
_OWN_KEYS = {"format", "line", "check"}
_LINE_END = re.compile(rb'(?:, |\{)"line": (\d{1,15}), "check": "([0-9a-f]{8})"\}\n?\Z')
_FILE_END = re.compile(rb',\n "check": "([0-9a-f]{8})"\n\}\Z')
# what is left of a checksum where a cut took its name
_LINE_REST, _FILE_REST = re.compile(rb'"[0-9a-f]{8}"\}\n?\Z'), re.compile(rb'"[0-9a-f]{8}"\n\}\Z')
#: Bytes in which the end of a checked line is found.
LINE_END_BYTES = 64


def checked_line(record: dict, number: int) -> bytes:
    """A record as one line of JSON, with the line's number in its file (from 1) and a checksum."""
    body = json.dumps({"format": FORMAT, **record, "line": number}, ensure_ascii=False)[:-1].encode()
    return body + b', "check": "%08x"}\n' % zlib.crc32(body)


def number_of_line(end: bytes) -> int:
    """The number of a checked line, from its last LINE_END_BYTES bytes; UNCHECKED where it has none."""
    match = _LINE_END.search(end)
    return int(match[1]) if match else UNCHECKED


def read_line(line: bytes, before: int | None = None) -> tuple[Any, int]:
    """(the value on one line, its number), with the value's checksum taken out; number: UNCHECKED where it has none.

    before: number of the line before; None where it is not known. Errors: ValueError, with the reason in words, for
    what is not JSON, has another checksum, or does not follow the line before.
    """
    try:
        value = json.loads(line.decode(errors="replace"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError("it is not JSON") from error
    number = UNCHECKED
    if isinstance(value, dict) and (value.keys() & _OWN_KEYS or _LINE_REST.search(line)):
        match = _LINE_END.search(line)
        agrees = match and zlib.crc32(line[: match.start(2) - len(', "check": "')]) == int(match[2], 16)
        if not agrees or value.get("format") != FORMAT:
            raise ValueError("its checksum does not agree")
        number = int(match[1])
        for key in _OWN_KEYS:
            del value[key]
    if before is not None and number != before + 1 and (before, number) != (UNCHECKED, UNCHECKED):
        wrong = f"number {number}" if number else "one without a checksum"
        raise ValueError(f"line number {before + 1} should stand here, not {wrong}")
    return value, number


def checked_object(value: dict) -> bytes:
    """A JSON file's content: the object with a checksum over all of it."""
    body = json.dumps({"format": FORMAT, **value}, ensure_ascii=False, indent=1)[: -len("\n}")].encode()
    return body + b',\n "check": "%08x"\n}' % zlib.crc32(body)


def read_object(content: bytes) -> dict:
    """The object in a JSON file's content, with its checksum taken out.

    Errors: ValueError for what is not a JSON object, or has another checksum.
    """
    return _read_object(content)[0]


def is_checked_object(content: bytes) -> bool:
    """Whether a JSON file's content has a checksum. Errors: as `read_object`."""
    return _read_object(content)[1]


def _read_object(content):
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("it holds no object")
    if "format" not in value and "check" not in value and not _FILE_REST.search(content):
        return value, False
    match = _FILE_END.search(content)
    if match is None or zlib.crc32(content[: match.start()]) != int(match[1], 16) or value.get("format") != FORMAT:
        raise ValueError("its checksum does not agree")
    del value["format"], value["check"]
    return value, True
