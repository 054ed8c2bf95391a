"""The items of a blind test: prompts with two answers each, in a random order, with sides drawn at random."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..base.errors import WorkbenchError
from ..base.format import counted
from ..pairs.pair import prompt_text
from ..pairs.reading import read_row
from ..pairs.refused import RowRefused, excerpt
from .vote_statistics import SIDES

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Item:
    """One prompt of a blind test and its two answers; its repr does not say which model gave which.

    number: from 1 in the order of asking. left_is: "first" or "second". first_tokens, second_tokens: lengths, if known.
    """

    number: int
    prompt: str
    left: str
    right: str
    left_is: str = field(repr=False)
    messages: tuple[dict, ...] = field(default=(), repr=False)
    first_tokens: int | None = field(default=None, repr=False)
    second_tokens: int | None = field(default=None, repr=False)

    @property
    def same(self) -> bool:
        """Whether both answers are the same text, so that there is nothing to choose."""
        return self.left.strip() == self.right.strip()

    def answer(self, side: str) -> str:
        """The answer of "first" or "second"."""
        return self.left if side == self.left_is else self.right

    def winner(self, choice: str) -> str:
        """The model that a choice prefers, "first" or "second"; a choice of neither is returned as it is."""
        return {"left": self.left_is, "right": SIDES[self.left_is == "first"]}.get(choice, choice)

    def pair(self, winner: str) -> dict | None:
        """prompt, chosen and rejected as a data row that reads back as this prompt and these answers, if there is one.

        The prompt is text where it is one user turn, else messages. winner: "first" or "second".
        """
        answers = {"chosen": self.answer(winner), "rejected": self.answer(SIDES[winner == "first"])}
        messages = [dict(turn) for turn in self.messages]
        for prompt in (self.prompt, messages):
            try:
                row = read_row({"prompt": prompt, **answers})
            except RowRefused:
                continue
            if (row.prompt, row.chosen, row.rejected) == (messages, answers["chosen"], answers["rejected"]):
                return {"prompt": prompt, **answers}
        return None


def item_of(number: int, record: dict) -> Item:
    """The Item that a record of the file describes."""
    prompt, left_is = record["prompt"], record["left_is"]
    left, right = record[left_is], record[SIDES[left_is == "first"]]
    messages = tuple(record.get("messages") or ({"role": "user", "content": prompt},))
    return Item(number, prompt, left, right, left_is, messages, record.get("first_tokens"), record.get("second_tokens"))


def item_records(answers, first: str, second: str) -> list[dict]:
    """The records of the items that a table of answers holds, in its order; which side is left is not drawn yet.

    Errors: WorkbenchError for columns or answers that are missing, and for turns without role or content.
    """
    titles = dict(zip(SIDES, (str(first), str(second)), strict=True))
    columns = {side: side if side in answers else title for side, title in titles.items()}
    missing = [name for name in ("prompt", *columns.values()) if name not in answers]
    if missing:
        raise WorkbenchError(
            f"The answers lack the column {missing[0]!r}: give a table with the columns prompt, first and second, and"
            " the titles of the two models."
        )
    if str(first) == str(second):
        raise WorkbenchError(
            f"Both models are called {str(first)!r}: give two different titles, to tell which one won."
        )
    if not len(answers):
        raise WorkbenchError("There are no answers to compare: the table has no rows.")
    _require_answers(answers, columns)
    records = []
    for row in answers.to_dict("records"):
        turns = next((value for value in (row.get("messages"), row["prompt"]) if isinstance(value, list | tuple)), None)
        record = {"prompt": _encodable(row["prompt"])}
        if turns:
            if not all(_is_turn(turn) for turn in turns):
                raise WorkbenchError(
                    f"The messages {excerpt(turns, 120)} are no conversation: each turn needs a role and a content,"
                    " both text."
                )
            record = {"prompt": prompt_text(turns), "messages": [dict(turn) for turn in turns]}
        for side, column in columns.items():
            record[side], length = _encodable(row[column]), row.get(f"{column}_tokens")
            record[f"{side}_tokens"] = None if length is None or length != length else int(length)
        records.append(record)
    return records


def _is_turn(turn):
    return isinstance(turn, Mapping) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)


def _require_answers(answers, columns):
    """Raise WorkbenchError, with the number of missing values, unless every prompt and answer has a value."""
    if gone := int(answers["prompt"].isna().sum()):
        raise WorkbenchError(
            f"{counted(gone, 'prompt')} of {len(answers):,} {'is' if gone == 1 else 'are'} missing in the table of"
            " answers. Leave such rows out: answers.dropna(subset=['prompt'])."
        )
    for column in columns.values():
        missing = answers[column].isna()
        if gone := int(missing.sum()):
            prompt = excerpt(answers["prompt"][missing.to_numpy()].iloc[0])
            raise WorkbenchError(
                f"{counted(gone, 'answer')} of {len(answers):,} {'is' if gone == 1 else 'are'} missing in the column"
                f" {column!r}, first to the prompt {prompt}. Leave such rows out: answers.dropna(subset=[{column!r}])."
            )


def _encodable(text):
    return str(text).encode("utf-8", "replace").decode("utf-8")  # half of a character would fit in no file


def shuffled(records: list[dict], seed: int) -> list[dict]:
    """The records in random order and with random sides: each model is on the left in half of those that are asked."""
    chance = random.Random(seed)
    records = chance.sample(records, len(records))
    start = chance.randrange(2)  # of an odd number, which model is on the left once more
    sides = [SIDES[(start + place) % 2] for place in range(len(records))]
    asked = sum(not _is_same(record) for record in records)
    drawn = iter(chance.sample(sides[:asked], asked))
    return [{**record, "left_is": "first" if _is_same(record) else next(drawn)} for record in records]


def _is_same(record):
    return record["first"].strip() == record["second"].strip()


def sampled_answers(generations, first: int, second: int) -> pd.DataFrame:
    """DataFrame of the prompts that a run answered at both steps, for `BlindVotes.begin`.

    Columns: prompt, first, second, first_tokens, second_tokens. generations: DataFrame as `run.generations`.
    Errors: WorkbenchError when the two steps have no prompt in common.
    """
    sides = [
        generations[generations["step"] == step].drop_duplicates("prompt")[["prompt", "answer", "tokens"]]
        for step in (first, second)
    ]
    both = sides[0].merge(sides[1], on="prompt", suffixes=("_first", "_second"))
    if both.empty:
        known = sorted({int(step) for step in generations["step"]})
        raise WorkbenchError(
            f"Steps {first} and {second} have no sampled prompt in common: answers were sampled at {known}, and prompts"
            " may have been changed. Choose other steps, or ask the models."
        )
    names = {"answer_first": "first", "answer_second": "second"}
    return both.rename(columns=names | {"tokens_first": "first_tokens", "tokens_second": "second_tokens"})
