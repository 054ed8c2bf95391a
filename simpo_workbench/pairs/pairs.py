"""Preference pairs from any common source in one schema: checked row by row, split by prompt, identified by content.

Start at `load_pairs`. `files` and `hub` find the raw rows, `shapes` says what one row means, and here they become
`Pairs`. A row that cannot be used is refused with a reason and a place, never dropped silently.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import WorkbenchError, first_line
from ..base.paths import bundled
from ..config.run_config import DEMO
from . import columns as pair_columns
from . import files as pair_files
from .framed_prompts import marks_note, unframed
from .pair import Pair, pair_id, prompt_key, prompt_text
from .shapes import LONGEST_ROW, RowRefused, excerpt, read_row, shape_of, too_long

if TYPE_CHECKING:
    import pandas

__all__ = ["LoadReport", "Pair", "Pairs", "Refusal", "load_pairs", "prompt_text", "raw_rows"]

OWN_COLUMNS = ("pair_id", "prompt", "chosen", "rejected")
DEEPEST_NESTING = 100
MOST_COLUMNS = 1000  # every pair gets a cell in every column


@dataclass(frozen=True)
class Refusal:
    """The first row refused for one reason: its place ("line 17", "row 3", counted from 1) and what was seen there."""

    where: str
    seen: str


@dataclass(frozen=True)
class LoadReport:
    """How many rows were read, kept and refused: `rows_read` = `kept` + the sum of `refused`.

    refused: {reason: count}. first: {reason: its first Refusal}.
    """

    name: str
    rows_read: int
    kept: int
    refused: dict[str, int]
    first: dict[str, Refusal]
    notes: tuple[str, ...] = ()

    def __str__(self):
        text = f"{self.name}: {_count(self.rows_read, 'row')} read, {self.kept} kept"
        if self.refused:
            reasons = (
                f"{reason} {count} (first: {self.first[reason].where}, {self.first[reason].seen})"
                for reason, count in self.refused.items()
            )
            text += f", {sum(self.refused.values())} refused: {'; '.join(reasons)}"
        return ". ".join((text, *self.notes)) + "."


class Pairs:
    """Checked preference pairs in one schema. Iteration and indexing give `Pair` objects, a slice gives Pairs."""

    def __init__(self, pairs, report):
        self._pairs = tuple(pairs)
        self._report = report
        self._df = None

    @property
    def name(self) -> str:
        """The name of the source: its file, folder or hub id, or the name given."""
        return self._report.name

    @property
    def df(self) -> pandas.DataFrame:
        """One row per pair: pair_id, prompt (list of {"role", "content"}), chosen, rejected, then the other columns."""
        if self._df is None:
            self._df = _frame(self._pairs)
        return self._df

    @property
    def content_hash(self) -> str:
        """64 hex digits over the pair ids: the same for the same set of pairs in any order and file format."""
        return hashlib.sha256("\n".join(sorted(pair.pair_id for pair in self._pairs)).encode("ascii")).hexdigest()

    def report(self) -> LoadReport:
        """The LoadReport of the load that these pairs came from; as text it is one sentence."""
        return self._report

    def to_frame(self) -> pandas.DataFrame:
        """A new DataFrame like `.df` for a Parquet file: a column of mixed or unstorable values becomes JSON text."""
        return _storable(_frame(self._pairs))

    def limit(self, count) -> Pairs:
        """The first `count` pairs as Pairs; all of them for None."""
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise WorkbenchError(f"limit is {count!r}, expected a whole number from 1, or None for all pairs.")
        return Pairs(self._pairs[:count], self._report)

    def split(self, eval_fraction, seed) -> tuple[Pairs, Pairs]:
        """(training pairs, held-out pairs) with no prompt on both sides.

        eval_fraction: share of the prompts that is held out; at least one is on each side. The split depends on the
        prompts' contents and the seed alone, not on the order of the rows. Errors: WorkbenchError when there are fewer
        than two different prompts.
        """
        if isinstance(eval_fraction, bool) or not isinstance(eval_fraction, int | float) or not 0 < eval_fraction < 1:
            raise WorkbenchError(f"eval_fraction is {eval_fraction!r}, expected a number between 0 and 1.")
        keys = [prompt_key(pair.prompt) for pair in self._pairs]
        prompts = sorted(set(keys), key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
        if len(prompts) < 2:
            raise WorkbenchError(
                f"{self.name} has {_count(len(prompts), 'prompt')}: a split by prompt needs two. Add pairs, or give"
                " evaluation data of its own."
            )
        held_out = set(prompts[: min(max(round(len(prompts) * eval_fraction), 1), len(prompts) - 1)])
        train = [pair for pair, key in zip(self._pairs, keys, strict=True) if key not in held_out]
        evaluation = [pair for pair, key in zip(self._pairs, keys, strict=True) if key in held_out]
        return Pairs(train, self._report), Pairs(evaluation, self._report)

    def __len__(self):
        return len(self._pairs)

    def __iter__(self):
        return iter(self._pairs)

    def __getitem__(self, index):
        return Pairs(self._pairs[index], self._report) if isinstance(index, slice) else self._pairs[index]

    def __repr__(self):
        return f"<Pairs {self.name!r}: {_count(len(self), 'pair')}, content {self.content_hash[:12]}>"

    def __str__(self):
        prompts = _count(len({prompt_key(pair.prompt) for pair in self._pairs}), "prompt")
        pairs, content = _count(len(self), "pair"), self.content_hash[:12]
        lines = [f"{self.name}: {pairs} on {prompts}, content {content}", str(self._report)]
        if self._pairs:
            first = self._pairs[0]
            shown = (("prompt", first.prompt_text), ("chosen", first.chosen), ("rejected", first.rejected))
            lines += [f"  {label:<8}  {excerpt(text, 100)}" for label, text in shown]
            lines += [f"  columns   {', '.join(_extra_columns(self._pairs))}"] if _extra_columns(self._pairs) else []
        return "\n".join(lines)


def prompt_list(prompts) -> list:
    """A list of the prompts: of one text, or of an iterable such as a column of a DataFrame.

    Errors: WorkbenchError for anything else.
    """
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, Iterable) or isinstance(prompts, Mapping):
        raise WorkbenchError(f"Prompts are a text, or a list of texts or of messages; got {type(prompts).__name__}.")
    return list(prompts)


def load_pairs(source, columns=None, limit=None, name=None, framed_prompts="refuse") -> Pairs:
    """The preference pairs of a file, folder, DataFrame, datasets.Dataset, list of dicts, or hub id.

    source: "demo" is the bundled training set; a hub id is "owner/name" or "owner/name:split". Files: .jsonl, .json,
    .csv, .tsv, .parquet, also with .gz. A folder: all of these in it, sorted, one level of sub-folders deep; test and
    validation files are left out where train files lie beside them. pairs/shapes.py lists the known shapes of a row.
    columns: {our name (prompt, chosen, rejected, system): the source's}, for columns that are not recognised.
    limit: stop when this many pairs are kept; later rows are not read. name: what reports call the source.
    framed_prompts: what happens to a prompt that a chat template has framed already: refuse, as_conversation or keep.
    Columns that are no part of the pair are kept; one with one of our names becomes `<name>_in_file`.
    Exact duplicates of a pair are refused. Errors: WorkbenchError when no pair can be used.
    """
    if isinstance(source, Pairs):
        return source.limit(limit)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise WorkbenchError(f"limit is {limit!r}, expected a whole number from 1, or None for all pairs.")
    columns = pair_columns.checked_mapping(columns)
    opened = _open_source(source)
    opened.name = name or opened.name
    pairs, refused, first, seen_columns = {}, {}, {}, {}
    rows_read, conversations_read, any_shape, notes = 0, 0, False, list(opened.notes)
    for where, row in opened.rows:
        rows_read += 1
        try:
            if isinstance(row, RowRefused):
                raise row
            row = _plain_row(row)
            seen_columns.update(dict.fromkeys(row))
            if len(seen_columns) > MOST_COLUMNS:
                raise WorkbenchError(
                    f"{opened.name} has more than {MOST_COLUMNS:,} different columns, at {where}: a table of that width"
                    " cannot be held. Are its keys data?"
                )
            renamed = pair_columns.renamed_row(row, columns)
            any_shape = any_shape or shape_of(renamed) is not None
            pair = unframed(raw := _make_pair(renamed, where), framed_prompts)
            conversations_read += pair is not raw
            if pair.pair_id in pairs:
                raise RowRefused("duplicate", f"the same pair as {pairs[pair.pair_id][0]}")
        except RowRefused as refusal:
            refused[refusal.reason] = refused.get(refusal.reason, 0) + 1
            first.setdefault(refusal.reason, Refusal(where, refusal.seen))
            continue
        pairs[pair.pair_id] = (where, pair)
        if len(pairs) == limit:
            notes.append(f"Reading stopped at limit={limit}")
            break
    if seen_columns:
        pair_columns.check_found(columns, list(seen_columns), opened.name)
    checked = [pair for _, pair in pairs.values()]
    if conversations_read:
        notes.append(f"{conversations_read} prompts that a chat template had framed were read as conversations")
    notes += [note for note in (marks_note(checked),) if note]
    report = LoadReport(opened.name, rows_read, len(pairs), refused, first, tuple(notes))
    if not pairs:
        raise _nothing_kept(report, list(seen_columns), any_shape)
    if opened.numbers_are_text:
        _read_numbers(checked)
    return Pairs(checked, report)


def raw_rows(source, count=5) -> list[dict]:
    """The first `count` readable rows of a source that `load_pairs` takes, unchanged, to see the names of its columns.

    Errors: WorkbenchError as in `load_pairs` when the source cannot be found or read.
    """
    rows = []
    for _, row in _open_source(source).rows:
        with contextlib.suppress(RowRefused):
            if not isinstance(row, RowRefused):
                rows.append(_plain_row(row))
        if len(rows) == count:
            break
    return rows


def _open_source(source) -> pair_files.Source:
    if isinstance(source, list | tuple):
        return pair_files.read_list(source, "list")
    library = type(source).__module__.partition(".")[0]
    if library == "pandas" and hasattr(source, "columns"):
        return pair_files.read_frame(source, "DataFrame")
    if library == "datasets":
        return pair_files.read_dataset(source, "Dataset")
    if not isinstance(source, str | os.PathLike):
        raise WorkbenchError(
            f"Pairs cannot be loaded from a {type(source).__name__}. Give a file, a folder, a hub id, a DataFrame, a"
            " datasets.Dataset or a list of dicts."
        )
    return _open_named(source)


def _open_named(source):
    text = os.fsdecode(source)
    if not text.strip():
        raise WorkbenchError("The source of the pairs is an empty text. Give a file, a folder or a hub id.")
    if re.match(r"[a-z]+://", text):
        raise WorkbenchError(
            f"{text} is a web address. Download the file and give its path, or give a hub id such as 'owner/name'."
        )
    try:
        path = Path(text).expanduser()
        exists = path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise WorkbenchError(f"{excerpt(text)} cannot be a path here: {first_line(error)}.") from error
    if text == DEMO and not exists:
        return pair_files.read_path(bundled("data/plain_answers/train.jsonl"))
    if exists:
        return pair_files.read_path(path)
    from . import hub as pair_hub

    looks_like_a_file = path.suffix.lower() in (*pair_files.SUFFIXES, ".gz", ".txt")
    if isinstance(source, os.PathLike) or looks_like_a_file or not pair_hub.is_hub_id(text):
        raise pair_files.missing_path_error(path)
    near = pair_files.near_names(path)
    try:
        return pair_hub.read_hub(text)
    except WorkbenchError as error:
        if near:
            raise WorkbenchError(f"{error} Nearest names in {path.parent}: {', '.join(near)}.") from error
        raise


def _make_pair(row, where):
    pair = read_row(row)
    identity = pair_id(pair.prompt, pair.chosen, pair.rejected)
    extra = {}
    for column, value in row.items():
        if column in pair.used or (column == "pair_id" and value == identity):
            continue
        if column in OWN_COLUMNS:
            column = pair_columns.free_name(column, row)
        extra[column] = _encodable(value) if isinstance(value, str) else value
    return Pair(identity, tuple(pair.prompt), pair.chosen, pair.rejected, extra, where=where)


def _plain_row(row):
    if not isinstance(row, Mapping):
        raise RowRefused("wrong type", f"the row is {excerpt(row)}, expected an object with columns")
    if (characters := _characters(row, 0)) > LONGEST_ROW:
        raise too_long(characters)
    return _plain(row, 0)


def _characters(value, depth):
    """About how many characters and values a row holds; what is nested deeper than a row may be is not counted."""
    if isinstance(value, str | bytes):
        return len(value)
    if depth <= DEEPEST_NESTING and isinstance(value, Mapping):
        return len(value) + sum(_characters(item, depth + 1) for item in value.values())
    if depth <= DEEPEST_NESTING and isinstance(value, list | tuple):
        return len(value) + sum(_characters(item, depth + 1) for item in value)
    return 1


def _plain(value, depth):
    """The value in plain Python: arrays and tuples as lists, keys as text."""
    if value is None or isinstance(value, str | int | float | bytes):
        return value
    if depth > DEEPEST_NESTING:
        raise RowRefused("unreadable", f"nested deeper than {DEEPEST_NESTING} levels")
    if isinstance(value, Mapping):
        return {_encodable(str(key)): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return _plain(value.tolist(), depth + 1)
    return value


def _encodable(text):
    # pandas keeps text in Arrow, which refuses half a character with an exception from deep inside
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _nothing_kept(report, seen, any_shape):
    if report.rows_read == 0:
        return WorkbenchError(f"{report.name} holds no rows.")
    if any_shape or not seen:
        return WorkbenchError(f"No usable preference pair. {report}")
    missing = report.first.get("missing")
    return pair_columns.no_shape_error(report.name, seen, f"{missing.where}: {missing.seen}" if missing else None)


def _count(number, noun):
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _extra_columns(pairs):
    return list(dict.fromkeys(column for pair in pairs for column in pair.extra))


def _read_numbers(pairs):
    """Turn an extra column of a CSV into numbers where every cell is one; `007` stays text, an empty cell is None."""
    for column in _extra_columns(pairs):
        cells = [pair.extra[column] for pair in pairs if pair.extra.get(column) not in (None, "")]
        if not cells or not all(
            isinstance(cell, str) and re.fullmatch(r"-?(0|[1-9]\d{0,17})(\.\d+)?([eE][-+]?\d{1,3})?", cell)
            for cell in cells
        ):
            continue
        number = int if all(re.fullmatch(r"-?\d+", cell) for cell in cells) else float
        for pair in pairs:
            if column in pair.extra:
                pair.extra[column] = number(pair.extra[column]) if pair.extra[column] else None


def _frame(pairs):
    import pandas

    texts = {
        "pair_id": pandas.Series([pair.pair_id for pair in pairs], dtype="str"),
        "prompt": pandas.Series([[dict(turn) for turn in pair.prompt] for pair in pairs], dtype=object),
        "chosen": pandas.Series([pair.chosen for pair in pairs], dtype="str"),
        "rejected": pandas.Series([pair.rejected for pair in pairs], dtype="str"),
    }
    extras = {column: _series([pair.extra.get(column) for pair in pairs]) for column in _extra_columns(pairs)}
    return pandas.DataFrame(texts | extras)


def _series(values):
    import pandas

    try:
        return pandas.Series(values)
    except (TypeError, ValueError, OverflowError):
        return pandas.Series(values, dtype=object)


def _storable(frame):
    import io

    import pyarrow

    for column in frame.columns:
        try:
            frame[[column]].to_parquet(io.BytesIO())
        except (pyarrow.ArrowException, TypeError, ValueError, OverflowError):
            frame[column] = [None if _is_none(value) else json.dumps(value, default=str) for value in frame[column]]
    return frame


def _is_none(value):
    return value is None or (isinstance(value, float) and math.isnan(value))
