"""Prompts -> answers, from the tuned model and from its base."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import GenerationConfig as DecodingConfig
from transformers import StoppingCriteria, StoppingCriteriaList

from ..analysis.scores import repeated_4gram_share
from ..base.errors import WorkbenchError
from ..config.run_config import DataConfig, GenerationConfig
from ..pairs.pairs import prompt_list, prompt_text
from .encode.tokens import ChatEncoder
from .model.models import LoadedModel, weights_unpacked

_PROMPTS_PER_BATCH = 16


@dataclass(frozen=True)
class Answer:
    """One sampled answer: text, its tokens (without the end of turn), whether it ended by itself, share of repeated
    4-grams.
    """

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
):
    """DataFrame with one row per prompt: prompt, base, tuned, then tokens, ended and repeated_4grams of both.

    prompts: texts, or lists of messages for conversations. Without an adapter base and tuned are the same model and
    only `base` is there.
    cancelled: asked before every token; when it says yes, nothing comes back but an error. Errors: WorkbenchError for
    prompts that are neither text nor messages.
    """
    import pandas as pd

    generation = generation or GenerationConfig()
    encoder = ChatEncoder(model.tokenizer, data)
    conversations = [as_messages(prompt) for prompt in prompt_list(prompts)]
    with model.base():
        sides = {"base": answer(model, encoder, conversations, generation, seed, cancelled)}
    if model.has_adapter:
        sides["tuned"] = answer(model, encoder, conversations, generation, seed, cancelled)
    table = pd.DataFrame({"prompt": [prompt_text(messages) for messages in conversations]})
    for side, answers in sides.items():
        table[side] = [one.text for one in answers]
    for side, answers in sides.items():
        for fact in ("tokens", "ended", "repeated_4grams"):
            table[f"{side}_{fact}"] = [getattr(one, fact) for one in answers]
    return table


def as_messages(prompt) -> list[dict]:
    """A prompt as messages: a text becomes one user turn."""
    if isinstance(prompt, str) and prompt.strip():
        return [{"role": "user", "content": prompt}]
    if (
        isinstance(prompt, (list, tuple))
        and prompt
        and all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in prompt)
    ):
        return [dict(turn) for turn in prompt]
    raise WorkbenchError(f"A prompt is a text or a list of {{'role', 'content'}} messages; got {str(prompt)[:80]!r}.")


@torch.no_grad()
def answer(
    loaded: LoadedModel,
    encoder: ChatEncoder,
    conversations,
    generation: GenerationConfig,
    seed: int,
    cancelled: Callable[[], bool] | None = None,
) -> list[Answer]:
    """One answer per conversation from the model as it is; the global random state is left untouched."""
    tokenizer, model = loaded.tokenizer, loaded.model
    ends = _end_ids(encoder, model)
    sampling = (
        {"temperature": generation.temperature, "top_p": generation.top_p, "top_k": 0}
        if generation.temperature > 0
        else {}
    )
    decoding = DecodingConfig(
        max_new_tokens=generation.max_new_tokens,
        do_sample=generation.temperature > 0,
        repetition_penalty=1.0,  # said, because what is left unsaid is taken from the model's own generation config
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
        **sampling,
    )
    answers: list[Answer] = []
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
    """Ends sampling by an error as soon as nobody wants the answers any more."""

    def __init__(self, cancelled):
        self.cancelled = cancelled

    def __call__(self, input_ids, scores, **_):
        if self.cancelled():
            raise WorkbenchError("The question was cancelled.")
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def _end_ids(encoder, model):
    own_ids = model.generation_config.eos_token_id
    if not isinstance(own_ids, list):
        own_ids = [] if own_ids is None else [own_ids]
    return {encoder.end_of_turn_id, *own_ids}


def _as_answer(row, ends, tokenizer):
    ended_at = next((index for index, token in enumerate(row) if token in ends), None)
    tokens = row[:ended_at]
    return Answer(
        tokenizer.decode(tokens, skip_special_tokens=True).strip(),
        len(tokens),
        ended_at is not None,
        repeated_4gram_share(tokens),
    )
