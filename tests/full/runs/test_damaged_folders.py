"""The faults of tests/runs/test_damaged_folders.py at length: any file, any place, and cut configurations."""

import shutil

import pytest
from damaged_runs import FINAL_PAIRS, answers, copied, damages, wrong_answers
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import simpo_workbench as wb
from simpo_workbench.engine import checkpoints


@pytest.fixture(scope="module")
def whole(finished_run, tmp_path_factory):
    """(a finished run, where its copies are damaged, what all readers say of a copy that is whole)."""
    place = tmp_path_factory.mktemp("copies") / "runs"
    run = finished_run(FINAL_PAIRS)
    return run, place, answers(copied(run, place))


@settings(max_examples=400, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_fault_of_a_run_folder_gives_the_right_answer_or_a_sentence(whole, data):
    run, place, right = whole
    damage, copy = data.draw(damages(run.path)), copied(run, place)
    damage.do(copy.path)
    assert wrong_answers(damage, copy, right) == []


@pytest.fixture(scope="module")
def whole_in_full(whole):
    run, place, _ = whole
    return run, place, answers(copied(run, place), with_report=True)


@settings(max_examples=40, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_so_do_report_charts_terminal_and_exported_tables(whole_in_full, data):
    run, place, right = whole_in_full
    damage, copy = data.draw(damages(run.path)), copied(run, place)
    damage.do(copy.path)
    assert wrong_answers(damage, copy, right) == []


def test_the_report_of_a_damaged_run_is_that_of_the_whole_one_or_a_sentence(finished_run, tmp_path):
    run = copied(finished_run(FINAL_PAIRS), tmp_path / "runs")
    for name in (
        "metrics.jsonl",
        "config.yaml",
        "pairs.parquet",
        "final/step-000006.parquet",
    ):
        content = (run.path / name).read_bytes()
        (run.path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(wb.WorkbenchError, match=f"{name} of the run 'finished' is damaged"):
            wb.write_report(run, tmp_path / "report.html")
        (run.path / name).write_bytes(content)
    wb.write_report(run, tmp_path / "report.html")


def test_a_cut_configuration_is_never_read_as_another_run(finished_run, tmp_path):
    run = copied(finished_run(), tmp_path / "runs")
    run.folder.manifest.unlink()  # as a run from before there was one
    content = run.folder.config.read_bytes()
    for cut in range(len(content)):
        run.folder.config.write_bytes(content[:cut])
        with pytest.raises(wb.WorkbenchError, match="config.yaml of the run 'finished' is damaged"):
            _ = run.config


def test_a_run_whose_checkpoints_are_all_lost_does_not_begin_again_without_a_word(finished_run, tmp_path):
    run = copied(finished_run(), tmp_path / "runs")
    shutil.rmtree(run.folder.checkpoints)
    with pytest.raises(wb.WorkbenchError, match="has no checkpoint to go on from. step-000006 is lost"):
        checkpoints.newest_valid(run.folder)
