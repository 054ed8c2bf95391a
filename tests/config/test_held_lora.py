import json

import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.config.held_lora import adapter_note, contradictions, held_lora, lora_label, lora_of_adapter
from simpo_workbench.config.run_config import RunConfig

OWN = {"r": 8, "lora_alpha": 24, "lora_dropout": 0.05, "target_modules": ["v_proj", "q_proj"], "use_rslora": True}


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "sft"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(OWN))
    return folder


def config(adapter, **lora):
    return RunConfig.from_dict({"model": {"adapter": str(adapter)}, "lora": lora})


def test_the_adapters_own_settings_hold_and_without_one_those_of_the_configuration(adapter):
    assert held_lora(RunConfig()) == RunConfig().lora.model_dump()
    assert held_lora(config(adapter, r=64)) == {
        "r": 8,
        "alpha": 24,
        "dropout": 0.05,
        "target_modules": ["q_proj", "v_proj"],
        "use_rslora": True,
        "use_dora": False,
    }


def test_what_pefts_file_does_not_name_is_as_peft_has_it():
    from peft import LoraConfig

    named = lora_of_adapter({})
    peft = LoraConfig().to_dict()
    assert (named["r"], named["alpha"], named["dropout"]) == (peft["r"], peft["lora_alpha"], peft["lora_dropout"])
    assert (named["use_rslora"], named["use_dora"]) == (peft["use_rslora"], peft["use_dora"])


def test_a_named_setting_that_contradicts_the_adapter_is_said_with_both_values(adapter):
    sentences = [line for line in config(adapter, r=16, alpha=24).warnings() if "lora." in line]
    assert sentences == [
        "lora.r 16 is not used: the adapter has r 8 (model.adapter), and goes on with its own settings."
    ]
    assert not any("lora." in line for line in config(adapter).warnings())
    assert not any("lora." in line for line in config(adapter, target_modules=["q_proj", "v_proj"]).warnings())
    assert not any("lora." in line for line in RunConfig.from_dict({"lora": {"r": 64}}).warnings())


@pytest.mark.parametrize(
    "change", [{"lora.r": 16}, {"lora.alpha": "32"}, {"lora.use_rslora": False}, {"lora.target_modules": "all-linear"}]
)
def test_a_change_names_a_setting_also_where_it_is_the_default(adapter, change):
    (path,) = change
    changed = RunConfig.from_dict({"model": {"adapter": str(adapter)}}).with_changes(change)
    assert [line.split(" ")[0] for line in changed.warnings() if line.startswith("lora.")] == [path]
    later = changed.with_changes({"training.seed": 3})
    assert [line.split(" ")[0] for line in later.warnings() if line.startswith("lora.")] == [path]


def test_where_all_settings_are_named_only_what_is_no_default_was_chosen(adapter):
    whole = RunConfig.from_yaml_text(config(adapter, dropout=0.2).to_yaml())
    assert [line.split(" ")[0] for line in whole.warnings() if line.startswith("lora.")] == ["lora.dropout"]
    assert not contradictions(RunConfig.from_yaml_text(config(adapter).to_yaml()), held_lora(config(adapter)))


@pytest.mark.parametrize("content", [None, "{", "[1]", "{}" + " " * 1_000_001, "[" * 100_000])
def test_an_adapter_that_cannot_be_read_is_not_known_and_nothing_is_claimed(adapter, content):
    path = adapter / "adapter_config.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    wanted = config(adapter, r=64)
    assert held_lora(wanted) is None
    assert not any("lora." in line for line in wanted.warnings())
    assert "cannot be read" in adapter_note(wanted, None)
    assert lora_label(wanted, None) == "of sft"


def test_ranks_of_single_layers_are_shown(adapter):
    (adapter / "adapter_config.json").write_text(json.dumps({**OWN, "rank_pattern": {"q_proj": 2, "v_proj": 32}}))
    wanted = config(adapter)
    assert lora_label(wanted, held_lora(wanted)) == "r2 to r32 of sft"
    assert "rank_pattern q_proj: 2 + v_proj: 32" in adapter_note(wanted, held_lora(wanted))


def test_hostile_values_stay_short_and_on_one_line(adapter):
    (adapter / "adapter_config.json").write_text(json.dumps({"r": ["\n" * 9] * 9000, "target_modules": "x\n" * 9000}))
    wanted = config(adapter)
    note = adapter_note(wanted, held_lora(wanted))
    assert len(note) < 800
    assert "\n" not in note
    assert len(lora_label(wanted, held_lora(wanted))) < 200


def test_a_wrong_value_is_refused_whatever_the_adapter_has(adapter):
    with pytest.raises(WorkbenchError, match="lora.r"):
        config(adapter, r=0)
