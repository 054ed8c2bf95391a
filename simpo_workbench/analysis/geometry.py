"""The place of every pair on SimPO's loss, from average log-probabilities alone. Pure functions of DataFrames.

All of it follows from the lead of each pair. With z = β·(lead − γ/β): loss = −(1−ε)·log σ(z) − ε·log σ(−z), and the
gradient on the lead is −β·(σ(−z) − ε) (arXiv 2405.14734, eq. 6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from ..base.errors import WorkbenchError
from ..base.format import counted, signed
from .scored_leads import Leads, leads_of
from .scores import Z95, Share, share_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

#: A pair is saturated when it pulls with less than this share of the most that a pair could, and in full pull when it
#: lacks less than this share of it.
SATURATED = 0.05
#: Fewer pairs than this are weak ground for a suggestion and for anything said of lengths.
FEW_PAIRS = 20
#: States of a pair, from far below the target to far beyond it; the last one only with label smoothing.
STATES = ("full pull", "pulls", "saturated", "pulls back")
#: The note beside SimPO's loss for a run that trains with another one, by its `loss.kind`.
OTHER_LOSS = {
    "dpo": (
        "This run trains with DPO, whose margin counts from the base model; here the same pairs stand where SimPO"
        " would see them."
    ),
    "simpo_hinge": "This run trains with the hinge form of the loss; the loss shown here is the paper's −log σ(z).",
}
#: Where the leads are that a chart names: at or below 0, between 0 and γ/β, beyond γ/β.
PLACES = ("behind", "short of γ", "beyond γ")
ALIKE = 1e-6  # leads that differ by less, in nats per token, are the same
_CLEAR = 0.01  # a smaller difference of shares does not matter, however certain it is


@dataclass(frozen=True)
class LengthPull:
    """Whether the answers' lengths decide which pairs pull.

    longer: number of pairs whose chosen answer is the longer one; pairs_share and weight_share: their share of the n
    pairs and of the gradient weight; difference: the second minus the first, with its 95 % interval (linearised ratio).
    other_share: share of the weight on pairs whose chosen answer is the shorter one. correlation:
    `Leads.length_correlation`.
    """

    n: int
    longer: int
    pairs_share: float
    weight_share: float
    other_share: float
    difference: float
    low: float
    high: float
    correlation: float | None

    @property
    def clear(self) -> bool:
        """Whether the interval holds no 0, and the difference is not negligible."""
        return self.n >= FEW_PAIRS and not self.low <= 0 <= self.high and abs(self.difference) >= _CLEAR

    def __str__(self):
        favoured = ""
        if self.other_share > 0.6:
            favoured = f" Most of the gradient ({self.other_share:.0%}) is for the shorter answer."
        carried = (
            f"The chosen answer is the longer one in {self.longer:,} of {self.n:,} pairs ({self.pairs_share:.0%}),"
            f" which carry {self.weight_share:.0%} of the gradient"
        )
        if self.n < FEW_PAIRS:
            return (
                f"{carried}; {counted(self.n, 'pair')} {'is' if self.n == 1 else 'are'} too few to say whether length"
                " decides which pairs pull."
            )
        if self.longer in (0, self.n):
            return (
                f"The chosen answer is the longer one in {'every pair' if self.longer else 'no pair'}, so there is"
                f" nothing to compare with.{favoured}"
            )
        difference, low, high = (signed(100 * value, 1) for value in (self.difference, self.low, self.high))
        carried += f" ({difference} points against their share, 95 % {low} to {high})"
        if not self.clear:
            return f"{carried}: no clear difference in pull between longer and shorter chosen answers.{favoured}"
        which = "longer" if self.difference > 0 else "shorter"
        return (
            f"{carried}: pairs whose chosen answer is the {which} one pull harder. Watch whether answers become"
            f" {which} while it trains.{favoured}"
        )


@dataclass(frozen=True, eq=False)
class Geometry:
    """Every pair on the loss −log σ(z) at one β, γ/β and ε; `str()` gives it in a few sentences.

    Margins, γ and z are in reward units, leads and γ/β in nats per token.
    """

    leads: Leads
    beta: float
    gamma_beta_ratio: float
    label_smoothing: float = 0.0

    @property
    def gamma(self) -> float:
        """γ = β · γ/β: the margin that is aimed at, in reward units."""
        return self.beta * self.gamma_beta_ratio

    @cached_property
    def z(self) -> np.ndarray:
        """Margin minus γ, (pairs,)."""
        return self.beta * (self.leads.lead - self.gamma_beta_ratio)

    @cached_property
    def loss(self) -> np.ndarray:
        """Loss of each pair, (pairs,)."""
        return loss_at(self.z, self.label_smoothing)

    @cached_property
    def pull_share(self) -> np.ndarray:
        """Gradient weight divided by β, (pairs,): σ(−z) − ε, from 1 − ε far behind to −ε far beyond γ."""
        return pull_at(self.z, self.label_smoothing)

    @property
    def gradient_weight(self) -> np.ndarray:
        """−∂L/∂ℓ_w of each pair, (pairs,): how hard it pulls; negative only far beyond γ, with label smoothing."""
        return self.beta * self.pull_share

    @cached_property
    def bounds(self) -> tuple[float, ...]:
        """The z at which full pull ends, saturation begins and, with enough label smoothing, pulling back begins."""
        most, smoothing = 1 - self.label_smoothing, self.label_smoothing
        pulls = [smoothing + share * most for share in (1 - SATURATED, SATURATED, -SATURATED)]
        return tuple(math.log((1 - pull) / pull) for pull in pulls if pull > 0)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """DataFrame with one row per pair.

        Columns: pair_id, lead (nats per token), margin and z (reward units), loss, gradient_weight, pull_share, place
        (one of PLACES) and state (one of STATES).
        """
        import numpy as np
        import pandas as pd

        lead = self.leads.lead
        places = np.array(PLACES, dtype=object)[(lead > 0).astype(int) + ((lead > 0) & (self.z > 0))]
        states = np.array(STATES, dtype=object)[np.searchsorted(self.bounds, self.z, side="left")]
        numbers = {
            "lead": lead,
            "margin": self.beta * lead,
            "z": self.z,
            "loss": self.loss,
            "gradient_weight": self.gradient_weight,
            "pull_share": self.pull_share,
        }
        return pd.DataFrame({"pair_id": self.leads.pair_id, **numbers, "place": places, "state": states})

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of pairs in each place and state, and "still pull": those in full pull and those that pull."""
        import numpy as np

        n, z = len(self.leads), self.z[self.leads.order]
        behind = int(np.searchsorted(self.leads.rising, 0.0, side="right"))
        beyond = min(n - int(np.searchsorted(z, 0.0, side="right")), n - behind)
        places = dict(zip(PLACES, (behind, n - behind - beyond, beyond), strict=True))
        ends = [0, *(int(np.searchsorted(z, bound, side="right")) for bound in self.bounds), n]
        states = dict.fromkeys(STATES, 0)
        states |= {state: end - start for state, (start, end) in zip(STATES, pairwise(ends), strict=False)}
        return places | states | {"still pull": states["full pull"] + states["pulls"]}

    @property
    def still_pull(self) -> Share:
        """The share of pairs that still pull, with its 95 % interval. Errors: WorkbenchError without pairs."""
        import numpy as np

        pulls = np.zeros(len(self.leads), dtype=bool)
        pulls[self.leads.order[: self.counts["still pull"]]] = True
        return share_of(pulls, self.leads.clusters)

    @property
    def mean_loss(self) -> float:
        """Mean loss per pair; NaN without pairs."""
        return float(self.loss.mean()) if len(self.leads) else math.nan

    @cached_property
    def effective_pairs(self) -> float:
        """The number of equally strong pairs that would carry this gradient: (Σw)² / Σw² of the weights' sizes.

        It is the number of pairs when all pull alike, and 1 when one pair carries it alone.
        """
        import numpy as np

        pulls = np.abs(self.pull_share)
        most = float(pulls.max(initial=0.0))
        return float((pulls / most).sum() ** 2 / ((pulls / most) ** 2).sum()) if most > 0 else 0.0

    @cached_property
    def length(self) -> LengthPull | None:
        """Whether pairs with longer answers carry the gradient; None without lengths or without any pull."""
        import numpy as np

        longer, weight = self.leads.longer, np.abs(self.pull_share)
        total, n = float(weight.sum()), len(self.leads)
        if longer is None or not total > 0:
            return None
        is_longer = (longer > 0).astype(float)
        pairs_share, weight_share = float(is_longer.mean()), float((weight * is_longer).sum()) / total
        influence = weight * (n / total) * (is_longer - weight_share) - (is_longer - pairs_share)
        if self.leads.clusters is not None:
            influence = np.bincount(self.leads.clusters, influence)
        half = Z95 * math.sqrt(float((influence * influence).sum())) / n  # no @: its threads cost more than they save
        difference = weight_share - pairs_share
        return LengthPull(
            n=n,
            longer=int(is_longer.sum()),
            pairs_share=pairs_share,
            weight_share=weight_share,
            other_share=float((weight * (longer < 0)).sum()) / total,
            difference=difference,
            low=difference - half,
            high=difference + half,
            correlation=self.leads.length_correlation,
        )

    @cached_property
    def cautions(self) -> tuple[str, ...]:
        """Sentences on what is wrong with these settings for these pairs; empty when nothing is."""
        return tuple(_cautions(self))

    def __str__(self):
        n, counts = len(self.leads), self.counts
        smoothing = f", ε {self.label_smoothing:g}" if self.label_smoothing else ""
        settings = f"β {self.beta:g}, γ/β {self.gamma_beta_ratio:g} (γ {self.gamma:.3g}){smoothing}"
        if not n:
            return f"{settings}: there are no pairs."
        lines = [f"{settings}, {counted(n, 'pair')}: mean loss {self.mean_loss:.3f}."]
        if not self.leads.simpo:
            lines.append(
                "The table was scored with another loss, such as DPO's; this is where SimPO would see these pairs."
            )
        back = ""
        if counts["pulls back"]:
            back = f", and {counts['pulls back']:,} pull back, because label smoothing takes them for too certain"
        lines += [
            f"{counts['behind']:,} are behind (the rejected answer is likelier per token), {counts['short of γ']:,}"
            f" lead but fall short of γ, {counts['beyond γ']:,} are beyond it.",
            f"{counts['still pull']:,} still pull, a share of {self.still_pull},"
            f" {counts['full pull']:,} of them with nearly all they could; {counts['saturated']:,} are saturated (they"
            f" pull with less than {SATURATED:.0%} of the most a pair could){back}.",
            f"The gradient is carried as if by {self.effective_pairs:,.0f} equally strong pairs.",
        ]
        if self.length:
            lines.append(str(self.length))
        return "\n".join([*lines, *self.cautions])


def loss_at(z, label_smoothing: float = 0.0) -> np.ndarray:
    """SimPO's loss at z = margin − γ, an array of any shape; exact for large |z|."""
    import numpy as np

    return np.maximum(-z, 0.0) + np.log1p(np.exp(-np.abs(z))) + label_smoothing * z  # −log σ(−z) = z − log σ(z)


def pull_at(z, label_smoothing: float = 0.0) -> np.ndarray:
    """Gradient weight divided by β at z = margin − γ, an array of any shape: σ(−z) − ε."""
    import numpy as np

    small = np.exp(-np.abs(z))
    return np.where(z >= 0, small, 1.0) / (1.0 + small) - label_smoothing


def loss_geometry(
    scores, beta: float | None = None, gamma_beta_ratio: float | None = None, label_smoothing: float = 0.0
) -> Geometry:
    """The Geometry of a scores table: the place of every pair on SimPO's loss.

    scores: DataFrame of one step, as from `wb.score` or `run.scores[run.scores.step == 0]`, with pair_id,
    chosen_avg_logp and rejected_avg_logp (nats per token); or Leads. beta, gamma_beta_ratio: those that the table was
    scored with by default. label_smoothing: ε, from 0 to below 0.5.
    Errors: WorkbenchError for an impossible table or setting, and for a table of another loss (DPO) without β and γ/β.
    """
    leads = scores if isinstance(scores, Leads) else leads_of(scores)
    beta = _setting("beta", beta, leads.beta, leads)
    ratio = _setting("gamma_beta_ratio", gamma_beta_ratio, leads.gamma_beta_ratio, leads)
    smoothing = _as_number("label_smoothing", label_smoothing)
    if not (math.isfinite(beta) and beta > 0):
        raise WorkbenchError(f"β = {beta:g} is not possible: it is a number above 0, for SimPO usually 2 to 10.")
    if not (math.isfinite(ratio) and ratio >= 0):
        raise WorkbenchError(
            f"γ/β = {ratio:g} is not possible: it is a lead in nats per token, 0 or more, usually 0.1 to 1."
        )
    if not 0 <= smoothing < 0.5:
        raise WorkbenchError(
            f"label_smoothing {smoothing:g} is not possible: it is a share of pairs labeled the wrong way round, from 0"
            " to below 0.5."
        )
    return Geometry(leads, beta, ratio, smoothing)


def _setting(name, given, own, leads):
    if given is not None:
        return _as_number(name, given)
    if not leads.simpo:
        raise WorkbenchError(
            "The margins of this table are not β × lead, as for DPO: give beta and gamma_beta_ratio to see where SimPO"
            " would stand with these pairs."
        )
    if own is not None:
        return own
    raise WorkbenchError(f"The table does not say its {name}: give {name}=…, or a table from wb.score or run.scores.")


def _as_number(name, given):
    try:
        return float(given)
    except (TypeError, ValueError):
        raise WorkbenchError(f"{name} = {repr(given)[:80]} is not possible: expected a number.") from None


def _cautions(geometry):
    n, counts, pulls = len(geometry.leads), geometry.counts, geometry.pull_share[geometry.leads.order]
    if n < 2:
        return
    # the twentieth of the pairs at either end does not decide
    most, least = float(pulls[int(0.05 * (n - 1))]), float(pulls[int(0.95 * (n - 1) + 0.5)])
    if float(geometry.leads.rising[-1] - geometry.leads.rising[0]) < ALIKE:
        yield "All pairs have the same lead: no β and no γ/β can tell them apart."
    elif counts["still pull"] <= 0.1 * n:
        yield (
            f"Nearly nothing is left to learn: {counts['still pull']:,} of {n:,} pairs still pull. A larger γ/β asks"
            " for more, a smaller β lets go later."
        )
    elif most - least < 0.1 and least > 0.7:
        yield (
            f"All pairs pull with nearly all they could ({least:.0%} to {most:.0%}): they are so far short of γ that"
            " the loss is a straight line. A smaller γ/β or a smaller β tells them apart."
        )
    elif most - least < 0.1:
        yield (
            f"All pairs pull nearly alike ({least:.0%} to {most:.0%} of the most): over these leads the loss is nearly"
            " a straight line and does not tell pairs apart. A larger β does."
        )
    elif geometry.effective_pairs < 0.25 * n:
        yield (
            f"Few pairs carry the gradient: it is as strong as that of {geometry.effective_pairs:,.0f} equal pairs out"
            f" of {n:,}, so what they have in common is what the model learns."
        )
