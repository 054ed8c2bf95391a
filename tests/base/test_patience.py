"""A fault of the disk that lasts a second must not cost hours of training, nor a line of the records."""

import errno
import os

import pytest

from simpo_workbench import WorkbenchError
from simpo_workbench.base import files, patience
from simpo_workbench.base.checksums import checked_line
from simpo_workbench.base.files import NewLine, append_jsonl, read_json, read_jsonl, write_json
from simpo_workbench.base.patience import Patience, passes


@pytest.fixture
def pauses(monkeypatch):
    """The pauses between attempts, which take no time here; a clock that only they move on."""
    taken, now = [], [100.0]

    def sleep(seconds):
        taken.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(patience.time, "sleep", sleep)
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    return taken


def failing(times, number, call):
    """`call`, which fails before it does anything for so many times."""
    left = [times]

    def wrapped(*arguments, **keywords):
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return call(*arguments, **keywords)

    return wrapped


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOSPC])
def test_an_error_that_passes_is_tried_again_and_told(tmp_path, monkeypatch, pauses, number):
    monkeypatch.setattr(os, "fsync", failing(3, number, os.fsync))
    patient = Patience(60)
    write_json(tmp_path / "status.json", {"step": 7}, patience=patient)
    assert read_json(tmp_path / "status.json") == {"step": 7}
    assert pauses == [0.1, 0.2, 0.4]
    reason = os.strerror(number)
    (note,) = patient.take_notes()
    assert note == f"Writing status.json failed 3 times ({reason}) and succeeded after 0.7 s."
    assert patient.take_notes() == []


def test_an_error_that_does_not_pass_is_not_waited_for(tmp_path, monkeypatch, pauses):
    monkeypatch.setattr(os, "fsync", failing(1, errno.EROFS, os.fsync))
    with pytest.raises(WorkbenchError, match="Read-only file system"):
        write_json(tmp_path / "status.json", {}, patience=Patience(60))
    assert pauses == []
    assert list(tmp_path.iterdir()) == []


def test_patience_ends_after_its_seconds_and_is_there_again_after_a_success(tmp_path, monkeypatch, pauses):
    """Else a disk that stays full would cost a minute for every record."""
    patient, path = Patience(60), tmp_path / "metrics.jsonl"
    monkeypatch.setattr(os, "fsync", failing(1000, errno.ENOSPC, os.fsync))
    with pytest.raises(OSError, match="No space left"):
        append_jsonl(path, {"step": 1}, patience=patient)
    assert 50 < sum(pauses) <= 60
    pauses.clear()
    with pytest.raises(OSError, match="No space left"):
        append_jsonl(path, {"step": 1}, patience=patient)
    assert pauses == []
    monkeypatch.undo()
    append_jsonl(path, {"step": 1}, patience=patient)
    monkeypatch.setattr(patience.time, "sleep", pauses.append)
    monkeypatch.setattr(os, "fsync", failing(1, errno.ENOSPC, os.fsync))
    append_jsonl(path, {"step": 2}, patience=patient)
    assert pauses == [0.1]
    assert read_jsonl(path) == [{"step": 1}, {"step": 2}]


def test_without_patience_everything_is_tried_once(tmp_path, monkeypatch, pauses):
    monkeypatch.setattr(os, "fsync", failing(1, errno.EIO, os.fsync))
    with pytest.raises(OSError, match="Input/output error"):
        append_jsonl(tmp_path / "votes.jsonl", {})
    assert pauses == []
    assert read_jsonl(tmp_path / "votes.jsonl") == []


@pytest.mark.parametrize("left", [0, 5, 20, None])
def test_a_line_whose_remains_could_not_be_cut_off_is_not_doubled(tmp_path, monkeypatch, left):
    """A failed attempt leaves nothing, a part or all of its line (None); the file ends in whole lines, each once."""
    path, line = tmp_path / "metrics.jsonl", NewLine(tmp_path / "metrics.jsonl", {"step": 2})
    append_jsonl(path, {"step": 1})
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", failing(1, errno.EIO, os.fsync))
        with pytest.raises(OSError, match="Input/output"):
            line.write()
    with open(path, "ab") as file:  # what the cutting back should have taken away
        file.write(checked_line({"step": 2}, 2)[:left])
    line.write()
    assert path.read_bytes() == checked_line({"step": 1}, 1) + checked_line({"step": 2}, 2)
    append_jsonl(path, {"step": 3})
    assert read_jsonl(path) == [{"step": 1}, {"step": 2}, {"step": 3}]


def test_another_writers_line_behind_a_failed_one_is_kept(tmp_path, monkeypatch):
    path, line = tmp_path / "votes.jsonl", NewLine(tmp_path / "votes.jsonl", {"vote": "mine"})
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", failing(1, errno.EIO, os.fsync))
        with pytest.raises(OSError, match="Input/output"):
            line.write()
    path.write_bytes(checked_line({"vote": "mine"}, 1) + checked_line({"vote": "theirs"}, 2))
    line.write()
    assert read_jsonl(path) == [{"vote": "mine"}, {"vote": "theirs"}]
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", failing(1, errno.EIO, os.fsync))
        with pytest.raises(OSError, match="Input/output"):
            (again := NewLine(path, {"vote": "mine"})).write()
    append_jsonl(path, {"vote": "theirs"})
    again.write()
    assert [record["vote"] for record in read_jsonl(path)] == ["mine", "theirs", "theirs", "mine"]


def test_errors_that_other_libraries_tell_in_words_are_known():
    assert passes(RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert not passes(RuntimeError("Permission denied (os error 13)"))
    assert not passes(ValueError("no error of a disk"))
    try:
        try:
            raise OSError(errno.EIO, "Input/output error")
        except OSError as error:
            raise WorkbenchError("cannot be written") from error
    except WorkbenchError as error:
        assert passes(error)
    assert files.ONCE.seconds == 0
