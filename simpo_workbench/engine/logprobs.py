"""Response log-probabilities: a micro-batch in, one summed log-probability and one token count per response out."""

from dataclasses import dataclass

import torch
from torch import nn

from .packing import Block, Microbatch


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
    """The module that Accelerate prepares: its forward pass goes through the whole wrapped model.

    Only positions that predict a response token reach the language-model head.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch: Microbatch) -> ResponseLogps:
        sequences = 2 * len(batch.pair_ids)
        token_logps = torch.cat([self.token_logps(block) for block in batch.blocks])
        sequence = torch.cat([block.sequence for block in batch.blocks])
        sums = torch.zeros(sequences, dtype=token_logps.dtype, device=token_logps.device).index_add(0, sequence, token_logps)
        counts = torch.bincount(sequence, minlength=sequences)
        pairs = len(batch.pair_ids)
        return ResponseLogps(sums[:pairs], sums[pairs:], counts[:pairs], counts[pairs:])

    def token_logps(self, block: Block) -> torch.Tensor:
        """Log-probability of every scored token of a block, (scored tokens,), nats, fp32 or wider."""
        with _only_positions(self.model.get_output_embeddings(), block.predicting):
            mask = None if block.attention_mask is None else _additive(block.attention_mask, self.model.dtype)
            logits = self.model(input_ids=block.input_ids, position_ids=block.position_ids, attention_mask=mask, use_cache=False).logits
        logits = logits.reshape(len(block.targets), -1)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return torch.log_softmax(logits, dim=-1).gather(1, block.targets[:, None])[:, 0]


#: Decoder-only models whose every layer is plain attention over the whole row, so that both answers may share one prompt.
#: By name: a hybrid model reaches the attention function as well, and would mix the answers without a word.
SHARING_MODELS = ("llama", "qwen2", "qwen3", "mistral", "gemma", "granite", "olmo2", "smollm3", "starcoder2", "phi")


def can_share_prompts(model) -> bool:
    """Whether rows [P C R] give this model the same log-probabilities as [P C] and [P R]; otherwise the prompt goes through it twice."""
    config = model.config.get_text_config()
    layer_types = set(getattr(config, "layer_types", None) or ["full_attention"])
    sliding = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    return config.model_type in SHARING_MODELS and layer_types == {"full_attention"} and not sliding and config._attn_implementation in ("sdpa", "eager")


def _additive(mask, dtype):
    """A mask of what may be seen as the values that attention adds: 0 and the least number of the dtype."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


class _only_positions:
    """While active, the head sees the given flat positions only, so that no logits of prompt or padding are ever computed.

    The model's own forward keeps its soft-capping and logit scale, which come after the head.
    """

    def __init__(self, head, positions):
        self.head, self.positions = head, positions

    def __enter__(self):
        def gather(module, arguments):
            hidden = arguments[0]
            return (hidden.reshape(-1, hidden.shape[-1])[self.positions][None], *arguments[1:])

        self.hook = self.head.register_forward_pre_hook(gather)

    def __exit__(self, *_):
        self.hook.remove()
