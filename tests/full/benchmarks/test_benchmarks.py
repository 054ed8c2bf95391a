"""What a user would lose: a comparison of two different works, or one whose figures mean something else than they say.

No time is asserted.
"""

import functools
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("measure")


def test_all_contenders_do_the_same_work(measure, tiny_model, tiny_pairs, tmp_path, monkeypatch, capsys):
    """The workbench and TRL from the same tokens and the same adapter: equal losses in every step, though each makes
    its own forward pass and update.
    """
    import vs_trl

    result = tmp_path / "result.json"
    small = {"work": "short", "pairs": "4", "pairs-per-step": "2", "rounds": "1", "threads": "1", "lora-r": "4"}
    options = {**small, "model": tiny_model, "data": tiny_pairs[0], "json": str(result)}
    monkeypatch.setattr(sys, "argv", ["vs_trl.py", *(f"--{name}={value}" for name, value in options.items())])
    # Measured once instead of before every contender: each measurement is a process that loads torch.
    monkeypatch.setattr(measure, "measured_matmul", functools.cache(measure.measured_matmul))
    vs_trl.main()
    printed = capsys.readouterr().out
    report = json.loads(result.read_text())
    peers = ["TRL, all pairs at once", "TRL, one pair at a time"]
    assert list(report["contenders"]) == ["workbench", *peers]
    assert list(report["ratios"]) == peers
    ours = report["contenders"]["workbench"]["losses"]
    assert len(ours) == 3  # one step of warm-up, two that are timed
    assert len(set(ours)) == 3
    for name in peers:
        assert report["contenders"][name]["losses"] == pytest.approx(ours, abs=1e-5)
        assert report["ratios"][name]["largest_loss_difference"] < 1e-5
        assert report["ratios"][name].keys() >= {
            "pairs_per_second",
            "pairs_per_second_each_round",
            "above_loaded_bytes",
        }
    assert report["same_work"]
    assert len(report["lengths"]) == 4
    for contender in report["contenders"].values():
        assert contender.keys() >= {
            "pairs_per_second",
            "tokens_per_second",
            "seconds_per_step",
            "loaded_bytes",
            "above_loaded_bytes",
            "times_the_limit",
            "memory_method",
            "others_cores",
        }
        assert contender["peak_bytes"] == contender["loaded_bytes"] + contender["above_loaded_bytes"]
    assert {run["initial_adapter"] for run in report["runs"]} <= {"first", "equal by seed", "replaced"}
    assert len(report["matmul_flops_per_second"]["each"]) == 4  # before every run and after the last
    assert report["left_out"]
    assert report["machine"]["load_average"]
    assert all(name in printed for name in ("T/T*", "Not measured", *peers))


def test_least_arithmetic_of_a_step(measure):
    """One pair of 4 prompt, 2 chosen and 3 rejected tokens on a model that fits on a napkin."""
    shape = measure.ModelShape(linear_parameters=100, vocabulary=10, hidden=8, layers=2, attention_width=8)
    looks = (
        4 * 4 / 2 + 4 * (2 + 3) + 2 * 2 / 2 + 3 * 3 / 2
    )  # 34.5: each token looks at those before it, the rejected answer not at the chosen one
    expected = 4 * 100 * 9 + 4 * 10 * 8 * 5 + 14 * 2 * 8 * looks
    assert measure.step_flops([(4, 2, 3)], shape) == pytest.approx(expected)
    assert measure.step_flops([(4, 2, 3)] * 3, shape) == pytest.approx(3 * expected)
    assert measure.step_flops([(4, 2, 3)], shape, checkpointed_share=1.0) == pytest.approx(expected + 2 * 100 * 9)


def test_the_shape_leaves_out_head_and_adapters(measure):
    """Tiny Llama: hidden 32, intermediate 64, 3 layers, 4 heads of 8 with 2 for keys and values."""
    import tiny
    from peft import LoraConfig, get_peft_model

    model = tiny.model()
    per_layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64
    expected = measure.ModelShape(
        linear_parameters=3 * per_layer, vocabulary=400, hidden=32, layers=3, attention_width=32
    )
    assert measure.ModelShape.of(model) == expected
    assert (
        measure.ModelShape.of(
            get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        )
        == expected
    )


@pytest.mark.parametrize("sampled", [False, True])
def test_the_peak_counts_memory_that_was_given_back(measure, monkeypatch, sampled):
    if sampled:
        monkeypatch.setattr(measure.sys, "platform", "elsewhere")
        monkeypatch.setattr(measure.Path, "write_text", _refuse)
    memory = measure.PeakMemory("cpu")
    memory.start()
    taken = bytearray(b"x") * 200_000_000
    time.sleep(0.1)  # long enough to be sampled
    del taken
    assert memory.peak_bytes() - memory.loaded_bytes > 180_000_000
    assert ("10 ms" in memory.method) or not sampled


def test_every_second_round_runs_backwards(measure):
    assert list(measure.alternating(["a", "b", "c"], 2)) == [(1, "a"), (1, "b"), (1, "c"), (2, "c"), (2, "b"), (2, "a")]


@pytest.mark.parametrize("work", ["long", "prompt", "short"])
def test_a_work_has_the_lengths_it_promises(measure, work, tmp_path):
    """From the bundled pairs, which are short: they are joined and cut, and the same every time."""
    import tiny
    import works

    from simpo_workbench.engine.encode.tokens import ChatEncoder
    from simpo_workbench.pairs.pairs import load_pairs

    tokenizer = tiny.tokenizer()  # knows few words, so its tokens are letters for the most part
    texts = []
    for name in ("one.jsonl", "two.jsonl"):
        works.write_work(tmp_path / name, work, "demo", tokenizer, 4, 1024)
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1]
    encoded, _ = ChatEncoder(tokenizer).encode_pairs(list(load_pairs(str(tmp_path / "one.jsonl"))))
    assert len(encoded) == 4
    for pair in encoded:
        prompt, chosen, rejected = (len(ids) for ids in (pair.prompt_ids, pair.chosen_ids, pair.rejected_ids))
        if work == "short":
            assert 70 <= prompt + chosen + rejected <= 130
        elif work == "prompt":
            assert 600 <= prompt <= 660
            assert all(120 <= answer <= 160 for answer in (chosen, rejected))
        else:
            assert all(350 <= answer <= 430 for answer in (chosen, rejected))


def _refuse(*_, **__):
    raise OSError("not permitted")


def test_the_oracle_checks_of_the_gpu_benchmark_work_where_a_cpu_can_run_them(measure):
    import gpu_oracle

    found = gpu_oracle.check_paths("cpu")
    assert [name for name, words in found.items() if words.startswith("WRONG")] == []
    agreed = [name for name, words in found.items() if words.startswith("agrees")]
    here = {
        "dense bf16",
        "pairwise fp32, window 37",
        "frozen head bf16",
        "LoRA over bf16 weights",
        "whole model, packed against padded",
        "checkpointed layers",
    }
    assert here <= set(agreed)
    assert found["varlen bf16, window None"] == "skipped: no CUDA device"


def test_the_gpu_benchmark_says_that_it_measured_nothing_without_a_gpu():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = subprocess.run([sys.executable, BENCHMARKS / "gpu.py"], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "nothing was measured" in done.stderr


def test_a_gradient_that_is_not_a_number_agrees_with_nothing(measure):
    import gpu_oracle
    import torch

    fine, nan = torch.ones(3), torch.full((3,), float("nan"))
    assert gpu_oracle._verdict([(fine, fine)], torch.float32).startswith("agrees")
    assert gpu_oracle._verdict([(fine, fine), (nan, fine)], torch.float32).startswith("WRONG")


def test_where_every_peer_failed_nothing_is_called_the_same(measure):
    import vs_trl

    assert not vs_trl.same_work([], {"dtype": "fp32"})
    assert not vs_trl.same_work([float("nan")], {"dtype": "fp32"})
    assert vs_trl.same_work([1e-6, 1e-4], {"dtype": "fp32"})


def test_liger_is_wired_to_do_the_same_work(measure, tiny_model, tiny_pairs, tmp_path):
    """The third contender of the GPU benchmark, on the CPU: the same losses as the workbench's own."""
    pytest.importorskip("liger_kernel.chunked_loss")
    import argparse

    import vs_trl
    from contender import Contender

    arguments = argparse.Namespace(model=tiny_model, quant="fp32", lora_r=4, checkpointing="none")
    rows = Path(tiny_pairs[0]).read_text().splitlines()[:6]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    config = vs_trl.job_config(arguments, tmp_path / "pairs.jsonl", 2, 512, 3)
    job = {
        "threads": 1,
        "dtype": "fp32",
        "base": tiny_model,
        "config": config.model_dump(),
        "pairs_per_step": 2,
        "steps": 3,
    }
    runs = [
        vs_trl._run(1, contender, job, tmp_path)
        for contender in (Contender("workbench"), Contender("Liger", liger=True, checkpointing=True))
    ]
    assert len(runs[0]["losses"]) == 4
    assert runs[1]["losses"] == pytest.approx(runs[0]["losses"], abs=1e-4)
