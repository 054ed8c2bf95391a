"""What a user would lose: a log-probability or gradient that is a little wrong for every token, or the memory that
stored logits take.
"""

import pytest
import tiny
import torch
from torch.nn.functional import log_softmax

from simpo_workbench.engine.forward import response_head
from simpo_workbench.engine.forward.response_head import HeadTransform, token_logps

TRANSFORMS = [
    HeadTransform(),
    HeadTransform(scale=0.25),
    HeadTransform(softcap=5.0),
    HeadTransform(scale=4.0, softcap=3.0),
]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(
        response_head, "LOGITS_PER_TILE", {"cpu": 50 * 16, "cuda": 50 * 16}
    )  # 37 tokens take three tiles of 16


def head_and_tokens(dtype=torch.float64, bias=False, vocabulary=50):
    torch.manual_seed(0)
    head = torch.nn.Linear(12, vocabulary, bias=bias, dtype=dtype).requires_grad_(False)
    return head, (3 * torch.randn(37, 12, dtype=dtype)).requires_grad_(), torch.randint(0, vocabulary, (37,))


def plainly(head, hidden, targets, transform):
    logits = head(hidden) * transform.scale
    logits = transform.softcap * torch.tanh(logits / transform.softcap) if transform.softcap else logits
    return log_softmax(logits, -1)[range(len(targets)), targets]


def test_two_tokens_by_hand():
    """Two words with logits 0 and ln 3: probabilities 1/4 and 3/4; the gradient is W[y] − Σ p·W."""
    head = torch.nn.Linear(1, 2, bias=False, dtype=torch.float64).requires_grad_(False)
    head.weight[:] = torch.tensor([[0.0], [1.0]])
    hidden = torch.full(
        (2, 1), torch.log(torch.tensor(3.0, dtype=torch.float64)).item(), dtype=torch.float64, requires_grad=True
    )
    logps = token_logps(head, hidden, torch.tensor([0, 1]), HeadTransform())
    logps.sum().backward()
    assert logps.exp().tolist() == pytest.approx([0.25, 0.75])
    assert hidden.grad[:, 0].tolist() == pytest.approx([-0.75, 0.25])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_frozen_head_equals_log_softmax(transform, bias):
    head, hidden, targets = head_and_tokens(bias=bias)
    downstream = torch.randn(37, dtype=torch.float64)
    ours, oracle = token_logps(head, hidden, targets, transform), plainly(head, hidden, targets, transform)
    assert torch.allclose(ours, oracle, atol=1e-13)
    gradients = [torch.autograd.grad(logps, hidden, downstream)[0] for logps in (ours, oracle)]
    assert torch.allclose(*gradients, atol=1e-13)
    assert torch.autograd.gradcheck(
        lambda h: token_logps(head, h, targets[:20], transform), (hidden[:20].detach().requires_grad_(),)
    )


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_trained_head_gets_its_gradient_as_well(transform):
    head, hidden, targets = head_and_tokens(bias=True)
    head.requires_grad_(True)
    ours, oracle = (
        torch.autograd.grad(f(head, hidden, targets, transform).sum(), (hidden, head.weight, head.bias))
        for f in (token_logps, plainly)
    )
    for one, other in zip(ours, oracle, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_a_head_of_another_kind_is_called_itself():
    """LoRA on the head, a quantized head: their own forward pass, tile by tile."""

    class Doubled(torch.nn.Linear):
        def forward(self, x):
            assert len(x) <= 16
            return 2 * super().forward(x)

    plain, hidden, targets = head_and_tokens()
    head = Doubled(12, 50, bias=False, dtype=torch.float64)
    head.load_state_dict(plain.state_dict())
    ours = token_logps(head, hidden, targets, HeadTransform())
    assert torch.allclose(ours, plainly(plain, hidden, targets, HeadTransform(scale=2.0)), atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_log_probabilities_of_sixteen_bits_are_fp32(dtype):
    """What the product rounded stays rounded, as in the model's own head; nothing is lost behind it."""
    head, hidden, targets = head_and_tokens(torch.float32)
    narrow = torch.nn.Linear(12, 50, bias=False, dtype=dtype).requires_grad_(False)
    narrow.load_state_dict(head.state_dict())
    logps = token_logps(narrow, hidden.to(dtype), targets, HeadTransform())
    assert logps.dtype == torch.float32
    logits = narrow(hidden.to(dtype)).float()
    assert torch.allclose(logps, log_softmax(logits, -1)[range(37), targets], atol=1e-5)


def test_a_head_of_sixteen_bits_takes_hidden_states_of_an_fp32_norm():
    head, hidden, targets = head_and_tokens(torch.float32)
    narrow = torch.nn.Linear(12, 50, bias=False, dtype=torch.float16).requires_grad_(False)
    narrow.load_state_dict(head.state_dict())
    logps = token_logps(narrow, hidden, targets, HeadTransform())
    assert torch.autograd.grad(logps.sum(), hidden)[0].dtype == torch.float32


def test_no_gradient_is_kept_where_none_is_wanted():
    head, hidden, targets = head_and_tokens()
    with torch.no_grad():
        assert token_logps(head, hidden, targets, HeadTransform()).grad_fn is None


def test_extreme_logits_stay_finite():
    head, _, targets = head_and_tokens()
    hidden = torch.full((37, 12), 1e4, dtype=torch.float64, requires_grad=True)
    logps = token_logps(head, hidden, targets, HeadTransform())
    logps.sum().backward()
    assert torch.isfinite(logps).all()
    assert torch.isfinite(hidden.grad).all()


def test_transforms_are_those_that_the_configuration_names():
    assert HeadTransform.named_by(tiny.model("gemma2").config) == HeadTransform(softcap=5.0)
    assert HeadTransform.named_by(tiny.model("cohere").config) == HeadTransform(scale=0.25)
    granite = tiny.model("granite").config  # it divides by logits_scaling 4
    assert HeadTransform.named_by(granite) == HeadTransform(scale=0.25)
    assert HeadTransform.named_by(tiny.model("llama").config) == HeadTransform()
