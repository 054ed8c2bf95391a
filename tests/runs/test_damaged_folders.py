"""A user would lose the truth: a damaged run folder that shows a wrong number, or hides every other run behind a
traceback. tests/full/runs/test_damaged_folders.py does the same at length, with the report.
"""

import pytest
from damaged_runs import FINAL_PAIRS, Damage, answers, copied, damages, wrong_answers
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

SCORES = "scores/step-000006.parquet"


@pytest.fixture(scope="module")
def whole(finished_run, tmp_path_factory):
    """(a finished run, where its copies are damaged, what all readers say of a copy that is whole)."""
    place = tmp_path_factory.mktemp("copies") / "runs"
    run = finished_run(FINAL_PAIRS)
    return run, place, answers(copied(run, place))


def test_a_copy_that_is_whole_reads_the_same_and_every_file_is_whole(whole):
    run, place, right = whole
    assert wrong_answers(Damage("flip", "log.txt", is_harmless=True), copied(run, place), right) == []
    assert set(right["verify"]["state"]) == {"whole"}


@pytest.mark.parametrize(
    "damage",
    [
        Damage("cut", "metrics.jsonl", 0),
        Damage("delete", "metrics.jsonl"),
        Damage("last byte", "metrics.jsonl"),
        Damage("copy", "checkpoints/step-000003/manifest.json", other="status.json"),
        Damage("delete", "status.json"),
        Damage("delete", "manifest.json"),
        Damage("cut", "config.yaml", 0),
        Damage("delete", SCORES),
        Damage("copy", "scores/step-000003.parquet", other=SCORES),
        Damage("copy", "scores/step-000003.parquet", other="scores/step-000005.parquet", is_harmless=True),
        Damage("copy", "generations/step-000003.jsonl", other="generations/step-000006.jsonl"),
        Damage("delete", "final/step-000006.parquet"),
        Damage("copy", "final/step-000000.parquet", other="final/step-000006.parquet"),
        Damage("copy", "scores/step-000006.parquet", other="final/step-000006.parquet"),
        Damage("cut", "final/looks.json", 20),
        Damage("delete", "final/pairs.parquet"),
        Damage("flip", "adapter/adapter_model.safetensors", 900),
        Damage("delete", "adapter/manifest.json"),
        Damage("delete", "checkpoints/step-000006/manifest.json"),
    ],
    ids=lambda damage: f"{damage.kind} {damage.file}",
)
def test_one_fault_gives_the_right_answer_or_a_sentence(whole, damage):
    run, place, right = whole
    copy = copied(run, place)
    damage.do(copy.path)
    assert wrong_answers(damage, copy, right) == []


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_any_fault_gives_the_right_answer_or_a_sentence(whole, data):
    run, place, right = whole
    damage, copy = data.draw(damages(run.path)), copied(run, place)
    damage.do(copy.path)
    assert wrong_answers(damage, copy, right) == []
