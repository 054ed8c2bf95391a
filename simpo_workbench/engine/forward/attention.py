"""Attention over packed rows [S | P C R | P C R …]: who may use it, and the function that transformers calls.

Every token attends to what is before it in its own sequence [S P C] or [S P R] and to nothing else. Distances, as for
sliding windows, are counted in positions of that sequence. The other layers need no change.
"""

import torch
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from . import attention_blocked, attention_cuda
from .packing import Layout, RowPolicy, dense_attention, visible

#: The name under which transformers knows this attention.
NAME = "packed_pairs"

#: Kinds of layers whose cache holds keys and values of single tokens.
_ATTENDING = {"full_attention", "sliding_attention"}


def all_layers_attend(model) -> bool:
    """Whether every layer is known to be attention over tokens, so that rows may leave a batch with a cache."""
    proof = getattr(model, "proof", None)
    return proof is not None and proof.shared and _layer_types(model.config.get_text_config()) <= _ATTENDING


def row_policy(model) -> RowPolicy:
    """In which rows this model may be given pairs, by its proof (see `proof.install`) and its configuration."""
    config, proof = model.config.get_text_config(), getattr(model, "proof", None)
    longest = longest_together(config)
    reason = refusal(config) or (proof.reason if proof else "")
    if not reason and config._attn_implementation != NAME:
        reason = f"model.attention is {config._attn_implementation}"
    if proof and not proof.padded:
        longest = 0
    return RowPolicy(shared=not reason, longest=longest, reason=reason)


def refusal(config) -> str:
    """Why a text configuration forbids shared prompts whatever a proof on short rows shows, or empty."""
    if getattr(config, "use_bidirectional_attention", None):
        return "its attention is not causal"
    if getattr(config, "attention_dropout", 0.0):
        return "it drops attention weights at random (attention_dropout)"
    if any("dynamic" in str(rope.get("rope_type")) for rope in _ropes(config)):
        return "its rotary factors depend on the longest sequence that it has seen"
    return ""


def register() -> None:
    """Make this attention known to transformers under its name."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)  # without it, padded batches would get no mask at all


def packed_attention(
    module,
    query,
    key,
    value,
    attention_mask,
    scaling=None,
    dropout=0.0,
    sliding_window=None,
    softcap=None,
    layout: Layout | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """(output (1, tokens, heads, head_dim), None) for a packed row; without a layout, transformers' own attention.

    query: (1, heads, tokens, head_dim); key, value: (1, key-value heads, tokens, head_dim). sliding_window: positions,
    None for no limit.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if layout is not None:
        backend = _BACKENDS[_backend(layout, query, softcap)]
        return backend(query, key, value, layout, scaling, sliding_window or None, softcap or None), None
    if softcap is not None:  # transformers' SDPA refuses it
        return dense_attention(query, key, value, _allowed(attention_mask, query, key), scaling, softcap), None
    return ALL_ATTENTION_FUNCTIONS["sdpa"](
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
    )


def _dense(query, key, value, layout, scaling, window, softcap):
    prepared_as = ("dense", window, query.device)
    if prepared_as not in layout.prepared:
        layout.prepared[prepared_as] = visible(layout, window).to(query.device)
    return dense_attention(query, key, value, layout.prepared[prepared_as], scaling, softcap)


_BACKENDS = {
    "blocked": attention_blocked.attention,
    "varlen": attention_cuda.varlen,
    "flex": attention_cuda.flex,
    "pairwise": attention_cuda.pairwise,
    "dense": _dense,
}


def _backend(layout, query, softcap):
    if layout.backend != "auto":
        return layout.backend
    return attention_cuda.choose(query, softcap) if query.device.type == "cuda" else "blocked"


def _layer_types(config):
    return set(getattr(config, "layer_types", None) or ["full_attention"])


def _allowed(mask, query, key):
    """transformers' mask of a padded batch, True where a query attends to a key; None means causal attention."""
    if mask is None:
        queries, keys = query.shape[2], key.shape[2]
        return torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
    return mask if mask.dtype == torch.bool else mask >= 0


def longest_together(config) -> int | None:
    """The longest sequence, in tokens, whose rotary factors do not depend on the rest of the batch; None without limit.

    config: of the text model. Long-rope and dynamic scaling choose the factors by the longest position that goes
    through the model at once.
    """
    ropes = _ropes(config)
    if not any("dynamic" in str(rope.get("rope_type")) or rope.get("rope_type") == "longrope" for rope in ropes):
        return None
    originals = [
        rope["original_max_position_embeddings"] for rope in ropes if rope.get("original_max_position_embeddings")
    ]
    return min(originals, default=config.max_position_embeddings)


def _ropes(config):
    """The rotary settings of a model: one set, or one per type of layer."""
    ropes = getattr(config, "rope_parameters", None) or {}
    return [ropes, *(rope for rope in ropes.values() if isinstance(rope, dict))]
