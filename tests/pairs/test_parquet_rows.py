"""What a user would lose: their machine, to a Parquet file of kilobytes that unfolds to terabytes."""

import io

import pyarrow
import pyarrow.parquet
import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.pairs.parquet_rows import open_parquet, parquet_rows

MEGABYTE = "x" * 1_000_000


def written(columns):
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer, row_group_size=5000)
    return buffer.getvalue()


def bomb(count, shape):
    """A column in which one megabyte stands `count` times, as texts or inside turns of lists."""
    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * count, "int32"), pyarrow.array([MEGABYTE]))
    if shape == "texts":
        return written({"prompt": texts})
    turns = pyarrow.StructArray.from_arrays([texts], ["content"])
    return written({"turns": pyarrow.ListArray.from_arrays([0, count], turns)})


@pytest.mark.parametrize(("shape", "seen"), [("texts", "after row 0"), ("turns", "after row 0")])
def test_a_dictionary_bomb_is_refused_before_it_unfolds(shape, seen):
    data = bomb(900, shape)
    assert len(data) < 300_000
    before = pyarrow.total_allocated_bytes()
    with pytest.raises(WorkbenchError, match=f"bomb.parquet unfolds to more than 200,000,000 bytes, {seen}"):
        list(parquet_rows(open_parquet(data), "bomb.parquet", 200_000_000, 50_000_000))
    assert pyarrow.total_allocated_bytes() - before < 50_000_000


def test_one_row_that_unfolds_to_too_much_is_refused():
    with pytest.raises(WorkbenchError, match="has a row of more than 50,000,000 bytes, row 1"):
        list(parquet_rows(open_parquet(bomb(90, "turns")), "x", 10**9, 50_000_000))


def test_ordinary_rows_are_as_they_were():
    """Missing values, nested turns, numbers and dictionaries that the file's author made."""
    columns = {
        "prompt": ["a", None, "b", "a"],
        "turns": [[{"role": "user", "content": "x"}], [], None, [{"role": "user", "content": None}]],
        "n": [1, 2, None, 4],
        "kind": pyarrow.array(["q", "q", "z", None]).dictionary_encode(),
    }
    rows = list(parquet_rows(open_parquet(written(columns)), "x", 10**9, 10**8))
    expected = pyarrow.table(columns).to_pylist()
    assert rows == [(f"row {number}", row) for number, row in enumerate(expected, 1)]
