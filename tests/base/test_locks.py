"""What a user would lose: a run that waits for ever, because somebody reads its files."""

import errno
import fcntl
import os

import pytest

from simpo_workbench.base import locks
from simpo_workbench.base.files import append_jsonl, read_jsonl, write_atomically


def test_a_shared_lock_is_passed_over_and_a_writers_lock_is_an_error_that_passes(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "LOCK_PATIENCE_S", 0.1)
    path = tmp_path / "metrics.jsonl"
    append_jsonl(path, {"step": 1})
    with open(path, "rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        append_jsonl(path, {"step": 2})
        fcntl.flock(reader, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="Another process holds its lock") as caught:
            append_jsonl(path, {"step": 3})
    assert caught.value.errno == errno.ETIMEDOUT
    append_jsonl(path, {"step": 3})
    assert read_jsonl(path) == [{"step": 1}, {"step": 2}, {"step": 3}]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_files_have_the_rights_of_the_umask_unless_others_are_asked_for(tmp_path, mask):
    previous = os.umask(mask)
    try:
        write_atomically(tmp_path / "plain", b"")
        write_atomically(tmp_path / "private", b"", rights=0o600)
        write_atomically(tmp_path / "group", b"", rights=0o660)
    finally:
        os.umask(previous)
    found = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert found == {"plain": 0o666 & ~mask, "private": 0o600, "group": 0o660}
