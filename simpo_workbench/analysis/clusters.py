"""Cases that share a prompt, such as pairs made of one ranking: how many independent cases they are worth.

Such cases rise and fall together, so they say less than as many cases of different prompts. Pure functions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .intervals import student_t95

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def clusters(prompts) -> np.ndarray | None:
    """The number of each case's prompt from 0 on, (cases,) int; None where no two cases share one, or without prompts.

    prompts: one value per case, such as the column `prompt` of a scores table; a missing one is a prompt of its own.
    """
    import numpy as np
    import pandas as pd

    if prompts is None or not len(prompts):
        return None
    values = prompts if hasattr(prompts, "dtype") else pd.Series(list(prompts), dtype=object)
    numbers, distinct = pd.factorize(values)
    lone = numbers < 0
    numbers[lone] = len(distinct) + np.arange(int(lone.sum()))
    return None if len(distinct) + int(lone.sum()) == len(numbers) else numbers


def prompts_of(table: pd.DataFrame) -> pd.Series | None:
    """The column `prompt` of a scores table, for `clusters`; None where it has none."""
    return table.get("prompt")


def counted_prompts(numbers, n: int) -> int:
    """How many different prompts n cases have, by their `clusters`."""
    return n if numbers is None else int(numbers.max()) + 1


def design_effect(values, numbers) -> float:
    """How many times larger the variance of the mean is than that of as many independent cases, from 0 on; NaN where
    all values are the same, or there is one prompt only.

    values: (cases,). numbers: as of `clusters`. Source: Kish 1965, Survey Sampling, with the variance between clusters.
    """
    import numpy as np

    residuals, n = np.asarray(values, dtype=float) - float(np.mean(values)), len(values)
    independent = float(np.sum(residuals**2)) / n**2 * n / (n - 1)
    sums = np.bincount(numbers, residuals)
    if not independent or len(sums) < 2:
        return math.nan
    return float(np.sum(sums**2)) / n**2 * len(sums) / (len(sums) - 1) / independent


def effective_cases(values, numbers) -> float:
    """How many independent cases the mean of these values is as sure as; the number of cases without `clusters`.

    values: between -1 and 1, such as hits or changes of a share. Between the number of prompts (where all cases of a
    prompt go one way, nothing varies more) and that of cases.
    Source: Korn and Graubard 1998, Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data (the design effect, and its uncertainty by Student's t).
    """
    import numpy as np

    n = len(values)
    if numbers is None:
        return n
    sizes = np.bincount(numbers)
    least = n**2 / float(np.sum(sizes**2))  # the number of prompts, where all have as many cases
    effect = design_effect(values, numbers)
    if math.isnan(effect):
        return least
    wider = (student_t95(len(sizes) - 1) / student_t95(n - 1)) ** 2
    return min(float(n), max(least, n / (max(effect, 1.0) * wider)))


def prompt_signs(differences, numbers) -> tuple[int, int]:
    """(prompts that rose in more cases than they fell, prompts that fell in more cases than they rose)."""
    import numpy as np

    signs = np.sign(np.asarray(differences, dtype=float))
    sums = signs if numbers is None else np.bincount(numbers, signs)
    return int((sums > 0).sum()), int((sums < 0).sum())
