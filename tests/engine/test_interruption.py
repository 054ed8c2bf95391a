"""A stop by signal is never thrown into an import, and never forgotten."""

import contextlib
import os
import signal
import sys

import pytest

from simpo_workbench.engine.interruption import StopAsked


@pytest.fixture
def asked():
    asked = StopAsked()
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.interrupt(frame))
    yield asked
    signal.signal(signal.SIGTERM, before)


def test_plain_work_is_interrupted_at_once(asked):
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        asked.check()


def test_an_import_ends_first(asked, tmp_path, monkeypatch):
    (tmp_path / "slow_library.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nloaded = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    asked.check()
    import slow_library

    assert slow_library.loaded
    del sys.modules["slow_library"]
    with pytest.raises(KeyboardInterrupt):
        asked.check()


def test_what_a_library_swallows_still_stands(asked):
    with contextlib.suppress(BaseException):
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        asked.check()
