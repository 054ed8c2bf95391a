"""What a user would lose: a loss that is not SimPO, and nobody would notice, because any loss goes down."""

import math

import pytest
import torch

from simpo_workbench.config.run_config import LossConfig
from simpo_workbench.engine.losses import dpo_loss, gradient_weights, pair_losses, rewards, simpo_hinge_loss, simpo_loss

# ℓ_w, ℓ_l, β, γ -> L at ε = 0, L at ε = 0.1, hinge, ∂L/∂ℓ_w at ε = 0; computed by hand from the formula in fp64
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
    w, r = (
        torch.tensor([chosen], dtype=torch.float64, requires_grad=True),
        torch.tensor([rejected], dtype=torch.float64, requires_grad=True),
    )
    loss = simpo_loss(w, r, beta, gamma / beta)
    assert loss.item() == pytest.approx(plain, abs=1e-8)
    assert simpo_loss(w, r, beta, gamma / beta, label_smoothing=0.1).item() == pytest.approx(smoothed, abs=1e-8)
    assert simpo_hinge_loss(w, r, beta, gamma / beta).item() == pytest.approx(hinge, abs=1e-8)
    loss.backward()
    assert w.grad.item() == pytest.approx(slope, abs=1e-8)
    assert r.grad.item() == pytest.approx(-slope, abs=1e-8)
    weight = gradient_weights(LossConfig(beta=beta, gamma=gamma), (beta * (w - r)).detach())
    assert weight.item() == pytest.approx(-slope, abs=1e-8)


def test_loss_stays_exact_where_a_clamped_sigmoid_would_give_up():
    """log(σ(z) + 1e-8) is flat below z ≈ −18; logsigmoid goes on falling with slope 1, so hopeless pairs still pull."""
    w = torch.tensor([-20.0], requires_grad=True)
    loss = simpo_loss(w, torch.tensor([-1.0]), 2.0, 0.5)
    assert loss.item() == pytest.approx(39.0, rel=1e-6)
    loss.backward()
    assert w.grad.item() == pytest.approx(-2.0, rel=1e-6)


def test_gradients_agree_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    w, r, rw, rr = (-3 * torch.rand(5, dtype=torch.float64, generator=generator) for _ in range(4))
    w.requires_grad_(), r.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: simpo_loss(a, b, 2.5, 0.4, 0.1), (w, r))
    assert torch.autograd.gradcheck(lambda a, b: dpo_loss(a, b, rw, rr, 0.1, 0.1), (w, r))


@pytest.mark.parametrize("kind", ["simpo", "simpo_hinge", "dpo"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_gradient_weight_is_the_slope_of_the_loss_in_the_margin(kind, label_smoothing):
    if kind == "simpo_hinge" and label_smoothing:
        pytest.skip("the hinge form has no label smoothing")
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
    per_unit = slope if kind == "dpo" else slope * sums[2]  # SimPO's weight is by the average log-probability
    assert torch.allclose(gradient_weights(loss, (chosen_rewards - rejected_rewards).detach()), -per_unit)


def test_lengths_normalize_and_the_likelihood_term_adds_the_chosen_average():
    sums = (
        torch.tensor([-10.0]),
        torch.tensor([-30.0]),
        torch.tensor([10]),
        torch.tensor([20]),
    )  # averages −1.0 and −1.5
    assert pair_losses(LossConfig(beta=2.5, gamma=1.375), *sums).item() == pytest.approx(0.757599035, abs=1e-6)
    assert pair_losses(LossConfig(beta=2.5, gamma=1.375, sft_weight=0.5), *sums).item() == pytest.approx(
        0.757599035 + 0.5 * 1.0, abs=1e-6
    )
    chosen, rejected = rewards(LossConfig(beta=2.5), *sums)
    assert (chosen.item(), rejected.item()) == (-2.5, -3.75)


def test_dpo_by_hand():
    """β 0.1, policy −10 and −30, reference −12 and −29: z = 0.1 · ((−10+30) − (−12+29)) = 0.3, L = log(1 + e^−0.3)."""
    loss = dpo_loss(torch.tensor([-10.0]), torch.tensor([-30.0]), torch.tensor([-12.0]), torch.tensor([-29.0]), 0.1)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-0.3)), rel=1e-6)


def test_parity_with_trl():
    """TRL speaks of γ and calls it simpo_gamma; the same numbers must come out."""
    from types import SimpleNamespace

    from trl.experimental.cpo import CPOTrainer

    generator = torch.Generator().manual_seed(1)
    chosen, rejected = (-2 * torch.rand(64, dtype=torch.float64, generator=generator) for _ in range(2))
    for beta, gamma, smoothing, kind, ours in [
        (2.5, 1.375, 0.0, "simpo", simpo_loss),
        (10.0, 3.0, 0.1, "simpo", simpo_loss),
        (2.0, 0.0, 0.0, "simpo", simpo_loss),
    ]:
        trainer = SimpleNamespace(
            alpha=0.0,
            beta=beta,
            simpo_gamma=gamma,
            label_smoothing=smoothing,
            loss_type=kind,
            accelerator=SimpleNamespace(device="cpu"),
        )
        theirs, their_chosen, their_rejected = CPOTrainer.cpo_loss(trainer, chosen, rejected)
        assert torch.allclose(ours(chosen, rejected, beta, gamma / beta, smoothing), theirs, atol=1e-12)
        ones = torch.ones(64)
        our_chosen, our_rejected = rewards(LossConfig(beta=beta, gamma=gamma), chosen, rejected, ones, ones)
        assert torch.allclose(our_chosen, their_chosen)
        assert torch.allclose(our_rejected, their_rejected)
