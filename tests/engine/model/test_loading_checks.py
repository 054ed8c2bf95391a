"""What a user would lose: a model that is partly random, differently at every load, and a run that ends "Healthy"."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

import simpo_workbench as wb
from simpo_workbench.config.run_config import ModelConfig
from simpo_workbench.engine.model import loading_checks

DOWN = "model.layers.1.mlp.down_proj.weight"


def changed(tiny_model, folder, change):
    """A copy of a model folder whose tensors went through `change`."""
    folder = Path(shutil.copytree(tiny_model, folder))
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", {"format": "pt"})
    return str(folder)


def refusal(name, load_in="fp32"):
    with pytest.raises(wb.WorkbenchError) as caught:
        wb.load_model(ModelConfig(name=name, load_in=load_in))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def without(*names):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name not in names}


@pytest.mark.parametrize("load_in", ["fp32", "nf4", "int8"])
def test_a_missing_weight_ends_the_load(tiny_model, tmp_path, load_in, caplog):
    said = refusal(changed(tiny_model, tmp_path / "m", without(DOWN)), load_in)
    assert f"the weight '{DOWN}' is missing from its files, which would have random values" in said
    assert "LOAD REPORT" not in caplog.text


def test_a_missing_layer_is_counted(tiny_model, tmp_path):
    said = refusal(
        changed(tiny_model, tmp_path / "m", lambda all_: {k: v for k, v in all_.items() if ".layers.2." not in k})
    )
    assert "9 weights ('model.layers.2.input_layernorm.weight' and others) are missing" in said


@pytest.mark.parametrize("load_in", ["fp32", "nf4", "int8"])
def test_a_misshapen_weight_ends_the_load_with_both_shapes(tiny_model, tmp_path, load_in):
    """Quantizing takes any shape: without a check of its own a layer of 8 inputs would stand where 64 are expected."""

    def cut(tensors):
        return {**tensors, DOWN: tensors[DOWN][:, :8].contiguous()}

    said = refusal(changed(tiny_model, tmp_path / "m", cut), load_in)
    assert "model.layers.1.mlp.down_proj.weight has the shape 32 × 8, expected 32 × 64" in said
    assert "config.json" in said


def test_weights_that_the_model_has_no_use_for_end_the_load(tiny_model, tmp_path):
    """config.json says three layers and the file holds four: the model that was trained had four."""

    def deeper(tensors):
        more = {k.replace("layers.2", "layers.3"): v.clone() for k, v in tensors.items() if "layers.2" in k}
        return {**tensors, **more}

    said = refusal(changed(tiny_model, tmp_path / "m", deeper))
    assert (
        "hold 9 weights that a LlamaForCausalLM has no use for, such as 'model.layers.3.input_layernorm.weight'" in said
    )
    said = refusal(changed(tiny_model, tmp_path / "reward", lambda all_: {**all_, "score.weight": torch.zeros(1, 32)}))
    assert "'score.weight'" in said
    assert "not made to write text" in said


def test_tied_and_optional_weights_are_no_fault(tiny_model, tmp_path):
    """Old checkpoints carry tables that are computed today, some store the head beside the embedding it shares."""

    def more(tensors):
        return {
            **tensors,
            "lm_head.weight": tensors["model.embed_tokens.weight"].clone(),
            "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4),
            "model.layers.0.self_attn.rotary_emb.cos_cached": torch.zeros(4),
            "mtp.layers.0.weight": torch.zeros(4),
        }

    folder = changed(tiny_model, tmp_path / "m", more)
    with wb.load_model(ModelConfig(name=folder, load_in="fp32")) as loaded:
        assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    for name in loading_checks.OPTIONAL_WEIGHTS:
        assert not loading_checks.re.search(name, DOWN)


def test_a_head_that_is_not_stored_and_not_shared(tiny_model, tmp_path):
    folder = changed(tiny_model, tmp_path / "m", lambda all_: all_)
    config = json.loads(Path(folder, "config.json").read_text())
    Path(folder, "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    assert "tie_word_embeddings in config.json must be true" in refusal(folder)


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "phi", "starcoder2", "mixtral", "cohere2"])
def test_whole_models_of_other_families_load(family, tmp_path):
    folder = tiny.save(tmp_path / "m", family)
    for load_in in ("fp32", "nf4"):
        wb.load_model(ModelConfig(name=folder, load_in=load_in)).close()


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "opt"])
def test_whole_models_with_causal_masks_load(family, tmp_path):
    """GPT-2's published weights hold its masks."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = tiny.tokenizer()
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {"opt": {"ffn_dim": 64, "word_embed_proj_dim": 32}, "gpt_neox": {"intermediate_size": 64}}
    config = AutoConfig.for_model(family, **sizes, **more.get(family, {}))
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    masks = {f"transformer.h.{layer}.attn.bias": torch.ones(1, 1, 8, 8) for layer in range(2)}
    save_file({**load_file(path), **(masks if family == "gpt2" else {})}, path, {"format": "pt"})
    wb.load_model(ModelConfig(name=str(tmp_path), load_in="fp32")).close()


def test_weights_of_a_mixture_that_lacks_an_expert(tmp_path):
    folder = tiny.save(tmp_path / "whole", "mixtral")
    names = [name for name in load_file(Path(folder, "model.safetensors")) if ".experts.3." in name]
    assert "shape 3 × " in refusal(changed(folder, tmp_path / "m", without(*names)))


def test_integers_without_a_quantization_config_are_no_weights(tiny_model, tmp_path):
    """They would be read as numbers between -128 and 127."""

    def as_integers(tensors):
        return {**tensors, DOWN: tensors[DOWN].mul(10).to(torch.int8)}

    said = refusal(changed(tiny_model, tmp_path / "m", as_integers))
    assert "is stored as I8, and config.json has no quantization_config" in said


def test_a_run_on_an_incomplete_model_never_begins(tiny_config, tiny_model, tmp_path):
    config = tiny_config.with_changes({"model.name": changed(tiny_model, tmp_path / "m", without(DOWN))})
    with pytest.raises(wb.WorkbenchError, match="is missing from its files"):
        wb.preflight(config)
    with pytest.raises(wb.WorkbenchError, match="is missing from its files"):
        wb.train(config)


def write_gguf(path, lacking=()):
    """The tiny Llama as a GGUF file, which names its tensors in its own way."""
    import gguf

    tokenizer = tiny.tokenizer()
    model = tiny.model(vocab_size=len(tokenizer))
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in {
        "context_length": 512,
        "embedding_length": 32,
        "block_count": 3,
        "feed_forward_length": 64,
        "head_count": 4,
        "head_count_kv": 2,
        "layer_norm_rms_eps": 1e-6,
        "rope_dimension_count": 8,
        "vocab_size": len(tokenizer),
        "tokenizer_model": "gpt2",
        "tokenizer_pre": "default",
        "token_list": sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get),
        "token_merges": ["q u"],
        "bos_token_id": 1,
        "eos_token_id": tokenizer.eos_token_id,
        "chat_template": tiny.CHATML,
    }.items():
        getattr(writer, f"add_{name}")(value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 3)
    for key, tensor in model.state_dict().items():
        if key not in ("lm_head.weight", *lacking):  # the head is the embedding
            writer.add_tensor(names.get_name(key, try_suffixes=(".weight",)), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def test_a_gguf_file_that_lacks_a_weight_is_not_converted(tmp_path, monkeypatch):
    """The random numbers in its place would be stored, and the converted model would look whole ever after."""
    monkeypatch.setenv("SIMPO_WORKBENCH_CACHE", str(tmp_path / "cache"))
    with wb.load_model(ModelConfig(name=write_gguf(tmp_path / "whole.gguf"), load_in="fp32")) as loaded:
        assert torch.equal(loaded.model.model.norm.weight, tiny.model(vocab_size=loaded.vocabulary).model.norm.weight)
    said = refusal(write_gguf(tmp_path / "lacking.gguf", lacking=(DOWN,)))
    assert f"the weight '{DOWN}' is missing" in said
    assert not list((tmp_path / "cache").glob("lacking-*/config.json"))
