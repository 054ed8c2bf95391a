"""What would be lost: a flip that was only noise, one that was missed, the step it came at, or pairs of two seeds
joined wrongly.
"""

import numpy as np
import pandas as pd
import pytest
from fake_run import fake_run

from simpo_workbench.analysis.leads import (
    agreement,
    answers_by_step,
    history_of,
    join_runs,
    lead_history,
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
    assert history_of(leads[[0, 10]]).set_index("pair_id").loc["returns", "became"] == "to wrong"
    assert "prompt" not in history_of(leads)


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
    """Three seeds over two steps; pair e is in two of them only."""
    first = {"a": [-0.5, 0.5], "b": [-0.5, 0.5], "c": [-0.5, -0.5], "d": [-0.5, 1 / 128], "e": [0.5, 0.5]}
    second = {"e": [0.5, 0.5], "d": [-0.5, -1 / 128], "c": [-0.5, -0.25], "b": [-0.5, -0.5], "a": [0.5, 0.25]}
    third = {"a": [-0.5, 1.0], "b": [0.5, 0.5], "c": [0.5, -1.0], "d": [-0.5, -1 / 128]}
    return {
        name: scores(leads, steps)
        for name, leads, steps in (("one", first, (0, 20)), ("two", second, (0, 30)), ("three", third, (0, 20)))
    }


def test_runs_are_joined_by_pair_whatever_their_order_and_say_whether_they_agree():
    joined = join_runs(seeds(), noise=NOISE).set_index("pair_id")
    assert list(joined.index) == ["a", "b", "c", "d"], "the pairs that all of them hold"
    assert joined.loc["a", ["lead_one", "lead_two", "lead_three"]].tolist() == [0.5, 0.25, 1.0]
    assert joined["agreement"].to_dict() == {
        "a": "right in all",
        "b": "right in some",
        "c": "right in none",
        "d": "too close to tell",
    }
    assert joined["right_in"].to_dict() == {"a": 3, "b": 2, "c": 0, "d": 1}
    assert joined["flipped_in"].to_dict() == {"a": 2, "b": 1, "c": 1, "d": 0}
    assert joined.loc["b", ["became_one", "became_two", "became_three"]].tolist() == [
        "to right",
        "still wrong",
        "still right",
    ]
    assert joined.loc["c", "prompt"] == "Prompt c"


def test_runs_are_joined_at_the_steps_that_are_asked_for():
    joined = join_runs(seeds(), {"one": 0, "two": 0}).set_index("pair_id")
    assert joined.loc["a", ["lead_one", "lead_two", "lead_three"]].tolist() == [-0.5, 0.5, 1.0]
    assert join_runs(seeds(), 0).set_index("pair_id").loc["a", "lead_three"] == -0.5


def test_a_pair_that_a_run_did_not_score_in_the_end_is_not_joined():
    """Its last lead is not known, whatever it was before; at an earlier step it is."""
    whole, part = (
        scores({"a": [0.5, 0.5], "b": [-0.5, 0.5]}, (0, 20)),
        scores({"a": [0.5, 0.25], "b": [-0.5, None]}, (0, 20)),
    )
    joined = join_runs({"one": whole, "two": part})
    assert joined["pair_id"].tolist() == ["a"]
    assert joined["lead_two"].tolist() == [0.25]
    assert join_runs({"one": whole, "two": part}, {"two": 0})["pair_id"].tolist() == ["a", "b"]


def test_two_runs_disagree_where_compare_scores_sees_a_flip():
    two = {name: table for name, table in seeds().items() if name != "three"}
    last = [table[table["step"] == table["step"].max()] for table in two.values()]
    compared = compare_scores(*last, noise=NOISE).set_index("pair_id")
    joined = join_runs(two, noise=NOISE).set_index("pair_id")
    assert (joined["agreement"] == "right in some").to_dict() == (compared["flip"] != "").to_dict()
    assert (joined["lead_two"] - joined["lead_one"]).to_dict() == compared["lead_change"].to_dict()


@pytest.mark.parametrize(
    ("runs", "steps", "said"),
    [
        ({"one": scores(COURSES)}, None, "1 run is too few"),
        (
            {"one": scores(COURSES), "two": scores(COURSES)},
            15,
            "'one' was not evaluated at step 15; it was at \\[0, 10, 20, 30\\]",
        ),
        ({"one": scores(COURSES), "two": scores(COURSES)}, {"three": 10}, "steps names 'three', which is no run here"),
        ({"one": scores({"a": [1.0] * 4}), "two": scores({"b": [1.0] * 4})}, None, "no pair in common"),
    ],
)
def test_runs_that_cannot_be_joined_are_refused_in_words(runs, steps, said):
    with pytest.raises(WorkbenchError, match=said):
        join_runs(runs, steps)


def test_runs_that_differ_by_the_sign_alone_do_not_disagree():
    assert agreement([[0.5, 0.001], [0.5, -0.001], [0.5, -0.5], [-0.001, -0.5]], noise=0.01).tolist() == [
        "right in all",
        "too close to tell",
        "right in some",
        "right in none",
    ]


# --- answers


def test_answers_stand_by_prompt_and_step(tmp_path):
    run = fake_run(tmp_path, total_steps=40)
    table, rows = answers_by_step(run.generations), run.generations
    prompt = rows["prompt"].iloc[1]
    assert list(table.index) == list(rows["prompt"].drop_duplicates()), "in the order of asking"
    assert table.loc[prompt, ("answer", 20)] == rows[(rows["prompt"] == prompt) & (rows["step"] == 20)]["answer"].item()
    assert list(table["tokens"].columns) == [0, 20, 40]
    assert table["tokens"].mean().tolist() == rows.groupby("step")["tokens"].mean().tolist()
    assert table["ended"].dtypes.eq(bool).all()


def test_a_prompt_that_was_asked_later_has_gaps_and_one_asked_twice_counts_once():
    rows = [(0, "a", "A0"), (20, "a", "A20"), (20, "a", "again"), (20, "b", "B20")]
    frame = pd.DataFrame(
        [
            {"step": step, "prompt": prompt, "answer": text, "tokens": 3, "ended": True, "repeated_4grams": 0.0}
            for step, prompt, text in rows
        ]
    )
    table = answers_by_step(frame)
    assert table.loc["a", ("answer", 20)] == "A20"
    assert pd.isna(table.loc["b", ("answer", 0)])
    with pytest.raises(WorkbenchError, match="lack the column 'tokens'"):
        answers_by_step(frame.drop(columns="tokens"))
