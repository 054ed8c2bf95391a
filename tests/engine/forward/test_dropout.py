"""What a user would lose: a training that measures noise. Models such as GPT-2 and OPT drop a tenth of all values."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import simpo_workbench as wb
from simpo_workbench.engine.forward.dropout import dropout_note, turn_off_dropout
from simpo_workbench.engine.model import models

#: Families with dropout in embeddings, attention and layers, as modules and as plain numbers.
DROPPING = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "attention_dropout": 0.1, "layerdrop": 0.1},
    "seed_oss": {"num_key_value_heads": 2, "head_dim": 8, "attention_dropout": 0.1, "residual_dropout": 0.1},
}
_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}


def family(name):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **_SMALL, **DROPPING[name]))
    return model, torch.arange(24).reshape(2, 12)


@pytest.mark.parametrize("name", DROPPING)
def test_a_training_pass_is_the_scoring_pass(name):
    """In training mode, in which transformers checkpoints layers, the numbers are those of evaluation."""
    model, ids = family(name)
    assert not torch.equal(model.train()(ids).logits, model(ids).logits), "it did drop values before"
    expected = model.eval()(ids).logits
    rates = turn_off_dropout(model)
    assert torch.equal(model.train()(ids).logits, expected)
    assert all(rate == pytest.approx(0.1) for rate in rates.values())
    assert len(rates) >= 2
    assert turn_off_dropout(model) == {}
    assert dropout_note({"resid_pdrop": 0.1}) == (
        "The base model's own dropout (resid_pdrop 0.1) is off; lora.dropout is the adapter's."
    )


def test_the_adapter_keeps_its_own(tiny_model):
    config = wb.RunConfig().with_changes(
        {"model.name": str(tiny_model), "model.load_in": "fp32", "lora.dropout": 0.5, "lora.r": 4}
    )
    with models.load_base(config.model) as loaded:
        models.add_lora(loaded, config.lora, seed=0)
        with torch.no_grad():  # a new adapter adds nothing yet
            for name, parameter in loaded.model.named_parameters():
                if "lora_B" in name:
                    parameter.fill_(0.1)
        ids = torch.arange(10)[None]
        loaded.model.train()
        assert not torch.equal(loaded.model(ids).logits, loaded.model(ids).logits)
        loaded.model.eval()
        assert torch.equal(loaded.model(ids).logits, loaded.model(ids).logits)
