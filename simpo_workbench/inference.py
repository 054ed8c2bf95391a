"""One call for a model wherever it lives: in this process (`wb.load_model`) or in another one (`wb.open_model`)."""

from __future__ import annotations

from .config.run_config import DataConfig, GenerationConfig, LossConfig
from .runs.remote import RemoteModel


def generate(model, prompts, generation: GenerationConfig | None = None, data: DataConfig | None = None, seed: int = 0):
    """DataFrame with one row per prompt: prompt, base, tuned, then tokens, ended and repeated_4grams of both.

    model: from `wb.load_model` or `wb.open_model`. prompts: texts, or lists of messages for conversations. Without an
    adapter base and tuned are the same model and only `base` is there. Errors: WorkbenchError for prompts that are
    neither text nor messages.
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
):
    """DataFrame with one row per pair, in the order of `pairs`: texts, scored tokens, average log-probabilities,
    rewards, margin, loss, gradient weight.

    model: from `wb.load_model` or `wb.open_model`; its adapter is on. pairs: from `wb.load_pairs`. loss: β and γ/β for
    rewards and margins (default: LossConfig();
    a run that trains: its own). data: max_tokens, overlong, template_options and system_prompt.
    max_tokens_per_microbatch: tokens that go through a model of this process at once; it changes no number. The columns
    are those of `engine.scoring.score`.
    Errors: WorkbenchError when no pair fits data.max_tokens; pairs that do not fit are absent and counted in
    `.attrs["report"]`.
    """
    if isinstance(model, RemoteModel):
        return model.score(pairs, loss, data)
    from .engine import scoring

    return scoring.score(model, pairs, loss, data, max_tokens_per_microbatch or scoring.SCORING_TOKENS)


def explain_pair(model, pair, data: DataConfig | None = None):
    """DataFrame with one row per scored token of both answers: side, position (from 1), token_id, token, logp (nats),
    and base_logp with an adapter.

    model: from `wb.load_model` or `wb.open_model`. pair: a row as `wb.load_pairs` reads it, or Pairs of one. The mean
    of `logp` over a side is its average log-probability in `wb.score`. Errors: WorkbenchError when it is not exactly
    one pair, or does not fit data.max_tokens.
    """
    if isinstance(model, RemoteModel):
        return model.explain_pair(pair, data)
    from .engine import explaining

    return explaining.explain_pair(model, pair, data)


def encode_pair(model, pair, data: DataConfig | None = None):
    """DataFrame with one row per token as the model sees the pair: side (prompt, chosen, rejected), position (from 1),
    token_id, token, scored, kind.

    kind: "template" (what the chat template put around the prompt's texts), "prompt", "answer" or "end of turn".
    `.attrs["report"]` says what became of the pair.
    Errors: WorkbenchError when it is not exactly one pair, or does not fit data.max_tokens.
    """
    if isinstance(model, RemoteModel):
        return model.encode_pair(pair, data)
    from .engine.encode import pair_tokens

    return pair_tokens.encode_pair(model.tokenizer, pair, data)
