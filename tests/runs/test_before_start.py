"""What a user would lose: an hour in the queue for a misspelt file, or a list full of runs that never were."""

import json
import os

import pytest
from click.testing import CliRunner

import simpo_workbench as wb
from simpo_workbench.cli.main import main
from simpo_workbench.pairs import data_sets
from simpo_workbench.runs import before_start, launch

SIDES = [{"question": f"q{n}", "reply_x": "one", "reply_y": "two", "stars": n} for n in range(4)]


@pytest.fixture
def config(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "launch", lambda *_: pytest.fail("a run was started"))
    return tiny_config


@pytest.fixture
def refused(tmp_path):
    """{what is wrong: (settings, what the sentence says)}."""
    unknown, empty, adapter = tmp_path / "unknown.jsonl", tmp_path / "empty", tmp_path / "adapter"
    unknown.write_text("".join(json.dumps(row) + "\n" for row in SIDES))
    empty.mkdir()
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    return {
        "no data file": ({"data.train": str(tmp_path / "nothere.jsonl")}, "There is no file or folder"),
        "no held-out file": ({"data.eval": str(tmp_path / "nothere.csv")}, "There is no file or folder"),
        "no known shape": ({"data.train": str(unknown)}, "unknown.jsonl holds no preference pairs"),
        "no model folder": ({"model.name": str(tmp_path / "nowhere")}, "There is no model folder"),
        "a folder without a model": ({"model.name": str(empty)}, "holds no model: it has no config.json"),
        "an adapter as the model": ({"model.name": str(adapter)}, "give it as model.adapter"),
        "no adapter": ({"model.adapter": str(empty)}, "There is no adapter in"),
    }


KINDS = ["no data file", "no held-out file", "no known shape", "no model folder", "a folder without a model"]


@pytest.mark.parametrize("kind", [*KINDS, "an adapter as the model", "no adapter"])
def test_every_way_to_start_refuses_at_once_and_leaves_nothing(config, refused, kind, tmp_path):
    changes, words = refused[kind]
    bad, root = config.with_changes(changes), tmp_path / "runs"
    other = config.with_changes({"run.name": "other"})
    file = tmp_path / "config.yaml"
    bad.to_yaml(file)
    for start in (wb.start, wb.train, lambda config: wb.runs.start_many([other, config])):
        with pytest.raises(wb.WorkbenchError, match=words):
            start(bad)
    for options in ([], ["--detach"]):
        result = CliRunner().invoke(main, ["train", str(file), *options])
        assert result.exit_code == 1
        assert words in result.output
        assert result.output.count(words) == 1
    assert not root.exists()


def test_a_clone_is_refused_at_once_too(finished_run, monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "launch", lambda *_: pytest.fail("a run was started"))
    run = finished_run()
    before = sorted(os.listdir(run.path.parent))
    with pytest.raises(wb.WorkbenchError, match="There is no file or folder"):
        wb.clone("finished", run.path.parent, changes={"data.train": str(tmp_path / "nothere.jsonl")}, new_name="new")
    assert sorted(os.listdir(run.path.parent)) == before


def test_a_name_that_is_taken_is_said_before_the_data_is_read(config, tmp_path, monkeypatch):
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    monkeypatch.setattr(before_start, "require_data", lambda *_: pytest.fail("the data was read"))
    with pytest.raises(wb.WorkbenchError, match="There is a run 'tiny'"):
        wb.start(config)


def test_large_data_and_hub_data_are_left_to_the_run(config, refused, monkeypatch):
    bad = config.with_changes(refused["no known shape"][0])
    monkeypatch.setattr(data_sets, "QUICKLY_READ_BYTES", 10)
    before_start.require_startable(bad)
    before_start.require_startable(config.with_changes({"data.train": "some-owner/some-pairs"}))
    with pytest.raises(wb.WorkbenchError, match="nothere"):
        before_start.require_startable(config.with_changes(refused["no held-out file"][0]))


def test_a_failure_that_was_told_leaves_no_folder(tiny_config, tmp_path):
    with pytest.raises(wb.WorkbenchError, match="data.max_tokens"):
        wb.train(tiny_config.with_changes({"data.max_tokens": 8}))
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_run_that_was_interrupted_while_it_loaded_can_go_on(tiny_config, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("simpo_workbench.engine.training.prepare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        wb.train(tiny_config)
    assert wb.attach("tiny", tmp_path / "runs").status.state == "stopped"


def test_a_failure_that_nobody_has_read_stays_with_its_reason(tiny_config, tmp_path):
    run = wb.start(tiny_config.with_changes({"data.max_tokens": 8}))
    assert run.wait(timeout_s=120).state == "failed"
    reason = run.status.message
    assert "data.max_tokens" in reason
    assert repr(run).startswith("Run('tiny', failed, before its first step: ")
    assert reason[:60] in repr(run)
    (row,) = wb.list_runs(tmp_path / "runs").to_dict("records")
    assert row["problem"] == reason
    printed = CliRunner().invoke(main, ["runs", "--root", str(tmp_path / "runs")]).output
    assert f"tiny: {reason[:60]}" in printed
