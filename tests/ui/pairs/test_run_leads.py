"""What would be lost: seconds at every look, at files that have not changed; or a pair's numbers of another step."""

import pandas as pd
import pytest
from fake_run import fake_run, rescore

from simpo_workbench.analysis.leads import lead_history
from simpo_workbench.ui.pairs import run_leads as run_leads_module
from simpo_workbench.ui.pairs.run_leads import read_run_leads, run_leads_of_scores, runs_beside


@pytest.fixture
def run(tmp_path):
    return fake_run(tmp_path, total_steps=60, noise=0.05)


def test_what_was_read_once_is_taken_over(run):
    first, _, names = read_run_leads(run, "")
    again, _, _ = read_run_leads(run, "", first)
    assert names == []
    assert all(again.scores[step] is first.scores[step] for step in first.steps)
    assert all(again.answers[step] is first.answers[step] for step in first.steps)
    assert again.texts is first.texts
    assert (first.steps, first.noise, first.gamma_beta_ratio) == ([0, 20, 40, 60], 0.05, 0.5)


def test_files_that_are_gone_or_other_are_not_taken_over(run):
    first, _, _ = read_run_leads(run, "")
    run.folder.scores(60).unlink()
    table = pd.read_parquet(run.folder.scores(40))
    rescore(run, 40, table.assign(chosen_avg_logp=0.0))
    again, _, _ = read_run_leads(run, "", first)
    assert again.steps == [0, 20, 40]
    assert (again.scores[40][1]["chosen_avg_logp"] == 0).all()


def test_its_history_is_that_of_the_scores(run):
    here, _, _ = read_run_leads(run, "")
    pd.testing.assert_frame_equal(here.lead_history(0.05), lead_history(run.scores, 0.05))
    pd.testing.assert_frame_equal(here.lead_history(0.0, 20), lead_history(run.scores.query("step <= 20")))
    pd.testing.assert_frame_equal(run_leads_of_scores(run.scores).lead_history(0.05), lead_history(run.scores, 0.05))


def test_tables_put_together_one_by_one_give_the_same_leads(run):
    """pd.concat without ignore_index: every step has the row labels of the others."""
    whole = run.scores
    parts = pd.concat([whole[whole["step"] == step].reset_index(drop=True) for step in (40, 0, 60, 20)])
    found, wanted = run_leads_of_scores(parts), run_leads_of_scores(whole)
    pd.testing.assert_frame_equal(found.leads, wanted.leads)
    assert found.pair("pair-003", 45) == wanted.pair("pair-003", 45)


def test_a_history_is_made_once_for_each_step_and_not_kept_for_ever(run, monkeypatch):
    made, real = [], run_leads_module.lead_history_of
    monkeypatch.setattr(
        run_leads_module, "lead_history_of", lambda *given: made.append(len(given[0].columns)) or real(*given)
    )
    here, _, _ = read_run_leads(run, "")
    for step in (60, 20, 60, 20, None):
        here.lead_history(0.05, step)
    assert made == [4, 2]
    here.lead_history(0.0, 20)
    assert made == [4, 2, 2], "another noise is another history"
    monkeypatch.setattr(run_leads_module, "_KEPT_HISTORIES", 3)
    pd.testing.assert_frame_equal(here.lead_history(0.05, 0), lead_history(run.scores.query("step == 0"), 0.05))
    assert len(here._histories) == 3
    run.folder.scores(60).unlink()
    assert list(read_run_leads(run, "", here)[0].lead_history(0.05).columns[2:5]) == [
        0,
        20,
        40,
    ], "of new files it is made anew"


def test_a_pair_has_the_numbers_of_the_first_and_of_the_reached_step(run):
    here, _, _ = read_run_leads(run, "")
    rows = run.scores[run.scores["pair_id"] == "pair-003"].set_index("step")
    pair = here.pair("pair-003", 45)
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
    assert here.pair("pair-003", 0)["lead"] == pair["lead_before"]
    assert [here.reached(step) for step in (0, 39, 40, 99)] == [0, 20, 40, 60]


def test_only_evaluated_runs_of_the_same_root_can_stand_beside(run, tmp_path):
    fake_run(tmp_path, name="b-seed", total_steps=20)
    for path in fake_run(tmp_path, name="never-evaluated", total_steps=20).path.glob("scores/*"):
        path.unlink()
    fake_run(tmp_path / "elsewhere", name="far", total_steps=20)
    assert runs_beside(run) == ["b-seed"]
    assert read_run_leads(run, "never-evaluated")[1] is None
