"""What a user would lose: an adapter that learns or answers other things than PEFT's would with the same weights."""

import pytest
import tiny
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.bnb import Linear4bit as LoraLinear4bit
from peft.tuners.lora.layer import Linear as LoraLinear

from simpo_workbench.engine.model import lora_linear


def wrapped(dtype=torch.float64, fast=True, **options):
    model = tiny.model("llama", attention_bias=True).to(dtype)
    torch.manual_seed(1)
    model = get_peft_model(
        model,
        LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, **options),
        autocast_adapter_dtype=False,
    )
    if fast:
        lora_linear.install(model)
    return model


def outcome(model, ids=((5, 6, 7, 8, 9, 10), (11, 12, 13, 14, 15, 16))):
    """(logits, gradient of every trained parameter)."""
    torch.manual_seed(2)  # dropout
    logits = model(input_ids=torch.tensor(ids)).logits
    (logits * torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)).sum().backward()
    return logits.detach(), {
        name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None
    }


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"lora_dropout": 0.3}, {"use_dora": True}])
@pytest.mark.parametrize("training", [True, False])
def test_same_numbers_as_peft(options, training):
    ours, theirs = (outcome(wrapped(fast=fast, **options).train(training)) for fast in (True, False))
    assert torch.allclose(ours[0], theirs[0], rtol=1e-9, atol=1e-9)
    assert ours[1].keys() == theirs[1].keys()
    assert len(ours[1]) >= 2 * 7 * 3
    for name, gradient in theirs[1].items():
        # norms and the rotary angles are computed in fp32 whatever the weights are
        assert (ours[1][name] - gradient).norm() <= 1e-6 * gradient.norm(), name


def test_fp32_adapters_on_16_bit_weights_cast_no_activations():
    """PEFT casts the layer's input to fp32 for an fp32 adapter; what is kept for backward must have 16 bits."""
    model = wrapped(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        model.base_model.model.model.layers[0].mlp.down_proj(
            torch.randn(1, 50, 64, dtype=torch.bfloat16, requires_grad=True)
        ).sum().backward()
    assert {tensor.dtype for tensor in kept} == {torch.bfloat16}
    adapter = model.base_model.model.model.layers[0].mlp.down_proj.lora_A["default"].weight
    assert (adapter.dtype, adapter.grad.dtype) == (torch.float32, torch.float32)


def test_without_the_adapter_the_base_answers_and_merged_weights_are_left_alone():
    model, ids = wrapped().eval(), torch.tensor([[5, 6, 7]])
    tuned = model(input_ids=ids).logits
    with model.disable_adapter():
        base = model(input_ids=ids).logits
    assert torch.allclose(base, model.unload()(input_ids=ids).logits)
    assert not torch.allclose(base, tuned, atol=1e-3)
    merged = wrapped().eval()
    merged.merge_adapter()
    assert torch.allclose(merged(input_ids=ids).logits, tuned, atol=1e-6)


def test_the_active_adapter_counts():
    model, ids = wrapped().eval(), torch.tensor([[5, 6, 7]])
    first = model(input_ids=ids).logits
    torch.manual_seed(9)
    model.add_adapter("other", LoraConfig(r=2, lora_alpha=2, target_modules="all-linear", init_lora_weights=False))
    lora_linear.install(model)
    assert torch.equal(model(input_ids=ids).logits, first)
    model.set_adapter("other")
    second = model(input_ids=ids).logits
    assert not torch.allclose(first, second, atol=1e-3)


def test_the_first_layer_needs_no_gradient_of_its_input():
    layer = wrapped().base_model.model.model.layers[0].mlp.gate_proj
    layer(torch.randn(1, 5, 32, dtype=torch.float64)).sum().backward()
    assert layer.lora_B["default"].weight.grad is not None


def share_of_a_small_change_that_survives(layer, x):
    """Slope of (output − output without adapter) over the exact change, 1 when a change survives on average."""
    adapter = layer.lora_B["default"].weight.detach()
    change = (x.double() @ layer.lora_A["default"].weight.detach().double().T @ adapter.double().T) * layer.scaling[
        "default"
    ]
    with torch.no_grad():
        tuned = layer(x).double()
        adapter.zero_()
        seen = tuned - layer(x).double()
    assert change.abs().median() < 0.2 * 2**-8 * tuned.abs().median()  # far below half a step
    return float((seen * change).sum() / (change * change).sum())


def lora_layer(quantized, bias, dropout=0.0):
    """A layer of PEFT's with fp32 adapters over a plain or NF4 layer in bf16."""
    torch.manual_seed(0)
    base, kind = torch.nn.Linear(256, 512, bias=bias), LoraLinear
    if quantized:
        dense, kind = base, LoraLinear4bit
        base = Linear4bit(256, 512, bias=bias, compute_dtype=torch.bfloat16, quant_type="nf4")
        base.load_state_dict(dense.state_dict())
        base = base.to("cpu")
        base.support_avx512bf16_for_cpu = False
    base = base.to(torch.bfloat16).requires_grad_(False)
    options = {"r": 8, "lora_alpha": 16, "lora_dropout": dropout}
    layer = kind(base, "default", config=LoraConfig(**options), init_lora_weights=True, **options)
    layer.lora_A.float(), layer.lora_B.float()
    layer.lora_B["default"].weight.data.normal_(std=1e-4)
    return layer


@pytest.mark.parametrize("quantized", [False, True], ids=["plain", "nf4"])
@pytest.mark.parametrize("bias", [False, True])
def test_changes_below_the_step_of_16_bits_survive_on_average(quantized, bias):
    """PEFT adds them to rounded outputs, where nearly every one of them is rounded away."""
    x = torch.randn(400, 256, generator=torch.Generator().manual_seed(3)).bfloat16()
    theirs = share_of_a_small_change_that_survives(lora_layer(quantized, bias).eval(), x)
    layer = lora_layer(quantized, bias).eval()
    lora_linear.install(torch.nn.ModuleList([layer]))
    assert share_of_a_small_change_that_survives(layer, x) == pytest.approx(1, abs=0.1)
    assert theirs < 0.5


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("quantized", [False, True], ids=["plain", "nf4"])
def test_16_bit_layers_have_the_gradients_of_the_formula(quantized, dropout):
    layer = lora_layer(quantized, bias=True, dropout=dropout)
    layer.lora_B["default"].weight.data.normal_(std=0.1)
    lora_linear.install(torch.nn.ModuleList([layer]))
    x = torch.randn(2, 50, 256).bfloat16().requires_grad_()
    weights_of_outputs = torch.randn(2, 50, 512).bfloat16()
    torch.manual_seed(5)
    output = layer(x)
    (output * weights_of_outputs).sum().backward()
    a, b = (part["default"].weight for part in (layer.lora_A, layer.lora_B))
    exact_x, exact_a, exact_b = (tensor.detach().double().requires_grad_() for tensor in (x, a, b))
    torch.manual_seed(5)
    kept = torch.nn.functional.dropout(torch.ones_like(x), dropout).double()
    base = layer.get_base_layer()
    dense = lora_linear._dense(base, torch.bfloat16).double()
    exact = exact_x @ dense.T + base.bias.double() + ((exact_x * kept) @ exact_a.T @ exact_b.T) * 2
    (exact * weights_of_outputs.double()).sum().backward()
    assert (output - exact).norm() < 0.01 * exact.norm()
    for ours, gradient in ((x.grad, exact_x.grad), (a.grad, exact_a.grad), (b.grad, exact_b.grad)):
        assert (ours - gradient).norm() < 0.01 * gradient.norm()


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_model_may_change_what_a_layer_returns_in_place(dropout):
    """Falcon and Gemma 3n do."""
    layer = wrapped(lora_dropout=dropout).train().base_model.model.model.layers[0].mlp.down_proj
    x = torch.randn(1, 5, 64, dtype=torch.float64, requires_grad=True)
    gradients = []
    for doubled in (lambda output: output.mul_(2), lambda output: output * 2):
        torch.manual_seed(4)
        gradients.append(torch.autograd.grad(doubled(layer(x)).sum(), x)[0])
    assert torch.equal(*gradients)
