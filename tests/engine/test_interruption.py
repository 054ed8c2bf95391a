"""What a user would lose: a process that aborts during an import, or a stop that is forgotten."""

import contextlib
import os
import signal
import sys

import pytest

from simpo_workbench.engine.interruption import StopSignal


@pytest.fixture
def stop():
    stop = StopSignal()
    before = signal.signal(signal.SIGTERM, lambda number, frame: stop.interrupt(frame))
    yield stop
    signal.signal(signal.SIGTERM, before)


def test_plain_work_is_interrupted_at_once(stop):
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        stop.check()


def test_an_import_ends_first(stop, tmp_path, monkeypatch):
    (tmp_path / "slow_library.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nloaded = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    stop.check()
    import slow_library

    assert slow_library.loaded
    del sys.modules["slow_library"]
    with pytest.raises(KeyboardInterrupt):
        stop.check()


def test_a_stop_that_a_library_swallows_is_remembered(stop):
    with contextlib.suppress(BaseException):
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        stop.check()
