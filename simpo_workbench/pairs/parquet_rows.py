"""The rows of a Parquet file in bounded memory: a dictionary lets a file of kilobytes unfold to terabytes.

Columns are read as the file stores them, values once and places into them; what a batch unfolds to is known before it
is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..base.errors import WorkbenchError, first_line

if TYPE_CHECKING:
    import pyarrow.parquet

#: Rows are unfolded in pieces of at most so many bytes, or one by one.
_PIECE_BYTES = 64_000_000
_ROWS_AT_ONCE = 1000


def open_parquet(data: bytes) -> pyarrow.parquet.ParquetFile:
    """The ParquetFile in `data`, with texts as places into their dictionaries."""
    import pyarrow
    import pyarrow.parquet

    plain = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
    texts = [
        column.path
        for column in (plain.schema.column(index) for index in range(len(plain.schema)))
        if column.physical_type == "BYTE_ARRAY"
    ]
    return pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data), read_dictionary=texts)


def parquet_rows(file, name: str, most_bytes: int, longest_row: int) -> Iterator[tuple[str, dict]]:
    """The rows of a ParquetFile, each with its place ("row 3").

    most_bytes: to which all rows together may unfold. longest_row: most bytes of one row.
    Errors: WorkbenchError for a file that unfolds to more, or is damaged.
    """
    import pyarrow

    number = unfolded = 0
    try:
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
            size = sum(map(_unfolded_bytes, batch.columns))
            unfolded += size
            if unfolded > most_bytes:
                raise WorkbenchError(
                    f"{name} unfolds to more than {most_bytes:,} bytes, after row {number}: where it is no"
                    " decompression bomb, write it without dictionaries (use_dictionary=False), or split it."
                )
            for piece in _pieces(batch, size):
                if len(piece) == 1 and sum(map(_unfolded_bytes, piece.columns)) > longest_row:
                    raise WorkbenchError(f"{name} has a row of more than {longest_row:,} bytes, row {number + 1}.")
                for row in piece.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise WorkbenchError(f"{name} is a damaged Parquet file, after row {number}: {first_line(error)}") from error


def _pieces(batch, size):
    """The batch in parts that unfold to at most _PIECE_BYTES, or hold one row."""
    if size <= _PIECE_BYTES or len(batch) == 1:
        yield batch
        return
    middle = len(batch) // 2
    for half in (batch.slice(0, middle), batch.slice(middle)):
        yield from _pieces(half, sum(map(_unfolded_bytes, half.columns)))


def _unfolded_bytes(array) -> int:
    """Bytes of an Arrow array once every value stands by itself."""
    import pyarrow
    import pyarrow.compute

    kind = array.type
    if pyarrow.types.is_dictionary(kind):
        lengths = pyarrow.compute.binary_length(array.dictionary)
        total = pyarrow.compute.sum(lengths.cast("int64").take(array.indices))
        return (total.as_py() or 0) + 8 * len(array)
    if pyarrow.types.is_struct(kind):
        return sum(map(_unfolded_bytes, array.flatten()))
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind):
        return _unfolded_bytes(array.flatten()) + 8 * len(array)
    if pyarrow.types.is_map(kind):
        return _unfolded_bytes(array.keys) + _unfolded_bytes(array.items)
    return array.nbytes
