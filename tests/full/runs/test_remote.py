"""What a user would lose: steps of a run that is asked meanwhile, or memory to a model that is no longer used."""

import os
import signal
import sys
import textwrap
import time
from subprocess import PIPE, Popen

import pytest
from waiting import DEADLINE_S, wait_for

import simpo_workbench as wb

PAIR = {"prompt": "What color is the sky?", "chosen": "Blue, mostly.", "rejected": "Green."}


def losses(run):
    return [record["loss"] for record in run.records if record["kind"] == "train"]


def test_a_run_answers_between_steps_and_its_result_stays_the_same(tiny_config):
    config = tiny_config.with_changes(
        {"training.max_steps": 40, "training.eval_every": 0, "training.save_every": 0, "lora.dropout": 0.1}
    )
    quiet = wb.train(config.with_changes({"run.name": "quiet"}))
    run = wb.start(config)
    model = wb.open_model(run).ready(DEADLINE_S)
    wait_for(lambda: run.status.step >= 2)
    scores = model.score([PAIR])
    assert scores.iloc[0]["beta"] == config.loss.beta
    assert list(model.generate("Hello?").columns[:3]) == ["prompt", "base", "tuned"]
    model.close()  # of a run that trains: it goes on
    assert run.wait(DEADLINE_S).state == "finished"
    assert losses(run) == losses(quiet)
    with pytest.raises(wb.WorkbenchError, match="cannot be asked to score: Finished"):
        model.score([PAIR])


def test_a_model_that_cannot_be_loaded_says_so(tiny_config, tmp_path):
    with (
        wb.open_model(tiny_config.model.model_copy(update={"name": str(tmp_path / "nowhere")})) as model,
        pytest.raises(wb.WorkbenchError, match="There is no model folder"),
    ):
        model.ready(DEADLINE_S)


def test_an_opened_model_leaves_when_nobody_asks(tiny_config):
    model = wb.open_model(tiny_config.model, idle_s=0.5).ready(DEADLINE_S)
    wait_for(lambda: not model.run.status.alive)
    with pytest.raises(wb.WorkbenchError, match="unused for a while"):
        model.generate("Hello?")


def test_an_opened_model_leaves_when_the_kernel_is_killed(tiny_config, tmp_path):
    path = tmp_path / "config.yaml"
    tiny_config.to_yaml(path)
    code = f"""
        import time, simpo_workbench as wb
        model = wb.open_model(wb.RunConfig.from_yaml({str(path)!r}).model).ready(100)
        print(model.run.path, flush=True)
        time.sleep(600)
    """
    with Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=PIPE, text=True) as kernel:
        folder = wb.attach(kernel.stdout.readline().strip())
        assert folder.status.alive
        os.kill(kernel.pid, signal.SIGKILL)
        wait_for(lambda: not folder.status.alive)


def test_a_cancelled_answer_is_left_off_in_its_middle(tiny_config):
    """Thousands of tokens that nobody wants must not keep a run from its next step."""
    with wb.open_model(tiny_config.model) as model:
        model.ready(DEADLINE_S)
        long = model.ask(
            "generate", prompts=["Hi"] * 4, generation=wb.GenerationConfig(max_new_tokens=8000, temperature=5.0)
        )
        wait_for(lambda: long.state == "acknowledged")
        time.sleep(0.3)  # it is at it
        assert not long.cancel()
        assert len(model.ask("encode", pairs=[PAIR]).result(DEADLINE_S))
        with pytest.raises(wb.WorkbenchError, match="Prompts are a text, or a list"):
            model.generate(5)
