"""Tables of scores: an interval that is too narrow, or pairs joined wrongly, make a lucky run look like a better
model.
"""

import math

import numpy as np
import pandas as pd
import pytest

from simpo_workbench.analysis.scores import (
    change_of_share,
    compare_scores,
    join_texts,
    mean_change,
    mean_share,
    mean_share_change,
    pair_texts,
    repeated_4gram_share,
    scoring_noise,
    share,
    share_change,
    share_of,
    sides,
    what_became,
)
from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.pairs.pairs import load_pairs

# --- shares


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        # as tabulated for 3 of 10; the sums of binomial terms at the ends are checked below
        (3, 10, 0.0667395112, 0.6524528501),
        # 0/n: high is 1 − 0.025^(1/n); n/n: low is 0.025^(1/n)
        (0, 10, 0.0, 1 - 0.025 ** (1 / 10)),
        (60, 60, 0.025 ** (1 / 60), 1.0),
        (10, 10, 0.025 ** (1 / 10), 1.0),
    ],
)
def test_a_share_has_the_exact_interval(hits, n, low, high):
    found = share(hits, n)
    assert (found.value, found.n) == (hits / n, n)
    assert found.low == pytest.approx(low, abs=1e-8)
    assert found.high == pytest.approx(high, abs=1e-8)
    assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize(("hits", "n"), [(1, 6), (3, 10), (17, 24), (59, 60), (120, 900)])
def test_at_the_ends_of_a_share_what_was_seen_has_a_chance_of_2_5_percent(hits, n):
    def chance(p, counts):
        return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in counts)

    found = share(hits, n)
    assert chance(found.low, range(hits, n + 1)) == pytest.approx(0.025, rel=1e-6)
    assert chance(found.high, range(hits + 1)) == pytest.approx(0.025, rel=1e-6)


def test_a_share_is_shown_with_its_n_and_interval():
    assert str(share(3, 10)) == "0.30 (n=10, 95 % 0.07 to 0.65)"


def test_equal_shares_are_no_certainty():
    """Six answers without repetition: 1 − 0.025^(1/6) of all answers may repeat themselves, not 0."""
    none = mean_share([0.0] * 6)
    assert (none.value, none.low, none.high) == (0.0, 0.0, pytest.approx(0.4593, abs=1e-4))
    assert mean_share([0.0] * 60).high == pytest.approx(0.0596, abs=1e-4), "more answers say more"
    assert mean_share([1.0, 0.0, 0.0, 1.0]) == share(2, 4), "yes and no are the widest shares"
    found = mean_share([0.3] * 8)
    assert found.low < 0.1
    assert found.high > 0.6
    alone = mean_share([0.5])
    assert alone.low < 0.01
    assert alone.high > 0.99, "one answer says next to nothing"


def test_the_interval_of_a_mean_of_shares_holds_what_it_says():
    """1,000 samples of 12 answers, of which one in six loops: 95 % of the intervals must hold the true mean."""
    chance, held = np.random.default_rng(1), 0
    for _ in range(1000):
        found = mean_share(np.where(chance.random(12) < 1 / 6, 0.9, 0.0))
        held += found.low <= 0.15 <= found.high
    assert held >= 950


def test_the_change_of_a_mean_of_shares_is_that_of_shares_where_they_are_yes_and_no():
    assert mean_share_change([1, 1, -1, 0, 0]) == share_change(2, 1, 5)
    assert mean_share_change([0.0] * 10) == share_change(0, 0, 10), "no zero width"
    # one of six answers loops: 0.00 → 0.23, as a run once called "repeats itself more"
    found = mean_share_change([0.0] * 4 + [0.5, 0.88])
    assert found.value == pytest.approx(0.23)
    assert not found.is_clear


def test_the_change_of_a_mean_has_the_bootstrap_interval_widened_for_few_cases():
    differences = np.random.default_rng(0).normal(0.1, 0.2, 200)
    found = mean_change(differences)
    half = 1.972 * differences.std(ddof=1) / math.sqrt(200)  # t with 199 degrees of freedom: alike for many cases
    assert (found.value, found.low, found.high) == pytest.approx(
        (differences.mean(), differences.mean() - half, differences.mean() + half), abs=0.003
    )
    assert mean_change(differences) == found, "the same every time"
    assert mean_change([0.1]).low == -math.inf
    assert mean_change([0.1]).as_metrics("drift") == {"drift": 0.1}, "an endless interval is not written"
    equal = mean_change([0.1] * 3)
    assert equal.low < 0 < equal.high, "three equal values are no certainty"
    assert mean_change([0.0] * 3).low == -math.inf, "that none of three changed does not say that none will"
    assert str(mean_change([0.0] * 3)) == "0.00 (n=3, too few for an interval)"
    unchanged = mean_change([0.0] * 3, reach=40.0)
    # at worst 1 - 0.025^(1/3) = 0.708 of all cases change, by 40 each
    assert unchanged.low == pytest.approx(-28.3, abs=0.05)
    assert unchanged.high == -unchanged.low


def test_the_interval_of_few_changes_holds_what_it_says():
    chance, held = np.random.default_rng(2), 0
    for _ in range(400):
        found = mean_change(chance.normal(0.1, 1.0, 6))
        held += found.low <= 0.1 <= found.high
    assert held >= 0.93 * 400


def test_a_share_of_nothing_is_refused_instead_of_being_nought():
    for call in (lambda: share(0, 0), lambda: mean_share([])):
        with pytest.raises(WorkbenchError, match="no cases"):
            call()


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], 0.0),
        ([1, 2, 3], 0.0),
        ([1, 2, 3, 4], 0.0),
        ([1, 2, 3, 4, 1, 2, 3, 4], 1 / 5),  # five 4-grams; the last was there before
        ([7] * 10, 6 / 7),  # seven 4-grams, one of them new
        (list("abababab"), 3 / 5),  # abab, baba, then three that were there before
        (list(range(100)), 0.0),
    ],
)
def test_repetition_is_the_share_of_4_grams_that_were_there_before(tokens, expected):
    assert repeated_4gram_share(tokens) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("gained", "lost", "n", "low", "high"),
    [
        # (0 + 1) / 22 − (4 + 1) / 22 = −0.1818; ± 1.96 · √((6 / 22 − 0.1818²) / 22) = 0.2046
        (0, 4, 20, -0.3864, 0.0228),
        # 3 / 42 − 1 / 42 = 0.0476; ± 1.96 · √((4 / 42 − 0.0476²) / 42) = 0.0922
        (2, 0, 40, -0.0446, 0.1398),
        # 1 / 12 − 1 / 12 = 0; ± 1.96 · √((2 / 12) / 12) = 0.2310
        (0, 0, 10, -0.2310, 0.2310),
    ],
)
def test_the_change_of_a_share_has_the_interval_of_paired_shares(gained, lost, n, low, high):
    change = share_change(gained, lost, n)
    assert (change.value, change.n) == ((gained - lost) / n, n)
    assert (change.low, change.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_a_change_of_everything_stays_within_its_bounds():
    assert share_change(0, 3, 3).low == share_change(0, 3, 3).value == -1.0
    assert share_change(3, 0, 3).high == 1.0
    with pytest.raises(WorkbenchError, match="without cases"):
        share_change(0, 0, 0)


# --- texts


def test_scores_keep_their_order_and_get_texts_and_extra_columns():
    texts = {"prompt": ["Sky?", "Grass?"], "chosen": ["Blue.", "Green."], "rejected": ["Red.", "Pink."]}
    pairs = load_pairs(pd.DataFrame({**texts, "topic": ["air", "land"], "margin": ["wide", "slim"]}))
    ids = [pair.pair_id for pair in pairs]
    numbers = pd.DataFrame({"step": [0, 0, 5, 5], "pair_id": [ids[1], ids[0]] * 2, "margin": [0.1, 0.2, 0.3, 0.4]})
    table = join_texts(numbers, pair_texts(pairs))
    assert list(table.columns) == ["step", "pair_id", "prompt", "chosen", "rejected", "margin", "topic", "margin_data"]
    assert list(table["prompt"]) == ["Grass?", "Sky?", "Grass?", "Sky?"]
    assert list(table["chosen"]) == ["Green.", "Blue.", "Green.", "Blue."]
    assert list(table["margin"]) == [0.1, 0.2, 0.3, 0.4]
    assert list(table["margin_data"]) == ["slim", "wide", "slim", "wide"]
    assert list(table["topic"]) == ["land", "air", "land", "air"]


# --- before and after


def table(rows, step=None):
    """A scores table of (pair_id, chosen, rejected) in nats per token, with β 2 and γ/β 0.5."""
    frame = pd.DataFrame(rows, columns=["pair_id", "chosen_avg_logp", "rejected_avg_logp"])
    frame["margin"] = 2 * (frame["chosen_avg_logp"] - frame["rejected_avg_logp"])
    frame["correct"], frame["beyond_gamma"] = frame["margin"] > 0, frame["margin"] > 1.0
    frame["prompt"], frame["chosen"], frame["rejected"] = "p " + frame["pair_id"], "c", "r"
    if step is not None:
        frame["step"] = step
    return frame


BEFORE = [("a", -1.0, -1.2), ("b", -1.5, -1.0), ("c", -1.0, -1.5), ("d", -2.0, -1.0)]
AFTER = [("d", -2.0, -1.5), ("c", -2.0, -1.5), ("b", -1.25, -2.0), ("a", -1.1, -2.2)]


def test_the_same_pairs_before_and_after_stand_side_by_side():
    joined = compare_scores(table(BEFORE), table(AFTER)).set_index("pair_id")
    assert list(joined.index) == ["a", "b", "c", "d"]
    assert list(joined["flip"]) == ["", "to right", "to wrong", ""]
    assert joined.loc["b", ["lead_before", "lead_after", "lead_change", "chosen_change"]].to_list() == pytest.approx(
        [-0.5, 0.75, 1.25, 0.25]
    )
    assert joined.loc["b", ["margin_before", "margin_after"]].to_list() == pytest.approx([-1.0, 1.5])
    assert list(joined["beyond_gamma_before"]) == [False, False, False, False]
    assert list(joined["beyond_gamma_after"]) == [True, True, False, False]
    assert joined.loc["a", ["prompt", "chosen", "rejected"]].to_list() == ["p a", "c", "r"]


def test_a_flip_is_of_the_lead_also_where_the_margin_counts_from_the_base_model():
    """DPO: every margin is 0 before training, so by the margin each pair that gained would have flipped to right."""
    before, after = table(BEFORE), table(AFTER)
    before["margin"], before["correct"] = 0.0, False
    after["correct"] = ~after["correct"]
    joined = compare_scores(before, after)
    assert list(joined["flip"]) == ["", "to right", "to wrong", ""]
    assert not joined["correct_before"].any()
    assert list(joined["correct_after"]) == [False, False, True, True], "what the table says stays"


def test_only_pairs_of_both_tables_are_compared():
    joined = compare_scores(table(BEFORE[:2]), table(AFTER[:3]))
    assert list(joined["pair_id"]) == ["b"]


def test_a_table_of_numbers_alone_can_be_compared():
    numbers = [table(rows).drop(columns=["prompt", "chosen", "rejected"]) for rows in (BEFORE, AFTER)]
    assert "prompt" not in compare_scores(*numbers)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            pd.concat([table(BEFORE, 0), table(AFTER, 5)]),
            table(AFTER),
            "'before' holds 2 steps: choose one, such as scores",
        ),
        (table(BEFORE), pd.concat([table(AFTER)] * 2), "'after' holds a pair twice"),
        (table(BEFORE[:1]), table(AFTER[:1]), "no pair in common"),
        (table(BEFORE).drop(columns="pair_id"), table(AFTER), "'before' lacks the column 'pair_id'"),
        (table(BEFORE), table(AFTER).drop(columns="correct"), "'after' lacks the column 'correct'"),
    ],
)
def test_tables_that_cannot_be_compared_are_refused_in_words(before, after, said):
    with pytest.raises(WorkbenchError, match=said):
        compare_scores(before, after)


# --- the noise of scoring


def leads(values, other=0.0):
    """A scores table of pairs p0, p1, … with these leads; the rejected answers' log-probability is −2."""
    rows = [
        (f"p{place}", f"Prompt {place}", -2.0 + lead + other, -2.0 + other, 2 * lead, lead > 0, lead > 0.5)
        for place, lead in enumerate(values)
    ]
    return pd.DataFrame(
        rows, columns=["pair_id", "prompt", "chosen_avg_logp", "rejected_avg_logp", "margin", "correct", "beyond_gamma"]
    )


# beyond both; one within (twice); at the edge; just beyond it; the other way: beyond, one within, both within; no
# change of sides
_NOISE = 1 / 64  # leads of powers of 2, so that what is at the edge is there exactly
_BEFORE = [-0.5, -0.5, -1 / 128, -1 / 64, -1 / 64, 0.5, 0.5, 1 / 128, 0.25]
_AFTER = [0.5, 1 / 128, 0.5, 1 / 64, 1 / 32, -0.5, -1 / 128, -1 / 128, 1 / 512]


def test_a_flip_counts_only_where_both_leads_lie_beyond_the_noise():
    """A lead as large as the noise may in truth be 0: it is right only above that, and wrong from there on below 0, as
    0 itself is wrong.
    """
    joined = compare_scores(leads(_BEFORE), leads(_AFTER), _NOISE)
    assert list(joined["flip"]) == ["to right", "", "", "", "to right", "to wrong", "", "", ""]
    close = "within the noise"
    assert list(joined["became"]) == [
        *("to right", close, close, close, "to right", "to wrong", close, close, "still right")
    ]
    assert list(what_became(_BEFORE, _AFTER, _NOISE)) == list(joined["became"])


def test_without_a_noise_every_change_of_sides_is_a_flip_as_it_always_was():
    before, after = leads([*_BEFORE, 0.0, 0.1]), leads([*_AFTER, 0.1, 0.0])
    joined = compare_scores(before, after)
    led, lead = joined["lead_before"] > 0, joined["lead_after"] > 0
    assert list(joined["flip"] == "to right") == list(~led & lead)
    assert list(joined["flip"] == "to wrong") == list(led & ~lead)
    assert set(joined["became"]) <= {"to right", "to wrong", "still right", "still wrong"}
    assert list(joined["became"] == "still right") == list(led & lead)
    pd.testing.assert_frame_equal(joined, compare_scores(before, after, noise=0.0))


def test_a_lead_within_the_noise_and_one_that_is_missing_are_on_neither_side():
    values = [1 / 32, 1 / 64, 1 / 128, 0.0, -1 / 128, -1 / 64, math.nan]
    assert sides(values, _NOISE).tolist() == [1, 0, 0, 0, 0, -1, 0]
    assert sides(values).tolist() == [1, 1, 1, -1, -1, -1, 0]


def test_the_noise_is_the_largest_difference_between_the_leads_of_the_same_pairs():
    one, again = (
        leads([0.5, -0.2, 1.0]),
        leads([0.503, -0.21, 1.0], other=7.0),
    )  # both answers likelier: the lead is the same
    assert scoring_noise(one, again) == pytest.approx(0.01)
    assert scoring_noise(one, again[again["pair_id"] == "p0"]) == pytest.approx(0.003), (
        "pairs of one table alone are left out"
    )
    assert scoring_noise(one, one) == 0.0


@pytest.mark.parametrize("noise", [np.float32(0.125), np.float64(0.125), np.int64(1)])
def test_a_noise_may_be_a_number_of_numpy(noise):
    compared = compare_scores(leads([-0.1, -1.5]), leads([0.5, 1.5]), noise=noise)
    assert compared["flip"].tolist() == ["", "to right"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: scoring_noise(leads([1.0]), leads([1.0]).assign(pair_id="q")), "no pair in common"),
        (
            lambda: scoring_noise(leads([1.0]).drop(columns="chosen_avg_logp"), leads([1.0])),
            "'one' lacks the column 'chosen_avg_logp'",
        ),
        (lambda: scoring_noise(leads([1.0]), pd.concat([leads([1.0])] * 2)), "'again' holds a pair twice"),
        (lambda: compare_scores(leads([1.0]), leads([1.0]), noise=-0.1), "noise = -0.1 is no noise of scoring"),
        (lambda: compare_scores(leads([1.0]), leads([1.0]), noise=None), "noise = None is no noise of scoring"),
        (lambda: compare_scores(leads([1.0]), leads([1.0]), noise="0.1"), "noise = '0.1' is no noise of scoring"),
        (lambda: compare_scores(leads([1.0]), leads([1.0]), noise=np.float32("nan")), "is no noise of scoring"),
    ],
)
def test_what_is_no_noise_is_refused_in_words(call, said):
    with pytest.raises(WorkbenchError, match=said):
        call()


def _ranked(chance, prompts, each, alike):
    """Numbers of pairs that come in groups of `each` on one prompt: standard normal, correlated by `alike`."""
    shared, own = chance.normal(size=(prompts, 1)), chance.normal(size=(prompts, each))
    return (math.sqrt(alike) * shared + math.sqrt(1 - alike) * own).ravel()


@pytest.mark.parametrize("alike", [0.0, 0.7, 1.0])
def test_pairs_that_share_a_prompt_have_intervals_that_hold_what_they_say(alike):
    """As if they were independent, those of pairs that are alike by 0.7 hold the truth in 63 to 73 of 100 cases."""
    chance, prompts = np.random.default_rng(3), np.repeat(np.arange(20), 6)
    held = dict.fromkeys(("share", "change", "mean"), 0)
    for _ in range(100):
        pairs = _ranked(chance, 20, 6, alike)
        measured = {
            "share": (share_of(pairs > 0, prompts), 0.5),
            "change": (change_of_share(pairs < -0.8, pairs > 0.8, prompts), 0.0),
            "mean": (mean_change(pairs, prompts), 0.0),
        }
        for name, (found, truth) in measured.items():
            held[name] += found.low <= truth <= found.high
    assert min(held.values()) >= 88, held


def test_pairs_of_prompts_of_their_own_have_the_intervals_of_independent_ones():
    hits, changes, prompts = [True, False, True, True], [0.3, -0.1, 0.2, 0.5], ["a", "b", None, None]
    assert share_of(hits, prompts) == share(3, 4)
    assert change_of_share([False] * 4, hits, prompts) == share_change(3, 0, 4)
    assert mean_change(changes, prompts) == mean_change(changes)


def test_pairs_that_are_copies_of_one_count_once():
    prompts = ["a"] * 6 + ["b"] * 6 + ["c"] * 6
    same = share_of([True] * 18, prompts)
    assert (same.low, same.high) == (share(3, 3).low, 1.0), "three prompts, however many pairs they have"
    assert str(same) == "1.00 (n=18 on 3 prompts, 95 % 0.29 to 1.00)"
    mixed, three = share_of([True] * 12 + [False] * 6, prompts), share(2, 3)
    assert (mixed.low, mixed.high) == pytest.approx((three.low, three.high))
    assert mean_change([0.1] * 18, prompts).low == mean_change([0.1] * 3).low
    assert mean_change([0.1, 0.2], ["a", "a"]).high == math.inf, "one prompt has no spread"


def test_pairs_that_cancel_out_within_each_prompt_are_no_certainty():
    ups_and_downs = [0.5, -0.5] * 10
    found = mean_change(ups_and_downs, [n // 2 for n in range(20)])
    assert found.low < -0.1 < 0.1 < found.high, "the mean of each prompt is 0, and the pairs vary"
