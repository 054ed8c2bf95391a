"""What a user would lose: hours of guessing what a hub's refusal means, or weights that can run code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import stub_hub
import tiny

CODE = """
import json, sys
import simpo_workbench as wb
from simpo_workbench.config.run_config import ModelConfig
def outcome(name):
    name, _, revision = name.partition("@")
    try:
        with wb.load_model(ModelConfig(name=name, revision=revision or None, load_in="fp32")) as model:
            return [type(model.model).__name__, model.tokenizer.name_or_path]
    except wb.WorkbenchError as error:
        return str(error)
print(json.dumps([outcome(name) for name in sys.argv[1:]]))
"""


def load_in_a_process(names, folder, **environment):
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.lower().endswith("_proxy") and not key.startswith("HF_")
    }
    environment = clean | {"HF_HOME": str(folder / "hub"), "NO_PROXY": "*"} | environment
    done = subprocess.run(
        [sys.executable, "-c", CODE, *names], capture_output=True, text=True, env=environment, cwd=folder, timeout=180
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "made"
    tiny.save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_hub_model_loads_and_refusals_say_what_to_do(files, tmp_path):
    files |= {"pytorch_model.bin": b"pickle", "README.md": b"words"}
    with stub_hub.serve("models", "me/tiny", files) as (endpoint, requests):
        whole, gated, nothing, revision = load_in_a_process(
            ["me/tiny", "me/gated", "me/nothing", "me/tiny@v9"], tmp_path, HF_ENDPOINT=endpoint
        )
    assert whole == ["LlamaForCausalLM", "me/tiny"]
    assert "is gated: accept its terms" in gated
    assert "hf auth login" in gated
    assert "There is no model 'me/nothing'" in nothing
    assert "HF_TOKEN" in nothing
    assert "has no revision 'v9'" in revision
    assert not [
        path for path, _ in requests if path.endswith((".bin", ".md"))
    ]  # only what is needed, and never pickled weights


def test_the_standard_token_opens_a_gated_model(files, tmp_path):
    with stub_hub.serve("models", "me/tiny", files) as (endpoint, requests):
        (gated,) = load_in_a_process(["me/gated"], tmp_path, HF_ENDPOINT=endpoint, HF_TOKEN="right-token")
    assert gated == ["LlamaForCausalLM", "me/gated"]
    assert "Bearer right-token" in {authorization for _, authorization in requests}


def test_a_hub_model_with_pickled_weights_only_is_refused(files, tmp_path):
    del files["model.safetensors"]
    with stub_hub.serve("models", "me/tiny", files | {"pytorch_model.bin": b"pickle"}) as (endpoint, _):
        (refusal,) = load_in_a_process(["me/tiny"], tmp_path, HF_ENDPOINT=endpoint)
    assert "safetensors are needed" in refusal


def test_without_a_network_the_sentence_says_so(tmp_path):
    (refusal,) = load_in_a_process(["me/elsewhere"], tmp_path, HF_HUB_OFFLINE="1")
    assert "cannot be reached" in refusal


def test_modelscope_is_asked_when_it_is_meant(tiny_model, tmp_path):
    """The optional package is stood in for by a module with its interface."""
    (tmp_path / "modelscope.py").write_text(
        "def snapshot_download(model_id, revision=None, allow_patterns=None, ignore_patterns=None):\n    if model_id"
        f" == 'me/away': raise RuntimeError('no such model')\n    return {tiny_model!r}\n"
    )
    code = CODE.replace('load_in="fp32"', 'load_in="fp32", source="modelscope"')
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, "me/there", "me/away"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=180,
    )
    there, away = json.loads(done.stdout.splitlines()[-1])
    assert there == ["LlamaForCausalLM", "me/there"]
    assert "could not be downloaded from ModelScope: no such model" in away


def test_modelscope_without_its_package_says_how_to_get_it(monkeypatch):
    import simpo_workbench as wb
    from simpo_workbench.config.run_config import ModelConfig

    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(wb.WorkbenchError, match="pip install modelscope"):
        wb.load_model(ModelConfig(name="me/there", source="modelscope"))


def test_paths_of_this_machine_do_not_leave_it(tiny_config, finished_run):
    """Nothing but the model's own name stands in the adapter that people share."""
    run = finished_run()
    card = json.loads((run.adapter / "adapter_config.json").read_text())
    assert card["base_model_name_or_path"] == tiny_config.model.name
    assert str(Path.home() / ".cache") not in (run.adapter / "README.md").read_text()
