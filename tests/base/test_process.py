"""A process's identity: a dead run shown as running, or a signal to a stranger who got its pid, would be the loss."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from simpo_workbench.base.process import identify, is_alive, send_signal


def start(executable=sys.executable):
    """A process that lives until its input is closed."""
    command = [executable, "-I", "-S", "-c", "print('here', flush=True); input()"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdout.readline() == b"here\n"
    return child


@pytest.fixture
def child():
    with start() as process:
        yield process
        process.kill()


def end_unreaped(child):
    """Let the child end and wait for that without taking its exit status: a zombie stays."""
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)


def test_a_process_knows_itself():
    me = identify()
    assert set(me) == {"boot_id", "pid", "start_ticks"}
    assert me["pid"] == os.getpid()
    assert me == identify(os.getpid())
    assert is_alive(me)


def test_another_process_lives_until_it_ends(child):
    identity = identify(child.pid)
    assert is_alive(identity)
    child.stdin.close()
    child.wait()
    assert not is_alive(identity)
    with pytest.raises(ProcessLookupError):
        identify(child.pid)


def test_a_zombie_is_dead(child):
    identity = identify(child.pid)
    end_unreaped(child)
    os.kill(child.pid, 0)  # the pid is still taken, which fools a naive look
    assert not is_alive(identity)
    with pytest.raises(ProcessLookupError):
        identify(child.pid)


def test_a_reused_pid_is_another_process(child):
    identity = identify(child.pid)
    earlier = {**identity, "start_ticks": identity["start_ticks"] - 1}
    assert not is_alive(earlier)
    assert not send_signal(earlier, signal.SIGKILL)
    assert child.poll() is None
    assert is_alive(identity)


def test_after_a_reboot_nothing_of_before_lives():
    assert not is_alive({**identify(), "boot_id": "another boot"})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_process_whose_name_looks_like_its_status_is_found(tmp_path):
    """The kernel writes the name between parentheses in front of the numbers, and a name may hold parentheses and
    blanks.
    """
    odd = tmp_path / "a) Z 1 (b"
    odd.symlink_to(os.path.realpath(sys.executable))
    with start(str(odd)) as child:
        name, alive = Path(f"/proc/{child.pid}/comm").read_text(), is_alive(identify(child.pid))
        child.kill()
    assert (name, alive) == ("a) Z 1 (b\n", True)


@pytest.mark.parametrize(
    "change", [None, {}, "text", [], {"pid": None}, {"pid": "x"}, {"pid": -1}, {"start_ticks": None}]
)
def test_a_damaged_identity_is_dead_and_no_error(change):
    identity = {**identify(), **change} if isinstance(change, dict) and change else change
    assert not is_alive(identity)


def test_an_identity_that_lacks_a_part_is_dead():
    for part in ("boot_id", "pid", "start_ticks"):
        assert not is_alive({name: value for name, value in identify().items() if name != part})


def test_a_signal_reaches_the_process_it_is_meant_for(child):
    assert send_signal(identify(child.pid), signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM


def test_a_dead_process_gets_no_signal(child):
    identity = identify(child.pid)
    end_unreaped(child)
    assert not send_signal(identity, signal.SIGTERM)


def test_neither_the_asking_process_nor_the_first_one_is_signalled():
    """A run inside a kernel must not kill the kernel. SIGCONT would do no harm if it went out."""
    assert not send_signal(identify(), signal.SIGCONT)
    assert not send_signal(identify(1), signal.SIGCONT)
