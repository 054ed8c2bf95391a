"""Preference pairs from any common source in one schema: checked row by row, split by prompt, identified by content.

Start at `load_pairs`. `sources` finds the raw rows, `shapes` says how a row is recognised, `reading` what it means,
and `collect` makes pairs of all of them. A row that cannot be used is refused with a reason and a place, never dropped
silently.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ..base.errors import WorkbenchError
from ..base.format import counted
from . import columns as pair_columns
from .advice import judged_error, nothing_kept
from .collect import Collector
from .frames import extra_columns, frame_of, read_numbers, storable
from .load_report import LoadReport, Refusal
from .pair import Pair, prompt_key, prompt_text
from .plain_rows import plain_row
from .rankings import POLICIES
from .refused import RowRefused, excerpt
from .sources import open_source

if TYPE_CHECKING:
    import pandas

__all__ = ["LoadReport", "Pair", "Pairs", "Refusal", "load_pairs", "prompt_text", "raw_rows"]


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
            self._df = frame_of(self._pairs)
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
        return storable(frame_of(self._pairs))

    def limit(self, count) -> Pairs:
        """The first `count` pairs as Pairs; all of them for None."""
        _require_count(count)
        return Pairs(self._pairs[:count], self._report)

    def sample(self, count) -> Pairs:
        """`count` pairs as Pairs in their order here, chosen by a hash of their contents; all of them for None.

        The order of the rows does not matter, and a larger sample holds every smaller one.
        """
        _require_count(count)
        if count is None or count >= len(self._pairs):
            return self
        places = sorted(range(len(self._pairs)), key=lambda place: _drawn(self._pairs[place].pair_id))[:count]
        return Pairs([self._pairs[place] for place in sorted(places)], self._report)

    def split(self, eval_fraction, seed) -> tuple[Pairs, Pairs]:
        """(training pairs, held-out pairs) with no prompt on both sides.

        eval_fraction: share of the prompts that is held out; at least one is on each side. The split depends on the
        prompts' contents and the seed alone, not on the order of the rows. Errors: WorkbenchError when there are fewer
        than two different prompts.
        """
        if isinstance(eval_fraction, bool) or not isinstance(eval_fraction, int | float) or not 0 < eval_fraction < 1:
            raise WorkbenchError(f"eval_fraction is {eval_fraction!r}, expected a number between 0 and 1.")
        train, held_out = self.by_prompt(eval_fraction, str(seed), least=1)
        if not train or not held_out:
            prompts = len({prompt_key(pair.prompt) for pair in self._pairs})
            raise WorkbenchError(
                f"{self.name} has {counted(prompts, 'prompt')}: a split by prompt needs two. Add pairs, or give"
                " evaluation data of its own."
            )
        return train, held_out

    def by_prompt(self, share: float, draw: str, least: int = 0) -> tuple[Pairs, Pairs]:
        """(the other pairs, the pairs of a share of the prompts), in their order here.

        The prompts are chosen by a hash of their contents and of `draw`: the order of the rows does not matter, and a
        larger share takes every prompt of a smaller one. least: how many prompts each side gets, where there are so
        many.
        """
        keys = [prompt_key(pair.prompt) for pair in self._pairs]
        prompts = sorted(set(keys), key=lambda key: hashlib.sha256(f"{draw}:{key}".encode()).digest())
        taken = set(prompts[: max(0, min(max(round(len(prompts) * share), least), len(prompts) - least))])
        sides = {False: [], True: []}
        for pair, key in zip(self._pairs, keys, strict=True):
            sides[key in taken].append(pair)
        return Pairs(sides[False], self._report), Pairs(sides[True], self._report)

    def __len__(self):
        return len(self._pairs)

    def __iter__(self):
        return iter(self._pairs)

    def __getitem__(self, index):
        return Pairs(self._pairs[index], self._report) if isinstance(index, slice) else self._pairs[index]

    def __repr__(self):
        return f"<Pairs {self.name!r}: {counted(len(self), 'pair')}, content {self.content_hash[:12]}>"

    def __str__(self):
        prompts = counted(len({prompt_key(pair.prompt) for pair in self._pairs}), "prompt")
        pairs, content = counted(len(self), "pair"), self.content_hash[:12]
        lines = [f"{self.name}: {pairs} on {prompts}, content {content}", str(self._report)]
        if self._pairs:
            first = self._pairs[0]
            shown = (("prompt", first.prompt_text), ("chosen", first.chosen), ("rejected", first.rejected))
            lines += [f"  {label:<8}  {excerpt(text, 100)}" for label, text in shown]
            lines += [f"  columns   {', '.join(extra_columns(self._pairs))}"] if extra_columns(self._pairs) else []
        return "\n".join(lines)


def _require_count(count):
    """Raise WorkbenchError unless a limit is a number of pairs, or None."""
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise WorkbenchError(f"limit is {count!r}, expected a whole number from 1, or None for all pairs.")


def _drawn(pair_id):
    return hashlib.sha256(f"sample:{pair_id}".encode()).digest()


def prompt_list(prompts) -> list:
    """A list of the prompts: of one text, or of an iterable such as a column of a DataFrame.

    Errors: WorkbenchError for anything else.
    """
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, Iterable) or isinstance(prompts, Mapping):
        raise WorkbenchError(f"Prompts are a text, or a list of texts or of messages; got {type(prompts).__name__}.")
    return list(prompts)


def load_pairs(
    source, columns=None, limit=None, name=None, framed_prompts="refuse", pairs_from_ranking="best_worst"
) -> Pairs:
    """The preference pairs of a file, folder, DataFrame, datasets.Dataset, list of dicts, or hub id.

    source: "demo" is the bundled training set; a hub id is "owner/name" or "owner/name:split". Files: .jsonl, .json,
    .csv, .tsv, .parquet, also with .gz or .zst. A folder: all of these in it, sorted, one level of sub-folders deep;
    test and validation files are left out where train files lie beside them. docs/data-shapes.md lists the known shapes
    of a row. columns: {our name: the source's}, for columns that are not recognised; our names are those of
    `columns.COLUMN_ROLES` and `columns.MORE_ROLES`. limit: stop when this many pairs are kept; later rows are not read.
    name: what reports call the source. framed_prompts: what happens to a prompt that a chat template has framed
    already: refuse, as_conversation or keep. pairs_from_ranking: which pairs more than two answers make, best_worst,
    adjacent or all. Columns that are no part of the pair are kept; one with one of our names becomes `<name>_in_file`.
    Exact duplicates of a pair are refused. Errors: WorkbenchError when no pair can be used, or when most prompts are a
    judge's and columns names no prompt.
    """
    if isinstance(source, Pairs):
        return source.limit(limit)
    _require_count(limit)
    if pairs_from_ranking not in POLICIES:
        raise WorkbenchError(f"pairs_from_ranking is {pairs_from_ranking!r}, expected {', '.join(POLICIES)}.")
    columns = pair_columns.checked_mapping(columns)
    opened = open_source(source)
    opened.name = name or opened.name
    collector = Collector(opened.name, columns, pairs_from_ranking, limit, framed_prompts)
    for where, row in opened.rows:
        if collector.add(where, row):
            break
    seen = list(collector.seen_columns)
    if seen:
        pair_columns.check_found(columns, seen, opened.name)
    pairs, report = collector.finish(tuple(opened.notes))
    if not pairs:
        raise nothing_kept(report, collector)
    if judged := judged_error(pairs, collector):
        raise judged
    if opened.numbers_are_text:
        read_numbers(pairs)
    return Pairs(pairs, report)


def raw_rows(source, count=5) -> list[dict]:
    """The first `count` readable rows of a source that `load_pairs` takes, unchanged, to see the names of its columns.

    Errors: WorkbenchError as in `load_pairs` when the source cannot be found or read.
    """
    rows = []
    for _, row in open_source(source).rows:
        with contextlib.suppress(RowRefused):
            if not isinstance(row, RowRefused):
                rows.append(plain_row(row))
        if len(rows) == count:
            break
    return rows
