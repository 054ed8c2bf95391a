"""How a setting describes itself: form, YAML comments and command line show nothing else."""

import pytest

from simpo_workbench.config.run_config import settings
from simpo_workbench.config.schema import shown, unknown_key

INFOS = {info.path: info for info in settings()}


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        (
            "loss.beta",
            "β: how strongly a difference in average log-probability counts; the reward is β times it. [> 0, ≤ 1000]",
        ),
        ("loss.gamma_beta_ratio", "γ/β: how far ahead the chosen answer should be. [nats per token; ≥ 0, ≤ 100]"),
        (
            "data.overlong",
            (
                "Pairs over max_tokens: drop them, or cut the prompt from the left (system turn and answers stay"
                " whole). [drop | keep_end]"
            ),
        ),
        ("training.seed", "Seed of adapter initialization, pair order, dropout and sampling. [≥ 0, < 4294967296]"),
        ("run.root", "Folder that holds all runs."),
    ],
)
def test_help_unit_choices_and_bounds_stand_in_one_line(path, sentence):
    assert INFOS[path].sentence == sentence


@pytest.mark.parametrize("path", INFOS)
def test_every_setting_says_what_it_is_in_one_sentence(path):
    info = INFOS[path]
    assert info.help.endswith(".")
    assert "\n" not in info.sentence
    assert "default" not in info.help.lower(), "a default that is copied into a text drifts from the real one"


def test_a_form_learns_what_kind_of_field_to_show():
    assert INFOS["model.load_in"].choices == ("nf4", "fp4", "int8", "bf16", "fp16", "fp32")
    assert INFOS["training.gradient_checkpointing"].choices == ("auto", "all", "none")
    assert [path for path, info in INFOS.items() if info.structured] == [
        "data.columns",
        "data.template_options",
        "lora.target_modules",
        "generation.prompts",
    ]
    assert INFOS["training.max_steps"].optional
    assert not INFOS["training.epochs"].optional
    assert INFOS["lora.use_dora"].rare
    assert not INFOS["loss.beta"].rare
    assert INFOS["data.columns"].default == {}


def test_a_hint_is_given_only_where_one_is_near():
    assert unknown_key("bta", "loss", ["kind", "beta"]).endswith("did you mean 'beta'?")
    assert unknown_key("qqq", "loss", ["kind", "beta"]).endswith("valid keys: kind, beta.")
    assert unknown_key("lora_rank", "lora", ["lora_rank"]).endswith("did you mean 'lora_rank'?"), (
        "a key of ours is never called another tool's"
    )


def test_a_huge_value_is_shown_short():
    assert shown("x" * 1000) == "'" + "x" * 76 + "…"
    assert shown(16**5000) == "a number with thousands of digits"
    assert shown([1]) == "[1]"
