"""The run folder: what is torn, half written or taken twice here is lost, for nothing else keeps it."""

import errno
import math
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.base.files import read_json, read_jsonl, write_atomically, write_json, write_jsonl
from simpo_workbench.runs import folder as run_folder
from simpo_workbench.runs.folder import RunFolder, check_name, find_run_folder, new_run_folder, run_names
from simpo_workbench.runs.presence import hold


@pytest.fixture
def folder(tmp_path):
    made = new_run_folder(tmp_path / "runs", "one", "stem")
    made.config.write_text("")
    return made


# --- making and finding


def test_a_new_folder_has_the_promised_layout(folder):
    assert sorted(path.name for path in folder.path.iterdir() if path.is_dir()) == [
        "checkpoints",
        "generations",
        "replies",
        "requests",
        "scores",
    ]
    assert folder.name == "one"
    assert folder.scores(50) == folder.path / "scores" / "step-000050.parquet"
    assert folder.generations(0) == folder.path / "generations" / "step-000000.jsonl"
    assert folder.checkpoint(1234567) == folder.path / "checkpoints" / "step-1234567"
    files = [folder.config, folder.environment, folder.status, folder.pairs, folder.metrics, folder.adapter, folder.log]
    assert [path.name for path in files] == [
        "config.yaml",
        "environment.json",
        "status.json",
        "pairs.parquet",
        "metrics.jsonl",
        "adapter",
        "log.txt",
    ]


def test_evaluated_and_sampled_steps_come_in_the_order_of_their_numbers(folder):
    assert folder.evaluated_steps() == folder.sampled_steps() == []
    for step in (1_000_000, 0, 999_980):
        folder.scores(step).touch()
    folder.generations(20).touch()
    for stray in ("step-000020 (copy).parquet", "step-000040.tmp"):
        (folder.path / "scores" / stray).touch()
    assert folder.evaluated_steps() == [0, 999_980, 1_000_000]
    assert folder.sampled_steps() == [20]


def test_a_name_that_is_taken_is_refused_and_nothing_is_overwritten(folder):
    folder.log.write_text("kept")
    with pytest.raises(
        WorkbenchError,
        match=r"There is a run 'one' in '.*runs' already: choose another run.name, .* `simpo-workbench resume one`",
    ):
        new_run_folder(folder.path.parent, "one", "stem")
    assert folder.log.read_text() == "kept"


def test_names_that_are_made_up_are_readable_and_never_the_same(tmp_path):
    names = [new_run_folder(tmp_path, None, "my pairs/ü (1)").name for _ in range(4)]
    assert len(set(names)) == 4
    assert all(name.startswith("my-pairs-1-") for name in names)
    assert all(check_name(name) for name in names)
    assert new_run_folder(tmp_path, None, "…").name.startswith("run-")
    assert check_name(new_run_folder(tmp_path, None, "x" * 300).name)


@pytest.mark.parametrize("name", ["a", "7", "run-1", "A.b_c-d", "x" * 100, "a..b"])
def test_plain_names_are_taken_as_they_are(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["\uff41", "\u0430dmin", "a\u200bb", "a\u2215b", "a\u202eb", "a\u0301", "ä"]
)  # letters and strokes that only look plain
def test_a_name_that_looks_like_another_is_refused(name):
    with pytest.raises(WorkbenchError, match="is not usable: letters, digits"):
        check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "-option",
        "_x",
        "a/b",
        "../up",
        "a\\b",
        "/etc",
        "a b",
        "a\n",
        "a\0b",
        "x" * 101,
        "~",
        "$x",
        "a:b",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_made(name, tmp_path):
    with pytest.raises(WorkbenchError, match="is not usable: letters, digits"):
        new_run_folder(tmp_path / "runs", name, "stem")
    assert not (tmp_path / "runs").exists()


def test_a_root_that_cannot_be_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for root, name in ((tmp_path / "file", "one"), (tmp_path / "file", None), (tmp_path / "file" / "below", "one")):
        with pytest.raises(
            WorkbenchError, match=r"The run folder in '.*file.*' cannot be made: .*Check run.root"
        ) as error:
            new_run_folder(root, name, "stem")
        assert "None" not in str(error.value)


def test_a_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    made = new_run_folder("~/runs", "one", "stem")
    made.config.write_text("")
    assert made.path == tmp_path / "runs" / "one"
    assert find_run_folder("one", "~/runs").path == made.path
    assert run_names("~/runs") == ["one"]


def test_a_run_is_found_by_name_and_by_path(folder, monkeypatch):
    root = folder.path.parent
    monkeypatch.chdir(root.parent)
    ways = [("one", root), ("one",), (folder.path,), (str(folder.path), "elsewhere"), ("runs/one",)]
    for found in (find_run_folder(*way) for way in ways):
        assert isinstance(found, RunFolder)
        assert found.path.resolve() == folder.path
        assert found.name == "one"


@pytest.mark.parametrize("name", ["two", "", "..", "a\0b", "x" * 5000, "one/config.yaml", "~nobody-of-this-name"])
def test_a_run_that_is_not_there_is_told_which_ones_are(folder, name):
    with pytest.raises(WorkbenchError, match=r"There is no run '.*' in '.*runs' \(there: one\)"):
        find_run_folder(name, folder.path.parent)


def test_an_empty_root_is_told_how_to_begin(tmp_path):
    with pytest.raises(WorkbenchError, match=r"there: none yet; `simpo-workbench demo` makes one"):
        find_run_folder("one", tmp_path / "nowhere")
    assert run_names(tmp_path / "nowhere") == []


def test_folders_that_are_no_runs_are_not_listed(folder):
    (folder.path.parent / "notes").mkdir()
    assert run_names(folder.path.parent) == ["one"]


# --- status


def test_a_write_that_fails_leaves_the_old_status(folder, monkeypatch):
    write_json(folder.status, {"state": "training", "step": 7})

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_folder.os, "replace", full)
    with pytest.raises(
        WorkbenchError,
        match=r"status.json' cannot be written: No space left on device. What was there before is untouched",
    ):
        write_json(folder.status, {"state": "training", "step": 8})
    assert read_json(folder.status) == {"state": "training", "step": 7}
    assert [path.name for path in folder.path.glob(".*")] == [], "no half-written file stays behind"


def test_a_reader_sees_the_old_or_the_new_status_never_half_of_one(folder):
    write_json(folder.status, {"step": 0, "message": "x" * 20_000})
    done, seen = threading.Event(), []

    def read():
        while not done.is_set():
            seen.append(read_json(folder.status))

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(40):
        write_json(folder.status, {"step": step, "message": "x" * 20_000})
    done.set()
    reader.join()
    assert seen
    assert None not in seen
    steps = [status["step"] for status in seen]
    assert steps == sorted(steps)


@pytest.mark.parametrize("content", [None, b"", b'{"state": "trai', b"[1]", b"\xff\xfe", b"null"])
def test_a_missing_or_damaged_status_is_none(folder, content):
    if content is not None:
        folder.status.write_bytes(content)
    assert read_json(folder.status) is None


def test_a_file_in_a_folder_that_is_gone_is_named(tmp_path):
    with pytest.raises(WorkbenchError, match=r"gone/status.json' cannot be written: No such file"):
        write_atomically(tmp_path / "gone" / "status.json", b"{}")


# --- metrics


def test_records_come_back_in_order_with_the_time_of_writing(folder):
    before = time.time()
    folder.append_metrics({"kind": "train", "step": 1, "loss": 0.5})
    folder.append_metrics({"kind": "event", "step": 1, "text": 'Grüße "zwei"\nZeilen \u2028 und \x85 mehr'})
    first, second = read_jsonl(folder.metrics)
    assert (first["kind"], first["step"], first["loss"]) == ("train", 1, 0.5)
    assert before <= first["time"] <= second["time"] <= time.time()
    assert second["text"] == 'Grüße "zwei"\nZeilen \u2028 und \x85 mehr'


@pytest.mark.parametrize("torn", ['{"kind": "tr', '{"kind": "train", "loss": 0.', "\0\0\0\0", "{", '{"text": "Gr\xc3'])
def test_a_torn_last_line_is_ignored(folder, torn):
    folder.append_metrics({"kind": "train", "step": 1})
    with open(folder.metrics, "ab") as file:
        file.write(torn.encode("latin-1"))
    assert [record["step"] for record in read_jsonl(folder.metrics)] == [1]
    folder.append_metrics(
        {"kind": "train", "step": 2}
    )  # of the next process: half a line in the middle would make the file unreadable
    assert [record["step"] for record in read_jsonl(folder.metrics)] == [1, 2]


def test_a_file_that_is_one_torn_line_begins_anew(folder):
    folder.metrics.write_text('{"kind": "train", "text": "' + "x" * 200_000)
    folder.append_metrics({"kind": "train", "step": 1})
    assert [record["step"] for record in read_jsonl(folder.metrics)] == [1]


def test_a_damaged_line_in_the_middle_is_named_with_its_number(folder):
    folder.metrics.write_text('{"step": 1}\n{"step": 2, "lo\n{"step": 3}\n')
    with pytest.raises(
        WorkbenchError,
        match=r"metrics.jsonl, line 2 is damaged: '\{\"step\": 2, \"lo'. Remove that line to read the rest",
    ):
        read_jsonl(folder.metrics)


def test_a_run_that_has_not_begun_has_no_records(folder):
    assert read_jsonl(folder.metrics) == []
    folder.metrics.write_text("")
    assert read_jsonl(folder.metrics) == []


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_refused_and_not_written(folder, number):
    folder.append_metrics({"kind": "train", "step": 1, "loss": 0.5})
    with pytest.raises(WorkbenchError, match=r"Step 2: loss, grad_norm is not a finite number"):
        folder.append_metrics({"kind": "train", "step": 2, "loss": number, "grad_norm": number, "learning_rate": 1e-4})
    assert len(read_jsonl(folder.metrics)) == 1


def test_answers_are_replaced_as_a_whole(folder):
    path = folder.generations(20)
    write_jsonl(path, [{"step": 20, "answer": "eins"}, {"step": 20, "answer": "a\u2028b\x85c\rd"}])
    write_jsonl(path, [{"step": 20, "answer": "a\u2028b\x85c\rd"}])
    assert read_jsonl(path) == [{"step": 20, "answer": "a\u2028b\x85c\rd"}]


def test_a_record_that_finds_no_room_leaves_nothing_behind(tmp_path):
    """RLIMIT_FSIZE stands for a full disk: half a line that stayed, or its tail, would make every later reader stop
    there.
    """
    code = f"""
        import resource, signal
        from pathlib import Path
        from simpo_workbench.base.files import append_jsonl, read_jsonl
        path = Path({str(tmp_path / "metrics.jsonl")!r})
        append_jsonl(path, {{"step": 1}})
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))
        try:
            append_jsonl(path, {{"step": 2, "text": "y" * 20_000}})
        except OSError as error:
            print(error.strerror)
        append_jsonl(path, {{"step": 3}})
        print([record["step"] for record in read_jsonl(path)])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["File too large", "[1, 3]"], done.stderr


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_run_has_the_rights_of_the_umask_but_only_its_owner_can_steer_it(tmp_path, mask):
    previous = os.umask(mask)
    try:
        folder = new_run_folder(tmp_path, "one", "stem")
        write_json(folder.status, {})
        with hold(folder):
            folder.mailbox.ask("stop")
    finally:
        os.umask(previous)
    rights = {path.name: path.stat().st_mode & 0o777 for path in [folder.path, *folder.path.iterdir()]}
    assert rights["one"] == rights["scores"] == 0o777 & ~mask
    assert rights["status.json"] == 0o666 & ~mask
    assert rights["requests"] == rights["replies"] == 0o700
    assert rights["lock"] == 0o600
    assert [path.stat().st_mode & 0o777 for path in folder.requests.iterdir()] == [0o600]


def test_a_run_that_is_not_there_is_answered_with_the_names_most_like_it(tmp_path):
    for number in range(12):
        new_run_folder(tmp_path, f"other-{number:02d}", "stem").config.write_text("model:\n")
    new_run_folder(tmp_path, "my-pairs", "stem").config.write_text("model:\n")
    with pytest.raises(WorkbenchError) as error:
        find_run_folder("mypairs", tmp_path)
    there = str(error.value).partition("(there: ")[2]
    assert there.startswith("my-pairs, other-00, ")
    assert there.endswith("other-06 and 5 more).")
