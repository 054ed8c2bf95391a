"""What a user would lose: a run on the demo or a hub model that goes on with other weights under its old name."""

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import stub_hub
import tiny
from click.testing import CliRunner

import simpo_workbench as wb
from simpo_workbench.cli.main import main
from simpo_workbench.engine import training
from simpo_workbench.runs.folder import RunFolder
from simpo_workbench.runs.manifest import Manifest


def stopped_after_two(config):
    def stop(record):
        if record["kind"] == "train" and record["step"] == 2:
            RunFolder(f"{config.run.root}/{config.run.name}").mailbox.ask("stop")

    return wb.train(config, on_record=stop)


@pytest.fixture(params=["demo", "me/tiny"])
def stopped(request, tiny_settings, tmp_path, monkeypatch):
    """(a run stopped after two of six steps, the folder that its model was loaded from): the demo model, whose place in
    the cache holds a tiny model, or a model of a hub on loopback.
    """
    config = wb.RunConfig.from_dict(
        tiny_settings, {"run.root": str(tmp_path / "runs"), "run.name": "one", "model.name": request.param}
    )
    if request.param == "demo":
        monkeypatch.setenv("SIMPO_WORKBENCH_CACHE", str(tmp_path / "cache"))
        folder = Path(tiny.save(tmp_path / "cache/SmolLM2-135M-Instruct"))
        yield stopped_after_two(config), folder
        return
    files = {path.name: path.read_bytes() for path in Path(tiny.save(tmp_path / "made")).iterdir()}
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with stub_hub.serve("models", request.param, files) as (endpoint, _):
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", _template(endpoint))
        yield stopped_after_two(config), tmp_path / f"hub/models--me--tiny/snapshots/{stub_hub.REVISION}"


def _template(endpoint):
    return endpoint + "/{repo_id}/resolve/{revision}/{filename}"


def flip(path):
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)


def test_the_folder_that_was_loaded_is_sealed_verified_and_compared(stopped):
    run, folder = stopped
    base = Manifest.read(run.path).identity["base"]
    assert base["folder"] == str(folder)
    assert {"config.json", "model.safetensors"} <= base["files"].keys()
    row = f"base model: {folder / 'model.safetensors'}"
    table = wb.verify(run, full=True).set_index("file")
    assert (table.loc[row, "state"], table.loc[row, "detail"]) == ("whole", "all of it was read")

    flip(folder / "model.safetensors")
    assert wb.verify(run, full=True).set_index("file").loc[row, "state"] == "damaged"
    command = ["verify", "one", "--full", "--root", str(run.path.parent)]
    assert CliRunner().invoke(main, command).exit_code == 1
    with pytest.raises(wb.WorkbenchError, match="the weights of the base model changed since it was stopped"):
        training.train_in_process(run.folder, resume=True)
    flip(folder / "model.safetensors")

    (folder / "pytorch_model.bin").write_bytes(b"another tool put it beside them; nothing reads it")
    training.train_in_process(run.folder, resume=True)
    assert run.status.state == "finished"
    folder.rename(folder.with_name("elsewhere"))
    table = wb.verify(run, full=True).set_index("file")
    assert table.loc[row, "state"] == "unverified"
    assert "nothing of it was read" in table.loc[row, "detail"]


@pytest.mark.parametrize("stopped", ["demo"], indirect=True)
def test_a_manifest_without_files_of_the_base_model_says_so_and_is_mended_by_a_resume(stopped):
    """Earlier versions looked for the demo model and for hub models in a folder of that name."""
    run, folder = stopped
    Manifest.to_write(run.path).seal(base={"folder": "/nowhere/HuggingFaceTB/SmolLM2-135M-Instruct", "files": {}})
    table = wb.verify(run, full=True).set_index("file")
    assert table.loc["base model", "state"] == "unverified"
    assert "the manifest names no file of them" in table.loc["base model", "detail"]
    training.train_in_process(run.folder, resume=True)
    assert run.status.state == "finished"
    (resumed,) = [record["text"] for record in run.records if record.get("event") == "resumed"]
    assert "Its manifest names no file of the base model: its weights were not compared." in resumed
    assert Manifest.read(run.path).identity["base"]["folder"] == str(folder)


def test_weights_of_a_run_that_has_no_manifest_are_named_as_not_read(finished_run, tmp_path):
    copied = shutil.copytree(finished_run().path, tmp_path / "finished", ignore=shutil.ignore_patterns("manifest.json"))
    rows = wb.verify("finished", copied.parent, full=True).set_index("file")
    assert rows.loc["base model", "state"] == "unverified"
    assert "its weights were not read" in rows.loc["base model", "detail"]
