"""What became of the pairs that were encoded: used, cut, left out, and different from what the template writes."""

from collections import Counter
from dataclasses import dataclass, field

from ...base.format import counted
from .mismatch import KINDS


@dataclass
class EncodingReport:
    """How many pairs were encoded, cut and dropped (by reason, with the first pair's id and place).

    rewritten: answers that the template writes differently from the data; unplaced: pairs whose answers it changes so
    that they cannot be found in the conversation. mismatches: pairs by kind of difference (mismatch.KINDS), with
    examples; compared: pairs whose ids were compared with those of the whole conversation.
    thinking: answers that bring thinking of their own. control_pairs: pairs whose texts hold control tokens or marks of
    chat templates; control_marks: {mark: pairs that hold it}.
    """

    pairs: int = 0
    truncated: int = 0
    rewritten: int = 0
    unplaced: int = 0
    compared: int = 0
    thinking: int = 0
    control_pairs: int = 0
    control_marks: dict[str, int] = field(default_factory=dict)
    dropped: Counter = field(default_factory=Counter)
    first_dropped: dict[str, str] = field(default_factory=dict)
    first_places: dict[str, str] = field(default_factory=dict)
    mismatches: Counter = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def drop(self, reason: str, pair_id: str, where: str = "") -> None:
        """Count a pair that cannot be used. where: its place in the source, such as "line 17"."""
        self.dropped[reason] += 1
        self.first_dropped.setdefault(reason, pair_id)
        self.first_places.setdefault(reason, where)

    def mismatch(self, kind: str, pair, text: str) -> None:
        """Count a pair that differs from what the template writes. text: where one can see it."""
        self.mismatches[kind] += 1
        shown = text if len(text) <= 80 else text[:80] + "…"
        self.examples.setdefault(kind, f"{_place(pair.pair_id, pair.where)}: {shown!r}")

    def mismatch_notes(self) -> list[str]:
        """A sentence for every kind of difference in pairs that are used, with its first example."""
        return [
            f"In {counted(count, 'pair')} {KINDS[kind].words} (first: {self.examples[kind]})."
            for kind, count in self.mismatches.items()
            if count > self.dropped[KINDS[kind].words]
        ]

    def __str__(self):
        cut = f", {self.truncated} with the prompt cut from the left" if self.truncated else ""
        counts = sorted(self.dropped.items())
        dropped = [f"Dropped {count}: {reason} (first: {self._first(reason)})." for reason, count in counts]
        return " ".join([f"{counted(self.pairs, 'pair')} encoded{cut}.", *dropped, *self.notes])

    def _first(self, reason):
        """Where the first pair that was dropped for a reason is; with its text and the setting that decides it."""
        for kind, example in self.examples.items():
            if KINDS[kind].words == reason:
                return f"{example}; data.on_template_mismatch decides"
        return _place(self.first_dropped[reason], self.first_places.get(reason))


def _place(pair_id, where):
    return f"{where}, pair {pair_id}" if where else f"pair {pair_id}"
