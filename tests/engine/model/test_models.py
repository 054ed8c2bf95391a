"""What a user would lose: the right model, the right precision, or an hour of puzzling over a library's traceback."""

import json
import shutil
import struct
from pathlib import Path

import pytest
import tiny
import torch
from transformers import AutoConfig, AutoTokenizer

import simpo_workbench as wb
from simpo_workbench.config.run_config import LoraConfig, ModelConfig
from simpo_workbench.engine import checkpoints
from simpo_workbench.engine.encode.tokens import EncodedPair
from simpo_workbench.engine.forward.attention import row_policy
from simpo_workbench.engine.forward.logprobs import PackedScorer
from simpo_workbench.engine.forward.packing import RowPolicy, collate
from simpo_workbench.engine.forward.small_model import small_model
from simpo_workbench.engine.model import models
from simpo_workbench.engine.scoring import response_logps

PAIR = EncodedPair("x", [5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15])


def lora(loaded, **changes):
    models.add_lora(loaded, LoraConfig(r=4, alpha=8, **changes), seed=0)
    return loaded


@pytest.fixture(scope="module")
def tiny_adapter(tiny_model, tmp_path_factory):
    """A PEFT adapter for the tiny Llama whose B matrices are not zero."""
    folder = tmp_path_factory.mktemp("adapter")
    with lora(models.load_base(ModelConfig(name=tiny_model, load_in="fp32"))) as loaded:
        with torch.no_grad():
            for name, parameter in loaded.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1)
        loaded.model.save_pretrained(str(folder))
    return str(folder)


@pytest.mark.parametrize(
    ("load_in", "kind"),
    [
        ("nf4", "Linear4bit"),
        ("fp4", "Linear4bit"),
        ("int8", "Linear8bitLt"),
        ("bf16", "Linear"),
        ("fp16", "Linear"),
        ("fp32", "Linear"),
    ],
)
def test_weights_are_kept_as_asked_and_train(tiny_model, load_in, kind):
    with lora(models.load_base(ModelConfig(name=tiny_model, load_in=load_in))) as loaded:
        layer = loaded.model.base_model.model.model.layers[0].self_attn.q_proj.base_layer
        assert type(layer).__name__ == kind
        if load_in in ("nf4", "fp4"):
            assert layer.weight.quant_state.quant_type == load_in
            assert layer.weight.quant_state.nested  # double quantization
        if kind == "Linear":
            assert layer.weight.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[load_in]
        logps = PackedScorer(loaded.model)(collate([PAIR], RowPolicy(shared=True)))
        (logps.chosen - logps.rejected).sum().backward()
        gradients = [parameter.grad for parameter in loaded.model.parameters() if parameter.requires_grad]
        assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
        assert any(gradient.abs().max() > 0 for gradient in gradients)
        assert not any(
            parameter.requires_grad for name, parameter in loaded.model.named_parameters() if "lora" not in name
        )


def test_nf4_stays_near_fp32_and_is_not_fp32(tiny_model):
    logps = {}
    for load_in in ("nf4", "fp32"):
        with wb.load_model(ModelConfig(name=tiny_model, load_in=load_in)) as loaded:
            logps[load_in] = response_logps(PackedScorer(loaded.model), [PAIR], loaded).chosen.item()
    assert logps["nf4"] != logps["fp32"]
    assert logps["nf4"] == pytest.approx(logps["fp32"], rel=0.3)


def test_unpacked_weights_give_the_same_numbers_and_are_gone_afterwards(tiny_model):
    with lora(models.load_base(ModelConfig(name=tiny_model, load_in="nf4"))) as loaded, torch.no_grad():
        loaded.model.eval()
        scorer, batch = PackedScorer(loaded.model), collate([PAIR], RowPolicy(shared=True))
        plain = scorer(batch).chosen
        with models.weights_unpacked(loaded):
            assert torch.allclose(scorer(batch).chosen, plain, atol=1e-5)
        assert "forward" not in loaded.model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.__dict__
        assert torch.equal(scorer(batch).chosen, plain)


def test_evaluating_never_costs_the_gradient(tiny_model):
    """On some CPUs bitsandbytes repacks 4-bit weights at the first evaluation into a layout without a backward pass; it
    must stay off.
    """
    with lora(models.load_base(ModelConfig(name=tiny_model, load_in="nf4"))) as loaded:
        flags = {
            module.support_avx512bf16_for_cpu
            for module in loaded.model.modules()
            if hasattr(module, "support_avx512bf16_for_cpu")
        }
        assert flags == {False}


def test_base_is_the_model_without_the_adapter_and_tuned_comes_back(tiny_model, tiny_adapter):
    config = ModelConfig(name=tiny_model, load_in="fp32")
    with wb.load_model(config) as bare:
        untouched = response_logps(PackedScorer(bare.model), [PAIR], bare).chosen
    with wb.load_model(config, adapter=tiny_adapter) as loaded:
        scorer = PackedScorer(loaded.model)
        tuned = response_logps(scorer, [PAIR], loaded).chosen
        with loaded.base():
            assert torch.allclose(response_logps(scorer, [PAIR], loaded).chosen, untouched, atol=1e-6)
        assert torch.equal(response_logps(scorer, [PAIR], loaded).chosen, tuned)
        assert (tuned - untouched).abs() > 1e-3


@pytest.mark.parametrize(
    "changes", [{"use_dora": True}, {"use_rslora": True}, {"target_modules": ["q_proj", "v_proj"]}, {"dropout": 0.1}]
)
def test_lora_variants(tiny_model, changes, tmp_path):
    with lora(models.load_base(ModelConfig(name=tiny_model, load_in="fp32")), **changes) as loaded:
        config = loaded.model.peft_config["default"]
        wrapped = {name.split(".")[-2] for name, _ in loaded.model.named_modules() if name.endswith(".lora_A")}
        if "target_modules" in changes:
            assert wrapped == {"q_proj", "v_proj"}
        else:
            assert wrapped == {
                "q_proj",
                "k_proj",
                "v_proj",
                "o_proj",
                "gate_proj",
                "up_proj",
                "down_proj",
            }  # every linear layer, not the head
        with torch.no_grad():
            for name, parameter in loaded.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1)
        loaded.model.eval()
        tuned = response_logps(PackedScorer(loaded.model), [PAIR], loaded).chosen
        checkpoints.save_adapter(loaded.model, tmp_path / "saved")
        with wb.load_model(
            ModelConfig(name=tiny_model, load_in="fp32"), adapter=tmp_path / "saved"
        ) as again:  # what was trained can be used
            assert torch.allclose(response_logps(PackedScorer(again.model), [PAIR], again).chosen, tuned, atol=1e-5)
        assert (config.use_dora, config.use_rslora, config.lora_dropout) == (
            changes.get("use_dora", False),
            changes.get("use_rslora", False),
            changes.get("dropout", 0.0),
        )


def test_a_starting_adapter_alone_is_the_base(tiny_model, tiny_adapter):
    with wb.load_model(ModelConfig(name=tiny_model, load_in="fp32", adapter=tiny_adapter)) as loaded:
        assert not loaded.has_adapter  # nothing is tuned yet
        scorer = PackedScorer(loaded.model)
        started = response_logps(scorer, [PAIR], loaded).chosen
        with loaded.base():
            assert torch.equal(response_logps(scorer, [PAIR], loaded).chosen, started)
    with wb.load_model(ModelConfig(name=tiny_model, load_in="fp32"), adapter=tiny_adapter) as loaded:
        assert torch.allclose(response_logps(PackedScorer(loaded.model), [PAIR], loaded).chosen, started, atol=1e-6)


def test_close_gives_the_memory_back(tiny_model):
    import gc
    import weakref

    with wb.load_model(ModelConfig(name=tiny_model, load_in="fp32")) as loaded:
        watched = weakref.ref(loaded.model)
    gc.collect()
    assert watched() is None


# --- refusals: each names what was given and what to do
# ------------------------------------------------------------------------------


def refused(match, **config):
    with pytest.raises(wb.WorkbenchError, match=match) as caught:
        wb.load_model(ModelConfig(**{"load_in": "fp32", **config}))
    assert "\n" not in str(caught.value)


def test_unknown_folders_and_names():
    refused("There is no model folder './nowhere'.*hub id", name="./nowhere")
    refused("There is no model folder 'some/where/else'", name="some/where/else")
    refused("There is no model folder 'nowhere'", name="nowhere", source="local")


def test_a_folder_that_is_no_model(tmp_path, tiny_adapter):
    refused("holds no model: it has no config.json", name=str(tmp_path))
    refused("it is a PEFT adapter: give it as model.adapter", name=tiny_adapter)


def test_pickled_weights_are_never_loaded(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    refused("only pickled weights .pytorch_model.bin., which can run code", name=str(folder))


def test_broken_weights_and_configs(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")
    refused("cannot be loaded", name=str(folder))
    shutil.copy(Path(tiny_model) / "model.safetensors", folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "no-such-architecture"}))
    refused("cannot be loaded.*no-such-architecture", name=str(folder))


def test_truncated_weights_of_model_and_adapter(tiny_model, tiny_adapter, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    refused("cannot be loaded", name=str(folder))
    adapter = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    refused("was made for another model", name=tiny_model, adapter=str(adapter))


def test_code_in_a_model_folder_is_never_run(tiny_model, tmp_path, monkeypatch):
    """Also when somebody would answer yes: transformers asks on a terminal unless it was told."""
    folder = shutil.copytree(tiny_model, tmp_path / "coded")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "coded",
        "auto_map": {"AutoConfig": "code.CodedConfig", "AutoModelForCausalLM": "code.CodedModel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    refused("cannot be loaded", name=str(folder))
    assert not (tmp_path / "ran").exists()


def test_a_closed_model_says_so(tiny_model):
    loaded = wb.load_model(ModelConfig(name=tiny_model, load_in="fp32"))
    loaded.close()
    with pytest.raises(wb.WorkbenchError, match="is closed: load it again"):
        wb.generate(loaded, ["Hello"])


def test_compute_precision_that_cannot_be(tiny_model):
    refused("unquantized weights compute in their own precision", name=tiny_model, load_in="bf16", compute_dtype="fp32")


def test_an_adapter_of_another_model_is_refused_whole(tiny_adapter, tmp_path):
    wider, shallower = (
        tiny.save(tmp_path / "wider", hidden_size=64),
        tiny.save(tmp_path / "shallower", num_hidden_layers=2),
    )
    refused("was made for another model", name=wider, adapter=tiny_adapter)
    refused("was made for another model: it was trained on", name=shallower, adapter=tiny_adapter)
    config = Path(shutil.copytree(tiny_adapter, tmp_path / "adapter"), "adapter_config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": shallower}))
    refused("was made for another model.*unknown", name=shallower, adapter=str(config.parent))


def test_adapters_that_are_none(tiny_model, tiny_adapter, tmp_path):
    refused("There is no adapter in", name=tiny_model, adapter=str(tmp_path))
    pickled = shutil.copytree(tiny_adapter, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    refused("pickled weights .adapter_model.bin. are not loaded", name=tiny_model, adapter=str(pickled))


def test_target_modules_that_do_not_exist(tiny_model):
    with (
        models.load_base(ModelConfig(name=tiny_model, load_in="fp32")) as loaded,
        pytest.raises(wb.WorkbenchError, match="target_modules = .'no_such_layer'."),
    ):
        models.add_lora(loaded, LoraConfig(target_modules=["no_such_layer"]), seed=0)


def test_a_chat_template_from_text_or_file(tiny_model, tmp_path):
    from simpo_workbench.config.run_config import DataConfig

    path = tmp_path / "template.jinja"
    path.write_text(tiny.LLAMA3)
    for given in (tiny.LLAMA3, str(path)):
        with wb.load_model(
            ModelConfig(name=tiny_model, load_in="fp32"), data=DataConfig(chat_template=given)
        ) as loaded:
            assert loaded.tokenizer.chat_template == tiny.LLAMA3


def test_a_gguf_file_that_transformers_cannot_read_is_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMPO_WORKBENCH_CACHE", str(tmp_path / "cache"))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(200))
    refused("The GGUF file '.*broken.gguf' cannot be read", name=str(broken))
    assert not list((tmp_path / "cache").glob("broken-*/config.json"))


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]),
        ("mixtral", ["k_proj", "o_proj", "q_proj", "v_proj"]),  # no router, no expert
        ("phi3", ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]),
    ],
)
def test_all_linear_means_linear_layers_without_head_routers_and_experts(family, expected):
    from types import SimpleNamespace

    loaded = SimpleNamespace(model=tiny.model(family), config=ModelConfig())
    models.add_lora(loaded, LoraConfig(), seed=0)
    assert {
        name.partition(".lora_")[0].rpartition(".")[2]
        for name, _ in loaded.model.named_parameters()
        if ".lora_" in name
    } == set(expected)


def test_a_model_without_sdpa_computes_its_attention_eagerly(tmp_path):
    """GPT-OSS adds a sink to every softmax, which SDPA cannot, nor packed rows: each answer has its own prompt."""
    model = small_model(AutoConfig.for_model("gpt_oss"))
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(wb.make_tiny_model(tmp_path / "tiny")).save_pretrained(tmp_path)
    with models.load_model(ModelConfig(name=str(tmp_path), load_in="fp32")) as loaded:
        assert loaded.model.config._attn_implementation == "eager"
        assert not row_policy(loaded.model).shared
        logps = response_logps(PackedScorer(loaded.model), [PAIR], loaded)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([PAIR.prompt_ids + PAIR.chosen_ids])).logits[0]
    places = range(len(PAIR.prompt_ids) - 1, len(PAIR.prompt_ids) + len(PAIR.chosen_ids) - 1)
    expected = torch.log_softmax(logits, -1)[places, PAIR.chosen_ids].sum().item()
    assert logps.chosen.item() == pytest.approx(expected, abs=1e-4)
