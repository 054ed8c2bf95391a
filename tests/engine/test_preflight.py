"""What a user would lose: hours into a run that does not fit, or a time left that is wishful."""

import dataclasses
import json

import pytest
import torch
from click.testing import CliRunner
from full_device import OutOfMemory

import simpo_workbench as wb
from simpo_workbench.cli.main import main
from simpo_workbench.engine import preflight as module
from simpo_workbench.runs.preflight_result import PreflightResult


@pytest.fixture(scope="module")
def measured(tiny_model, tiny_pairs, tmp_path_factory):
    config = wb.RunConfig.from_dict(
        {
            "model": {"name": tiny_model, "load_in": "fp32"},
            "data": {"train": tiny_pairs[0], "eval": tiny_pairs[1], "max_tokens": 60},
            "training": {"pairs_per_step": 4, "max_steps": 40, "eval_every": 10},
            "generation": {"prompts": ["Say something"], "max_new_tokens": 32, "every": 20, "held_out_prompts": 0},
            "run": {"root": str(tmp_path_factory.mktemp("runs"))},
        }
    )
    return config, wb.preflight(config)


def test_it_measures_and_leaves_nothing_behind(measured):
    config, found = measured
    assert isinstance(found, PreflightResult)
    assert found.steps == 40
    assert 0 < found.seconds_per_step <= found.seconds_per_longest_step
    assert found.peak_memory_bytes >= found.base_memory_bytes > 0
    assert wb.list_runs(config.run.root).empty


def test_it_says_what_became_of_the_rows_and_that_few_held_out_pairs_measure_nothing(tiny_model, tmp_path):
    rows = [{"prompt": f"Question {n // 2}", "chosen": f"right {n}", "rejected": f"wrong {n}"} for n in range(12)]
    rows += [{"prompt": "Empty", "chosen": "", "rejected": "wrong"}]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    config = wb.RunConfig.from_dict(
        {
            "model": {"name": tiny_model, "load_in": "fp32"},
            "data": {"train": str(path), "eval_fraction": 0.3, "max_tokens": 60},
            "training": {"pairs_per_step": 2, "max_steps": 2},
            "generation": {"held_out_prompts": 0},
            "run": {"root": str(tmp_path / "runs")},
        }
    )
    found = wb.preflight(config)
    text = str(found)
    assert "13 rows read, 12 kept, 1 refused: empty 1 (first: line 13" in text
    assert "4 held-out pairs can measure next to nothing: raise data.eval_fraction" in text
    assert "(n=4 on 2 prompts, 95 %" in text
    assert PreflightResult.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_the_time_left_counts_steps_evaluations_and_answers(measured):
    """Five evaluations (0, 10, 20, 30, 40), three of them with answers (0, 20, 40), checkpoints at 10, 20, 30 and
    40.
    """
    config, found = measured
    assert (found.evaluations, found.samplings, found.saves) == (5, 3, 4)
    parts = (
        40 * found.seconds_per_step
        + 5 * found.seconds_per_evaluation
        + 3 * found.seconds_per_sampling
        + 4 * found.seconds_per_save
    )
    assert found.seconds_left == pytest.approx(parts)
    assert min(found.seconds_per_evaluation, found.seconds_per_sampling, found.seconds_per_save) > 0
    everything = config.with_changes({"training.eval_every": 0, "generation.every": 0, "training.save_every": 0})
    assert module._occasions(everything, 40) == (2, 2, 1)


def test_the_base_leads_are_those_of_the_scores(measured):
    config, found = measured
    with wb.load_model(config.model, data=config.data) as model:
        scores = wb.score(model, wb.load_pairs(config.data.eval), data=config.data)
    leads = scores["chosen_avg_logp"] - scores["rejected_avg_logp"]
    assert found.base_leads == pytest.approx(leads.tolist(), abs=1e-5)
    assert f"{(leads > 0).mean():.2f} (n={len(leads)}" in found.base_standing


@pytest.mark.parametrize(
    ("changes", "fit", "said"),
    [
        (
            {"base_memory_bytes": 2 * 10**9, "peak_memory_bytes": 3 * 10**9, "free_memory_bytes": 10 * 10**9},
            "fits",
            "It fits: training takes 1 GB beside the model, and 10 GB were free.",
        ),
        (
            {
                "base_memory_bytes": 2 * 10**9,
                "peak_memory_bytes": 11 * 10**9,
                "free_memory_bytes": 10 * 10**9,
                "checkpointed_layers": 0,
            },
            "tight",
            "set training.gradient_checkpointing to all",
        ),
        (
            {
                "base_memory_bytes": 2 * 10**9,
                "peak_memory_bytes": 13 * 10**9,
                "free_memory_bytes": 10 * 10**9,
                "checkpointed_layers": 4,
            },
            "does not fit",
            "lower training.max_tokens_per_microbatch",
        ),
        ({"shortages": ("Memory ran out in step 1.",)}, "tight", "Memory ran out in step 1. To make room"),
    ],
)
def test_fits_tight_or_does_not_fit(measured, changes, fit, said):
    found = dataclasses.replace(measured[1], **changes)
    assert found.fit == fit
    assert said in found.verdict


def test_counts_are_those_of_the_encoding_reports(measured):
    config, found = measured
    pairs = [wb.load_pairs(path) for path in (config.data.train, config.data.eval)]
    assert found.train_pairs + found.held_out_pairs + sum(found.dropped.values()) == sum(map(len, pairs))
    assert found.truncated == 0


def test_the_longest_pairs_are_the_ones_that_go_through(measured, monkeypatch):
    config, _ = measured
    seen = []
    honest = module.optimizer_step
    monkeypatch.setattr(
        module,
        "optimizer_step",
        lambda setup, number, pairs: (
            seen.append((setup.train.lengths.sum(axis=1), pairs)) or honest(setup, number, pairs)
        ),
    )
    wb.preflight(config)
    lengths, pairs = seen[0]
    assert [pair.tokens(True) for pair in pairs] == sorted(lengths.tolist(), reverse=True)[:4]
    assert len(seen) == 3


def test_too_little_memory_is_said_in_a_sentence(measured, monkeypatch):
    config, _ = measured
    honest = module.prepare

    def cramped(config):
        setup = honest(config)
        setup.scorer = OutOfMemory(setup.scorer, 1)
        return setup

    monkeypatch.setattr(module, "prepare", cramped)
    with pytest.raises(wb.WorkbenchError, match=r"even with as little at once as can be .* lower data\.max_tokens"):
        wb.preflight(config)


def test_a_shortage_that_could_be_mended_is_reported(measured, monkeypatch):
    config, _ = measured
    honest = module.prepare

    def cramped(config):
        setup = honest(config)
        setup.memory.max_tokens_per_microbatch = 1000
        setup.scorer = OutOfMemory(setup.scorer, 120)
        return setup

    monkeypatch.setattr(module, "prepare", cramped)
    found = wb.preflight(config)
    assert "Memory ran out in step 1" in found.shortages[0]
    assert found.max_tokens_per_microbatch < 1000
    assert found.shortages[0] in str(found)


def test_words_and_json(measured):
    _, found = measured
    text = str(found)
    assert "whole run" in text
    assert "40 steps" in text
    assert PreflightResult.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_on_the_command_line(measured, tmp_path):
    config, _ = measured
    config.to_yaml(tmp_path / "config.yaml")
    result = CliRunner().invoke(main, ["preflight", str(tmp_path / "config.yaml"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["train_pairs"] > 0


def test_the_time_of_answers_is_measured_with_the_tools_that_real_answers_have(measured, tmp_path, monkeypatch):
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    row = {"tools": tools, "chosen": "It rains.", "rejected": "I do not know."}
    path = tmp_path / "tools.jsonl"
    path.write_text("".join(json.dumps({**row, "prompt": f"Weather in {place}?"}) + "\n" for place in "ABCD"))
    seen, answer = [], module.generation.answer

    def watched(*arguments, tools=None, **options):
        seen.append(tools)
        return answer(*arguments, tools=tools, **options)

    monkeypatch.setattr(module.generation, "answer", watched)
    changes = {"data.eval": str(path), "generation.held_out_prompts": 2, "generation.prompts": ["Hi"]}
    wb.preflight(measured[0].with_changes({**changes, "data.max_tokens": 200}))
    assert [len(given) for given in seen[0]] == [0, 1, 1]


def test_fp16_on_a_cpu_is_said_where_the_precision_is_settled(measured):
    if torch.cuda.is_available():
        pytest.skip("fp16 is scaled on a GPU")
    result = wb.preflight(measured[0].with_changes({"model.load_in": "fp16"}))
    assert any("fp16 on a CPU, without loss scaling" in sentence for sentence in result.warnings)
    assert not any("fp16" in sentence for sentence in measured[1].warnings)
    with wb.load_model(measured[0].model.model_copy(update={"load_in": "nf4", "compute_dtype": "fp16"})) as model:
        assert any("fp16 on a CPU" in note for note in model.notes)
