"""A checksum that misses a changed byte, or a missing or doubled line, lets a wrong number through."""

import contextlib
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpo_workbench import WorkbenchError
from simpo_workbench.base.checksums import checked_line, checked_object, read_line, read_object
from simpo_workbench.base.files import (
    append_jsonl,
    read_json,
    read_jsonl,
    read_jsonl_backwards,
    require_json,
    write_json,
)

RECORD = {"kind": "train", "step": 3, "loss": 0.25, "text": "é\u2028"}


def test_a_line_ends_with_its_number_and_the_crc_of_what_is_before():
    line = checked_line({"a": 1}, 7)
    body = b'{"format": 1, "a": 1, "line": 7'
    assert line == body + b', "check": "%08x"}\n' % zlib.crc32(body)
    assert read_line(line) == ({"a": 1}, 7)
    assert read_line(b'{"a": 1}\n') == ({"a": 1}, 0), "a line of an earlier version"
    assert read_line(checked_line({}, 1)) == ({}, 1)


def test_a_file_ends_with_the_crc_of_what_is_before():
    content = checked_object({"a": 1})
    body = b'{\n "format": 1,\n "a": 1'
    assert content == body + b',\n "check": "%08x"\n}' % zlib.crc32(body)
    assert read_object(content) == {"a": 1}
    assert read_object(b'{"a": 1}') == {"a": 1}, "a file of an earlier version"


@given(st.data())
def test_no_changed_or_missing_byte_gives_another_value(data):
    for content, read, right in (
        (checked_line(RECORD, 12).rstrip(b"\n"), lambda text: read_line(text)[0], RECORD),
        (checked_object(RECORD), read_object, RECORD),
    ):
        at = data.draw(st.integers(0, len(content) - 1))
        length = data.draw(st.integers(0, 30))
        new = data.draw(st.binary(max_size=2))
        changed = content[:at] + new + content[at + length :]
        with contextlib.suppress(ValueError):
            assert read(changed) == right


def test_no_cut_within_a_line_leaves_another_record():
    """But for "{}", where all is cut: the numbers of the lines around it tell."""
    line = checked_line(RECORD, 12).rstrip(b"\n")
    for start in range(len(line)):
        for end in range(start + 1, len(line)):
            with contextlib.suppress(ValueError):
                assert read_line(line[:start] + line[end:])[0] in (RECORD, {})


@pytest.fixture
def path(tmp_path):
    for step in range(1, 6):
        append_jsonl(tmp_path / "metrics.jsonl", {"step": step})
    return tmp_path / "metrics.jsonl"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines[:2] + lines[3:], "line 3 is damaged: line number 3 should stand here, not number 4"),
        (lambda lines: lines[:3] + lines[2:], "line 4 is damaged: line number 4 should stand here, not number 3"),
        (lambda lines: lines[1:], "line 1 is damaged: line number 1 should stand here, not number 2"),
        (lambda lines: lines * 2, "line 6 is damaged: line number 6 should stand here, not number 1"),
        (lambda lines: [*lines, b'{"step": 6}\n'], "line 6 is damaged"),
        (lambda lines: [lines[0].replace(b"1", b"2", 1), *lines[1:]], "line 1 is damaged: its checksum"),
        (lambda lines: [*lines[:-1], lines[-1].replace(b"5", b"7", 1)], "line 5 is damaged: its checksum"),
    ],
)
def test_a_missing_doubled_or_changed_line_is_named(path, change, words):
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(WorkbenchError, match=words):
        read_jsonl(path)


def test_the_newest_record_is_not_replaced_by_an_older_one_without_a_word(path):
    assert [record["step"] for record in read_jsonl_backwards(path, strict=True)] == [5, 4, 3, 2, 1]
    content = path.read_bytes()
    path.write_bytes(content + b'{"step": 6, "li')
    assert next(read_jsonl_backwards(path, strict=True)) == {"step": 5}, "a torn line was never a record"
    path.write_bytes(content.replace(b'"step": 5', b'"step": 8'))
    assert next(read_jsonl_backwards(path)) == {"step": 4}
    with pytest.raises(WorkbenchError, match="its checksum does not agree"):
        next(read_jsonl_backwards(path, strict=True))
    lines = content.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], lines[4]]))
    with pytest.raises(WorkbenchError, match="the line before number 5 is missing"):
        list(read_jsonl_backwards(path, strict=True))


def test_lines_are_numbered_on_behind_those_of_an_earlier_version(tmp_path):
    path = tmp_path / "changes.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    append_jsonl(path, {"step": 3})
    append_jsonl(path, {"step": 4})
    assert [json.loads(line).get("line") for line in path.read_text().splitlines()] == [None, None, 1, 2]
    assert [record["step"] for record in read_jsonl(path)] == [1, 2, 3, 4]


def test_a_damaged_json_file_is_not_taken_for_a_missing_one(tmp_path):
    path = tmp_path / "status.json"
    assert require_json(path) is None
    write_json(path, {"step": 120})
    assert read_json(path) == require_json(path) == {"step": 120}
    path.write_bytes(path.read_bytes().replace(b"120", b"121"))
    assert read_json(path) is None
    with pytest.raises(WorkbenchError, match="status.json' is damaged"):
        require_json(path)
