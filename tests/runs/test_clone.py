"""What a user would lose: the way back.

A clone goes on from the last healthy checkpoint with another rate, and says what is different.
"""

import shutil

import pytest

import simpo_workbench as wb
from simpo_workbench.base.files import append_jsonl, read_json, read_jsonl
from simpo_workbench.runs.launch import make_clone
from simpo_workbench.runs.manifest import Manifest
from simpo_workbench.runs.more_steps import resumable_steps


@pytest.fixture
def source(tiny_config, finished_run):
    """A finished run called tiny, in a folder that the test may change."""
    shutil.copytree(finished_run({"training.keep_checkpoints": 5}).path, f"{tiny_config.run.root}/tiny")
    run = wb.attach("tiny", tiny_config.run.root)
    tiny_config.with_changes({"training.keep_checkpoints": 5}).to_yaml(run.folder.config)
    Manifest.to_write(run.path).seal(run.folder.config)  # it is the configuration of this run now
    return run


def test_a_clone_from_a_checkpoint_goes_on_with_other_settings(tiny_config, source):
    clone = wb.clone("tiny", tiny_config.run.root, step=4, changes={"training.learning_rate": 1e-3, "loss.beta": 5.0})
    assert clone.wait(120).state == "finished", clone.folder.log.read_text()
    assert clone.name.startswith("tiny-")
    losses = {
        run.name: {record["step"]: record["loss"] for record in run.records if record["kind"] == "train"}
        for run in (source, clone)
    }
    assert list(losses[clone.name]) == [1, 2, 3, 4, 5, 6]
    assert [losses[clone.name][step] for step in (1, 2, 3, 4)] == [losses["tiny"][step] for step in (1, 2, 3, 4)]
    assert losses[clone.name][5] != losses["tiny"][5]
    rates = {record["step"]: record["learning_rate"] for record in clone.records if record["kind"] == "train"}
    original = {record["step"]: record["learning_rate"] for record in source.records if record["kind"] == "train"}
    assert rates[5] == pytest.approx(original[5] * 1e-3 / tiny_config.training.learning_rate)
    origin = read_json(clone.folder.origin)
    assert (origin["run"], origin["step"]) == ("tiny", 4)
    assert origin["changes"] == {
        "training.learning_rate": [tiny_config.training.learning_rate, 1e-3],
        "loss.beta": [2.0, 5.0],
    }


def test_a_clone_without_changes_is_the_same_run_again(tiny_config, source):
    clone = wb.clone("tiny", tiny_config.run.root, step=2, new_name="again")
    assert clone.wait(120).state == "finished"
    assert (clone.adapter / "adapter_model.safetensors").read_bytes() == (
        source.adapter / "adapter_model.safetensors"
    ).read_bytes()


def test_a_clone_from_the_start_may_change_anything(tiny_config, source):
    folder = make_clone(source.folder, None, {"lora.r": 8, "training.max_steps": 2}, "wider")
    assert wb.RunConfig.from_yaml(folder.config).lora.r == 8
    assert read_json(folder.origin)["changes"] == {"lora.r": [4, 8], "training.max_steps": [6, 2]}
    assert not list(folder.checkpoints.iterdir())


def test_what_cannot_be_cloned_is_said(tiny_config, source):
    with pytest.raises(wb.WorkbenchError, match=r"lora.r cannot change on the way"):
        make_clone(source.folder, 4, {"lora.r": 8})
    with pytest.raises(wb.WorkbenchError, match=r"no checkpoint to go on from at step 3; it has \[2, 4, 6\]"):
        make_clone(source.folder, 3, {})
    assert resumable_steps(source.folder) == [2, 4, 6]
    assert len(wb.list_runs(tiny_config.run.root)) == 1  # refused before a folder was made


def test_the_configuration_of_a_clone_says_what_holds_at_its_first_step(source):
    """β 2 became 3 after step 2 and 7 after step 5; the rate was halved after step 2, which no configuration holds."""
    for step, changes in ((2, {"beta": 3.0, "learning_rate_scale": 0.5}), (5, {"beta": 7.0})):
        append_jsonl(source.folder.changes, {"step": step, "changes": changes})
    Manifest.to_write(source.path).seal(source.folder.changes)
    later = make_clone(source.folder, 4, {}, "later")
    assert wb.RunConfig.from_yaml(later.config).loss.beta == 3.0
    assert [record["changes"] for record in read_jsonl(later.changes)] == [{"learning_rate_scale": 0.5}]
    assert read_json(later.origin)["changes"] == {"loss.beta": [2.0, 3.0]}
    back = make_clone(source.folder, 4, {"loss.beta": 2.0, "training.learning_rate": 1e-3}, "back")
    assert wb.RunConfig.from_yaml(back.config).loss.beta == 2.0
    assert read_jsonl(back.changes) == [], "the clone's own β and rate hold, not those that were set on the way"
    anew = make_clone(source.folder, None, {}, "anew")
    assert wb.RunConfig.from_yaml(anew.config).loss.beta == 2.0, "as the source was started"
