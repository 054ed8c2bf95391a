"""What a user would lose: a run that goes on from an adapter of another model, and never says so."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import simpo_workbench as wb
from simpo_workbench.config.run_config import LoraConfig as LoraSettings
from simpo_workbench.config.run_config import ModelConfig
from simpo_workbench.engine.encode.tokens import EncodedPair
from simpo_workbench.engine.forward.logprobs import PackedScorer
from simpo_workbench.engine.model import adapter_checks, models
from simpo_workbench.engine.scoring import response_logps

PAIR = EncodedPair("x", [5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15])


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    """A tiny model whose head is not the embedding."""
    return tiny.save(tmp_path_factory.mktemp("untied") / "model", "mistral", sliding_window=None)


def made(base, folder, more_tokens=0, save_embeddings=False, train_embeddings=False, tokenizer=False, **settings):
    """A LoRA adapter as PEFT saves it; its B matrices are not zero."""
    model, own = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), AutoTokenizer.from_pretrained(base)
    own.add_tokens([f"<new{number}>" for number in range(more_tokens)])
    if more_tokens:
        model.resize_token_embeddings(len(own))
    torch.manual_seed(0)
    wrapped = get_peft_model(
        model, LoraConfig(**{"r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **settings})
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name or "modules_to_save.default" in name or (train_embeddings and "embed_tokens" in name):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    wrapped.save_pretrained(str(folder), save_embedding_layers=save_embeddings)
    if tokenizer:
        own.save_pretrained(str(folder))
    return str(folder)


def edited(folder, **changes):
    path = Path(folder, "adapter_config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return str(folder)


def loaded_with(base, adapter, as_start=False, **config):
    config = {"name": base, "load_in": "fp32", **config}
    return (
        wb.load_model(ModelConfig(**config, adapter=adapter))
        if as_start
        else wb.load_model(ModelConfig(**config), adapter=adapter)
    )


def refusal(base, adapter, **config):
    for as_start in (True, False):
        with pytest.raises(wb.WorkbenchError) as caught:
            loaded_with(base, adapter, as_start, **config)
        assert "\n" not in str(caught.value)
        assert not str(caught.value).endswith(":")
    return str(caught.value)


# --- vocabulary


def test_an_adapter_with_a_resized_vocabulary_names_it_and_what_to_do(untied, tmp_path):
    said = refusal(untied, made(untied, tmp_path, more_tokens=3, save_embeddings=True))
    rows = load_file(Path(untied, "model.safetensors"))["lm_head.weight"].shape[0]
    assert f"embeddings of its own for a vocabulary of {rows + 3} tokens; the model has {rows}" in said
    assert "merge_and_unload" in said
    assert "model.name" in said


def test_the_same_with_modules_to_save(untied, tmp_path):
    said = refusal(untied, made(untied, tmp_path, more_tokens=3, modules_to_save=["lm_head", "embed_tokens"]))
    assert "for a vocabulary of" in said


def test_a_larger_vocabulary_whose_embeddings_were_not_saved(untied, tmp_path):
    """The adapter fits, but its tokens have no row in this model."""
    adapter = made(untied, tmp_path, more_tokens=2, tokenizer=True, save_embeddings=False)
    assert "its tokenizer has '<new0>' with the id" in refusal(untied, adapter)


def test_an_adapter_that_only_added_a_padding_token_is_accepted(untied, tmp_path):
    adapter = made(untied, tmp_path / "a")
    tokenizer = AutoTokenizer.from_pretrained(untied)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(adapter)
    loaded_with(untied, adapter).close()


def chosen_logp(loaded):
    return response_logps(PackedScorer(loaded.model), [PAIR], loaded).chosen.item()


def test_embeddings_beside_lora_that_are_the_bases_own_are_accepted(untied, tmp_path):
    """PEFT stores them whenever it believes that the vocabulary has changed."""
    plain, beside = made(untied, tmp_path / "plain"), made(untied, tmp_path / "beside", save_embeddings=True)
    assert any("embed_tokens" in key for key in load_file(Path(beside, "adapter_model.safetensors")))
    with loaded_with(untied, plain) as loaded:
        expected = chosen_logp(loaded)
    with wb.load_model(ModelConfig(name=untied, load_in="fp32")) as loaded:
        base = chosen_logp(loaded)
    for as_start in (False, True):
        with loaded_with(untied, beside, as_start) as loaded:
            assert chosen_logp(loaded) == pytest.approx(expected, abs=1e-5)
            if not as_start:
                with loaded.base():
                    assert chosen_logp(loaded) == pytest.approx(base, abs=1e-5)
    assert expected != pytest.approx(base, abs=1e-3)


def test_embeddings_beside_lora_that_were_trained_are_refused(untied, tmp_path):
    """Loading them would change the base model too, and the tuned adapter would be saved without them."""
    said = refusal(untied, made(untied, tmp_path, save_embeddings=True, train_embeddings=True))
    assert "differ from those of the model" in said
    assert "merge_and_unload" in said


def test_a_head_of_its_own_in_modules_to_save_is_used(untied, tmp_path):
    """Scored as transformers computes it, and without it for the base."""
    adapter = made(untied, tmp_path, modules_to_save=["lm_head"])
    with loaded_with(untied, adapter) as loaded, torch.no_grad():
        for model in (loaded.model, loaded.model.disable_adapter()):
            with model if model is not loaded.model else torch.no_grad():
                logits = loaded.model(input_ids=torch.tensor([[*PAIR.prompt_ids, *PAIR.chosen_ids]])).logits[0]
                logps = torch.log_softmax(logits, -1)[range(3, 6), PAIR.chosen_ids].sum().item()
                assert chosen_logp(loaded) == pytest.approx(logps, abs=1e-4)


# --- another base or revision


def test_an_adapter_of_another_model_is_refused_by_name(untied, tmp_path):
    """Llama 3.2 and its Instruct version have the same shapes."""
    adapter = edited(made(untied, tmp_path), base_model_name_or_path="meta/Llama-9-1B-Instruct")
    config = json.loads(Path(adapter, "adapter_config.json").read_text())
    with pytest.raises(
        wb.WorkbenchError, match=r"trained on 'meta/Llama-9-1B-Instruct', and model.name is .*Set model"
    ):
        adapter_checks.require_same_base(config, tmp_path, "meta/Llama-9-1B", None, Path(untied))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("Qwen/Qwen9-0.6B", "Qwen/Qwen9-0.6B"),
        ("unsloth/Qwen9-0.6B-unsloth-bnb-4bit", "Qwen/Qwen9-0.6B"),
        ("Qwen/Qwen9-0.6B", "/models/qwen9-0.6b/"),
    ],
)
def test_names_of_the_same_model(theirs, ours, untied):
    adapter = {"base_model_name_or_path": theirs}
    assert adapter_checks.require_same_base(adapter, Path("a"), ours, None, Path(untied)) is None


def test_a_base_that_cannot_be_compared_is_said(untied, tmp_path):
    adapter = edited(made(untied, tmp_path), base_model_name_or_path="/elsewhere/sft")
    with loaded_with(untied, adapter) as loaded:
        assert "names '/elsewhere/sft' as its base, which cannot be compared" in loaded.notes[0]
    adapter = edited(adapter, base_model_name_or_path=None)
    with loaded_with(untied, adapter, as_start=True) as loaded:
        assert "does not say for which model it was made" in loaded.notes[0]


def test_folders_are_compared_by_what_is_in_them(untied, tmp_path):
    copy, other = tmp_path / "copy", tmp_path / "other"
    shutil.copytree(untied, copy)
    shutil.copytree(untied, other)
    tensors = load_file(other / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] += 1
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    adapter = made(untied, tmp_path / "a")
    with loaded_with(str(copy), adapter) as loaded:
        assert loaded.notes == []
    assert "was made for another model: it was trained on" in refusal(str(other), adapter)


def test_another_revision_is_refused_and_a_new_adapter_names_its_own(untied, tmp_path):
    adapter = edited(made(untied, tmp_path), revision="v1")
    assert "another revision of its base: 'v1', and model.revision is 'v2'" in refusal(untied, adapter, revision="v2")
    loaded_with(untied, adapter, revision="v1").close()
    with models.load_base(ModelConfig(name=untied, load_in="fp32", revision="v3")) as loaded:
        models.add_lora(loaded, LoraSettings(r=4), seed=0)
        assert loaded.model.peft_config["default"].revision == "v3"


def test_a_run_says_that_the_base_of_its_adapter_is_not_known(tiny_config, tiny_model, tmp_path):
    adapter = edited(made(tiny_model, tmp_path / "a"), base_model_name_or_path="/elsewhere/sft")
    run = wb.train(tiny_config.with_changes({"model.adapter": adapter, "training.max_steps": 1}))
    assert sum("cannot be compared" in note for note in run.environment["data_notes"]) == 1


# --- shapes and settings


def test_other_shapes_are_said_with_both(tiny_model, tmp_path):
    wide = tiny.save(tmp_path / "wide", hidden_size=64)
    adapter = edited(made(wide, tmp_path / "a"), base_model_name_or_path=tiny_model)
    said = refusal(tiny_model, adapter)
    assert "6 of its weights have other shapes" in said
    assert "4 × 64, expected 4 × 32" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"init_lora_weights": "pissa_niter_16"}, "which changed its base model"),
        ({"init_lora_weights": "olora"}, "which changed its base model"),
        ({"layer_replication": [[0, 1_000_000_000]]}, "repeats layers of its base model"),
        ({"r": 10**9}, "has the rank 1000000000"),
        ({"rank_pattern": {"q_proj": 10**12}}, "has the rank 1000000000000"),
        ({"bias": "all"}, "changes the biases of its base model"),
        ({"task_type": "SEQ_CLS"}, "made for SEQ_CLS"),
        ({"trainable_token_indices": [1]}, "changes single rows"),
        ({"r": 8}, "of its weights have other shapes"),
        ({"target_modules": ["q_proj", "v_proj"]}, "lacks 6 weights"),
        ({"target_modules": ["v_proj"]}, "has 6 unknown and lacks 6 weights"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_settings_that_would_make_another_model_are_refused(untied, tmp_path, changes, said):
    assert said in refusal(untied, edited(made(untied, tmp_path), **changes))


@pytest.mark.parametrize("initial", ["gaussian", "eva", "orthogonal", False])
def test_how_an_adapter_began_does_not_matter_where_the_base_stayed(untied, tmp_path, initial):
    plain = made(untied, tmp_path / "a")
    with loaded_with(untied, plain) as loaded:
        expected = chosen_logp(loaded)
    with loaded_with(untied, edited(plain, init_lora_weights=initial)) as loaded:
        assert chosen_logp(loaded) == expected
