"""A user would lose the proof that a run is what was trained: what it was made from, and that no file changed since."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from fake_run import fake_run

import simpo_workbench as wb
from simpo_workbench.base.errors import DamageWarning
from simpo_workbench.base.files import append_jsonl, write_json
from simpo_workbench.base.hashes import file_fingerprint
from simpo_workbench.cli.main import main
from simpo_workbench.runs.folder import create_run
from simpo_workbench.runs.manifest import Manifest


@pytest.fixture
def run(finished_run, tmp_path):
    """A finished run, copied, so that its files may be damaged."""
    shutil.copytree(finished_run().path, tmp_path / "runs" / "finished")
    return wb.attach("finished", tmp_path / "runs")


def states(run, **options):
    return wb.verify(run, **options).set_index("file")["state"].to_dict()


def test_the_manifest_names_what_the_run_trained_on(run):
    identity = Manifest.read(run.path).identity
    environment = run.environment
    for name in ("config_sha256", "train_pairs_sha256", "held_out_pairs_sha256"):
        assert identity[name] == environment[name]
    assert identity["total_steps"] == 6
    weights = identity["base"]["files"]["model.safetensors"]
    assert weights == file_fingerprint(Path(run.config.model.name) / "model.safetensors")
    for name in ("train_ids_sha256", "held_out_ids_sha256", "tokenizer_sha256", "template_sha256"):
        assert len(identity[name]) == 64


def test_a_damaged_a_lost_and_a_rebuilt_file_are_named(run):
    run.folder.scores(3).unlink()
    run.folder.pairs.write_bytes(run.folder.pairs.read_bytes()[:-1])
    run.folder.status.unlink()
    (run.folder.adapter / "README.md").write_text("another")
    found = states(run)
    assert found.pop("scores/step-000003.parquet") == "lost"
    assert found.pop("pairs.parquet") == "damaged"
    assert found.pop("status.json") == "rebuilt"
    assert found.pop("adapter/README.md") == "damaged"
    assert set(found.values()) == {"whole"}
    assert run.status.step == run.status.total_steps == 6


def test_a_record_behind_the_seal_is_a_valid_state(run):
    append_jsonl(run.folder.metrics, {"kind": "event", "step": 6, "event": "saved", "text": "Saved.", "time": 0.0})
    assert set(states(run).values()) == {"whole"}
    shutil.copy(run.folder.scores(6), run.folder.scores(7))
    assert states(run)["scores/step-000007.parquet"] == "not sealed yet"
    with pytest.warns(DamageWarning, match="does not hold the scores of step 7"):
        assert set(run.scores["step"]) == {0, 3, 6}


def test_the_last_evaluation_is_never_an_earlier_one_because_a_file_is_gone(run):
    run.folder.scores(6).unlink()
    with pytest.raises(wb.WorkbenchError, match="scores/step-000006.parquet of the run 'finished' is lost"):
        run.compare()
    lines = run.folder.metrics.read_bytes().splitlines(keepends=True)
    run.folder.metrics.write_bytes(b"".join(lines[:-4]))
    (row,) = wb.list_runs(run.path.parent).to_dict("records")
    assert pd.isna(row["accuracy"])


def test_a_final_adapter_older_than_the_newest_checkpoint_is_not_given(run):
    assert run.adapter == run.folder.adapter
    own = json.loads((run.folder.adapter / "manifest.json").read_text())
    write_json(run.folder.adapter / "manifest.json", {"step": 4, "files": own["files"]})
    with pytest.raises(wb.WorkbenchError, match=r"older than its newest checkpoint, of step 6: run.adapter_at\(6\)"):
        _ = run.adapter


def test_flipped_base_weights_are_noticed(run, tmp_path):
    model = shutil.copytree(run.config.model.name, tmp_path / "model")
    manifest = Manifest.to_write(run.path)
    manifest.seal(base={**manifest.identity["base"], "folder": str(model)})
    weights = model / "model.safetensors"
    assert states(run, full=True)[f"base model: {weights}"] == "whole"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert states(run, full=True)[f"base model: {weights}"] == "damaged"


def test_large_weights_are_sampled_and_read_whole_when_asked(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes((8).to_bytes(8, "little") + b"{}      " + bytes(3_000_000))
    monkeypatch.setattr("simpo_workbench.base.hashes.WHOLE_BYTES", 1000)
    before = file_fingerprint(path)
    assert set(before) == {"bytes", "sampled"}
    for at, is_sampled in ((10, True), (2_999_999, True), (16 + 5000, False)):
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)
        assert (file_fingerprint(path) != before) == is_sampled, at
        assert file_fingerprint(path, whole=True)["sha256"] != file_fingerprint(path).get("sha256")
        content[at] ^= 1
        path.write_bytes(content)


def test_a_run_from_before_is_unverified(tmp_path):
    shutil.copytree(Path(__file__).parents[1] / "old_runs" / "finished", tmp_path / "runs" / "finished")
    run = wb.attach("finished", tmp_path / "runs")
    found = states(run)
    assert found["manifest.json"] == found["config.yaml"] == found["scores/step-000008.parquet"] == "unverified"
    assert found["checkpoints/step-000008/adapter/adapter_model.safetensors"] == "whole", "it had a checksum already"
    assert set(found.values()) == {"unverified", "whole"}
    assert run.adapter == run.folder.adapter


def test_the_command_says_it_and_its_exit_status_too(run):
    arguments = ["verify", "finished", "--root", str(run.path.parent)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    run.folder.pairs.unlink()
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "lost" in result.output


def test_names_notes_and_reports_are_outside_the_seal(run):
    renamed = run.path.rename(run.path.with_name("renamed"))
    (renamed / "notes.md").write_text("mine")
    (renamed / "log.txt").write_text("")
    wb.write_report(wb.attach("renamed", renamed.parent))
    assert set(states(wb.attach("renamed", renamed.parent)).values()) == {"whole"}


def test_a_failed_start_leaves_nothing_behind(tmp_path, monkeypatch):
    config = wb.RunConfig.from_dict({}, {"run.name": "one", "run.root": str(tmp_path)})
    monkeypatch.setattr("simpo_workbench.runs.launch.subprocess.Popen", failing)
    with pytest.raises(wb.WorkbenchError, match="cannot be started: No room"):
        wb.start(config)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("simpo_workbench.runs.manifest.write_json", failing)
    with pytest.raises(OSError, match="No room"):
        create_run(config)
    assert list(tmp_path.iterdir()) == []


def failing(*_, **__):
    raise OSError(12, "No room")


def test_a_run_that_cannot_be_resumed_keeps_its_status(run, monkeypatch):
    write_json(run.folder.status, {"state": "stopped", "step": 4, "total_steps": 6})
    before = run.folder.status.read_bytes()
    monkeypatch.setattr("simpo_workbench.runs.launch.subprocess.Popen", failing)
    with pytest.raises(wb.WorkbenchError, match="cannot be started"):
        wb.resume("finished", run.path.parent)
    assert run.folder.status.read_bytes() == before


def test_a_made_up_run_without_manifest_reads_as_before(tmp_path):
    run = fake_run(tmp_path, total_steps=20)
    assert states(run)["manifest.json"] == "lost"
    assert len(run.records) > 20
