"""What a user would lose: the truth about what became better, and about what became worse beside it."""

import math

import pandas as pd
import pytest
from fake_run import scores

from simpo_workbench.analysis.paired_changes import PairedChange, answer_changes, answers_side_by_side, pair_changes


def table(step, leads, chosen=-1.0, correct=None):
    """A scores table of pairs p0, p1, … with these leads."""
    rows = scores(step, 1, len(leads))
    rows["pair_id"] = [f"p{n}" for n in range(len(leads))]
    rows["chosen_avg_logp"], rows["rejected_avg_logp"] = chosen, [chosen - lead for lead in leads]
    rows["margin"] = [2 * lead for lead in leads]
    rows["correct"] = [lead > 0 for lead in leads] if correct is None else correct
    rows["beyond_gamma"] = [lead > 0.5 for lead in leads]
    rows["loss"] = [math.log1p(math.exp(1 - 2 * lead)) for lead in leads]
    return rows


def answers(*rows):
    names = ("step", "prompt", "tokens", "ended", "repeated_4grams", "right", "reference", "answer")
    made = pd.DataFrame([dict(zip(names, [*row, *[None] * (len(names) - len(row))], strict=True)) for row in rows])
    return made.astype({"right": object, "reference": object})


def counts(change):
    return change.up, change.down, change.n


def test_pairs_are_counted_one_by_one():
    before, after = table(0, [-0.5, -0.5, 0.4, -0.001, 0.6]), table(9, [0.7, -0.4, -0.3, 0.002, 0.8], chosen=-1.2)
    changes = pair_changes(before, after, noise=0.01)
    ahead = changes["rewards/accuracies"]
    assert (*counts(ahead), ahead.unclear) == (1, 1, 5, 1), "the pair that crossed 0 within the noise is neither"
    assert counts(changes["rewards/beyond_gamma"]) == (1, 0, 5)
    assert counts(changes["logps/chosen"]) == (0, 5, 5)
    assert changes["logps/chosen"].change == pytest.approx(-0.2)
    assert counts(changes["loss"]) == (1, 4, 5)
    assert pair_changes(before, after.assign(pair_id="other")) == {}


def test_for_dpo_a_pair_is_ahead_by_its_margin():
    """Its lead is positive from the start, and its margin 0."""
    before, after = table(0, [0.4, -0.4], correct=[False, False]), table(9, [0.5, -0.3], correct=[True, True])
    assert counts(pair_changes(before, after)["rewards/accuracies"]) == (2, 0, 2)


def test_answers_are_counted_prompt_by_prompt_also_where_one_is_asked_twice():
    before = answers(
        (0, "a", 50, False, 0.4, True), (0, "b", 20, True, 0.0, False), (0, "b", 30, True, 0.2), (0, "gone", 9, True, 0)
    )
    after = answers((9, "b", 20, True, 0.1, True), (9, "a", 20, True, 0.0, False), (9, "b", 40, False, 0.0))
    sides = answers_side_by_side(before, after)
    assert sides[["prompt", "tokens_base", "tokens_tuned"]].values.tolist() == [
        ["a", 50, 20],
        ["b", 20, 20],
        ["b", 30, 40],
    ]
    changes = answer_changes(sides)
    assert counts(changes["answers/right"]) == (1, 1, 2), "only what is checked at both steps"
    assert counts(changes["answers/ended"]) == (1, 1, 3)
    assert counts(changes["answers/mean_tokens"]) == (1, 1, 3)
    assert counts(changes["answers/repeated_4grams"]) == (1, 2, 3)
    assert changes["answers/repeated_4grams"].change == pytest.approx((-0.4 + 0.1 - 0.2) / 3)
    assert answer_changes(sides[:0]) == {}
    unchecked = answer_changes(answers_side_by_side(before.assign(right=None), after.assign(right=None)))
    assert "answers/right" not in unchecked


@pytest.mark.parametrize(
    ("up", "down", "chance"),
    [
        *((0, 0, 1.0), (1, 0, 1.0), (3, 3, 1.0)),
        (6, 0, 2 / 2**6),
        (5, 1, 2 * (1 + 6) / 2**6),
        (9, 2, 2 * (1 + 11 + 55) / 2**11),
        (0, 12, 2 / 2**12),
    ],
)
def test_chance_is_that_of_the_exact_sign_test(up, down, chance):
    assert PairedChange("loss", up, down, 20, 0.0).chance == pytest.approx(chance)


@pytest.mark.parametrize(
    ("key", "up", "down", "change", "judgement"),
    [
        ("answers/right", 6, 0, 0.3, "better"),
        ("answers/right", 0, 6, -0.3, "worse"),
        ("answers/right", 0, 5, -0.25, "perhaps worse"),  # chance 0.0625
        ("answers/right", 7, 6, 0.02, "no clear change"),
        ("answers/right", 3, 1, 0.1, "no clear change"),  # chance 0.625
        ("answers/right", 2, 0, 0.1, "perhaps better"),  # chance 0.5
        ("answers/right", 2, 2, 0.0, "as many each way"),
        ("answers/right", 0, 0, 0.0, "no change"),
        ("answers/repeated_4grams", 6, 0, 0.1, "worse"),
        ("answers/repeated_4grams", 2, 9, 0.1, "mixed"),  # two loops outweigh nine small gains
        ("answers/mean_tokens", 0, 20, -30.0, ""),
    ],
)
def test_a_change_is_judged_by_its_direction_and_by_chance(key, up, down, change, judgement):
    assert PairedChange(key, up, down, 20, change).judgement == judgement
