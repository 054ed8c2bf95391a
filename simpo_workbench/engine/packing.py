"""Encoded pairs -> micro-batches: which pairs go through the model together, and the tensors they go in as.

The plan is deterministic and the set of pairs behind an optimizer step does not depend on it.
"""

from dataclasses import dataclass

import torch

#: Tokens of one micro-batch under "auto": keeps the logits of an ordinary vocabulary within a few gigabytes.
AUTO_TOKENS_PER_MICROBATCH = 2048


@dataclass(frozen=True)
class Microbatch:
    """Right-padded rows: first all chosen, then all rejected sequences of the same pairs, in the same order.

    input_ids: (2·pairs, longest). predicting: (scored tokens,) flat positions in the rows whose hidden state predicts a scored token;
    targets: (scored tokens,) the ids they should predict; sequence: (scored tokens,) the row each belongs to.
    Under a causal mask no real token sees the padding on its right, so the rows need no attention mask.
    """

    pair_ids: list[str]
    input_ids: torch.Tensor
    predicting: torch.Tensor
    targets: torch.Tensor
    sequence: torch.Tensor

    @property
    def tokens(self):
        return self.input_ids.numel()

    def to(self, device):
        tensors = (self.input_ids, self.predicting, self.targets, self.sequence)
        return Microbatch(self.pair_ids, *(tensor.to(device, non_blocking=True) for tensor in tensors))


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
    width = max(len(prompt) + len(response) for prompt, response in rows)
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    predicting, targets, sequence = [], [], []
    for index, (prompt, response) in enumerate(rows):
        input_ids[index, : len(prompt) + len(response)] = torch.tensor(prompt + response)
        first = index * width + len(prompt) - 1  # the last prompt token predicts the first response token
        predicting += range(first, first + len(response))
        targets += response
        sequence += [index] * len(response)
    return Microbatch([pair.pair_id for pair in pairs], input_ids, torch.tensor(predicting), torch.tensor(targets), torch.tensor(sequence))


def _longest_row(pair):
    return len(pair.prompt_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids))
