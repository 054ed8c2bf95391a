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


def test_pairs_of_one_prompt_are_one_witness():
    """Six pairs of one prompt that rise together are not six times as convincing as one."""
    before, after = table(0, [-0.5] * 12), table(9, [0.7] * 6 + [-0.5] * 6)
    alone = pair_changes(before, after)["rewards/accuracies"]
    prompts = ["a"] * 6 + [f"b{n}" for n in range(6)]
    ahead = pair_changes(before.assign(prompt=prompts), after)["rewards/accuracies"]
    assert counts(ahead) == counts(alone) == (6, 0, 12)
    assert (alone.judgement, ahead.judgement) == ("better", "too few to tell")
    assert (ahead.prompts_up, ahead.prompts_down) == (1, 0)
    assert ahead.chance == 1.0, "one throw of a coin"
    assert ahead.low < 0 < alone.low
    apart = pair_changes(before.assign(prompt=[f"c{n}" for n in range(12)]), after)["rewards/accuracies"]
    assert apart == alone


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
    assert PairedChange("loss", up, down, 20, 0.0, -1.0, 1.0).chance == pytest.approx(chance)


@pytest.mark.parametrize(
    ("key", "up", "down", "change", "half", "judgement"),
    [
        ("answers/right", 6, 0, 0.3, 0.2, "better"),
        ("answers/right", 0, 6, -0.3, 0.2, "worse"),
        ("answers/right", 0, 6, -0.3, 0.3, "too few to tell"),  # 0 is the end of the interval
        ("answers/right", 0, 5, -0.25, 0.2, "too few to tell"),  # chance 0.0625
        ("answers/right", 7, 6, 0.02, 0.3, "too few to tell"),
        ("answers/right", 3, 1, 0.1, 0.2, "too few to tell"),  # chance 0.625
        ("answers/right", 2, 0, 0.1, 0.2, "too few to tell"),  # chance 0.5
        ("answers/right", 2, 2, 0.0, 0.2, "as many each way"),
        ("answers/right", 0, 0, 0.0, 0.2, "no change"),
        ("answers/repeated_4grams", 6, 0, 0.1, 0.05, "worse"),
        ("answers/repeated_4grams", 6, 0, 0.1, 0.2, "too few to tell"),
        ("answers/repeated_4grams", 2, 9, 0.1, 0.05, "mixed"),  # two loops outweigh nine small gains
        ("logps/chosen", 34, 26, 0.06, 0.055, "mixed"),  # chance 0.37, but the mean rose
        ("logps/chosen", 30, 30, 0.06, 0.055, "mixed"),
        ("logps/chosen", 16, 4, 0.06, 0.07, "too few to tell"),  # the mean may have stayed where it was
        ("logps/chosen", 16, 4, -0.06, 0.07, "mixed"),  # few that fell much outweigh many that rose a little
        ("logps/chosen", 11, 9, 0.06, 0.07, "too few to tell"),
        ("logps/rejected", 4, 16, -0.07, 0.06, "fell"),
        ("logps/rejected", 9, 11, -0.07, 0.08, "too few to tell"),
        ("answers/mean_tokens", 0, 20, -30.0, 5.0, "fell"),
    ],
)
def test_a_change_is_judged_by_its_direction_its_interval_and_by_chance(key, up, down, change, half, judgement):
    assert PairedChange(key, up, down, 20, change, change - half, change + half).judgement == judgement


def test_a_change_has_its_own_interval_whatever_those_of_the_two_values():
    """Twelve of 40 pairs come ahead: 0.35 → 0.65. The single intervals (0.21 to 0.52, 0.48 to 0.79) overlap, and the
    change is far from 0: (12 + 1 − 1) / 42 = 0.2857; ± 1.96 · √((14 / 42 − 0.2857²) / 42) = 0.1517.
    """
    before = table(0, [0.4] * 14 + [-0.4] * 26)
    after = table(9, [0.4] * 26 + [-0.4] * 14)
    ahead = pair_changes(before, after)["rewards/accuracies"]
    assert (ahead.change, ahead.low, ahead.high) == pytest.approx((0.3, 0.1340, 0.4375), abs=1e-4)
    assert (ahead.judgement, ahead.interval) == ("better", "+0.13 to +0.44")


def test_no_interval_excludes_0_where_too_few_is_said():
    """Five of six come ahead: 1 / 16 by the exact test, while the interval of paired shares is +0.14 to +0.96."""
    ahead = pair_changes(table(0, [-0.4] * 5 + [0.4]), table(9, [0.4] * 6))["rewards/accuracies"]
    assert (ahead.judgement, ahead.low) == ("too few to tell", 0.0)
    rise = PairedChange("logps/chosen", 34, 26, 60, 0.0597, 0.0052, 0.1142)
    assert (rise.value, rise.interval) == ("+0.060", "+0.005 to +0.114"), "as many digits"


def test_two_runs_on_the_same_pairs_are_compared_pair_by_pair():
    """Leads spread far more between pairs than the runs differ: only pair by pair is the difference seen."""
    leads = [(-1) ** n * (0.2 + 0.2 * n) for n in range(20)]
    one, other = table(9, leads), table(9, [lead + 0.02 + 0.001 * n for n, lead in enumerate(leads)])
    lead = pair_changes(one, other)["lead"]
    assert lead.change == pytest.approx(0.0295)
    assert 0.025 < lead.low < lead.change < lead.high < 0.034
    assert lead.judgement == "better"


def test_losses_of_two_objectives_are_not_compared_and_shares_are_at_the_second_one():
    before, after = table(0, [0.1, 0.3, -0.2]), table(9, [0.1, 0.3, -0.2]).assign(gamma_beta_ratio=0.0)
    after["beyond_gamma"] = after["margin"] > 0
    changes = pair_changes(before, after)
    assert "loss" not in changes
    assert (counts(changes["rewards/beyond_gamma"]), changes["rewards/beyond_gamma"].change) == ((0, 0, 3), 0.0)
