"""Blind tests: answers of two models in a recorded random order, and votes that are on disk at once.

A test is one JSON-lines file. Its first line holds the seed, the titles and every item in the order of asking, with the
side of each answer; each later line is a vote, and is written before `vote` returns. Nothing is erased: taking back a
vote adds a line too. Several kernels may vote in one file: each reads what the others added before it adds its own, and
every line has a meaning after any other.
"""

from __future__ import annotations

import operator
import secrets
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import WorkbenchError
from ..base.files import append_jsonl, create_jsonl, read_jsonl_from
from .blind_items import Item, item_of, item_records, shuffled
from .vote_statistics import SIDES

if TYPE_CHECKING:
    import pandas as pd

CHOICES = ("left", "right", "tie", "both bad", "skip")
_COLUMNS = ["item", "prompt", "left_is", "choice", "winner", "first_tokens", "second_tokens", "blind", "at"]


class BlindVotes:
    """One blind test; `begin` makes one, `resume` continues one.

    `items` are in the order of asking, `titles` those of the two models; `path` holds the votes. `began_at`: in
    seconds since 1970. `blind` is true until the titles are shown.
    """

    def __init__(self, path: Path, head: dict, records: list[dict], end: int):
        self.path, self.seed, self.began_at = path, head["seed"], head["made"]
        self._began, self._end = datetime.fromtimestamp(self.began_at), end  # end: bytes of the file that were read
        self.titles = {side: head[side] for side in SIDES}
        self.items = [item_of(number, record) for number, record in enumerate(head["items"], 1)]
        self._current, self.blind = {}, True  # the vote that counts of each item, in the order of voting
        for record in records:
            self._take(record)

    def __repr__(self):
        # without the titles, so that a cell can show it during the test
        return f"BlindVotes({str(self.path)!r}: {self.voted} of {self.asked} voted)"

    @classmethod
    def begin(
        cls, path: str | Path, answers, first: str = "base", second: str = "tuned", seed: int | None = None
    ) -> BlindVotes:
        """A new blind test in a new file.

        answers: DataFrame with the columns prompt, first and second, or with the titles as column names, as from
        `wb.generate` (prompt, base, tuned). Optional columns: first_tokens and second_tokens with lengths, and messages
        with the turns of conversations. first, second: titles of the two models, shown when the test ends.
        seed: of the order and of the sides; drawn if not given. Each model is on the left for half of the prompts that
        are asked. Prompts with the same answer from both are not asked.
        Errors: WorkbenchError for columns or answers that are missing, turns without role or content, a file that
        exists or cannot be written.
        """
        try:
            seed = secrets.randbelow(2**31) if seed is None else operator.index(seed)
        except TypeError:
            raise WorkbenchError(f"The seed is {seed!r}, expected a whole number, or none to have one drawn.") from None
        path, items = _full(path), shuffled(item_records(answers, first, second), seed)
        titles = {"first": str(first), "second": str(second)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkbenchError(
                f"The folder {str(path.parent)!r} cannot be made: {error.strerror}. Choose another path for the votes."
            ) from None
        try:
            first_line = {"kind": "blind test", "seed": seed, **titles, "made": time.time(), "items": items}
            create_jsonl(path, [first_line], checked=True)
        except FileExistsError:
            raise WorkbenchError(
                f"{str(path)!r} is there already: choose another name, or go on with that test by BlindVotes.resume."
            ) from None
        return cls.resume(path)

    @classmethod
    def resume(cls, path: str | Path) -> BlindVotes:
        """The blind test in a file; a last line that a killed kernel left incomplete is ignored.

        Errors: WorkbenchError where the file holds no blind test.
        """
        path = _full(path)
        try:
            records, end = read_jsonl_from(path)  # an incomplete line was never reported as saved
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
        """The number of items to vote on."""
        return sum(not item.same for item in self.items)

    @property
    def voted(self) -> int:
        """The number of items that have a vote."""
        return len(self._current)

    @property
    def votes(self) -> pd.DataFrame:
        """DataFrame of the votes that count, in the order of asking; attrs["titles"] holds the titles.

        Columns: item, prompt, left_is ("first" or "second"), choice, winner, first_tokens, second_tokens, blind, at.
        winner: "first", "second", "tie", "both bad" or "skip"; items whose answers are the same have "same" as choice
        and winner.
        """
        import pandas as pd

        rows = []
        for item in self.items:
            vote = {"choice": "same", "blind": True, "at": self._began} if item.same else self._current.get(item.number)
            if vote is not None:
                choice = vote["choice"]
                rows.append(
                    {
                        "item": item.number,
                        "prompt": item.prompt,
                        "left_is": item.left_is,
                        "choice": choice,
                        "winner": item.winner(choice),
                        "first_tokens": item.first_tokens,
                        "second_tokens": item.second_tokens,
                        "blind": vote["blind"],
                        "at": vote["at"],
                    }
                )
        table = pd.DataFrame(rows, columns=_COLUMNS).astype({"first_tokens": float, "second_tokens": float})
        table.attrs["titles"] = dict(self.titles)
        return table

    def next_item(self) -> Item | None:
        """The first item without a vote; None when all have one."""
        return next((item for item in self.items if not item.same and item.number not in self._current), None)

    def vote(self, item: Item | int, choice: str) -> None:
        """Save a vote, one of CHOICES; it is on disk when this returns. Of several votes on an item the last counts.

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
        """Take back the last vote and return its item, which has no vote then, even if it had been voted on repeatedly.

        Errors: WorkbenchError when there is no vote.
        """
        self._catch_up()
        if not self._current:
            raise WorkbenchError("There is no vote to take back.")
        item = self.items[[*self._current][-1] - 1]
        self._append({"undo": item.number, "at": time.time()})
        return item

    def reveal(self) -> None:
        """Record once that the titles are shown: later votes are not blind."""
        if self.blind:
            self._append({"revealed": True, "at": time.time()})

    def pairs(self) -> list[dict]:
        """The decided votes as preference pairs for `wb.load_pairs`: prompt, chosen, rejected, source, winner.

        The prompt is text, or messages for conversations. winner: the title of the preferred model. Pairs that no data
        set could use, such as one with an empty answer, are left out.
        """
        pairs = []
        for item in self.items:
            winner = item.winner(self._current[item.number]["choice"]) if item.number in self._current else ""
            if winner in SIDES and (pair := item.pair(winner)):
                pairs.append({**pair, "source": "blind test", "winner": self.titles[winner]})
        return pairs

    def export(self, path: str | Path) -> int:
        """Write `pairs` as a JSON-lines file; the number of them.

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
            append_jsonl(self.path, record, create=False)  # a new file would lack the first line
        except OSError as error:
            raise self._not_saved(error) from None
        self._catch_up()

    def _catch_up(self):
        """Read the lines that this kernel, or another one that votes in the same test, added since the last reading."""
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
