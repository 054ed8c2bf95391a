"""Prompts -> answers, from the tuned model and from its base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig as DecodingConfig
from transformers import StoppingCriteria, StoppingCriteriaList

from ..analysis.scores import repeated_4gram_share
from ..base.errors import WorkbenchError, first_line
from ..config.run_config import DataConfig, GenerationConfig
from ..pairs.framed_prompts import unframed_prompt
from ..pairs.pairs import prompt_list, prompt_text
from .encode.tokens import ChatEncoder
from .forward.attention import all_layers_attend
from .forward.memory import is_out_of_memory, release_memory
from .limits import require_room_for_answers
from .model.models import LoadedModel, weights_unpacked

if TYPE_CHECKING:
    import pandas as pd

#: Answers that are sampled together at most, and the tokens of their prompts and answers. On two CPU cores an answer
#: takes half the time with 60 at once that it takes with 16.
_MOST_ROWS, _MOST_TOKENS = 96, 16_384
#: Settings of a model's own generation configuration that do not allow an answer to be sampled in parts.
_FROM_THE_START = (
    *("cache_implementation", "min_new_tokens", "min_length", "forced_bos_token_id", "forced_eos_token_id"),
    *("begin_suppress_tokens", "exponential_decay_length_penalty"),
)
#: Answers that have ended leave their batch after so many tokens.
_TOKENS_BETWEEN_LEAVING = 8


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
    data: its framed_prompts decides on prompts that a chat template has framed already. cancelled: called before every
    token; once it returns True, WorkbenchError is raised. Errors: WorkbenchError for prompts that are neither text nor
    messages, are framed and to be refused, or leave too little room for an answer.
    """
    import pandas as pd

    generation, policy = generation or GenerationConfig(), (data or DataConfig()).framed_prompts
    encoder = ChatEncoder.of(model, data)
    conversations = [unframed_prompt(_as_messages(prompt), policy) for prompt in prompt_list(prompts)]
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
    progress: Callable[[int, int], None] | None = None,
    tools: Sequence[tuple[dict, ...]] | None = None,
) -> list[SampledAnswer]:
    """One answer per conversation, with the adapter that is on; the global random state is left untouched.

    tools: those of each conversation.
    progress: called with the numbers of answers that are complete and of all answers.
    """
    tokenizer, model = loaded.tokenizer, loaded.model
    ends = _end_ids(encoder, model)
    decoding = DecodingConfig(
        do_sample=False,
        # given, because what is not is taken from the model's own generation config
        repetition_penalty=1.0,
        num_beams=1,
        num_return_sequences=1,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
        return_dict_in_generate=True,
    )
    if generation.temperature > 0:
        decoding.update(do_sample=True, temperature=generation.temperature, top_p=generation.top_p, top_k=0)
    tools = tools or [()] * len(conversations)
    prompts = [encoder.prompt_ids(*conversation) for conversation in zip(conversations, tools, strict=True)]
    require_room_for_answers(loaded, prompts, generation.max_new_tokens)
    batches = _batches(prompts, generation.max_new_tokens)
    rows: dict[int, list[int]] = {}
    training = model.training
    model.eval()
    devices = [loaded.device] if loaded.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), weights_unpacked(loaded):
            torch.manual_seed(seed)
            while batches:
                batch = batches.pop(0)
                sampler = _Sampler(loaded, decoding, ends, generation.max_new_tokens, cancelled)
                try:
                    for index, row in sampler.rows({index: prompts[index] for index in batch}):
                        rows[index] = row
                        if progress:
                            progress(len(rows), len(prompts))
                    continue
                except Exception as error:
                    if not is_out_of_memory(error) and isinstance(error, (ValueError, TypeError, AttributeError)):
                        raise _not_sampled(loaded, error) from error
                    if not is_out_of_memory(error) or len(batch) == 1:
                        raise
                # outside of the except clause the failed batch's tensors are free
                release_memory(loaded.device)
                missing = [index for index in batch if index not in rows]
                half = (len(missing) + 1) // 2
                batches[:0] = [part for part in (missing[:half], missing[half:]) if part]
    finally:
        model.train(training)
    return [_as_answer(rows[index], ends, tokenizer) for index in range(len(prompts))]


def _not_sampled(loaded, error):
    """The WorkbenchError for what transformers refuses to do."""
    return WorkbenchError(
        f"The model {loaded.config.name!r} cannot be sampled from: {first_line(error)[:200].rstrip('.')}. A"
        " setting in its generation_config.json asks for what cannot be done here: take it out, or get the file again."
    )


def _batches(prompts, new_tokens):
    """Indices of the prompts that are answered together: of similar length, with a limited number of tokens."""
    batches, widest = [], 0
    for index in sorted(range(len(prompts)), key=lambda index: -len(prompts[index])):
        if batches and len(batches[-1]) < min(_MOST_ROWS, _MOST_TOKENS // (widest + new_tokens)):
            batches[-1].append(index)
        else:
            batches.append([index])
            widest = len(prompts[index])
    return batches


class _Sampler:
    """Samples a batch by transformers' `generate`, a few tokens at a time; answers that have ended leave the batch.

    Models with other layers than attention keep a state that cannot be divided, and some generation configurations
    count tokens from the start or choose a cache of their own: their batches stay whole.
    """

    def __init__(self, loaded, decoding, ends, max_new_tokens, cancelled):
        self.loaded, self.decoding, self.ends, self.max_new_tokens = loaded, decoding, ends, max_new_tokens
        own = loaded.model.generation_config
        divisible = all_layers_attend(loaded.model) and not any(getattr(own, name, None) for name in _FROM_THE_START)
        self.tokens_at_once = _TOKENS_BETWEEN_LEAVING if divisible else max_new_tokens
        self.stopping = StoppingCriteriaList([_Cancelling(cancelled)] if cancelled else [])

    def rows(self, prompts: dict[int, list[int]]) -> Iterator[tuple[int, list[int]]]:
        """(key, new tokens) of every prompt, in the order in which the answers end."""
        keys, device = list(prompts), self.loaded.device
        width = max(map(len, prompts.values()))
        padding = self.loaded.tokenizer.pad_token_id
        ids = torch.tensor([[padding] * (width - len(row)) + row for row in prompts.values()], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts.values()], device=device)
        cache, sampled = None, 0
        while keys:
            tokens = min(self.tokens_at_once, self.max_new_tokens - sampled)
            self.decoding.update(max_new_tokens=tokens)
            out = self.loaded.model.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                generation_config=self.decoding,
                stopping_criteria=self.stopping,
            )
            ids, cache = out.sequences, out.past_key_values
            sampled += tokens
            new = ids[:, width:].tolist()
            ended = [sampled >= self.max_new_tokens or not self.ends.isdisjoint(row) for row in new]
            yield from ((key, row) for key, row, over in zip(keys, new, ended, strict=True) if over)
            staying = [place for place, over in enumerate(ended) if not over]
            if not staying:
                return
            keys = [keys[place] for place in staying]
            mask = torch.nn.functional.pad(mask, (0, ids.shape[1] - mask.shape[1]), value=1)
            if len(staying) < len(ended):
                places = torch.tensor(staying, device=device)
                ids, mask = ids[places], mask[places]
                cache.batch_select_indices(places)


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
