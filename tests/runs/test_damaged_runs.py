"""What a user would lose: the list of all runs, to one damaged file in one of them; or trust, to a traceback."""

import pytest
from fake_run import fake_run

import simpo_workbench as wb
from simpo_workbench.base.files import append_jsonl
from simpo_workbench.base.patience import ONCE
from simpo_workbench.engine.recorder import Recorder
from simpo_workbench.report.report import report_html
from simpo_workbench.runs import launch

DAMAGES = {
    "emptied": lambda content: b"",
    "cut": lambda content: content[: len(content) * 2 // 3],
    "zeros": lambda content: content[:20] + bytes(len(content) - 20),
    "flipped": lambda content: content[:30] + bytes([content[30] ^ 0x5A]) + content[31:],
    "other": lambda content: b'{"state": 7, "step": "x", "kind": []}\n' * 3,
}
FILES = [
    *("config.yaml", "status.json", "metrics.jsonl", "environment.json", "pairs.parquet"),
    *("scores/step-000040.parquet", "generations/step-000040.jsonl"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for name in ("damaged", "whole"):
        fake_run(root, name, total_steps=40, pairs=6)
    return root


class Quiet:
    """What a recorder needs of a presence."""

    status, patience = {"step": 0}, ONCE


def answer(read):
    """What a reader returns; None where it says in a sentence that it cannot. Any other exception is a failure."""
    try:
        return read()
    except wb.WorkbenchError as error:
        assert len(str(error)) < 600
        return None


@pytest.mark.parametrize("kind", [*DAMAGES, "deleted", "folder"])
@pytest.mark.parametrize("name", FILES)
def test_no_reader_raises_for_a_damaged_file_and_no_other_run_is_hidden(root, name, kind, monkeypatch):
    monkeypatch.setattr(launch, "launch", lambda folder, *options: folder)  # what it would train is not tried here
    run = wb.attach("damaged", root)
    path = run.path / name
    content = path.read_bytes()
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind != "deleted":
        path.write_bytes(DAMAGES[kind](content))
    try:
        table = wb.list_runs(root).set_index("name")
        assert table.loc["whole", "accuracy"] > 0
        assert table.loc["whole", "state"] == "finished"
        if name != "config.yaml":
            assert "damaged" in table.index
        status = run.status
        assert isinstance(status.step, int)
        assert isinstance(status.message, str)
        readers = [lambda: run.scores, lambda: run.scores_at(40), lambda: run.generations, lambda: run.metrics]
        readers += [lambda: run.environment, lambda: report_html(run), lambda: wb.resume("damaged", root)]
        readers += [lambda: Recorder(run.folder, wb.RunConfig(), Quiet()).first_answers()]
        for read in readers:
            answer(read)
    finally:
        if path.is_dir():
            path.rmdir()
        path.write_bytes(content)


def test_a_record_that_is_none_is_named(root):
    run = wb.attach("whole", root)
    before = run.folder.metrics.read_bytes()
    append_jsonl(run.folder.metrics, {"step": "seven"})
    try:
        with pytest.raises(wb.WorkbenchError, match=r"metrics.jsonl, record \d+ is damaged: it has no step or kind"):
            _ = run.records
    finally:
        run.folder.metrics.write_bytes(before)
