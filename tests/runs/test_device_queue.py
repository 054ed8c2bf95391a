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
