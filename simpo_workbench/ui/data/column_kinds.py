"""What a row with columns of other names may hold: the menus for each kind of row, and the mapping that they make."""

from __future__ import annotations

from dataclasses import dataclass

#: The menu of each column that a kind of row needs, and what it is called.
MENUS = {
    "prompt": "Prompt",
    "chosen": "Chosen answer",
    "rejected": "Rejected answer",
    "first": "First answer",
    "second": "Second answer",
    "label": "Label",
    "first_number": "Number of the first",
    "second_number": "Number of the second",
    "answers": "List of answers",
    "numbers": "Ratings or ranks",
    "answer": "Answer",
    "verdict": "Verdict",
    "system": "System turn",
}
#: Menus of columns that say which answer is the better one.
JUDGING = ("label", "first_number", "second_number", "numbers")
_TWO = {"first": "answer_1", "second": "answer_2"}


@dataclass(frozen=True)
class Kind:
    """One kind of row. words: for the menu of kinds.

    readings: {what the judging column means: {menu: our name of its column}}; one reading with empty words where there
    is no choice. optional: menus that may stay empty.
    """

    words: str
    readings: dict[str, dict[str, str]]
    optional: tuple[str, ...] = ("system",)

    @property
    def menus(self) -> tuple[str, ...]:
        """The menus of this kind, in their order."""
        used = {menu for roles in self.readings.values() for menu in roles}
        return tuple(menu for menu in MENUS if menu in used)

    @property
    def asks(self) -> bool:
        """Whether somebody must say what the judging column means."""
        return len(self.readings) > 1


def _with_prompt(**roles):
    return {"prompt": "prompt", **roles, "system": "system"}


CHOSEN = Kind("a chosen and a rejected answer", {"": _with_prompt(chosen="chosen", rejected="rejected")})
LABELLED = Kind(
    "two answers and a column that says which is better",
    {
        "names the better one, or 1 is the first and 2 the second": _with_prompt(**_TWO, label="label"),
        "0 is the first, 1 the second": _with_prompt(first="answer_0", second="answer_1", label="label"),
        "1 or yes if the first is better, else 0": _with_prompt(first="answer_1", second="answer_0", label="label"),
        "names the worse one, or 1 is the first and 2 the second": _with_prompt(**_TWO, label="worse_label"),
    },
)
NUMBERED = Kind(
    "two answers and a number for each",
    {
        "more is better": _with_prompt(**_TWO, first_number="score_1", second_number="score_2"),
        "less is better": _with_prompt(**_TWO, first_number="rank_1", second_number="rank_2"),
    },
)
LISTED = Kind(
    "a list of answers and their ratings or ranks",
    {
        "more is better": _with_prompt(answers="answers", numbers="ratings"),
        "less is better": _with_prompt(answers="answers", numbers="ranks"),
    },
    ("system", "numbers"),
)
SINGLE = Kind("one answer and a verdict on it, good or bad", {"": _with_prompt(answer="answer", verdict="label")})
KINDS = (CHOSEN, LABELLED, NUMBERED, LISTED, SINGLE)


def kind_of_mapping(columns: dict[str, str]) -> tuple[Kind, str, dict[str, str]]:
    """(kind, reading, {menu: column}) that show a mapping {our name: column} best; what they have no menu for is left
    out.
    """
    shown = [
        (kind, reading, {menu: columns[role] for menu, role in roles.items() if role in columns})
        for kind in KINDS
        for reading, roles in kind.readings.items()
    ]
    return max(shown, key=lambda choice: len(choice[2]))  # the first of several
