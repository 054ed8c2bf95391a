"""The tables of a run folder, written and read as DataFrames: a damaged one is a sentence that names the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import WorkbenchError, first_line
from ..base.locks import set_rights

if TYPE_CHECKING:
    import pandas as pd


def read_table(path: Path, needed: tuple[str, ...] = (), columns: list[str] | None = None) -> pd.DataFrame:
    """The DataFrame in a Parquet file of a run. needed: columns that it must have. columns: only these are read.

    Errors: WorkbenchError where the file is missing, damaged or lacks a column.
    """
    import pandas as pd
    import pyarrow

    try:
        table = pd.read_parquet(path, columns=columns, page_checksum_verification=True)
    except FileNotFoundError:
        raise WorkbenchError(f"{str(path)!r} is missing: this part of the run cannot be shown.") from None
    # what Arrow raises for damaged bytes depends on where they lie
    except (OSError, ValueError, TypeError, KeyError, MemoryError, OverflowError, pyarrow.ArrowException) as error:
        raise WorkbenchError(
            f"{str(path)!r} is damaged: {first_line(error)}. Restore it from a copy, or delete it to read the rest."
        ) from None
    if missing := [name for name in needed if name not in table]:
        raise WorkbenchError(f"{str(path)!r} is damaged: it lacks the column {missing[0]!r}.")
    return table


def write_table(path: Path, table: pd.DataFrame, rights: int | None = None) -> None:
    """Replace a Parquet file in one step, with a checksum for every page. Errors: OSError, and those of pyarrow.

    rights: of the file, such as 0o600; by default those that the user's umask leaves.
    """
    unfinished = path.with_suffix(".tmp")
    table.to_parquet(unfinished, index=False, write_page_checksum=True)
    if rights is not None:
        set_rights(unfinished, rights)
    unfinished.replace(path)
