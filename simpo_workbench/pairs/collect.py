"""From raw rows to pairs: every row is kept or refused with a reason, and what needs all rows waits for the last one.

A label such as 0 or 1 is understood only by all its values, and rows of one answer make pairs with each other: such
rows are held until the end. All others become pairs at once.
"""

from dataclasses import dataclass

from ..base.errors import WorkbenchError
from ..base.format import counted
from . import verdicts
from .columns import free_name, renamed_row
from .framed_prompts import marks_note, unframed, unframed_row
from .load_report import LoadReport, Refusal
from .pair import Pair, pair_id, prompt_key
from .plain_rows import encodable, plain_row
from .rankings import RANKS
from .reading import refuse_media, row_pairs, single_answer
from .refused import RowRefused, excerpt
from .remarks import remarks_on
from .shapes import LABELLED, PAIR, SIDES, Match, match_of
from .turns import is_transcript
from .unpaired import RATED, Single, grade_of, paired, why_good

OWN_COLUMNS = ("pair_id", "prompt", "chosen", "rejected", "chosen_turn", "rejected_turn")
MOST_COLUMNS = 1000  # every pair gets a cell in every column
MOST_SAMPLES = 20


@dataclass
class Held:
    """A row that waits for the last one. mapped: the user named both answers, although a label says which is better."""

    row: dict
    found: Match
    sides: verdicts.Sides | None = None
    mapped: dict | None = None


class Collector:
    """Takes raw rows and says what became of them.

    columns: checked mapping. policy: of `rankings.POLICIES`. limit, framed_prompts: as in `load_pairs`.
    """

    def __init__(self, name, columns, policy, limit=None, framed_prompts="refuse"):
        self.name, self.columns, self.policy, self.limit = name, columns, policy, limit
        self._framed_prompts, self._conversations_read = framed_prompts, 0
        #: {kind of shape: rows of it}
        self.seen_columns, self.samples, self.kinds, self._of_several = {}, [], {}, 0
        self._entries, self._scales, self._ids, self._waiting = [], {}, set(), False
        #: the two answers of pairs that a label made, and of pairs that the user's mapping made although there is one
        self._judged, self._mapped = {}, {}
        #: {what grades several answers: their column}, and the columns that grade rows of one answer
        self._graded_by, self._labels = {}, {}
        self._joins_input = columns.get("prompt") == "instruction"

    def add(self, where, row) -> bool:
        """Take one raw row; True when the limit is reached and reading can stop."""
        try:
            if isinstance(row, RowRefused):
                raise row
            outcome = self._read(where, plain_row(row))
        except RowRefused as refused:
            outcome = refused
        self._entries.append((where, outcome))
        if isinstance(outcome, list):
            self._ids.update(pair.pair_id for pair in outcome)
        return self.limit is not None and not self._waiting and len(self._ids) >= self.limit

    def _read(self, where, row):
        self.seen_columns.update(dict.fromkeys(row))
        if len(self.seen_columns) > MOST_COLUMNS:
            raise WorkbenchError(
                f"{self.name} has more than {MOST_COLUMNS:,} different columns, at {where}: a table of that width"
                " cannot be held. Are its keys data?"
            )
        if len(self.samples) < MOST_SAMPLES:
            self.samples.append(row)
        renamed = renamed_row(row, self.columns)
        found = match_of(renamed)
        if found is None or (found.prompt is None and _lacks_blank_lines(renamed)):
            read = unframed_row(renamed, self._framed_prompts)
            if read is not renamed:
                self.kinds[PAIR] = self.kinds.get(PAIR, 0) + 1
                pairs = self._pairs_of(where, read, match_of(read))
                self._conversations_read += len(pairs)
                return pairs
        if found is not None:
            self.kinds[found.shape.kind] = self.kinds.get(found.shape.kind, 0) + 1
            sides, mapped = None, None
            if found.shape.kind == SIDES:
                sides = verdicts.sides_of(tuple(renamed))
            elif {found.chosen, found.rejected} == {"chosen", "rejected"} <= self.columns.keys():
                sides, mapped = self._mapped_sides(row), row
            if sides is not None or found.shape.kind == LABELLED:
                refuse_media(renamed, found)
                self._waiting = True
                if sides is not None:
                    self._add_to_scales(sides, mapped or renamed, mapped is not None)
                return Held(renamed, found, sides, mapped if sides else None)
        return self._pairs_of(where, renamed, found)

    def _mapped_sides(self, row):
        """The two answers of a row that the user's mapping calls chosen and rejected, where a label ranks them too."""
        both = self.columns["chosen"], self.columns["rejected"]
        sides = verdicts.sides_of(tuple(row), both) if set(both) <= row.keys() else None
        if sides is None or not (sides.labels or sides.annotators or sides.scores):
            return None
        return sides if sides.tokens != verdicts.NO_TOKENS or verdicts.names_a_side(row, sides) else None

    def _add_to_scales(self, sides, row, mapped):
        scales = self._scales.setdefault((sides, mapped), {})
        counted_from = None
        if not mapped and {"answer_1"} <= self.columns.keys():
            counted_from = 0 if "answer_0" in self.columns else 1
        for label in (*sides.labels, *sides.annotators):
            scales.setdefault(label, verdicts.Scale(counted_from)).add(
                label, sides, row, {} if mapped else self.columns
            )

    def _pairs_of(self, where, row, found, scales=None):
        pairs = row_pairs(row, self.policy, scales, self._joins_input, found, self.columns)
        self._of_several += pairs[0].answers > 2
        if pairs[0].graded_by:
            self._graded_by.setdefault(pairs[0].graded_by, found.chosen)
        return [self._unframed(_pair(row, pair, where)) for pair in pairs]

    def _unframed(self, pair):
        read = unframed(pair, self._framed_prompts)
        self._conversations_read += read is not pair
        return read

    def finish(self, notes=()) -> tuple[list[Pair], LoadReport]:
        """(pairs, report): all rows that waited are read, duplicates are refused."""
        outcomes = [self._resolved(where, outcome) for where, outcome in self._entries]
        outcomes = self._with_partners(outcomes)
        pairs, refused, first, rows_read, kept = {}, {}, {}, 0, 0
        for (where, _), outcome in zip(self._entries, outcomes, strict=True):
            rows_read += 1
            if isinstance(outcome, list):
                new = [pair for pair in outcome if pair.pair_id not in pairs]
                if outcome and not new:
                    outcome = RowRefused("duplicate", f"the same pair as {pairs[outcome[0].pair_id].where}")
            if isinstance(outcome, RowRefused):
                refused[outcome.reason] = refused.get(outcome.reason, 0) + 1
                first.setdefault(outcome.reason, Refusal(where, outcome.seen))
                continue
            kept += 1
            pairs |= {pair.pair_id: pair for pair in new}
            if self.limit is not None and len(pairs) >= self.limit:
                notes = (*notes, f"Reading stopped at limit={self.limit}")
                break
        checked = list(pairs.values())[: self.limit]
        if self._conversations_read:
            number = self._conversations_read
            were = "was read as a conversation" if number == 1 else "were read as conversations"
            notes = (*notes, f"{counted(number, 'pair')} that a chat template had framed {were}")
        marks = marks_note(checked)
        notes = (*notes, *([marks] if marks else []), *self._readings(kept), *remarks_on(checked))
        return checked, LoadReport(self.name, rows_read, kept, refused, first, notes, len(checked))

    def _resolved(self, where, outcome):
        if not isinstance(outcome, Held) or outcome.found.shape.kind == LABELLED:
            return outcome
        try:
            if outcome.mapped is not None:
                self._check_mapping(outcome)
                pairs = self._pairs_of(where, outcome.row, outcome.found)
                self._mapped.setdefault(outcome.sides)
                return pairs
            scales = self._scales[outcome.sides, False]
            pairs = self._pairs_of(where, outcome.row, outcome.found, scales)
            self._judged.setdefault(outcome.sides)
            return pairs
        except RowRefused as refused:
            return refused

    def _check_mapping(self, held):
        """Raise RowRefused where the label says that the answer mapped to chosen is not the better one."""
        try:
            side, labels, _ = verdicts.winner(held.mapped, held.sides, self._scales[held.sides, True], self.columns)
        except RowRefused as refused:
            if refused.reason == "unclear label" and self._differs(held.sides):
                raise  # whatever it means, the mapping is wrong for some rows
            return  # the label says nothing
        label = ", ".join(labels)
        better = (held.sides.first, None, held.sides.second)[1 - side]
        if better is None:
            raise RowRefused("tie", f"{label} says that both answers are equally good")
        if better != self.columns["chosen"]:
            raise RowRefused("label disagrees", f"{label} says that '{better}' is the better answer; leave columns out")

    def _differs(self, sides):
        """Whether the label of mapped answers has two numbers or more."""
        scales = self._scales[sides, True]
        label = verdicts.read_label(sides, scales)
        return label is not None and len(scales[label].numbers) > 1

    def _with_partners(self, outcomes):
        """The outcomes, with pairs of rows of one answer in place of these rows."""
        singles = []
        for number, ((where, _), outcome) in enumerate(zip(self._entries, outcomes, strict=True)):
            if isinstance(outcome, Held):
                outcomes[number] = []
                try:
                    singles.append(self._single(number, where, outcome))
                except RowRefused as refused:
                    outcomes[number] = refused
        pairs, refused = paired(singles, self.policy)
        for better, worse in pairs:
            try:
                outcomes[better.number].append(self._unframed(_joined_pair(better, worse)))
            except RowRefused as refusal:
                if not outcomes[better.number]:
                    refused |= {single.number: refusal for single in (better, worse)}
        for number, refusal in refused.items():
            if not outcomes[number]:
                outcomes[number] = refusal
        return outcomes

    def _single(self, number, where, held):
        label = held.found.rejected
        good = self._labels.setdefault(label, {})  # its values that count as good, in order
        grade = grade_of(held.row, label, held.found.chosen)
        if label not in RATED and grade and len(good) < 4:
            good[repr(held.row[label])] = None
        pair = single_answer(held.row, held.found, self._joins_input)
        key = prompt_key(pair.prompt) + repr(pair.tools)
        rated = label in RATED
        return Single(number, key, grade, rated, (held.row, pair, where))

    def _readings(self, kept):
        """Sentences on labels and rankings that were read."""
        sentences = []
        for sides in self._mapped:
            labels = ", ".join((*sides.labels, *sides.annotators, *(sides.scores or ())))
            sentences.append(
                f"'{self.columns['chosen']}' is the chosen answer because columns says so, whatever {labels} says;"
                " without columns such a label is read"
            )
        sentences += [
            verdicts.reading_sentence(sides, self._scales[sides, False], self.columns) for sides in self._judged
        ]
        for grade, answers in self._graded_by.items():
            shown = self.columns.get(answers, answers)
            sentences.append(f"Which of '{shown}' is better was read from {self._direction(grade)}")
        if kept and self.kinds.get(LABELLED):
            by = ", ".join(
                self._direction(label)
                if label in RATED
                else f"'{self.columns.get(label, label)}', where {' and '.join(good) or 'none'} counts as good,"
                f" {why_good(label)}"
                for label, good in self._labels.items()
            )
            sentences.append(
                f"Rows of one answer were paired by prompt, better and worse by {by} (data.pairs_from_ranking:"
                f" {self.policy})"
            )
        if self._of_several:
            sentences.append(
                f"{counted(self._of_several, 'row')} with more than two answers: data.pairs_from_ranking is"
                f" {self.policy}"
            )
        return sentences

    def _direction(self, grade):
        """The file's name of what grades answers, and which of its values is the best."""
        shown = f"'{self.columns.get(grade, grade)}'"
        if grade in RANKS:
            return f"{shown}, where the lowest is the best"
        if " and " in grade:
            return f"{shown}, which name the answers"
        if grade == "choice":
            return f"{shown}, which names the best"
        return f"{shown}, where the highest is the best"


def _lacks_blank_lines(row):
    """Whether chosen or rejected is a transcript "Human: …" without the blank lines of Anthropic HH between turns."""
    return any(is_transcript(row.get(side)) and "\n\nAssistant:" not in row[side] for side in ("chosen", "rejected"))


def _pair(row, pair, where) -> Pair:
    identity = pair_id(pair.prompt, pair.chosen, pair.rejected, pair.tools, pair.chosen_turn, pair.rejected_turn)
    extra = {}
    for column, value in row.items():
        if column in pair.used or (column == "pair_id" and value == identity):
            continue
        if column in OWN_COLUMNS or column in pair.more:
            column = free_name(column, row)
        extra[column] = encodable(value) if isinstance(value, str) else value
    turns = pair.tools, pair.chosen_turn, pair.rejected_turn
    return Pair(identity, tuple(pair.prompt), pair.chosen, pair.rejected, extra | pair.more, *turns, where=where)


def _joined_pair(better, worse) -> Pair:
    """The pair of two rows of one answer; columns in which they differ get the side's name at the end."""
    (row, good, where), (other, bad, _) = better.content, worse.content
    if (good.chosen, good.chosen_turn) == (bad.chosen, bad.chosen_turn):
        raise RowRefused("identical", f"both answers are {excerpt(good.chosen)}")
    used, merged = good.used | bad.used, {}
    for column in dict.fromkeys([*row, *other]):
        if column in used:
            continue
        if column in row and column in other and row[column] == other[column]:
            merged[column] = row[column]
        else:
            merged[f"{column}_chosen"], merged[f"{column}_rejected"] = row.get(column), other.get(column)
    more = {}
    if better.rated:
        margin = better.grade - worse.grade
        more = {"chosen_rating": better.grade, "rejected_rating": worse.grade, "rating_margin": margin}
    pair = type(good)(
        good.prompt, good.chosen, bad.chosen, frozenset(), good.tools, good.chosen_turn, bad.chosen_turn, more
    )
    return _pair(merged, pair, where)
