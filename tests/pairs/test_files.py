"""What a user would lose: the kernel that holds the work, to a file made to fill the memory or break the reader."""

import gzip
import json

import pytest
from hostile_inputs import JSON_VALUES, LOAD, sentence, within_memory
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.pairs import files as pair_files
from simpo_workbench.pairs.pairs import load_pairs

pytestmark = pytest.mark.timeout(120)  # so that what hangs fails


def bomb_of(megabytes, path):
    """A gzip file that unfolds to so many megabytes of blanks: many members, each of ten."""
    path.write_bytes(gzip.compress(b" " * 10_000_000, 9) * (megabytes // 10))
    return path


def test_a_decompression_bomb_is_stopped_at_the_stated_limit(tmp_path):
    """One megabyte on disk must not become one gigabyte in the kernel that holds the user's work."""
    path = bomb_of(1000, tmp_path / "bomb.jsonl.gz")
    said = within_memory(700, LOAD, path)
    assert said.startswith("refused: bomb.jsonl.gz (")
    assert f"at most {pair_files.MOST_EXPANSION} times its size" in said
    assert "unpack it yourself" in said


def test_an_ordinary_compressed_file_is_read(tmp_path):
    """Very repetitive pairs are packed very well, and are still pairs."""
    rows = "".join(
        json.dumps({"prompt": f"p{n}", "chosen": "yes " * 500, "rejected": "no " * 500}) + "\n" for n in range(2000)
    )
    (tmp_path / "a.jsonl.gz").write_bytes(packed := gzip.compress(rows.encode(), 9))
    assert len(rows) > 100 * len(packed)
    assert len(load_pairs(tmp_path / "a.jsonl.gz")) == 2000


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_a_row_of_two_hundred_megabytes_is_refused_in_bounded_memory(kind, tmp_path):
    """It is counted like every other row that cannot be used, and the good one beside it is kept."""
    path, huge = tmp_path / f"a.{kind}", "x" * 200_000_000
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    with open(path, "w") as file:
        if kind == "csv":
            file.write(f"prompt,chosen,rejected\np,{huge},b\nq,a,b\n")
        else:
            rows = [f'{{"prompt": "p", "chosen": "{huge}", "rejected": "b"}}', json.dumps(good)]
            file.write(f"[{', '.join(rows)}]" if kind == "json" else "\n".join(rows))
    del huge
    said = within_memory(1200, LOAD, path)
    path.unlink()
    assert "2 rows read, 1 kept, 1 refused" in said
    assert ("field larger than field limit (10000000)" if kind == "csv" else "too long 1") in said
    assert len(said) < 400


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": "p", "chosen": "a", "rejected": "b", "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"prompt": ' + '{"a": ' * 5000 + "1" + "}" * 5000 + ', "chosen": "a", "rejected": "b"}',
        "[" * 1_000_000,
        '{"a": ' * 200_000,
    ],
    ids=range(4),
)
def test_deep_nesting_is_a_refused_row_and_no_crash(line, tmp_path):
    """One such row must not cost the others, let alone the interpreter."""
    good = json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"})
    (tmp_path / "a.jsonl").write_text(f"{good}\n{line}\n")
    report = load_pairs(tmp_path / "a.jsonl").report()
    assert (report.kept, report.refused) == (1, {"unreadable": 1})


@pytest.mark.parametrize("value", ["9" * 100_000, "-" + "9" * 5000, "1e999999", "1" + "0" * 400, "0." + "1" * 100_000])
def test_a_huge_number_beside_a_pair_does_no_harm(value, tmp_path):
    """Python refuses to write out numbers of more than 4300 digits, in the middle of whatever it was doing."""
    (tmp_path / "a.jsonl").write_text(f'{{"prompt": "p", "chosen": "a", "rejected": "b", "x": {value}}}\n')
    pairs = load_pairs(tmp_path / "a.jsonl")
    assert len(pairs) == 1
    pairs.to_frame().to_parquet(tmp_path / "a.parquet")


def test_rows_with_columns_of_their_own_do_not_make_an_endless_table(tmp_path):
    """Every pair gets a cell in every column: ten thousand rows with a key each would be a hundred million cells."""
    (tmp_path / "a.jsonl").write_text(
        "".join(
            json.dumps({"prompt": f"p{n}", "chosen": "a", "rejected": "b", f"id-{n}": 1}) + "\n" for n in range(2000)
        )
    )
    with pytest.raises(WorkbenchError) as error:
        load_pairs(tmp_path / "a.jsonl")
    assert "more than 1,000 different columns, at line 998" in sentence(error)


def test_a_csv_cell_that_python_would_have_to_read_is_bounded(tmp_path):
    """Reading a list as Python prints it takes a hundred times its length in memory."""
    cell = "[" + ", ".join("{'role': 'user', 'content': 'x'}" for _ in range(100_000)) + "]"
    (tmp_path / "a.csv").write_text(f'prompt,chosen,rejected\n"{cell}",a,b\nq,a,b\n')
    assert "unreadable 1" in within_memory(400, LOAD, tmp_path / "a.csv")


@settings(max_examples=150, deadline=None)
@given(JSON_VALUES)
@example([{"prompt": [], "chosen": [], "rejected": []}])
@example([[["a"]]])
@example([{"prompt": {"role": "user", "content": [{"type": "text", "text": None}]}, "chosen": "a", "rejected": "b"}])
def test_pairs_from_any_json_value_are_pairs_or_a_sentence(value):
    """Whatever a data set holds, its reader speaks in its own words."""
    try:
        pairs = load_pairs(
            [value] if isinstance(value, str) else value
        )  # a text would be looked up as a file, then on the hub
    except WorkbenchError as error:
        assert str(error)
    else:
        assert len(pairs.df) == len(pairs) > 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(JSON_VALUES, max_size=4),
    suffix=st.sampled_from(["jsonl", "json", "csv", "jsonl.gz"]),
    cut=st.integers(0, 12),
)
def test_files_of_any_json_values_are_pairs_or_a_sentence(rows, suffix, cut, tmp_path):
    """The same for a file, also for one whose end is missing."""
    text = json.dumps(rows) if suffix == "json" else "".join(json.dumps(row) + "\n" for row in rows)
    text = text[: len(text) - cut]
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    try:
        pairs = load_pairs(path)
    except WorkbenchError as error:
        assert "\n" not in str(error)
    else:
        assert pairs.report().rows_read == len(pairs) + sum(pairs.report().refused.values())


ROWS = [{"prompt": f"Q{n}?", "chosen": f"Good {n}.", "rejected": f"Bad {n}."} for n in range(4)]


def test_the_splits_of_a_json_object_that_are_not_read_are_named(tmp_path):
    path = tmp_path / "both.json"
    path.write_text(json.dumps({"train": ROWS[:2], "test": ROWS[2:3], "about": "me", "valid": ROWS[3:]}))
    pairs = load_pairs(path)
    assert len(pairs) == 2
    assert "Only 'train' of both.json was read, not 'test', 'valid'" in str(pairs.report())
    assert "Only 'train' of both.json was read" in str(load_pairs(tmp_path).report())
    path.write_text(json.dumps({"train": ROWS}))
    assert load_pairs(path).report().notes == ()


@pytest.mark.parametrize("as_lists", [True, False])
def test_json_by_columns_is_refused_with_what_to_do(tmp_path, as_lists):
    path = tmp_path / "columns.json"
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    if not as_lists:  # as df.to_json() writes it
        columns = {name: {str(n): cell for n, cell in enumerate(cells)} for name, cells in columns.items()}
    path.write_text(json.dumps(columns))
    with pytest.raises(
        WorkbenchError, match=r"one list for each column \(prompt, chosen, rejected\).*orient='records'"
    ):
        load_pairs(path)


def test_one_row_with_lists_is_no_table_of_columns(tmp_path):
    path = tmp_path / "row.json"
    path.write_text(json.dumps({"prompt": "Q?", "chosen": ["Good."], "rejected": ["Bad."]}))
    assert load_pairs(path)[0].chosen == "Good."
