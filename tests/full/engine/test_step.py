"""What a user would lose: a gradient that depends on memory settings or on the number of devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

import simpo_workbench as wb

SCRIPT = Path(__file__).parents[2] / "helpers" / "gradient_of_a_step.py"
BUDGETS = ["8", "150", "100000"]  # one pair at a time, some, all of them in one row
#: Seven pairs, so that two processes cannot share them alike. Starcoder 2 computes its norms in the weights' own fp64;
#: Llama's compute in fp32.
CASES = {
    "llama": {"family": "llama", "dtype": "float32", "pairs_per_step": 7},
    "starcoder2": {"family": "starcoder2", "dtype": "float64", "pairs_per_step": 7},
    "one pair": {"family": "llama", "dtype": "float32", "pairs_per_step": 1},
}


@pytest.fixture(scope="module")
def gradients(tmp_path_factory):
    """(alone, together): for every case what gradient_of_a_step.py computed in one process and in two."""
    folder = tmp_path_factory.mktemp("gradients")
    pairs = folder / "pairs.jsonl"
    pairs.write_text("\n".join(map(json.dumps, tiny.rows(12))))
    cases = [
        {
            "folder": tiny.save(folder / name, case["family"]),
            "pairs_file": str(pairs),
            "dtype": case["dtype"],
            "pairs_per_step": case["pairs_per_step"],
            "budgets": BUDGETS,
        }
        for name, case in CASES.items()
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "PYTHONPATH": str(Path(wb.__file__).parents[1]),
    }
    results = []
    for launcher in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]):
        command = [sys.executable, *launcher, str(SCRIPT), str(folder / "out.pt"), json.dumps(cases)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        results.append(dict(zip(CASES, torch.load(folder / "out.pt", weights_only=True), strict=True)))
    return results


def relative(left, right):
    return ((left - right).norm() / right.norm()).item()


@pytest.mark.parametrize(("case", "tolerance"), [("llama", 1e-5), ("starcoder2", 1e-10)])
def test_neither_packing_nor_the_number_of_processes_changes_the_gradient(gradients, case, tolerance):
    alone, together = (results[case] for results in gradients)
    assert (alone["world_size"], together["world_size"]) == (1, 2)
    oracle = alone["8"]
    assert oracle.norm() > 1e-3
    for budget in BUDGETS:
        assert alone[f"{budget} pairs"] == 7
        assert together[f"{budget} pairs"] < 7  # the first process had only a part
        assert relative(alone[budget], oracle) < tolerance
        assert relative(together[budget], oracle) < tolerance


def test_a_process_without_a_pair_adds_nothing_and_blocks_nobody(gradients):
    alone, together = (results["one pair"] for results in gradients)
    assert together["world_size"] == 2
    assert relative(together["8"], alone["8"]) < 1e-5
