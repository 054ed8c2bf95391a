"""Lock files, and files that only their owner may open: neither another user nor a hung process is waited for without
end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

#: Rights of locks, requests and replies: whoever may write them steers the run.
PRIVATE, PRIVATE_FOLDER = 0o600, 0o700
#: The same in a folder that belongs to a group on purpose.
OF_THE_GROUP, FOLDER_OF_THE_GROUP = 0o660, 0o2770
#: A line is appended in milliseconds; a lock that is held for longer is not an appending process's.
LOCK_PATIENCE_S = 5.0
#: Errors of file systems that have no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_POLL_S = 0.02


def belongs_to_a_group(folder: Path) -> bool:
    """Whether a folder is meant for several people: its group may write, and what is made in it has that group."""
    try:
        mode = folder.stat().st_mode
    except OSError:
        return False
    return bool(mode & stat.S_ISGID and mode & stat.S_IWGRP)


def set_rights(target: int | Path, rights: int) -> None:
    """Give an open file or a path exactly these rights, whatever the umask is; what another user owns keeps its own."""
    with contextlib.suppress(PermissionError):
        os.chmod(target, rights)


def open_lock(path: Path, rights: int = PRIVATE) -> BinaryIO:
    """A lock file, opened for reading and writing and made where there is none. Links are not followed.

    Errors: OSError, such as for another user's file.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, rights)
    set_rights(descriptor, rights)
    return os.fdopen(descriptor, "a+b")


def only_shared(file: BinaryIO) -> bool:
    """Whether a lock that could not be had is held by readers alone, such as a program that copies the folder."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


@contextlib.contextmanager
def locked(file: BinaryIO) -> Iterator[None]:
    """Hold a file's lock while something is appended, where the file system has locks.

    Whoever may read a file can hold a shared lock on it, another user included. It is waited for LOCK_PATIENCE_S and
    then passed over, because its holder cannot be one that appends. Errors: OSError (ETIMEDOUT) when a process holds
    the lock itself for so long.
    """
    held, end = True, time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > end:
                if not only_shared(file):
                    raise OSError(errno.ETIMEDOUT, "Another process holds its lock") from None
                held = False
                break
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            held = False
            break
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        if held:  # closing is not enough: a process forked meanwhile has the file open too
            fcntl.flock(file, fcntl.LOCK_UN)
