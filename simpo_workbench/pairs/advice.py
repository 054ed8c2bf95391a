"""Errors for data that gave no pair, with advice that was tried on its first rows."""

import re
from collections import Counter

from ..base.errors import WorkbenchError
from .collect import Collector
from .columns import guess_columns, listed
from .shapes import KNOWN_SHAPES, LABELLED


def nothing_kept(report, collector) -> WorkbenchError:
    """The error for a source of which no row made a pair. collector: what was collected."""
    seen, samples, kinds = list(collector.seen_columns), collector.samples, collector.kinds
    if report.rows_read == 0:
        return WorkbenchError(f"{report.name} holds no rows.")
    if kinds.keys() == {LABELLED} and "no partner" in report.first:
        return WorkbenchError(
            f"No usable preference pair. {report} Columns found: {listed(seen)}. It is unpaired feedback (one answer"
            " and a verdict per row, as for KTO): a pair needs a good and a bad answer to the same prompt. Known"
            f" shapes: {KNOWN_SHAPES}."
        )
    if kinds or not seen:
        mapping = None if collector.columns else tried_guess(samples)
        advice = f" Try columns={mapping} (data.columns)." if mapping else ""
        return WorkbenchError(f"No usable preference pair. {report}{advice}")
    return no_shape_error(report, seen, samples)


def no_shape_error(report, seen, samples) -> WorkbenchError:
    """The error for data whose columns fit no known shape."""
    name = report.name
    text = f"{name} holds no preference pairs in a known shape. Columns found: {listed(seen)}. "
    shapes = f"Known shapes: {KNOWN_SHAPES}."
    if guess := tried_guess(samples):
        return WorkbenchError(f"{text}Try columns={guess} (data.columns). {shapes}")
    needed = "every prompt needs a chosen and a rejected answer. "
    reason = next((reason for reason in ("no label", "unclear label", "missing") if reason in report.first), None)
    if reason:
        text += f"At {report.first[reason].where}: {report.first[reason].seen}. "
    elif numbered_answers(seen):
        text += (
            f"It looks like several answers in columns of their own ({listed(numbered_answers(seen))}): make a list of"
            " them in one column `answers`, and a column `ratings` or `ranks` with one number for each. "
        )
    elif "label" in seen or "is_desirable" in seen:
        text += f"It looks like unpaired feedback (one answer and a verdict per row, as for KTO); {needed}"
    elif "messages" in seen or "output" in seen:
        text += f"It looks like supervised answers; {needed}"
    elif re.search(r"\.[ct]sv(\.gz|\.zst)?$", name):
        text += "Is its first line a header? "
    mapping = "columns={'prompt': …, 'chosen': …, 'rejected': …}"
    return WorkbenchError(f"{text}Map other names with {mapping} (data.columns). {shapes}")


def tried_guess(rows) -> dict | None:
    """A mapping guessed from the rows' column names, if at least half of these rows make pairs with it; else None."""
    guess = guess_columns(dict.fromkeys(name for row in rows for name in row))
    if guess is None:
        return None
    collector = Collector("", guess, "best_worst")
    for number, row in enumerate(rows, 1):
        collector.add(f"row {number}", row)
    _, report = collector.finish()
    return guess if 2 * report.kept >= len(rows) else None


def numbered_answers(names) -> list[str]:
    """Three or more columns whose names differ in a number only, such as "prediction 1" to "prediction 4"."""
    stems = Counter(stem for name in names if (stem := _stem(name)) is not None)
    many = next((stem for stem, count in stems.items() if count >= 3), None)
    return [name for name in names if _stem(name) == many] if many is not None else []


def _stem(name):
    stem = re.sub(r"[ _-]?\d+$", "", str(name))
    return stem if stem != name else None
