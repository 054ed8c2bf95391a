"""The result of a blind test's votes: a win rate with its interval, the difference in length, and a sentence.

Pure functions of DataFrames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..base.errors import WorkbenchError
from ..base.format import counted, signed
from .intervals import exact_interval

SIDES = ("first", "second")
#: With fewer judged prompts than this, each counted once however often it was asked, no model is called better.
LEAST_JUDGED = 10
_DRAWS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class LengthDifference:
    """Tokens by which one model's answers are longer: the mean of n answers, and its 95 % interval over prompts.

    With one prompt low and high are NaN.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self):
        words = "equally long"
        if tokens := round(self.value):
            words = f"{counted(abs(tokens), 'token')} {'longer' if tokens > 0 else 'shorter'}"
        return words if self.low != self.low else f"{words} (95 % {signed(self.low, 0)} to {signed(self.high, 0)})"


@dataclass(frozen=True)
class WinRate:
    """How often one model wins against the other, by the votes of a blind test.

    value: share of n votes that it wins, ties and both bad counting one half; low, high: its 95 % interval. same:
    prompts with the same answer from both, which count as ties and are in n; skipped ones are not. prompts: number of
    different prompts among the n; judged: number of those with a vote. length_difference: its tokens minus the other's;
    None where lengths are unknown. winner: "first" or "second" where the interval excludes one half and at least
    LEAST_JUDGED different prompts were judged, else "". verdict: all this as a sentence.
    """

    value: float
    low: float
    high: float
    n: int
    wins: int
    losses: int
    ties: int
    both_bad: int
    skipped: int
    same: int
    prompts: int
    judged: int
    length_difference: LengthDifference | None
    winner: str
    verdict: str

    def __str__(self):
        return self.verdict

    @property
    def basis(self) -> str:
        """Number of cases in the rate: "40 prompts", or "60 votes on 3 prompts" if some were asked repeatedly."""
        if self.n == self.prompts:
            return counted(self.n, "prompt")
        return f"{counted(self.n, 'vote')} on {counted(self.prompts, 'prompt')}"


def win_rate(votes, of: str = "second", resamples: int = 10_000, seed: int = 0) -> WinRate:
    """The WinRate of one model; of: "first" or "second".

    votes: DataFrame with the columns prompt and winner, as `BlindVotes.votes`; first_tokens and second_tokens give the
    length difference, attrs["titles"] the names. The interval is the percentile bootstrap over prompts (Efron 1979),
    where a prompt that was asked several times is drawn as a whole. A model that never won cannot win in a resample
    either, though it might have won; so the interval then reaches at least as far as the exact binomial one of the
    decided prompts (Clopper and Pearson 1934), for n wins of n down to 0.025^(1/n). With fewer than LEAST_JUDGED judged
    prompts, too few to resample, it reaches at least as far as the exact interval with one throw per prompt.
    Errors: WorkbenchError for missing columns, prompts that are not texts, an unknown `of` or winner, no resamples, or
    no vote that counts.
    """
    import numpy as np

    missing = [name for name in ("prompt", "winner") if name not in votes]
    if missing:
        raise WorkbenchError(f"The votes lack the column {missing[0]!r}: give the `votes` of a BlindVotes.")
    if of not in SIDES:
        raise WorkbenchError(f"of is {of!r}, expected 'first' or 'second'.")
    if not isinstance(resamples, int | np.integer) or resamples < 1:
        raise WorkbenchError(f"resamples is {resamples!r}, expected a whole number from 1 on.")
    for place, prompt in enumerate(votes["prompt"], 1):
        if not isinstance(prompt, str | int):
            raise WorkbenchError(
                f"The prompt of vote {place} is {prompt!r}, expected a text: votes on the same prompt are found by it."
            )
    other = SIDES[of == "first"]
    counts = {name: int((votes["winner"] == name).sum()) for name in (*SIDES, "tie", "both bad", "same", "skip")}
    if sum(counts.values()) != len(votes):
        raise WorkbenchError(f"The column winner holds something else than {', '.join(map(repr, counts))}.")
    table = votes[votes["winner"] != "skip"]
    if not len(table):
        raise WorkbenchError("A win rate of nothing has no value: no vote counts yet.")
    chance = np.random.default_rng(seed)
    score = (table["winner"] == of).to_numpy(float) - (table["winner"] == other).to_numpy(float)
    low, high = _interval(score / 2 + 0.5, table["prompt"], resamples, chance)
    value, n = 0.5 + score.mean() / 2, len(table)
    if not (score > 0).any() or not (score < 0).any():
        least, most = _exact(score, table["prompt"])
        low, high = min(low, least), max(high, most)
    prompts, judged = table["prompt"].nunique(), table.loc[table["winner"] != "same", "prompt"].nunique()
    if judged < LEAST_JUDGED:
        least, most = _throws(score / 2 + 0.5, table["prompt"])
        low, high = min(low, least), max(high, most)
    winner = ""
    if judged >= LEAST_JUDGED and low > 0.5:
        winner = of
    elif judged >= LEAST_JUDGED and high < 0.5:
        winner = other
    rate = WinRate(
        value=float(value),
        low=low,
        high=high,
        n=n,
        wins=counts[of],
        losses=counts[other],
        ties=counts["tie"],
        both_bad=counts["both bad"],
        skipped=counts["skip"],
        same=counts["same"],
        prompts=prompts,
        judged=judged,
        length_difference=_length_difference(table, of, other, resamples, chance),
        winner=winner,
        verdict="",
    )
    titles = {"first": "the first", "second": "the second", **votes.attrs.get("titles", {})}
    return replace(rate, verdict=_verdict(rate, of, other, titles))


def _interval(values, prompts, resamples, chance):
    """95 % percentile bootstrap interval of the mean of `values`, resampled by prompt."""
    import numpy as np

    sums, sizes = _by_prompt(values, prompts)
    n, means = len(sums), []
    at_once = max(1, _DRAWS_AT_ONCE // n)
    for done in range(0, resamples, at_once):
        drawn = chance.integers(0, n, (min(at_once, resamples - done), n))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def _by_prompt(values, prompts):
    """(sum, number) of the values of each different prompt."""
    import numpy as np
    import pandas as pd

    places, _ = pd.factorize(prompts)
    return np.bincount(places, values), np.bincount(places)


def _exact(score, prompts):
    """(low, high) where one side never won: the decided prompts might have gone the other way as often as the exact
    binomial interval allows; where all are ties, so might these.
    """
    decided = score != 0
    n = len(set(prompts[decided] if decided.any() else prompts))
    seldom = 0.025 ** (1 / n)  # the least share with which n of the same kind in a row have a chance of 2.5 %
    if not decided.any():
        return seldom / 2, 1 - seldom / 2
    mean = float(score.mean()) / 2
    bound = abs(mean) * (2 * seldom - 1)  # the decided prompts go `seldom` one way instead of always
    return (0.5 + bound, 0.5 + mean) if mean > 0 else (0.5 + mean, 0.5 - bound)


def _throws(values, prompts):
    """(low, high) of the exact binomial interval with one throw per prompt, however often it was asked.

    Between 0 and 1 nothing varies more than a throw of the same mean. The wins are the sum of the prompts' means,
    rounded outwards at both ends.
    """
    sums, sizes = _by_prompt(values, prompts)
    n, wins = len(sums), round(float((sums / sizes).sum()), 9)
    return exact_interval(math.floor(wins), n)[0], exact_interval(math.ceil(wins), n)[1]


def _length_difference(table, of, other, resamples, chance):
    if not {"first_tokens", "second_tokens"} <= set(table.columns):
        return None
    difference = (table[f"{of}_tokens"] - table[f"{other}_tokens"]).to_numpy(float)
    known = difference == difference
    if not known.any():
        return None
    difference, prompts = difference[known], table["prompt"][known]
    low = high = math.nan
    if prompts.nunique() > 1:
        low, high = _interval(difference, prompts, resamples, chance)
    return LengthDifference(float(difference.mean()), low, high, len(difference))


def _verdict(rate, of, other, titles):
    """The win rate in words; a model is called better only where there is a winner."""
    if rate.winner == other:
        return _verdict(_turned(rate, other), other, of, titles)
    value = f"{rate.value:.2f} of {rate.basis} (95 % {rate.low:.2f} to {rate.high:.2f})"
    length, alike = rate.length_difference, ""
    if rate.same:
        counts_as = "counts as a tie" if rate.same == 1 else "count as ties"
        alike = f" {counted(rate.same, 'prompt')} with the same answer from both {counts_as}."
    if rate.winner:
        beside = f", and the winner's answers are {length}" if length else ""
        return f"By these votes {titles[of]} is better than {titles[other]}: it wins {value}{beside}.{alike}"
    why = "one half lies inside the interval"
    if rate.judged < LEAST_JUDGED:
        why = f"at least {LEAST_JUDGED} judged prompts are needed before anything can be said"
    beside = f" The answers of {titles[of]} are {length}." if length else ""
    return (
        f"No difference can be told from {counted(rate.n - rate.same, 'vote')}: {titles[of]} wins {value}, and"
        f" {why}.{beside}{alike}"
    )


def _turned(rate, of):
    """The same votes from the other model's side."""
    length = rate.length_difference
    return replace(
        rate,
        value=1 - rate.value,
        low=1 - rate.high,
        high=1 - rate.low,
        wins=rate.losses,
        losses=rate.wins,
        length_difference=length and LengthDifference(-length.value, -length.high, -length.low, length.n),
        winner=of,
    )
