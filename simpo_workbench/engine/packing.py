"""Encoded pairs -> micro-batches: which pairs go through the model together, and the tensors they go in as.

The plan is deterministic and the set of pairs behind an optimizer step does not depend on it.
"""

import math
from dataclasses import dataclass

import torch

#: Tokens of one micro-batch under "auto": keeps the logits of an ordinary vocabulary within a few gigabytes.
AUTO_TOKENS_PER_MICROBATCH = 2048


#: A row joins a block of longer rows only when it fills at least this share of their width; else it opens a new block.
LEAST_FILLED = 0.85


@dataclass(frozen=True)
class Block:
    """Right-padded rows of similar length that go through the model together.

    input_ids: (rows, longest). predicting: (scored tokens,) flat positions in the rows whose hidden state predicts a scored token;
    targets: (scored tokens,) the ids they should predict; sequence: (scored tokens,) the sequence of the micro-batch each belongs to.
    Rows with a shared prompt [P C R] bring position_ids (rows, longest), in which both answers begin at |P|, and attention_mask
    (rows, 1, longest, longest), True where a token may look: causal, and R never sees C. Other rows need neither: under a causal mask no real
    token sees the padding on its right.
    """

    input_ids: torch.Tensor
    predicting: torch.Tensor
    targets: torch.Tensor
    sequence: torch.Tensor
    position_ids: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None

    def to(self, device):
        tensors = (self.input_ids, self.predicting, self.targets, self.sequence, self.position_ids, self.attention_mask)
        return Block(*(None if tensor is None else tensor.to(device, non_blocking=True) for tensor in tensors))


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


@dataclass(frozen=True)
class _Row:
    """One row before padding: its ids, how long its prompt is, and its answers as (sequence, first token, ids)."""

    ids: list[int]
    prompt: int
    answers: list[tuple[int, int, list[int]]]


def plan(pairs, max_tokens, share_prompts) -> list[list]:
    """The pairs in groups whose rows stay within `max_tokens` (a pair that alone is larger gets a group of its own).

    Similar lengths come together so that little is padded; the order is a function of the pairs alone.
    """
    budget = AUTO_TOKENS_PER_MICROBATCH if max_tokens == "auto" else max_tokens
    groups, used = [], 0
    for pair in sorted(pairs, key=lambda pair: (_most_tokens(pair, share_prompts), pair.pair_id), reverse=True):
        tokens = _most_tokens(pair, share_prompts)
        if groups and used + tokens <= budget:
            groups[-1].append(pair)
            used += tokens
        else:
            groups.append([pair])
            used = tokens
    return groups


def collate(pairs, share_prompts) -> Microbatch:
    """One micro-batch of the given encoded pairs, on the CPU."""
    rows = sorted(_rows(pairs, share_prompts), key=lambda row: len(row.ids), reverse=True)
    blocks, width = [], 0
    for row in rows:
        if not blocks or len(row.ids) < LEAST_FILLED * width:
            blocks.append([])
            width = len(row.ids)
        blocks[-1].append(row)
    return Microbatch([pair.pair_id for pair in pairs], [_block(block, share_prompts) for block in blocks])


def _rows(pairs, share_prompts):
    rows = []
    for index, pair in enumerate(pairs):
        prompt, chosen, rejected = pair.prompt_ids, pair.chosen_ids, pair.rejected_ids
        start, second = len(prompt), index + len(pairs)
        if share_prompts:
            rows.append(_Row(prompt + chosen + rejected, start, [(index, start, chosen), (second, start + len(chosen), rejected)]))
        else:
            rows.append(_Row(prompt + chosen, start, [(index, start, chosen)]))
            rows.append(_Row(prompt + rejected, start, [(second, start, rejected)]))
    return rows


def _block(rows, share_prompts):
    width = len(rows[0].ids)
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    predicting, targets, sequence = [], [], []
    for place, row in enumerate(rows):
        input_ids[place, : len(row.ids)] = torch.tensor(row.ids)
        for index, first, answer in row.answers:
            base = place * width
            # the last prompt token predicts the first token of either answer, each answer token the next one of its own answer
            predicting += [base + row.prompt - 1, *range(base + first, base + first + len(answer) - 1)]
            targets += answer
            sequence += [index] * len(answer)
    tensors = (input_ids, torch.tensor(predicting), torch.tensor(targets), torch.tensor(sequence))
    return Block(*tensors, *_branches(rows, width)) if share_prompts else Block(*tensors)


def _branches(rows, width):
    """(position_ids, attention_mask) of rows [P C R]."""
    position_ids = torch.arange(width).repeat(len(rows), 1)
    mask = torch.ones(width, width, dtype=torch.bool).tril().repeat(len(rows), 1, 1)
    for place, row in enumerate(rows):
        second = row.answers[1][1]
        position_ids[place, second:] = torch.arange(row.prompt, row.prompt + width - second)
        mask[place, second:, row.prompt : second] = False
    return position_ids, mask[:, None]


def _most_tokens(pair, share_prompts):
    """Tokens of a pair's rows, padding to the block's width at worst included."""
    return math.ceil(pair.tokens(share_prompts) / LEAST_FILLED)
