"""A NaN in a weight makes every loss NaN; quantized, it becomes an ordinary number and the model is another one."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig

import simpo_workbench as wb
from simpo_workbench.config.run_config import ModelConfig
from simpo_workbench.engine.model.finite_weights import not_finite

_UP = "model.layers.1.mlp.up_proj.weight"
_NORM = "model.norm.weight"


def with_values(source, folder, values, file="model.safetensors"):
    """A copy of a folder of weights with single values put into some; values: {name: [numbers]}."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / file)
    for name, numbers in values.items():
        tensors[name].view(-1)[: len(numbers)] = torch.tensor(numbers).to(tensors[name].dtype)
    save_file(tensors, folder / file, metadata={"format": "pt"})
    return str(folder)


def refusal(name, load_in="fp32"):
    with pytest.raises(wb.WorkbenchError) as error, wb.load_model(ModelConfig(name=name, load_in=load_in)):
        pass
    return str(error.value)


@pytest.mark.parametrize("load_in", ["fp32", "bf16", "nf4", "fp4", "int8"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_end_the_load(tiny_model, tmp_path, load_in, number):
    name = with_values(tiny_model, tmp_path / "model", {_UP: [number, 1.0, number]})
    said = refusal(name, load_in)
    assert f"the weight {_UP!r} holds numbers that are NaN or infinite (2 of 2,048 in {_UP!r})" in said


def test_several_are_counted_and_the_first_is_named(tiny_model, tmp_path):
    nan = float("nan")
    name = with_values(
        tiny_model, tmp_path / "model", {_UP: [nan], _NORM: [nan] * 3, "model.embed_tokens.weight": [nan]}
    )
    said = refusal(name, "nf4")
    assert "3 weights ('model.embed_tokens.weight' and others) hold" in said
    assert "(1 of " in said
    assert "Get the model again" in said


def test_large_numbers_are_numbers(tiny_model, tmp_path):
    assert not_finite(torch.full((8,), 3e38)) == 0  # whose sum is infinite
    assert not_finite(torch.tensor([3e38, float("inf"), 3e38])) == 1
    assert not_finite(torch.tensor([1, 2])) == 0
    name = with_values(tiny_model, tmp_path / "model", {_UP: [1e38] * 8})
    wb.load_model(ModelConfig(name=name, load_in="fp32")).close()


def test_what_only_fp16_cannot_hold_is_said_so(tiny_model, tmp_path):
    name = with_values(tiny_model, tmp_path / "model", {_UP: [1e5]})
    assert "beyond what fp16 holds: try model.load_in bf16" in refusal(name, "fp16")
    wb.load_model(ModelConfig(name=name, load_in="bf16")).close()


@pytest.mark.parametrize("nested", [True, False])
def test_scales_of_a_model_stored_in_4_bits(tiny_model, tmp_path, nested):
    from transformers import AutoModelForCausalLM

    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=nested)
    stored = tmp_path / "stored"
    shutil.copytree(tiny_model, stored)
    AutoModelForCausalLM.from_pretrained(tiny_model, quantization_config=settings).save_pretrained(stored)
    wb.load_model(ModelConfig(name=str(stored))).close()
    part = f"{_UP}.nested_absmax" if nested else f"{_UP}.absmax"
    said = refusal(with_values(stored, tmp_path / "damaged", {part: [float("nan")]}), "nf4")
    assert f"{_UP}.absmax" in said
    assert "NaN or infinite" in said


def test_an_adapter_that_is_no_number_is_refused(finished_run, tmp_path):
    run = finished_run()
    weights = load_file(run.adapter / "adapter_model.safetensors")
    name = sorted(weights)[0]
    values = {name: [float("nan")] * 3}
    folder = with_values(run.adapter, tmp_path / "adapter", values, "adapter_model.safetensors")
    with pytest.raises(wb.WorkbenchError) as error, wb.load_model(run.config.model, adapter=folder):
        pass
    assert "NaN or infinite (3 of" in str(error.value)
    assert str(Path(folder)) in str(error.value)
    with pytest.raises(wb.WorkbenchError, match="NaN or infinite"):
        wb.preflight(run.config.with_changes({"model.adapter": folder}))


@pytest.mark.parametrize("load_in", ["fp32", "nf4"])
def test_a_load_prints_nothing(tiny_model, load_in, capfd, caplog):
    with caplog.at_level(logging.WARNING):
        wb.load_model(ModelConfig(name=tiny_model, load_in=load_in)).close()
    printed = capfd.readouterr()
    assert (printed.out, printed.err, caplog.text) == ("", "", "")
