"""What a user would lose: a training of hours, to a disk or a network share that had a bad second or a bad minute."""

import errno
import os

import pytest
from killing import outcome, train_steps

import simpo_workbench as wb
from simpo_workbench.base import files
from simpo_workbench.engine import checkpoints
from simpo_workbench.runs import presence as presence_module


@pytest.fixture
def patience(monkeypatch):
    """Set how many seconds a run waits."""
    return lambda seconds: monkeypatch.setenv("SIMPO_WORKBENCH_PATIENCE_S", str(seconds))


def faults(run):
    return [record["text"] for record in run.records if record.get("event") == "disk_fault"]


def test_faults_that_pass_change_nothing_but_the_events(tiny_config, finished_run, monkeypatch, patience):
    """Every fourth flush to the disk fails, whatever file it is for: records, status, checkpoints."""
    quiet = finished_run()
    patience(60)
    calls, fsync = [0], os.fsync

    def failing_fsync(descriptor):
        calls[0] += 1
        if calls[0] % 4 == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    flush = checkpoints._fsync
    monkeypatch.setattr(os, "fsync", failing_fsync)
    # a checkpoint flushes a dozen files, of which three would fail at each attempt
    monkeypatch.setattr(checkpoints, "_fsync", lambda path: flush(path) if path.name == "manifest.json" else None)
    monkeypatch.setattr("simpo_workbench.base.patience._FIRST_PAUSE_S", 0.001)
    run = wb.train(tiny_config)
    assert run.status.state == "finished"
    assert outcome(run) == outcome(quiet)
    told = faults(run)
    assert any("Writing metrics.jsonl failed once (Input/output error) and succeeded" in text for text in told), told
    assert any("status.json" in text for text in told), told


def test_records_wait_in_memory_until_the_disk_takes_them(tiny_config, finished_run, monkeypatch, patience):
    """The disk is full for two steps, longer than the run waits; a checkpoint comes after it is free again."""
    changes = {"training.save_every": 0, "training.eval_every": 0}
    quiet = finished_run(changes)
    patience(0)
    write, seen = files.NewLine.write, []

    def full_for_a_while(line):
        seen.append(line)
        if 3 <= len(seen) <= 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(line)

    monkeypatch.setattr(files.NewLine, "write", full_for_a_while)
    run = wb.train(tiny_config.with_changes(changes))
    assert run.status.state == "finished"
    assert outcome(run) == outcome(quiet)
    assert train_steps(run) == sorted(set(train_steps(run)))
    (text,) = faults(run)
    assert "could not be written" in text
    assert "No space left on device" in text
    assert "kept in memory meanwhile and are done now" in text


def test_a_status_that_cannot_be_written_ends_no_training(tiny_config, finished_run, monkeypatch, patience):
    """Whatever the error is: the status is a display, and its last version is written with all patience."""
    quiet = finished_run()
    patience(5)
    write_json, fails = presence_module.write_json, [True]

    def no_status(path, *arguments, **keywords):
        if path.name == "status.json" and fails[0]:
            raise wb.WorkbenchError(f"{str(path)!r} cannot be written: Permission denied.")
        write_json(path, *arguments, **keywords)

    monkeypatch.setattr(presence_module, "write_json", no_status)
    run = wb.train(tiny_config, on_record=lambda record: fails.__setitem__(0, record["step"] < 5))
    assert (run.status.state, run.status.step) == ("finished", 6)
    assert outcome(run) == outcome(quiet)


def test_a_checkpoint_that_cannot_be_written_ends_the_run_in_words(tiny_config, monkeypatch, patience):
    patience(0.3)
    tries = []

    def full(*_):
        tries.append(1)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints, "_save_tensors", full)
    with pytest.raises(wb.WorkbenchError, match=r"checkpoint of step \d+ cannot be written to .*: No space left"):
        wb.train(tiny_config)
    run = wb.attach("tiny", tiny_config.run.root)
    assert run.status.state == "failed"
    assert "No space left on device" in run.status.message
    assert len(tries) == 2  # at once, and after 0.1 s; the next pause would be longer than the patience
    assert not list(run.folder.checkpoints.glob("*"))


def test_records_that_cannot_be_written_end_the_run_at_its_next_checkpoint(tiny_config, monkeypatch, patience):
    """A checkpoint that is ahead of its records would be resumed with a gap."""
    patience(0)

    def full(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.NewLine, "write", full)
    with pytest.raises(wb.WorkbenchError, match="cannot be written: No space left on device. Free some space"):
        wb.train(tiny_config.with_changes({"training.save_every": 3, "training.eval_every": 0}))
    run = wb.attach("tiny", tiny_config.run.root)
    assert run.status.state == "failed"
    assert run.status.step == 3
    assert not list(run.folder.checkpoints.glob("step-*"))


def test_a_patience_that_is_no_number_is_said(tiny_config, patience):
    patience("long")
    with pytest.raises(wb.WorkbenchError, match="SIMPO_WORKBENCH_PATIENCE_S is 'long'"):
        wb.train(tiny_config)
