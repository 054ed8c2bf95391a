"""SimPO and related losses: pure functions of log-probabilities.

The SimPO functions receive the *mean* log-probability of a response's scored tokens, the end-of-turn token among them;
`pair_losses` divides by the number of tokens. Lead: chosen minus rejected mean. Margin: β times the lead.
"""

import torch
from torch.nn.functional import logsigmoid

from ..config.run_config import LossConfig


def simpo_loss(
    chosen_avg_logps: torch.Tensor,
    rejected_avg_logps: torch.Tensor,
    beta: float,
    gamma_beta_ratio: float,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Per-pair SimPO loss, shape (pairs,), in the inputs' dtype (fp32 or wider).

    chosen_avg_logps, rejected_avg_logps: mean log-probability of each response, (pairs,), nats per token.
    beta: scale of the reward, dimensionless, > 0.
    gamma_beta_ratio: γ/β, the lead to reach, nats per token; TRL's and LLaMA-Factory's simpo_gamma is γ itself.
    label_smoothing: ε, assumed share of pairs labeled the wrong way round.
    Source: SimPO, arXiv 2405.14734, eq. 6; ε as in the paper's code and in cDPO.
    """
    z = beta * (chosen_avg_logps - rejected_avg_logps - gamma_beta_ratio)  # margin minus γ
    return _smoothed_logistic(z, label_smoothing)


def simpo_hinge_loss(
    chosen_avg_logps: torch.Tensor, rejected_avg_logps: torch.Tensor, beta: float, gamma_beta_ratio: float
) -> torch.Tensor:
    """Per-pair hinge form max(0, 1 − z) with z = margin − γ, shape (pairs,).

    Source: the hinge option of the paper's code.
    """
    z = beta * (chosen_avg_logps - rejected_avg_logps - gamma_beta_ratio)
    return torch.relu(1 - z)


def dpo_loss(
    chosen_logps: torch.Tensor,
    rejected_logps: torch.Tensor,
    reference_chosen_logps: torch.Tensor,
    reference_rejected_logps: torch.Tensor,
    beta: float,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Per-pair DPO loss, shape (pairs,), from *summed* log-probabilities (nats) of the policy and the frozen reference.

    Source: DPO, arXiv 2305.18290, eq. 7; with ε, cDPO.
    """
    z = beta * ((chosen_logps - rejected_logps) - (reference_chosen_logps - reference_rejected_logps))
    return _smoothed_logistic(z, label_smoothing)


def _smoothed_logistic(z, label_smoothing):
    return -(1 - label_smoothing) * logsigmoid(z) - label_smoothing * logsigmoid(-z)


def pair_losses(
    loss: LossConfig, chosen_logps, rejected_logps, chosen_tokens, rejected_tokens, reference=None
) -> torch.Tensor:
    """Per-pair training loss, shape (pairs,), of the configured kind.

    chosen_logps, rejected_logps: summed log-probabilities, (pairs,), nats.
    chosen_tokens, rejected_tokens: numbers of scored tokens, (pairs,).
    reference: (chosen, rejected) summed log-probabilities of the base model, needed by kind "dpo" only.
    """
    chosen_avg_logps, rejected_avg_logps = chosen_logps / chosen_tokens, rejected_logps / rejected_tokens
    if loss.kind == "simpo":
        losses = simpo_loss(
            chosen_avg_logps, rejected_avg_logps, loss.beta, loss.gamma_beta_ratio, loss.label_smoothing
        )
    elif loss.kind == "simpo_hinge":
        losses = simpo_hinge_loss(chosen_avg_logps, rejected_avg_logps, loss.beta, loss.gamma_beta_ratio)
    else:
        losses = dpo_loss(chosen_logps, rejected_logps, *reference, loss.beta, loss.label_smoothing)
    return losses - loss.sft_weight * chosen_avg_logps if loss.sft_weight else losses


def rewards(
    loss: LossConfig, chosen_logps, rejected_logps, chosen_tokens, rejected_tokens, reference=None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(chosen, rejected) rewards, each (pairs,), from the arguments of `pair_losses`.

    SimPO: β times the average log-probability. DPO: β times the summed log-ratio to the reference.
    """
    if loss.kind == "dpo":
        return loss.beta * (chosen_logps - reference[0]), loss.beta * (rejected_logps - reference[1])
    return loss.beta * chosen_logps / chosen_tokens, loss.beta * rejected_logps / rejected_tokens


def gradient_weights(loss: LossConfig, margins: torch.Tensor) -> torch.Tensor:
    """How strongly each pair pulls, (pairs,): −∂L/∂ℓ_w without the likelihood term.

    SimPO at ε = 0: β·σ(γ − margin). Hinge form: β inside the hinge, 0 beyond. DPO: the derivative with respect to the
    summed log-probability.
    """
    z = margins - loss.target_margin
    if loss.kind == "simpo_hinge":
        return loss.beta * (z < 1).to(margins.dtype)
    return loss.beta * ((1 - loss.label_smoothing) * torch.sigmoid(-z) - loss.label_smoothing * torch.sigmoid(z))
