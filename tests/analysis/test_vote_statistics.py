"""What the votes say. What a user would lose: the truth, when chance is called a difference."""

import math
import random

import numpy as np
import pandas as pd
import pytest

from simpo_workbench import WorkbenchError, win_rate


def votes_of(winners, lengths=None, titles=None):
    """A table of votes with these winners, each on a prompt of its own."""
    table = pd.DataFrame({"prompt": [f"Question {i}?" for i in range(len(winners))], "winner": winners})
    if lengths is not None:
        table["first_tokens"], table["second_tokens"] = zip(*lengths, strict=True)
    table.attrs["titles"] = titles or {"first": "base", "second": "tuned"}
    return table


def test_ties_and_both_bad_count_one_half_skips_nothing_and_the_same_answer_as_a_tie():
    rate = win_rate(votes_of(["second"] * 6 + ["first"] * 2 + ["tie", "both bad", "same", "same", "skip"]))
    assert rate.value == pytest.approx((6 + 0.5 * 4) / 12)
    assert (rate.n, rate.wins, rate.losses, rate.ties, rate.both_bad, rate.same, rate.skipped) == (12, 6, 2, 1, 1, 2, 1)
    assert "2 prompts with the same answer from both count as ties" in rate.verdict
    assert "from 10 votes" in rate.verdict
    other = win_rate(votes_of(["second"] * 6 + ["first"] * 2 + ["tie", "both bad", "same", "same", "skip"]), of="first")
    assert other.value == pytest.approx(1 - rate.value)
    assert (other.low, other.high) == pytest.approx((1 - rate.high, 1 - rate.low), abs=0.05)


def test_the_interval_is_that_of_a_bootstrap_written_as_a_plain_loop():
    winners = ["second"] * 23 + ["first"] * 11 + ["tie"] * 4 + ["both bad"] * 2
    chance, values = random.Random(5), [1.0] * 23 + [0.0] * 11 + [0.5] * 6
    means = sorted(sum(chance.choice(values) for _ in values) / len(values) for _ in range(10_000))
    low, high = means[249], means[9749]
    rate = win_rate(votes_of(winners), seed=1)
    assert (rate.low, rate.high) == pytest.approx((low, high), abs=0.0126), (
        "the means are steps of 1/80: one step is sampling error"
    )
    again = win_rate(votes_of(winners), resamples=40_000, seed=2)
    assert (again.low, again.high) == pytest.approx((low, high), abs=0.0126)


def test_the_interval_is_that_of_the_normal_distribution_where_that_holds():
    """600 wins and 400 losses: 0.6 ± 1.96 · √(0.6 · 0.4 / 1000) = 0.6 ± 0.0304."""
    rate = win_rate(votes_of(["second"] * 600 + ["first"] * 400))
    assert (rate.low, rate.high) == pytest.approx((0.5696, 0.6304), abs=0.002)
    assert rate.winner == "second"


def test_the_interval_holds_the_truth_in_about_95_of_100_tests():
    """Sixty prompts each; the second model wins 0.45, ties 0.2: its true rate is 0.55."""
    chance, held = np.random.default_rng(11), 0
    for number in range(400):
        rate = win_rate(
            votes_of(list(chance.choice(["second", "tie", "first"], 60, p=[0.45, 0.2, 0.35]))),
            resamples=600,
            seed=number,
        )
        held += rate.low <= 0.55 <= rate.high
    assert (
        0.915 <= held / 400 <= 0.98
    )  # 95 % ± 3 standard errors of a share of 400; a percentile bootstrap of 60 lies a little below


def test_where_the_models_are_equal_better_is_said_about_once_in_twenty_tests():
    chance, said = np.random.default_rng(12), 0
    for number in range(400):
        n = int(chance.integers(2, 40))
        said += (
            "better"
            in win_rate(
                votes_of(list(chance.choice(["second", "first", "tie"], n, p=[0.35, 0.35, 0.3]))),
                resamples=600,
                seed=number,
            ).verdict
        )
    assert said / 400 < 0.075


@pytest.mark.parametrize("n", [1, 5, 10, 40])
def test_votes_that_all_agree_keep_the_exact_interval(n):
    """The bootstrap of n ones is a point.

    Clopper and Pearson: a share of 0.025^(1/n) still gives n wins of n with a chance of 2.5 %.
    """
    low = math.exp(math.log(0.025) / n)
    rate, lost = win_rate(votes_of(["second"] * n)), win_rate(votes_of(["first"] * n))
    assert (rate.value, rate.low, rate.high) == pytest.approx((1.0, low, 1.0))
    assert (lost.value, lost.low, lost.high) == pytest.approx((0.0, 0.0, 1 - low))
    assert low**n == pytest.approx(0.025)


def test_nothing_but_ties_is_no_certainty_either():
    rate = win_rate(votes_of(["tie"] * 20))
    assert (rate.low, rate.high) == pytest.approx((0.5 - (1 - 0.025**0.05) / 2, 0.5 + (1 - 0.025**0.05) / 2))
    assert rate.winner == ""


def test_a_few_wins_among_ties_are_no_difference():
    """Five wins of five decided are a coin's chance of 1 in 16 both ways, though the bootstrap of 5 ones and 15 halves
    excludes one half.
    """
    assert win_rate(votes_of(["second"] * 5 + ["tie"] * 15)).winner == ""
    assert win_rate(votes_of(["first"] * 5 + ["tie"] * 15)).winner == ""
    rate = win_rate(votes_of(["second"] * 8 + ["tie"] * 12))
    assert rate.low <= (8 * 0.025 ** (1 / 8) + 6) / 20
    assert rate.winner == "second"


def test_a_prompt_that_was_asked_often_counts_as_one_prompt():
    """Sixty votes on three prompts: the answers to one prompt stand and fall together, so the interval is that of
    three.
    """
    table = votes_of(["second"] * 40 + ["first"] * 20)
    table["prompt"] = [f"Question {i // 20}?" for i in range(60)]
    assert win_rate(votes_of(list(table["winner"]))).winner == "second"
    rate = win_rate(table)
    assert (rate.low, rate.high) == (0.0, 1.0)
    assert rate.winner == ""


def votes_on(asked):
    """A table of votes: {winner: number} for each prompt."""
    rows = [
        (f"Question {place}?", winner)
        for place, counts in enumerate(asked)
        for winner, number in counts.items()
        for _ in range(number)
    ]
    table = pd.DataFrame(rows, columns=["prompt", "winner"])
    table.attrs["titles"] = {"first": "base", "second": "tuned"}
    return table


@pytest.mark.parametrize("of", ["first", "second"])
@pytest.mark.parametrize(
    "asked",
    [
        [{"second": 9, "first": 1}],
        [{"second": 19, "first": 1}] * 3,
        [{"second": 90, "first": 10}] * 9,
        [{"second": 40}] * 9,
    ],
)
def test_few_prompts_decide_nothing_however_often_they_were_asked(asked, of):
    """A bootstrap over one prompt is a point, and so is one over nine prompts that all went 90 to 10."""
    rate = win_rate(votes_on(asked), of)
    assert rate.winner == ""
    assert "better" not in rate.verdict
    assert "at least 10 judged prompts are needed" in rate.verdict
    assert (rate.prompts, rate.judged) == (len(asked), len(asked))
    assert win_rate(votes_on(asked + [{"same": 1}] * 30), of).winner == ""
    assert rate.high - rate.low > 0.3


def test_ten_prompts_may_decide_and_the_sentence_says_how_many_votes_they_had():
    rate = win_rate(votes_on([{"second": 3, "first": 1}] * 10))
    assert rate.winner == "second"
    assert "tuned is better than base: it wins 0.75 of 40 votes on 10 prompts" in rate.verdict
    few = win_rate(votes_on([{"second": 3, "first": 1}] * 2))
    assert "No difference can be told from 8 votes: tuned wins 0.75 of 8 votes on 2 prompts" in few.verdict


def test_the_interval_of_few_prompts_reaches_as_far_as_that_of_as_many_throws():
    """Seven wins of nine: Clopper and Pearson's interval is 0.400 to 0.972; with a chance of 2.5 % each end still gives
    as many, or as few.
    """
    rate = win_rate(votes_on([{"second": 1}] * 7 + [{"first": 1}] * 2))
    assert rate.low == pytest.approx(0.400, abs=0.001)
    assert sum(math.comb(9, k) * rate.low**k * (1 - rate.low) ** (9 - k) for k in range(7, 10)) == pytest.approx(0.025)
    assert rate.high >= 0.972
    other = win_rate(votes_on([{"second": 1}] * 7 + [{"first": 1}] * 2), of="first")
    assert other.high == pytest.approx(0.600, abs=0.001)
    one = win_rate(votes_on([{"second": 9, "first": 1}]))
    assert (one.low, one.high) == (0.0, 1.0), "one throw that nine tenths won tells nothing"
    many = win_rate(votes_on([{"second": 1}] * 3 + [{"same": 1}] * 4000))
    assert 0.48 < many.low < 0.5 < many.high < 0.52, "half of 4,003 throws: ± 0.0155, and 4003 over 2000 is no float"


def test_better_is_only_said_where_the_interval_excludes_one_half():
    for wins in range(41):
        rate = win_rate(votes_of(["second"] * wins + ["first"] * (40 - wins)), resamples=2000)
        assert ("better" in rate.verdict) == (not rate.low <= 0.5 <= rate.high) == bool(rate.winner)
        assert ("No difference can be told from 40 votes" in rate.verdict) == (rate.low <= 0.5 <= rate.high)
    assert "tuned is better than base" in win_rate(votes_of(["second"] * 35 + ["first"] * 5)).verdict
    verdict = win_rate(votes_of(["second"] * 5 + ["first"] * 35)).verdict
    assert "base is better than tuned: it wins 0.88 of 40 prompts" in verdict


def test_few_votes_decide_nothing_however_they_agree():
    rate = win_rate(votes_of(["second"] * 9 + ["same"] * 30))
    assert rate.winner == ""
    assert "No difference can be told from 9 votes" in rate.verdict
    assert "at least 10" in rate.verdict
    assert "better" not in rate.verdict
    assert win_rate(votes_of(["second"] * 10)).winner == "second"


def test_the_length_difference_stands_beside_the_verdict():
    lengths = [(50 + n % 7, 14 + n % 5) for n in range(40)]
    differences = np.array([second - first for first, second in lengths])
    rate = win_rate(votes_of(["second"] * 32 + ["first"] * 8, lengths))
    half = 1.96 * differences.std(ddof=1) / math.sqrt(40)
    assert rate.length_difference.value == pytest.approx(differences.mean())
    assert (rate.length_difference.low, rate.length_difference.high) == pytest.approx(
        (differences.mean() - half, differences.mean() + half), abs=0.1
    )
    assert "the winner's answers are 37 tokens shorter (95 % −38 to −36)" in rate.verdict
    lost = win_rate(votes_of(["first"] * 32 + ["second"] * 8, lengths))
    assert "base is better" in lost.verdict
    assert "the winner's answers are 37 tokens longer (95 % +36 to +38)" in lost.verdict
    undecided = win_rate(votes_of(["first", "second"] * 20, lengths))
    assert "The answers of tuned are 37 tokens shorter" in undecided.verdict
    assert win_rate(votes_of(["first", "second"] * 20)).length_difference is None
    assert "equally long" in win_rate(votes_of(["first", "second"] * 20, [(5, 5)] * 40)).verdict


def test_votes_of_several_tests_count_together():
    one, other = (
        votes_of(["second"] * 8, [(30, 10)] * 8),
        votes_of(["second"] * 4 + ["tie"] * 4, [(float("nan"), 10)] * 4 + [(30, 20)] * 4),
    )
    both = pd.concat([one, other.assign(prompt=[f"Another {i}?" for i in range(8)])])
    rate = win_rate(both)
    assert (rate.n, rate.wins, rate.winner) == (16, 12, "second")
    assert (rate.length_difference.n, rate.length_difference.value) == (12, pytest.approx(-200 / 12))


def test_prompts_that_are_no_text_and_no_resamples_are_errors_in_words():
    for prompts in (["Why?", None], ["Why?", float("nan")], ["Why?", [{"role": "user", "content": "Why?"}]]):
        with pytest.raises(WorkbenchError, match="The prompt of vote 2 is .*, expected a text"):
            win_rate(pd.DataFrame({"prompt": pd.Series(prompts, dtype=object), "winner": "first"}))
    for resamples in (0, -1, 1e4, "many"):
        with pytest.raises(WorkbenchError, match="resamples is .*, expected a whole number from 1 on"):
            win_rate(votes_of(["first"] * 20), resamples=resamples)


@pytest.mark.parametrize(
    ("table", "of", "said"),
    [
        (pd.DataFrame({"winner": ["first"]}), "second", "lack the column 'prompt'"),
        (votes_of(["first"]), "tuned", "of is 'tuned'"),
        (votes_of(["left"]), "second", "something else"),
        (votes_of([]), "second", "no vote counts yet"),
        (votes_of(["skip", "skip"]), "second", "no vote counts yet"),
    ],
)
def test_a_rate_of_what_are_no_votes_is_an_error_in_words(table, of, said):
    with pytest.raises(WorkbenchError, match=said):
        win_rate(table, of)
