"""What would be lost: a pair whose place on the loss is another than the run's, or tokens that are not those that were
scored, shown without a word.
"""

import math

import pandas as pd
import pytest
from fake_run import fake_run
from token_tables import by_hand

import simpo_workbench as wb
from simpo_workbench.ui.pairs.explained_pair import (
    ROUNDING,
    Scored,
    disagreements,
    explained_pair,
    facts_table,
    scored_pair,
)
from simpo_workbench.ui.pairs.loss_geometry import LossGeometry

MARGINS = wb.analysis.token_leads(by_hand())


def scored(chosen, rejected, step=20):
    return Scored(step, {"chosen": chosen, "rejected": rejected}, 2.0, 0.5)


def cells(markup):
    return [[cell.split("<")[0] for cell in row.split("<td>")[1:]] for row in str(markup).split("<tr>")[2:]]


def test_the_facts_stand_with_and_without_length_normalisation():
    rows = {row[0]: row[1:] for row in cells(facts_table(MARGINS))}
    assert rows["tokens, the end of turn among them"] == ["4", "5", "−1"]
    assert rows["average (nats per token), tuned"] == ["−0.90", "−1.30", "+0.40"]
    assert rows["average (nats per token), change"] == ["−0.03", "−0.40", "+0.38"]
    assert rows["sum (nats), base"] == ["−3.50", "−4.50", "+1.00"]
    alone = {row[0]: row[1:] for row in cells(facts_table(wb.analysis.token_leads(by_hand(base=False))))}
    assert alone["average (nats per token)"] == ["−0.90", "−1.30", "+0.40"]
    assert len(alone) == 3


def test_the_place_on_the_loss_is_that_of_the_formula_at_the_runs_own_settings(tmp_path):
    run = fake_run(tmp_path, total_steps=20, changes={"loss.beta": 2.5, "loss.gamma_beta_ratio": 0.3})
    shown = explained_pair(by_hand(), "x", run)
    z = 2.5 * (0.4 - 0.3)
    rows = {row[0]: row[1:] for row in cells(shown.place)}
    assert rows["lead (nats per token)"][1] == "+0.40"
    assert rows["z = margin − γ"][1] == "+0.25"
    assert rows["loss −log σ(z)"][1] == f"{math.log1p(math.exp(-z)):.3f}"
    assert rows["gradient weight β · σ(−z)"][1] == f"{2.5 / (1 + math.exp(z)):.3f}"
    assert "β 2.5, γ/β 0.3 (γ 0.75): as in the run" in shown.place


def test_settings_that_were_changed_on_the_way_are_those_of_the_scores(tmp_path):
    run = fake_run(tmp_path, total_steps=20)
    shown = explained_pair(
        by_hand(), "x", run, scored=(None, Scored(20, {"chosen": -0.9, "rejected": -1.3}, 4.0, 0.25))
    )
    assert (shown.loss.beta, shown.loss.gamma_beta_ratio) == (4.0, 0.25)
    assert "as in the run at step 20" in shown.place


def test_a_goal_of_zero_is_that_of_the_scores_too(tmp_path):
    run = fake_run(tmp_path, total_steps=20)
    shown = explained_pair(by_hand(), "x", run, scored=(None, Scored(20, {"chosen": -0.9, "rejected": -1.3}, 4.0, 0.0)))
    assert shown.loss.gamma_beta_ratio == 0.0
    assert "β 4, γ/β 0 (γ 0)" in shown.place
    unknown = explained_pair(
        by_hand(), "x", run, scored=(None, Scored(20, {"chosen": -0.9, "rejected": -1.3}, 4.0, None))
    )
    assert (unknown.loss.beta, unknown.loss.gamma_beta_ratio) == (4.0, 0.5)


def test_a_dpo_run_is_placed_where_loss_geometry_places_it_and_both_say_so(tmp_path):
    """DPO's β 0.1 would put every pair on a straight line."""
    run = fake_run(tmp_path, total_steps=20, changes={"loss.kind": "dpo", "loss.beta": 0.1})
    for step in (0, 20):
        table = pd.read_parquet(run.folder.scores(step))
        table.assign(margin=0.0, beta=0.1, gamma_beta_ratio=0.0).to_parquet(run.folder.scores(step))
    geometry = LossGeometry(run=run)
    geometry.snapshot()
    shown = explained_pair(by_hand(), "x", run, scored=(None, scored_pair(run, 20, "pair-003")))
    assert (
        (shown.loss.beta, shown.loss.gamma_beta_ratio, shown.loss.label_smoothing)
        == (geometry.beta, geometry.gamma_beta_ratio, geometry.label_smoothing)
        == (2.0, 0.5, 0.0)
    )
    assert "the default settings" in shown.place
    for words in (shown.place, geometry._what.value, geometry.snapshot()):
        assert "This run trains with DPO, whose margin counts from the base model" in words


def test_a_run_with_the_hinge_form_is_told_which_loss_stands_here(tmp_path):
    shown = explained_pair(
        by_hand(), "x", fake_run(tmp_path, total_steps=20, changes={"loss.kind": "simpo_hinge", "loss.beta": 2.5})
    )
    assert "hinge form" in shown.place
    assert "β 2.5, γ/β 0.5 (γ 1.25): as in the run" in shown.place
    assert "This run trains" not in explained_pair(by_hand(), "x").place


def test_the_step_after_which_a_run_replied_is_named():
    tokens = by_hand()
    tokens.attrs["step"] = 23
    assert "<h3>The tuned model · after step 23</h3>" in explained_pair(tokens, "The tuned model").said


def test_tokens_alone_are_placed_by_the_default_settings_and_say_so():
    assert "β 2, γ/β 0.5 (γ 1): the default settings" in explained_pair(by_hand(), "x").place


@pytest.mark.parametrize(
    ("apart", "noise", "said"),
    [(0.0, None, False), (0.0009, None, False), (0.0011, None, True), (0.004, 0.01, False), (0.02, 0.01, True)],
)
def test_averages_that_are_not_those_of_the_scores_are_said_beyond_the_noise(apart, noise, said):
    assert ROUNDING == 1e-3
    found = disagreements(MARGINS, (scored(-0.875, -0.9, 0), scored(-0.9, -1.3 + apart)), noise)
    assert bool(found) == said
    if said:
        assert f"at step 20: the rejected answer of the tuned model differs by {apart:.4f} nats per token" in found[0]
        assert ("was not measured" in found[0]) == (noise is None)


def test_the_base_model_is_held_against_step_zero():
    assert (
        "at step 0: the chosen answer of the base model differs by 0.1250"
        in disagreements(MARGINS, (scored(-1.0, -0.9, 0), None), None)[0]
    )
    assert disagreements(MARGINS, (None, None), None) == []


def test_the_runs_scores_of_a_pair_are_found_by_step_and_id(tmp_path):
    run = fake_run(tmp_path, total_steps=20)
    found = scored_pair(run, 20, "pair-003")
    row = run.scores.query("step == 20 and pair_id == 'pair-003'").iloc[0]
    assert found.averages == {"chosen": row["chosen_avg_logp"], "rejected": row["rejected_avg_logp"]}
    assert (found.beta, found.gamma_beta_ratio) == (2.0, 0.5)
    assert (
        scored_pair(run, 7, "pair-003") is scored_pair(run, None, "pair-003") is scored_pair(run, 20, "nobody") is None
    )


def test_remarks_prompt_and_title_are_text():
    tokens = by_hand()
    tokens.attrs["report"] = "The prompt <i>was cut</i>."
    said = explained_pair(tokens, "<b>Step 3</b>", prompt="<script>1</script>").said
    assert "&lt;i&gt;was cut" in said
    assert "<b>Step" not in said
    assert "<script" not in said
