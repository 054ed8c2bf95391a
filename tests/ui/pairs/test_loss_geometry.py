"""What would be lost: a slider that shows one value and draws another, a pair that cannot be opened, numbers of another
step than the one named.
"""

import numpy as np
import pandas as pd
import pytest
from fake_run import fake_run, scores
from panels import until, visible
from score_tables import of_leads

import simpo_workbench as wb
from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.charts.geometry import MOST
from simpo_workbench.charts.subplots import COLORS
from simpo_workbench.config.run_config import LossConfig
from simpo_workbench.ui.pairs.loss_geometry import LossGeometry


@pytest.fixture
def run(tmp_path):
    return fake_run(tmp_path, total_steps=40)


@pytest.fixture
def panel(run):
    made = LossGeometry(run=run)
    until(lambda: made.geometry)
    return made


def drawn(panel, name="pairs"):
    return next(trace for trace in panel._curve["data"] if trace["name"] == name)


# --- what is read


def test_without_scores_it_says_where_they_come_from(tmp_path):
    panel = LossGeometry()
    assert "after the first evaluation" in panel._empty.value
    assert not visible(panel._content)
    assert "after the first evaluation" in panel.snapshot()
    run = fake_run(tmp_path)
    for path in run.path.glob("scores/*"):
        path.unlink()
    panel.run = run
    panel.snapshot()
    assert visible(panel._empty)
    assert panel.trouble == ""


def test_a_run_is_shown_at_its_newest_step_with_its_own_settings(panel, run):
    table = run.scores
    newest = table[table["step"] == 40]
    assert panel.step.value == 40
    assert (panel.beta, panel.gamma_beta_ratio) == (2.0, 0.5)
    assert np.allclose(panel.geometry.loss, newest["loss"])
    assert np.allclose(panel.geometry.gradient_weight, newest["gradient_weight"])
    assert drawn(panel)["x"] == pytest.approx(newest["margin"].to_numpy() - 1.0)
    assert "24 held-out pairs" in panel._what.value


def test_another_step_is_read_when_it_is_chosen_and_the_sliders_stay(panel, run):
    panel.beta = 5.0
    panel.step.value = 20
    until(lambda: panel._loaded.step == 20)
    table = run.scores
    assert panel.beta == 5.0
    assert panel.geometry.z == pytest.approx(5 * (table.loc[table["step"] == 20, "margin"].to_numpy() / 2 - 0.5))


def test_refresh_follows_the_newest_evaluation_but_not_who_looks_at_another(panel, run):
    scores(60, 60, 24).to_parquet(run.folder.scores(60))
    panel.refresh()
    until(lambda: panel.step.value == 60)
    panel.step.value = 20
    until(lambda: panel._loaded.step == 20)
    scores(80, 80, 24).to_parquet(run.folder.scores(80))
    panel.refresh()
    until(lambda: 80 in panel._loaded.steps)
    assert panel.step.value == 20


def test_a_step_that_cannot_be_read_leaves_what_was_there(panel, run):
    run.folder.scores(20).write_bytes(b"no table")
    panel.step.value = 20
    until(lambda: "Error" in panel.line.value)
    assert panel.step.value == 40
    assert "24 held-out pairs" in panel._what.value


def test_another_run_begins_anew(panel, tmp_path):
    panel.picked = "pair-003"
    panel.run = fake_run(tmp_path, name="other", total_steps=20, pairs=3)
    until(lambda: panel.geometry is not None and len(panel.geometry.leads) == 3)
    assert panel.picked == ""
    panel.run = None
    assert panel.geometry is None
    assert not visible(panel._content)


def test_a_table_alone_has_no_steps(run):
    table = run.scores
    panel = LossGeometry(table[table["step"] == 20])
    assert panel.trouble == ""
    assert not visible(panel.step)
    assert panel.as_scored.description == "As scored"
    assert np.allclose(panel.geometry.loss, table.loc[table["step"] == 20, "loss"])


def test_a_wrong_table_is_refused_in_words(run):
    panel = LossGeometry(run.scores)
    assert "holds 3 steps" in panel.line.value
    assert panel.trouble == ""
    assert "lacks the column" in LossGeometry(pd.DataFrame({"pair_id": ["a"]})).line.value


@pytest.mark.parametrize("leads", [[], [0.3], [0.2] * 40])
def test_tables_without_spread_are_shown(leads):
    panel = LossGeometry(of_leads(leads, beta=2.0, gamma_beta_ratio=0.5))
    assert panel.trouble == ""
    assert "Error" not in panel.line.value
    panel.beta = 7.0
    panel.snapshot()
    assert panel.trouble == ""
    assert panel.suggested.disabled == (not leads)


def test_scores_of_another_loss_begin_with_the_defaults_and_say_so():
    panel = LossGeometry(of_leads([0.1, 0.4, -0.3], beta=0.1, gamma_beta_ratio=0.0, margin=0.0))
    assert (panel.beta, panel.gamma_beta_ratio) == (LossConfig().beta, LossConfig().gamma_beta_ratio)
    assert "made with DPO" in panel._what.value
    assert panel.as_scored.disabled
    assert "another loss" in panel.as_scored.tooltip


def test_a_run_with_the_hinge_form_says_that_this_is_the_other(tmp_path):
    panel = LossGeometry(run=fake_run(tmp_path, total_steps=20, changes={"loss.kind": "simpo_hinge"}))
    assert "hinge form" in panel.snapshot()
    assert "hinge form" in panel._what.value


# --- the sliders


def test_a_slider_moves_the_pairs_and_the_field_beside_it(panel):
    slider, number = panel.beta_dial
    slider.value = 10
    assert (panel.beta, number.value) == (10.0, 10.0)
    assert panel.geometry.beta == 10.0
    assert drawn(panel)["y"] == pytest.approx(panel.geometry.loss[np.abs(panel.geometry.z) <= 6])
    assert "<b>5</b>" in panel._gamma.value
    panel.ratio_dial[0].value = 0.3
    assert "<b>3</b>" in panel._gamma.value
    assert "γ/β 0.3 (γ 3)" in [note.text for note in panel.lead_chart.widget.layout.annotations]


def test_any_number_can_be_typed_and_the_slider_stands_near_it(panel):
    panel.beta_dial[1].value = 2.37
    assert panel.beta == 2.37
    assert panel.beta_dial[0].value == 2.5
    assert panel.beta_dial[1].value == 2.37, "the slider does not bend what was typed"


@pytest.mark.parametrize(
    ("trait", "value", "said"),
    [
        ("beta", 0.0, "β = 0 is not possible"),
        ("gamma_beta_ratio", -1.0, "γ/β = -1 is not possible"),
        ("label_smoothing", 0.5, "label_smoothing 0.5"),
    ],
)
def test_what_is_not_possible_is_refused_and_does_not_stay(panel, trait, value, said):
    before = getattr(panel, trait)
    with pytest.raises(WorkbenchError, match=said.replace("=", ".")):
        setattr(panel, trait, value)
    assert getattr(panel, trait) == before


def test_a_number_that_is_not_possible_leaves_its_field(panel):
    panel.beta_dial[1].value = -3.0
    assert "β = -3 is not possible" in panel.line.value
    assert panel.beta_dial[1].value == panel.beta == 2.0
    assert panel.trouble == ""


def test_the_buttons_set_both_values_at_once(panel, run):
    table = run.scores
    made = wb.analysis.suggest_loss(table[table["step"] == 0])
    panel.suggested.click()
    assert (panel.beta, panel.gamma_beta_ratio) == (made.beta, made.gamma_beta_ratio)
    assert made.reasons == panel.suggestion.reasons
    assert "the scores before training (24 pairs)" in panel._advice.value
    panel.as_scored.click()
    assert (panel.beta, panel.gamma_beta_ratio) == (2.0, 0.5)


def test_label_smoothing_bends_the_loss(panel):
    panel._smoothing.value = 0.2
    assert panel.label_smoothing == 0.2
    pull = np.exp(-panel.geometry.z) / (1 + np.exp(-panel.geometry.z)) - 0.2
    assert drawn(panel)["marker"]["color"] == pytest.approx(pull)
    panel.as_scored.click()
    assert panel.label_smoothing == 0.0


def test_the_values_go_where_somebody_wants_them(run):
    taken = []
    panel = LossGeometry(run=run, on_use=lambda *values: taken.append(values))
    panel.snapshot()
    assert visible(panel.use)
    panel.beta = 4.0
    panel.use.click()
    assert taken == [(4.0, 0.5)]
    assert not visible(LossGeometry(run=run).use)


# --- choosing


def test_a_point_that_is_clicked_is_picked_named_and_ringed(panel):
    panel._point_chosen("pairs", [3])
    assert panel.picked == "pair-003"
    assert "Question 3?" in panel._picked.value
    assert "nats per token" in panel._picked.value
    assert drawn(panel, "chosen pairs")["x"] == pytest.approx([panel.geometry.z[3]])
    panel.chosen = ["pair-005"]
    assert panel.picked == "", "so that a click on the same point is heard again"
    assert drawn(panel, "chosen pairs")["x"] == pytest.approx([panel.geometry.z[5]])


@pytest.mark.parametrize("ids", [range(24), np.arange(24), [float(n) for n in range(24)]])
def test_pairs_that_are_numbered_can_be_clicked(run, ids):
    table = run.scores
    panel = LossGeometry(table[table["step"] == 40].assign(pair_id=ids))
    panel._point_chosen("pairs", [3])
    assert "Question 3?" in panel._picked.value
    assert drawn(panel, "chosen pairs")["x"] == pytest.approx([panel.geometry.z[3]])
    assert panel.trouble == ""


def test_the_curve_is_not_a_pair(panel):
    panel._point_chosen("pull", [7])
    panel._point_chosen("loss", [7])
    assert panel.picked == ""
    assert panel.trouble == ""


def test_rings_go_with_their_pairs(panel):
    panel.chosen = ["pair-003", "nobody"]
    panel.beta = 6.0
    assert drawn(panel, "chosen pairs")["x"] == pytest.approx(panel.geometry.z[[3]].clip(-6, 6))


# --- looks


def test_the_numbers_are_those_of_the_geometry(panel):
    counts, text = panel.geometry.counts, panel._tiles.value
    assert f"{counts['still pull']} of 24" in text
    assert f"{counts['short of γ']} ahead, but short of it" in text
    assert "The chosen answer is the longer one in no pair" in panel._words.value
    assert f"<td>{counts['behind']}</td>" in panel.chart.words.value


def test_the_charts_follow_the_theme(panel):
    panel._frame.theme = "dark"
    assert panel.trouble == ""
    assert (
        panel.chart.widget.layout.paper_bgcolor
        == panel.lead_chart.widget.layout.paper_bgcolor
        == COLORS["dark"]["ground"]
    )


def test_the_still_picture_holds_the_sentences_and_the_suggestion(run):
    picture = LossGeometry(run=run).snapshot().striptags()
    assert "24 pairs: mean loss" in picture
    assert "Suggested: β" in picture


def test_markup_in_texts_and_ids_is_text(tmp_path):
    bad = "<img src=x onerror=alert(1)>"
    panel = LossGeometry(run=fake_run(tmp_path, total_steps=20, texts=(bad, bad, bad)))
    panel.snapshot()
    panel._point_chosen("pairs", [0])
    assert "&lt;img" in panel._picked.value
    assert not any("<img" in text for trace in panel.chart.widget.data if trace.text is not None for text in trace.text)
    named = LossGeometry(of_leads([0.1, 0.2], beta=2.0, gamma_beta_ratio=0.5).assign(pair_id=[bad, "b"]))
    named._point_chosen("pairs", [0])
    assert named.picked == bad
    assert "<img" not in named._picked.value + named.snapshot()


def test_sixty_thousand_pairs_send_a_few_bubbles():
    chance = np.random.default_rng(0)
    panel = LossGeometry(
        of_leads(chance.normal(-0.2, 0.6, 60_000), beta=2.0, gamma_beta_ratio=0.5, chosen_tokens=40, rejected_tokens=45)
    )
    for beta in (0.5, 3.0, 10.0):
        panel.beta = beta
        assert sum(len(trace["x"]) for trace in panel._curve["data"]) < 400
    panel._point_chosen("pairs", [0])
    assert panel.picked in panel.geometry.leads.places
    assert len(panel.geometry.leads) > MOST
    assert panel.trouble == ""
