"""What a user would lose: a gradient that depends on memory settings, or a step that memory ends."""

import json
from types import SimpleNamespace

import pytest
import torch
from full_device import OutOfMemory

import simpo_workbench as wb
from simpo_workbench.engine import step as step_module
from simpo_workbench.engine.setup import prepare


def one_step(config, most=None):
    setup = prepare(config)
    scorer = setup.scorer
    if most:
        setup.scorer = OutOfMemory(scorer, most)
    result = step_module.optimizer_step(setup, 1)
    weights = torch.cat([parameter.detach().flatten() for parameter in setup.parameters])
    refused = setup.scorer.refused if most else []
    plan = setup.memory
    setup.close()
    return result, weights, refused, plan


def test_a_full_memory_halves_the_budget_and_repeats_the_step_with_the_same_pairs(tiny_config):
    config = tiny_config.with_changes(
        {
            "training.pairs_per_step": 8,
            "training.max_tokens_per_microbatch": 400,
            "lora.dropout": 0.1,
            "training.warmup_ratio": 0,
        }
    )
    small = config.with_changes({"training.max_tokens_per_microbatch": 100})
    expected, weights, _, _ = one_step(small)
    result, repeated, refused, plan = one_step(config, most=120)
    assert refused
    assert min(refused) > 120
    assert plan.max_tokens_per_microbatch == 100
    repetitions = [sentence for sentence in result.shortages if "repeated with at most" in sentence]
    assert repetitions[-1].endswith("at most 100 tokens at once.")
    assert sorted(result.pair_ids) == sorted(expected.pair_ids)
    assert torch.equal(repeated, weights)  # dropout draws the same numbers again


def test_when_one_pair_alone_is_too_much_the_layers_are_checkpointed_and_then_it_is_said(tiny_config):
    config = tiny_config.with_changes(
        {"training.max_tokens_per_microbatch": 8, "training.gradient_checkpointing": "none"}
    )
    setup = prepare(config)
    setup.scorer = OutOfMemory(setup.scorer, 1)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        step_module.optimizer_step(setup, 1)
    assert setup.memory.checkpointed_layers == 3
    setup.close()


def test_a_run_records_the_shortage_and_goes_on(tiny_config, monkeypatch):
    from simpo_workbench.engine import training

    honest = training.prepare

    def cramped(*arguments):
        setup = honest(*arguments)
        setup.scorer = OutOfMemory(setup.scorer, 120)
        return setup

    monkeypatch.setattr(training, "prepare", cramped)
    run = wb.train(tiny_config.with_changes({"training.max_tokens_per_microbatch": 400}))
    assert run.status.state == "finished"
    events = [record for record in run.records if record.get("event") == "out_of_memory"]
    assert events
    assert {event["step"] for event in events} == {1}
    assert all("Memory ran out in step 1" in event["text"] for event in events)
    manifest = json.loads((run.folder.checkpoint(run.status.total_steps) / "manifest.json").read_text())
    assert manifest["memory"]["max_tokens_per_microbatch"] < 400


def test_a_step_that_loss_scaling_skips_is_no_update_and_has_no_gradient_norm(tiny_config):
    """The learning rate stays where it is, and no number stands for a norm that overflowed."""
    setup = prepare(tiny_config)
    applied = step_module.optimizer_step(setup, 1)
    # loss scaling exists on GPUs only: a stand-in for what a step sees of a scaler that skips
    setup.accelerator.scaler = SimpleNamespace(scale=lambda loss: loss)
    setup.parameters[0].register_hook(lambda gradient: gradient * float("inf"))
    setup.optimizer.step = lambda: None
    setup.optimizer._is_overflow = True
    skipped = [step_module.optimizer_step(setup, number).record for number in (2, 3)]
    assert setup.applied_updates == 1
    assert "grad_norm" in applied.record
    assert not any("grad_norm" in record for record in skipped)
    assert [record["learning_rate"] for record in skipped] == [tiny_config.training.learning_rate] * 2
    setup.close()
