"""Response log-probabilities: a micro-batch in, one summed log-probability and one token count per response out."""

from dataclasses import dataclass

import torch
from torch import nn

from .packing import Block, Microbatch
from .response_head import HeadTransform, log_softmax_at, token_logps


@dataclass(frozen=True)
class ResponseLogps:
    """Summed log-probabilities (nats, fp32) and scored tokens of chosen and rejected responses, each (pairs,)."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor

    @property
    def chosen_avg(self):
        """Mean log-probability per scored token: the length normalization of SimPO, eq. 4."""
        return self.chosen / self.chosen_tokens

    @property
    def rejected_avg(self):
        return self.rejected / self.rejected_tokens


class PackedScorer(nn.Module):
    """The module that Accelerate prepares: its forward pass goes through the whole wrapped model, so that hooks of DDP
    and FSDP fire.

    Only positions that predict a response token reach the language-model head.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch: Microbatch) -> ResponseLogps:
        sequences = 2 * len(batch.pair_ids)
        token_logps = torch.cat([self.token_logps(block) for block in batch.blocks])
        sequence = torch.cat([block.sequence for block in batch.blocks])
        sums = torch.zeros(sequences, dtype=token_logps.dtype, device=token_logps.device).index_add(
            0, sequence, token_logps
        )
        counts = torch.bincount(sequence, minlength=sequences)
        pairs = len(batch.pair_ids)
        return ResponseLogps(sums[:pairs], sums[pairs:], counts[:pairs], counts[pairs:])

    def token_logps(self, block: Block) -> torch.Tensor:
        """Log-probability of every scored token of a block, (scored tokens,), nats, fp32 or wider."""
        transform = HeadTransform.of(self.model.config.get_text_config())
        packed = {}
        if block.layout is not None:
            # a mask of four dimensions passes through transformers untouched; the attention goes by the layout
            mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=block.input_ids.device)
            packed = {"position_ids": block.position_ids, "layout": block.layout, "attention_mask": mask}
        with _ResponsesOnly(self.model.get_output_embeddings(), block, transform) as head:
            logits = self.model(input_ids=block.input_ids, use_cache=False, **packed).logits
        return log_softmax_at(logits[0], block.targets) if transform is None else head.logps


class _ResponsesOnly:
    """While active, the model's head is given the positions that predict a response token and nothing else.

    With a known transform behind the head, log-probabilities are computed in its place, in tiles; they then stand in
    `logps`, and the model's logits are empty. Otherwise the model computes the logits of those positions as it always
    does.
    """

    def __init__(self, head, block, transform):
        self.head, self.block, self.transform = head, block, transform
        self.logps = None

    def __enter__(self):
        forward = self.head.forward

        def responses(hidden):
            hidden = hidden.reshape(-1, hidden.shape[-1])[self.block.predicting]
            if self.transform is None:
                return forward(hidden)[None]
            self.head.forward = forward  # a head of another kind is called for every tile
            self.logps = token_logps(self.head, hidden, self.block.targets, self.transform)
            return hidden.new_empty(1, 0, 1)

        self.own = vars(self.head).get("forward")
        self.head.forward = responses
        return self

    def __exit__(self, *_):
        if self.own is None:
            vars(self.head).pop("forward", None)
        else:
            self.head.forward = self.own
