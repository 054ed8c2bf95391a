"""Log-probabilities from hidden states, through the language-model head in tiles, never with all logits in memory.

With a frozen head each token's gradient is known in the forward pass up to one factor: ∂logp/∂h = W[target] −
softmax(W·h)·W. That row of hidden size is kept, and backward only scales it: two products with the head, not three.
"""

from dataclasses import dataclass

import torch
from torch.utils.checkpoint import checkpoint

#: How many logits one tile has: 24 MB in fp32 fit into a processor's cache beside the head's weights; a GPU is faster
#: with longer products.
LOGITS_PER_TILE = {"cpu": 6_300_000, "cuda": 67_000_000}


@dataclass(frozen=True)
class HeadTransform:
    """The transformation of a head's output: multiply by `scale`, then soft-cap."""

    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, logits):
        logits = logits * self.scale if self.scale != 1.0 else logits
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    @classmethod
    def named_by(cls, config) -> "HeadTransform":
        """The transform that a text configuration's settings name; whether it is right, the proof shows."""
        scale = (getattr(config, "logit_scale", None) or 1.0) * (getattr(config, "lm_head_multiplier", None) or 1.0)
        divisor = getattr(config, "logits_scaling", None) or 1.0
        return cls(scale / divisor, getattr(config, "final_logit_softcapping", None) or None)


def token_logps(head, hidden, targets, transform: HeadTransform) -> torch.Tensor:
    """Log-probability of every target, (tokens,), nats, fp32 or wider.

    hidden: (tokens, hidden size), the input of the head; targets: (tokens,).
    """
    weight = getattr(head, "weight", None)
    plain = type(head) is torch.nn.Linear and weight.is_floating_point()
    tile = max(16, LOGITS_PER_TILE.get(hidden.device.type, LOGITS_PER_TILE["cuda"]) // _vocabulary(head))
    if plain and not any(parameter.requires_grad for parameter in head.parameters()):
        return _FrozenHead.apply(hidden, weight, head.bias, targets, transform, tile)
    return _recomputed(head, hidden, targets, transform, tile)


def log_softmax_at(logits, targets) -> torch.Tensor:
    """Log-probabilities of the targets, (tokens,), from logits (tokens, vocabulary)."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return torch.log_softmax(logits, dim=-1).gather(1, targets[:, None])[:, 0]


def _recomputed(head, hidden, targets, transform, tile):
    """For a trained, LoRA-wrapped or quantized head: its own forward pass tile by tile, and again in backward."""

    def logps_of_tile(tile_hidden, tile_targets):
        return log_softmax_at(transform(head(tile_hidden)), tile_targets)

    tiles = zip(hidden.split(tile), targets.split(tile), strict=True)
    return torch.cat([checkpoint(logps_of_tile, *inputs, use_reentrant=False) for inputs in tiles])


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, transform, tile):
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        logps = torch.empty(len(hidden), dtype=wide, device=hidden.device)
        gradients = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), tile):
            part = slice(start, start + tile)
            logits = _wide_product(hidden[part], weight, wide)
            if bias is not None:
                logits += bias
            if transform.scale != 1.0:
                logits *= transform.scale
            if transform.softcap is not None:
                logits = logits.div_(transform.softcap).tanh_().mul_(transform.softcap)
            tile_targets = targets[part, None]
            target_logits = logits.gather(1, tile_targets)
            largest = logits.amax(dim=1, keepdim=True)
            slope = None
            if transform.softcap is not None and gradients is not None:
                slope = 1 - (logits / transform.softcap) ** 2
            probabilities = logits.sub_(largest).exp_()
            total = probabilities.sum(dim=1, keepdim=True)
            logps[part] = (target_logits - largest - total.log())[:, 0]
            if gradients is None:
                continue
            d_logits = probabilities.div_(total).neg_()
            d_logits.scatter_add_(1, tile_targets, torch.ones_like(target_logits))
            if slope is not None:
                d_logits *= slope
            if transform.scale != 1.0:
                d_logits *= transform.scale
            gradients[part] = d_logits.to(weight.dtype) @ weight
        if gradients is not None:
            ctx.save_for_backward(gradients)
        return logps

    @staticmethod
    def backward(ctx, gradient):
        (gradients,) = ctx.saved_tensors
        return gradients * gradient[:, None].to(gradients.dtype), None, None, None, None, None


def _wide_product(hidden, weight, wide):
    """hidden · weightᵀ in fp32 or wider.

    With 16-bit factors a GPU returns the fp32 sums themselves; a CPU rounds them to 16 bits first.
    """
    if weight.dtype == wide:
        return hidden.to(wide) @ weight.T
    hidden = hidden.to(weight.dtype)  # under autocast some models end in an fp32 norm
    if hidden.device.type == "cuda":
        return torch.mm(hidden, weight.T, out_dtype=wide)
    return (hidden @ weight.T).to(wide)


def _vocabulary(head):
    return getattr(head, "out_features", None) or head.weight.shape[0]
