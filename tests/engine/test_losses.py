"""What a user would lose: a loss that is not SimPO, which would go unnoticed, because any loss goes down.

The mathematics, per pair, with ℓ(y) = (1/|y|) Σ_t log p(y_t | x, y_<t), the average over the |y| scored tokens:

    lead      ℓ_w − ℓ_l                          chosen minus rejected, nats per token
    reward    r(y) = β·ℓ(y)
    margin    r(y_w) − r(y_l) = β·(ℓ_w − ℓ_l)
    z         margin − γ = β·(ℓ_w − ℓ_l − γ/β)
    simpo     L = −(1−ε)·log σ(z) − ε·log σ(−z)            with −log σ(z) = log(1 + e^−z)
    hinge     L = max(0, 1 − z)
    slope     ∂L/∂ℓ_w = −β·σ(−z) = −∂L/∂ℓ_l for ε = 0      with σ(−z) = 1 / (1 + e^z)
    dpo       z = β·((log π_w − log π_l) − (log π_ref,w − log π_ref,l)) from summed log-probabilities, L as for simpo
    sft       L += sft_weight · (−ℓ_w)
"""

import math

import pytest
import torch

from simpo_workbench.config.run_config import LossConfig
from simpo_workbench.engine.losses import dpo_loss, gradient_weights, pair_losses, rewards, simpo_hinge_loss, simpo_loss


def log_sigmoid(z):
    """log σ(z) = −log(1 + e^−z), in plain Python."""
    return -math.log1p(math.exp(-z))


# ℓ_w, ℓ_l, β, γ -> L at ε = 0, L at ε = 0.1, hinge, ∂L/∂ℓ_w at ε = 0; from the formulas above in fp64
GOLDEN = [
    (-1.0, -1.5, 2.5, 1.375, 0.757599035, 0.745099035, 1.125, -1.328023433),
    (-1.0, -1.5, 2.0, 1.0, 0.693147181, 0.693147181, 1.000, -1.000000000),
    (-1.0, -1.5, 10.0, 3.0, 0.126928011, 0.326928011, 0.000, -1.192029220),
    (-1.0, -1.5, 0.1, 0.5, 0.943248946, 0.898248946, 1.450, -0.061063923),
    (-1.2, -0.9, 2.5, 1.375, 2.237822279, 2.025322279, 3.125, -2.233273515),
    (-1.0, -1.0, 2.5, 1.375, 1.600412652, 1.462912652, 2.375, -1.995466944),
    (-1.0, -1.5, 2.0, 0.0, 0.313261688, 0.413261688, 0.000, -0.537882843),
]


@pytest.mark.parametrize(("chosen", "rejected", "beta", "gamma", "plain", "smoothed", "hinge", "slope"), GOLDEN)
def test_golden_values(chosen, rejected, beta, gamma, plain, smoothed, hinge, slope):
    # First row, ℓ_w = −1.0, ℓ_l = −1.5, β = 2.5, γ = 1.375:
    #   lead          = −1.0 + 1.5                                        =  0.5
    #   margin        = 2.5 · 0.5                                         =  1.25
    #   z             = 1.25 − 1.375                                      = −0.125
    #   L (ε = 0)     = log(1 + e^0.125) = log(2.133148453)               =  0.757599035
    #   −log σ(−z)    = log(1 + e^−0.125) = log(1.882496903)              =  0.632599035
    #   L (ε = 0.1)   = 0.9 · 0.757599035 + 0.1 · 0.632599035             =  0.745099035
    #   hinge         = max(0, 1 + 0.125)                                 =  1.125
    #   ∂L/∂ℓ_w       = −2.5 / (1 + e^−0.125) = −2.5 · 0.531209373        = −1.328023433
    z = beta * (chosen - rejected) - gamma
    assert plain == pytest.approx(-log_sigmoid(z), abs=1e-8)
    assert smoothed == pytest.approx(-0.9 * log_sigmoid(z) - 0.1 * log_sigmoid(-z), abs=1e-8)
    assert hinge == pytest.approx(max(0.0, 1 - z), abs=1e-8)
    assert slope == pytest.approx(-beta / (1 + math.exp(z)), abs=1e-8)

    chosen_avg_logps = torch.tensor([chosen], dtype=torch.float64, requires_grad=True)
    rejected_avg_logps = torch.tensor([rejected], dtype=torch.float64, requires_grad=True)
    averages = (chosen_avg_logps, rejected_avg_logps)
    loss = simpo_loss(*averages, beta, gamma / beta)
    assert loss.item() == pytest.approx(plain, abs=1e-8)
    assert simpo_loss(*averages, beta, gamma / beta, label_smoothing=0.1).item() == pytest.approx(smoothed, abs=1e-8)
    assert simpo_hinge_loss(*averages, beta, gamma / beta).item() == pytest.approx(hinge, abs=1e-8)
    loss.backward()
    assert chosen_avg_logps.grad.item() == pytest.approx(slope, abs=1e-8)
    assert rejected_avg_logps.grad.item() == pytest.approx(-slope, abs=1e-8)
    margin = (beta * (chosen_avg_logps - rejected_avg_logps)).detach()
    assert gradient_weights(LossConfig(beta=beta, gamma=gamma), margin).item() == pytest.approx(-slope, abs=1e-8)


def test_loss_stays_exact_where_a_clamped_sigmoid_would_give_up():
    """log(σ(z) + 1e-8) is flat below z ≈ −18; log σ(z) keeps its slope of 1, so the worst pairs still pull."""
    # ℓ_w = −20, ℓ_l = −1, β = 2, γ/β = 0.5:
    #   z       = 2 · (−20 + 1 − 0.5) = −39
    #   L       = log(1 + e^39) = 39 + log(1 + e^−39) = 39 + 1e-17
    #   ∂L/∂ℓ_w = −2 / (1 + e^−39) = −2
    chosen_avg_logps = torch.tensor([-20.0], requires_grad=True)
    loss = simpo_loss(chosen_avg_logps, torch.tensor([-1.0]), 2.0, 0.5)
    assert loss.item() == pytest.approx(39.0, rel=1e-6)
    loss.backward()
    assert chosen_avg_logps.grad.item() == pytest.approx(-2.0, rel=1e-6)


def test_gradients_agree_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    chosen, rejected, *reference = (-3 * torch.rand(5, dtype=torch.float64, generator=generator) for _ in range(4))
    chosen.requires_grad_(), rejected.requires_grad_()
    assert torch.autograd.gradcheck(lambda w, r: simpo_loss(w, r, 2.5, 0.4, 0.1), (chosen, rejected))
    assert torch.autograd.gradcheck(lambda w, r: dpo_loss(w, r, *reference, 0.1, 0.1), (chosen, rejected))


@pytest.mark.parametrize(
    ("kind", "label_smoothing"), [("simpo", 0.0), ("simpo", 0.2), ("simpo_hinge", 0.0), ("dpo", 0.0), ("dpo", 0.2)]
)
def test_gradient_weight_is_the_slope_of_the_loss_in_the_margin(kind, label_smoothing):
    # The weight is −∂L/∂ℓ_w. `pair_losses` takes the sum s_w = |y_w|·ℓ_w, so by the chain rule
    #   ∂L/∂s_w = ∂L/∂ℓ_w · ∂ℓ_w/∂s_w = ∂L/∂ℓ_w / |y_w|, that is ∂L/∂ℓ_w = |y_w| · ∂L/∂s_w.
    # DPO's loss is a function of the sum itself: its weight is −∂L/∂s_w.
    loss = LossConfig(kind=kind, beta=1.7, gamma_beta_ratio=0.3, label_smoothing=label_smoothing)
    chosen = torch.tensor([-4.0, -8.0, -2.0], dtype=torch.float64, requires_grad=True)
    sums = (
        chosen,
        torch.tensor([-6.0, -5.0, -9.0], dtype=torch.float64),
        torch.tensor([4.0, 2.0, 5.0]),
        torch.tensor([3.0, 4.0, 4.0]),
    )
    reference = (
        torch.tensor([-5.0, -6.0, -3.0], dtype=torch.float64),
        torch.tensor([-5.0, -7.0, -8.0], dtype=torch.float64),
    )
    chosen_rewards, rejected_rewards = rewards(loss, *sums, reference)
    (slope,) = torch.autograd.grad(pair_losses(loss, *sums, reference).sum(), chosen)
    if kind != "dpo":
        slope = slope * sums[2]
    assert torch.allclose(gradient_weights(loss, (chosen_rewards - rejected_rewards).detach()), -slope)


def test_lengths_normalize_and_the_likelihood_term_adds_the_chosen_average():
    # Sums −10 over 10 tokens and −30 over 20 tokens, β = 2.5, γ = 1.375:
    #   ℓ_w = −10 / 10 = −1.0,  ℓ_l = −30 / 20 = −1.5         the first row of the golden values: L = 0.757599035
    #   with sft_weight 0.5:  L = 0.757599035 + 0.5 · 1.0     = 1.257599035
    #   r_w = 2.5 · −1.0 = −2.5,  r_l = 2.5 · −1.5            = −3.75
    sums = (torch.tensor([-10.0]), torch.tensor([-30.0]), torch.tensor([10]), torch.tensor([20]))
    plain = pair_losses(LossConfig(beta=2.5, gamma=1.375), *sums)
    with_likelihood = pair_losses(LossConfig(beta=2.5, gamma=1.375, sft_weight=0.5), *sums)
    assert plain.item() == pytest.approx(0.757599035, abs=1e-6)
    assert with_likelihood.item() == pytest.approx(1.257599035, abs=1e-6)
    chosen, rejected = rewards(LossConfig(beta=2.5), *sums)
    assert (chosen.item(), rejected.item()) == (-2.5, -3.75)


def test_dpo_by_hand():
    # β = 0.1, summed log-probabilities: policy −10 and −30, reference −12 and −29:
    #   policy     −10 + 30          = 20
    #   reference  −12 + 29          = 17
    #   z          0.1 · (20 − 17)   = 0.3
    #   L (ε = 0)  log(1 + e^−0.3)   = log(1.740818221) = 0.554355244
    #   −log σ(−z) log(1 + e^0.3)                       = 0.854355244
    #   L (ε = 0.1) 0.9 · 0.554355244 + 0.1 · 0.854355244 = 0.584355244
    policy, reference = (torch.tensor([-10.0]), torch.tensor([-30.0])), (torch.tensor([-12.0]), torch.tensor([-29.0]))
    assert dpo_loss(*policy, *reference, 0.1).item() == pytest.approx(0.554355244, rel=1e-6)
    assert dpo_loss(*policy, *reference, 0.1, label_smoothing=0.1).item() == pytest.approx(0.584355244, rel=1e-6)


def test_parity_with_trl():
    """TRL takes γ itself, as simpo_gamma; the losses and rewards must be equal."""
    from types import SimpleNamespace

    from trl.experimental.cpo import CPOTrainer

    generator = torch.Generator().manual_seed(1)
    chosen, rejected = (-2 * torch.rand(64, dtype=torch.float64, generator=generator) for _ in range(2))
    for beta, gamma, smoothing in [(2.5, 1.375, 0.0), (10.0, 3.0, 0.1), (2.0, 0.0, 0.0)]:
        trainer = SimpleNamespace(
            alpha=0.0,
            beta=beta,
            simpo_gamma=gamma,
            label_smoothing=smoothing,
            loss_type="simpo",
            accelerator=SimpleNamespace(device="cpu"),
        )
        theirs, their_chosen, their_rejected = CPOTrainer.cpo_loss(trainer, chosen, rejected)
        assert torch.allclose(simpo_loss(chosen, rejected, beta, gamma / beta, smoothing), theirs, atol=1e-12)
        ones = torch.ones(64)
        our_chosen, our_rejected = rewards(LossConfig(beta=beta, gamma=gamma), chosen, rejected, ones, ones)
        assert torch.allclose(our_chosen, their_chosen)
        assert torch.allclose(our_rejected, their_rejected)
