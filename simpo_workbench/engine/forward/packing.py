"""Encoded pairs -> micro-batches: which pairs go through the model together, and the tensors they go in as.

A packed row is [S | P C R | P C R …]: no padding, each pair's prompt once, position ids of both answers beginning
behind it. S is what all prompts of the row begin with, such as the system turn of a chat template. The plan is
deterministic and the set of pairs behind an optimizer step does not depend on it.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from ..encode.tokens import EncodedPair

#: A padded row joins a block of longer rows only when it fills at least this share of their width; else it opens a new
#: block.
LEAST_FILLED = 0.85
#: A common beginning of fewer tokens than this is left to the pairs.
LEAST_SHARED = 4


@dataclass(frozen=True)
class RowPolicy:
    """How a model may be fed: `engine.attention.row_policy` decides it.

    shared: packed rows with shared prompts; otherwise one sequence per row, padded on the right. longest: a pair with a
    longer sequence (tokens) goes through alone, each sequence in a row of its own. reason: why prompts are not shared,
    in words; else empty.
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
        """Whether this pair's sequences must not stand beside others."""
        return (
            self.longest is not None
            and pair.tokens(True) - min(len(pair.chosen_ids), len(pair.rejected_ids)) > self.longest
        )

    def tokens(self, pair: EncodedPair) -> int:
        """Tokens that go through the model for this pair, padding not counted."""
        return pair.tokens(self.shares(pair))

    def count(self, lengths) -> np.ndarray:
        """`tokens` of many pairs, (pairs,), from their lengths of prompt, chosen and rejected answer, (pairs, 3)."""
        prompt, chosen, rejected = lengths.T
        once = self.shared & (
            (prompt + np.maximum(chosen, rejected) <= self.longest)
            if self.longest is not None
            else np.ones(len(lengths), dtype=bool)
        )
        return lengths.sum(axis=1) + np.where(once, 0, prompt)


@dataclass(frozen=True)
class Span:
    """One pair in a packed row: where it starts, and how many tokens its prompt (without the row's common beginning)
    and answers have.
    """

    start: int
    prompt: int
    chosen: int
    rejected: int

    @property
    def tokens(self):
        return self.prompt + self.chosen + self.rejected

    @property
    def second(self):
        """Where the rejected answer starts in the row."""
        return self.start + self.prompt + self.chosen


@dataclass(frozen=True)
class Layout:
    """The pairs of a packed row. It travels to the attention functions as an argument of the model's forward pass,
    never as a global.

    shared: tokens at the row's start that every pair's prompt begins with. `prepared` keeps what a backend computes
    from the layout (index maps, masks), once per row instead of once per layer.
    """

    spans: tuple[Span, ...]
    shared: int = 0
    backend: str = "auto"
    prepared: dict = field(default_factory=dict, compare=False, repr=False)

    @property
    def tokens(self):
        return self.shared + sum(span.tokens for span in self.spans)

    def alone(self, span: Span) -> "Layout":
        """This pair in a row of its own, the common beginning before it."""
        return Layout((Span(self.shared, span.prompt, span.chosen, span.rejected),), self.shared)

    def places(self):
        """(pair, branch, position) of every token, each (tokens,): branch 0 is the prompt, 1 the chosen and 2 the
        rejected answer.

        The common beginning belongs to pair −1.
        """
        pair, branch, position = (
            [torch.full((self.shared,), -1)],
            [torch.zeros(self.shared, dtype=torch.long)],
            [torch.arange(self.shared)],
        )
        for index, span in enumerate(self.spans):
            prompt = self.shared + span.prompt
            pair.append(torch.full((span.tokens,), index))
            branch.append(torch.arange(3).repeat_interleave(torch.tensor([span.prompt, span.chosen, span.rejected])))
            position += [torch.arange(self.shared, prompt + span.chosen), torch.arange(prompt, prompt + span.rejected)]
        return torch.cat(pair), torch.cat(branch), torch.cat(position)


def visible(layout: Layout, window: int | None = None) -> torch.Tensor:
    """(tokens, tokens), True where the token of the row may look at the token of the column."""
    pair, branch, position = layout.places()
    same = (pair < 0) | ((pair[:, None] == pair) & ((branch == 0) | (branch[:, None] == branch)))
    distance = position[:, None] - position
    return same & (distance >= 0) & (distance < (window or layout.tokens))


def dense_attention(query, key, value, allowed, scaling, softcap=None):
    """Attention written out, (rows, tokens, heads, head_dim): the oracle for every backend. allowed: (…, queries,
    keys), True where a query may look.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * scaling
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
    weights = torch.softmax(scores.to(wide).masked_fill(~allowed, torch.finfo(wide).min), dim=-1)
    return (weights.to(value.dtype) @ value).transpose(1, 2)


def minus_infinity(hidden: torch.Tensor) -> torch.Tensor:
    """What attention adds to its scores, fp32: −inf where hidden, else 0."""
    return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, float("-inf"))


@dataclass(frozen=True)
class Block:
    """Rows that go through the model together: one packed row, or right-padded rows of similar length.

    input_ids: (rows, longest). predicting: (scored tokens,) flat positions in the rows whose hidden state predicts a
    scored token;
    targets: (scored tokens,) the ids they should predict; sequence: (scored tokens,) the sequence of the micro-batch
    each belongs to. A packed row (1, tokens) brings position_ids and a layout. Padded rows need neither: under causal
    attention no real token sees the padding on its right.
    """

    input_ids: torch.Tensor
    predicting: torch.Tensor
    targets: torch.Tensor
    sequence: torch.Tensor
    position_ids: torch.Tensor | None = None
    layout: Layout | None = None

    def to(self, device):
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
    def tokens(self):
        """Tokens that go through the model, padding included."""
        return sum(block.input_ids.numel() for block in self.blocks)

    def to(self, device):
        return Microbatch(self.pair_ids, [block.to(device) for block in self.blocks])


def plan(pairs, max_tokens: int, policy: RowPolicy, ranks: int = 1) -> list[list[list[EncodedPair]]]:
    """For every rank its micro-batches, each a list of pairs within `max_tokens` (a pair that alone is larger gets one
    of its own).

    Every rank gets the same number; where there are fewer pairs than that, some are empty. Similar lengths come
    together, and similar loads at the same time on all ranks. A function of the set of pairs alone, whatever their
    order.
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
    indexed = list(enumerate(pairs))
    packed = sorted(
        (one for one in indexed if policy.shares(one[1])), key=lambda one: one[1].tokens(True), reverse=True
    )
    blocks = [_packed_row(packed, len(pairs), policy.backend)] if packed else []
    for padded in _similar_rows([one for one in indexed if not policy.shares(one[1])], len(pairs), policy):
        blocks.append(_padded_block(padded))
    return Microbatch([pair.pair_id for pair in pairs], blocks)


def _packed_row(indexed, pairs, backend):
    shared = _common_beginning([pair for _, pair in indexed])
    ids, predicting, targets, sequence, spans = indexed[0][1].prompt_ids[:shared], [], [], [], []
    for index, pair in indexed:
        span = Span(len(ids), len(pair.prompt_ids) - shared, len(pair.chosen_ids), len(pair.rejected_ids))
        spans.append(span)
        ids += pair.prompt_ids[shared:] + pair.chosen_ids + pair.rejected_ids
        first = span.start + span.prompt
        # the last prompt token predicts the first token of either answer, each answer token the next one of its own
        # answer
        predicting += [
            first - 1,
            *range(first, first + span.chosen - 1),
            first - 1,
            *range(span.second, span.second + span.rejected - 1),
        ]
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
    """Tokens that all prompts begin with.

    Each pair keeps the last of its prompt: that one predicts its answers' first tokens.
    """
    if len(pairs) == 1:
        return 0
    prompts = [pair.prompt_ids for pair in pairs]
    alike = [
        one == other for one, other in zip(min(prompts), max(prompts), strict=False)
    ]  # what the first and the last in order share, all share
    shared = min([*alike, False].index(False), *(len(prompt) - 1 for prompt in prompts))
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
    for place, (ids, prompt, sequence) in enumerate(rows):
        input_ids[place, : len(ids)] = torch.tensor(ids)
        predicting += range(place * width + prompt - 1, place * width + len(ids) - 1)
        targets += ids[prompt:]
        sequences += [sequence] * (len(ids) - prompt)
    return Block(input_ids, torch.tensor(predicting), torch.tensor(targets), torch.tensor(sequences))


def _most_tokens(pair, policy):
    """Tokens of a pair's rows where it shares nothing with others, in padded rows with the most padding that a block
    may hold.
    """
    return pair.tokens(True) if policy.shares(pair) else int(pair.tokens(False) / LEAST_FILLED) + 1
