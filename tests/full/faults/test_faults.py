"""What a user would lose: a run that ends without a word, a checkpoint that is half a checkpoint, a state that is not
true.

Every fault is real: a full file system, a limit of the kernel, a signal to a process.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import tiny
from killing import identity_of, outcome, resumable_step, soak, train_steps, wait_for

import simpo_workbench as wb
from simpo_workbench.base import process
from simpo_workbench.base.files import read_json, write_json
from simpo_workbench.runs import run as run_module

DEADLINE_S = 180


@pytest.fixture
def config(tiny_config):
    """A run that saves often and goes on until somebody ends it."""
    return tiny_config.with_changes(
        {"training.max_steps": 2000, "training.eval_every": 5, "training.save_every": 5, "generation.every": 5}
    )


def begun(config, steps=7):
    run = wb.start(config)
    wait_for(lambda: run.status.ended or len(train_steps(run)) >= steps, f"{steps} steps", run)
    return run


def ended(run):
    wait_for(lambda: run.status.ended, "the end", run)
    return run.status


def go_on(run, config, more=3):
    """Resume, see it take some steps from its newest checkpoint, stop it; the steps are whole."""
    done = resumable_step(run)
    run = wb.resume(run.name, config.run.root)
    wait_for(lambda: run.status.ended or max(train_steps(run), default=0) >= done + more, "more steps", run)
    if not run.status.ended:
        run.stop().wait(DEADLINE_S)
    assert ended(run).state in ("stopped", "finished"), run.status
    assert train_steps(run) == list(range(1, len(train_steps(run)) + 1))
    return run


# --- disks


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 80 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_is_full_for_a_moment_ends_nothing(config, small_disk):
    """Records wait in memory, a checkpoint is tried again; the events say so, and no record is lost or doubled."""
    run = begun(config.with_changes({"run.root": str(small_disk / "runs"), "training.max_steps": 60}))
    ballast = small_disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        file.write(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize))
    time.sleep(3)
    assert run.status.alive
    ballast.unlink()
    status = ended(run)
    assert (status.state, status.step) == ("finished", 60)
    assert train_steps(run) == list(range(1, 61))
    told = [record["text"] for record in run.records if record.get("event") == "disk_fault"]
    assert told
    assert all("No space left on device" in text for text in told)


@pytest.mark.parametrize("left_bytes", [0, 40_000, *soak(6_000, 300_000)])
def test_a_disk_that_stays_full_ends_the_run_in_words_and_loses_nothing(config, small_disk, left_bytes, monkeypatch):
    """The run ends at its next checkpoint. What is left decides which kind of file cannot be written: a record, scores,
    answers, a checkpoint, the status itself.
    """
    monkeypatch.setenv("SIMPO_WORKBENCH_PATIENCE_S", "2")
    config = config.with_changes({"run.root": str(small_disk / "runs")})
    run = begun(config)
    ballast = small_disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        with contextlib.suppress(OSError):  # the run writes as well, and may take the last bytes first
            file.write(bytes(max(0, free - left_bytes)))
    status = ended(run)
    assert status.state == "failed"
    assert "No space left on device" in status.message, f"{status}\n{run.folder.log.read_text()[-2000:]}"
    before = run.records
    ballast.unlink()
    again = go_on(run, config, more=config.training.save_every + 1)
    published = [(record["step"], record["loss"]) for record in before if record["kind"] == "train"]
    assert [(record["step"], record["loss"]) for record in again.records if record["kind"] == "train"][
        : len(published)
    ] == published


def test_a_disk_without_room_is_said_before_the_first_step(config, small_disk):
    with open(small_disk / "ballast", "wb") as file:
        file.write(bytes(60_000_000))
    run = wb.start(config.with_changes({"run.root": str(small_disk / "runs")}))
    status = ended(run)
    assert status.state == "failed"
    assert "GB free, and the rest of this run keeps" in status.message
    assert train_steps(run) == []


def test_a_folder_that_becomes_read_only_is_said(config, small_disk):
    """The checkpoints' folder, as when a network share comes back without the right to write."""
    run = begun(config.with_changes({"training.save_every": 8, "training.eval_every": 0}))
    subprocess.run(["mount", "--bind", small_disk, run.folder.checkpoints], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", run.folder.checkpoints], check=True)
    try:
        status = ended(run)
    finally:
        subprocess.run(["umount", "-l", run.folder.checkpoints], check=True)
    assert status.state == "failed"
    assert "Read-only file system" in status.message
    go_on(run, config)


def test_a_limit_on_file_size_is_said(tiny_config, tmp_path):
    """RLIMIT_FSIZE, as batch systems set it: the optimizer's state is the first file that is too large."""
    tiny_config.with_changes({"training.save_every": 2, "training.eval_every": 0}).to_yaml(tmp_path / "config.yaml")
    done = in_child(f"""
        import resource, simpo_workbench as wb
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        try:
            wb.train(wb.RunConfig.from_yaml({str(tmp_path / "config.yaml")!r}))
        except wb.WorkbenchError as error:
            print(error)
        """)
    assert "cannot be written" in done
    assert "File too large" in done
    run = wb.attach("tiny", tiny_config.run.root)
    assert run.status.state == "failed"
    assert train_steps(run) == [1, 2]


# --- memory


def test_memory_that_runs_out_while_loading_is_said(tiny_config, tmp_path):
    """RLIMIT_AS: the kernel refuses the memory. The weights are 200 MB, the limit leaves 60."""
    large = tiny.save(
        tmp_path / "large",
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=8,
    )
    tiny_config.with_changes({"model.name": large}).to_yaml(tmp_path / "config.yaml")
    done = in_child(f"""
        import resource, simpo_workbench as wb
        from simpo_workbench.engine import training
        from simpo_workbench.engine.model import models
        from pathlib import Path
        load = models.load_base
        def load_within_a_limit(*arguments):
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + 60_000_000, resource.RLIM_INFINITY))
            try:
                return load(*arguments)
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        models.load_base = load_within_a_limit
        try:
            wb.train(wb.RunConfig.from_yaml({str(tmp_path / "config.yaml")!r}))
        except wb.WorkbenchError as error:
            print(error)
        """)
    # where exactly it ends depends on what the process had left
    assert (
        "does not fit into the memory of this machine as fp32: try nf4 or a smaller model" in done
        or "Memory is full" in done
    )
    assert list(Path(tiny_config.run.root).iterdir()) == [], "the error was told, and nothing had begun"


def test_the_kernels_memory_killer_is_named(config):
    """The killer's counter of the control group rose, or there was next to nothing free at the last heartbeat."""
    run = begun(config)
    os.kill(identity_of(run)["pid"], signal.SIGKILL)
    wait_for(lambda: not run.status.alive, "death", run)
    assert "It was killed from outside (SIGKILL)" in run.status.message
    beat = read_json(run.folder.heartbeat)
    write_json(run.folder.heartbeat, {**beat, "available_bytes": 0.01 * beat["total_bytes"]})
    assert "The memory ran out and the kernel killed it" in run.status.message


# --- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_stops_in_order(config, number):
    run = begun(config)
    assert process.send_signal(identity_of(run), number)
    status = ended(run)
    assert (status.state, status.step) == ("stopped", resumable_step(run))
    assert run.adapter.is_dir()


def test_a_closed_terminal_stops_nothing(config):
    run = begun(config)
    done = len(train_steps(run))
    assert process.send_signal(identity_of(run), signal.SIGHUP)
    wait_for(lambda: len(train_steps(run)) >= done + 5, "more steps", run)
    run.stop().wait(DEADLINE_S)


def test_a_worker_that_does_not_answer_is_killed_in_the_end_and_can_go_on(config, monkeypatch):
    """Stopped by SIGSTOP it hears neither the request nor SIGTERM."""
    monkeypatch.setattr(run_module, "TERM_PATIENCE_S", 1.0)
    run = begun(config)
    identity = identity_of(run)
    os.kill(identity["pid"], signal.SIGSTOP)
    request = run.stop(patience_s=1.0)
    assert not process.is_alive(identity)
    assert (run.status.state, request.state) == ("stopped", "asked")
    assert "Killed: it did not stop within 2 s" in run.status.message
    go_on(run, config)


def test_where_a_run_stands_can_be_asked(config):
    run = begun(config)
    stack = run.dump_stack()
    assert "Current thread" in stack or "Thread 0x" in stack
    assert "training.py" in stack
    assert stack in run.folder.log.read_text()
    run.stop().wait(DEADLINE_S)


# --- files and folders


@pytest.mark.parametrize("damage", ["delete", *soak("truncate")])
def test_a_status_file_that_somebody_damages_is_there_again(config, damage):
    run = begun(config)
    if damage == "delete":
        run.folder.status.unlink()
    else:
        run.folder.status.write_text('{"state": "tr')
    assert run.status.alive
    assert run.status.state == "training"
    run.stop().wait(DEADLINE_S)
    assert ended(run).state == "stopped"


def test_two_starts_of_one_name_and_two_workers_for_one_folder(config):
    run = begun(config)
    with pytest.raises(wb.WorkbenchError, match="There is a run 'tiny' in"):
        wb.start(config)
    with pytest.raises(wb.WorkbenchError, match="needs no resume"):
        wb.resume("tiny", config.run.root)
    second = subprocess.run(
        [sys.executable, "-m", "simpo_workbench.engine.worker", run.path, "--resume"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert second.returncode == 1
    assert "The run 'tiny' is being trained already" in second.stderr
    assert run.status.alive
    done = len(train_steps(run))
    wait_for(lambda: len(train_steps(run)) > done + 2, "more steps", run)
    run.stop().wait(DEADLINE_S)
    assert train_steps(run) == list(range(1, len(train_steps(run)) + 1))


def test_a_damaged_checkpoint_is_passed_over_with_a_word(config):
    run = begun(config, steps=12)
    os.kill(identity_of(run)["pid"], signal.SIGKILL)
    wait_for(lambda: not run.status.alive, "death", run)
    newest = resumable_step(run)
    state = run.folder.checkpoint(newest) / "training_state.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    again = wb.resume("tiny", config.run.root)
    wait_for(lambda: again.status.ended or again.status.state == "training", "training", again)
    again.stop().wait(DEADLINE_S)
    (event,) = [record for record in again.records if record.get("event") == "resumed"]
    assert event["step"] == newest - 5
    assert f"step-{newest:06d} is damaged (training_state.pt) and was passed over" in event["text"]


def test_a_folder_from_another_machine_is_read_and_goes_on_after_a_look(config, tmp_path):
    own_pairs = tmp_path / "pairs.jsonl"
    shutil.copy(config.data.train, own_pairs)
    config = config.with_changes({"data.train": str(own_pairs)})
    run = begun(config)
    os.kill(identity_of(run)["pid"], signal.SIGKILL)
    wait_for(lambda: not run.status.alive, "death", run)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(run.path, elsewhere / "tiny")
    status = read_json(elsewhere / "tiny" / "status.json")
    status["process"]["boot_id"] = "another machine"
    status.pop("folder")
    write_json(elsewhere / "tiny" / "status.json", status)
    copy = wb.attach("tiny", elsewhere)
    assert copy.status.state == "failed"
    assert "The machine was started anew, or the folder comes from another machine" in copy.status.message
    assert len(copy.metrics) == len(run.metrics)
    rows = own_pairs.read_text()
    own_pairs.write_text(rows.replace("Say", "Tell"))  # the pairs there are others
    again = wb.resume("tiny", elsewhere)
    assert "cannot go on: the training pairs changed" in ended(again).message
    own_pairs.write_text(rows)
    go_on(copy, config.with_changes({"run.root": str(elsewhere)}))


def test_a_clock_that_goes_backwards_changes_nothing(tiny_config, finished_run, monkeypatch):
    quiet = finished_run()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 1000 * (time.monotonic() % 1000))
    run = wb.train(tiny_config)
    assert run.status.state == "finished"
    assert outcome(run) == outcome(quiet)


def in_child(code):
    """What a Python process printed, both streams, whatever its exit status."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=DEADLINE_S
    )
    return done.stdout + done.stderr


def test_a_worker_told_to_leave_while_it_loads_says_so(config):
    run = wb.start(config)
    wait_for(lambda: (read_json(run.folder.status) or {}).get("answers_signals"), "the worker", run)
    process.send_signal(identity_of(run), signal.SIGTERM)
    assert ended(run).state == "stopped"
    assert "nterrupted" in run.status.message
    go_on(run, config)


def test_a_run_that_has_just_begun_is_not_killed_by_a_question(config):
    """Its process does not listen to the signal yet, whose own effect is death."""
    run = wb.start(config)
    raw = read_json(run.folder.status)
    write_json(run.folder.status, {**raw, "answers_signals": False})
    with pytest.raises(wb.WorkbenchError, match="no worker process that could be asked"):
        run.dump_stack()
    assert process.is_alive(raw["process"])
    run.stop(patience_s=60)


def test_an_error_before_training_is_shown_and_not_called_a_kill(config):
    run = begun(config)
    os.kill(identity_of(run)["pid"], signal.SIGKILL)
    wait_for(lambda: not run.status.alive, "death", run)
    text = run.folder.config.read_text()
    run.folder.config.write_text(text.replace("  beta:", "  betta:"))
    again = wb.resume("tiny", config.run.root)
    assert "config.yaml of the run 'tiny' is damaged or was changed" in ended(again).message
    assert again.status.step >= 6, "how far it came is still told; the record of a step comes just before its status"
    run.folder.config.write_text(text)
    go_on(run, config)


def test_a_death_is_not_explained_by_an_earlier_one(config):
    run = begun(config)
    os.kill(identity_of(run)["pid"], signal.SIGSEGV)
    wait_for(lambda: not run.status.alive, "death", run)
    assert "It crashed (Segmentation fault)" in run.status.message
    again = wb.resume("tiny", config.run.root)
    wait_for(lambda: again.status.ended or again.status.state == "training", "training", again)
    os.kill(identity_of(again)["pid"], signal.SIGKILL)
    wait_for(lambda: not again.status.alive, "death", again)
    assert "It was killed from outside (SIGKILL)" in again.status.message
