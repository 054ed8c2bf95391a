"""Packed-row attention for CUDA, in three backends.

varlen: variable-length flash attention. flex: FlexAttention, where scores are soft-capped. pairwise: pair by pair, on
cards and for types that have neither.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import scaled_dot_product_attention

from .packing import Layout, dense_attention, visible

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

#: FlexAttention's default tiles need more shared memory per block than cards of the RTX 30 and 40 series have (about
#: 100 KB; pytorch#133254).
LEAST_SHARED_MEMORY_FOR_FLEX = 160 * 1024
#: Every new length of a row is a new shape at first. Beyond the limit a wrong specialization of the compiled kernel
#: could be reused.
_RECOMPILE_LIMIT = 64


def choose(query, softcap) -> str:
    """The backend for a row on this card, by the properties of card and model."""
    card = torch.cuda.get_device_properties(query.device)
    return backend_for(
        query.dtype,
        query.shape[-1],
        bool(softcap),
        (card.major, card.minor),
        getattr(card, "shared_memory_per_block_optin", 0),
    )


def backend_for(dtype, head_dim: int, softcapped: bool, capability: tuple[int, int], shared_memory: int) -> str:
    """varlen, flex or pairwise. shared_memory: bytes per block that the card offers on request."""
    if capability < (8, 0):
        return "pairwise"
    if softcapped:
        return "flex" if shared_memory >= LEAST_SHARED_MEMORY_FOR_FLEX else "pairwise"
    flash = dtype in (torch.float16, torch.bfloat16) and head_dim <= 256 and head_dim % 8 == 0
    return "varlen" if flash else "pairwise"


def varlen(query, key, value, layout: Layout, scaling, window, softcap) -> torch.Tensor:
    """Attention over a packed row by flash attention, (1, tokens, heads, head_dim).

    Each pair is two sequences: queries [P C] against keys [S P C], and queries R against keys [S P R], causal and
    aligned at their ends.
    """
    from torch.nn.attention.varlen import varlen_attn

    prepared_as = ("varlen", query.device)
    if prepared_as not in layout.prepared:
        layout.prepared[prepared_as] = varlen_sequences(layout, query.device)
    keys, query_ends, key_ends, most_queries, most_keys = layout.prepared[prepared_as]
    options = _varlen_options(window, most_keys)
    if options is None:
        return flex(query, key, value, layout, scaling, window, softcap)
    # (tokens, heads, width); the queries of a packed row are in the order that flash attention needs, the keys of S and
    # P are repeated
    keys_and_values = [side[0].transpose(0, 1).index_select(0, keys) for side in (key, value)]
    if "enable_gqa" not in options:
        groups = query.shape[1] // key.shape[1]
        keys_and_values = [side.repeat_interleave(groups, dim=1) for side in keys_and_values]
    rows = (query[0].transpose(0, 1), *keys_and_values)
    return varlen_attn(*rows, query_ends, key_ends, most_queries, most_keys, scale=scaling, **options)[None]


def _varlen_options(window, most_keys):
    """Causal attention within the window in the words of this torch's varlen_attn; None where it has no words for it.

    torch 2.10 knows `is_causal` alone, 2.11 `window_size`, 2.13 `window_size` and `enable_gqa`.
    """
    known = _varlen_parameters()
    options = {"enable_gqa": True} if "enable_gqa" in known else {}
    if "window_size" in known:
        return options | {"window_size": (window - 1 if window else -1, 0)}
    if window is None or window >= most_keys:
        return options | {"is_causal": True}
    return None


@functools.cache
def _varlen_parameters():
    from torch.nn.attention.varlen import varlen_attn

    return frozenset(inspect.signature(varlen_attn).parameters)


def varlen_sequences(layout: Layout, device="cpu") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, int]:
    """(key rows, query ends, key ends, most queries, most keys) of the row's sequences; ends are cumulative, int32."""
    beginning = torch.arange(layout.shared)
    keys, query_lengths, key_lengths = [], [], []
    if layout.shared:
        keys, query_lengths, key_lengths = [beginning], [layout.shared], [layout.shared]
    for span in layout.spans:
        prompt_end = span.start + span.prompt
        keys += [beginning, torch.arange(span.start, span.second)]
        keys += [
            beginning,
            torch.arange(span.start, prompt_end),
            torch.arange(span.second, span.start + span.tokens),
        ]
        query_lengths += [span.prompt + span.chosen, span.rejected]
        key_lengths += [layout.shared + span.prompt + answer for answer in (span.chosen, span.rejected)]
    query_ends, key_ends = (
        torch.tensor([0, *lengths]).cumsum(0).to(torch.int32).to(device) for lengths in (query_lengths, key_lengths)
    )
    return torch.cat(keys).to(device), query_ends, key_ends, max(query_lengths), max(key_lengths)


def flex(query, key, value, layout: Layout, scaling, window, softcap) -> torch.Tensor:
    """Attention over a packed row by FlexAttention, (1, tokens, heads, head_dim); `flex_mask` says who sees what."""
    prepared_as = ("flex", window, query.device)
    if prepared_as not in layout.prepared:
        layout.prepared[prepared_as] = flex_mask(layout, window, query.device)
    score_mod = None if softcap is None else _softcapping(softcap)
    output = _compiled_flex()(
        query,
        key,
        value,
        score_mod=score_mod,
        block_mask=layout.prepared[prepared_as],
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output.transpose(1, 2)


def flex_mask(layout: Layout, window, device) -> BlockMask:
    """The block mask of a row: causal & within the window & (key in S | same pair & (key in P | same branch))."""
    from torch.nn.attention.flex_attention import create_block_mask

    pair, branch, position = (places.to(device) for places in layout.places())
    far = window or layout.tokens

    def seen(row, head, q, k):
        same = (pair[k] < 0) | ((pair[q] == pair[k]) & ((branch[k] == 0) | (branch[q] == branch[k])))
        return same & (position[k] <= position[q]) & (position[q] - position[k] < far)

    return create_block_mask(seen, None, None, layout.tokens, layout.tokens, device=device)


def pairwise(query, key, value, layout: Layout, scaling, window, softcap) -> torch.Tensor:
    """Attention over a packed row pair by pair, (1, tokens, heads, head_dim), by torch's kernels with a mask.

    Memory grows with the square of a pair's length, not of the row's.
    """
    outputs = []
    for index, span in enumerate(layout.spans):
        # the queries of S go with the first pair
        first, skipped = (0, 0) if index == 0 else (span.start, layout.shared)
        prepared_as = ("pairwise", span.prompt, span.chosen, span.rejected, skipped, window, query.device)
        if prepared_as not in layout.prepared:
            layout.prepared[prepared_as] = visible(layout.alone(span), window)[skipped:].to(query.device)
        seen = layout.prepared[prepared_as]
        end = span.start + span.tokens
        queries = query[:, :, first:end]
        keys, values = (
            torch.cat([side[:, :, : layout.shared], side[:, :, span.start : end]], dim=2) for side in (key, value)
        )
        if softcap is not None:
            outputs.append(dense_attention(queries, keys, values, seen, scaling, softcap))
            continue
        groups = query.shape[1] // key.shape[1]
        keys, values = (side.repeat_interleave(groups, dim=1) for side in (keys, values))
        output = scaled_dot_product_attention(queries, keys, values, attn_mask=seen, scale=scaling)
        outputs.append(output.transpose(1, 2))
    return torch.cat(outputs, dim=1)


@functools.cache
def _softcapping(softcap):
    return lambda score, row, head, q, k: softcap * torch.tanh(score / softcap)


@functools.cache
def _compiled_flex():
    from torch.nn.attention.flex_attention import flex_attention

    torch._dynamo.config.recompile_limit = max(_RECOMPILE_LIMIT, torch._dynamo.config.recompile_limit)
    # A soft cap is a constant of the model. As a dynamic number it fails to compile (seen with torch 2.11 on CUDA and
    # 2.13 on a CPU).
    torch._dynamo.config.specialize_float = True
    return torch.compile(flex_attention, dynamic=True)
