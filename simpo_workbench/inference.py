"""One call for a model wherever it lives: in this process (`wb.load_model`) or in another one (`wb.open_model`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .config.run_config import DataConfig, GenerationConfig, LossConfig
from .runs.remote import RemoteModel

if TYPE_CHECKING:
    import pandas as pd


def generate(
    model, prompts, generation: GenerationConfig | None = None, data: DataConfig | None = None, seed: int = 0
) -> pd.DataFrame:
    """One row per prompt: prompt, base, tuned, then tokens, ended and repeated_4grams of both answers.

    model: from `wb.load_model` or `wb.open_model`. prompts: texts, or lists of messages for conversations. Without an
    adapter there is only `base`. Errors: WorkbenchError for prompts that are neither texts nor messages.
    """
    if isinstance(model, RemoteModel):
        return model.generate(prompts, generation, data, seed)
    from .engine import generation as in_process

    return in_process.generate(model, prompts, generation, data, seed)


def score(
    model,
    pairs,
    loss: LossConfig | None = None,
    data: DataConfig | None = None,
    max_tokens_per_microbatch: int | None = None,
) -> pd.DataFrame:
    """One row per pair, in the order of `pairs`: texts, average log-probabilities, rewards, margin, loss and more.

    model: from `wb.load_model` or `wb.open_model`; its adapter is on. pairs: from `wb.load_pairs`. loss: β and γ/β for
    rewards and margins (default: LossConfig(); for a run that trains, its own). data: max_tokens, overlong,
    template_options and system_prompt. max_tokens_per_microbatch: tokens that go through a model of this process at
    once; it changes no number. `engine.scoring.score` lists the columns. Pairs that do not fit are left out and counted
    in `.attrs["report"]`. Errors: WorkbenchError when no pair fits data.max_tokens.
    """
    if isinstance(model, RemoteModel):
        return model.score(pairs, loss, data)
    from .engine import scoring

    return scoring.score(model, pairs, loss, data, max_tokens_per_microbatch or scoring.SCORING_TOKENS)


def explain_pair(model, pair, data: DataConfig | None = None) -> pd.DataFrame:
    """One row per scored token of both answers: side, position (from 1), token_id, token, logp (nats), base_logp.

    model: from `wb.load_model` or `wb.open_model`; without an adapter there is no base_logp. pair: a row as
    `wb.load_pairs` reads it, or Pairs of one. The mean of `logp` over a side is its average log-probability in
    `wb.score`. Errors: WorkbenchError when it is not exactly one pair, or does not fit data.max_tokens.
    """
    if isinstance(model, RemoteModel):
        return model.explain_pair(pair, data)
    from .engine import explaining

    return explaining.explain_pair(model, pair, data)


def encode_pair(model, pair, data: DataConfig | None = None) -> pd.DataFrame:
    """One row per token that the model gets for a pair: side, position (from 1), token_id, token, scored, kind.

    side: "prompt", "chosen" or "rejected". kind: "template" (what the chat template put around the prompt's texts),
    "prompt", "answer" or "end of turn". `.attrs["report"]` says whether the pair was cut.
    Errors: WorkbenchError when it is not exactly one pair, or does not fit data.max_tokens.
    """
    if isinstance(model, RemoteModel):
        return model.encode_pair(pair, data)
    from .engine.encode import pair_tokens
    from .engine.encode.template_values import values_of

    return pair_tokens.encode_pair(model.tokenizer, pair, data, values_of(model))
