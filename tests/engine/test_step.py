"""What a user would lose: a gradient that depends on memory settings or on the number of devices, or a step that memory
ends.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from full_device import OutOfMemory

import simpo_workbench as wb
from simpo_workbench.engine import step as step_module
from simpo_workbench.engine.setup import prepare

SCRIPT = Path(__file__).parents[1] / "helpers" / "gradient_of_a_step.py"
BUDGETS = ["8", "150", "100000"]  # one pair at a time, some, all of them in one row


def gradients(tmp_path, processes, family, dtype, pairs_per_step=7):
    """What gradient_of_a_step.py found with so many processes."""
    folder, pairs, out = (
        tmp_path / family,
        tmp_path / "pairs.jsonl",
        tmp_path / f"{processes}-{dtype}-{pairs_per_step}.pt",
    )
    if not folder.exists():
        tiny.save(folder, family)
        pairs.write_text("\n".join(map(json.dumps, tiny.rows(12))))
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    )
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "PYTHONPATH": str(Path(wb.__file__).parents[1]),
    }
    command = [sys.executable, *launcher, SCRIPT, out, folder, pairs, dtype, pairs_per_step, *BUDGETS]
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out, weights_only=True)


def relative(left, right):
    return ((left - right).norm() / right.norm()).item()


@pytest.mark.parametrize(
    ("family", "dtype", "tolerance"), [("llama", "float32", 1e-5), ("starcoder2", "float64", 1e-10)]
)
def test_neither_packing_nor_the_number_of_processes_changes_the_gradient(tmp_path, family, dtype, tolerance):
    """Seven pairs, so that two processes cannot share them alike.

    Starcoder 2 computes its norms in the weights' own fp64; Llama's compute in fp32.
    """
    alone, together = (gradients(tmp_path, processes, family, dtype) for processes in (1, 2))
    assert (alone["world_size"], together["world_size"]) == (1, 2)
    oracle = alone["8"]
    assert oracle.norm() > 1e-3
    for budget in BUDGETS:
        assert alone[f"{budget} pairs"] == 7
        assert together[f"{budget} pairs"] < 7  # the first process had only a part
        assert relative(alone[budget], oracle) < tolerance
        assert relative(together[budget], oracle) < tolerance


def test_a_process_without_a_pair_adds_nothing_and_blocks_nobody(tmp_path):
    alone, together = (gradients(tmp_path, processes, "llama", "float32", pairs_per_step=1) for processes in (1, 2))
    assert together["world_size"] == 2
    assert relative(together["8"], alone["8"]) < 1e-5


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
        {"training.pairs_per_step": 8, "training.max_tokens_per_microbatch": 400, "lora.dropout": 0.1}
    )
    small = config.with_changes({"training.max_tokens_per_microbatch": 100})
    expected, weights, _, _ = one_step(small)
    result, repeated, refused, plan = one_step(config, most=120)
    assert refused
    assert min(refused) > 120
    assert plan.max_tokens_per_microbatch == 100
    assert [sentence for sentence in result.shortages if "repeated with at most" in sentence][-1].endswith(
        "at most 100 tokens at once."
    )
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
