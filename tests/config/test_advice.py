"""Warnings before the start: each is an afternoon that somebody would lose to a setting known to ruin SimPO."""

import pytest

from simpo_workbench.config.presets import list_presets, preset
from simpo_workbench.config.run_config import RunConfig

BIG = {"model.name": "Qwen/Qwen3-8B"}


def warnings(**changes):
    return RunConfig().with_changes({path.replace("__", "."): value for path, value in changes.items()}).warnings()


def test_the_demo_needs_no_warning():
    assert RunConfig().warnings() == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training.learning_rate": 2e-4}, "training.learning_rate 0.0002 is high enough to ruin the model"),
        ({"training.learning_rate": 1e-3}, "repetition while accuracy looks good"),
        (
            {**BIG, "training.learning_rate": 1e-4},
            "above what reports on 7B models with LoRA call stable (1e-6 to 5e-05)",
        ),
        ({"training.learning_rate": 5e-7}, "a rate for full fine-tuning; an adapter hardly moves"),
        ({"loss.beta": 0.1}, "loss.beta 0.1 is on DPO's scale"),
        ({"loss.beta": 12}, "loss.beta 12 is above the highest value the paper tried (10)"),
        ({"loss.gamma_beta_ratio": 2}, "asks for a lead of 2 nats per token"),
        ({"loss.gamma": 4}, "asks for a lead of 2 nats per token"),
        ({"loss.sft_weight": 0.05}, "no longer pure SimPO"),
        ({"training.epochs": 4}, "SimPO is usually run for 1 epoch"),
        ({"training.pairs_per_step": 3}, "mostly noise"),
        ({"training.warmup_ratio": 0}, "the first steps run at the full rate"),
    ],
)
def test_a_setting_known_to_ruin_simpo_is_named_in_words(changes, said):
    found = RunConfig().with_changes(changes).warnings()
    assert len(found) == 1
    assert said in found[0]
    assert found[0].endswith(".")


@pytest.mark.parametrize(
    "changes",
    [
        {"training.learning_rate": 1e-4},
        {**BIG, "training.learning_rate": 5e-5},
        {"training.learning_rate": 1e-6},
        {"loss.beta": 1.0},
        {"loss.beta": 10.0, "loss.gamma_beta_ratio": 0.3},
        {"loss.gamma_beta_ratio": 1.6},
        {"loss.gamma_beta_ratio": 0},
        {"training.epochs": 3},
        {"training.pairs_per_step": 4},
        {"training.warmup_ratio": 0, "training.scheduler": "constant"},
        {"loss.kind": "dpo", "loss.beta": 0.1},
    ],
)
def test_a_setting_within_what_was_tried_is_left_alone(changes):
    assert RunConfig().with_changes(changes).warnings() == []


def test_several_mistakes_are_all_named():
    found = warnings(training__learning_rate=1e-3, loss__beta=0.1, training__epochs=10, training__pairs_per_step=1)
    assert [sentence.split(" ")[0].rstrip(":") for sentence in found] == [
        "training.learning_rate",
        "loss.beta",
        "training.epochs",
        "training.pairs_per_step",
    ]


@pytest.mark.parametrize("name", list_presets().index)
def test_a_preset_warns_of_nothing_but_the_papers_rates_for_full_fine_tuning(name):
    found = preset(name).warnings()
    full_fine_tuning = preset(name).training.learning_rate < 1e-6
    assert len(found) == full_fine_tuning
    assert all("full fine-tuning" in sentence for sentence in found)
