"""Linear layers with LoRA in few passes over memory: the numbers of PEFT's own forward pass, up to rounding.

PEFT adds its product in two more passes over the output, and casts the layer's input to the adapter's fp32. Here the
small product is added inside the matrix product, and the small weights are cast instead of the activations; the same in
backward.
"""

import types

import torch
from peft.tuners.lora import LoraLayer


def install(model) -> None:
    """Give every LoRA layer over a linear layer the forward pass below.

    Where that does not apply (DoRA, autocast, several adapters), it calls PEFT's.
    """
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and isinstance(layer.get_base_layer(), torch.nn.Linear):
            layer.forward = types.MethodType(_forward, layer)


def _forward(layer, x, *args, **kwargs):
    adapter = _only_adapter(layer)
    if adapter is None or args or kwargs or torch.is_autocast_enabled(x.device.type):
        return type(layer).forward(layer, x, *args, **kwargs)
    small = (layer.lora_A[adapter].weight, layer.lora_B[adapter].weight, layer.scaling[adapter])
    base = layer.get_base_layer()
    weight = getattr(base, "unpacked_weight", base.weight)
    dropout = layer.lora_dropout[adapter]
    dropped = isinstance(dropout, torch.nn.Dropout) and dropout.p > 0 and layer.training
    if not dropped and weight.dtype == x.dtype and not weight.requires_grad:
        return _LoraLinear.apply(x, weight, base.bias, *small)
    return _AddLora.apply(base(x), dropout(x), *small)


def _only_adapter(layer):
    """Name of the only active adapter if it is plain LoRA, else None."""
    if layer.disable_adapters or layer.merged:
        return None
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if len(active) != 1 or active[0] in layer.lora_variant or layer.lora_B[active[0]].bias is not None:
        return None
    return active[0]


class _LoraLinear(torch.autograd.Function):
    """x·Wᵀ + bias + scaling·(x·Aᵀ)·Bᵀ with a frozen W."""

    @staticmethod
    def forward(ctx, x, weight, bias, a, b, scaling):
        rows = x.reshape(-1, x.shape[-1])
        a, b = a.to(x.dtype), b.to(x.dtype)
        output = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)
        inner = rows @ a.T
        output.addmm_(inner, b.T, alpha=scaling)
        ctx.save_for_backward(rows, weight, inner, a, b)
        ctx.scaling = scaling
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, gradient):
        rows, weight, inner, a, b = ctx.saved_tensors
        gradient_rows = gradient.reshape(-1, gradient.shape[-1])
        d_inner, d_a, d_b = _small_gradients(ctx, gradient_rows, rows, inner, b, of_a=3)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = (gradient_rows @ weight).addmm_(d_inner, a).view(*gradient.shape[:-1], -1)
        return d_x, None, None, d_a, d_b, None


class _AddLora(torch.autograd.Function):
    """result + scaling·(x·Aᵀ)·Bᵀ, for a base layer with its own forward pass (quantized) or another input (dropout)."""

    @staticmethod
    def forward(ctx, result, x, a, b, scaling):
        rows = x.reshape(-1, x.shape[-1])
        a, b = a.to(x.dtype), b.to(x.dtype)
        inner = rows @ a.T
        ctx.save_for_backward(rows, inner, a, b)
        ctx.scaling = scaling
        return torch.addmm(result.reshape(len(rows), -1), inner, b.T, alpha=scaling).view(result.shape)

    @staticmethod
    def backward(ctx, gradient):
        rows, inner, a, b = ctx.saved_tensors
        gradient_rows = gradient.reshape(-1, gradient.shape[-1])
        d_inner, d_a, d_b = _small_gradients(ctx, gradient_rows, rows, inner, b, of_a=2)
        d_x = (d_inner @ a).view(*gradient.shape[:-1], -1) if ctx.needs_input_grad[1] else None
        return gradient, d_x, d_a, d_b, None


def _small_gradients(ctx, gradient, rows, inner, b, of_a):
    """(gradient of x·Aᵀ, of A, of B); of_a: index of A among the function's inputs, B's is the next."""
    d_inner = (gradient @ b).mul_(ctx.scaling)
    d_a = d_inner.T @ rows if ctx.needs_input_grad[of_a] else None
    d_b = (gradient.T @ inner).mul_(ctx.scaling) if ctx.needs_input_grad[of_a + 1] else None
    return d_inner, d_a, d_b
