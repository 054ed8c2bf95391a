"""What a user would lose: the machine's memory and time, to files that need all of what they are allowed."""

import json
import shutil
from pathlib import Path

import pytest
import tiny

import simpo_workbench as wb
from simpo_workbench.config.run_config import ModelConfig
from simpo_workbench.engine.model import file_check
from simpo_workbench.engine.model.tokenizer import load_tokenizer

pytestmark = pytest.mark.timeout(300)  # so that what hangs fails


@pytest.fixture
def folder(tiny_model, tmp_path, monkeypatch):
    """A copy of a model that was never read before."""
    monkeypatch.setenv("SIMPO_WORKBENCH_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def edit(folder, name, **changes):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("character", ["a", "ж"])
def test_a_normalizer_that_doubles_its_text_forty_times_is_refused(character, folder):
    step = {"type": "Replace", "pattern": {"String": character}, "content": character * 2}
    edit(folder, "tokenizer.json", normalizer={"type": "Sequence", "normalizers": [step] * 40})
    with pytest.raises(wb.WorkbenchError, match=r"The tokenizer of .* needs more than .* for a short text"):
        load_tokenizer(ModelConfig(name=str(folder)))


@pytest.mark.parametrize("layers", [10**9, 10**5])
def test_more_layers_than_can_be_built_are_refused(layers, folder):
    """Counting them would fill the memory of the process that reads the configuration."""
    edit(folder, "config.json", num_hidden_layers=layers)
    with pytest.raises(wb.WorkbenchError, match=r"The config.json of .* needs more than"):
        wb.load_model(ModelConfig(name=str(folder), load_in="fp32"))


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": r"((model|layers|\.|[0-9a-z_]+)+)+!"},
        {"exclude_modules": r"([a-z._0-9]+)+!", "target_modules": ["q_proj"]},
        {"rank_pattern": {r"([a-z._0-9]+)+!": 8}},
        {"alpha_pattern": {r"([a-z._0-9]+)+!": 8}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_patterns_of_an_adapter_that_never_end_are_refused(changes):
    names = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(30)]
    with pytest.raises(wb.WorkbenchError, match="to find the layers that it names"):
        file_check.require_bounded_adapter(changes, Path("a"), names)


@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden_size": 10**9},
        {"vocab_size": 10**13},
        {"intermediate_size": 10**15},
        {"num_attention_heads": 10**9},
        {"max_position_embeddings": 10**18, "model_type": "gpt2", "n_layer": 3},
    ],
    ids=str,
)
def test_absurd_sizes_in_a_configuration_end_in_a_sentence(sizes, folder):
    """Building such a model would take all memory of the process that trains, or of the user's kernel."""
    edit(folder, "config.json", **sizes)
    with pytest.raises(wb.WorkbenchError, match=r"config.json (of|describes)"):
        wb.load_model(ModelConfig(name=str(folder), load_in="fp32"))


def test_an_unusual_configuration_that_is_possible_passes(folder):
    """Some models take ten million positions."""
    edit(folder, "config.json", max_position_embeddings=10_485_760)
    with wb.load_model(ModelConfig(name=str(folder), load_in="fp32")) as loaded:
        assert loaded.positions == 10_485_760
    assert file_check.require_bounded_config(folder, "m")["parameters"] == sum(
        parameter.numel() for parameter in tiny.model(vocab_size=len(loaded.tokenizer)).parameters()
    )
