"""A share beyond γ at γ/β 0.5 beside one at 0 looks like progress: held-out numbers are at one objective."""

import numpy as np
import pandas as pd
import pytest

from simpo_workbench.analysis.objective import at_objective, is_at, last_objective, objective_note
from simpo_workbench.config.run_config import LossConfig


def scores(loss):
    """A scores table of four pairs as the engine would write it, computed here by hand (eq. 6 of the SimPO paper)."""
    chosen, rejected = np.array([-1.0, -1.2, -2.0, -0.5]), np.array([-1.3, -1.1, -2.9, -0.5])
    margin = loss.beta * (chosen - rejected)
    return pd.DataFrame(
        {
            "pair_id": list("abcd"),
            "chosen_avg_logp": chosen,
            "rejected_avg_logp": rejected,
            "chosen_reward": loss.beta * chosen,
            "rejected_reward": loss.beta * rejected,
            "margin": margin,
            "correct": margin > 0,
            "beyond_gamma": margin > loss.gamma,
            "loss": np.log1p(np.exp(-(margin - loss.gamma))) - loss.sft_weight * chosen,
            "gradient_weight": loss.beta / (1 + np.exp(margin - loss.gamma)),
            "beta": loss.beta,
            "gamma_beta_ratio": loss.gamma / loss.beta,
        }
    )


def test_everything_that_depends_on_the_objective_is_computed_anew():
    before = LossConfig(beta=2.0, gamma_beta_ratio=0.5, sft_weight=0.1)
    now = LossConfig(beta=4.0, gamma_beta_ratio=0.0, sft_weight=0.1)
    pd.testing.assert_frame_equal(at_objective(scores(before), now), scores(now))
    assert at_objective(scores(now), now)["beyond_gamma"].tolist() == [True, False, True, False]
    assert scores(before)["beyond_gamma"].tolist() == [False, False, True, False]


def test_a_table_that_is_at_the_objective_stays_as_it_is():
    loss = LossConfig(beta=3.0, gamma_beta_ratio=0.7)  # 3 · 0.7 / 3 is not quite 0.7
    table = scores(loss)
    assert at_objective(table, loss) is table


def test_dpo_rewards_count_from_the_base_model_and_scale_with_beta():
    own, other = LossConfig(kind="dpo", beta=0.1), LossConfig(kind="dpo", beta=0.2)
    table = scores(own).assign(chosen_reward=[0.3, 0.0, 0.1, -0.1], rejected_reward=0.1, gamma_beta_ratio=0.0)
    moved = at_objective(table, other)
    assert moved["margin"].tolist() == pytest.approx([0.4, -0.2, 0.0, -0.4])
    assert moved["loss"].tolist() == pytest.approx(np.log1p(np.exp(-moved["margin"])).tolist())


def test_the_last_objective_is_that_of_the_newest_record_and_is_named_with_the_earlier_ones():
    loss = LossConfig(beta=2.0, gamma_beta_ratio=0.5)
    records = [
        {"kind": "eval", "step": 0, "beta": 2.0, "gamma_beta_ratio": 0.5},
        {"kind": "train", "step": 1, "beta": 2.0, "gamma_beta_ratio": 0.5},
        {"kind": "event", "step": 1, "event": "set"},
    ]
    assert last_objective(loss, records) is loss
    assert objective_note(loss, records) == ""
    records.append({"kind": "train", "step": 2, "beta": 4.0, "gamma_beta_ratio": 0.0})
    last = last_objective(loss, records)
    assert (last.beta, last.gamma_beta_ratio) == (4.0, 0.0)
    note = objective_note(loss, records)
    assert "it was β 2, γ/β 0.5." in note
    assert "All held-out numbers are at β 4, γ/β 0, the last one." in note
    assert is_at({"beta": 4.0, "gamma_beta_ratio": 0.0}, last)
    assert not is_at(records[0], last)
