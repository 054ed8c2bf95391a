"""What a user would lose to one damaged file: everything else, or the knowledge that something is damaged at all."""

import json
import warnings

import pandas as pd
import pytest
from click.testing import CliRunner
from damaged_runs import copied

import simpo_workbench as wb
from simpo_workbench.base.errors import DamageWarning
from simpo_workbench.base.files import read_json, write_json
from simpo_workbench.cli.main import main
from simpo_workbench.engine.identity import require_same
from simpo_workbench.report.report import report_html
from simpo_workbench.runs import launch
from simpo_workbench.runs.damage import damage_of
from simpo_workbench.runs.more_steps import is_finished_error


@pytest.fixture
def run(finished_run, tmp_path):
    return copied(finished_run(), tmp_path / "runs")


def place_of(run, kind, step):
    lines = run.folder.metrics.read_bytes().splitlines()
    records = [json.loads(line) for line in lines]
    return next(place for place, record in enumerate(records) if (record["kind"], record["step"]) == (kind, step))


def flip(run, place):
    lines = run.folder.metrics.read_bytes().splitlines(keepends=True)
    lines[place] = lines[place].replace(b'"time": 1', b'"time": 2')
    run.folder.metrics.write_bytes(b"".join(lines))


def listed(run):
    return wb.list_runs(run.path.parent).iloc[0]


def test_a_damaged_training_record_is_named_and_all_others_are_read(run):
    before, place = run.metrics, place_of(run, "train", 4)
    flip(run, place)
    words = f"line {place + 1}: its checksum does not agree"
    with pytest.warns(DamageWarning, match=words):
        after = run.metrics
    assert len(after) == len(before) - 1
    assert set(before["step"][before["kind"] == "train"]) - set(after["step"][after["kind"] == "train"]) == {4}
    with pytest.warns(DamageWarning, match=words):
        assert [record["step"] for record in run.records if record["kind"] == "eval"] == [0, 3, 6]
    table = wb.verify(run)
    assert words in table.set_index("file").loc["metrics.jsonl", "detail"]
    assert words in listed(run)["problem"]
    assert words in repr(run)
    with pytest.warns(DamageWarning, match=words):
        assert words in report_html(run)
    shown = CliRunner().invoke(main, ["show", run.name, "--root", str(run.path.parent)])
    assert shown.exit_code == 0
    assert words in shown.output


def test_a_lost_evaluation_is_left_out_of_the_table_and_no_verdict_is_given_without_it(run):
    flip(run, place_of(run, "eval", 3))
    with pytest.warns(DamageWarning, match="The evaluation of step 3 is not among them"):
        assert list(run.metrics.query("kind == 'eval'")["step"]) == [0, 6]
    for read in (lambda: run.records, lambda: run.objective, lambda: run.scoring_noise, lambda: report_html(run)):
        with pytest.raises(wb.WorkbenchError, match="the evaluation of step 3 was there"):
            read()


@pytest.mark.parametrize("step", [0, 6])
def test_no_evaluation_stands_for_the_first_or_the_last_one(run, step):
    flip(run, place_of(run, "eval", step))
    for read in (lambda: run.metrics, lambda: run.records):
        with pytest.raises(wb.WorkbenchError, match=f"line .* the evaluation of step {step} was there"):
            read()


def test_records_without_their_end_are_refused(run):
    lines = run.folder.metrics.read_bytes().splitlines(keepends=True)
    last = place_of(run, "eval", 6)
    run.folder.metrics.write_bytes(b"".join(lines[:last]))
    with pytest.raises(wb.WorkbenchError, match="metrics.jsonl of the run 'finished' is damaged"):
        _ = run.metrics


def test_the_last_event_may_be_damaged_but_not_the_last_step(run):
    number = len(run.folder.metrics.read_bytes().splitlines())
    flip(run, number - 1)
    with pytest.warns(DamageWarning, match=f"line {number}: its checksum does not agree"):
        assert run.objective.beta == 2
    run.folder.append_metrics({"kind": "train", "step": 7, "beta": 9.0})  # after run.set, in a process that was killed
    write_json(run.folder.status, {**read_json(run.folder.status), "step": 7})
    flip(run, number)
    with pytest.raises(wb.WorkbenchError, match="what was measured last may have been there"):
        _ = run.objective


@pytest.mark.parametrize("step", [0, 3, 6])
def test_without_one_table_of_scores_the_others_are_read(run, step):
    whole = run.scores
    run.folder.scores(step).unlink()
    with pytest.warns(DamageWarning, match=f"scores/step-00000{step}.parquet .* is lost.*step {step} are left out"):
        scores = run.scores
    pd.testing.assert_frame_equal(scores, whole[whole["step"] != step].reset_index(drop=True))
    if step == 3:
        assert len(run.compare()) == 8
    else:
        with pytest.raises(wb.WorkbenchError, match=f"scores/step-00000{step}.parquet .* is lost"):
            run.compare()
    page = report_html(run)
    assert f"scores/step-00000{step}.parquet is lost." in page
    assert ("What needs the scores of single pairs is left out" in page) == (step != 3)
    assert ('id="chart-histogram"' in page) == (step == 3)


@pytest.mark.parametrize(
    ("name", "is_shown"),
    [
        ("checkpoints/step-000003/adapter/adapter_model.safetensors", False),
        ("scores/step-000003.parquet", True),
        ("generations/step-000003.jsonl", True),
    ],
)
def test_report_terminal_and_list_name_a_lost_file(run, name, is_shown):
    (run.path / name).unlink()
    said = f"{name} is lost."
    assert damage_of(run.folder) == [said]
    assert (said in listed(run)["problem"]) == is_shown  # the list reads no manifests of checkpoints
    if "generations" not in name:
        assert said in report_html(run)
        assert f"Note: {said}" in CliRunner().invoke(main, ["show", run.name, "--root", str(run.path.parent)]).output


@pytest.mark.parametrize("name", ["scores/step-000006.parquet", "generations/step-000006.jsonl"])
def test_the_list_gives_no_accuracy_without_the_files_of_the_last_evaluation(run, name):
    assert listed(run)["accuracy"] >= 0
    (run.path / name).unlink()
    assert pd.isna(listed(run)["accuracy"])
    assert f"{name} is lost." in listed(run)["problem"]


def test_a_run_without_its_manifest_says_that_nothing_is_verified(run):
    run.folder.manifest.unlink()
    words = "manifest.json is lost, so nothing here can be verified"
    with warnings.catch_warnings():
        warnings.simplefilter("error", DamageWarning)
        assert len(run.scores) == 24
    assert words in listed(run)["problem"]
    assert words in repr(run)
    assert words in report_html(run)


def test_without_the_manifest_scores_are_held_against_the_records_and_settings_against_their_hash(run):
    run.folder.manifest.unlink()
    path = run.folder.scores(6)
    table = pd.read_parquet(path)
    table.assign(chosen_avg_logp=table["chosen_avg_logp"] + 5).to_parquet(path, index=False)
    with pytest.raises(wb.WorkbenchError, match=r"its logps/chosen is -?[\d.]+, and metrics.jsonl has"):
        run.scores_at(6)
    table.iloc[1:].to_parquet(path, index=False)
    with pytest.raises(wb.WorkbenchError, match="its pairs is 7, and metrics.jsonl has 8"):
        run.scores_at(6)
    text = run.folder.config.read_text(encoding="utf-8")
    run.folder.config.write_text(text.replace("learning_rate: 0.01", "learning_rate: 0.02"), encoding="utf-8")
    with pytest.raises(wb.WorkbenchError, match="environment.json has the hash of other settings"):
        _ = run.config


def test_the_start_of_a_run_does_not_change_with_its_files(run):
    before = listed(run)["started"]
    run.folder.config.write_bytes(run.folder.config.read_bytes()[:200])
    assert listed(run)["started"] == before
    run.folder.status.unlink()
    assert abs((listed(run)["started"] - before).total_seconds()) < 60, "from the first record"


def test_the_advice_for_more_steps_names_a_checkpoint_that_is_whole(run, monkeypatch):
    monkeypatch.setattr(launch, "launch", lambda folder, *_: folder)
    assert "step=6" in str(is_finished_error(run.folder, 6))
    (run.folder.checkpoint(6) / "training_state.pt").write_bytes(b"x")
    said = str(is_finished_error(run.folder, 6))
    assert "goes on from step 4, its newest checkpoint that is whole" in said
    assert wb.clone("finished", run.path.parent, step=4, changes={"training.max_steps": 12}).path.is_dir()
    for step in (2, 4):
        (run.folder.checkpoint(step) / "training_state.pt").unlink(missing_ok=True)
    assert "None of its checkpoints is whole" in str(is_finished_error(run.folder, 6))


def test_verify_ends_in_a_sentence_and_names_files_in_full(run):
    assert wb.verify(run).attrs["report"].endswith("files of the run 'finished' are whole.")
    run.folder.scores(3).unlink()
    table = wb.verify(run)
    assert list(table.iloc[0]) == ["scores/step-000003.parquet", "lost", ""]
    said = f"1 of {len(table)} files of the run 'finished' is not what was published: scores/step-000003.parquet (lost)"
    for text in (repr(table), table._repr_html_()):
        assert "checkpoints/step-000006/adapter/adapter_model.safetensors" in text
        assert said in text.replace("&#x27;", "'")
    result = CliRunner().invoke(main, ["verify", "finished", "--root", str(run.path.parent)])
    assert said in result.output


def test_a_file_that_is_lost_is_not_called_damaged(run):
    (run.folder.checkpoint(6) / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(wb.WorkbenchError, match=r"adapter_model.safetensors of the run 'finished' is lost\. Put back"):
        run.adapter_at(6)


def test_settings_of_an_ended_run_are_changed_by_a_clone(run):
    with pytest.raises(wb.WorkbenchError, match=r"its settings cannot be changed any more\. wb\.clone\('finished'"):
        run.set(beta=3)


def test_a_run_whose_base_was_not_sealed_is_not_refused_for_it():
    now = {"base": {"folder": "/models/demo", "files": {"model.safetensors": {"bytes": 5}}}}
    require_same("old", {"base": {"folder": "/somewhere/demo", "files": {}}}, now)
    with pytest.raises(wb.WorkbenchError, match="the weights of the base model"):
        require_same("old", {"base": {"folder": "/models/demo", "files": {"model.safetensors": {"bytes": 4}}}}, now)
