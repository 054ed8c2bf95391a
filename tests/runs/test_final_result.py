"""What a user would lose: the result of the chosen step on pairs that did not choose it, or the reason for none."""

import pytest
from fake_run import fake_run, scores

from simpo_workbench.base.files import read_json, write_json


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    return fake_run(tmp_path_factory.mktemp("runs"), final=30)


def test_it_is_the_paired_change_of_the_final_pairs(reported):
    """The share of leads above 0 among 30, counted by hand from the tables that were written."""
    final = reported.final
    assert (final.step, final.pairs) == (120, 30)
    before, after = (scores(step, 120, 30, name="final")["margin"] > 0 for step in (0, 120))
    came, fell = int((after & ~before).sum()), int((before & ~after).sum())
    row = final.table.set_index("metric").loc["chosen ahead"]
    assert row[["base", "recommended"]].tolist() == [before.mean(), after.mean()]
    assert row[["up", "down", "n"]].tolist() == [came, fell, 30]
    assert row["change"] == pytest.approx((came - fell) / 30)
    assert row["low"] < row["change"] < row["high"]
    assert row["judgement"] == "better"
    assert f"{before.mean():.2f} → {after.mean():.2f} (change +{row['change']:.2f}, 95 % +" in str(final)
    assert len(final.scores) == 60
    assert final.scores["prompt"].notna().all()


def test_scores_of_an_earlier_recommended_step_stand_for_no_other(tmp_path):
    """A wrong number would be that of step 120 while another step is recommended."""
    run = fake_run(tmp_path, final=30)
    write_json(run.folder.status, {**read_json(run.folder.status), "recommended_step": 80})
    assert run.final.step is None
    assert str(run.final) == "Step 80 is not scored on the final pairs: that happens when a run ends in order."
    write_json(run.folder.status, {**read_json(run.folder.status), "recommended_step": 0})
    assert str(run.final).startswith("The base model is the recommended one: there is no trained step")


def test_a_run_that_trains_says_when_they_are_scored(tmp_path):
    run = fake_run(tmp_path, last_step=110, state="training", final=30)
    assert str(run.final) == (
        "The final pairs are scored when the run ends, for the step that is then recommended (now 100)."
    )


def test_without_final_pairs_the_reason_is_said_and_runs_from_before_say_nothing(tmp_path):
    run = fake_run(tmp_path)
    assert str(run.final) == "24 held-out pairs are too few."
    facts = read_json(run.folder.environment)
    write_json(run.folder.environment, {name: value for name, value in facts.items() if name != "final_share"})
    assert (str(run.final), run.final.step, len(run.final.table)) == ("", None, 0)


def test_it_is_the_same_without_a_status(reported, tmp_path):
    expected = str(reported.final)
    status = reported.folder.status.read_bytes()
    reported.folder.status.unlink()
    try:
        assert str(reported.final) == expected
    finally:
        reported.folder.status.write_bytes(status)
