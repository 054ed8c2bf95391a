"""What would be lost: days with a β that somebody guessed, or a suggestion that jumps with one pair and names no
reason.
"""

import numpy as np
import pandas as pd
import pytest
from score_tables import of_leads

import simpo_workbench as wb
from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.ui.parts.fields import STOPS


def normal(center, spread, n=2001):
    """Leads at the quantiles of a normal distribution: no chance in them."""
    from statistics import NormalDist

    return of_leads([NormalDist(center, spread).inv_cdf((k + 0.5) / n) for k in range(n)])


@pytest.mark.parametrize(
    ("center", "spread", "beta", "ratio"),
    [
        (0.0, 0.5, 4, 0.35),  # upper quartile 0.674 · 0.5 = 0.337; 2 / 0.5 = 4
        (0.0, 0.25, 8, 0.15),  # quartile 0.169; 2 / 0.25
        (-0.4, 0.25, 4, 0.1),  # quartile −0.23: the smallest goal; the median is 0.5 short of it, 2 / 0.5
        (0.1, 1.0, 2, 0.75),  # quartile 0.774; 2 / 1
        (0.05, 0.05, 10, 0.1),  # 2 / 0.05 = 40: the largest β
        (3.0, 4.0, 1, 1.0),  # 2 / 4 = 0.5: the smallest β; quartile 5.7: the largest goal
    ],
)
def test_the_suggestion_by_hand(center, spread, beta, ratio):
    found = wb.analysis.suggest_loss(normal(center, spread))
    assert (found.beta, found.gamma_beta_ratio) == (beta, ratio)
    assert f"β {beta:g}: the leads spread by {spread:.2g}" in str(found)
    assert str(found).startswith(f"β {beta:g}, γ/β {ratio:g} (γ {beta * ratio:.3g})")
    assert "learning rate decides more" in str(found)
    assert "Weak ground" not in str(found)


def test_wider_leads_never_ask_for_a_larger_beta_and_further_leads_never_for_a_smaller_goal():
    betas = [wb.analysis.suggest_loss(normal(0.0, spread)).beta for spread in np.geomspace(0.03, 5, 40)]
    assert betas == sorted(betas, reverse=True)
    assert (betas[0], betas[-1]) == (10, 1)
    moved = [wb.analysis.suggest_loss(normal(center, 0.4)) for center in np.linspace(-2, 2, 40)]
    assert [one.gamma_beta_ratio for one in moved] == sorted(one.gamma_beta_ratio for one in moved)
    assert [one.beta for one in moved] == sorted(one.beta for one in moved), "the further from the goal, the gentler"


def test_what_is_suggested_is_a_stop_of_the_sliders_and_leaves_most_pairs_pulling():
    for spread in np.geomspace(0.2, 2, 12):
        for center in (-0.5, 0.0, 0.2):
            table = normal(center, spread)
            found = wb.analysis.suggest_loss(table)
            assert found.beta in STOPS["loss.beta"]
            assert found.gamma_beta_ratio in STOPS["loss.gamma_beta_ratio"]
            there = wb.analysis.loss_geometry(table, found.beta, found.gamma_beta_ratio)
            assert there.counts["still pull"] > 0.9 * len(table)
            assert there.cautions == ()


def test_a_wild_pair_does_not_move_the_suggestion():
    table = normal(0.0, 0.5)
    wild = pd.concat([table, of_leads([40.0, -80.0]).assign(pair_id=["x", "y"])], ignore_index=True)
    assert wb.analysis.suggest_loss(wild).beta == wb.analysis.suggest_loss(table).beta
    assert wb.analysis.suggest_loss(wild).gamma_beta_ratio == wb.analysis.suggest_loss(table).gamma_beta_ratio


def test_weak_ground_is_called_so():
    assert wb.analysis.suggest_loss(of_leads([0.1, 0.4, 0.2])).reasons[0].startswith("Weak ground: 3 pairs.")
    one = wb.analysis.suggest_loss(of_leads([0.3]))
    assert (one.beta, one.gamma_beta_ratio) == (2, 0.3)
    assert "all leads are alike" in str(one)
    assert "all leads are alike" in str(wb.analysis.suggest_loss(of_leads([0.3] * 50)))
    with pytest.raises(WorkbenchError, match="no pairs to suggest"):
        wb.analysis.suggest_loss(of_leads([]))


def test_scores_after_training_are_said_to_be_such():
    assert "scores of step 50" in str(wb.analysis.suggest_loss(normal(0.0, 0.5).assign(step=50)))
    assert "scores of step" not in str(wb.analysis.suggest_loss(normal(0.0, 0.5).assign(step=0)))


def test_the_interval_of_the_quartile_holds_it():
    reasons = str(wb.analysis.suggest_loss(of_leads(np.arange(100) / 100)))
    assert (
        "leads by +0.74 nats per token or more (95 %: +0.66 to +0.83)" in reasons
    )  # ranks 75 ± 1.96 · √(100 · 0.75 · 0.25)
