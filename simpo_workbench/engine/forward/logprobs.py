"""Response log-probabilities: a micro-batch in, one summed log-probability and one token count per response out."""

from dataclasses import dataclass

import torch
from torch import nn

from .packing import Block, Microbatch
from .response_head import log_softmax_at, token_logps


@dataclass(frozen=True)
class ResponseLogps:
    """Summed log-probabilities (nats, fp32) and scored tokens of chosen and rejected responses, each (pairs,)."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor

    @property
    def chosen_avg(self) -> torch.Tensor:
        """Mean log-probability per scored token: the length normalization of SimPO, eq. 4."""
        return self.chosen / self.chosen_tokens

    @property
    def rejected_avg(self) -> torch.Tensor:
        return self.rejected / self.rejected_tokens


class PackedScorer(nn.Module):
    """The module that Accelerate prepares: Microbatch in, ResponseLogps out.

    Its forward pass goes through the whole wrapped model, so that the hooks of DDP and FSDP run. Only positions that
    predict a response token reach the language-model head.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch: Microbatch) -> ResponseLogps:
        pairs = len(batch.pair_ids)
        logps = torch.cat([self.token_logps(block) for block in batch.blocks])
        sequence = torch.cat([block.sequence for block in batch.blocks])
        sums = logps.new_zeros(2 * pairs).index_add(0, sequence, logps)
        counts = torch.bincount(sequence, minlength=2 * pairs)
        return ResponseLogps(sums[:pairs], sums[pairs:], counts[:pairs], counts[pairs:])

    def token_logps(self, block: Block) -> torch.Tensor:
        """Log-probability of every scored token of a block, (scored tokens,), nats, fp32 or wider."""
        # what follows the head is known where it was proved; otherwise the model computes the logits itself
        proof = getattr(self.model, "proof", None)
        transform = proof.head if proof else None
        packed = {}
        if block.layout is not None:
            # transformers passes a mask of four dimensions on unchanged; the attention uses the layout
            mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=block.input_ids.device)
            packed = {"position_ids": block.position_ids, "layout": block.layout, "attention_mask": mask}
        with _ResponsesOnly(self.model.get_output_embeddings(), block, transform) as head:
            logits = self.model(input_ids=block.input_ids, use_cache=False, **packed).logits
        return log_softmax_at(logits[0], block.targets) if transform is None else head.logps


class _ResponsesOnly:
    """While active, the model's head gets only the positions that predict a response token.

    Where the transform after the head is known, the head is replaced by log-probabilities computed in tiles, which are
    then in `logps`, and the model's logits are empty. Otherwise the model computes the logits of those positions.
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
            self.head.forward = forward  # a head that is not a plain linear layer is called for every tile
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
