"""Encoded pairs -> micro-batches: which pairs go through the model together, and as which tensors.

A packed row is [S | P C R | P C R …]: no padding, each pair's prompt once, the position ids of both answers starting
after it. S is what all prompts of the row begin with, such as the system turn of a chat template. The plan is
deterministic, and the pairs of an optimizer step do not depend on it.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from ..encode.tokens import EncodedPair

#: A padded row joins a block of longer rows only when it fills at least this share of their width.
LEAST_FILLED = 0.85
#: A common beginning of fewer tokens than this stays with the pairs.
LEAST_SHARED = 4


@dataclass(frozen=True)
class RowPolicy:
    """In which rows a model may be given pairs; `attention.row_policy` decides it.

    shared: packed rows with shared prompts; otherwise one sequence per row, padded on the right.
    longest: a pair with a longer sequence (tokens) goes through alone, each sequence in a row of its own.
    reason: a sentence why prompts are not shared, or empty.
    backend: the attention over packed rows; "auto" is the fastest for the device, "dense" the oracle.
    """

    shared: bool
    longest: int | None = None
    reason: str = ""
    backend: str = "auto"

    def shares(self, pair: EncodedPair) -> bool:
        """Whether this pair's prompt goes through the model once."""
        return self.shared and not self.alone(pair)

    def alone(self, pair: EncodedPair) -> bool:
        """Whether this pair's sequences must not be in a batch with others."""
        longest_sequence = len(pair.prompt_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids))
        return self.longest is not None and longest_sequence > self.longest

    def tokens(self, pair: EncodedPair) -> int:
        """Tokens that go through the model for this pair, padding not counted."""
        return pair.tokens(self.shares(pair))

    def count(self, lengths) -> np.ndarray:
        """`tokens` of many pairs, (pairs,), from their lengths of prompt, chosen and rejected answer, (pairs, 3)."""
        prompt, chosen, rejected = lengths.T
        prompt_shared = np.full(len(lengths), self.shared)
        if self.longest is not None:
            prompt_shared &= prompt + np.maximum(chosen, rejected) <= self.longest
        return lengths.sum(axis=1) + np.where(prompt_shared, 0, prompt)


@dataclass(frozen=True)
class Span:
    """One pair in a packed row: its first index, and the tokens of its prompt (without the row's S) and its answers."""

    start: int
    prompt: int
    chosen: int
    rejected: int

    @property
    def tokens(self) -> int:
        return self.prompt + self.chosen + self.rejected

    @property
    def second(self) -> int:
        """Index in the row where the rejected answer starts."""
        return self.start + self.prompt + self.chosen


@dataclass(frozen=True)
class Layout:
    """The pairs of a packed row. It reaches the attention as an argument of the forward pass, never as a global.

    shared: tokens at the row's start that every pair's prompt begins with (S).
    prepared: what a backend computes from the layout (index maps, masks), once per row instead of once per layer.
    """

    spans: tuple[Span, ...]
    shared: int = 0
    backend: str = "auto"
    prepared: dict = field(default_factory=dict, compare=False, repr=False)

    @property
    def tokens(self) -> int:
        return self.shared + sum(span.tokens for span in self.spans)

    def alone(self, span: Span) -> "Layout":
        """The layout of a row with this pair only, S before it."""
        return Layout((Span(self.shared, span.prompt, span.chosen, span.rejected),), self.shared)

    def places(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(pair, branch, position) of every token, each (tokens,).

        pair: −1 for S. branch: 0 in the prompt, 1 in the chosen, 2 in the rejected answer.
        """
        pair, branch = [torch.full((self.shared,), -1)], [torch.zeros(self.shared, dtype=torch.long)]
        position = [torch.arange(self.shared)]
        for index, span in enumerate(self.spans):
            prompt = self.shared + span.prompt
            pair.append(torch.full((span.tokens,), index))
            branch.append(torch.arange(3).repeat_interleave(torch.tensor([span.prompt, span.chosen, span.rejected])))
            position += [torch.arange(self.shared, prompt + span.chosen), torch.arange(prompt, prompt + span.rejected)]
        return torch.cat(pair), torch.cat(branch), torch.cat(position)


def visible(layout: Layout, window: int | None = None) -> torch.Tensor:
    """(tokens, tokens), True where the token of the row attends to the token of the column."""
    pair, branch, position = layout.places()
    same = (pair < 0) | ((pair[:, None] == pair) & ((branch == 0) | (branch[:, None] == branch)))
    distance = position[:, None] - position
    return same & (distance >= 0) & (distance < (window or layout.tokens))


def dense_attention(query, key, value, allowed, scaling, softcap=None) -> torch.Tensor:
    """Attention written out, (rows, tokens, heads, head_dim): the oracle for every backend.

    allowed: (…, queries, keys), True where a query attends to a key.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * scaling
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
    weights = torch.softmax(scores.to(wide).masked_fill(~allowed, torch.finfo(wide).min), dim=-1)
    return (weights.to(value.dtype) @ value).transpose(1, 2)


def minus_infinity(hidden: torch.Tensor) -> torch.Tensor:
    """The additive attention mask, fp32: −inf where hidden, else 0."""
    return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, float("-inf"))


@dataclass(frozen=True)
class Block:
    """Rows that go through the model together: one packed row, or right-padded rows of similar length.

    input_ids: (rows, longest).
    predicting: (scored tokens,), flat positions in the rows whose hidden state predicts a scored token.
    targets: (scored tokens,), the ids they should predict.
    sequence: (scored tokens,), the sequence of the micro-batch that each belongs to.
    A packed row (1, tokens) has position_ids and a layout. Padded rows need neither: under causal attention no real
    token attends to the padding on its right.
    """

    input_ids: torch.Tensor
    predicting: torch.Tensor
    targets: torch.Tensor
    sequence: torch.Tensor
    position_ids: torch.Tensor | None = None
    layout: Layout | None = None

    def to(self, device) -> "Block":
        tensors = (self.input_ids, self.predicting, self.targets, self.sequence, self.position_ids)
        return Block(
            *(None if tensor is None else tensor.to(device, non_blocking=True) for tensor in tensors),
            layout=self.layout,
        )


@dataclass(frozen=True)
class Microbatch:
    """Some pairs as blocks of rows. Sequence i is the chosen answer of pair i, sequence i + pairs its rejected one."""

    pair_ids: list[str]
    blocks: list[Block]

    @property
    def tokens(self) -> int:
        """Tokens that go through the model, padding included."""
        return sum(block.input_ids.numel() for block in self.blocks)

    def to(self, device) -> "Microbatch":
        return Microbatch(self.pair_ids, [block.to(device) for block in self.blocks])


def plan(pairs, max_tokens: int, policy: RowPolicy, ranks: int = 1) -> list[list[list[EncodedPair]]]:
    """For every rank its micro-batches, each a list of pairs within `max_tokens`.

    A pair that is larger gets a micro-batch of its own. Every rank gets the same number of micro-batches; with too few
    pairs some are empty. Pairs of similar length come together, and ranks have similar loads at the same time. The
    order of `pairs` does not matter.
    """
    groups, used = [], 0
    for pair in sorted(pairs, key=lambda pair: (policy.tokens(pair), pair.pair_id), reverse=True):
        tokens = _most_tokens(pair, policy)
        if groups and used + tokens <= max_tokens:
            groups[-1].append(pair)
            used += tokens
        else:
            groups.append([pair])
            used = tokens
    while len(groups) % ranks:
        largest = max(groups, key=len)  # the first of the largest ones
        half = (len(largest) + 1) // 2
        groups[groups.index(largest)] = largest[:half]
        groups.append(largest[half:])
    groups.sort(key=lambda group: sum(map(policy.tokens, group)), reverse=True)
    return [groups[rank::ranks] for rank in range(ranks)]


def collate(pairs, policy: RowPolicy) -> Microbatch:
    """One micro-batch of the given encoded pairs, on the CPU."""
    packed = [(index, pair) for index, pair in enumerate(pairs) if policy.shares(pair)]
    packed.sort(key=lambda item: item[1].tokens(True), reverse=True)
    unshared = [(index, pair) for index, pair in enumerate(pairs) if not policy.shares(pair)]
    blocks = [_packed_row(packed, len(pairs), policy.backend)] if packed else []
    blocks += [_padded_block(rows) for rows in _similar_rows(unshared, len(pairs), policy)]
    return Microbatch([pair.pair_id for pair in pairs], blocks)


def _packed_row(indexed, pairs, backend):
    shared = _common_beginning([pair for _, pair in indexed])
    ids, predicting, targets, sequence, spans = indexed[0][1].prompt_ids[:shared], [], [], [], []
    for index, pair in indexed:
        span = Span(len(ids), len(pair.prompt_ids) - shared, len(pair.chosen_ids), len(pair.rejected_ids))
        spans.append(span)
        ids += pair.prompt_ids[shared:] + pair.chosen_ids + pair.rejected_ids
        first = span.start + span.prompt
        # the last prompt token predicts the first token of both answers, each answer token the next of its own answer
        predicting += [first - 1, *range(first, first + span.chosen - 1)]
        predicting += [first - 1, *range(span.second, span.second + span.rejected - 1)]
        targets += pair.chosen_ids + pair.rejected_ids
        sequence += [index] * span.chosen + [index + pairs] * span.rejected
    layout = Layout(tuple(spans), shared, backend)
    return Block(
        torch.tensor([ids]),
        torch.tensor(predicting),
        torch.tensor(targets),
        torch.tensor(sequence),
        layout.places()[2][None],
        layout,
    )


def _common_beginning(pairs):
    """Number of tokens that all prompts begin with, without the last token of any prompt.

    Each pair keeps that last token, because it predicts the first tokens of the answers.
    """
    if len(pairs) == 1:
        return 0
    prompts = [pair.prompt_ids for pair in pairs]
    # all prompts share what the first and the last of them in order share
    equal = [first == last for first, last in zip(min(prompts), max(prompts), strict=False)]
    shared = min([*equal, False].index(False), *(len(prompt) - 1 for prompt in prompts))
    return shared if shared >= LEAST_SHARED else 0


def _similar_rows(indexed, pairs, policy):
    """Rows (ids, prompt tokens, sequence) in blocks of similar length."""
    rows = [
        (pair.prompt_ids + answer, len(pair.prompt_ids), index + side, policy.alone(pair))
        for index, pair in indexed
        for side, answer in ((0, pair.chosen_ids), (pairs, pair.rejected_ids))
    ]
    blocks, closed = [], True
    for ids, prompt, sequence, alone in sorted(rows, key=lambda row: len(row[0]), reverse=True):
        if alone or closed or len(ids) < LEAST_FILLED * len(blocks[-1][0][0]):
            blocks.append([])
        blocks[-1].append((ids, prompt, sequence))
        closed = alone
    return blocks


def _padded_block(rows):
    width = len(rows[0][0])
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    predicting, targets, sequences = [], [], []
    for row, (ids, prompt, sequence) in enumerate(rows):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        predicting += range(row * width + prompt - 1, row * width + len(ids) - 1)
        targets += ids[prompt:]
        sequences += [sequence] * (len(ids) - prompt)
    return Block(input_ids, torch.tensor(predicting), torch.tensor(targets), torch.tensor(sequences))


def _most_tokens(pair, policy):
    """Tokens of a pair's rows at most: nothing shared with other pairs, and the most padding that a block allows."""
    return pair.tokens(True) if policy.shares(pair) else int(pair.tokens(False) / LEAST_FILLED) + 1
