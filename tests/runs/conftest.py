"""Fixtures of the tests of runs."""

import subprocess
import sys

import pytest


@pytest.fixture
def worker():
    """A process that stands for a worker: it lives until it is killed or its input is closed."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        yield child
        child.kill()
