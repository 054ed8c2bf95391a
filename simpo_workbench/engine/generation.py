"""Prompts -> answers, from the tuned model and from its base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig as DecodingConfig
from transformers import StoppingCriteria, StoppingCriteriaList

from ..analysis.scores import repeated_4gram_share
from ..base.errors import WorkbenchError
from ..config.run_config import DataConfig, GenerationConfig
from ..pairs.pairs import prompt_list, prompt_text
from .encode.tokens import ChatEncoder
from .model.models import LoadedModel, weights_unpacked

if TYPE_CHECKING:
    import pandas as pd

_PROMPTS_PER_BATCH = 16


@dataclass(frozen=True)
class SampledAnswer:
    """One sampled answer. tokens: without the end of turn. ended: False when it was cut at max_new_tokens."""

    text: str
    tokens: int
    ended: bool
    repeated_4grams: float


def generate(
    model: LoadedModel,
    prompts,
    generation: GenerationConfig | None = None,
    data: DataConfig | None = None,
    seed: int = 0,
    cancelled: Callable[[], bool] | None = None,
) -> pd.DataFrame:
    """DataFrame with one row per prompt: prompt, base, tuned, then tokens, ended and repeated_4grams of both.

    prompts: texts, or lists of messages for conversations. Without an adapter there are only the columns of base.
    cancelled: called before every token; once it returns True, WorkbenchError is raised.
    Errors: WorkbenchError for prompts that are neither text nor messages.
    """
    import pandas as pd

    generation = generation or GenerationConfig()
    encoder = ChatEncoder(model.tokenizer, data)
    conversations = [_as_messages(prompt) for prompt in prompt_list(prompts)]
    with model.base():
        sides = {"base": answer(model, encoder, conversations, generation, seed, cancelled)}
    if model.has_adapter:
        sides["tuned"] = answer(model, encoder, conversations, generation, seed, cancelled)
    table = pd.DataFrame({"prompt": [prompt_text(messages) for messages in conversations]})
    for side, answers in sides.items():
        table[side] = [sampled.text for sampled in answers]
    for side, answers in sides.items():
        for name in ("tokens", "ended", "repeated_4grams"):
            table[f"{side}_{name}"] = [getattr(sampled, name) for sampled in answers]
    return table


def _as_messages(prompt):
    """A prompt as messages: a text becomes one user turn."""
    if isinstance(prompt, str) and prompt.strip():
        return [{"role": "user", "content": prompt}]
    turns = prompt if isinstance(prompt, (list, tuple)) else []
    if turns and all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in turns):
        return [dict(turn) for turn in turns]
    raise WorkbenchError(f"A prompt is a text or a list of {{'role', 'content'}} messages; got {str(prompt)[:80]!r}.")


@torch.no_grad()
def answer(
    loaded: LoadedModel,
    encoder: ChatEncoder,
    conversations,
    generation: GenerationConfig,
    seed: int,
    cancelled: Callable[[], bool] | None = None,
) -> list[SampledAnswer]:
    """One answer per conversation, with the adapter that is on; the global random state is left untouched."""
    tokenizer, model = loaded.tokenizer, loaded.model
    ends = _end_ids(encoder, model)
    decoding = DecodingConfig(
        max_new_tokens=generation.max_new_tokens,
        do_sample=False,
        repetition_penalty=1.0,  # given, because what is not is taken from the model's own generation config
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
    )
    if generation.temperature > 0:
        decoding.update(do_sample=True, temperature=generation.temperature, top_p=generation.top_p, top_k=0)
    answers: list[SampledAnswer] = []
    training = model.training
    model.eval()
    devices = [loaded.device] if loaded.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), weights_unpacked(loaded):
            torch.manual_seed(seed)
            for start in range(0, len(conversations), _PROMPTS_PER_BATCH):
                batch = [encoder.prompt_ids(messages) for messages in conversations[start : start + _PROMPTS_PER_BATCH]]
                width = max(map(len, batch))
                input_ids = torch.tensor(
                    [[tokenizer.pad_token_id] * (width - len(ids)) + ids for ids in batch], device=loaded.device
                )
                mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in batch], device=loaded.device)
                out = model.generate(
                    input_ids=input_ids,
                    attention_mask=mask,
                    generation_config=decoding,
                    stopping_criteria=StoppingCriteriaList([_Cancelling(cancelled)] if cancelled else []),
                )
                answers += [_as_answer(row, ends, tokenizer) for row in out[:, width:].tolist()]
    finally:
        model.train(training)
    return answers


class _Cancelling(StoppingCriteria):
    """Ends sampling by an error once `cancelled` returns True."""

    def __init__(self, cancelled):
        self.cancelled = cancelled

    def __call__(self, input_ids, scores, **_):
        if self.cancelled():
            raise WorkbenchError("The request was cancelled.")
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def _end_ids(encoder, model):
    own_ids = model.generation_config.eos_token_id
    if not isinstance(own_ids, list):
        own_ids = [] if own_ids is None else [own_ids]
    return {encoder.end_of_turn_id, *own_ids}


def _as_answer(row, ends, tokenizer):
    ended_at = next((index for index, token in enumerate(row) if token in ends), None)
    tokens = row[:ended_at]
    return SampledAnswer(
        tokenizer.decode(tokens, skip_special_tokens=True).strip(),
        len(tokens),
        ended_at is not None,
        repeated_4gram_share(tokens),
    )
