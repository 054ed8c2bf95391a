"""Packed-row attention for the CPU: batched matrix products over blocks of queries.

Grouped query heads are stacked against their one key head, so keys and values are never repeated. Backward computes the
attention weights of long pairs again; those of other pairs are kept.
"""

from dataclasses import dataclass

import torch

from .packing import Layout, Span, minus_infinity, visible

#: Queries of a long pair in one product. At 900 tokens a pair on 2 cores, 64 was fastest; 128 took 1.5 times as long.
QUERIES_PER_BLOCK = 64
#: Pairs up to this length go through together, padded to the longest of them; longer ones block by block, so that what
#: causality hides is not computed.
SHORT_PAIR_TOKENS = 256
#: Attention weights of pairs up to this length are kept for backward. At 950 tokens a pair it saves 5 % of a step's
#: time and takes a quarter more memory.
KEPT_PAIR_TOKENS = 1536
#: A pair joins others only when it fills at least this share of their width.
LEAST_FILLED = 0.75


def attention(query, key, value, layout: Layout, scaling, window, softcap) -> torch.Tensor:
    """Attention over a packed row, (1, tokens, heads, head_dim); arguments as in `attention.packed_attention`."""
    prepared_as = ("blocked", window)
    if prepared_as not in layout.prepared:
        layout.prepared[prepared_as] = _pieces(layout, window)
    return _BlockedAttention.apply(query, key, value, layout.prepared[prepared_as], scaling, softcap)


@dataclass(frozen=True, eq=False)
class _Block:
    """Queries start … stop of a piece against its keys first_key … stop.

    mask: added to the scores of the last columns, −inf where a query may not attend to a key.
    """

    start: int
    stop: int
    first_key: int
    mask: torch.Tensor


class _Sequence:
    """The queries of one sequence [S], [S P C] or [S P R], from its position `first` on, block by block.

    keys: slices of the row; the queries end where they end.
    """

    def __init__(self, keys: tuple[slice, ...], first: int, length: int, window: int | None):
        self.tokens, self.keys = length, keys
        # index of a query in the row = its position in the sequence + offset
        self.offset = keys[-1].stop - length
        self.blocks = [
            _causal_block(start, min(start + QUERIES_PER_BLOCK, length), window)
            for start in range(first, length, QUERIES_PER_BLOCK)
        ]

    def keys_of(self, rows):
        """(key heads, keys, width) out of rows (tokens, key heads, width)."""
        return torch.cat([rows[part] for part in self.keys]).transpose(0, 1).contiguous()

    def add_keys(self, rows, part):
        start = 0
        for keys in self.keys:
            count = keys.stop - keys.start
            rows[keys] += part[:, start : start + count].transpose(0, 1)
            start += count

    def queries_of(self, rows, block, key_heads):
        """(key heads, groups · queries, width) out of rows (tokens, heads, width)."""
        return self._rows_of(rows, block).transpose(0, 1).reshape(key_heads, -1, rows.shape[-1])

    def put(self, rows, block, part):
        """Write the results of the block's queries into rows (tokens, heads, width)."""
        queries = self._rows_of(rows, block)
        queries.copy_(part.view(rows.shape[1], len(queries), -1).transpose(0, 1))

    def _rows_of(self, rows, block):
        return rows[block.start + self.offset : block.stop + self.offset]


class _Together:
    """Short pairs as a batch, padded to the longest of them, in one block."""

    def __init__(self, spans: list[Span], layout: Layout, window: int | None):
        shared, width = layout.shared, spans[0].tokens
        self.pairs, self.tokens = len(spans), shared + width
        offsets = torch.arange(width)
        starts = torch.tensor([span.start for span in spans])[:, None]
        real = offsets < torch.tensor([span.tokens for span in spans])[:, None]
        queries = torch.where(real, starts + offsets, starts)  # padding repeats a pair's first token
        beginning = torch.arange(shared).expand(self.pairs, -1)
        self.queries = _Places(queries, real)
        self.keys = _Places(torch.cat([beginning, queries], dim=1), torch.cat([beginning >= 0, real], dim=1))
        mask = torch.full((self.pairs, 1, width, shared + width), float("-inf"))
        for index, span in enumerate(spans):
            mask[index, 0, :, shared:].fill_diagonal_(0.0)  # padding attends to itself only
            hidden = ~visible(layout.alone(span), window)[shared:]
            mask[index, 0, : span.tokens, : shared + span.tokens] = minus_infinity(hidden)
        self.blocks = [_Block(0, shared + width, 0, mask)]

    def keys_of(self, rows):
        return self._as_batch(rows, self.keys, rows.shape[1])

    def add_keys(self, rows, part):
        rows.index_add_(0, self.keys.real_rows, self._as_row(part, self.keys, rows))

    def queries_of(self, rows, block, key_heads):
        return self._as_batch(rows, self.queries, key_heads)

    def put(self, rows, block, part):
        rows.index_copy_(0, self.queries.real_rows, self._as_row(part, self.queries, rows))

    def _as_batch(self, rows, places, key_heads):
        """(pairs · key heads, groups · longest, width) out of rows (tokens, heads, width)."""
        picked = rows.flatten(1).index_select(0, places.rows).view(self.pairs, -1, *rows.shape[1:])
        return picked.transpose(1, 2).reshape(self.pairs * key_heads, -1, rows.shape[-1])

    def _as_row(self, part, places, rows):
        """The tokens of a batch that are not padding, (tokens, heads, width)."""
        return (
            part.view(self.pairs, rows.shape[1], -1, rows.shape[2])
            .transpose(1, 2)
            .reshape(-1, rows.shape[1] * rows.shape[2])
            .index_select(0, places.real)
            .view(-1, *rows.shape[1:])
        )


class _Places:
    """Indices in the row of a batch of tokens, (pairs, longest), and which of them are not padding."""

    def __init__(self, rows, real):
        self.rows, self.real = rows.flatten(), real.flatten().nonzero()[:, 0]
        self.real_rows = self.rows[self.real]


def _pieces(layout, window):
    """The row as _Sequences of long pairs (and S) and _Togethers of short ones."""
    beginning = slice(0, layout.shared)
    pieces, together = [], []
    if layout.shared:
        pieces.append(_Sequence((beginning,), 0, layout.shared, window))
    for span in sorted(layout.spans, key=lambda span: span.tokens, reverse=True):
        if layout.shared + span.tokens > SHORT_PAIR_TOKENS:
            prompt, prompt_end = slice(span.start, span.start + span.prompt), layout.shared + span.prompt
            first_answer = slice(span.start, span.second)  # with its prompt
            second_answer = slice(span.second, span.start + span.tokens)
            pieces += [
                _Sequence((beginning, first_answer), layout.shared, prompt_end + span.chosen, window),
                _Sequence((beginning, prompt, second_answer), prompt_end, prompt_end + span.rejected, window),
            ]
        elif together and span.tokens >= LEAST_FILLED * together[-1][0].tokens:
            together[-1].append(span)
        else:
            together.append([span])
    return pieces + [_Together(spans, layout, window) for spans in together]


def _causal_block(start, stop, window):
    first_key = max(0, start + 1 - window) if window else 0
    distance = torch.arange(start, stop)[:, None] - torch.arange(first_key, stop)
    hidden = (distance < 0) | (distance >= (window or stop))
    # where no window cuts anything off, only the last columns hide anything
    masked = stop - start if not window or stop <= window else stop - first_key
    return _Block(start, stop, first_key, minus_infinity(hidden[:, hidden.shape[1] - masked :]))


class _BlockedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, pieces, scaling, softcap):
        ctx.pieces, ctx.scaling, ctx.softcap, whole = pieces, scaling, softcap, (query, key, value)
        dtype, (query, key, value) = query.dtype, map(_by_token, whole)
        kept_weights, key_heads = [], key.shape[1]
        output = query.new_empty(*query.shape[:2], value.shape[-1])
        for piece in pieces:
            keys, values = piece.keys_of(key), piece.keys_of(value)
            for block in piece.blocks:
                seen = slice(block.first_key, block.stop)
                queries = piece.queries_of(query, block, key_heads) * scaling
                weights, slope = _attend(queries, keys[:, seen], block.mask, softcap)
                if any(ctx.needs_input_grad) and piece.tokens <= KEPT_PAIR_TOKENS:
                    kept_weights += [weights, slope]
                piece.put(output, block, torch.bmm(weights, values[:, seen]))
        ctx.save_for_backward(*whole, *kept_weights)  # saved tensors, because checkpointing drops only these
        return output[None].to(dtype)

    @staticmethod
    def backward(ctx, gradient):
        saved = ctx.saved_tensors  # read once: a checkpointed layer returns them a single time
        query, key, value = map(_by_token, saved[:3])
        kept_weights, key_heads, dtype, gradient = (
            iter(saved[3:]),
            key.shape[1],
            saved[0].dtype,
            gradient[0].to(query.dtype),
        )
        d_query, d_key, d_value = query.new_empty(query.shape), key.new_zeros(key.shape), value.new_zeros(value.shape)
        for piece in ctx.pieces:
            keys, values = piece.keys_of(key), piece.keys_of(value)
            d_keys, d_values = torch.zeros_like(keys), torch.zeros_like(values)
            for block in piece.blocks:
                seen = slice(block.first_key, block.stop)
                queries = piece.queries_of(query, block, key_heads) * ctx.scaling
                d_output = piece.queries_of(gradient, block, key_heads)
                if piece.tokens > KEPT_PAIR_TOKENS:
                    weights, slope = _attend(queries, keys[:, seen], block.mask, ctx.softcap)
                else:
                    weights, slope = next(kept_weights), next(kept_weights)
                d_values[:, seen].baddbmm_(weights.transpose(1, 2), d_output)
                d_weights = torch.bmm(d_output, values[:, seen].transpose(1, 2))
                d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
                d_scores = d_scores if slope is None else d_scores * slope
                d_keys[:, seen].baddbmm_(d_scores.transpose(1, 2), queries)
                piece.put(d_query, block, torch.bmm(d_scores, keys[:, seen]) * ctx.scaling)
            piece.add_keys(d_key, d_keys)
            piece.add_keys(d_value, d_values)
        return *(rows.transpose(0, 1)[None].to(dtype) for rows in (d_query, d_key, d_value)), None, None, None


def _by_token(rows):
    """(tokens, heads, width) of one row (1, heads, tokens, width), fp32 or wider.

    The output of a linear layer is laid out in this order already.
    """
    rows = rows[0].transpose(0, 1)
    return rows if rows.dtype in (torch.float32, torch.float64) else rows.float()


def _attend(queries, keys, mask, softcap):
    """(weights, slope): attention weights (batch, groups · queries, keys); the derivative of soft-capping, or None."""
    scores = torch.bmm(queries, keys.transpose(1, 2))
    slope = None
    if softcap:
        scores = torch.tanh(scores / softcap)
        slope = 1 - scores * scores
        scores = scores * softcap
    count = mask.shape[-2]
    scores.view(mask.shape[0] if mask.ndim == 4 else 1, -1, count, scores.shape[-1])[..., -mask.shape[-1] :].add_(mask)
    return torch.softmax(scores, dim=-1), slope
