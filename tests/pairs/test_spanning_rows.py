"""What a user would lose: a file of good pairs refused without a word on what is wrong with its lines."""

import json

import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.pairs.pairs import load_pairs

ROWS = [{"prompt": f"Question {n}?", "chosen": f"a{n} {{", "rejected": f"b{n}"} for n in range(3)]
PRETTY = [json.dumps(row, indent=2) for row in ROWS]


def read(tmp_path, text, name):
    (tmp_path / name).write_text(text)
    return load_pairs(tmp_path / name)


@pytest.mark.parametrize("between", ["\n", "", "\n\n  "])
def test_a_json_file_of_several_objects_on_many_lines_is_read(between, tmp_path):
    pairs = read(tmp_path, between.join(PRETTY), "a.json")
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [(row["chosen"], row["rejected"]) for row in ROWS]
    assert pairs.report().rows_read == 3


def test_the_place_of_a_row_is_the_line_on_which_it_begins(tmp_path):
    pairs = read(tmp_path, "\n" + "\n".join(PRETTY), "a.json")
    assert [pair.where for pair in pairs] == ["line 2", "line 7", "line 12"]


def test_a_broken_object_among_them_is_one_refused_row(tmp_path):
    broken = PRETTY[1].replace('"chosen":', '"chosen"')
    pairs = read(tmp_path, "\n".join([PRETTY[0], broken, PRETTY[2]]), "a.json")
    report = pairs.report()
    assert [pair.where for pair in pairs] == ["line 1", "line 11"]
    assert report.refused == {"unreadable": 1}
    assert report.first["unreadable"].where == "line 6"
    assert "line 8" in report.first["unreadable"].seen  # where its colon is missing


def test_a_file_that_is_cut_off_is_said_to_be(tmp_path):
    report = read(tmp_path, "\n".join(PRETTY)[:-10], "a.json").report()
    assert (report.kept, report.refused) == (2, {"unreadable": 1})


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson"])
def test_objects_over_several_lines_in_json_lines_are_named_with_what_to_do(name, tmp_path):
    with pytest.raises(WorkbenchError, match="objects span several lines: the first has 5") as refused:
        read(tmp_path, "\n".join(PRETTY), name)
    assert "one object per line" in str(refused.value)
    assert ".json" in str(refused.value)


def test_one_such_object_among_good_lines_is_refused_with_the_reason(tmp_path):
    report = read(tmp_path, f"{json.dumps(ROWS[0])}\n{PRETTY[1]}\n{json.dumps(ROWS[2])}\n", "a.jsonl").report()
    assert report.kept == 2
    assert "an object must stand on one line" in report.first["unreadable"].seen


def test_json_lines_with_a_broken_first_line_are_still_read_line_by_line(tmp_path):
    """Only the broken line is lost."""
    lines = [json.dumps(row) for row in ROWS]
    assert len(read(tmp_path, "\n".join([lines[0][:-3], *lines[1:]]), "a.jsonl")) == 2
    assert len(read(tmp_path, "\n".join(lines), "b.json")) == 3
