"""Packed-row attention for CUDA: variable-length flash attention; FlexAttention where scores are soft-capped; pair by
pair on cards or types that have neither.
"""

import functools
import inspect

import torch

from .packing import Layout, dense_attention, visible

#: FlexAttention's default tiles want more shared memory per block than cards of the RTX 30 and 40 series have (about
#: 100 KB; pytorch#133254).
LEAST_SHARED_MEMORY_FOR_FLEX = 160 * 1024
#: Above it a wrong specialization of the compiled kernel could be reused: every new length of a row is a shape of its
#: own at first.
_RECOMPILE_LIMIT = 64


def choose(query, softcap) -> str:
    """The backend for a row on this card, by the card's properties and the model's, never by trial."""
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
    if not softcapped:
        flash = (
            dtype in (torch.float16, torch.bfloat16) and head_dim <= 256 and head_dim % 8 == 0 and capability >= (8, 0)
        )
        return "varlen" if flash else "pairwise"
    return "flex" if capability >= (8, 0) and shared_memory >= LEAST_SHARED_MEMORY_FOR_FLEX else "pairwise"


def varlen(query, key, value, layout: Layout, scaling, window, softcap):
    """Each pair is two sequences for flash attention: queries [P C] against keys [S P C], queries R against keys [S P
    R]; causal from the end.
    """
    from torch.nn.attention.varlen import varlen_attn

    name = ("varlen", query.device)
    if name not in layout.prepared:
        layout.prepared[name] = varlen_sequences(layout, query.device)
    keys, query_ends, key_ends, most_queries, most_keys = layout.prepared[name]
    # (tokens, heads, width); the queries of a packed row lie in the order that flash attention wants, the keys of S and
    # P are wanted again
    rows = query[0].transpose(0, 1), key[0].transpose(0, 1)[keys], value[0].transpose(0, 1)[keys]
    if _takes_window():
        causal = {"window_size": (window - 1 if window else -1, 0), "enable_gqa": True}
    elif window is None or window >= most_keys:
        groups = query.shape[1] // key.shape[1]
        rows, causal = (rows[0], *(side.repeat_interleave(groups, dim=1) for side in rows[1:])), {"is_causal": True}
    else:
        return flex(query, key, value, layout, scaling, window, softcap)
    return varlen_attn(*rows, query_ends, key_ends, most_queries, most_keys, scale=scaling, **causal)[None]


@functools.cache
def _takes_window():
    """Whether this torch's varlen_attn knows sliding windows and grouped heads (torch 2.10's did not)."""
    from torch.nn.attention.varlen import varlen_attn

    return {"window_size", "enable_gqa"} <= inspect.signature(varlen_attn).parameters.keys()


def varlen_sequences(layout: Layout, device="cpu"):
    """(key rows, query ends, key ends, most queries, most keys) of the row's sequences; ends are cumulated from 0,
    int32.
    """
    beginning = torch.arange(layout.shared)
    keys, query_lengths, key_lengths = (
        ([beginning], [layout.shared], [layout.shared]) if layout.shared else ([], [], [])
    )
    for span in layout.spans:
        end, before = span.start + span.tokens, layout.shared + span.prompt
        keys += [
            beginning,
            torch.arange(span.start, span.second),
            beginning,
            torch.arange(span.start, span.start + span.prompt),
            torch.arange(span.second, end),
        ]
        query_lengths += [span.prompt + span.chosen, span.rejected]
        key_lengths += [before + span.chosen, before + span.rejected]
    ends = (
        torch.tensor([0, *lengths]).cumsum(0).to(torch.int32).to(device) for lengths in (query_lengths, key_lengths)
    )
    return (torch.cat(keys).to(device), *ends, max(query_lengths), max(key_lengths))


def flex(query, key, value, layout: Layout, scaling, window, softcap):
    """FlexAttention with causal & within the window & (key in the common beginning | same pair & (key in the prompt |
    same branch)).
    """
    name = ("flex", window, query.device)
    if name not in layout.prepared:
        layout.prepared[name] = flex_mask(layout, window, query.device)
    score_mod = None if softcap is None else _softcapping(softcap)
    output = _compiled_flex()(
        query,
        key,
        value,
        score_mod=score_mod,
        block_mask=layout.prepared[name],
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output.transpose(1, 2)


def flex_mask(layout: Layout, window, device):
    """The block mask of a packed row."""
    from torch.nn.attention.flex_attention import create_block_mask

    pair, branch, position = (places.to(device) for places in layout.places())
    far = window or layout.tokens

    def seen(row, head, q, k):
        same = (pair[k] < 0) | ((pair[q] == pair[k]) & ((branch[k] == 0) | (branch[q] == branch[k])))
        return same & (position[k] <= position[q]) & (position[q] - position[k] < far)

    return create_block_mask(seen, None, None, layout.tokens, layout.tokens, device=device)


def pairwise(query, key, value, layout: Layout, scaling, window, softcap):
    """One pair after the other through transformers' usual kernels with a mask: memory grows with each pair's square,
    not with the row's.
    """
    outputs = []
    for index, span in enumerate(layout.spans):
        # the row's first pair brings the queries of the common beginning
        first, hidden = (0, 0) if index == 0 else (span.start, layout.shared)
        name = ("pairwise", span.prompt, span.chosen, span.rejected, hidden, window, query.device)
        if name not in layout.prepared:
            layout.prepared[name] = visible(layout.alone(span), window)[hidden:].to(query.device)
        queries, rows, seen = (
            slice(first, span.start + span.tokens),
            slice(span.start, span.start + span.tokens),
            layout.prepared[name],
        )
        keys, values = (torch.cat([side[:, :, : layout.shared], side[:, :, rows]], dim=2) for side in (key, value))
        part = (query[:, :, queries], keys, values)
        if softcap is not None:
            outputs.append(dense_attention(*part, seen, scaling, softcap))
        else:
            groups = query.shape[1] // key.shape[1]
            wide = (side.repeat_interleave(groups, dim=1) for side in part[1:])
            outputs.append(
                torch.nn.functional.scaled_dot_product_attention(
                    part[0], *wide, attn_mask=seen, scale=scaling
                ).transpose(1, 2)
            )
    return torch.cat(outputs, dim=1)


@functools.cache
def _softcapping(softcap):
    return lambda score, row, head, q, k: softcap * torch.tanh(score / softcap)


@functools.cache
def _compiled_flex():
    from torch.nn.attention.flex_attention import flex_attention

    torch._dynamo.config.recompile_limit = max(_RECOMPILE_LIMIT, torch._dynamo.config.recompile_limit)
    return torch.compile(flex_attention, dynamic=True)
