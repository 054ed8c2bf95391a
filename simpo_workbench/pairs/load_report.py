"""What became of the rows of a source: how many were read, kept and refused, and why."""

from dataclasses import dataclass

from ..base.format import counted


@dataclass(frozen=True)
class Refusal:
    """The first row refused for one reason: its place ("line 17", "row 3", counted from 1) and what was seen there."""

    where: str
    seen: str


@dataclass(frozen=True)
class LoadReport:
    """How many rows were read, kept and refused: `rows_read` = `kept` + the sum of `refused`.

    refused: {reason: count}. first: {reason: its first Refusal}. pairs: how many pairs the kept rows make; a ranking
    makes several, and rows of one answer each make a pair together.
    """

    name: str
    rows_read: int
    kept: int
    refused: dict[str, int]
    first: dict[str, Refusal]
    notes: tuple[str, ...] = ()
    pairs: int | None = None

    def __str__(self):
        text = f"{self.name}: {counted(self.rows_read, 'row')} read, {self.kept} kept"
        if self.pairs not in (None, self.kept):
            text += f" as {counted(self.pairs, 'pair')}"
        if self.refused:
            reasons = (
                f"{reason} {count} (first: {self.first[reason].where}, {self.first[reason].seen})"
                for reason, count in self.refused.items()
            )
            text += f", {sum(self.refused.values())} refused: {'; '.join(reasons)}"
        return ". ".join((text, *self.notes)) + "."
