"""What a user would lose: the way on after the last epoch, and a learning rate that jumps without a word."""

import re
import shutil

import pytest
from click.testing import CliRunner

import simpo_workbench as wb
from simpo_workbench.cli.main import main
from simpo_workbench.config.schedule import learning_rate
from simpo_workbench.runs.launch import make_clone
from simpo_workbench.runs.manifest import Manifest
from simpo_workbench.runs.more_steps import rate_change


@pytest.fixture
def source(tiny_config, finished_run):
    """A function from changes to a finished run called tiny, in a folder that the test may change."""

    def run_with(changes):
        shutil.copytree(finished_run(changes).path, f"{tiny_config.run.root}/tiny")
        run = wb.attach("tiny", tiny_config.run.root)
        tiny_config.with_changes(changes).to_yaml(run.folder.config)
        Manifest.to_write(run.path).seal(run.folder.config)  # it is the configuration of this run now
        return run

    return run_with


def test_a_finished_run_names_the_call_that_trains_on_and_the_call_does(tiny_config, source):
    """8 steps are two epochs of 16 pairs; refused without a way, whoever wants a third begins anew."""
    run = source({"training.max_steps": None, "training.epochs": 2.0, "training.keep_checkpoints": 1})
    steps, training = run.status.total_steps, run.config.training
    with pytest.raises(wb.WorkbenchError) as error:
        wb.resume("tiny", tiny_config.run.root)
    text = str(error.value)
    assert text.startswith(f"The run 'tiny' is finished: all {steps} steps are done.")
    call = re.search(r"wb\.clone\(.*\}\)", text)[0]
    assert call == f"wb.clone('tiny', root={tiny_config.run.root!r}, step={steps}, changes={{'training.epochs': 3}})"
    rates = {record["step"]: record["learning_rate"] for record in run.records if record["kind"] == "train"}
    command = re.search(r"`simpo-workbench (clone .*?)`", text)[1]
    assert command == f"clone tiny --root {tiny_config.run.root} --step {steps} --training.epochs 3"
    goes_on = learning_rate(steps, steps * 3 // 2, training)
    assert f"it ended at {rates[steps]:.2e} and goes on at about {goes_on:.2e}" in text

    resumed = CliRunner().invoke(main, ["resume", "tiny", "--root", str(tiny_config.run.root)])
    assert (resumed.exit_code, text in " ".join(resumed.output.split())) == (1, True), resumed.output

    asked = CliRunner().invoke(main, [*command.split(), "--run.name", "by-command"])
    assert asked.exit_code == 0, asked.output
    by_command = wb.attach("by-command", tiny_config.run.root)
    assert by_command.wait(120).state == "finished"
    clone = eval(call)  # the call as it is printed
    assert clone.wait(120).state == "finished", clone.folder.log.read_text()
    records = [record for record in clone.records if record["kind"] == "train"]
    assert [record["step"] for record in records] == list(range(1, steps * 3 // 2 + 1))
    assert records[steps]["learning_rate"] == pytest.approx(goes_on)
    of_command = [record["learning_rate"] for record in by_command.records if record["kind"] == "train"]
    assert of_command == [record["learning_rate"] for record in records]
    resumed = next(record["text"] for record in clone.records if record.get("event") == "resumed")
    assert f"The learning rate goes on at {goes_on:.2e}; step {steps} had {rates[steps]:.2e}" in resumed
    assert "(training.epochs changed)" in resumed


def test_a_run_by_steps_is_told_steps(tiny_config, source):
    source({"training.max_steps": 6})
    with pytest.raises(wb.WorkbenchError, match=r"step=6, changes=\{'training.max_steps': \d+\}\)"):
        wb.resume("tiny", tiny_config.run.root)


def test_a_level_rate_is_called_level(tiny_config, source):
    source({"training.scheduler": "constant", "training.warmup_ratio": 0.0})
    with pytest.raises(wb.WorkbenchError, match=r"The learning rate stays at about [\d.]+e-\d\d\."):
        wb.resume("tiny", tiny_config.run.root)


def test_a_clone_that_has_no_step_left_is_refused(tiny_config, source):
    """It would be finished at once and look like a training."""
    run = source({"training.max_steps": 6})
    with pytest.raises(
        wb.WorkbenchError, match=r"from step 6 would be finished at once: with these settings.* 6 steps"
    ):
        make_clone(run.folder, 6, {"training.learning_rate": 1e-3})
    assert make_clone(run.folder, 6, {"training.max_steps": 7}).origin.is_file()


def test_a_jump_is_said_only_where_the_schedule_changed(tiny_config, source):
    run = source({"training.max_steps": 6})
    records = [{"kind": "train", "step": 6, "learning_rate": 1e-4}]
    assert rate_change(run.folder, 6, 2e-4, records) == "", "a run that is no clone"
    clone = make_clone(run.folder, 6, {"training.max_steps": 9, "loss.beta": 3.0})
    assert rate_change(clone, 6, 2e-4, records) == (
        "The learning rate goes on at 2.00e-04; step 6 had 1.00e-04 (training.max_steps changed)."
    )
    assert rate_change(clone, 8, 2e-4, records) == "", "resumed later, from a checkpoint of its own"
