"""What a user would lose: a changed setting that a resumed run forgets, or a request without a reply."""

import pytest

import simpo_workbench as wb
from simpo_workbench.base.files import read_jsonl
from simpo_workbench.config.live_changes import checked_changes
from simpo_workbench.engine.training import train_in_process
from simpo_workbench.runs.folder import RunFolder
from simpo_workbench.runs.mailbox import Mailbox


class Asker:
    """Called with every record of a run: asks what is planned after a step's record, and keeps the requests."""

    def __init__(self, config, plan, crash_after=None):
        self.box = RunFolder(f"{config.run.root}/{config.run.name}").mailbox
        self.plan, self.crash_after, self.requests = plan, crash_after, {}

    def __call__(self, record):
        if record["kind"] == "train":
            for kind, values in self.plan.get(record["step"], []):
                self.requests[record["step"], kind] = self.box.ask(kind, **values)
        if record["kind"] == "train" and record["step"] == self.crash_after:
            raise RuntimeError("the machine is on fire")

    def reply(self, step, kind):
        return self.box.reply(self.requests[step, kind])


def numbers(run):
    return [
        (record["step"], record["loss"], record["learning_rate"], record["beta"], record["gamma_beta_ratio"])
        for record in run.records
        if record["kind"] == "train"
    ]


PLAN = {
    2: [("set", {"learning_rate_scale": 0.5})],
    3: [("set", {"beta": 4.0, "gamma_beta_ratio": 0.25}), ("set", {"prompts": ["A new one?"]})],
}


def test_settings_change_at_the_next_step_and_are_recorded(tiny_config, finished_run):
    constant = {"training.scheduler": "constant", "training.warmup_ratio": 0.0}
    config, plain = tiny_config.with_changes(constant), finished_run(constant)
    asker = Asker(config, PLAN)
    run = wb.train(config, on_record=asker)
    rate = config.training.learning_rate
    assert [row[2] for row in numbers(run)] == [rate, rate, *[0.5 * rate] * 4]
    assert [row[3:] for row in numbers(run)] == [*[(2.0, 0.5)] * 3, *[(4.0, 0.25)] * 3]
    assert [row[1] for row in numbers(run)][:3] == [row[1] for row in numbers(plain)][:3]
    assert numbers(run)[3][1] != numbers(plain)[3][1]
    assert set(run.scores.query("step == 6")["beta"]) == {4.0}
    assert "A new one?" in set(run.generations.query("step == 6")["prompt"])
    events = [(record["step"], record["text"]) for record in run.records if record.get("event") == "set"]
    assert events == [
        (2, "After step 2: learning_rate_scale = 0.5."),
        (3, "After step 3: beta = 4, gamma_beta_ratio = 0.25."),
        (3, "After step 3: prompts = 1 prompt."),
    ]
    sets = [record for record in run.records if record.get("event") == "set"]
    objectives = [(record.get("beta"), record.get("gamma_beta_ratio")) for record in sets]
    assert objectives == [(None, None), (4.0, 0.25), (None, None)], "it holds at once, before the next step names it"
    assert asker.reply(2, "set") == {"state": "done", "text": "After step 2: learning_rate_scale = 0.5.", "step": 2}


@pytest.fixture(scope="module")
def changed_run(tiny_settings, tmp_path_factory):
    """An uninterrupted run with dropout whose settings changed by PLAN; saving more or less often changes no number."""
    place = {"run.name": "quiet", "run.root": str(tmp_path_factory.mktemp("runs"))}
    config = wb.RunConfig.from_dict(tiny_settings, {"lora.dropout": 0.1, **place})
    return wb.train(config, on_record=Asker(config, PLAN))


@pytest.mark.parametrize(
    ("save_every", "crash_after"),
    [(2, 3), (2, 5), (0, 4)],
    ids=["between a change and the next checkpoint", "after both", "before any checkpoint"],
)
def test_a_resumed_run_makes_the_same_changes_again(tiny_config, changed_run, save_every, crash_after):
    config = tiny_config.with_changes({"training.save_every": save_every, "lora.dropout": 0.1})
    plan = {step: requests for step, requests in PLAN.items() if step < crash_after}
    with pytest.raises(RuntimeError, match="on fire"):
        wb.train(config, on_record=Asker(config, plan, crash_after))
    run = wb.attach("tiny", config.run.root)
    assert run.status.state == "failed"
    rest = {step: requests for step, requests in PLAN.items() if step >= crash_after}
    train_in_process(run.folder, resume=True, on_record=Asker(config, rest))
    assert run.status.state == "finished"
    assert numbers(run) == numbers(changed_run)
    assert (run.adapter / "adapter_model.safetensors").read_bytes() == (
        changed_run.adapter / "adapter_model.safetensors"
    ).read_bytes()
    assert [change["step"] for change in read_jsonl(run.folder.changes)] == [2, 3, 3]
    assert [record["step"] for record in run.records if record.get("event") == "set"] == [2, 3, 3]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"beta": -1}, "loss.beta = -1"),
        ({"learning_rate_scale": 1000}, "learning_rate_scale = 1000 is not possible: expected a number from 0 to 100"),
        ({"learning_rate_scale": True}, "learning_rate_scale = True"),
        ({"learning_rate_scale": float("nan")}, "learning_rate_scale = nan"),
        ({"beta": "4"}, "beta = '4' is not possible: expected a number"),
        ({"prompts": "[a, b]"}, "expected a list of texts (generation.prompts)"),
        ({"lora_r": 4}, "'lora_r' cannot be changed while a run trains: learning_rate_scale, beta"),
        ({}, "Say what to change: learning_rate_scale, beta"),
        ({"prompts": ["My key is hf_abcdefghijklmnopqrstuvwxyz123456"]}, "prompts holds a token, key or password"),
        ({"prompts": "one text"}, "generation.prompts"),
        ({"gamma": 1.0, "gamma_beta_ratio": 0.5}, "keep one"),
    ],
)
def test_what_cannot_be_changed_is_refused_with_a_reason(changes, words):
    with pytest.raises(wb.WorkbenchError) as caught:
        checked_changes(wb.RunConfig(), changes)
    assert words in str(caught.value)


def test_gamma_is_converted_with_the_beta_that_holds():
    config = checked_changes(wb.RunConfig().with_changes({"loss.beta": 4.0}), {"gamma": 1.0})
    assert (config.loss.beta, config.loss.gamma_beta_ratio) == (4.0, 0.25)


def test_a_refused_change_ends_nothing_and_is_not_kept(tiny_config):
    asker = Asker(tiny_config, {2: [("set", {"beta": -1})], 3: [("close", {})]})
    run = wb.train(tiny_config, on_record=asker)
    assert run.status.state == "finished"
    assert asker.reply(2, "set")["state"] == "refused"
    assert "loss.beta" in asker.reply(2, "set")["text"]
    assert asker.reply(3, "close")["state"] == "refused"
    assert read_jsonl(run.folder.changes) == []


def test_every_request_gets_a_reply(tiny_config):
    asker = Asker(tiny_config, {1: [("save", {})], 2: [("evaluate", {}), ("unpause", {})], 4: [("stop", {})]})
    run = wb.train(tiny_config, on_record=asker)
    assert asker.reply(1, "save") == {"state": "done", "text": "Saved the checkpoint of step 1.", "step": 1}
    assert asker.reply(2, "evaluate")["text"] == "Evaluated after step 2."
    assert asker.reply(2, "unpause")["text"] == "It is not paused."
    assert asker.reply(4, "stop")["text"].startswith("Stopped after step 4 of 6; adapter and checkpoint are saved.")
    assert (run.folder.checkpoint(1) / "manifest.json").exists()
    assert 2 in set(run.scores["step"])
    events = {(record["step"], record["event"]): record["text"] for record in run.records if record["kind"] == "event"}
    assert events[1, "saved"] == "Saved the checkpoint of step 1, on request."
    assert events[2, "evaluated"] == "Evaluated after step 2, on request."
    assert (4, "stopped") in events


def test_a_suspended_run_frees_its_process_and_goes_on_as_if_uninterrupted(tiny_config, finished_run):
    config, quiet = tiny_config.with_changes({"lora.dropout": 0.1}), finished_run({"lora.dropout": 0.1})
    asker = Asker(config, {3: [("suspend", {})]})
    run = wb.train(config, on_record=asker)
    assert (run.status.state, run.status.alive, run.status.ended) == ("suspended", False, False)
    assert run.wait(5).state == "suspended"
    assert "Suspended after step 3: its memory is free" in asker.reply(3, "suspend")["text"]
    with pytest.raises(wb.WorkbenchError, match="no final adapter yet"):
        run.adapter  # noqa: B018
    again = wb.resume("tiny", config.run.root)
    assert again.wait(120).state == "finished"
    assert numbers(again) == numbers(quiet)
    assert (again.adapter / "adapter_model.safetensors").read_bytes() == (
        quiet.adapter / "adapter_model.safetensors"
    ).read_bytes()


def test_a_paused_run_answers_saves_changes_and_suspends(tiny_config):
    run = wb.start(
        tiny_config.with_changes({"training.max_steps": 5000, "training.eval_every": 0, "training.save_every": 0})
    )
    run.pause().wait(120)
    assert run.status.state == "paused"
    step = run.status.step
    assert run.set(beta=5.0).wait(120).text == f"After step {step}: beta = 5."
    assert run.save().wait(120).text == f"Saved the checkpoint of step {step}."
    assert run.evaluate().wait(120).text == f"Evaluated after step {step}."
    assert run.status.state == "paused"
    assert set(run.scores.query(f"step == {step}")["beta"]) == {5.0}
    assert len(wb.open_model(run).score([{"prompt": "Hi", "chosen": "Hello.", "rejected": "What?"}])) == 1
    run.suspend().wait(120)
    assert run.wait(120).state == "suspended"
    assert wb.resume("tiny", tiny_config.run.root).pause().wait(120).text.startswith("Paused after step")
    assert [record["beta"] for record in run.records if record["kind"] == "train"][step:] == [5.0] * (
        run.status.step - step
    )
    run.stop().wait(120)


def test_requests_that_come_too_late_are_refused(tiny_config):
    box = Mailbox(RunFolder(f"{tiny_config.run.root}/tiny").path)
    requests = []
    run = wb.train(
        tiny_config,
        on_record=lambda record: (
            requests.append(box.ask("generate", prompts=["Hi"])) if record.get("event") == "finished" else None
        ),
    )
    assert box.reply(requests[0]) == {"state": "refused", "text": "The run is finished; its process has ended."}
    assert run.status.state == "finished"


def test_of_a_pause_and_an_unpause_within_a_step_the_later_one_counts(tiny_config):
    """Otherwise the run would wait forever, although the last request was to go on."""
    asker = Asker(tiny_config, {2: [("pause", {}), ("unpause", {})]})
    run = wb.train(tiny_config, on_record=asker)
    assert run.status.state == "finished"
    assert asker.reply(2, "pause") == {
        "state": "done",
        "text": "Cancelled by the unpause that followed.",
        "step": 2,
    }
    assert asker.reply(2, "unpause")["text"] == "It is not paused."


@pytest.mark.parametrize(
    "values",
    [
        {"beta": "4"},
        {"beta": [1]},
        {"prompts": [1]},
        {"prompts": "[a, b]"},
        {"learning_rate_scale": {}},
        {"gamma_beta_ratio": "0.5"},
        {"x" * 1000: 1},
        {"beta": 1e999},
    ],
)
def test_no_value_in_a_request_ends_a_run(tiny_config, values):
    asker = Asker(tiny_config, {1: [("set", values)]})
    run = wb.train(tiny_config.with_changes({"training.max_steps": 2, "training.eval_every": 0}), on_record=asker)
    assert run.status.state == "finished"
    assert asker.reply(1, "set")["state"] == "refused"
    assert read_jsonl(run.folder.changes) == []
