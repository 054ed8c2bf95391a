"""Requests to the process of a run, and its replies, as files in the run folder.

    requests/<when>-<id>.json    {"id", "kind", "values"}: written by any process, taken by the run's
    requests/withdrawn-<id>      empty: the reply is no longer wanted
    replies/<id>.json            {"state": "acknowledged" | "done" | "refused", "text", …}
    replies/<id>.parquet         the table that belongs to a reply, where there is one

All are for their owner alone (0600 in folders of 0700): whoever may write a request steers the run.
No side waits for a lock, a half-written request is never read, and either side may die at any moment.
Folders from before replies were called so have them in `answers/`; they are still read.
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
from typing import TYPE_CHECKING

from ..base import process
from ..base.errors import WorkbenchError
from ..base.files import read_json, write_atomically
from ..base.locks import PRIVATE, PRIVATE_FOLDER, set_rights
from ..base.patience import passes
from ..base.redaction import redact
from .tables import write_table

if TYPE_CHECKING:
    import pandas as pd

#: Requests that steer a run; done between two steps.
CONTROL = ("stop", "pause", "unpause", "suspend", "save", "evaluate", "set")
#: Requests to the loaded model; answered between two steps.
MODEL_REQUESTS = ("generate", "score", "explain", "encode", "close")
#: Final states of a reply.
REPLIED = ("done", "refused")

_REQUEST_NAME = re.compile(r"\d{20}-[0-9a-f]{32}\.json")
#: Larger files are ignored.
MAX_REQUEST_BYTES = 64 * 1024**2
#: Replies that were not collected are deleted after this time.
REPLY_LIFETIME_S = 3600.0


@dataclass(frozen=True)
class Request:
    """A request: its id, its kind (one of CONTROL or MODEL_REQUESTS), and the values that go with it."""

    id: str
    kind: str
    values: dict


class Mailbox:
    """The asking side."""

    def __init__(self, folder: Path):
        self.requests, self.replies, self._old_replies = folder / "requests", folder / "replies", folder / "answers"

    def ask(self, kind: str, **values) -> str:
        """The id of a new request, written to the folder. Errors: WorkbenchError when it cannot be written."""
        if kind not in CONTROL + MODEL_REQUESTS:
            raise WorkbenchError(f"{kind!r} cannot be asked of a run: it knows {', '.join(CONTROL + MODEL_REQUESTS)}.")
        request_id = uuid.uuid4().hex
        try:
            make_private(self.requests)
        except OSError as error:
            raise WorkbenchError(
                f"{str(self.requests)!r} cannot be written: {error.strerror}. The run was not asked to {kind}."
            ) from None
        # ordered by the time since boot: the wall clock may go backwards, and the order of pause and unpause matters
        when = int(process.uptime_s() * 1e9)
        content = json.dumps({"id": request_id, "kind": kind, "values": values}).encode()
        write_atomically(self.requests / f"{when:020d}-{request_id}.json", content, rights=PRIVATE)
        return request_id

    def reply(self, request_id: str) -> dict | None:
        """The reply so far: {"state", "text", …}; None while the request has not been taken."""
        return read_json(self._reply_file(f"{request_id}.json"))

    def table(self, request_id: str) -> pd.DataFrame:
        """The DataFrame that came with a reply."""
        import pandas as pd

        return pd.read_parquet(self._reply_file(f"{request_id}.parquet"))

    def withdraw(self, request_id: str) -> bool:
        """Whether the request was taken back before it was read.

        Otherwise it is marked as no longer wanted, and the process that took it does not begin, or stops.
        """
        unread = list(self.requests.glob(f"*-{request_id}.json"))
        for path in unread:
            path.unlink(missing_ok=True)
        if not unread:
            with contextlib.suppress(OSError):
                _withdrawn_marker(self.requests, request_id).touch()
        return bool(unread)

    def clear(self) -> None:
        """Delete all requests and replies, which were meant for an earlier process."""
        for folder in (self.requests, self.replies, self._old_replies):
            if folder.is_dir():
                for path in folder.iterdir():
                    path.unlink(missing_ok=True)

    def forget(self, request_id: str) -> None:
        """Delete a reply that was read."""
        for suffix in ("json", "parquet"):
            self._reply_file(f"{request_id}.{suffix}").unlink(missing_ok=True)

    def _reply_file(self, name):
        path = self.replies / name
        return path if path.exists() else self._old_replies / name


class Inbox:
    """The asked side. `collect` may run in another thread than `take`, `done` and `refuse`."""

    def __init__(self, folder: Path):
        self.requests, self.replies = folder / "requests", folder / "replies"
        self._waiting: deque[Request] = deque()
        self._lock = Lock()
        self._undeletable: set[str] = set()  # such as another user's, in a folder with the sticky bit
        self._unsent: dict[Path, bytes] = {}
        self._told: set[str] = set()

    def collect(self) -> None:
        """Read the requests that have come, in the order in which they were asked, and acknowledge each once.

        Replies that could not be written are tried again. Errors: OSError where the folder cannot be read.
        """
        with self._lock:
            self._send_again()
            try:
                paths = sorted(path for path in self.requests.iterdir() if _REQUEST_NAME.fullmatch(path.name))
            except FileNotFoundError:
                return
            for path in paths:
                if path.name in self._undeletable:
                    continue
                request = _read(path)
                try:
                    path.unlink(missing_ok=True)
                except OSError:
                    self._undeletable.add(path.name)
                if request is not None:
                    self._waiting.append(request)
                    with contextlib.suppress(WorkbenchError):  # the disk is full: the request counts all the same
                        self._reply(request, "acknowledged", "")

    def take(self, kinds: tuple[str, ...] = CONTROL + MODEL_REQUESTS) -> list[Request]:
        """The waiting requests of these kinds, oldest first, each once; without those that were withdrawn."""
        with contextlib.suppress(OSError):  # the next look may succeed; what has come before is taken now
            self.collect()
        with self._lock:
            taken = [request for request in self._waiting if request.kind in kinds]
            self._waiting = deque(request for request in self._waiting if request.kind not in kinds)
        wanted = [request for request in taken if not self.is_withdrawn(request)]
        for request in taken:
            with contextlib.suppress(OSError):  # `sweep` deletes it within an hour
                _withdrawn_marker(self.requests, request.id).unlink(missing_ok=True)
        return wanted

    def acknowledge(self, kinds: tuple[str, ...], text: str) -> None:
        """Say of the waiting requests of these kinds when they will be done, once each; they stay."""
        with self._lock:
            for request in self._waiting:
                if request.kind in kinds and request.id not in self._told:
                    self._told.add(request.id)
                    with contextlib.suppress(WorkbenchError):  # as in `collect`
                        self._reply(request, "acknowledged", text)

    def done(self, request: Request, text: str = "", table=None, **values) -> None:
        """Reply that the request was done: the outcome as a sentence, as values, and as a DataFrame where there is
        one (Parquet, so that numbers keep their types).

        A reply that meets a fault of the disk that may pass is written by a later `collect`. Errors: OSError for a
        table that cannot be written, WorkbenchError for a reply that never can.
        """
        if table is not None:
            make_private(self.replies)
            write_table(self.replies / f"{request.id}.parquet", table, PRIVATE)
        self._reply(request, "done", text, **values)

    def refuse(self, request: Request, text: str) -> None:
        """Reply that the request will not be done, and why."""
        self._reply(request, "refused", text)

    def sweep(self) -> None:
        """Delete replies that were not collected within REPLY_LIFETIME_S."""
        for path in [*self.replies.glob("*"), *self.requests.glob("withdrawn-*")]:
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > REPLY_LIFETIME_S:
                    path.unlink()

    def is_withdrawn(self, request: Request) -> bool:
        """Whether the reply is no longer wanted."""
        return _withdrawn_marker(self.requests, request.id).exists()

    def _reply(self, request, state, text, **values):
        path = self.replies / f"{request.id}.json"
        content = json.dumps({"state": state, "text": redact(text), **values}, ensure_ascii=False).encode()
        self._unsent.pop(path, None)
        try:
            make_private(self.replies)
            write_atomically(path, content, durable=False, rights=PRIVATE)
        except (OSError, WorkbenchError) as error:
            if not passes(error):
                raise
            self._unsent[path] = content

    def _send_again(self):
        for path, content in list(self._unsent.items()):
            with contextlib.suppress(WorkbenchError):  # it stays for the next time
                write_atomically(path, content, durable=False, rights=PRIVATE)
                self._unsent.pop(path, None)


def make_private(folder: Path) -> None:
    """Make a folder of requests or replies, and close it to other users, also one of an older version."""
    folder.mkdir(exist_ok=True)
    set_rights(folder, PRIVATE_FOLDER)


def _withdrawn_marker(requests, request_id):
    return requests / f"withdrawn-{request_id}"


def _read(path) -> Request | None:
    """The request in a file; None for a file that is damaged, foreign or larger than MAX_REQUEST_BYTES."""
    try:
        if path.stat().st_size > MAX_REQUEST_BYTES:
            return None
    except OSError:
        return None
    content = read_json(path) or {}
    request_id, kind, values = content.get("id"), content.get("kind"), content.get("values")
    well_named = isinstance(request_id, str) and path.name.endswith(f"-{request_id}.json")
    if not (well_named and kind in CONTROL + MODEL_REQUESTS and isinstance(values, dict)):
        return None
    return Request(request_id, kind, values)
