"""What a user would lose: a thousand good records, to one flipped byte; or the truth, to a line that looks whole."""

import json

import pytest

from simpo_workbench.base.checksums import checked_line
from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.base.whole_lines import named, read_whole_lines

RECORDS = [{"step": step} for step in range(1, 7)]
LINES = [checked_line(record, number) for number, record in enumerate(RECORDS, 1)]


def left(tmp_path, lines):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"".join(lines))
    whole = read_whole_lines(path)
    return [record["step"] for record in whole.records], named(whole.damaged), whole.before


@pytest.mark.parametrize(
    ("lines", "steps", "words", "before"),
    [
        (LINES, [1, 2, 3, 4, 5, 6], "", 0),
        ([*LINES[:2], LINES[2].replace(b"3", b"7", 1), *LINES[3:]], [1, 2, 4, 5, 6], "line 3: its checksum", 2),
        ([*LINES[:2], b"\0" * 20 + b"\n", *LINES[3:]], [1, 2, 4, 5, 6], "line 3: it is not JSON", 2),
        ([*LINES[:2], *LINES[4:]], [1, 2, 5, 6], "line 3: 2 lines before it are missing", 2),
        ([*LINES[:2], LINES[1], *LINES[2:]], [1, 2, 3, 4, 5, 6], "line 3: it is line number 2 once more", 2),
        ([*LINES[:2], b'{"step": 9}\n', *LINES[2:]], [1, 2, 3, 4, 5, 6], "line 3: it has no checksum", 2),
        ([*LINES[:5], LINES[5][:9]], [1, 2, 3, 4, 5], "", 0),
        ([*LINES[:5], LINES[5][:-1]], [1, 2, 3, 4, 5, 6], "", 0),
    ],
    ids=["whole", "flipped", "zeros", "missing", "doubled", "foreign", "torn", "no line end"],
)
def test_whole_lines_are_read_and_damaged_ones_named(tmp_path, lines, steps, words, before):
    found, said, place = left(tmp_path, lines)
    assert (found, place) == (steps, before)
    assert said.startswith(words) if words else said == ""


def test_a_damaged_line_without_checksums_ends_the_reading_as_before(tmp_path):
    with pytest.raises(WorkbenchError, match="records.jsonl, line 2 is damaged"):
        left(tmp_path, [json.dumps(RECORDS[0]).encode() + b"\n", b'{"step": \n', b'{"step": 3}\n'])


def test_lines_with_checksums_may_follow_those_of_an_earlier_version(tmp_path):
    old = [b'{"step": -1}\n', b'{"step": 0}\n']
    assert left(tmp_path, [*old, *LINES]) == ([-1, 0, 1, 2, 3, 4, 5, 6], "", 0)


def test_a_missing_file_is_empty_and_a_folder_is_said(tmp_path):
    assert read_whole_lines(tmp_path / "nothing.jsonl").records == []
    with pytest.raises(WorkbenchError, match="cannot be read"):
        read_whole_lines(tmp_path)


def test_of_many_damaged_lines_the_first_are_named():
    assert named(dict.fromkeys(range(1, 9), "wrong"), most=2) == "line 1: wrong; line 2: wrong; and 6 more"
