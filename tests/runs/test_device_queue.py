"""What a user would lose: two runs that fight for one GPU, or a queue that a dead run blocks for ever."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

import simpo_workbench as wb
from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.base.files import read_json
from simpo_workbench.runs import device_queue
from simpo_workbench.runs.device_queue import DeviceQueue, device_name


@pytest.fixture(autouse=True)
def own_queue(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMPO_WORKBENCH_DEVICES", str(tmp_path / "devices"))


def another(code):
    """A process that does something with the queue, says "ready", and stays."""
    whole = (
        "from simpo_workbench.runs.device_queue import DeviceQueue\nimport sys\nqueue ="
        f" DeviceQueue()\n{textwrap.dedent(code)}\nprint('ready', flush=True)\nsys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", whole], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    return child


def end(child):
    child.kill()
    child.wait()


def test_the_device_goes_to_one_at_a_time_in_order():
    first = another("ticket = queue.enter('/runs/a', 'a'); assert queue.take(ticket)")
    second = another("ticket = queue.enter('/runs/b', 'b'); assert not queue.take(ticket)")
    queue = DeviceQueue()
    mine = queue.enter("/runs/c", "c")
    assert queue.holder()["name"] == "a"
    assert [ticket.name for ticket in queue.waiting()] == ["b", "c"]
    assert wb.runs.list_queue().drop(columns="state").to_dict("records") == [
        {"place": 0, "name": "a", "run": "/runs/a"},
        {"place": 1, "name": "b", "run": "/runs/b"},
        {"place": 2, "name": "c", "run": "/runs/c"},
    ]
    end(first)
    assert queue.holder() is None
    assert not queue.take(mine)  # b stands before
    end(second)
    assert queue.take(mine)  # neither the dead holder nor the dead one in the queue is in the way
    assert queue.waiting() == []
    queue.release()
    assert wb.runs.list_queue().empty


def test_a_stopped_process_keeps_its_device_and_its_place():
    """SIGSTOP is no death: its memory is still on the device."""
    first = another("ticket = queue.enter('/runs/a', 'a'); assert queue.take(ticket)")
    os.kill(first.pid, signal.SIGSTOP)
    queue = DeviceQueue()
    assert not queue.take(queue.enter("/runs/b", "b"))
    end(first)


def test_runs_change_places():
    children = [another(f"queue.enter('/runs/{name}', '{name}')") for name in "abc"]
    queue = DeviceQueue()
    queue.move("/runs/c", 1)
    assert [ticket.name for ticket in queue.waiting()] == ["c", "a", "b"]
    queue.move("/runs/c", 2)
    assert [ticket.name for ticket in queue.waiting()] == ["a", "c", "b"]
    assert queue.move("/runs/a", 99) == 3
    assert [ticket.name for ticket in queue.waiting()] == ["c", "b", "a"]
    with pytest.raises(WorkbenchError, match="The run 'z' does not wait for cpu"):
        queue.move("/runs/z", 1)
    for child in children:
        end(child)


def test_a_run_inside_a_kernel_does_not_wait_and_is_seen():
    first = another("ticket = queue.enter('/runs/a', 'a')")
    queue = DeviceQueue()
    assert queue.take_at_once("/runs/kernel", "kernel")
    assert queue.holder()["name"] == "kernel"
    assert not DeviceQueue().take_at_once("/runs/other", "other")
    queue.release()
    end(first)


@pytest.mark.parametrize(
    ("visible", "gpu", "expected"),
    [
        (None, False, "cpu"),
        (None, True, "gpu-0"),
        ("0,1", True, "gpu-0"),
        ("1,0", True, "gpu-1"),
        ("", True, "cpu"),
        ("-1", True, "cpu"),
        ("../x", True, "gpu-.._x"),
    ],
)
def test_devices_are_told_apart(monkeypatch, tmp_path, visible, gpu, expected):
    (tmp_path / "nvidia").touch()
    monkeypatch.setattr(device_queue, "_GPU_FILES", (str(tmp_path / "nvidia"),) if gpu else ("/nowhere",))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_name() == expected


def test_started_runs_wait_for_each_other_and_a_waiting_one_can_be_cancelled(tiny_config):
    """Three at once: the first trains, the others say what they wait for; the cancelled one never loads a model."""
    long = tiny_config.with_changes({"training.max_steps": 20_000, "training.eval_every": 0, "training.save_every": 0})
    first, second, third = wb.runs.start_many(
        [long.with_changes({"run.name": name}) for name in ("first", "second", "third")]
    )
    deadline = time.monotonic() + 300

    def until(condition, what):
        while not condition():
            assert time.monotonic() < deadline, (
                f"waited in vain for {what}: {first.status}, {second.status}, {third.status}"
            )
            time.sleep(0.1)

    until(lambda: "which the run 'first' has; place 1 of 2" in second.status.message, "the second one in the queue")
    until(lambda: "which the run 'first' has; place 2 of 2" in third.status.message, "the third one behind it")
    assert (second.status.state, third.status.state) == ("queued", "queued")
    third.move_to(1)
    until(lambda: "place 2 of 2" in second.status.message, "the change of places")
    assert second.stop().wait(120).text == "Cancelled."
    assert second.status.state == "stopped"
    assert not second.records
    until(lambda: first.status.state == "training", "training")
    os.kill(read_json(first.folder.status)["process"]["pid"], signal.SIGKILL)
    until(lambda: third.status.state == "training", "the next one's turn after a death")
    third.stop().wait(120)
    assert third.wait(120).state == "stopped"


def test_a_stopped_or_hung_waiter_is_passed_over_and_keeps_its_place(monkeypatch):
    """It would never take the free device; when it goes on, it is first again."""
    first = another("ticket = queue.enter('/runs/a', 'a')")
    os.kill(first.pid, signal.SIGSTOP)
    queue = DeviceQueue()
    mine = queue.enter("/runs/b", "b")
    assert not queue.take(mine)
    awake_s = device_queue.process.awake_s
    monkeypatch.setattr(device_queue.process, "awake_s", lambda: awake_s() + device_queue.SILENT_S + 1)
    assert [(ticket.name, ticket.silent) for ticket in queue.waiting()] == [("a", True), ("b", True)]
    assert queue.take(mine)
    assert [ticket.name for ticket in queue.waiting()] == ["a"]
    queue.release()
    os.kill(first.pid, signal.SIGCONT)
    waiting = queue.waiting()[0]
    assert queue.take(waiting), "a process that goes on has its place again"
    queue.release()
    end(first)


def test_places_do_not_run_out():
    """Every move halves a gap between two numbers: after some fifty there is none left."""
    children = [another(f"queue.enter('/runs/{name}', '{name}')") for name in "abc"]
    queue = DeviceQueue()
    for _ in range(150):
        for name in "bc":
            assert queue.move(f"/runs/{name}", 2) == 2
            names = [ticket.name for ticket in queue.waiting()]
            assert names[1] == name, names
            assert names[0] == "a"
    places = [ticket.place for ticket in queue.waiting()]
    assert len(set(places)) == 3
    for child in children:
        end(child)


def rights(path):
    return oct(path.stat().st_mode & 0o7777)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_locks_and_tickets_are_for_their_owner_alone(mask):
    previous = os.umask(mask)
    try:
        queue = DeviceQueue()
        ticket = queue.enter("/runs/a", "a")
        assert queue.take_at_once("/runs/b", "b")
    finally:
        os.umask(previous)
    assert rights(queue.folder) == "0o700"
    assert rights(ticket.path) == rights(queue.folder / "held") == "0o600"
    queue.release()


def test_a_devices_folder_of_a_group_is_for_the_whole_group(tmp_path):
    """chgrp cards; chmod 2770: several people on one card."""
    folder = tmp_path / "devices"
    folder.mkdir()
    os.chown(folder, -1, 12345)
    folder.chmod(0o2770)
    previous = os.umask(0o077)
    try:
        queue = DeviceQueue()
        ticket = queue.enter("/runs/a", "a")
        queue.move("/runs/a", 1)
        assert queue.take_at_once("/runs/b", "b")
    finally:
        os.umask(previous)
    assert rights(queue.folder) == "0o2770"
    for path in (queue.folder, ticket.path, queue.folder / "held"):
        assert path.stat().st_gid == 12345
    assert rights(ticket.path) == rights(queue.folder / "held") == "0o660"
    queue.release()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    """Taking the device empties the file: in a shared folder a link would lead to any file of its user."""
    queue = DeviceQueue()
    queue.enter("/runs/a", "a")
    (tmp_path / "precious").write_text("precious")
    (queue.folder / "held").symlink_to(tmp_path / "precious")
    with pytest.raises(WorkbenchError, match="held' cannot be used: .*SIMPO_WORKBENCH_DEVICES"):
        queue.take_at_once("/runs/a", "a")
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_shared_lock_is_not_waited_for_without_end(monkeypatch):
    """A backup, or another user's program: it has the file open, and the device is free."""
    queue = DeviceQueue()
    mine = queue.enter("/runs/a", "a")
    reader = another("""
        import fcntl
        queue._make_folder()
        file = open(queue.folder / "held", "a+b")
        fcntl.flock(file, fcntl.LOCK_SH)
    """)
    assert not queue.take(mine)
    awake_s = device_queue.process.awake_s
    monkeypatch.setattr(device_queue.process, "awake_s", lambda: awake_s() + device_queue.SHARED_LOCK_S + 1)
    assert not queue.take(mine)  # the locked file is taken away
    assert queue.take(mine)
    assert not DeviceQueue().take_at_once("/runs/b", "b")
    assert queue.holder()["name"] == "a"
    queue.release()
    end(reader)
