"""A run whose γ was changed on the way: a later share beyond γ that only a smaller γ made must not win."""

import pytest
from fake_run import BETA, evaluation_record, fake_run, sampled, scores
from token_tables import by_hand

from simpo_workbench.analysis.objective import at_objective
from simpo_workbench.analysis.recommendation import recommend
from simpo_workbench.base.files import read_jsonl, write_jsonl
from simpo_workbench.cli.last_screen import print_summary
from simpo_workbench.report.facts import headline_of
from simpo_workbench.report.report import report_html
from simpo_workbench.runs.metrics_tail import MetricsTail
from simpo_workbench.ui.pairs.explained_pair import explained_pair, scored_pair


@pytest.fixture
def set_run(tmp_path):
    """γ/β 0.5 until step 20, then 0. The best step is 20: at 40 the leads are back where they were."""
    run = fake_run(tmp_path, total_steps=40, pairs=24)
    loss = run.config.loss
    none = loss.model_copy(update={"gamma_beta_ratio": 0.0})
    tables = {0: scores(0, 40, 24), 20: scores(40, 40, 24).assign(step=20), 40: scores(8, 40, 24).assign(step=40)}
    tables[40] = at_objective(tables[40], none)
    prompts = ["a", "b"]
    records, first = [], None
    for step, table in tables.items():
        table.to_parquet(run.folder.scores(step), index=False)
        record = evaluation_record(step, table, sampled(0, 40, prompts), first)
        first = first or record
        records.append(record)
    records.insert(2, {"kind": "event", "step": 20, "event": "set", "changes": {"gamma_beta_ratio": 0.0}})
    write_jsonl(run.folder.metrics, records)
    return run


def test_the_recommended_step_is_chosen_at_one_objective(set_run):
    written = [record for record in read_jsonl(set_run.folder.metrics) if record["kind"] == "eval"]
    rises = [record["eval/rewards/beyond_gamma"] for record in written]
    assert rises[2] > rises[1] > rises[0], "as it was recorded the last step looks best"
    evaluations = [record for record in set_run.records if record["kind"] == "eval"]
    shares = [record["eval/rewards/beyond_gamma"] for record in evaluations]
    assert shares[1] > shares[2], "at γ/β 0 step 20 is better"
    assert recommend(set_run.records) == 20
    assert [record.get("measured_gamma_beta_ratio") for record in evaluations] == [0.5, 0.5, None]
    assert {record["gamma_beta_ratio"] for record in evaluations} == {0.0}


def test_the_head_of_a_run_names_the_last_objective_and_the_first(set_run):
    assert "γ/β 0 (γ 0), at first β 2, γ/β 0.5" in headline_of(set_run)
    assert "γ/β 0 (γ 0), at first β 2, γ/β 0.5" in report_html(set_run)


def test_the_note_is_there_as_soon_as_the_objective_is_set(tmp_path):
    run = fake_run(tmp_path, total_steps=40, last_step=20, pairs=8, state="training")
    assert run.objective_note == ""
    event = {"kind": "event", "step": 20, "event": "set", "changes": {"beta": 4.0}}
    event |= {"beta": 4.0, "gamma_beta_ratio": 0.5}
    write_jsonl(run.folder.metrics, [*read_jsonl(run.folder.metrics), event])
    assert "it was β 2, γ/β 0.5. All held-out numbers are at β 4, γ/β 0.5" in run.objective_note


def test_scores_comparisons_and_the_note_are_at_the_last_objective(set_run):
    assert set_run.objective.gamma_beta_ratio == 0.0
    assert set(set_run.scores["gamma_beta_ratio"]) == {0.0}
    before = set_run.scores_at(0)
    assert (before["beyond_gamma"] == (before["margin"] > 0)).all()
    assert (before["margin"] == BETA * (before["chosen_avg_logp"] - before["rejected_avg_logp"])).all()
    compared = set_run.compare()
    assert (compared["beyond_gamma_before"] == (compared["lead_before"] > 0)).all()
    assert "γ/β 0.5" in set_run.objective_note
    assert "γ/β 0, the last one" in set_run.objective_note


def test_what_depends_on_the_objective_is_left_out_where_its_scores_are_gone(set_run):
    set_run.folder.scores(0).unlink()
    first = set_run.records[0]
    assert "eval/rewards/beyond_gamma" not in first
    assert first["eval/rewards/accuracies"] > 0


def test_a_run_with_one_objective_has_no_note_and_its_records_as_they_were(tmp_path):
    run = fake_run(tmp_path, total_steps=20)
    assert run.objective_note == ""
    assert run.records == read_jsonl(run.folder.metrics)


def test_a_tail_has_the_evaluations_of_the_records(set_run):
    tail = MetricsTail(set_run.folder.metrics)
    tail.read()
    loss = set_run.config.loss
    assert tail.objective(loss) == set_run.objective
    evaluations = [record for record in set_run.records if record["kind"] == "eval"]
    assert tail.evaluations_at_last_objective(loss) == evaluations
    assert tail.frame(evaluations)["gamma_beta_ratio"].dropna().unique().tolist() == [0.0]


def test_report_and_show_print_the_note_and_a_pair_stands_on_the_last_loss(set_run, capsys):
    print_summary(set_run)
    printed = " ".join(capsys.readouterr().out.split())
    assert set_run.objective_note in printed
    assert set_run.objective_note in report_html(set_run)
    at_20 = scored_pair(set_run, 20, "pair-003")
    assert at_20.gamma_beta_ratio == 0.5, "as it was scored"
    shown = explained_pair(by_hand(), "x", set_run, scored=(None, at_20))
    assert shown.loss.gamma_beta_ratio == 0.0
    assert "γ/β 0 (γ 0): the last objective of the run" in shown.place
