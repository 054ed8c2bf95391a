"""What would be lost: seconds at every look, at files that have not changed; or a pair's numbers of another step."""

import pandas as pd
import pytest
from fake_run import fake_run

from simpo_workbench.analysis.leads import lead_history
from simpo_workbench.ui.pairs import pair_over_steps as journey_module
from simpo_workbench.ui.pairs.pair_over_steps import GROUPS, joined, journey_of_scores, read_journeys, runs_beside


@pytest.fixture
def run(tmp_path):
    return fake_run(tmp_path, total_steps=60, noise=0.05)


def test_what_was_read_once_is_taken_over(run):
    first, _, names = read_journeys(run, "")
    again, _, _ = read_journeys(run, "", first)
    assert names == []
    assert all(again.scores[step] is first.scores[step] for step in first.steps)
    assert all(again.answers[step] is first.answers[step] for step in first.steps)
    assert again.texts is first.texts
    assert (first.steps, first.noise, first.gamma_beta_ratio) == ([0, 20, 40, 60], 0.05, 0.5)


def test_files_that_are_gone_or_other_are_not_taken_over(run):
    first, _, _ = read_journeys(run, "")
    run.folder.scores(60).unlink()
    table = pd.read_parquet(run.folder.scores(40))
    table.assign(chosen_avg_logp=0.0).to_parquet(run.folder.scores(40))
    again, _, _ = read_journeys(run, "", first)
    assert again.steps == [0, 20, 40]
    assert (again.scores[40][1]["chosen_avg_logp"] == 0).all()


def test_its_history_is_that_of_the_scores(run):
    journey, _, _ = read_journeys(run, "")
    pd.testing.assert_frame_equal(journey.history(0.05), lead_history(run.scores, 0.05))
    pd.testing.assert_frame_equal(journey.history(0.0, 20), lead_history(run.scores.query("step <= 20")))
    pd.testing.assert_frame_equal(journey_of_scores(run.scores).history(0.05), lead_history(run.scores, 0.05))


def test_tables_put_together_one_by_one_give_the_same_journey(run):
    """pd.concat without ignore_index: every step has the row labels of the others."""
    whole = run.scores
    parts = pd.concat([whole[whole["step"] == step].reset_index(drop=True) for step in (40, 0, 60, 20)])
    found, wanted = journey_of_scores(parts), journey_of_scores(whole)
    pd.testing.assert_frame_equal(found.leads, wanted.leads)
    assert found.pair("pair-003", 45) == wanted.pair("pair-003", 45)


def test_a_history_is_made_once_for_each_step_and_not_kept_for_ever(run, monkeypatch):
    made, real = [], journey_module.history_of
    monkeypatch.setattr(journey_module, "history_of", lambda *given: made.append(len(given[0].columns)) or real(*given))
    journey, _, _ = read_journeys(run, "")
    for step in (60, 20, 60, 20, None):
        journey.history(0.05, step)
    assert made == [4, 2]
    journey.history(0.0, 20)
    assert made == [4, 2, 2], "another noise is another history"
    monkeypatch.setattr(journey_module, "_KEPT_HISTORIES", 3)
    pd.testing.assert_frame_equal(journey.history(0.05, 0), lead_history(run.scores.query("step == 0"), 0.05))
    assert len(journey._histories) == 3
    run.folder.scores(60).unlink()
    assert list(read_journeys(run, "", journey)[0].history(0.05).columns[2:5]) == [
        0,
        20,
        40,
    ], "of new files it is made anew"


def test_a_pair_has_the_numbers_of_the_first_and_of_the_reached_step(run):
    journey, _, _ = read_journeys(run, "")
    rows = run.scores[run.scores["pair_id"] == "pair-003"].set_index("step")
    pair = journey.pair("pair-003", 45)
    assert (pair["chosen_avg_logp_before"], pair["chosen_avg_logp_after"]) == (
        rows.loc[0, "chosen_avg_logp"],
        rows.loc[40, "chosen_avg_logp"],
    )
    assert pair["lead_after"] == rows.loc[40, "chosen_avg_logp"] - rows.loc[40, "rejected_avg_logp"]
    assert (pair["prompt"], pair["rejected"], pair["chosen_tokens"]) == (
        "Question 3?",
        "A long and winding answer 3.",
        20,
    )
    assert journey.pair("pair-003", 0)["lead"] == pair["lead_before"]
    assert [journey.reached(step) for step in (0, 39, 40, 99)] == [0, 20, 40, 60]


def test_only_evaluated_runs_of_the_same_root_can_stand_beside(run, tmp_path):
    fake_run(tmp_path, name="b-seed", total_steps=20)
    for path in fake_run(tmp_path, name="never-evaluated", total_steps=20).path.glob("scores/*"):
        path.unlink()
    fake_run(tmp_path / "elsewhere", name="far", total_steps=20)
    assert runs_beside(run) == ["b-seed"]
    assert read_journeys(run, "never-evaluated")[1] is None


def test_pairs_of_two_runs_are_grouped_by_who_is_right_beyond_the_noise():
    def scores(leads):
        return pd.DataFrame(
            [
                {"step": 0, "pair_id": pair_id, "chosen_avg_logp": lead - 2, "rejected_avg_logp": -2.0}
                for pair_id, lead in leads.items()
            ]
        )

    here = {"both": 0.5, "here": 0.5, "there": -0.5, "none": -0.5, "close": 0.001, "missing": 1.0}
    there = {"none": -0.1, "close": -0.5, "both": 0.001, "there": 0.5, "here": -0.5}
    rows = joined(lead_history(scores(here), 0.01), journey_of_scores(scores(there)), 0, 0.01).set_index("pair_id")
    wanted = {
        "both": "both right",
        "here": "only this run",
        "there": "only that run",
        "none": "neither",
        "close": "too close to tell",
    }
    assert rows["group"].to_dict() == wanted
    assert set(wanted.values()) == set(GROUPS)
    assert rows.loc["there", ["lead_here", "lead_there"]].tolist() == [-0.5, 0.5]
