"""What a user would lose: exact results, the run itself, or the truth about it."""

import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file

import simpo_workbench as wb
from simpo_workbench.analysis.metrics import METRICS
from simpo_workbench.base.files import read_json, write_json
from simpo_workbench.engine import checkpoints, training
from simpo_workbench.engine import step as step_module
from simpo_workbench.engine.encode.tokens import ChatEncoder
from simpo_workbench.engine.forward.logprobs import PackedScorer
from simpo_workbench.engine.scoring_again import scored_again
from simpo_workbench.engine.setup import prepare
from simpo_workbench.runs.folder import RunFolder
from simpo_workbench.runs.more_steps import resumable_steps

EVAL_KEYS = (
    "eval/loss",
    "eval/rewards/accuracies",
    "eval/rewards/beyond_gamma",
    "eval/logps/chosen_drift",
    "eval/logps/rejected_drift",
)


def adapter(run):
    return load_file(run.adapter / "adapter_model.safetensors")


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def train_numbers(run):
    names = ("loss", "grad_norm", "rewards/margins", "logps/chosen", "learning_rate")
    return [[record[name] for name in names] for record in run.records if record["kind"] == "train"]


@pytest.fixture
def finished(finished_run):
    """A finished run with dropout, for reading."""
    return finished_run({"lora.dropout": 0.1})


@pytest.fixture
def checked(finished_run, finished):
    """A finished run whose one check is passed by the answer of step 0 alone, for reading."""
    answers = finished.generations.set_index(["step", "prompt"])["answer"]
    before, after = (answers[step, "What is the capital of France?"] for step in (0, 6))
    assert before != after
    checks = {"expect": {"all": [f"/^{re.escape(before)}$/"]}, "reference": "Paris."}
    prompts = [{"prompt": "What is the capital of France?", **checks}, "Hello?"]
    return finished_run({"lora.dropout": 0.1, "generation.prompts": prompts})


@pytest.fixture
def own_copy(finished_run, tmp_path):
    """A function from changes of the settings to a copy of their finished run that the test may change."""
    return lambda changes=None: wb.attach(shutil.copytree(finished_run(changes).path, tmp_path / "copy"))


def test_a_finished_run_is_all_there(finished):
    assert (finished.status.state, finished.status.step, finished.status.total_steps) == ("finished", 6, 6)
    assert [(record["kind"], record["step"]) for record in finished.records if record["kind"] != "event"] == [
        ("eval", 0),
        *(("train", 1), ("train", 2), ("train", 3), ("eval", 3)),
        *(("train", 4), ("train", 5), ("train", 6), ("eval", 6)),
    ]
    evaluations = [record for record in finished.records if record["kind"] == "eval"]
    assert all(key in record for key in EVAL_KEYS for record in evaluations)
    assert evaluations[0]["eval/logps/chosen_drift"] == 0.0
    assert evaluations[2]["eval/logps/chosen_drift"] == pytest.approx(
        evaluations[2]["eval/logps/chosen"] - evaluations[0]["eval/logps/chosen"]
    )
    assert evaluations[2]["eval/loss"] < evaluations[0]["eval/loss"]
    assert finished.adapter_steps() == [2, 3, 4, 6]  # every evaluation and every save keeps its adapter
    assert finished.generations.groupby("step").size().to_dict() == {0: 3, 3: 3, 6: 3}
    assert set(finished.scores["step"]) == {0, 3, 6}
    assert finished.scores["topic"].notna().all()  # the user's own column came through
    assert finished.environment["train_pairs_sha256"] == wb.load_pairs(finished.config.data.train).content_hash
    assert (finished.adapter / "tokenizer.json").is_file()


def test_every_number_that_is_recorded_has_a_row_in_the_table_of_metrics_and_no_row_is_in_vain(finished, checked):
    records = [record for run in (finished, checked) for record in run.records if record["kind"] in ("train", "eval")]
    recorded = {key.removeprefix("eval/") for record in records for key in record} - {"kind", "step", "time"}
    recorded -= {f"{key}_{end}" for key in METRICS for end in ("low", "high")}
    # the lead is computed by the charts, and no two pairs of these runs share a prompt
    assert recorded == set(METRICS) - {"lead", "prompts"}


def test_answers_are_checked_and_compared_with_those_of_step_0(checked):
    asked = checked.generations.query("prompt == 'What is the capital of France?'")
    assert asked["right"].tolist()[::2] == [True, False]
    assert set(asked["reference"]) == {"Paris."}
    others = checked.generations.query("prompt != 'What is the capital of France?'")
    assert others["right"].tolist() == others["reference"].tolist() == [None] * len(others)
    lines = checked.folder.generations(6).read_text(encoding="utf-8").splitlines()
    assert ["right" in line for line in map(json.loads, lines)] == [True, False, False, False]
    first, *_, last = [record for record in checked.records if record["kind"] == "eval"]
    keys = ("eval/answers/right", "eval/answers/checked", "eval/answers/became_wrong", "eval/answers/became_right")
    assert [first.get(key) for key in keys] == [1.0, 1, None, None]
    assert [last.get(key) for key in keys] == [0.0, 1, 1, 0]
    assert last["eval/answers/right_change"] == -1.0


def test_a_resumed_run_compares_with_the_answers_of_its_first_process(tiny_config, checked):
    config = tiny_config.with_changes(
        {"lora.dropout": 0.1, "generation.prompts": checked.config.generation.prompts, "run.name": "parts"}
    )

    def stop_after_four(record):
        if record["kind"] == "train" and record["step"] == 4:
            RunFolder(f"{config.run.root}/parts").mailbox.ask("stop")

    parts = wb.train(config, on_record=stop_after_four)
    training.train_in_process(parts.folder, resume=True)
    whole, resumed = (
        next(record for record in run.records if record["kind"] == "eval" and record["step"] == 6)
        for run in (checked, parts)
    )
    answers = {key: value for key, value in whole.items() if "/answers/" in key}
    assert answers["eval/answers/became_wrong"] == 1
    assert {key: value for key, value in resumed.items() if "/answers/" in key} == answers


def test_held_out_pairs_bring_checks_and_a_bad_one_ends_nothing(tiny_config, tmp_path):
    rows = wb.load_pairs(tiny_config.data.eval).df[["prompt", "chosen", "rejected"]].to_dict("records")
    for row in rows:
        row |= {"expect": {"any": ["/.?/"]}, "reference": "Yes."}  # every text has it
    rows[1]["expect"] = {"any": ["/(/"]}
    path = tmp_path / "checked.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = wb.train(
        tiny_config.with_changes(
            {
                "data.eval": str(path),
                "generation.held_out_prompts": 8,
                "training.max_steps": 1,
                "generation.prompts": [],
            }
        )
    )
    assert run.generations.query("step == 1")["right"].tolist() == [True, None, *[True] * 6]
    assert set(run.generations["reference"]) == {"Yes."}
    (note,) = (note for note in run.environment["data_notes"] if "column expect" in note)
    assert note.startswith("The checks of 1 held-out pair (column expect) cannot be used")
    assert note in run.folder.log.read_text(encoding="utf-8")
    assert run.records[-2].get("eval/answers/checked", run.records[-1].get("eval/answers/checked")) == 7


def test_scores_of_the_run_are_those_of_the_saved_adapter(finished):
    pairs = wb.load_pairs(finished.config.data.eval)
    with wb.load_model(finished.config.model, adapter=finished.adapter) as model:
        again = wb.score(model, pairs, loss=finished.config.loss).set_index("pair_id")
        base = wb.generate(model, ["What is the capital of France?"], finished.config.generation)
    last = finished.scores.query("step == 6").set_index("pair_id")
    for column in ("chosen_avg_logp", "rejected_avg_logp", "margin", "loss", "gradient_weight"):
        assert torch.allclose(
            torch.tensor(again[column].to_numpy()), torch.tensor(last.loc[again.index, column].to_numpy()), atol=1e-6
        )
    answers = finished.generations.set_index(["step", "prompt"])["answer"]
    assert base["base"][0] == answers[0, "What is the capital of France?"]
    assert base["tuned"][0] == answers[6, "What is the capital of France?"]


@pytest.mark.parametrize("kind", ["simpo", "dpo"])
def test_the_noise_of_scoring_is_that_of_the_layout_that_differs_most(tiny_config, kind):
    """Each pair alone, and all in other micro-batches. The sample is all 8 held-out pairs here."""
    run = wb.train(tiny_config.with_changes({"loss.kind": kind, "training.max_steps": 1}))
    with wb.load_model(run.config.model) as model:
        alone = wb.score(model, wb.load_pairs(run.config.data.eval), max_tokens_per_microbatch=1)
        data = run.config.data
        encoded, _ = ChatEncoder.of(model, data).encode_pairs(list(wb.load_pairs(data.eval)))
        (_, again) = scored_again(PackedScorer(model.model).eval(), encoded, model, 4096).values()
    first = run.scores.query("step == 0")
    noises = [wb.analysis.scoring_noise(first, table) for table in (alone, again)]
    assert min(noises) > 0, "both are other layouts than that of the evaluation"
    assert run.scoring_noise == pytest.approx(max(noises), abs=1e-12)
    assert 0 < run.scoring_noise < 1e-4, "fp32"
    evaluations = [record for record in run.records if record["kind"] == "eval"]
    assert ["eval/scoring_noise" in record for record in evaluations] == [True, False], "measured once"


def test_measuring_the_noise_changes_nothing_else(tiny_config, finished, monkeypatch):
    from simpo_workbench.engine import evaluation

    config, measured = tiny_config.with_changes({"lora.dropout": 0.1}), finished
    monkeypatch.setattr(evaluation, "scored_again", lambda *_: {"not": None})
    monkeypatch.setattr(evaluation, "scoring_noise", lambda *_: 0.0)
    without = wb.train(config.with_changes({"run.name": "without"}))
    assert same(adapter(measured), adapter(without))
    assert train_numbers(measured) == train_numbers(without)
    assert measured.generations.equals(without.generations)
    assert measured.scoring_noise > 0
    flips = measured.compare()["flip"]
    first, last = (measured.scores[measured.scores["step"] == step] for step in (0, 6))
    assert flips.tolist() == wb.compare_scores(first, last, measured.scoring_noise)["flip"].tolist()


def test_the_adapter_opens_in_plain_peft(finished, tiny_model):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), str(finished.adapter))
    ids = torch.tensor([[5, 6, 7, 8]])
    with wb.load_model(finished.config.model, adapter=finished.adapter) as ours, torch.no_grad():
        assert torch.allclose(plain(ids).logits, ours.model(ids).logits, atol=1e-6)
        with ours.base():
            assert not torch.allclose(plain(ids).logits, ours.model(ids).logits, atol=1e-3)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tiny_config, finished_run):
    first = finished_run()
    again = wb.train(tiny_config.with_changes({"run.name": "again"}))
    other = wb.train(tiny_config.with_changes({"run.name": "other", "training.seed": 1}))
    assert same(adapter(first), adapter(again))
    assert train_numbers(first) == train_numbers(again)
    assert not same(adapter(first), adapter(other))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lora.dropout": 0.1},
        {"model.load_in": "nf4", "lora.dropout": 0.1},
        {"training.optimizer": "adamw_8bit"},
        {"training.optimizer": "paged_adamw_8bit"},
    ],
    ids=["plain", "dropout", "nf4", "adamw_8bit", "paged_adamw_8bit"],
)
def test_stopped_and_resumed_is_bit_for_bit_the_uninterrupted_run(tiny_config, finished_run, changes):
    config, whole = tiny_config.with_changes(changes), finished_run(changes)

    def stop_after_three(record):
        if record["kind"] == "train" and record["step"] == 3:
            RunFolder(f"{config.run.root}/parts").mailbox.ask("stop")

    parts = wb.train(config.with_changes({"run.name": "parts"}), on_record=stop_after_three)
    assert (parts.status.state, parts.status.step) == ("stopped", 3)
    assert parts.adapter.is_dir()  # stopping saves the adapter
    training.train_in_process(parts.folder, resume=True)
    assert parts.status.state == "finished"
    assert same(adapter(whole), adapter(parts))
    assert train_numbers(whole) == train_numbers(parts)
    assert [record["step"] for record in parts.records if record["kind"] == "train"] == [1, 2, 3, 4, 5, 6]


def test_resume_reuses_the_memory_plan_whatever_the_machine_would_choose_now(tiny_config, monkeypatch):
    """Another plan adds the same numbers in another order: the resumed run would differ in its last bits."""
    from simpo_workbench.engine.forward import memory

    config = tiny_config.with_changes(
        {
            "training.max_tokens_per_microbatch": "auto",
            "training.gradient_checkpointing": "auto",
            "training.pairs_per_step": 6,
        }
    )
    plans = iter([memory.MemoryPlan(150, 1), memory.MemoryPlan(150, 1), memory.MemoryPlan(1000, 0)])
    monkeypatch.setattr(memory, "choose", lambda *_: next(plans))
    whole = wb.train(config.with_changes({"run.name": "whole"}))

    def stop(record):
        if record["kind"] == "train" and record["step"] == 2:
            RunFolder(f"{config.run.root}/parts").mailbox.ask("stop")

    parts = wb.train(config.with_changes({"run.name": "parts"}), on_record=stop)
    assert parts.status.state == "stopped"
    training.train_in_process(parts.folder, resume=True)
    assert same(adapter(parts), adapter(whole))
    assert train_numbers(parts) == train_numbers(whole)
    assert parts.environment["max_tokens_per_microbatch"] == 150
    assert next(plans) == memory.MemoryPlan(1000, 0)  # nobody asked for it


def test_resume_passes_over_a_damaged_checkpoint(tiny_config, finished_run):
    config, whole = tiny_config.with_changes({"training.save_every": 1, "training.keep_checkpoints": 4}), finished_run()

    def stop_after_four(record):
        if record["kind"] == "train" and record["step"] == 4:
            RunFolder(f"{config.run.root}/parts").mailbox.ask("stop")

    parts = wb.train(config.with_changes({"run.name": "parts"}), on_record=stop_after_four)
    state = parts.folder.checkpoint(4) / "training_state.pt"
    state.write_bytes(state.read_bytes()[:-100])
    training.train_in_process(parts.folder, resume=True)
    resumed = next(record for record in parts.records if record.get("event") == "resumed")
    assert (resumed["step"], "step-000004 is damaged" in resumed["text"]) == (3, True)
    assert same(adapter(whole), adapter(parts))


def stopped_after_two(config):
    def stop(record):
        if record["kind"] == "train" and record["step"] == 2:
            RunFolder(f"{config.run.root}/{config.run.name}").mailbox.ask("stop")

    return wb.train(config, on_record=stop)


def test_going_on_with_other_settings_or_other_pairs_is_refused_and_nothing_is_lost(tiny_config, tmp_path):
    copy = tmp_path / "mine.jsonl"
    copy.write_text(Path(tiny_config.data.train).read_text())
    config = tiny_config.with_changes({"data.train": str(copy)})
    run = stopped_after_two(config)
    environment = run.environment
    config.with_changes({"loss.beta": 9}).to_yaml(run.folder.config)
    with pytest.raises(wb.WorkbenchError, match=r"cannot go on: its configuration changed"):
        training.train_in_process(run.folder, resume=True)
    config.to_yaml(run.folder.config)
    copy.write_text("".join(json.dumps(row) + "\n" for row in tiny.rows(24, start=500)))
    with pytest.raises(wb.WorkbenchError, match=r"cannot go on: the training pairs changed"):
        training.train_in_process(run.folder, resume=True)
    assert run.environment == environment
    copy.write_text(Path(tiny_config.data.train).read_text())
    training.train_in_process(run.folder, resume=True)
    assert run.status.state == "finished"


def test_a_request_to_an_earlier_process_does_not_stop_the_next_one(tiny_config):
    run = stopped_after_two(tiny_config)
    run.folder.mailbox.ask("stop")  # came too late for the first process
    training.train_in_process(run.folder, resume=True)
    assert run.status.state == "finished"


def test_scores_that_are_not_finite_stop_the_run_and_are_never_averaged_away(tiny_config, monkeypatch):
    from simpo_workbench.engine import scoring

    honest = scoring.response_logps

    def poison(*arguments):
        logps = honest(*arguments)
        logps.chosen[2] = float("nan")
        return logps

    monkeypatch.setattr(scoring, "response_logps", poison)
    with pytest.raises(wb.WorkbenchError, match="Step 0: the scores of held-out pairs [0-9a-f]{16} are not finite"):
        wb.train(tiny_config)


def test_dropped_and_refused_pairs_are_said_before_training(tiny_config, tmp_path):
    rows = tiny.rows(12)
    rows[3]["prompt"] = "long words " * 400
    path = tmp_path / "mixed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    notes = []
    run = wb.train(
        tiny_config.with_changes({"data.train": str(path), "data.max_tokens": 500, "training.max_steps": 1}),
        on_record=lambda record: notes.append(record["text"]) if record["kind"] == "note" else None,
    )
    said = " ".join(notes)
    assert "Dropped 1: longer than data.max_tokens 500" in said
    assert "unreadable" in said
    assert "Dropped 1" in run.folder.log.read_text()


def test_settings_that_ruin_simpo_warn_in_python_too(tiny_config):
    from simpo_workbench.base.errors import SettingWarning

    with pytest.warns(SettingWarning, match="high enough to ruin the model"):
        wb.train(tiny_config.with_changes({"training.max_steps": 1}))


@pytest.mark.parametrize("budget", [1, 200, 100000])
def test_micro_batches_change_no_gradient(tiny_config, budget):
    """The loss is divided by the pairs of the whole step, so memory settings are no hyperparameters."""
    norms = {}
    for name, tokens in (("whole", 100000), ("split", budget)):
        setup = prepare(
            tiny_config.with_changes(
                {
                    "training.max_tokens_per_microbatch": max(8, tokens),
                    "training.max_grad_norm": 0,
                    "training.pairs_per_step": 8,
                }
            )
        )
        result = step_module.optimizer_step(setup, 1)
        norms[name] = (result.record["grad_norm"], sorted(result.pair_ids), result.record["loss"])
        setup.close()
    assert norms["split"][0] == pytest.approx(norms["whole"][0], rel=1e-5)
    assert norms["split"][1] == norms["whole"][1]
    assert norms["split"][2] == pytest.approx(norms["whole"][2], rel=1e-5)


def test_every_step_has_exactly_pairs_per_step_pairs_and_an_epoch_sees_every_pair(tiny_config):
    setup = prepare(tiny_config.with_changes({"training.pairs_per_step": 5}))
    steps = [[pair.pair_id for pair in setup.step_pairs(step)] for step in range(1, 25)]
    setup.close()
    assert {len(step) for step in steps} == {5}
    stream = [pair_id for step in steps for pair_id in step]
    for epoch in range(5):
        assert len(set(stream[24 * epoch : 24 * (epoch + 1)])) == 24
    assert stream[:24] != stream[24:48]


def test_first_gradient_equals_a_plain_computation(tiny_config):
    """The whole way from text to gradient, against a few lines of plain torch on the same tokens."""
    setup = prepare(tiny_config.with_changes({"training.max_grad_norm": 0}))
    result = step_module.optimizer_step(setup, 1)
    pairs = {pair.pair_id: pair for pair in setup.step_pairs(1)}
    setup.close()
    setup = prepare(tiny_config.with_changes({"training.max_grad_norm": 0}))
    model, losses = setup.loaded.model, []
    for pair in pairs.values():
        averages = []
        for response in (pair.chosen_ids, pair.rejected_ids):
            ids = torch.tensor([pair.prompt_ids + response])
            logps = torch.log_softmax(model(ids).logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0]
            averages.append(logps[len(pair.prompt_ids) - 1 :].mean())
        losses.append(-torch.nn.functional.logsigmoid(2.0 * (averages[0] - averages[1]) - 1.0))
    torch.stack(losses).mean().backward()
    norm = torch.sqrt(sum((parameter.grad**2).sum() for parameter in setup.parameters))
    setup.close()
    assert result.record["loss"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert result.record["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)


def test_a_loss_that_is_not_finite_stops_the_run_at_once_and_names_step_and_pairs(tiny_config, monkeypatch):
    honest, poisoned = step_module.pair_losses, []

    def poison(loss, chosen, *rest):
        losses = honest(loss, chosen, *rest)
        poisoned.append(None)
        return losses * torch.tensor([1.0, float("nan"), 1.0, 1.0]) if len(poisoned) == 3 else losses

    monkeypatch.setattr(step_module, "pair_losses", poison)
    with pytest.raises(
        wb.WorkbenchError, match="Step 3: the loss is not finite for pairs [0-9a-f]{16}\\. Nothing was updated"
    ):
        wb.train(tiny_config)
    run = wb.attach("tiny", tiny_config.run.root)
    assert (run.status.state, "Step 3" in run.status.message) == ("failed", True)
    assert [record["step"] for record in run.records if record["kind"] == "train"] == [1, 2]
    assert run.adapter_steps() == [2]  # the last good checkpoint is still there


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_is_used(tiny_config):
    setup = prepare(tiny_config)
    before = [parameter.detach().clone() for parameter in setup.parameters]
    setup.parameters[0].register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(wb.WorkbenchError, match="Step 1: the gradient is not finite"):
        step_module.optimizer_step(setup, 1)
    assert all(torch.equal(old, now) for old, now in zip(before, setup.parameters, strict=True))
    setup.close()


def test_an_interrupt_ends_the_run_in_order(tiny_config):
    def interrupt(record):
        if record["kind"] == "train" and record["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        run = wb.train(tiny_config, on_record=interrupt)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # the notebook's own handler is back
    finally:
        signal.signal(signal.SIGINT, before)
    assert (run.status.state, run.status.step) == ("stopped", 2)
    assert run.adapter.is_dir()


@pytest.mark.parametrize(("evaluated", "on_collapse"), [(3, "warn"), (5, "pause")])
def test_a_signal_during_an_evaluation_stops_after_that_step(tiny_config, evaluated, on_collapse):
    """Also after the last evaluation but one: the run must not end as if nobody had asked, nor record a pause first."""
    changes = {"training.eval_every": evaluated, "training.save_every": 0, "training.on_collapse": on_collapse}

    def stop_at_the_evaluation(record):
        if record["kind"] == "eval" and record["step"] == evaluated:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        run = wb.train(tiny_config.with_changes(changes), on_record=stop_at_the_evaluation)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (run.status.state, run.status.step) == ("stopped", evaluated)
    assert [record for record in run.records if record.get("event") == "paused"] == []


@pytest.mark.parametrize(
    ("policy", "state", "step"), [("warn", "finished", 6), ("stop", "stopped", 3), ("pause", "stopped", 3)]
)
def test_a_collapse_is_announced_and_acted_on(tiny_config, monkeypatch, policy, state, step):
    from simpo_workbench.analysis import doctor

    measured = doctor.answers_change

    def repeats_surely(first, last, name):
        change = measured(first, last, name)
        return replace(change, value=0.9, low=0.5) if name == "repeated_4grams" else change

    monkeypatch.setattr(doctor, "answers_change", repeats_surely)  # any evaluation now counts as a collapse

    def stop_when_paused(record):
        if record["kind"] == "state" and record["state"] == "paused":
            RunFolder(f"{tiny_config.run.root}/tiny").mailbox.ask("stop")

    run = wb.train(tiny_config.with_changes({"training.on_collapse": policy}), on_record=stop_when_paused)
    assert (run.status.state, run.status.step) == (state, step)
    assert ("because the doctor sees a collapse" in run.status.message) == (policy == "stop")
    if policy == "pause":
        assert any(record.get("event") == "paused" for record in run.records)
    event = next(record for record in run.records if record.get("event") == "verdict")
    assert (event["step"], event["severity"]) == (3, "collapse")
    assert "The model is collapsing" in run.status.verdict
    assert run.status.recommended_step == 0


def test_pause_waits_and_unpause_goes_on(tiny_config):
    folder = RunFolder(f"{tiny_config.run.root}/tiny")
    seen = []

    def react(record):
        if record["kind"] == "train" and record["step"] == 2:
            folder.mailbox.ask("pause")
        if record["kind"] == "state" and record["state"] == "paused":
            seen.append(record["step"])
            folder.mailbox.ask("unpause")

    run = wb.train(tiny_config, on_record=react)
    assert seen == [2]
    assert run.status.state == "finished"
    assert [record["event"] for record in run.records if record["kind"] == "event" and record["step"] == 2] == [
        "paused",
        "unpaused",
    ]


def test_steps_yield_one_step_at_a_time_and_write_nothing(tiny_config, tmp_path):
    steps = wb.steps(tiny_config)
    first, second = next(steps), next(steps)
    steps.close()
    assert (first.number, second.number) == (1, 2)
    assert first.losses.mean().item() == pytest.approx(first.record["loss"])
    by_hand = wb.simpo_loss(first.chosen_avg_logps, first.rejected_avg_logps, 2.0, 0.5)
    assert torch.allclose(by_hand, first.losses, atol=1e-6)
    assert not (tmp_path / "runs").exists()


def test_hinge_and_dpo_train(tiny_config):
    hinge = wb.train(tiny_config.with_changes({"run.name": "hinge", "loss.kind": "simpo_hinge"}))
    dpo = wb.train(tiny_config.with_changes({"run.name": "dpo", "loss.kind": "dpo", "loss.beta": 0.1}))
    assert hinge.status.state == "finished"
    first = next(record for record in dpo.records if record["kind"] == "train")
    assert first["loss"] == pytest.approx(0.693147, abs=1e-5)  # policy and reference are the same at step 1
    assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-5)
    assert [record["eval/loss"] for record in dpo.records if record["kind"] == "eval"][-1] < 0.693147


def test_training_goes_on_from_an_existing_adapter_and_base_is_then_that_adapter(tiny_config, finished):
    config = tiny_config.with_changes({"model.adapter": str(finished.adapter), "loss.kind": "dpo", "loss.beta": 0.1})
    run = wb.train(config)
    start = [record for record in finished.records if record["kind"] == "eval"][-1]["eval/logps/chosen"]
    assert run.records[0]["eval/logps/chosen"] == pytest.approx(start, abs=1e-5)
    assert run.records[0]["eval/loss"] == pytest.approx(
        0.693147, abs=1e-5
    )  # the reference is the starting adapter, not the bare model
    assert not same(adapter(run), adapter(finished))
    with wb.load_model(config.model, adapter=run.adapter) as model:
        answers = wb.generate(model, ["What is the capital of France?"], config.generation)
        with model.base():
            table = wb.score(model, wb.load_pairs(config.data.eval))
    assert answers["base"][0] == run.generations.query("step == 0")["answer"].iloc[0]
    assert table["chosen_avg_logp"].mean() == pytest.approx(start, abs=1e-5)


def test_gradient_checkpointing_changes_no_number(tiny_config):
    plain = wb.train(tiny_config.with_changes({"run.name": "plain", "training.gradient_checkpointing": "none"}))
    for layers in ("all", 2):
        run = wb.train(
            tiny_config.with_changes({"run.name": f"layers-{layers}", "training.gradient_checkpointing": layers})
        )
        assert run.environment["checkpointed_layers"] == (3 if layers == "all" else 2)
        assert same(adapter(plain), adapter(run))


def test_all_pairs_too_long_says_so(tiny_config):
    with pytest.raises(
        wb.WorkbenchError, match=r"No training pair is left after tokenizing.*longer than data\.max_tokens 8"
    ):
        wb.train(tiny_config.with_changes({"data.max_tokens": 8}))


def test_adapter_parameters_and_optimizer_state_stay_fp32(tiny_config):
    setup = prepare(tiny_config.with_changes({"model.load_in": "bf16"}))
    step_module.optimizer_step(setup, 1)
    assert {parameter.dtype for parameter in setup.parameters} == {torch.float32}
    state = setup.optimizer.state_dict()["state"]
    assert {value.dtype for one in state.values() for value in one.values() if value.ndim} == {torch.float32}
    setup.close()


def test_hostile_text_comes_back_unchanged(tmp_path, tiny_config):
    """A hostile answer in the data must come back exactly as it was, in files and tables."""
    rows = tiny.rows(12)
    rows[0]["chosen"] = '</script><script>alert("x")</script>\u2028 \u0007 yes'
    path = tmp_path / "hostile.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = wb.train(tiny_config.with_changes({"data.train": str(path), "data.eval": str(path), "training.max_steps": 1}))
    assert rows[0]["chosen"] in set(run.scores["chosen"])


def test_the_recommended_checkpoint_keeps_its_optimizer_state(own_copy):
    """Going on from the last healthy checkpoint needs all of it, however many came after."""
    run = own_copy({"training.save_every": 1, "training.keep_checkpoints": 50})
    assert resumable_steps(run.folder) == [1, 2, 3, 4, 5, 6]
    checkpoints.prune(run.folder, keep=2, best=3)
    assert resumable_steps(run.folder) == [3, 5, 6]
    assert run.adapter_steps() == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_that_was_just_being_replaced_is_put_back(own_copy):
    """Killed between two renames: the earlier one of the same step is the newest whole one."""
    run = own_copy()
    final = run.folder.checkpoint(6)
    final.rename(final.with_name(".step-000006.old"))
    (run.folder.checkpoints / ".step-000006.tmp").mkdir()
    checkpoints.clean(run.folder)
    assert checkpoints.newest_valid(run.folder).step == 6
    assert sorted(path.name for path in run.folder.checkpoints.iterdir()) == [
        "step-000002",
        "step-000003",
        "step-000004",
        "step-000006",
    ]


def test_a_process_that_died_while_it_pruned_hinders_nobody(own_copy):
    """Its manifest says that the optimizer's state is gone, and the file is still there."""
    run = own_copy({"training.save_every": 1, "training.keep_checkpoints": 50})
    manifest = run.folder.checkpoint(1) / "manifest.json"
    values = read_json(manifest)
    del values["files"]["training_state.pt"]
    write_json(manifest, {**values, "resumable": False})
    checkpoints.prune(run.folder, keep=2)
    assert resumable_steps(run.folder) == [5, 6]
    assert not (run.folder.checkpoint(1) / "training_state.pt").exists()


def test_a_listener_that_fails_leaves_no_run_that_seems_to_train(tiny_config):
    """The kernel lives on, the run does not: wb.resume must be possible at once."""

    def listen(record):
        if (
            record.get("state") == "failed"
            or record.get("event") == "failed"
            or (record["kind"] == "train" and record["step"] >= 3)
        ):
            raise RuntimeError("a progress bar that broke")

    with pytest.raises(RuntimeError, match="progress bar"):
        wb.train(tiny_config.with_changes({"training.save_every": 1}), on_record=listen)
    run = wb.attach("tiny", tiny_config.run.root)
    assert (run.status.state, run.status.alive) == ("failed", False)
    training.train_in_process(run.folder, resume=True)
    assert run.status.state == "finished"


def test_the_best_evaluation_can_be_gone_on_from(tiny_config):
    run = wb.train(
        tiny_config.with_changes({"training.save_every": 0, "training.eval_every": 1, "training.keep_checkpoints": 1})
    )
    best = run.status.recommended_step
    assert best == 0 or best in resumable_steps(run.folder)
    assert 6 in resumable_steps(run.folder)


def test_a_run_under_nohup_goes_on_when_its_terminal_is_closed(tiny_config, monkeypatch):
    """nohup ignores SIGHUP; taking it back would end the run with the terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = wb.train(
            tiny_config,
            on_record=lambda record: os.kill(os.getpid(), signal.SIGHUP) if record["kind"] == "train" else None,
        )
        assert run.status.state == "finished"
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        told = wb.train(
            tiny_config.with_changes({"run.name": "told"}),
            on_record=lambda record: (
                os.kill(os.getpid(), signal.SIGHUP) if record.get("step") == 2 and record["kind"] == "train" else None
            ),
        )
        assert (told.status.state, told.status.step) == ("stopped", 2)
    finally:
        signal.signal(signal.SIGHUP, before)
