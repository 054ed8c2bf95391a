"""What a user would lose: the whole account, to a model or an adapter that runs a program when it is loaded."""

import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from hostile_inputs import sentence

from simpo_workbench.base.errors import WorkbenchError

pytestmark = pytest.mark.timeout(120)  # so that what hangs fails


# --- weights: nothing is unpickled


class Bomb:
    """Unpickled, it makes a file: the least that a pickle can do."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


@pytest.fixture
def bomb(tmp_path):
    """(pickle bytes, torch archive bytes, marker): both pickles make the marker when they are read."""
    import io

    import torch

    marker, archive = tmp_path / "it-ran", io.BytesIO()
    torch.save(Bomb(marker), archive)
    pickle.loads(pickle.dumps(Bomb(tmp_path / "try"))).close()
    assert (tmp_path / "try").exists(), "the bomb itself must work"
    return SimpleNamespace(pickle=pickle.dumps(Bomb(marker)), zip=archive.getvalue(), marker=marker)


def hide_as_safetensors(folder, bomb):
    (folder / "model.safetensors").write_bytes(bomb.pickle)


def hide_old_pickle_as_safetensors(folder, bomb):
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb(bomb.marker), protocol=0))


def hide_archive_as_safetensors(folder, bomb):
    (folder / "model.safetensors").write_bytes(bomb.zip)


def leave_as_bin(folder, bomb):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(bomb.zip)


def leave_as_pt(folder, bomb):
    (folder / "model.safetensors").unlink()
    for name in ("consolidated.00.pth", "model.pt", "model.ckpt"):
        (folder / name).write_bytes(bomb.pickle)


def leave_an_index_of_pickles(folder, bomb):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model-00001-of-00001.bin").write_bytes(bomb.zip)
    (folder / "pytorch_model.bin.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": "pytorch_model-00001-of-00001.bin"}})
    )


def hide_behind_a_safetensors_index(folder, bomb):
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (folder / "shard.bin").write_bytes(bomb.zip)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": "shard.bin"}})
    )


def hide_outside_of_the_folder(folder, bomb):
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (folder.parent / "shard.safetensors").write_bytes(bomb.zip)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": "../shard.safetensors"}})
    )


def name_it_in_the_configuration(folder, bomb):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": "adapter_model.bin"}))
    (folder / "adapter_model.bin").write_bytes(bomb.zip)


def bring_an_adapter_along(folder, bomb):
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x", "r": 4, "target_modules": ["q_proj"]})
    )
    (folder / "adapter_model.bin").write_bytes(bomb.zip)


DISGUISES = {
    hide_as_safetensors: "no safetensors file but a pickle, which can run code",
    hide_old_pickle_as_safetensors: "no safetensors file but something else",
    hide_archive_as_safetensors: "no safetensors file but a ZIP archive as torch.save writes it",
    leave_as_bin: "only pickled weights (pytorch_model.bin)",
    leave_as_pt: "only pickled weights (consolidated.00.pth)",
    leave_an_index_of_pickles: "only pickled weights (pytorch_model",
    hide_behind_a_safetensors_index: "model.safetensors.index.json asks for the weights 'shard.bin'",
    hide_outside_of_the_folder: "model.safetensors.index.json asks for the weights '../shard.safetensors'",
    name_it_in_the_configuration: "config.json asks for the weights 'adapter_model.bin'",
    bring_an_adapter_along: "holds a PEFT adapter as well",
}


@pytest.mark.parametrize("disguise", DISGUISES, ids=lambda disguise: disguise.__name__)
def test_pickled_weights_of_a_model_are_refused_before_they_are_read(disguise, tiny_model, bomb, tmp_path):
    """A pickle from a stranger runs as the user, with all of the user's files and tokens."""
    import simpo_workbench as wb

    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    disguise(folder, bomb)
    with pytest.raises(WorkbenchError) as error:
        wb.load_model(wb.RunConfig.from_dict({"model": {"name": str(folder), "load_in": "fp32"}}).model)
    assert DISGUISES[disguise] in sentence(error)
    assert not bomb.marker.exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("adapter_model.bin", "zip", "pickled weights (adapter_model.bin) are not loaded"),
        ("adapter_model.pt", "pickle", "has no adapter_model.safetensors"),
        ("adapter_model.safetensors", "pickle", "no safetensors file but a pickle"),
        ("adapter_model.safetensors", "zip", "no safetensors file but a ZIP archive"),
    ],
)
def test_pickled_weights_of_an_adapter_are_refused_before_they_are_read(
    name, content, said, tiny_model, bomb, tmp_path
):
    """Adapters are what people pass on to each other most."""
    import simpo_workbench as wb

    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}))
    (folder / name).write_bytes(getattr(bomb, content))
    with pytest.raises(WorkbenchError) as error:
        wb.load_model(wb.RunConfig.from_dict({"model": {"name": tiny_model, "load_in": "fp32"}}).model, adapter=folder)
    assert said in sentence(error)
    assert not bomb.marker.exists()


def test_an_adapter_whose_configuration_names_a_pickle_is_refused(tiny_model, bomb, tmp_path):
    """Some kinds of adapters start from a file of their author's choice, which is unpickled."""
    from simpo_workbench.engine.model.weight_files import require_adapter

    (tmp_path / "start.pt").write_bytes(bomb.zip)
    shutil.copy(Path(tiny_model) / "model.safetensors", tmp_path / "adapter_model.safetensors")
    config = {
        "peft_type": "MULTITASK_PROMPT_TUNING",
        "prompt_tuning_init": "AVERAGE_SOURCE_TASKS",
        "prompt_tuning_init_state_dict_path": str(tmp_path / "start.pt"),
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(WorkbenchError) as error:
        require_adapter(tmp_path)
    assert "is of the kind 'MULTITASK_PROMPT_TUNING': only plain LoRA adapters" in sentence(error)
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "megatron_config": {"a": 1}, "megatron_core": "antigravity"})
    )
    with pytest.raises(WorkbenchError, match="only plain LoRA adapters"):
        require_adapter(tmp_path)
    assert not bomb.marker.exists()


@pytest.mark.parametrize("name", ["model.gguf", "model.bin", "model.pt"])
def test_a_pickle_given_as_a_model_file_is_refused(name, bomb, tmp_path, monkeypatch):
    """A file name says nothing about what is inside."""
    import simpo_workbench as wb

    monkeypatch.setenv("SIMPO_WORKBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / name).write_bytes(bomb.pickle)
    with pytest.raises(WorkbenchError) as error:
        wb.load_model(wb.RunConfig.from_dict({"model": {"name": str(tmp_path / name)}}).model)
    assert ("it does not begin as one" if name.endswith(".gguf") else "is a file: expected a model folder") in sentence(
        error
    )
    assert not bomb.marker.exists()


# --- code that comes with a model


def with_code(tiny_model, folder, **changes):
    """A copy of the tiny model whose code.py makes a marker, and whose JSON files are changed."""
    folder = Path(shutil.copytree(tiny_model, folder))
    for name, values in changes.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
    marker = folder.parent / "it-ran"
    (folder / "code.py").write_text(
        f"open({str(marker)!r}, 'w')\nclass CodedConfig: pass\nclass CodedModel: pass\nclass CodedTokenizer: pass\n"
    )
    return folder, marker


def test_a_model_that_needs_its_own_code_is_refused_by_name(tiny_model, tmp_path, monkeypatch):
    """The sentence must say what it is about: otherwise the user looks for the switch that turns it on."""
    import simpo_workbench as wb

    folder, marker = with_code(
        tiny_model,
        tmp_path / "coded",
        config={
            "model_type": "coded",
            "auto_map": {"AutoConfig": "code.CodedConfig", "AutoModelForCausalLM": "code.CodedModel"},
        },
    )
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    with pytest.raises(WorkbenchError) as error:
        wb.load_model(wb.RunConfig.from_dict({"model": {"name": str(folder), "load_in": "fp32"}}).model)
    text = sentence(error)
    assert (
        "cannot be loaded: it needs code of its own (code.CodedConfig in config.json), and code from a model is never"
        " run here" in text
    )
    assert "trust_remote_code" not in text
    assert not marker.exists()


def test_where_transformers_knows_the_model_the_code_beside_it_is_left_alone(tiny_model, tmp_path, monkeypatch):
    """Many good models carry code for old versions; they load, and their code does not run."""
    import simpo_workbench as wb

    maps = {
        "config": {"auto_map": {"AutoConfig": "code.CodedConfig", "AutoModelForCausalLM": "code.CodedModel"}},
        "tokenizer_config": {"auto_map": {"AutoTokenizer": ["code.CodedTokenizer", None]}},
    }
    folder, marker = with_code(tiny_model, tmp_path / "coded", **maps)
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    with wb.load_model(wb.RunConfig.from_dict({"model": {"name": str(folder), "load_in": "fp32"}}).model) as loaded:
        assert type(loaded.model).__module__.startswith("transformers.")
        assert type(loaded.tokenizer).__module__.startswith("transformers.")
    assert not marker.exists()
