"""What would be lost: a flip that was only noise, one that was missed, the step it came at, or pairs of two seeds
joined wrongly.
"""

import numpy as np
import pandas as pd
import pytest

from simpo_workbench.analysis.leads import (
    GROUPS,
    compare_histories,
    lead_history,
    lead_history_of,
    leads_by_step,
    steps_of,
)
from simpo_workbench.analysis.scores import compare_scores
from simpo_workbench.base.errors import WorkbenchError

NOISE = 1 / 64  # leads are powers of 2, so that what is at the edge is there exactly


def scores(leads, steps=(0, 10, 20, 30)):
    """A scores table of all steps from {pair_id: lead at each step}; None: not scored then."""
    rows = []
    for place, step in enumerate(steps):
        for pair_id, course in leads.items():
            if course[place] is not None:
                numbers = {
                    "margin": 2 * course[place],
                    "correct": course[place] > 0,
                    "beyond_gamma": course[place] > 0.5,
                }
                rows.append(
                    {
                        "step": step,
                        "pair_id": pair_id,
                        "prompt": f"Prompt {pair_id}",
                        "chosen_avg_logp": course[place] - 2,
                        "rejected_avg_logp": -2.0,
                        **numbers,
                    }
                )
    return pd.DataFrame(rows)


COURSES = {
    "gains": [-0.5, -0.25, 0.25, 0.5],
    "loses": [0.5, -0.5, -0.5, -0.5],
    "returns": [0.5, -0.5, 0.5, 0.5],
    "stays right": [0.5, 0.25, 0.5, 1.0],
    "stays wrong": [-0.5, -0.5, -0.25, 0.0],
    "grazes": [0.5, -1 / 128, 0.5, 0.5],  # within the noise below 0, and back
    "creeps": [-0.5, 1 / 128, 1 / 64, 1 / 32],  # beyond the noise at the last step only
    "dithers": [1 / 128, -1 / 128, 1 / 128, -1 / 128],
    "falls to the edge": [0.5, -NOISE, -1 / 128, -1 / 128],  # at exactly so far below 0 a pair is wrong
}


def test_what_became_of_a_pair_is_told_by_crossings_beyond_the_noise():
    table = lead_history(scores(COURSES), NOISE).set_index("pair_id")
    assert table["became"].to_dict() == {
        "gains": "to right",
        "loses": "to wrong",
        "returns": "back and forth",
        "stays right": "still right",
        "stays wrong": "still wrong",
        "grazes": "still right",
        "creeps": "to right",
        "dithers": "undecided",
        "falls to the edge": "to wrong",
    }
    assert table["flips"].to_dict() == {
        "gains": 1,
        "loses": 1,
        "returns": 2,
        "stays right": 0,
        "stays wrong": 0,
        "grazes": 0,
        "creeps": 1,
        "dithers": 0,
        "falls to the edge": 1,
    }
    assert table["last_flip"].dropna().to_dict() == {
        "gains": 20,
        "loses": 10,
        "returns": 20,
        "creeps": 30,
        "falls to the edge": 10,
    }
    assert table["last_flip"].isna().sum() == 4


def test_without_a_noise_every_crossing_counts():
    table = lead_history(scores(COURSES)).set_index("pair_id")
    assert table["flips"].to_dict() == {
        "gains": 1,
        "loses": 1,
        "returns": 2,
        "stays right": 0,
        "stays wrong": 0,
        "grazes": 2,
        "creeps": 1,
        "dithers": 3,
        "falls to the edge": 1,
    }
    assert table.loc["creeps", "last_flip"] == 10
    assert table.loc["dithers", "became"] == "back and forth"


def test_one_column_a_step_holds_the_leads_in_the_order_of_the_pairs():
    table = lead_history(scores(COURSES).sample(frac=1, random_state=0).sort_values("step", kind="stable"))
    assert steps_of(table) == [0, 10, 20, 30]
    assert list(table.columns) == ["pair_id", "prompt", 0, 10, 20, 30, "missing", "flips", "last_flip", "became"]
    for pair_id, course in COURSES.items():
        assert table.set_index("pair_id").loc[pair_id, [0, 10, 20, 30]].tolist() == course
    assert table.set_index("pair_id").loc["gains", "prompt"] == "Prompt gains"


def test_tables_put_together_one_by_one_give_the_same_history():
    """pd.concat without ignore_index: every step has the row labels of the others."""
    whole = scores(COURSES)
    parts = [
        whole[whole["step"] == step].sample(frac=1, random_state=step).reset_index(drop=True)
        for step in (20, 0, 30, 10)
    ]
    table = lead_history(pd.concat(parts), NOISE).set_index("pair_id")
    pd.testing.assert_frame_equal(table.loc[list(COURSES)], lead_history(whole, NOISE).set_index("pair_id"))


def test_a_step_at_which_a_pair_was_not_scored_is_a_gap_and_counted():
    table = lead_history(
        scores({"gap": [-0.5, None, None, 0.5], "late": [None, None, 0.5, 0.5], "whole": [0.5] * 4})
    ).set_index("pair_id")
    assert table["missing"].to_dict() == {"gap": 2, "late": 2, "whole": 0}
    assert np.isnan(table.loc["gap", 10])
    assert (table.loc["gap", "became"], table.loc["gap", "last_flip"]) == ("to right", 30)
    assert table.loc["late", "became"] == "still right"


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.4])
def test_of_two_steps_the_flips_are_those_of_compare_scores(noise):
    chance = np.random.default_rng(0)
    table = scores({f"p{n}": chance.normal(0, 0.4, 2).tolist() for n in range(400)}, steps=(0, 7))
    compared = compare_scores(table[table["step"] == 0], table[table["step"] == 7], noise).set_index("pair_id")
    history = lead_history(table, noise).set_index("pair_id")
    flips = history["became"].where(history["flips"] > 0, "")
    assert flips.to_dict() == compared["flip"].to_dict()
    assert (flips != "").sum() > 20


def test_a_part_of_the_steps_is_a_history_of_its_own():
    leads = leads_by_step(scores(COURSES))
    assert lead_history_of(leads[[0, 10]]).set_index("pair_id").loc["returns", "became"] == "to wrong"
    assert "prompt" not in lead_history_of(leads)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (scores(COURSES).drop(columns="step"), "lack the column 'step': give run.scores"),
        (pd.concat([scores(COURSES)] * 2), "a pair twice at one step"),
    ],
)
def test_tables_without_a_history_are_refused_in_words(table, said):
    with pytest.raises(WorkbenchError, match=said):
        lead_history(table)
    with pytest.raises(WorkbenchError, match="no noise of scoring"):
        lead_history(scores(COURSES), noise=-1)


# --- several runs


def seeds():
    """Two seeds, evaluated at two steps."""
    first = {"a": [-0.5, 0.5], "b": [-0.5, 0.5], "c": [-0.5, -0.5], "d": [-0.5, 1 / 128], "e": [0.5, 0.5]}
    second = {"e": [0.5, 0.5], "d": [-0.5, -1 / 128], "c": [-0.5, -0.25], "b": [-0.5, -0.5], "a": [0.5, 0.25]}
    return scores(first, (0, 20)), scores(second, (0, 30))


def last_of(table):
    return table[table["step"] == table["step"].max()]


def test_runs_are_compared_by_pair_whatever_their_order_and_say_who_is_right():
    one, two = seeds()
    rows = compare_histories(lead_history(one, NOISE), lead_history(two, NOISE), NOISE).set_index("pair_id")
    assert list(rows.index) == ["a", "b", "c", "d", "e"], "in the order of the first run"
    assert rows.loc["a", ["lead_here", "lead_there", "prompt"]].tolist() == [0.5, 0.25, "Prompt a"]
    assert rows.loc["b", ["became_here", "became_there"]].tolist() == ["to right", "still wrong"]
    assert rows["group"].to_dict() == {
        "a": "both right",
        "b": "only this run",
        "c": "neither",
        "d": "too close to tell",
        "e": "both right",
    }
    back = compare_histories(lead_history(two, NOISE), lead_history(one, NOISE), NOISE).set_index("pair_id")
    assert back.loc["b", "group"] == "only that run"
    assert set(rows["group"]) | set(back["group"]) == set(GROUPS)


def test_only_pairs_that_both_runs_hold_and_scored_in_the_end_are_compared():
    """The last lead of another pair is not known, whatever it was before."""
    whole = scores({"a": [0.5, 0.5], "b": [-0.5, 0.5], "c": [0.5, 0.5]}, (0, 20))
    part = scores({"a": [0.5, 0.25], "b": [-0.5, None]}, (0, 20))
    rows = compare_histories(lead_history(whole), lead_history(part))
    assert rows[["pair_id", "lead_there"]].values.tolist() == [["a", 0.25]]
    at_start = compare_histories(lead_history(whole), lead_history(part[part["step"] == 0]))
    assert at_start["pair_id"].tolist() == ["a", "b"]


def test_two_runs_disagree_where_compare_scores_sees_a_flip():
    one, two = seeds()
    compared = compare_scores(last_of(one), last_of(two), noise=NOISE).set_index("pair_id")
    rows = compare_histories(lead_history(one, NOISE), lead_history(two, NOISE), NOISE).set_index("pair_id")
    differ = rows["group"].isin(["only this run", "only that run"])
    assert differ.to_dict() == (compared["flip"] != "").to_dict()
    assert (rows["lead_there"] - rows["lead_here"]).to_dict() == compared["lead_change"].to_dict()


def test_runs_whose_leads_differ_by_the_sign_alone_do_not_disagree():
    here = {"both": 0.5, "here": 0.5, "there": -0.5, "none": -0.5, "close": 0.001, "missing": 1.0}
    there = {"none": -0.1, "close": -0.5, "both": 0.001, "there": 0.5, "here": -0.5}
    histories = [
        lead_history(scores({pair_id: [lead] for pair_id, lead in leads.items()}, (0,)), 0.01)
        for leads in (here, there)
    ]
    assert compare_histories(*histories, 0.01).set_index("pair_id")["group"].to_dict() == {
        "both": "both right",
        "here": "only this run",
        "there": "only that run",
        "none": "neither",
        "close": "too close to tell",
    }
