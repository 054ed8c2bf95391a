"""Errors for data that gave no pair, with advice that was tried on its first rows."""

import re
from collections import Counter

from ..base.errors import WorkbenchError
from .collect import Collector
from .columns import listed, renamed_row
from .framed_prompts import REASON as FRAMED
from .guesses import pair_mappings, side_mappings, verdict_mappings
from .judge_prompts import are_judged, is_judged
from .load_report import LoadReport
from .pair import Pair
from .refused import excerpt
from .remarks import is_lost, may_be_shown
from .shapes import LABELLED, match_of

_SHAPES = "docs/data-shapes.md has an example of every known shape."


def nothing_kept(report, collector) -> WorkbenchError:
    """The error for a source of which no row made a pair. collector: what was collected."""
    seen, samples, kinds = list(collector.seen_columns), collector.samples, collector.kinds
    if report.rows_read == 0:
        return WorkbenchError(f"{report.name} holds no rows.")
    if kinds.keys() == {LABELLED} and "no partner" in report.first:
        return WorkbenchError(
            f"No usable preference pair. {report} Columns found: {listed(seen)}. It is unpaired feedback (one answer"
            f" and a verdict per row, as for KTO): a pair needs a good and a bad answer to the same prompt. {_SHAPES}"
        )
    if kinds or not seen or FRAMED in report.first:
        mapping = None if collector.columns else tried_guess(samples)
        advice = f" Try columns={mapping} (data.columns)." if mapping else ""
        return WorkbenchError(f"No usable preference pair. {report}{advice}")
    return no_shape_error(report, seen, samples)


def judged_error(pairs, collector) -> WorkbenchError | None:
    """The error for pairs whose prompts are a judge's on a clear majority, with a mapping for each reading; else None.

    Pairs whose prompt the user mapped, and those that were loaded before (with a pair_id), are taken as they are.
    """
    if "prompt" in collector.columns or "pair_id" in collector.seen_columns or not are_judged(pairs):
        return None
    matches = (match_of(renamed_row(row, collector.columns)) for row in collector.samples)
    shown = next((found.prompt for found in matches if found and found.prompt), None)
    if shown is None:
        return None  # the prompt stands inside the answers, and no mapping could keep it
    judged = next(filter(is_judged, pairs))
    asked = next(
        (
            name
            for name, value in judged.extra.items()
            if may_be_shown(name) and not is_lost(judged, value) and _asks(name, collector)
        ),
        None,
    )
    question = f"columns={{'prompt': '{asked}'}}" if asked else "columns={'prompt': …} with the column of the question"
    return WorkbenchError(
        f"{collector.name} has a judge's prompts: '{shown}' quotes both answers whole and calls them answers"
        f" ({judged.where}: {excerpt(judged.prompt_text)}), so a model would be trained on judging. Give {question}; to"
        f" train on them all the same, columns={{'prompt': '{shown}'}} (data.columns)."
    )


def _asks(name, collector):
    """Whether half of the first rows make pairs with this column as the prompt, and none is a judge's."""
    pairs, report = tried(collector.samples, collector.columns | {"prompt": name})
    return 2 * report.kept >= len(collector.samples) and not any(map(is_judged, pairs))


def no_shape_error(report, seen, samples) -> WorkbenchError:
    """The error for data whose columns fit no known shape: first what to do, then what was found."""
    start = f"{report.name} holds no preference pairs in a known shape. "
    end = f" Columns found: {listed(seen)}. {_SHAPES}"
    mapping, unclear = tried_mapping(samples)
    if mapping:
        return WorkbenchError(f"{start}Try columns={mapping} (data.columns).{end}")
    if unclear:
        return WorkbenchError(f"{start}It looks like two answers and a label, but {unclear}.{end}")
    return WorkbenchError(f"{start}{_what_is_missing(report, seen)}{end}")


def _what_is_missing(report, seen):
    """What rows of no known shape lack, and what to do; a mapping to chosen and rejected only where it may be right."""
    reasons = ("no label", "unclear label", "missing", "no known shape")
    reason = next((reason for reason in reasons if reason in report.first), None)
    if reason in ("no label", "unclear label"):
        return f"At {report.first[reason].where}: {report.first[reason].seen}."
    if numbered_answers(seen):
        return (
            f"It looks like several answers in columns of their own ({listed(numbered_answers(seen))}): make a list of"
            " them in one column `answers`, and a column `ratings` or `ranks` with one number for each."
        )
    map_names = "Map other names with columns={'prompt': …, 'chosen': …, 'rejected': …} (data.columns)."
    needed = "every prompt needs a chosen and a rejected answer. "
    if "label" in seen or "is_desirable" in seen:
        return f"It looks like unpaired feedback (one answer and a verdict per row, as for KTO); {needed}{map_names}"
    if reason == "missing":
        return f"At {report.first[reason].where}: {report.first[reason].seen}. {map_names}"
    if "messages" in seen or "output" in seen:
        return f"It looks like supervised answers; {needed}{map_names}"
    header = "Is its first line a header? " if re.search(r"\.[ct]sv(\.gz|\.zst)?$", report.name) else ""
    return header + map_names


def tried(rows: list[dict], columns: dict[str, str]) -> tuple[list[Pair], LoadReport]:
    """(the pairs that these raw rows make with a checked mapping, the report on them)."""
    collector = Collector("the first row" if len(rows) == 1 else f"the first {len(rows)} rows", columns, "best_worst")
    for number, row in enumerate(rows, 1):
        collector.add(f"row {number}", row)
    return collector.finish()


def tried_guess(rows) -> dict | None:
    """A mapping to prompt, chosen and rejected with which at least half of these rows make pairs; else None."""
    return _first_that_reads(rows, pair_mappings(rows))[0]


def tried_mapping(rows) -> tuple[dict | None, str]:
    """(a mapping of any kind with which at least half of these rows make pairs, or None; why a label is unclear)."""
    mapping = tried_guess(rows)
    if mapping:
        return mapping, ""
    mapping, unclear = _first_that_reads(rows, side_mappings(rows))
    return (mapping, "") if mapping else (_first_that_reads(rows, verdict_mappings(rows))[0], unclear)


def _first_that_reads(rows, mappings):
    unclear = ""
    for mapping in mappings:
        _, report = tried(rows, mapping)
        if 2 * report.kept >= len(rows):
            return mapping, ""
        if not unclear and "unclear label" in report.first:
            unclear = report.first["unclear label"].seen
    return None, unclear


def numbered_answers(names) -> list[str]:
    """Three or more columns whose names differ in a number or a letter only, such as "answer 1" to "answer 3"."""
    stems = Counter(stem for name in names if (stem := _stem(name)) is not None)
    many = next((stem for stem, count in stems.items() if count >= 3), None)
    return [name for name in names if _stem(name) == many] if many is not None else []


def _stem(name):
    stem = re.sub(r"(?:[ _-]?\d+|[ _-][a-fA-F]|(?<=[a-z])[A-F])$", "", str(name))
    return stem if stem != name else None
