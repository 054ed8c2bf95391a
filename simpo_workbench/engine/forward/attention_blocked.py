"""Packed-row attention for the CPU: batched matrix products over blocks of queries.

Grouped query heads stand under each other against their one key head, so keys and values are never repeated. Backward
computes the attention weights of long pairs again, those of others are kept.
"""

from dataclasses import dataclass

import torch

from .packing import Layout, Span, minus_infinity, visible

#: Queries of a long pair that go through one product. 64 measured best at 900 tokens a pair on 2 cores; 128 took 1.5
#: times as long.
QUERIES_PER_BLOCK = 64
#: Pairs up to this length go through together, padded to the longest of them; longer ones block by block, without what
#: causality hides.
SHORT_PAIR_TOKENS = 256
#: The attention weights of pairs up to this length are kept for backward: 5 % of a step's time for a quarter more
#: memory at 950 tokens a pair.
KEPT_PAIR_TOKENS = 1536
#: A pair joins others only when it fills at least this share of their width.
LEAST_FILLED = 0.75


def attention(query, key, value, layout: Layout, scaling, window, softcap):
    """Attention over a packed row, (1, tokens, heads, head_dim); arguments as in
    `engine.attention.packed_attention`.
    """
    name = ("blocked", window)
    if name not in layout.prepared:
        layout.prepared[name] = _pieces(layout, window)
    return _BlockedAttention.apply(query, key, value, layout.prepared[name], scaling, softcap)


@dataclass(frozen=True, eq=False)
class _Block:
    """Queries start … stop of a piece against its keys first_key … stop. mask: added to the scores of the last columns,
    −inf where a query may not look.
    """

    start: int
    stop: int
    first_key: int
    mask: torch.Tensor


class _Sequence:
    """The queries of one sequence [S], [S P C] or [S P R], from place `first` of it, block by block.

    Its keys are slices of the row; its queries end where they end.
    """

    def __init__(self, keys: tuple[slice, ...], first: int, length: int, window: int | None):
        self.tokens = length
        self.keys, self.offset = (
            keys,
            keys[-1].stop - length,
        )  # position in the sequence + offset = place of a query in the row
        self.blocks = [
            _causal_block(start, min(start + QUERIES_PER_BLOCK, length), window)
            for start in range(first, length, QUERIES_PER_BLOCK)
        ]

    def keys_of(self, rows):
        """(key heads, keys, width) of rows (tokens, key heads, width)."""
        return torch.cat([rows[part] for part in self.keys]).transpose(0, 1).contiguous()

    def add_keys(self, rows, part):
        start = 0
        for keys in self.keys:
            count = keys.stop - keys.start
            rows[keys] += part[:, start : start + count].transpose(0, 1)
            start += count

    def queries_of(self, rows, block, key_heads):
        """(key heads, groups · queries, width) of rows (tokens, heads, width)."""
        return (
            rows[block.start + self.offset : block.stop + self.offset]
            .transpose(0, 1)
            .reshape(key_heads, -1, rows.shape[-1])
        )

    def put(self, rows, block, part):
        """Queries' results into rows (tokens, heads, width)."""
        rows[block.start + self.offset : block.stop + self.offset] = part.view(
            rows.shape[1], block.stop - block.start, -1
        ).transpose(0, 1)


class _Together:
    """Short pairs side by side, padded to the longest of them, in one block."""

    def __init__(self, spans: list[Span], layout: Layout, window: int | None):
        shared, width = layout.shared, spans[0].tokens
        self.pairs, self.tokens = len(spans), shared + width
        offsets = torch.arange(width)
        starts, lengths = (
            torch.tensor([getattr(span, name) for span in spans])[:, None] for name in ("start", "tokens")
        )
        real = offsets < lengths
        queries = torch.where(real, starts + offsets, starts)  # padding repeats a pair's first token
        beginning = torch.arange(shared).expand(self.pairs, -1)
        self.queries = _Places(queries, real)
        self.keys = _Places(torch.cat([beginning, queries], dim=1), torch.cat([beginning >= 0, real], dim=1))
        mask = torch.full((self.pairs, 1, width, shared + width), float("-inf"))
        for index, span in enumerate(spans):
            mask[index, 0, :, shared:].fill_diagonal_(0.0)  # padding looks at itself only
            mask[index, 0, : span.tokens, : shared + span.tokens] = minus_infinity(
                ~visible(layout.alone(span), window)[shared:]
            )
        self.blocks = [_Block(0, shared + width, 0, mask)]

    def keys_of(self, rows):
        return self._side_by_side(rows, self.keys, rows.shape[1])

    def add_keys(self, rows, part):
        rows.index_add_(0, self.keys.real_rows, self._in_a_row(part, self.keys, rows))

    def queries_of(self, rows, block, key_heads):
        return self._side_by_side(rows, self.queries, key_heads)

    def put(self, rows, block, part):
        rows.index_copy_(0, self.queries.real_rows, self._in_a_row(part, self.queries, rows))

    def _side_by_side(self, rows, places, key_heads):
        """(pairs · key heads, groups · longest, width) of rows (tokens, heads, width)."""
        picked = rows.flatten(1).index_select(0, places.rows).view(self.pairs, -1, *rows.shape[1:])
        return picked.transpose(1, 2).reshape(self.pairs * key_heads, -1, rows.shape[-1])

    def _in_a_row(self, part, places, rows):
        """The real tokens of what lies side by side, (tokens, heads, width)."""
        return (
            part.view(self.pairs, rows.shape[1], -1, rows.shape[2])
            .transpose(1, 2)
            .reshape(-1, rows.shape[1] * rows.shape[2])
            .index_select(0, places.real)
            .view(-1, *rows.shape[1:])
        )


class _Places:
    """Where tokens that lie side by side, (pairs, longest), stand in the row, and which of them are no padding."""

    def __init__(self, rows, real):
        self.rows, self.real = rows.flatten(), real.flatten().nonzero()[:, 0]
        self.real_rows = self.rows[self.real]


def _pieces(layout, window):
    beginning = slice(0, layout.shared)
    pieces, together = [_Sequence((beginning,), 0, layout.shared, window)] if layout.shared else [], []
    for span in sorted(layout.spans, key=lambda span: span.tokens, reverse=True):
        if layout.shared + span.tokens > SHORT_PAIR_TOKENS:
            prompt, end = slice(span.start, span.start + span.prompt), span.start + span.tokens
            before = layout.shared + span.prompt
            pieces.append(
                _Sequence((beginning, slice(span.start, span.second)), layout.shared, before + span.chosen, window)
            )
            pieces.append(
                _Sequence((beginning, prompt, slice(span.second, end)), before, before + span.rejected, window)
            )
        elif together and span.tokens >= LEAST_FILLED * together[-1][0].tokens:
            together[-1].append(span)
        else:
            together.append([span])
    return pieces + [_Together(spans, layout, window) for spans in together]


def _causal_block(start, stop, window):
    first_key = max(0, start + 1 - window) if window else 0
    distance = torch.arange(start, stop)[:, None] - torch.arange(first_key, stop)
    hidden = (distance < 0) | (distance >= (window or stop))
    plain = stop - start if not window or stop <= window else stop - first_key  # only the last columns hide anything
    return _Block(start, stop, first_key, minus_infinity(hidden[:, hidden.shape[1] - plain :]))


class _BlockedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, pieces, scaling, softcap):
        ctx.pieces, ctx.scaling, ctx.softcap, whole = pieces, scaling, softcap, (query, key, value)
        dtype, (query, key, value) = query.dtype, map(_by_token, whole)
        kept, key_heads = [], key.shape[1]
        output = query.new_empty(*query.shape[:2], value.shape[-1])
        for piece in pieces:
            keys, values = piece.keys_of(key), piece.keys_of(value)
            for block in piece.blocks:
                seen = slice(block.first_key, block.stop)
                weights, slope = _attend(
                    piece.queries_of(query, block, key_heads) * scaling, keys[:, seen], block.mask, softcap
                )
                if any(ctx.needs_input_grad) and piece.tokens <= KEPT_PAIR_TOKENS:
                    kept += [weights, slope]
                piece.put(output, block, torch.bmm(weights, values[:, seen]))
        ctx.save_for_backward(*whole, *kept)  # as saved tensors, so that checkpointing drops them
        return output[None].to(dtype)

    @staticmethod
    def backward(ctx, gradient):
        saved = ctx.saved_tensors  # read once: a checkpointed layer hands them out a single time
        query, key, value = map(_by_token, saved[:3])
        kept, key_heads, dtype, gradient = iter(saved[3:]), key.shape[1], saved[0].dtype, gradient[0].to(query.dtype)
        d_query, d_key, d_value = query.new_empty(query.shape), key.new_zeros(key.shape), value.new_zeros(value.shape)
        for piece in ctx.pieces:
            keys, values = piece.keys_of(key), piece.keys_of(value)
            d_keys, d_values = torch.zeros_like(keys), torch.zeros_like(values)
            for block in piece.blocks:
                seen = slice(block.first_key, block.stop)
                queries, out = (
                    piece.queries_of(query, block, key_heads) * ctx.scaling,
                    piece.queries_of(gradient, block, key_heads),
                )
                again = piece.tokens > KEPT_PAIR_TOKENS
                weights, slope = (
                    _attend(queries, keys[:, seen], block.mask, ctx.softcap) if again else (next(kept), next(kept))
                )
                d_values[:, seen].baddbmm_(weights.transpose(1, 2), out)
                d_weights = torch.bmm(out, values[:, seen].transpose(1, 2))
                d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
                d_scores = d_scores if slope is None else d_scores * slope
                d_keys[:, seen].baddbmm_(d_scores.transpose(1, 2), queries)
                piece.put(d_query, block, torch.bmm(d_scores, keys[:, seen]) * ctx.scaling)
            piece.add_keys(d_key, d_keys)
            piece.add_keys(d_value, d_values)
        return *(rows.transpose(0, 1)[None].to(dtype) for rows in (d_query, d_key, d_value)), None, None, None


def _by_token(rows):
    """(tokens, heads, width) of one row (1, heads, tokens, width), fp32 or wider; the way it lies in memory already
    when it comes from a linear layer.
    """
    rows = rows[0].transpose(0, 1)
    return rows if rows.dtype in (torch.float32, torch.float64) else rows.float()


def _attend(queries, keys, mask, softcap):
    """(weights, slope): attention weights (batch, groups · queries, keys) in fp32 or wider, and the derivative of
    soft-capping where there is any.
    """
    scores = torch.bmm(queries, keys.transpose(1, 2))
    slope = None
    if softcap:
        scores = torch.tanh(scores / softcap)
        slope = 1 - scores * scores
        scores = scores * softcap
    count = mask.shape[-2]
    scores.view(mask.shape[0] if mask.ndim == 4 else 1, -1, count, scores.shape[-1])[..., -mask.shape[-1] :].add_(mask)
    return torch.softmax(scores, dim=-1), slope
