"""Linear layers with LoRA in few passes over memory: the numbers of PEFT's own forward pass, up to rounding.

PEFT adds its product in two more passes over the output, and casts the layer's input to the adapter's fp32. Here the
small product is added inside the matrix product, and the small weights are cast instead of the activations; the same in
backward.

With 16 bits the order decides what an adapter can learn. PEFT adds its product to a base output that was rounded
already. What is smaller than half a step between two 16-bit numbers is then rounded away, always, so a young adapter
changes nothing. Here the base's product is added onto the adapter's, with one rounding at the end: small changes
survive on average.
"""

import types

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import LoraLayer

_SHORT = (torch.bfloat16, torch.float16)


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
    if _rounds_once(base, weight, x):
        return _BaseOnto.apply(_Small.apply(dropout(x), *small), x, base).view(*x.shape[:-1], -1)
    return _AddLora.apply(base(x), dropout(x), *small)


def _rounds_once(base, weight, x):
    """Whether the base's product can be added onto the adapter's: frozen 16-bit weights, plain or 4-bit.

    One row without gradient is left to bitsandbytes, whose kernel for it reads the 4-bit weights as they are.
    """
    if x.dtype not in _SHORT or base.weight.requires_grad:
        return False
    if isinstance(base, Linear4bit):
        several = x.numel() > x.shape[-1] or torch.is_grad_enabled()
        return several and weight is base.weight and base.compute_dtype in (None, x.dtype)
    return type(base) is torch.nn.Linear and weight.dtype == x.dtype


def _dense(base, dtype):
    """The weights of a plain or 4-bit layer, (out, in), in dtype."""
    if isinstance(base, Linear4bit):
        return dequantize_4bit(base.weight.data, base.weight.quant_state).to(dtype)
    return base.weight


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
        inner = rows @ a.T
        output, flat = _output(x, len(weight))
        if x.dtype in _SHORT:
            _onto(torch.mm(inner, b.T, out=flat).mul_(scaling), rows, weight, bias)
        else:
            torch.mm(rows, weight.T, out=flat) if bias is None else torch.addmm(bias, rows, weight.T, out=flat)
            flat.addmm_(inner, b.T, alpha=scaling)
        ctx.save_for_backward(rows, weight, inner, a, b)
        ctx.scaling = scaling
        return output

    @staticmethod
    def backward(ctx, gradient):
        rows, weight, inner, a, b = ctx.saved_tensors
        gradient_rows = gradient.reshape(-1, gradient.shape[-1])
        d_inner, d_a, d_b = _small_gradients(ctx, gradient_rows, rows, inner, b, of_a=3)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = (gradient_rows @ weight).addmm_(d_inner, a).view(*gradient.shape[:-1], -1)
        return d_x, None, None, d_a, d_b, None


def _output(x, width):
    """(output, the same as (rows, width)) for an input. Some models change a layer's output in place, which autograd
    forbids where a Function returns a view.
    """
    output = x.new_empty(*x.shape[:-1], width)
    return output, output.view(-1, width)


def _onto(small, rows, weight, bias):
    """small + rows·Wᵀ + bias, rounded after the sum; `small` is overwritten."""
    output = small.addmm_(rows, weight.T)
    return output if bias is None else output.add_(bias)


class _Small(torch.autograd.Function):
    """scaling·(x·Aᵀ)·Bᵀ, (rows, out)."""

    @staticmethod
    def forward(ctx, x, a, b, scaling):
        rows = x.reshape(-1, x.shape[-1])
        a, b = a.to(x.dtype), b.to(x.dtype)
        inner = rows @ a.T
        ctx.save_for_backward(rows, inner, a, b)
        ctx.scaling = scaling
        ctx.shape = x.shape
        return (inner @ b.T).mul_(scaling)

    @staticmethod
    def backward(ctx, gradient):
        rows, inner, a, b = ctx.saved_tensors
        d_inner, d_a, d_b = _small_gradients(ctx, gradient, rows, inner, b, of_a=1)
        d_x = (d_inner @ a).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return d_x, d_a, d_b, None


class _BaseOnto(torch.autograd.Function):
    """small + x·Wᵀ + bias, (rows, out), with the frozen W of a plain or 4-bit layer; `small` is overwritten.

    4-bit weights are unpacked again in backward.
    """

    @staticmethod
    def forward(ctx, small, x, base):
        ctx.base, ctx.shape = base, x.shape
        ctx.mark_dirty(small)
        bias = None if base.bias is None else base.bias.to(x.dtype)
        return _onto(small, x.reshape(-1, x.shape[-1]), _dense(base, x.dtype), bias)

    @staticmethod
    def backward(ctx, gradient):
        d_x = (gradient @ _dense(ctx.base, gradient.dtype)).view(ctx.shape) if ctx.needs_input_grad[1] else None
        return gradient, d_x, None


class _AddLora(torch.autograd.Function):
    """result + scaling·(x·Aᵀ)·Bᵀ, for a base layer with a forward pass of its own (int8) or another precision."""

    @staticmethod
    def forward(ctx, result, x, a, b, scaling):
        rows = x.reshape(-1, x.shape[-1])
        a, b = a.to(x.dtype), b.to(x.dtype)
        inner = rows @ a.T
        ctx.save_for_backward(rows, inner, a, b)
        ctx.scaling = scaling
        output, flat = _output(result, result.shape[-1])
        torch.addmm(result.reshape(len(rows), -1), inner, b.T, alpha=scaling, out=flat)
        return output

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
