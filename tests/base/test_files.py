"""Files that grow while they are read: a reader that loses a record, or reads everything each time, misleads or
stalls.
"""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_inputs import JSON_VALUES
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from simpo_workbench import WorkbenchError
from simpo_workbench.base.files import append_jsonl, create_jsonl, read_jsonl, read_jsonl_backwards, read_jsonl_from


@pytest.mark.parametrize("count", [1, 5, 3000])
@pytest.mark.parametrize("end", ["", "\n", '\n{"torn": '])
def test_records_read_backwards_are_those_of_the_file_the_other_way_round(tmp_path, count, end):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        "\n".join(
            json.dumps({"step": step, "text": "é\u2028" * (step % 40)}, ensure_ascii=False) for step in range(count)
        )
        + end
    )
    assert list(read_jsonl_backwards(path)) == read_jsonl(path)[::-1]


def test_a_damaged_line_does_not_hide_the_others(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": 1}\n{"b": \n[1]\n{"c": 3}\n')
    assert list(read_jsonl_backwards(path)) == [{"c": 3}, {"a": 1}]
    assert list(read_jsonl_backwards(tmp_path / "nothing")) == []


def test_a_blank_line_in_the_middle_is_damage_and_one_at_the_end_is_not(tmp_path):
    path = tmp_path / "changes.jsonl"
    path.write_text('{"a": 1}\n\n')
    assert read_jsonl(path) == [{"a": 1}]
    path.write_text('{"a": 1}\n\n{"b": 2}\n')
    with pytest.raises(WorkbenchError, match="line 2 is damaged: ''"):
        read_jsonl(path)
    assert read_jsonl_from(path) == ([{"a": 1}, {"b": 2}], 19)
    assert list(read_jsonl_backwards(path)) == [{"b": 2}, {"a": 1}]


def test_the_last_record_of_a_long_file_is_had_without_reading_it_all(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"text": "x" * 1000}) + "\n")
    path.write_text(path.read_text() * 2000)
    seen = []
    loads = json.loads
    monkeypatch.setattr("simpo_workbench.base.files.json.loads", lambda line: seen.append(line) or loads(line))
    next(read_jsonl_backwards(path))
    assert len([line for line in seen if line]) == 1


def test_processes_that_write_to_one_file_at_once_lose_no_record(tmp_path):
    """What another writer has not finished looks like a torn line; cutting it off would cut off what is being saved."""
    path = tmp_path / "votes.jsonl"
    code = """
import os, sys
from pathlib import Path
os.fsync = lambda _: None  # the disk's time is not what is tried here
from simpo_workbench.base.files import append_jsonl
for number in range(300):
    append_jsonl(Path(sys.argv[1]), {"writer": sys.argv[2], "number": number, "text": "x" * 20_000})
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), str(n)]) for n in range(4)]
    assert [writer.wait(120) for writer in writers] == [0] * 4
    records = read_jsonl(path)
    assert len(records) == 1200
    for writer in range(4):
        assert [record["number"] for record in records if record["writer"] == str(writer)] == list(range(300))


def test_a_file_system_without_locks_takes_records_all_the_same(tmp_path, monkeypatch):
    path = tmp_path / "votes.jsonl"

    def fails_with(number):
        def flock(*_):
            raise OSError(number, "no locks")

        return flock

    for number in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP):
        monkeypatch.setattr("simpo_workbench.base.locks.fcntl.flock", fails_with(number))
        append_jsonl(path, {"error": number})
    assert len(read_jsonl(path)) == 3
    monkeypatch.setattr("simpo_workbench.base.locks.fcntl.flock", fails_with(errno.EIO))
    with pytest.raises(OSError, match="no locks"):
        append_jsonl(path, {})
    assert len(read_jsonl(path)) == 3


def test_a_record_makes_a_missing_file_only_where_that_is_wanted(tmp_path):
    path = tmp_path / "votes.jsonl"
    with pytest.raises(FileNotFoundError):
        append_jsonl(path, {"a": 1}, create=False)
    assert not path.exists()
    append_jsonl(path, {"a": 1})
    append_jsonl(path, {"b": 2}, create=False)
    assert read_jsonl(path) == [{"a": 1}, {"b": 2}]


def test_a_file_is_read_on_from_where_the_last_whole_line_ended(tmp_path):
    path = tmp_path / "votes.jsonl"
    path.write_bytes('\ufeff{"a": "é\u2028"}\n{"torn": '.encode())
    records, end = read_jsonl_from(path)
    assert records == [{"a": "é\u2028"}]
    assert read_jsonl(path) == records
    assert read_jsonl_from(path, end) == ([], end)
    append_jsonl(path, {"b": 2})
    assert read_jsonl_from(path, end) == ([{"b": 2}], path.stat().st_size)
    for start in (end - 1, end + 1000):
        with pytest.raises(WorkbenchError, match="something other than appended lines"):
            read_jsonl_from(path, start)
    path.write_text("{}\nnothing\n")
    with pytest.raises(WorkbenchError, match="line 2 is damaged: 'nothing'"):
        read_jsonl_from(path)


def test_a_file_that_is_there_is_never_made_again(tmp_path):
    path = tmp_path / "pairs.jsonl"
    create_jsonl(path, [{"a": 1}, {"b": 2}])
    with pytest.raises(FileExistsError):
        create_jsonl(path, [])
    assert read_jsonl(path) == [{"a": 1}, {"b": 2}]
    with pytest.raises(WorkbenchError, match="cannot be written"):
        create_jsonl(tmp_path / "nowhere" / "pairs.jsonl", [])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=80)
    | st.lists(JSON_VALUES.map(json.dumps), max_size=4).map(lambda lines: "\n".join(lines).encode())
)
@example(content=b'{"a": ' * 100_000)
@example(content=b'{"a": ' * 100_000 + b"\n{}\n")
@example(content=b"9" * 5000 + b"\n{}\n")
@example(content=b"\xff\xfe\n\0\n{}")
def test_any_metrics_file_is_records_or_a_sentence(content, tmp_path):
    """A damaged line in the metrics of a finished run must not hide all of its charts behind a traceback."""
    (tmp_path / "metrics.jsonl").write_bytes(content)
    try:
        records = read_jsonl(tmp_path / "metrics.jsonl")
    except WorkbenchError as error:
        assert "metrics.jsonl, line" in str(error)
        assert len(str(error)) < 400
    else:
        assert all(isinstance(record, dict) for record in records)


def test_a_line_that_is_completed_while_it_is_read_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2, 3):
        append_jsonl(path, {"step": step})
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    read_bytes = Path.read_bytes

    def read_and_let_the_writer_go_on(self):
        content = read_bytes(self)
        self.write_bytes(whole)
        return content

    monkeypatch.setattr(Path, "read_bytes", read_and_let_the_writer_go_on)
    assert [record["step"] for record in read_jsonl(path)] == [1, 2]
    assert [record["step"] for record in read_jsonl(path)] == [1, 2, 3]
