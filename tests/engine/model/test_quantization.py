"""What a user would lose: a model that is stored in 4 bits, or an hour with one that is stored in another form."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import simpo_workbench as wb
from simpo_workbench.config.run_config import ModelConfig
from simpo_workbench.engine.encode.tokens import EncodedPair
from simpo_workbench.engine.forward.logprobs import PackedScorer
from simpo_workbench.engine.model import models
from simpo_workbench.engine.scoring import response_logps

PAIR = EncodedPair("x", [5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15])


@pytest.fixture(scope="module", params=["nf4", "fp4"])
def stored(request, tiny_model, tmp_path_factory):
    """(4-bit type, folder of the tiny model stored as it)."""
    folder = tmp_path_factory.mktemp("stored") / request.param
    shutil.copytree(tiny_model, folder)
    with models.load_base(ModelConfig(name=tiny_model, load_in=request.param)) as loaded:
        loaded.model.save_pretrained(folder)
    return request.param, str(folder)


def chosen_logp(name, load_in, **more):
    with wb.load_model(ModelConfig(name=name, load_in=load_in, **more)) as loaded:
        return response_logps(PackedScorer(loaded.model), [PAIR], loaded).chosen.item(), loaded.notes


@pytest.mark.parametrize("load_in", ["nf4", "fp4", "int8", "bf16", "fp32"])
def test_a_model_stored_in_4_bits_is_used_as_it_is(stored, tiny_model, load_in):
    kind, folder = stored
    with models.load_base(ModelConfig(name=folder, load_in=load_in)) as loaded:
        layer = loaded.model.model.layers[0].self_attn.q_proj
        assert type(layer).__name__ == "Linear4bit"
        assert layer.weight.quant_state.quant_type == kind
        assert layer.compute_dtype == loaded.compute_dtype
        assert loaded.compute_dtype == (torch.bfloat16 if load_in == "bf16" else torch.float32)
    logp, notes = chosen_logp(folder, load_in)
    expected, _ = chosen_logp(tiny_model, kind)
    assert logp == pytest.approx(expected, rel=0.05 if load_in == "bf16" else 1e-5)
    assert len(notes) == 1
    assert ("already and used as it is" if load_in == kind else f"model.load_in {load_in} does not change") in notes[0]


def test_a_run_on_a_stored_4_bit_model_says_so(stored, tiny_config):
    kind, folder = stored
    run = wb.train(tiny_config.with_changes({"model.name": folder, "model.load_in": "nf4", "training.max_steps": 1}))
    said = [note for note in run.environment["data_notes"] if "used as it is" in note]
    assert len(said) == 1
    assert f"stored as {kind}" in said[0]


def test_a_stored_4_bit_model_that_lacks_something(stored, tmp_path):
    _, folder = stored
    tensors = load_file(Path(folder, "model.safetensors"))
    one = next(name for name in tensors if name.endswith("q_proj.weight"))
    lacking = {"scales": [f"{one}.absmax"], "weight": [name for name in tensors if name.startswith(one)]}
    for what, names in lacking.items():
        broken = Path(shutil.copytree(folder, tmp_path / what))
        save_file({k: v for k, v in tensors.items() if k not in names}, broken / "model.safetensors", {"format": "pt"})
        with pytest.raises(wb.WorkbenchError, match=r"weights are incomplete|lack some of its quantized weights"):
            wb.load_model(ModelConfig(name=str(broken)))


@pytest.mark.parametrize("load_in", ["nf4", "fp32"])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "stored quantized as gptq, 4 bits"),
        ({"quant_method": "awq", "bits": 4}, "stored quantized as awq, 4 bits"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "stored quantized as bitsandbytes, 8 bits"),
        ({"quant_method": "fp8"}, "stored quantized as fp8:"),
        ({"quant_method": "compressed-tensors"}, "stored quantized as compressed-tensors:"),
        ({"quant_method": "mxfp4"}, "stored quantized as mxfp4:"),
    ],
    ids=lambda value: value["quant_method"] if isinstance(value, dict) else "",
)
def test_other_quantized_forms_are_refused_with_what_to_do(tiny_model, tmp_path, settings, said, load_in):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "m"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    with pytest.raises(wb.WorkbenchError) as caught:
        wb.load_model(ModelConfig(name=str(folder), load_in=load_in))
    assert said in str(caught.value)
    assert "Choose its unquantized version" in str(caught.value)
