"""Which β and γ/β suit a model and its pairs, from their scores before training, with the reasons in words.

Pure functions of DataFrames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..base.errors import WorkbenchError
from ..base.format import counted, signed
from .geometry import ALIKE, FEW_PAIRS, pull_at
from .scored_leads import Leads, leads_of
from .scores import Z95

_RATIOS = (0.1, 1.0)  # the paper's settings lie between 0.1 and 0.8
_BETAS = (1, 1.2, 1.5, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 10)  # the paper's settings lie between 2 and 10
_USUAL_BETA = 2


@dataclass(frozen=True)
class LossSuggestion:
    """A starting point for β and γ/β, and the reasons, a sentence or two each."""

    beta: float
    gamma_beta_ratio: float
    reasons: tuple[str, ...]

    def __str__(self):
        settings = f"β {self.beta:g}, γ/β {self.gamma_beta_ratio:g} (γ {self.beta * self.gamma_beta_ratio:.3g})"
        return "\n".join([settings, *self.reasons])


def suggest_loss(scores) -> LossSuggestion:
    """A LossSuggestion: β and γ/β to start from with this model and these pairs, meant for scores of the base model.

    γ/β: the lead that the best quarter of the pairs already has (upper quartile, nats per token), within 0.1 … 1.0 and
    in steps of 0.05. β: 2 divided by the spread of the leads (interquartile range / 1.349, which is a normal
    distribution's standard deviation), or by the distance from the median to the goal if that is larger, within 1 … 10.
    scores: as for `loss_geometry`. Errors: WorkbenchError without pairs.
    """
    import numpy as np

    leads = scores if isinstance(scores, Leads) else leads_of(scores)
    n = len(leads)
    if not n:
        raise WorkbenchError(
            "There are no pairs to suggest β and γ/β from: give a scores table with pairs, such as run.scores of"
            " step 0."
        )
    lower, middle, upper = (float(value) for value in np.percentile(leads.rising, [25, 50, 75]))
    spread = (upper - lower) / 1.349 or float(leads.rising.std())
    ratio = round(min(max(round(upper / 0.05) * 0.05, _RATIOS[0]), _RATIOS[1]), 2)
    width = max(spread, ratio - middle)
    beta = min(_BETAS, key=lambda beta: abs(math.log(beta * width / 2))) if spread > ALIKE else _USUAL_BETA
    return LossSuggestion(float(beta), ratio, tuple(_reasons(leads, ratio, beta, upper, spread, width)))


def _reasons(leads, ratio, beta, upper, spread, width):
    n = len(leads)
    if n < FEW_PAIRS:
        yield (
            f"Weak ground: {counted(n, 'pair')}. Another draw of so few could suggest something else; score some"
            " hundred pairs."
        )
    if leads.step:
        yield (
            f"These are scores of step {leads.step:,}: the suggestion is for a training that starts from there. For one"
            " from the base model, give the scores of step 0."
        )
    half = Z95 * math.sqrt(n * 0.75 * 0.25)  # ranks around the quartile: holds for any distribution
    ranks = (0.75 * n - half - 1, 0.75 * n + half)
    low, high = (float(leads.rising[min(max(round(rank), 0), n - 1)]) for rank in ranks)
    short = counted(int((leads.rising < ratio).sum()), "pair")
    seen = (
        f"γ/β {ratio:g}: in the best quarter of the pairs the chosen answer leads by {signed(upper)} nats per token or"
        f" more (95 %: {signed(low)} to {signed(high)})"
    )
    if upper < _RATIOS[0]:
        yield (
            f"{seen}. That asks for next to nothing, so this is the smallest goal of the paper's settings; {short}"
            f" of {n:,} fall short of it."
        )
    elif upper > _RATIOS[1]:
        yield (
            f"{seen}. A goal beyond {_RATIOS[1]:g} keeps pairs pulling long after they are right; {short} of {n:,} fall"
            " short of this one."
        )
    else:
        yield (
            f"{seen}. So the goal is a lead that this model already shows, while {short} of {n:,} fall short of it and"
            " have somewhere to go."
        )
    if spread <= ALIKE:
        yield f"β {beta:g}: all leads are alike, so no β tells these pairs apart; this is the usual value."
    else:
        above, below = (float(pull_at(beta * sign * width)) for sign in (1, -1))
        far = ", and β is about 2 divided by that"
        if width > spread:
            far = f", the middle one is {width:.2g} short of the goal, and β is about 2 divided by the latter"
        if not _BETAS[0] <= 2 / width <= _BETAS[-1]:
            far += f" ({2 / width:.2g}, were it not kept between {_BETAS[0]} and {_BETAS[-1]})"
        yield (
            f"β {beta:g}: the leads spread by {spread:.2g} nats per token (as a standard deviation){far}. A pair"
            f" that is {width:.2g} short of the goal then pulls with {below:.0%} of the most it could, one as far"
            f" beyond it with {above:.0%}: a smaller β treats pairs alike, a larger one lets most of them go at once."
        )
    yield (
        "For comparison, the paper's settings: β 2 to 2.5 with γ/β 0.1 to 0.8 (Mistral, Llama 3), β 10 with γ/β 0.3 and"
        " 0.5 (Llama 3 Instruct v0.2, Gemma 2)."
    )
    scored = ""
    if leads.beta and leads.simpo and leads.beta != beta:
        scored = f", against the β {leads.beta:g} of these scores by a factor of {beta / leads.beta:.2g}"
    yield (
        f"β also scales every gradient{scored}. AdamW evens most of that out, but the learning rate decides more than β"
        " and γ/β together: settle that first."
    )
