"""One pair, token by token: the log-probability of every scored token."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from ..config.run_config import DataConfig
from .encode import pair_tokens
from .encode.tokens import ChatEncoder, EncodedPair
from .forward.attention import row_policy
from .forward.logprobs import PackedScorer
from .forward.packing import collate
from .limits import require_fitting_pairs
from .model.models import LoadedModel, weights_unpacked

if TYPE_CHECKING:
    import pandas as pd


def explain_pair(model: LoadedModel, pair, data: DataConfig | None = None) -> pd.DataFrame:
    """DataFrame with one row per scored token of both answers: side, position (from 1), token_id, token, logp (nats).

    With an adapter also base_logp. pair: a row as `wb.load_pairs` reads it, or Pairs of one. The mean of `logp` over a
    side is its average log-probability in `wb.score`. `.attrs["report"]` says why the tokens may differ from those of
    the scores: the prompt was cut, or the row's pair_id belongs to another content.
    Errors: WorkbenchError when it is not exactly one pair, or does not fit data.max_tokens.
    """
    pair = pair_tokens.single_pair(pair)
    encoded = pair_tokens.encoded_pair(ChatEncoder.of(model, data), pair)
    require_fitting_pairs(model, [encoded])
    table = pair_tokens.token_table(model.tokenizer, {"chosen": encoded.chosen_ids, "rejected": encoded.rejected_ids})
    table["logp"] = token_logps(model, encoded)
    if model.has_adapter:
        with model.base():
            table["base_logp"] = token_logps(model, encoded)
    table.attrs["report"] = " ".join(_remarks(pair, encoded))
    return table


def _remarks(pair, encoded):
    if encoded.truncated:
        yield "The prompt was cut from the left."
    pair_id = pair.extra.get("pair_id_in_file")  # the reader stores a pair_id here that is not the content's own
    if isinstance(pair_id, str) and re.fullmatch(r"[0-9a-f]{16}", pair_id):
        # a scores table holds a conversation as readable text, which the model would take for one turn
        yield (
            f"These texts are not those of the pair {pair_id}: a table of scores holds prompts of several turns as one"
            " text. Give the row of wb.load_pairs, with its messages."
        )


@torch.no_grad()
def token_logps(model: LoadedModel, encoded: EncodedPair) -> list[float]:
    """Log-probability of every scored token, chosen answer first, nats."""
    training = model.model.training
    model.model.eval()
    try:
        with weights_unpacked(model):
            scorer, logps = PackedScorer(model.model), {0: [], 1: []}
            for block in collate([encoded], row_policy(model.model)).to(model.device).blocks:
                for sequence, logp in zip(block.sequence.tolist(), scorer.token_logps(block).tolist(), strict=True):
                    logps[sequence].append(logp)
    finally:
        model.model.train(training)
    return logps[0] + logps[1]
