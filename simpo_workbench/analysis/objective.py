"""Held-out numbers at one named objective, whatever β and γ/β they were scored with. Pure functions.

Settings of the loss may change while a run trains (`run.set`). Shares beyond γ, margins and losses of two evaluations
compare only at one objective; log-probabilities know none, so everything else is computed from them anew.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .geometry import loss_at, pull_at

if TYPE_CHECKING:
    import pandas as pd

    from ..config.run_config import LossConfig


def last_objective(loss: LossConfig, records: list[dict]) -> LossConfig:
    """The loss with the β and γ/β of the newest record that has them: what the run trained or evaluated with last.

    loss: as the run was configured. records: training steps and evaluations, in their order.
    """
    newest = next((record for record in reversed(records) if "beta" in record), None)
    return loss if newest is None else _with(loss, newest["beta"], newest.get("gamma_beta_ratio"))


def _with(loss, beta, ratio):
    """The loss at other values; the γ/β of DPO, which has none, stays as configured."""
    ratio = loss.gamma_beta_ratio if ratio is None or not loss.has_target_margin else ratio
    if _same(loss.beta, beta) and _same(loss.gamma_beta_ratio, ratio):
        return loss  # as it was written, without the rounding of γ = β · γ/β
    return loss.model_copy(update={"beta": float(beta), "gamma_beta_ratio": float(ratio)})


def is_at(values, loss: LossConfig) -> bool:
    """Whether an evaluation's record, or a scores table's row, was measured at this objective; yes where it names none.

    values: with beta and gamma_beta_ratio (0 for a loss without γ).
    """
    beta, ratio = values.get("beta"), values.get("gamma_beta_ratio")
    if beta is None or ratio is None:
        return True
    return _same(beta, loss.beta) and _same(ratio, loss.target_margin / loss.beta)


def _same(one, other):
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)


def at_objective(scores: pd.DataFrame, loss: LossConfig) -> pd.DataFrame:
    """The scores with rewards, margins, losses and shares at this objective; the same table where it is there already.

    scores: of one or several steps, as `run.scores`. Rewards are computed from the average log-probabilities, those of
    DPO, which count from the base model, from the stored ones, which are β times something without β.
    """
    if not len(scores) or not {"beta", "gamma_beta_ratio"} <= set(scores):
        return scores
    settings = scores[["beta", "gamma_beta_ratio"]].drop_duplicates()
    if all(is_at(row, loss) for row in settings.to_dict("records")):
        return scores
    if loss.kind == "dpo":
        chosen, rejected = (scores[f"{side}_reward"] * (loss.beta / scores["beta"]) for side in ("chosen", "rejected"))
    else:
        chosen, rejected = (scores[f"{side}_avg_logp"] * loss.beta for side in ("chosen", "rejected"))
    margin = chosen - rejected
    z = (margin - loss.target_margin).to_numpy(dtype=float)
    if loss.kind == "simpo_hinge":
        losses, pull = (1 - z).clip(min=0.0), (z < 1).astype(float)
    else:
        losses, pull = loss_at(z, loss.label_smoothing), pull_at(z, loss.label_smoothing)
    return scores.assign(
        chosen_reward=chosen,
        rejected_reward=rejected,
        margin=margin,
        correct=margin > 0,
        beyond_gamma=margin > loss.target_margin,
        loss=losses - loss.sft_weight * scores["chosen_avg_logp"],
        gradient_weight=loss.beta * pull,
        beta=loss.beta,
        gamma_beta_ratio=loss.target_margin / loss.beta,
    )


def objective_words(loss: LossConfig) -> str:
    """The objective in words: "β 2, γ/β 0.5"; "β 0.1" for a loss without γ."""
    return f"β {loss.beta:g}, γ/β {loss.gamma_beta_ratio:g}" if loss.has_target_margin else f"β {loss.beta:g}"


def objective_note(loss: LossConfig, records: list[dict]) -> str:
    """The sentence that names the objective of all held-out numbers and those that a run had before; "" where it had
    one all along.

    loss: as the run was configured. records: as they were written, or as `run.records`.
    """
    last = last_objective(loss, records)
    earlier = []
    for record in records:
        beta = record.get("measured_beta", record.get("beta"))
        ratio = record.get("measured_gamma_beta_ratio", record.get("gamma_beta_ratio"))
        if beta is not None and not is_at({"beta": beta, "gamma_beta_ratio": ratio}, last):
            earlier.append(objective_words(_with(loss, beta, ratio)))
    if not earlier:
        return ""
    return (
        f"The objective changed while it trained: it was {', then '.join(dict.fromkeys(earlier))}. All held-out numbers"
        f" are at {objective_words(last)}, the last one."
    )
