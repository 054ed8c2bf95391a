"""Column names: the user's mapping onto ours, and a guess where none is given."""

import difflib
from collections.abc import Mapping

from ..base.errors import WorkbenchError
from .judging_words import WORSE, direction_of
from .refused import excerpt

COLUMN_ROLES = ("prompt", "chosen", "rejected", "system")
#: For shapes other than chosen and rejected. answer_0 or answer_1 says from where a label counts, worse_label is one
#: that names the worse answer, and the higher score or the lower rank is the better of two.
MORE_ROLES = (
    "label", "worse_label", "answer", "answer_0", "answer_1", "answer_2", "score_1", "score_2", "rank_1", "rank_2",
    "answers", "ratings", "ranks", "history", "input", "tools",
)  # fmt: skip


def checked_mapping(columns) -> dict[str, str]:
    """{our name: the file's column}; {} for None. Errors: WorkbenchError with the nearest name for an unknown one."""
    if columns is None:
        return {}
    if not isinstance(columns, Mapping):
        raise WorkbenchError(f"columns is {excerpt(columns)}, expected a mapping such as {{'prompt': 'question'}}.")
    columns = {role: column for role, column in columns.items() if column is not None}
    for role, column in columns.items():
        if role not in (*COLUMN_ROLES, *MORE_ROLES):
            near = difflib.get_close_matches(str(role), (*COLUMN_ROLES, *MORE_ROLES), n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise WorkbenchError(f"columns knows {', '.join((*COLUMN_ROLES, *MORE_ROLES))}, not {role!r}.{hint}")
        if not isinstance(column, str):
            raise WorkbenchError(f"columns['{role}'] is {excerpt(column)}, expected the name of a column.")
    if (label := columns.get("label")) is not None and direction_of(label) == WORSE:
        raise WorkbenchError(
            f"columns['label'] names '{label}', and that name says the worse answer. Call it worse_label instead, or"
            " rename the column if it names the better one."
        )
    if len(set(columns.values())) < len(columns):
        raise WorkbenchError(f"columns names one column twice: {columns}.")
    return columns


def check_found(columns, seen, name) -> None:
    """Raise WorkbenchError, with the nearest name, if a mapped column is not among those seen."""
    for role, column in columns.items():
        if column not in seen:
            near = difflib.get_close_matches(column, seen, n=1, cutoff=0.5)
            hint = f" Nearest: '{near[0]}'." if near else ""
            raise WorkbenchError(
                f"columns['{role}'] names '{column}', which {name} does not have. Columns found: {listed(seen)}.{hint}"
            )


def renamed_row(row, columns) -> dict:
    """The row under our names; another column that has one of them already becomes `<name>_in_file`."""
    if not columns:
        return row
    taken = {column: role for role, column in columns.items() if column in row}
    renamed = {}
    for column, value in row.items():
        aside = column not in taken and column in taken.values()
        renamed[free_name(column, row) if aside else taken.get(column, column)] = value
    return renamed


def free_name(column, row) -> str:
    """`<column>_in_file`, lengthened until the row has no such column."""
    column += "_in_file"
    while column in row:
        column += "_in_file"
    return column


def listed(names) -> str:
    """The first twenty names, and how many more there are."""
    shown = ", ".join(excerpt(name)[1:-1] for name in names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")
