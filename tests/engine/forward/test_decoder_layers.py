"""What a user would lose: adapters on routers and towers, or none where they belong."""

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig

from simpo_workbench.engine.forward.decoder_layers import linear_layers
from simpo_workbench.engine.forward.small_model import small_model


def last_parts(model):
    return {name.rpartition(".")[2] for name in linear_layers(model)}


def test_all_linear_layers_but_the_head():
    model = tiny.model("llama")
    names = linear_layers(model)
    assert len(names) == len(set(names)) == 3 * 7
    assert all(type(model.get_submodule(name)) is torch.nn.Linear for name in names)
    assert "lm_head" not in names


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "llama4_text", "phimoe"])
def test_what_chooses_experts_gets_no_adapter(kind):
    model = small_model(AutoConfig.for_model(kind))
    names = linear_layers(model)
    assert names
    assert not [name for name in names if "router" in name or name.endswith("gate")]


@pytest.mark.parametrize("kind", ["jamba", "falcon_h1"])
def test_what_a_state_space_kernel_reads_beside_the_layer_gets_no_adapter(kind):
    model = small_model(AutoConfig.for_model(kind))
    assert {"q_proj", "in_proj"} <= last_parts(model)
    assert not {"out_proj", "dt_proj"} & last_parts(model)


def test_a_model_whose_head_is_called_decoder_gets_adapters_all_the_same():
    model = small_model(AutoConfig.for_model("modernbert-decoder"))
    assert {"q_proj", "k_proj", "v_proj", "Wi", "Wo"} <= last_parts(model)
    assert model.get_output_embeddings() not in {model.get_submodule(name) for name in linear_layers(model)}


def test_image_towers_get_no_adapter():
    from transformers import AutoModelForImageTextToText, SiglipVisionConfig

    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14
    )
    text = tiny.model("gemma3").config
    config = AutoConfig.for_model(
        "gemma3", text_config=text.to_dict(), vision_config=vision.to_dict(), mm_tokens_per_image=4
    )
    names = linear_layers(AutoModelForImageTextToText.from_config(config))
    assert len(names) == 3 * 7
    assert not [name for name in names if "vision" in name]


@pytest.mark.parametrize("kind", ["deepseek_v3", "glm4_moe", "ernie4_5_moe"])
def test_peft_adapts_what_it_is_given_and_no_expert_in_its_place(kind):
    """peft 0.21 reads names such as gate_proj, in full too, as those of the stacked experts in these mixtures."""
    model = small_model(AutoConfig.for_model(kind))
    names = linear_layers(model)
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=names, task_type="CAUSAL_LM"))
    adapted = {name.split(".lora_A")[0] for name, _ in wrapped.named_parameters() if ".lora_A" in name}
    assert adapted == {f"base_model.model.{name}" for name in names}
