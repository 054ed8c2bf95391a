"""Letters between those who look at a run and the process that it lives in, as files in its folder.

    requests/<when>-<id>.json    {"id", "kind", "values"}: left by anybody, taken by the run's process
    answers/<id>.json            {"state": "acknowledged" | "done" | "refused", "text", …}
    answers/<id>.parquet         the table that belongs to an answer, where there is one

Nobody waits for a lock, a letter that is half written is never seen, and both sides may die at any moment.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import uuid
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from ..base import process
from ..base.errors import WorkbenchError
from ..base.files import read_json, write_atomically
from ..base.redaction import redact

#: What can be asked of a run that trains; done at the next step boundary.
CONTROL = ("stop", "pause", "resume", "suspend", "save", "evaluate", "set")
#: What a loaded model can be asked; answered between steps.
QUESTIONS = ("generate", "score", "explain", "encode", "close")
ANSWERED = ("done", "refused")

_LETTER = re.compile(r"\d{20}-[0-9a-f]{32}\.json")
#: A letter larger than this is no question of ours.
MOST_BYTES = 64 * 1024**2
#: Answers nobody collected are swept away after this time.
KEPT_ANSWER_S = 3600.0


@dataclass(frozen=True)
class Letter:
    """One request or question: its id, what is wanted, and with what."""

    id: str
    kind: str
    values: dict


class Mailbox:
    """The side of those who ask."""

    def __init__(self, folder: Path):
        self.requests, self.answers = folder / "requests", folder / "answers"

    def ask(self, kind: str, **values) -> str:
        """Leave a letter; returns its id. Errors: WorkbenchError when the folder cannot be written."""
        if kind not in CONTROL + QUESTIONS:
            raise WorkbenchError(f"{kind!r} cannot be asked of a run: it knows {', '.join(CONTROL + QUESTIONS)}.")
        letter = uuid.uuid4().hex
        try:
            self.requests.mkdir(exist_ok=True)
        except OSError as error:
            raise WorkbenchError(
                f"{str(self.requests)!r} cannot be written: {error.strerror}. Nobody was asked to {kind}."
            ) from None
        # by the time since boot: the wall clock may go backwards, and the order of pause and resume matters
        when = int(process.uptime_s() * 1e9)
        write_atomically(
            self.requests / f"{when:020d}-{letter}.json",
            json.dumps({"id": letter, "kind": kind, "values": values}).encode(),
        )
        return letter

    def answer(self, letter: str) -> dict | None:
        """What was answered so far: {"state", "text", …}; None when nobody has taken the letter yet."""
        return read_json(self.answers / f"{letter}.json")

    def table(self, letter: str):
        """The DataFrame that came with an answer."""
        import pandas as pd

        return pd.read_parquet(self.answers / f"{letter}.parquet")

    def withdraw(self, letter: str) -> bool:
        """Take a letter back; False when it was taken already.

        Whoever took it sees that it is not wanted any more, and need not begin.
        """
        waiting = list(self.requests.glob(f"*-{letter}.json"))
        for path in waiting:
            path.unlink(missing_ok=True)
        if not waiting:
            with contextlib.suppress(OSError):
                _marker(self.requests, letter).touch()
        return bool(waiting)

    def clear(self):
        """Forget everything that was asked of an earlier process: it is not meant for this one."""
        for folder in (self.requests, self.answers):
            if folder.is_dir():
                for path in folder.iterdir():
                    path.unlink(missing_ok=True)

    def forget(self, letter: str):
        """Remove an answer that was read."""
        for suffix in ("json", "parquet"):
            (self.answers / f"{letter}.{suffix}").unlink(missing_ok=True)


class Postmaster:
    """The side of the process that is asked.

    `collect` may run in a thread of its own, beside the one that takes and answers.
    """

    def __init__(self, folder: Path):
        self.requests, self.answers = folder / "requests", folder / "answers"
        self._waiting: deque[Letter] = deque()
        self._lock = Lock()

    def collect(self):
        """Take what lies there and say so to those who asked: each letter is acknowledged once, in the order of
        asking.
        """
        with self._lock:
            try:
                paths = sorted(path for path in self.requests.iterdir() if _LETTER.fullmatch(path.name))
            except FileNotFoundError:
                return
            for path in paths:
                letter = _read(path)
                path.unlink(missing_ok=True)
                if letter is not None:
                    self._waiting.append(letter)
                    with contextlib.suppress(WorkbenchError):  # a full disk: the letter counts all the same
                        self._reply(letter, "acknowledged", "")

    def take(self, kinds: tuple[str, ...] = CONTROL + QUESTIONS) -> list[Letter]:
        """Letters of these kinds that wait, oldest first; each is given out once. Withdrawn ones are left out."""
        self.collect()
        with self._lock:
            taken = [letter for letter in self._waiting if letter.kind in kinds]
            self._waiting = deque(letter for letter in self._waiting if letter.kind not in kinds)
        wanted = [letter for letter in taken if not self.is_withdrawn(letter)]
        for letter in taken:
            _marker(self.requests, letter.id).unlink(missing_ok=True)
        return wanted

    def done(self, letter: Letter, text: str = "", table=None, **values):
        """Say that it is done: what came of it in words, values, and a DataFrame where there is one (its numbers stay
        numbers).
        """
        if table is not None:
            self.answers.mkdir(exist_ok=True)
            beside = self.answers / f".{letter.id}.tmp"
            table.to_parquet(beside, index=False)
            beside.replace(self.answers / f"{letter.id}.parquet")
        self._reply(letter, "done", text, **values)

    def refuse(self, letter: Letter, text: str):
        """Say that it is not done, and why."""
        self._reply(letter, "refused", text)

    def sweep(self):
        """Remove answers that nobody collected for an hour."""
        for path in [*self.answers.glob("*"), *self.requests.glob("withdrawn-*")]:
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > KEPT_ANSWER_S:
                    path.unlink()

    def is_withdrawn(self, letter: Letter) -> bool:
        """Whether the one who asked does not want it any more."""
        return _marker(self.requests, letter.id).exists()

    def _reply(self, letter, state, text, **values):
        self.answers.mkdir(exist_ok=True)
        write_atomically(
            self.answers / f"{letter.id}.json",
            json.dumps({"state": state, "text": redact(text), **values}, ensure_ascii=False).encode(),
            durable=False,
        )


def _marker(requests, letter):
    """The empty file that says that a letter which was taken already is not wanted any more."""
    return requests / f"withdrawn-{letter}"


def _read(path) -> Letter | None:
    """The letter in a file; None for what is no letter of ours: damaged, foreign, or far too large."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
    except OSError:
        return None
    value = read_json(path) or {}
    letter, kind, values = value.get("id"), value.get("kind"), value.get("values")
    named = isinstance(letter, str) and path.name.endswith(f"-{letter}.json")
    return Letter(letter, kind, values) if named and kind in CONTROL + QUESTIONS and isinstance(values, dict) else None
