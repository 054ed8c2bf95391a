"""Where every pair stands on SimPO's loss, from average log-probabilities alone. Pure functions of DataFrames.

All of it follows from one number per pair: its lead, the average log-probability of the chosen answer minus that of the rejected one (nats per token).
With z = β·(lead − γ/β): loss = −(1−ε)·log σ(z) − ε·log σ(−z), and the gradient on the lead is −β·(σ(−z) − ε)   (arXiv 2405.14734, eq. 6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from ..base.errors import WorkbenchError
from ..base.escape import plotly_text
from ..base.format import counted, signed
from .scores import Z95, share

#: A pair is saturated when it pulls with less than this share of the most it could, and in full pull when it lacks less
#: than this share of it.
SATURATED = 0.05
#: Fewer pairs than this are weak ground for a suggestion and for anything said of lengths.
FEW_PAIRS = 20
#: States of a pair, from far below the target to far beyond it; the last one only with label smoothing.
STATES = ("full pull", "pulls", "saturated", "pulls back")
#: What is said where SimPO's loss is shown of a run that trains with another one, by its `loss.kind`.
OTHER_LOSS = {
    "dpo": (
        "This run trains with DPO, whose margin counts from the base model; here the same pairs stand where SimPO"
        " would see them."
    ),
    "simpo_hinge": "This run trains with the hinge form of the loss; here stands the loss −log σ(z) of the paper.",
}
#: Where the leads are that a chart names: at or below 0, between 0 and γ/β, beyond γ/β.
PLACES = ("behind", "short of γ", "beyond γ")
ALIKE = 1e-6  # leads that differ by less, in nats per token, are the same
_CLEAR = 0.01  # a difference of shares below a hundredth matters to nobody, however certain it is


@dataclass(frozen=True, eq=False)
class Leads:
    """What β and γ/β do not change: one lead per pair, (pairs,), nats per token, with lengths in tokens and the values
    that the table was scored with (None: unknown).

    simpo: whether the table's own margins are β × lead; those of DPO are not.
    """

    pair_id: object
    lead: object
    chosen_tokens: object = None
    rejected_tokens: object = None
    prompt: object = None
    beta: float | None = None
    gamma_beta_ratio: float | None = None
    simpo: bool = True
    step: int | None = None

    def __len__(self):
        return len(self.lead)

    @cached_property
    def order(self):
        """Places of the pairs from the smallest lead to the largest."""
        import numpy as np

        return np.argsort(self.lead, kind="stable")

    @cached_property
    def rising(self):
        """The leads in that order."""
        return self.lead[self.order]

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each pair_id stands."""
        return {name: place for place, name in enumerate(self.pair_id)}

    @cached_property
    def longer(self):
        """1 where the chosen answer is the longer one, −1 where the rejected one is, 0 where both are equally long;
        None without lengths.
        """
        import numpy as np

        return None if self.chosen_tokens is None else np.sign(self.chosen_tokens - self.rejected_tokens)

    @cached_property
    def length_correlation(self):
        """Spearman's correlation of length difference (chosen − rejected, tokens) and pull, the same for every β and
        γ/β: a smaller lead pulls harder. None where it has no value.
        """
        import pandas as pd

        if self.longer is None or len(self) < 3:
            return None
        ranks = pd.DataFrame({"length": self.chosen_tokens - self.rejected_tokens, "pull": -self.lead}).rank()
        return None if (ranks.nunique() < 2).any() else float(ranks["length"].corr(ranks["pull"]))

    @cached_property
    def labels(self) -> list[str]:
        """What a chart calls each pair: its prompt, or its id."""
        return [plotly_text(text, most=120) for text in (self.pair_id if self.prompt is None else self.prompt)]


@dataclass(frozen=True)
class LengthPull:
    """Whether length decides who pulls.

    longer: pairs whose chosen answer is the longer one; pairs_share and weight_share: their share of the n pairs and of
    the gradient weight;
    difference: the second minus the first, with its 95 % interval (linearised ratio). other_share: of the weight, on
    pairs whose chosen answer is the shorter one.
    correlation: `Leads.length_correlation`.
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
        seen = (
            f"The chosen answer is the longer one in {self.longer:,} of {self.n:,} pairs ({self.pairs_share:.0%}),"
            f" which carry {self.weight_share:.0%} of the gradient"
        )
        favoured = (
            f" Most of the gradient ({self.other_share:.0%}) is for the shorter answer."
            if self.other_share > 0.6
            else ""
        )
        if self.n < FEW_PAIRS:
            return (
                f"{seen}; {counted(self.n, 'pair')} {'is' if self.n == 1 else 'are'} too few to say whether length"
                " decides who pulls."
            )
        if self.longer in (0, self.n):
            return (
                f"The chosen answer is the longer one in {'every pair' if self.longer else 'no pair'}, so there is"
                f" nothing to compare with.{favoured}"
            )
        interval = (
            f"{signed(100 * self.difference, 1)} points against their share, 95 % {signed(100 * self.low, 1)} to"
            f" {signed(100 * self.high, 1)}"
        )
        if not self.clear:
            return (
                f"{seen} ({interval}): no clear difference in pull between longer and shorter chosen answers.{favoured}"
            )
        which = "longer" if self.difference > 0 else "shorter"
        return (
            f"{seen} ({interval}): pairs whose chosen answer is the {which} one pull harder. Watch whether answers"
            f" become {which} while it trains.{favoured}"
        )


@dataclass(frozen=True, eq=False)
class Geometry:
    """Every pair on the loss −log σ(z) at one β, γ/β and ε. `pairs` is the DataFrame, `counts` how many stand where,
    `str()` a few plain sentences.

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
    def z(self):
        """Margin minus γ, (pairs,)."""
        return self.beta * (self.leads.lead - self.gamma_beta_ratio)

    @cached_property
    def loss(self):
        """Loss of each pair, (pairs,)."""
        return loss_at(self.z, self.label_smoothing)

    @cached_property
    def pull_share(self):
        """Gradient weight divided by β, (pairs,): σ(−z) − ε, from 1 − ε (far behind) to −ε (far beyond γ)."""
        return pull_at(self.z, self.label_smoothing)

    @property
    def gradient_weight(self):
        """−∂L/∂ℓ_w of each pair, (pairs,): how hard it pulls; negative only far beyond γ, with label smoothing."""
        return self.beta * self.pull_share

    @cached_property
    def bounds(self) -> tuple[float, ...]:
        """The z at which full pull ends, at which saturation begins, and with enough label smoothing at which pairs
        begin to pull back.
        """
        most, smoothing = 1 - self.label_smoothing, self.label_smoothing
        pulls = [smoothing + share * most for share in (1 - SATURATED, SATURATED, -SATURATED)]
        return tuple(math.log((1 - pull) / pull) for pull in pulls if pull > 0)

    @cached_property
    def pairs(self):
        """DataFrame with one row per pair: pair_id, lead (nats per token), margin and z (reward units), loss,
        gradient_weight, pull_share, place (PLACES) and state (STATES).
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
        """How many pairs are in each place and in each state; "still pull" are those in full pull and those that
        pull.
        """
        import numpy as np

        n, z = len(self.leads), self.z[self.leads.order]
        behind = int(np.searchsorted(self.leads.rising, 0.0, side="right"))
        beyond = min(n - int(np.searchsorted(z, 0.0, side="right")), n - behind)
        ends = [0, *(int(np.searchsorted(z, bound, side="right")) for bound in self.bounds), n]
        inside = [end - start for start, end in pairwise(ends)]
        states = dict(zip(STATES, inside + [0] * (len(STATES) - len(inside)), strict=True))
        return (
            dict(zip(PLACES, (behind, n - behind - beyond, beyond), strict=True))
            | states
            | {"still pull": states["full pull"] + states["pulls"]}
        )

    @property
    def mean_loss(self) -> float:
        """Mean loss per pair; NaN without pairs."""
        return float(self.loss.mean()) if len(self.leads) else math.nan

    @cached_property
    def effective_pairs(self) -> float:
        """How many equally strong pairs would carry this gradient: (Σw)² / Σw² of the weights' sizes.

        All of them when all pull alike, 1 when one pair decides alone.
        """
        import numpy as np

        pulls = np.abs(self.pull_share)
        most = float(pulls.max(initial=0.0))
        return float((pulls / most).sum() ** 2 / ((pulls / most) ** 2).sum()) if most > 0 else 0.0

    @cached_property
    def length(self) -> LengthPull | None:
        """Whether longer answers carry the gradient; None without lengths or without any pull."""
        import numpy as np

        longer, weight = self.leads.longer, np.abs(self.pull_share)
        total, n = float(weight.sum()), len(self.leads)
        if longer is None or not total > 0:
            return None
        is_longer = (longer > 0).astype(float)
        pairs_share, weight_share = float(is_longer.mean()), float((weight * is_longer).sum()) / total
        influence = weight * (n / total) * (is_longer - weight_share) - (is_longer - pairs_share)
        half = Z95 * math.sqrt(float((influence * influence).sum())) / n  # no @: its threads cost more than they save
        difference, other = weight_share - pairs_share, float((weight * (longer < 0)).sum()) / total
        return LengthPull(
            n,
            int(is_longer.sum()),
            pairs_share,
            weight_share,
            other,
            difference,
            difference - half,
            difference + half,
            self.leads.length_correlation,
        )

    @cached_property
    def cautions(self) -> tuple[str, ...]:
        """What is wrong with these settings for these pairs, a sentence each; empty when nothing stands out."""
        return tuple(_cautions(self))

    def __str__(self):
        n, counts = len(self.leads), self.counts
        settings = (
            f"β {self.beta:g}, γ/β {self.gamma_beta_ratio:g} (γ"
            f" {self.gamma:.3g}){f', ε {self.label_smoothing:g}' if self.label_smoothing else ''}"
        )
        if not n:
            return f"{settings}: there are no pairs."
        back = (
            f", and {counts['pulls back']:,} pull back, for label smoothing takes them for too certain"
            if counts["pulls back"]
            else ""
        )
        lines = [
            f"{settings}, {counted(n, 'pair')}: mean loss {self.mean_loss:.3f}.",
            (
                f"{counts['behind']:,} are behind (the rejected answer is likelier per token), {counts['short of γ']:,}"
                f" lead but fall short of γ, {counts['beyond γ']:,} are beyond it."
            ),
            (
                f"{counts['still pull']:,} still pull, a share of {share(counts['still pull'], n)},"
                f" {counts['full pull']:,} of them with nearly all they could; {counts['saturated']:,} are saturated"
                f" (they pull with less than {SATURATED:.0%} of the most a pair could){back}."
            ),
            f"The gradient is carried as if by {self.effective_pairs:,.0f} equally strong pairs.",
        ]
        if not self.leads.simpo:
            lines.insert(
                1, "The table was scored with another loss, such as DPO's; this is where SimPO would see these pairs."
            )
        return "\n".join([*lines, *([str(self.length)] if self.length else []), *self.cautions])


def loss_at(z, label_smoothing: float = 0.0):
    """SimPO's loss at z = margin − γ, an array of any shape; exact for large |z|."""
    import numpy as np

    return np.maximum(-z, 0.0) + np.log1p(np.exp(-np.abs(z))) + label_smoothing * z  # −log σ(−z) = z − log σ(z)


def pull_at(z, label_smoothing: float = 0.0):
    """Gradient weight divided by β at z = margin − γ, an array of any shape: σ(−z) − ε."""
    import numpy as np

    small = np.exp(-np.abs(z))
    return np.where(z >= 0, small, 1.0) / (1.0 + small) - label_smoothing


def leads_of(scores) -> Leads:
    """The Leads of a scores table of one step.

    Errors: WorkbenchError for several steps, a pair twice, a missing column, a value that is no number.
    """
    import numpy as np

    sides = ["chosen_avg_logp", "rejected_avg_logp"]
    missing = [name for name in ("pair_id", *sides) if name not in scores]
    if missing:
        raise WorkbenchError(f"The table lacks the column {missing[0]!r}: give a table from wb.score or run.scores.")
    if "step" in scores and scores["step"].nunique() > 1:
        raise WorkbenchError(
            f"The table holds {scores['step'].nunique()} steps: choose one, such as scores[scores.step == 0]."
        )
    if scores["pair_id"].duplicated().any():
        raise WorkbenchError("The table holds a pair twice: choose one step, and each pair once.")
    ids = scores["pair_id"].to_numpy(dtype=object)
    lead = _numbers(scores, sides[0], ids) - _numbers(scores, sides[1], ids)
    lengths = ["chosen_tokens", "rejected_tokens"]
    tokens = [_numbers(scores, name, ids) for name in lengths] if set(lengths) <= set(scores.columns) else [None, None]
    beta, ratio = (_own(scores, name) for name in ("beta", "gamma_beta_ratio"))
    simpo = (
        beta is None
        or "margin" not in scores
        or bool(np.allclose(_numbers(scores, "margin", ids), beta * lead, rtol=1e-3, atol=1e-3 * beta))
    )
    step = int(scores["step"].iloc[0]) if "step" in scores and len(scores) else None
    prompt = scores["prompt"].to_numpy(dtype=object) if "prompt" in scores else None
    return Leads(ids, lead, *tokens, prompt, beta, ratio, simpo, step)


def loss_geometry(
    scores, beta: float | None = None, gamma_beta_ratio: float | None = None, label_smoothing: float = 0.0
) -> Geometry:
    """Where every pair stands on SimPO's loss.

    scores: DataFrame of one step as `wb.score` or `run.scores[run.scores.step == 0]` (or Leads); needs pair_id,
    chosen_avg_logp, rejected_avg_logp (nats per token).
    beta, gamma_beta_ratio: default to those that the table was scored with. label_smoothing: ε, from 0 to below 0.5.
    Errors: WorkbenchError for a table or a setting that this cannot be told of; for a table of another loss (DPO)
    without β and γ/β.
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


def _own(scores, name):
    """The one value of a column, None where there is none or several."""
    values = scores[name].dropna().unique() if name in scores else ()
    return float(values[0]) if len(values) == 1 else None


def _numbers(scores, name, ids):
    import numpy as np
    import pandas as pd

    values = pd.to_numeric(scores[name], errors="coerce").to_numpy(dtype=float)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise WorkbenchError(
            f"{counted(len(wrong), 'value')} of {name} {'is' if len(wrong) == 1 else 'are'} not a finite number, the"
            f" first of pair {str(ids[wrong[0]])[:80]!r}: drop such pairs, and look for what made them (an empty"
            " answer, a ruined model)."
        )
    return values


def _cautions(geometry):
    n, counts, pulls = len(geometry.leads), geometry.counts, geometry.pull_share[geometry.leads.order]
    if n < 2:
        return
    most, least = (
        float(pulls[int(0.05 * (n - 1))]),
        float(pulls[int(0.95 * (n - 1) + 0.5)]),
    )  # the twentieth at both ends does not decide
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
