"""The ends of 95 % intervals: exact ones of shares, and those of means from few cases. Pure functions."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Z95 = 1.959963984540054  # 97.5th percentile of the standard normal
#: Samples that a bootstrap draws, and numbers that it holds at once.
RESAMPLES, _DRAWS_AT_ONCE = 2000, 2_000_000
#: From so many cases on the bootstrap of a mean and its normal interval agree to three digits.
_MANY = 5000
_SEED = 0


def exact_interval(hits: float, n: int) -> tuple[float, float]:
    """(low, high): the exact 95 % interval of a share with `hits` of n cases; it reaches 0 or 1 where none or all hit.

    Hits need not be whole: the sum of n shares, each 0 … 1, varies at most like the hits of n throws.
    Source: Clopper and Pearson 1934; for sums of shares Hoeffding 1963.
    """
    return _least_share(hits, n), 1 - _least_share(n - hits, n)


def bootstrap_interval(values, numbers=None, reach: float = 0.0) -> tuple[float, float]:
    """(low, high): the 95 % interval of a mean by the percentile bootstrap, widened for few cases; -inf … inf for one.

    values: numbers of any size, (cases,). numbers: of each case's prompt, as of `clusters`; whole prompts are drawn
    then. Where all values are the same, the cases that were not seen may be as far from them on the other side of 0, or
    `reach` away, as often as the exact interval of n of n allows: few equal values are not certain. The interval of
    values that are all 0 is endless where no `reach` is known.
    Source: Hesterberg 2015, What teachers should know about the bootstrap, section 5.1 (the widening by t).
    """
    import numpy as np

    values = np.asarray(values, dtype=float)
    n, mean = len(values), float(np.mean(values))
    drawn = n if numbers is None else int(numbers.max()) + 1
    if drawn < 2:
        return -math.inf, math.inf
    if np.ptp(values) == 0:
        unseen = 1 - exact_interval(drawn, drawn)[0]
        away = unseen * max(2 * abs(mean), reach)
        return (mean - away, mean + away) if away else (-math.inf, math.inf)
    sums, sizes = (values, None) if numbers is None else (np.bincount(numbers, values), np.bincount(numbers))
    if sizes is not None and _vary_less(values, sums, sizes):
        sums, sizes = values, None  # prompts whose pairs cancel out make no mean surer than it is without them
    if len(sums) >= _MANY:
        half = Z95 * _standard_error(sums, np.ones(n) if sizes is None else sizes)
        return mean - half, mean + half
    low, high = np.percentile(_means(sums, sizes), [2.5, 97.5])
    wider = math.sqrt(drawn / (drawn - 1)) * student_t95(drawn - 1) / Z95
    return mean - wider * (mean - float(low)), mean + wider * (float(high) - mean)


def _standard_error(sums, sizes):
    """Of the mean over all cases, from the sum and the number of cases of each prompt."""
    import numpy as np

    residuals = sums - sizes * (np.sum(sums) / np.sum(sizes))
    return math.sqrt(float(np.sum(residuals**2)) * len(sums) / (len(sums) - 1)) / float(np.sum(sizes))


def _vary_less(values, sums, sizes):
    """Whether the sums of prompts vary less than those of as many independent cases."""
    import numpy as np

    return _standard_error(sums, sizes) < _standard_error(values, np.ones(len(values)))


def _means(sums, sizes=None) -> np.ndarray:
    """Means of samples drawn with replacement, (RESAMPLES,), always the same ones for the same values.

    sums, sizes: the sum and the number of cases of each prompt; without sizes one case each.
    """
    import numpy as np

    chance, n, means = np.random.default_rng(_SEED), len(sums), []
    at_once = max(1, _DRAWS_AT_ONCE // n)
    for done in range(0, RESAMPLES, at_once):
        places = chance.integers(0, n, (min(at_once, RESAMPLES - done), n))
        if sizes is None:
            means.append(sums[places].mean(axis=1))
        else:
            means.append(sums[places].sum(axis=1) / sizes[places].sum(axis=1))
    return np.concatenate(means)


@lru_cache(maxsize=1024)
def student_t95(freedom: int) -> float:
    """The 97.5th percentile of Student's t with so many degrees of freedom."""
    x = _beta_quantile(0.05, freedom / 2, 0.5)
    return math.sqrt(freedom * (1 / x - 1))


def _least_share(hits, n):
    """The share with which `hits` of n or more have a chance of 2.5 %."""
    return _beta_quantile(0.025, hits, n - hits + 1) if hits > 0 else 0.0


@lru_cache(maxsize=4096)
def _beta_quantile(chance, a, b):
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _beta_below(middle, a, b) < chance else (low, middle)
    return (low + high) / 2


def _beta_below(x, a, b):
    """The regularized incomplete beta function I_x(a, b), by its continued fraction.

    Source: Abramowitz and Stegun 26.5.8, evaluated as Lentz proposed.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_below(1 - x, b, a)
    front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    tiny = 1e-300  # stands for 0 in denominators
    value, above, below = tiny, tiny, 0.0
    for place in range(1, 20_000):
        m = place // 2
        if place == 1:
            term = 1.0
        elif place % 2:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            k = m - 1
            term = -(a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1))
        below = 1 / ((1 + term * below) or tiny)
        above = (1 + term / above) or tiny
        value *= above * below
        if abs(above * below - 1) < 1e-14:
            break
    return math.exp(front) * value / a
