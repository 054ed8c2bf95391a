"""What the votes of a blind test say: a win rate with its interval, the difference in length beside it, and a sentence.

Pure functions of DataFrames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..base.errors import WorkbenchError
from ..base.format import counted, signed

SIDES = ("first", "second")
#: Fewer judged prompts than this, each counted once however often it was asked, are called no difference, whatever
#: their interval.
LEAST_JUDGED = 10
_DRAWS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class LengthDifference:
    """Tokens by which one model's answers are longer: the mean over n answers with its 95 % interval over prompts (no
    number where there is one prompt).
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self):
        words = (
            f"{counted(round(abs(self.value)), 'token')} {'longer' if self.value > 0 else 'shorter'}"
            if round(self.value)
            else "equally long"
        )
        return words if self.low != self.low else f"{words} (95 % {signed(self.low, 0)} to {signed(self.high, 0)})"


@dataclass(frozen=True)
class WinRate:
    """What the votes say of one model against the other.

    value: share of n votes that it wins, ties and both bad counting one half; low, high: its 95 % interval. same:
    prompts with the same answer from both, which count as ties and are in n; skipped ones are not. prompts: how many
    different prompts the n are about; judged: on how many of them somebody voted.
    length_difference: its tokens minus the other's; None where no lengths are known.
    winner: "first" or "second" where the interval excludes one half and at least 10 different prompts were judged, else
    "". verdict: all this as a sentence.
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
        """What the rate is a share of: "40 prompts", or where some were asked several times "60 votes on 3 prompts"."""
        return (
            counted(self.n, "prompt")
            if self.n == self.prompts
            else f"{counted(self.n, 'vote')} on {counted(self.prompts, 'prompt')}"
        )


def win_rate(votes, of: str = "second", resamples: int = 10_000, seed: int = 0) -> WinRate:
    """The WinRate of one model, `of` being "first" or "second".

    votes: DataFrame with the columns prompt and winner, as `BlindVotes.votes`; first_tokens and second_tokens give the
    length difference, attrs["titles"] the names. The interval is the percentile bootstrap over prompts (Efron 1979): a
    prompt that was asked several times is drawn as a whole. Where one model never won, resampling cannot know that it
    might have; the interval then reaches at least as far as the exact binomial one of the decided prompts (Clopper and
    Pearson 1934), for n wins of n down to 0.025^(1/n). Fewer than 10 judged prompts are too few to resample: there the
    interval reaches at least as far as the exact one of the prompts, each one throw.
    Errors: WorkbenchError for missing columns, prompts that are no text, an unknown `of` or winner, no resamples, or no
    vote that counts.
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
    winner = "" if judged < LEAST_JUDGED else of if low > 0.5 else other if high < 0.5 else ""
    length = _length_difference(table, of, other, resamples, chance)
    found = WinRate(
        float(value),
        low,
        high,
        n,
        counts[of],
        counts[other],
        counts["tie"],
        counts["both bad"],
        counts["skip"],
        counts["same"],
        prompts,
        judged,
        length,
        winner,
        "",
    )
    titles = {"first": "the first", "second": "the second", **votes.attrs.get("titles", {})}
    return replace(found, verdict=_verdict(found, of, other, titles))


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
    """(sum of the values, how many there are) of each different prompt."""
    import numpy as np
    import pandas as pd

    places, _ = pd.factorize(prompts)
    return np.bincount(places, values), np.bincount(places)


def _exact(score, prompts):
    """(low, high) where one side never won: the decided prompts might have gone otherwise as often as the exact
    binomial interval allows, and so might the ties where all are ties.
    """
    decided = score != 0
    prompts_of = len(set(prompts[decided])) if decided.any() else len(set(prompts))
    seldom = 0.025 ** (
        1 / prompts_of
    )  # the least share that gives so many of the same kind in a row with a chance of 2.5 %
    if not decided.any():
        return seldom / 2, 1 - seldom / 2
    mean = float(score.mean()) / 2
    bound = abs(mean) * (2 * seldom - 1)  # the decided prompts go `seldom` one way instead of always
    return (0.5 + bound, 0.5 + mean) if mean > 0 else (0.5 + mean, 0.5 - bound)


def _throws(values, prompts):
    """(low, high) of the exact binomial interval that takes every prompt, however often it was asked, for one throw.

    Between 0 and 1 nothing varies more than a throw of the same mean. The wins are the prompts' mean values together,
    rounded to both sides.
    """
    sums, sizes = _by_prompt(values, prompts)
    n, wins = len(sums), round(float((sums / sizes).sum()), 9)
    return _least_share(math.floor(wins), n), 1 - _least_share(n - math.ceil(wins), n)


def _least_share(wins, n):
    """The share that gives so many wins of n, or more, with a chance of 2.5 %: the lower end of Clopper and Pearson's
    interval.
    """
    if not wins:
        return 0.0
    ways = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(wins, n + 1)
    ]  # as logarithms: of thousands they are no float
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        chance = sum(
            math.exp(way + k * math.log(middle) + (n - k) * math.log1p(-middle)) for k, way in enumerate(ways, wins)
        )
        low, high = (middle, high) if chance < 0.025 else (low, middle)
    return low


def _length_difference(table, of, other, resamples, chance):
    if not {"first_tokens", "second_tokens"} <= set(table.columns):
        return None
    difference = (table[f"{of}_tokens"] - table[f"{other}_tokens"]).to_numpy(float)
    known = difference == difference
    if not known.any():
        return None
    difference, prompts = difference[known], table["prompt"][known]
    low, high = (
        _interval(difference, prompts, resamples, chance) if prompts.nunique() > 1 else (float("nan"), float("nan"))
    )
    return LengthDifference(float(difference.mean()), low, high, len(difference))


def _verdict(found, of, other, titles):
    """The win rate in words. "Better" is said where the interval excludes one half, and nowhere else."""
    rate = f"{found.value:.2f} of {found.basis} (95 % {found.low:.2f} to {found.high:.2f})"
    alike = (
        f" {counted(found.same, 'prompt')} with the same answer from both"
        f" {'counts as a tie' if found.same == 1 else 'count as ties'}."
        if found.same
        else ""
    )
    length = found.length_difference
    if found.winner:
        if found.winner == other:
            return _verdict(_turned(found, other), other, of, titles)
        beside = f", and the winner's answers are {length}" if length else ""
        return f"By these votes {titles[of]} is better than {titles[other]}: it wins {rate}{beside}.{alike}"
    why = (
        f"at least {LEAST_JUDGED} judged prompts are needed before anything can be said"
        if found.judged < LEAST_JUDGED
        else "one half lies inside the interval"
    )
    beside = f" The answers of {titles[of]} are {length}." if length else ""
    return (
        f"No difference can be told from {counted(found.n - found.same, 'vote')}: {titles[of]} wins {rate}, and"
        f" {why}.{beside}{alike}"
    )


def _turned(found, of):
    """The same votes from the other model's side."""
    length = found.length_difference
    turned = length and LengthDifference(-length.value, -length.high, -length.low, length.n)
    return replace(
        found,
        value=1 - found.value,
        low=1 - found.high,
        high=1 - found.low,
        wins=found.losses,
        losses=found.wins,
        length_difference=turned,
        winner=of,
    )
