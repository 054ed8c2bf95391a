"""What would be lost: a weight that is not the gradient, a pair counted where it does not stand, or an interval that
promises too much.
"""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from fake_run import fake_run
from score_tables import of_leads

import simpo_workbench as wb
from simpo_workbench.analysis.geometry import PLACES, SATURATED, STATES, loss_at, pull_at
from simpo_workbench.analysis.scored_leads import Leads, leads_of
from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.ui.parts.fields import STOPS

# ℓ_w, ℓ_l, β, γ, loss at ε = 0, loss at ε = 0.1, ∂L/∂ℓ_w at ε = 0: in double precision from the formula of the paper
GOLDEN = [
    (-1.0, -1.5, 2.5, 1.375, 0.757599035, 0.745099035, -1.328023433),
    (-1.0, -1.5, 2.0, 1.0, 0.693147181, 0.693147181, -1.000000000),
    (-1.0, -1.5, 10, 3.0, 0.126928011, 0.326928011, -1.192029220),
    (-1.0, -1.5, 0.1, 0.5, 0.943248946, 0.898248946, -0.061063923),
    (-1.2, -0.9, 2.5, 1.375, 2.237822279, 2.025322279, -2.233273515),
    (-1.0, -1.0, 2.5, 1.375, 1.600412652, 1.462912652, -1.995466944),
    (-1.0, -1.5, 2.0, 0.0, 0.313261688, 0.413261688, -0.537882843),
]


# --- loss and gradient


@pytest.mark.parametrize(("chosen", "rejected", "beta", "gamma", "loss", "smoothed", "gradient"), GOLDEN)
def test_the_golden_values(chosen, rejected, beta, gamma, loss, smoothed, gradient):
    table = pd.DataFrame({"pair_id": ["a"], "chosen_avg_logp": [chosen], "rejected_avg_logp": [rejected]})
    found = wb.analysis.loss_geometry(table, beta, gamma / beta)
    assert found.pairs["loss"][0] == pytest.approx(loss, abs=1e-9)
    assert -found.pairs["gradient_weight"][0] == pytest.approx(gradient, abs=1e-9)
    assert wb.analysis.loss_geometry(table, beta, gamma / beta, 0.1).mean_loss == pytest.approx(smoothed, abs=1e-9)
    assert found.gamma == pytest.approx(gamma)


@pytest.mark.parametrize("smoothing", [0.0, 0.05, 0.1, 0.45])
def test_loss_gradient_and_saturation_are_autograds_over_all_slider_stops(smoothing):
    table = of_leads([-6.0, -2.5, -0.7, -0.01, 0.0, 0.01, 0.3, 0.5, 1.9, 6.0])
    leads = leads_of(table)
    for beta in STOPS["loss.beta"]:
        for ratio in STOPS["loss.gamma_beta_ratio"]:
            chosen, rejected = (
                torch.tensor(table[name].to_numpy(), requires_grad=True)
                for name in ("chosen_avg_logp", "rejected_avg_logp")
            )
            losses = wb.simpo_loss(chosen, rejected, beta, ratio, smoothing)
            losses.sum().backward()
            found = wb.analysis.loss_geometry(leads, beta, ratio, smoothing)
            weight = -chosen.grad.numpy()
            assert np.abs(found.loss - losses.detach().numpy()).max() < 1e-6
            assert np.abs(found.gradient_weight - weight).max() < 1e-6
            assert np.abs(rejected.grad.numpy() - weight).max() < 1e-6
            most = beta * (1 - smoothing)
            clear = np.abs(np.abs(weight) - SATURATED * most) > 1e-9
            assert ((found.pairs["state"] == "saturated") == (np.abs(weight) < SATURATED * most))[clear].all()


def test_far_out_nothing_overflows():
    with np.errstate(over="raise", invalid="raise"):
        assert loss_at(np.array([-2000.0, 2000.0])).tolist() == [2000.0, 0.0]
        assert pull_at(np.array([-2000.0, 2000.0])).tolist() == [1.0, 0.0]


def test_the_columns_are_those_of_the_scores_themselves(tmp_path):
    scores = fake_run(tmp_path).scores
    table = scores[scores["step"] == 60]
    found = wb.analysis.loss_geometry(table, 2.0, 0.5)
    for name in ("margin", "loss", "gradient_weight"):
        assert np.allclose(found.pairs[name], table[name], atol=1e-12)
    assert found.pairs["pair_id"].tolist() == table["pair_id"].tolist()


# --- where the pairs stand


def test_places_and_states_of_hand_placed_pairs():
    """β 2, γ/β 0.5: a pair is saturated from z = ln 19 = 2.944 on, a lead of 1.972, and in full pull up to a lead of
    −0.972.
    """
    found = wb.analysis.loss_geometry(of_leads([-1.0, -0.9, 0.0, 0.1, 0.5, 0.6, 1.9, 2.0]), 2.0, 0.5)
    assert found.bounds == pytest.approx((-math.log(19), math.log(19)))
    assert found.pairs["state"].tolist() == ["full pull", *["pulls"] * 6, "saturated"]
    assert found.pairs["place"].tolist() == [*["behind"] * 3, *["short of γ"] * 2, *["beyond γ"] * 3]
    assert found.counts == {
        "behind": 3,
        "short of γ": 2,
        "beyond γ": 3,
        "full pull": 1,
        "pulls": 6,
        "saturated": 1,
        "pulls back": 0,
        "still pull": 7,
    }


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_pair_exactly_at_a_bound_is_still_in_the_state_before_it(smoothing):
    bounds = wb.analysis.loss_geometry(of_leads([]), 1.0, 0.0, smoothing).bounds
    found = wb.analysis.loss_geometry(
        Leads([f"p{n}" for n in range(len(bounds))], np.array(bounds)), 1.0, 0.0, smoothing
    )
    assert found.z.tolist() == list(bounds)
    assert found.pairs["state"].tolist() == list(STATES[: len(bounds)])
    assert [found.counts[state] for state in STATES] == [int(state in STATES[: len(bounds)]) for state in STATES]


@pytest.mark.parametrize("smoothing", [0.0, 0.03, 0.2])
@pytest.mark.parametrize("ratio", [0.0, 0.35])
def test_the_counts_are_those_of_the_pairs(smoothing, ratio):
    leads = np.random.default_rng(1).normal(0.2, 1.5, 500).round(1)  # with many equal ones, at 0 too
    found = wb.analysis.loss_geometry(of_leads(leads), 3.0, ratio, smoothing)
    for names, column in ((PLACES, "place"), (STATES, "state")):
        assert {name: found.counts[name] for name in names} == {
            name: int((found.pairs[column] == name).sum()) for name in names
        }
    assert (found.counts["pulls back"] > 0) == (smoothing == 0.2)


def test_label_smoothing_lets_far_pairs_pull_back():
    found = wb.analysis.loss_geometry(of_leads([-3.0, 3.0]), 5.0, 0.0, 0.2)
    assert found.pull_share == pytest.approx([0.8, -0.2], abs=1e-5)
    assert found.pairs["state"].tolist() == ["full pull", "pulls back"]
    assert "1 pull back" in str(found)


def test_as_many_pairs_carry_the_gradient_as_are_equal():
    assert wb.analysis.loss_geometry(of_leads([0.3] * 7), 2.0, 0.5).effective_pairs == pytest.approx(7)
    far = wb.analysis.loss_geometry(of_leads([-5.0, -5.0, *[9.0] * 40]), 5.0, 0.5)
    assert far.effective_pairs == pytest.approx(2)
    everything = wb.analysis.loss_geometry(of_leads([900.0, 901.0]), 20.0, 0.0)
    assert 0 <= everything.effective_pairs <= 2


def test_empty_and_single_tables_are_told_as_they_are():
    empty = wb.analysis.loss_geometry(of_leads([]), 2.0, 0.5)
    assert "there are no pairs" in str(empty)
    assert empty.pairs.empty
    assert set(empty.counts.values()) == {0}
    assert math.isnan(empty.mean_loss)
    one = wb.analysis.loss_geometry(of_leads([0.2], chosen_tokens=[3], rejected_tokens=[9]), 2.0, 0.5)
    assert "1 pair" in str(one)
    assert "too few to say whether length" in str(one)
    assert one.cautions == ()


# --- length


def with_lengths(n=400, effect=0.0, seed=0):
    """Pairs whose chosen answer is the longer one in about half of the cases; `effect`: how much smaller their lead is
    then.
    """
    chance = np.random.default_rng(seed)
    longer = chance.random(n) < 0.5
    leads = chance.normal(0.0, 0.6, n) - effect * longer
    return of_leads(leads, chosen_tokens=np.where(longer, 60, 20), rejected_tokens=40), longer


def test_the_share_of_the_gradient_by_hand():
    """σ(ln 3) = 3/4 and σ(−ln 3) = 1/4: the two pairs weigh 3 : 1, and the first one's chosen answer is the longer."""
    table = of_leads([-math.log(3), math.log(3)], chosen_tokens=[9, 3], rejected_tokens=[5, 5])
    found = wb.analysis.loss_geometry(table, 1.0, 0.0).length
    assert (found.pairs_share, found.weight_share, found.other_share) == pytest.approx((0.5, 0.75, 0.25))
    assert found.difference == pytest.approx(0.25)


def test_the_interval_is_that_of_the_bootstrap():
    table, longer = with_lengths(effect=0.3)
    found = wb.analysis.loss_geometry(table, 2.0, 0.3)
    chance, weight = np.random.default_rng(3), found.pull_share
    drawn = [
        (weight[rows] @ longer[rows] / weight[rows].sum() - longer[rows].mean())
        for rows in chance.integers(0, len(weight), (4000, len(weight)))
    ]
    assert (found.length.low, found.length.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.003)


def test_a_clear_difference_is_said_and_none_is_not():
    clear = wb.analysis.loss_geometry(with_lengths(effect=0.5)[0], 2.0, 0.3).length
    assert clear.clear
    assert "whose chosen answer is the longer one pull harder" in str(clear)
    shorter = wb.analysis.loss_geometry(with_lengths(effect=-0.5)[0], 2.0, 0.3).length
    assert "whose chosen answer is the shorter one pull harder" in str(shorter)
    wrong = sum(wb.analysis.loss_geometry(with_lengths(seed=seed)[0], 2.0, 0.3).length.clear for seed in range(200))
    assert wrong <= 20, "where length has no effect, about one table in twenty may look as if it had"


def test_equal_pull_is_no_difference_however_exact():
    table = of_leads([0.25] * 60, chosen_tokens=[1] * 7 + [9] * 53, rejected_tokens=5)
    found = wb.analysis.loss_geometry(table, 3.0, 0.7).length
    assert not found.clear
    assert "no clear difference" in str(found)


def test_lengths_that_are_all_on_one_side_compare_with_nothing():
    found = wb.analysis.loss_geometry(
        of_leads(np.linspace(-1, 1, 40), chosen_tokens=3, rejected_tokens=30), 2.0, 0.5
    ).length
    assert "in no pair" in str(found)
    assert "Most of the gradient (100%) is for the shorter answer" in str(found)


def test_without_lengths_nothing_is_said_of_them():
    assert wb.analysis.loss_geometry(of_leads([0.1, 0.4]), 2.0, 0.5).length is None
    assert wb.analysis.loss_geometry(of_leads([0.1, 0.4], chosen_tokens=[3, 4]), 2.0, 0.5).length is None


def test_the_correlation_is_spearmans_whatever_the_sliders_say():
    """Longer chosen answers with ever smaller leads: rank correlation of length difference and pull is 1."""
    table = of_leads([0.9, 0.5, -0.1, -2.0], chosen_tokens=[1, 2, 3, 40], rejected_tokens=5)
    assert [wb.analysis.loss_geometry(table, beta, 0.4).length.correlation for beta in (0.1, 20)] == pytest.approx(
        [1.0, 1.0]
    )
    assert leads_of(of_leads([0.1] * 5, chosen_tokens=3, rejected_tokens=5)).length_correlation is None


# --- cautions


@pytest.mark.parametrize(
    ("leads", "beta", "ratio", "said"),
    [
        (np.linspace(2, 4, 30), 10.0, 0.5, "Nearly nothing is left to learn: 0 of 30"),
        (np.linspace(-0.2, 0.2, 30), 0.1, 0.5, "nearly a straight line"),
        (np.linspace(-4, -3, 30), 10.0, 0.5, "All pairs pull with nearly all they could"),
        (np.full(30, 0.2), 2.0, 0.5, "All pairs have the same lead"),
        ([*[-1.0] * 4, *np.linspace(1.2, 1.3, 36)], 4.0, 0.5, "Few pairs carry the gradient"),
        (np.linspace(-1, 1, 30), 2.0, 0.5, None),
    ],
)
def test_settings_that_do_not_suit_the_pairs_are_named(leads, beta, ratio, said):
    cautions = wb.analysis.loss_geometry(of_leads(leads), beta, ratio).cautions
    assert cautions == () if said is None else said in cautions[0]


# --- what is refused


def test_settings_come_from_the_table_where_none_are_given():
    table = of_leads([0.1, 0.2], beta=2.5, gamma_beta_ratio=0.55)
    assert (wb.analysis.loss_geometry(table).beta, wb.analysis.loss_geometry(table).gamma_beta_ratio) == (2.5, 0.55)
    assert (
        wb.analysis.loss_geometry(table, beta=4).beta,
        wb.analysis.loss_geometry(table, beta=4).gamma_beta_ratio,
    ) == (4.0, 0.55)


@pytest.mark.parametrize(
    ("change", "settings", "said"),
    [
        (lambda table: table.drop(columns="rejected_avg_logp"), {}, "lacks the column 'rejected_avg_logp'"),
        (lambda table: table.assign(step=[0, 20, 20]), {}, "holds 2 steps"),
        (lambda table: table.assign(pair_id="p0"), {}, "holds a pair twice"),
        (
            lambda table: table.assign(chosen_avg_logp=[-1.0, math.nan, -math.inf]),
            {},
            "2 values of chosen_avg_logp are not a finite number, the first of pair 'p1'",
        ),
        (lambda table: table.assign(rejected_avg_logp=["a", "b", "c"]), {}, "3 values of rejected_avg_logp"),
        (lambda table: table.drop(columns="beta"), {}, "does not say its beta: give beta="),
        (lambda table: table.assign(beta=[1.0, 2.0, 2.0]), {}, "does not say its beta"),
        (lambda table: table.assign(margin=[0.0, 0.0, 0.0]), {}, "not β × lead, as for DPO"),
        (lambda table: table, {"beta": 0}, "β = 0 is not possible"),
        (lambda table: table, {"beta": math.nan}, "β = nan is not possible"),
        (lambda table: table, {"gamma_beta_ratio": -0.1}, "γ/β = -0.1 is not possible"),
        (lambda table: table, {"label_smoothing": 0.5}, "label_smoothing 0.5 is not possible"),
        (lambda table: table, {"beta": "a"}, "beta = 'a' is not possible: expected a number"),
        (lambda table: table, {"gamma_beta_ratio": [0.5]}, "gamma_beta_ratio = [0.5] is not possible"),
        (lambda table: table, {"label_smoothing": None}, "label_smoothing = None is not possible"),
    ],
)
def test_what_cannot_be_told_is_refused_in_words(change, settings, said):
    table = of_leads([0.1, 0.2, 0.4], beta=2.0, gamma_beta_ratio=0.5)
    with pytest.raises(WorkbenchError) as error:
        wb.analysis.loss_geometry(change(table), **settings)
    assert said in str(error.value)


def test_the_pairs_of_another_loss_stand_where_simpo_would_see_them():
    table = of_leads([0.1, 0.2, 0.4], beta=0.1, gamma_beta_ratio=0.0, margin=[0.0, 0.0, 0.0])
    found = wb.analysis.loss_geometry(table, 2.0, 0.5)
    assert found.pairs["margin"].tolist() == pytest.approx([0.2, 0.4, 0.8])
    assert "another loss" in str(found)
    assert "another loss" not in str(
        wb.analysis.loss_geometry(table.assign(margin=0.1 * (table["chosen_avg_logp"] + 2)), 2.0, 0.5)
    )


def test_scores_in_single_precision_are_still_simpos():
    table = of_leads([0.1, 0.2, 0.4], beta=10.0, gamma_beta_ratio=0.5)
    table["margin"] = (10 * (table["chosen_avg_logp"] - table["rejected_avg_logp"])).astype("float32")
    assert leads_of(table).simpo
