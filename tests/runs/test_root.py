"""The runs in a root folder: a list that confuses them, or a deletion of the wrong folder, would lose work."""

import os
import shutil

import pandas as pd
import pytest
from bare_run import make_run, set_state

from simpo_workbench.base import process
from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.config.run_config import RunConfig
from simpo_workbench.runs import root as root_module
from simpo_workbench.runs.root import delete_run, find_run, list_runs
from simpo_workbench.runs.run import Run


def test_the_list_of_runs_tells_them_apart(tmp_path):
    first = make_run(tmp_path, "first", state="finished", verdict="Healthy: …")
    first.folder.append_metrics(
        {"kind": "eval", "step": 0, "eval/rewards/accuracies": 0.4, "eval/logps/chosen_drift": 0.0}
    )
    first.folder.append_metrics(
        {"kind": "eval", "step": 10, "eval/rewards/accuracies": 0.7, "eval/logps/chosen_drift": -0.05}
    )
    second = make_run(
        tmp_path,
        "second",
        config=RunConfig().with_changes({"model.name": "x/y", "loss.beta": 10, "training.learning_rate": 1e-5}),
    )
    os.utime(first.folder.config, (1, 1))
    os.utime(second.folder.config, (2, 2))
    table = list_runs(tmp_path).set_index("name")
    assert list(table.index) == ["second", "first"], "the newest first"
    assert list(table["state"]) == ["failed", "finished"], "the process of the second is dead"
    assert list(table["model"]) == ["x/y", "demo"]
    assert list(table["beta"]) == [10, 2]
    assert list(table["learning_rate"]) == [1e-5, RunConfig().training.learning_rate]
    assert table.loc["first", ["accuracy", "chosen_drift", "verdict"]].to_list() == [0.7, -0.05, "Healthy: …"]
    assert pd.isna(table.loc["second", "accuracy"])


def test_a_finished_run_of_the_same_settings_is_found_whatever_its_name(tmp_path):
    config = RunConfig.from_dict({"run": {"root": str(tmp_path)}})
    assert find_run(config) is None
    make_run(tmp_path, "failed", "failed")
    make_run(tmp_path, "other", "finished", config=config.with_changes({"loss.beta": 4}))
    damaged = make_run(tmp_path, "damaged", "finished")
    damaged.folder.config.write_text("loss: [")
    assert find_run(config) is None
    for place, name in enumerate(("new", "old")):
        os.utime(make_run(tmp_path, name, "finished").folder.config, (10.0 - place, 10.0 - place))
    assert find_run(config.with_changes({"run.name": "anything"})).name == "new"


def test_one_damaged_run_does_not_hide_the_others(tmp_path):
    make_run(tmp_path, "good", state="finished")
    make_run(tmp_path, "edited", state="finished").folder.config.write_text("loss: {beta: [")
    make_run(tmp_path, "torn", state="finished").folder.metrics.write_text("{\n{}\n")
    make_run(tmp_path, "empty").folder.status.write_text("")
    table = list_runs(tmp_path).set_index("name")
    assert set(table.index) == {"good", "edited", "torn", "empty"}
    assert table.loc["edited", "model"] == "(configuration unreadable)"
    assert table.loc["good", "model"] == table.loc["torn", "model"] == "demo"


def test_no_runs_are_an_empty_table_with_its_columns(tmp_path):
    table = list_runs(tmp_path / "nowhere")
    assert len(table) == 0
    facts = ["name", "state", "step", "total_steps", "model", "lora", "data", "learning_rate", "beta"]
    assert list(table.columns) == [
        *facts,
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "pairs",
        "chosen_drift",
        "right",
        "checked",
        "verdict",
        "started",
        "problem",
    ]


def test_the_list_tells_interval_data_and_start_and_follows_what_changes(tmp_path):
    run = make_run(tmp_path, state="finished")
    os.utime(run.folder.config, (1_000_000_000, 1_000_000_000))
    run.folder.append_metrics(
        {
            "kind": "eval",
            "step": 0,
            "eval/rewards/accuracies": 0.4,
            "eval/rewards/accuracies_low": 0.2,
            "eval/rewards/accuracies_high": 0.6,
            "eval/pairs": 24,
        }
    )
    row = list_runs(tmp_path).iloc[0]
    assert row[["accuracy", "accuracy_low", "accuracy_high", "pairs", "data"]].to_list() == [
        0.4,
        0.2,
        0.6,
        24,
        RunConfig().data.train,
    ]
    assert row["started"] == pd.Timestamp.fromtimestamp(1_000_000_000)
    run.folder.append_metrics({"kind": "train", "step": 1, "beta": 7.0})
    run.folder.append_metrics({"kind": "eval", "step": 2, "eval/rewards/accuracies": 0.9})
    row = list_runs(tmp_path).iloc[0]
    assert (row["accuracy"], row["beta"]) == (0.9, 7.0), "records that came since"


# --- deleting


def test_a_deleted_run_is_gone_with_everything_in_it_and_nothing_else_is(tmp_path):
    make_run(tmp_path / "runs", "other", state="finished")
    run = make_run(tmp_path / "runs", state="finished")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    (run.path / "checkpoints" / "elsewhere").symlink_to(precious)
    delete_run("one", tmp_path / "runs")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other"]
    assert (precious / "file").read_text() == "kept", "a link in the folder is removed, not what it leads to"


def test_a_live_run_is_not_deleted(tmp_path, worker):
    run = make_run(tmp_path, identity=process.identify(worker.pid))
    with pytest.raises(WorkbenchError, match="'one' is training and a process has it: stop it first"):
        delete_run("one", tmp_path)
    assert run.config == RunConfig()


def test_a_run_that_is_resumed_at_the_last_moment_is_not_deleted(tmp_path, worker, monkeypatch):
    run = make_run(tmp_path, state="stopped")
    rename = root_module.Path.rename

    def resumed_meanwhile(path, target):
        moved = rename(path, target)
        if target.name.startswith("."):
            set_state(Run(root_module.RunFolder(target)), "training", process=process.identify(worker.pid))
        return moved

    monkeypatch.setattr(root_module.Path, "rename", resumed_meanwhile)
    with pytest.raises(WorkbenchError, match="stop it first"):
        delete_run("one", tmp_path)
    assert run.status.state == "training"


@pytest.mark.parametrize("name", ["two", "notes", "", ".", "..", "inside/one", "../runs/one", "{root}/one"])
def test_only_a_runs_own_folder_in_the_root_is_deleted(tmp_path, name):
    root = tmp_path / "runs"
    for place, there in ((root, "one"), (root / "inside", "one"), (tmp_path, "runs-of-somebody")):
        make_run(place, there, state="finished")
    shutil.copytree(root / "one", tmp_path, dirs_exist_ok=True)  # so that ".." looks like a run
    (root / "notes").mkdir()
    (root / "notes" / "config.yaml").write_text("a: 1")  # somebody's own folder
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(WorkbenchError, match="names no run"):
        delete_run(name.format(root=root), root)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_deleted_through_a_link(tmp_path):
    run = make_run(tmp_path / "elsewhere", state="finished")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "one").symlink_to(run.path)
    with pytest.raises(WorkbenchError, match="is a link to"):
        delete_run("one", tmp_path / "runs")
    assert run.config == RunConfig()
