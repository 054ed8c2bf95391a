"""Encoded pairs -> micro-batches: which pairs go through the model together, and the tensors they go in as.

The plan is deterministic and the set of pairs behind an optimizer step does not depend on it.
"""

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
    Under a causal mask no real token sees the padding on its right, so the rows need no attention mask.
    """

    input_ids: torch.Tensor
    predicting: torch.Tensor
    targets: torch.Tensor
    sequence: torch.Tensor

    def to(self, device):
        return Block(*(tensor.to(device, non_blocking=True) for tensor in (self.input_ids, self.predicting, self.targets, self.sequence)))


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


def plan(pairs, max_tokens) -> list[list]:
    """The pairs in groups whose padded rows stay within `max_tokens` (a pair that alone is larger gets a group of its own).

    Similar lengths come together so that little is padded; the order is a function of the pairs alone.
    """
    budget = AUTO_TOKENS_PER_MICROBATCH if max_tokens == "auto" else max_tokens
    groups, longest = [], 0
    for pair in sorted(pairs, key=lambda pair: (_longest_row(pair), pair.pair_id), reverse=True):
        if groups and 2 * longest * (len(groups[-1]) + 1) <= budget:
            groups[-1].append(pair)
        else:
            groups.append([pair])
            longest = _longest_row(pair)
    return groups


def collate(pairs) -> Microbatch:
    """One micro-batch of the given encoded pairs, on the CPU."""
    rows = [(pair.prompt_ids, pair.chosen_ids) for pair in pairs] + [(pair.prompt_ids, pair.rejected_ids) for pair in pairs]
    blocks, width = [], 0
    for index in sorted(range(len(rows)), key=lambda index: len(rows[index][0]) + len(rows[index][1]), reverse=True):
        length = len(rows[index][0]) + len(rows[index][1])
        if not blocks or length < LEAST_FILLED * width:
            blocks.append([])
            width = length
        blocks[-1].append(index)
    return Microbatch([pair.pair_id for pair in pairs], [_block(rows, indices) for indices in blocks])


def _block(rows, indices):
    width = max(len(rows[index][0]) + len(rows[index][1]) for index in indices)
    input_ids = torch.zeros(len(indices), width, dtype=torch.long)
    predicting, targets, sequence = [], [], []
    for place, index in enumerate(indices):
        prompt, response = rows[index]
        input_ids[place, : len(prompt) + len(response)] = torch.tensor(prompt + response)
        first = place * width + len(prompt) - 1  # the last prompt token predicts the first response token
        predicting += range(first, first + len(response))
        targets += response
        sequence += [index] * len(response)
    return Block(input_ids, torch.tensor(predicting), torch.tensor(targets), torch.tensor(sequence))


def _longest_row(pair):
    return len(pair.prompt_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids))
