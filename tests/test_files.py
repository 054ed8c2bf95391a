"""Files that grow while they are read: a reader that loses a record, or reads everything each time, misleads or stalls."""

import json

import pytest

from simpo_workbench.files import read_jsonl, records_from_the_end


@pytest.mark.parametrize("count", [1, 5, 3000])
@pytest.mark.parametrize("end", ["", "\n", '\n{"torn": '])
def test_records_from_the_end_are_those_of_the_file_the_other_way_round(tmp_path, count, end):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(json.dumps({"step": step, "text": "é\u2028" * (step % 40)}, ensure_ascii=False) for step in range(count)) + end)
    assert list(records_from_the_end(path)) == read_jsonl(path)[::-1]


def test_a_damaged_line_does_not_hide_the_others(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": 1}\n{"b": \n[1]\n{"c": 3}\n')
    assert list(records_from_the_end(path)) == [{"c": 3}, {"a": 1}]
    assert list(records_from_the_end(tmp_path / "nothing")) == []


def test_the_last_record_of_a_long_file_is_had_without_reading_it_all(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"text": "x" * 1000}) + "\n")
    path.write_text(path.read_text() * 2000)
    seen = []
    loads = json.loads
    monkeypatch.setattr("simpo_workbench.files.json.loads", lambda line: seen.append(line) or loads(line))
    next(records_from_the_end(path))
    assert len([line for line in seen if line]) == 1
