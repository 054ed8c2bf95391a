"""Blind tests: answers of two models in a random order that is recorded, and votes that outlive the kernel.

A test is one JSON-lines file. Its first line holds the seed, the titles and every item in the order of asking, with the
side of each answer; then one line per vote, on disk before `vote` returns. Nothing is erased: a vote that is taken back
is a line too. Several kernels may vote in one file: each reads what the others added before it adds its own, and every
line means something after any other.
"""

from __future__ import annotations

import operator
import random
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ..base.errors import WorkbenchError
from ..base.files import append_jsonl, create_jsonl, read_jsonl_from
from ..base.format import counted
from ..pairs.shapes import RowRefused, excerpt, prompt_text, read_row
from .vote_statistics import SIDES

CHOICES = ("left", "right", "tie", "both bad", "skip")
_COLUMNS = ["item", "prompt", "left_is", "choice", "winner", "first_tokens", "second_tokens", "blind", "at"]


@dataclass(frozen=True)
class Item:
    """One prompt of a blind test, `number` from 1 in the order of asking, and its two answers. Which model gave which
    is left out of its repr.

    left_is: "first" or "second". first_tokens, second_tokens: lengths where they are known.
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
        """Whether both answers say the same, so that there is nothing to choose."""
        return self.left.strip() == self.right.strip()

    def answer(self, side: str) -> str:
        """The answer of "first" or "second"."""
        return self.left if side == self.left_is else self.right

    def winner(self, choice: str) -> str:
        """Whom a choice prefers: "first" or "second"; a choice of neither is itself."""
        return {"left": self.left_is, "right": SIDES[self.left_is == "first"]}.get(choice, choice)


class BlindVotes:
    """One blind test: `items` in the order of asking, `titles` of the two models, the votes in `path`; `blind` until
    the titles are shown.

    `begin` makes one, `resume` goes on with one.
    """

    def __init__(self, path: Path, head: dict, records: list[dict], end: int):
        self.path, self.seed, self.made = path, head["seed"], head["made"]  # made: seconds since 1970
        self._began, self._end = datetime.fromtimestamp(self.made), end  # end: as far as the file was read, in bytes
        self.titles = {side: head[side] for side in SIDES}
        self.items = [_item(number, made) for number, made in enumerate(head["items"], 1)]
        self._current, self.blind = {}, True  # the vote that counts of each item, the last one given at the end
        for record in records:
            self._take(record)

    def __repr__(self):
        return (  # says no title: a cell that shows it ends no blindness
            f"BlindVotes({str(self.path)!r}: {self.voted} of {self.asked} voted)"
        )

    @classmethod
    def begin(
        cls, path: str | Path, answers, first: str = "base", second: str = "tuned", seed: int | None = None
    ) -> BlindVotes:
        """A new blind test in a new file.

        answers: DataFrame with the columns prompt, first, second, or called by the titles, as `wb.generate` calls them
        (prompt, base, tuned); lengths in first_tokens and second_tokens, and for conversations the turns in messages,
        where there are any. first, second: titles of the two models, shown when the test ends.
        seed: of the order and of the sides; without one it is drawn afresh. It stands in the file, as the order itself
        does. Of the prompts asked each model stands at the left in one half. Two answers that are the same are not
        asked.
        Errors: WorkbenchError for columns or answers that are missing, turns without role or content, a file that
        exists or cannot be written.
        """
        try:
            seed = secrets.randbelow(2**31) if seed is None else operator.index(seed)
        except TypeError:
            raise WorkbenchError(f"The seed is {seed!r}, expected a whole number, or none to have one drawn.") from None
        path, items = _full(path), _shuffled(_items(answers, first, second), seed)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkbenchError(
                f"The folder {str(path.parent)!r} cannot be made: {error.strerror}. Choose another path for the votes."
            ) from None
        try:
            create_jsonl(
                path,
                [
                    {
                        "kind": "blind test",
                        "seed": seed,
                        "first": str(first),
                        "second": str(second),
                        "made": time.time(),
                        "items": items,
                    }
                ],
            )
        except FileExistsError:
            raise WorkbenchError(
                f"{str(path)!r} is there already: choose another name, or go on with that test by BlindVotes.resume."
            ) from None
        return cls.resume(path)

    @classmethod
    def resume(cls, path: str | Path) -> BlindVotes:
        """The blind test in a file, as far as it came; a last line that a killed kernel tore is ignored.

        Errors: WorkbenchError where the file holds no blind test.
        """
        path = _full(path)
        try:
            records, end = read_jsonl_from(path)  # a line that lacks its end was never reported as saved
        except OSError as error:
            raise WorkbenchError(f"The blind test {str(path)!r} cannot be read: {error.strerror}.") from None
        except WorkbenchError as error:
            raise WorkbenchError(f"{str(path)!r} holds no blind test, or a damaged one: {error}") from None
        if not records or records[0].get("kind") != "blind test":
            raise WorkbenchError(
                f"{str(path)!r} holds no blind test: its first line should be the one that BlindVotes.begin writes."
            )
        try:
            return cls(path, records[0], records[1:], end)
        except _DAMAGE as error:
            raise _damaged(path, error) from None

    @property
    def asked(self) -> int:
        """How many items there are to vote on."""
        return sum(not item.same for item in self.items)

    @property
    def voted(self) -> int:
        """How many items have a vote."""
        return len(self._current)

    @property
    def votes(self):
        """DataFrame of the votes that count, in the order of asking: item, prompt, left_is ("first" or "second"),
        choice, winner, first_tokens, second_tokens, blind, at.

        winner: "first", "second", "tie", "both bad" or "skip"; items whose answers are the same have "same" as choice
        and winner. attrs["titles"] holds the titles.
        """
        import pandas as pd

        rows = []
        for item in self.items:
            vote = {"choice": "same", "blind": True, "at": self._began} if item.same else self._current.get(item.number)
            if vote is not None:
                about = (
                    item.number,
                    item.prompt,
                    item.left_is,
                    vote["choice"],
                    item.winner(vote["choice"]),
                    item.first_tokens,
                    item.second_tokens,
                )
                rows.append((*about, vote["blind"], vote["at"]))
        table = pd.DataFrame(rows, columns=_COLUMNS).astype({"first_tokens": float, "second_tokens": float})
        table.attrs["titles"] = dict(self.titles)
        return table

    def next_item(self) -> Item | None:
        """The first item without a vote; None when all have one."""
        return next((item for item in self.items if not item.same and item.number not in self._current), None)

    def vote(self, item: Item | int, choice: str):
        """Save a vote: "left", "right", "tie", "both bad" or "skip". It is on disk when this returns; of several votes
        on an item the last counts.

        Errors: WorkbenchError for another choice, an item that is not asked, or a vote that cannot be written; then
        nothing has changed.
        """
        number = item.number if isinstance(item, Item) else item
        if choice not in CHOICES:
            raise WorkbenchError(f"The choice is {choice!r}, expected one of {', '.join(map(repr, CHOICES))}.")
        if number not in range(1, len(self.items) + 1) or self.items[number - 1].same:
            raise WorkbenchError(
                f"Item {number!r} is not asked: there are items 1 to {len(self.items)}, and those with two answers that"
                " are the same need no vote."
            )
        self._append({"item": int(number), "choice": choice, "at": time.time()})

    def undo(self) -> Item:
        """Take back the last vote and return its item, which is open again, also where it had been voted on several
        times. Errors: WorkbenchError when there is no vote.
        """
        self._catch_up()
        if not self._current:
            raise WorkbenchError("There is no vote to take back.")
        item = self.items[[*self._current][-1] - 1]
        self._append({"undo": item.number, "at": time.time()})
        return item

    def reveal(self):
        """Record, once, that the titles are shown: votes that come later are not blind."""
        if self.blind:
            self._append({"revealed": True, "at": time.time()})

    def pairs(self) -> list[dict]:
        """The decided votes as preference pairs that `wb.load_pairs` takes: prompt (messages for conversations),
        chosen, rejected, source, winner.

        winner: the title of the preferred model. Pairs that no data set could use, such as one with an empty answer,
        are left out.
        """
        found = []
        for item in self.items:
            winner = item.winner(self._current[item.number]["choice"]) if item.number in self._current else ""
            if winner in SIDES:
                loser = SIDES[winner == "first"]
                pair = _pair(item, item.answer(winner), item.answer(loser))
                found += [{**pair, "source": "blind test", "winner": self.titles[winner]}] if pair else []
        return found

    def export(self, path: str | Path) -> int:
        """Write `pairs` as a JSON-lines file and return how many.

        Errors: WorkbenchError when there is none, or the file exists or cannot be written.
        """
        path, pairs = Path(path).expanduser(), self.pairs()
        if not pairs:
            raise WorkbenchError("No vote prefers one of the answers yet, so there are no pairs to write.")
        try:
            create_jsonl(path, pairs)
        except FileExistsError:
            raise WorkbenchError(f"{str(path)!r} is there already: choose another name, nothing is replaced.") from None
        return len(pairs)

    def _append(self, record):
        self._catch_up()
        try:
            append_jsonl(self.path, record, create=False)  # a new file without its first line would hold no test
        except OSError as error:
            raise self._not_saved(error) from None
        self._catch_up()

    def _catch_up(self):
        """Take in what was added to the file since it was read: by this kernel, and by others that vote in the same
        test.
        """
        try:
            records, end = read_jsonl_from(self.path, self._end)
            for record in records:
                self._take(record)
            self._end = end
        except OSError as error:
            raise self._not_saved(error) from None
        except _DAMAGE as error:
            raise _damaged(self.path, error) from None

    def _not_saved(self, error):
        if isinstance(error, FileNotFoundError):
            return WorkbenchError(
                f"It is not saved, so it does not count: the file {str(self.path)!r} is gone. Put it back where it was,"
                " or begin another test."
            )
        return WorkbenchError(
            f"It is not saved, so it does not count: {str(self.path)!r} cannot be written ({error.strerror}). Put that"
            " right and try again."
        )

    def _take(self, record):
        number = record.get("item", record.get("undo"))
        if number is not None and (not isinstance(number, int) or number not in range(1, len(self.items) + 1)):
            raise ValueError(f"in the vote {record}")
        if "choice" in record:
            if record["choice"] not in CHOICES:
                raise ValueError(f"in the vote {record}")
            vote = {"choice": record["choice"], "at": datetime.fromtimestamp(record["at"]), "blind": self.blind}
            self._current.pop(record["item"], None)
            self._current[record["item"]] = vote
        elif "undo" in record:
            self._current.pop(record["undo"], None)  # another kernel may have taken the same vote back
        elif "revealed" in record:
            self.blind = False


_DAMAGE = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)


def _damaged(path, error):
    return WorkbenchError(f"The blind test {str(path)!r} is damaged: {type(error).__name__} {error}.")


def _full(path):
    return Path(path).expanduser().absolute()  # the kernel may go to another folder while the test goes on


def _item(number, made):
    left_is = made["left_is"]
    sides = (made["first"], made["second"]) if left_is == "first" else (made["second"], made["first"])
    messages = tuple(made.get("messages") or ({"role": "user", "content": made["prompt"]},))
    return Item(number, made["prompt"], *sides, left_is, messages, made.get("first_tokens"), made.get("second_tokens"))


def _items(answers, first, second):
    """What the file keeps of each row, in the order of the table."""
    columns = {
        side: side if side in answers else str(title) for side, title in zip(SIDES, (first, second), strict=True)
    }
    missing = [name for name in ("prompt", *columns.values()) if name not in answers]
    if missing:
        raise WorkbenchError(
            f"The answers lack the column {missing[0]!r}: give a table with the columns prompt, first and second, and"
            " the titles of the two models."
        )
    if str(first) == str(second):
        raise WorkbenchError(
            f"Both models are called {str(first)!r}: give two different titles, or nobody could tell which one won."
        )
    if not len(answers):
        raise WorkbenchError("There are no answers to compare: the table has no rows.")
    _nothing_missing(answers, columns)
    items = []
    for row in answers.to_dict("records"):
        turns = next((value for value in (row.get("messages"), row["prompt"]) if isinstance(value, list | tuple)), None)
        if turns and not all(
            isinstance(turn, Mapping) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)
            for turn in turns
        ):
            raise WorkbenchError(
                f"The messages {excerpt(turns, 120)} are no conversation: each turn needs a role and a content, both"
                " text."
            )
        made = (
            {"prompt": prompt_text(turns), "messages": [dict(turn) for turn in turns]}
            if turns
            else {"prompt": _encodable(row["prompt"])}
        )
        for side, column in columns.items():
            made[side], length = _encodable(row[column]), row.get(f"{column}_tokens")
            made[f"{side}_tokens"] = None if length is None or length != length else int(length)
        items.append(made)
    return items


def _nothing_missing(answers, columns):
    """Errors: WorkbenchError that counts what has no value; as text it would read "nan"."""
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


def _shuffled(items, seed):
    """The items in random order with their sides: of those that will be asked, each model stands at the left in one
    half.
    """
    chance = random.Random(seed)
    items = chance.sample(items, len(items))
    start = chance.randrange(2)  # whose the one more is, where the number is odd
    sides = [SIDES[(start + place) % 2] for place in range(len(items))]
    asked = sum(not _is_same(item) for item in items)
    drawn = iter(chance.sample(sides[:asked], asked))
    return [{**item, "left_is": "first" if _is_same(item) else next(drawn)} for item in items]


def _is_same(item):
    return item["first"].strip() == item["second"].strip()


def _pair(item, chosen, rejected):
    """A row that reads back as this prompt and these answers: the prompt as text where that is one user turn, else as
    messages. None where it is refused.
    """
    messages = [dict(turn) for turn in item.messages]
    for prompt in (item.prompt, messages):
        try:
            read = read_row({"prompt": prompt, "chosen": chosen, "rejected": rejected})
        except RowRefused:
            continue
        if (read.prompt, read.chosen, read.rejected) == (messages, chosen, rejected):
            return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return None


def sampled_answers(generations, first: int, second: int):
    """DataFrame of the prompts that a run answered at both steps, for `BlindVotes.begin`: prompt, first, second,
    first_tokens, second_tokens.

    generations: DataFrame as `run.generations`. Errors: WorkbenchError when the two steps have no prompt in common.
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
    return both.rename(
        columns={
            "answer_first": "first",
            "answer_second": "second",
            "tokens_first": "first_tokens",
            "tokens_second": "second_tokens",
        }
    )
