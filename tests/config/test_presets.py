"""Presets: a number that differs from its source is a reproduction that fails for no visible reason."""

import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.config.presets import list_presets, preset
from simpo_workbench.config.run_config import RunConfig

#: The paper's settings (arXiv 2405.14734, appendix, and the repository's training_configs): β, γ/β, learning rate.
PAPER = {
    "paper-mistral-base": (2.0, 0.8, 3e-7),
    "paper-mistral-instruct": (2.5, 0.1, 5e-7),
    "paper-llama3-base": (2.0, 0.5, 6e-7),
    "paper-llama3-instruct": (2.5, 0.55, 1e-6),
    "paper-llama3-instruct-v0.2": (10.0, 0.3, 1e-6),
    "paper-gemma2-9b-it": (10.0, 0.5, 8e-7),
}
NAMES = ["demo", "tutorial", "seed-article", "qlora-8b-24gb", *PAPER]


def test_the_list_holds_every_preset_with_its_own_numbers():
    table = list_presets()
    assert list(table.index) == NAMES
    assert list(table.columns) == ["model", "load_in", "beta", "gamma_beta_ratio", "learning_rate", "note"]
    assert table.loc["paper-gemma2-9b-it", "beta"] == 10
    assert all(note.endswith(".") for note in table["note"])


@pytest.mark.parametrize("name", PAPER)
def test_a_paper_preset_holds_the_papers_numbers(name):
    config = preset(name)
    assert (config.loss.beta, config.loss.gamma_beta_ratio, config.training.learning_rate) == PAPER[name]
    assert (config.training.pairs_per_step, config.training.epochs) == (128, 1)
    assert (config.training.scheduler, config.training.warmup_ratio) == ("cosine", 0.1)
    assert (config.loss.kind, config.loss.sft_weight, config.loss.label_smoothing) == ("simpo", 0, 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_loads_and_survives_the_yaml(name):
    config = preset(name)
    assert isinstance(config, RunConfig)
    assert RunConfig.from_yaml_text(config.to_yaml()) == config


def test_the_demo_preset_has_the_defaults_but_for_its_steps_and_answers():
    schedule = ["training.max_steps", "training.eval_every", "generation.every", "generation.held_out_prompts"]
    dumped = preset("demo").model_dump()
    changes = {name: dumped[name.split(".")[0]][name.split(".")[1]] for name in schedule}
    assert preset("demo") == RunConfig().with_changes(changes)


def test_the_seed_articles_preset_has_no_target_margin():
    config = preset("seed-article")
    assert (config.loss.beta, config.loss.gamma, config.lora.r, config.lora.alpha) == (2.0, 0.0, 8, 32)
    assert 1e-5 <= config.training.learning_rate <= 5e-5


def test_the_24_gb_preset_is_qlora():
    config = preset("qlora-8b-24gb")
    assert (config.model.load_in, config.training.optimizer, config.training.gradient_checkpointing) == (
        "nf4",
        "paged_adamw_8bit",
        "all",
    )


@pytest.mark.parametrize(
    ("name", "said"), [("qlora-8b-24", "did you mean 'qlora-8b-24gb'"), ("zzz", "known: demo, tutorial, ")]
)
def test_an_unknown_preset_is_told_the_nearest_name(name, said):
    with pytest.raises(WorkbenchError, match=said):
        preset(name)
