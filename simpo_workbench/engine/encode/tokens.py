"""Pairs and prompts -> token ids, and what happens to pairs that are too long.

Prompt ids are the template with its generation prompt. Response ids are the answer tokenized on its own, as the model
would have produced it after the prompt, then the template's end-of-turn token exactly once. Nothing else is scored.
"""

import contextlib
import functools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from ...base.errors import WorkbenchError
from ...config.run_config import DataConfig
from . import mismatch
from .chat_template import PROBE, ChatTemplate
from .control_tokens import AS_TOKENS, CANNOT, ControlTokens, Unusable
from .encoding_report import EncodingReport
from .made_tokens import MADE, MadeTokens
from .template_values import TemplateValues, values_of
from .turn_forms import is_plain

#: A cut user turn keeps at least this many tokens of its end.
_MIN_CONTENT_TOKENS = 1
#: Pairs tokenized in one call: enough to keep all cores at work.
_CHUNK_PAIRS = 1000
#: And at most about this much text: the tokenizer's own records take some 50 bytes a character until they are read.
_CHUNK_CHARACTERS = 1_000_000
#: Pairs at the beginning whose ids are compared with those of the whole conversation; later only unusual ones are.
COMPARED_PAIRS = 200
#: What a tokenizer class overrides in order to encode in its own way.
_ENCODING_METHODS = ("__call__", "_encode_plus", "_tokenizer", "backend_tokenizer")


@dataclass(frozen=True)
class EncodedPair:
    """Token ids of one pair; each response ends with the end-of-turn token."""

    pair_id: str
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    truncated: bool = False

    def tokens(self, share_prompt: bool) -> int:
        """Tokens that go through the model for this pair, padding not counted."""
        return len(self.prompt_ids) * (1 if share_prompt else 2) + len(self.chosen_ids) + len(self.rejected_ids)


class ChatEncoder:
    """Messages and pairs -> token ids, with one tokenizer and its chat template, for training, scoring and sampling.

    end_of_turn_id: the token that ends every answer. It is what the template puts after an assistant turn (Llama 3,
    Gemma), which is not always the tokenizer's end-of-sequence token.
    values: what a run keeps of its template, and the model's end tokens; see TemplateValues.
    Errors: WorkbenchError when the tokenizer has no chat template or it cannot be used.
    """

    def __init__(self, tokenizer, data: DataConfig | None = None, values: TemplateValues | None = None):
        self.tokenizer = tokenizer
        self.data = data or DataConfig()
        self.template = ChatTemplate(tokenizer, self.data, values)
        policies = self.data.special_tokens_in_text, self.data.system_prompt, self.data.on_template_mismatch
        self.control = ControlTokens(tokenizer, self.template, *policies)
        acting = self.data.special_tokens_in_text == AS_TOKENS
        self._made = None if acting else MadeTokens(tokenizer, self.template, self.control)
        self.template.read_through(self.control.readable)
        self.end_of_turn_id = self._find_end_of_turn()
        self._answer_space = self._find_answer_space()

    @classmethod
    def of(cls, loaded, data: DataConfig | None = None, kept: dict | None = None) -> "ChatEncoder":
        """The encoder of a LoadedModel. kept: what the run it belongs to has kept; see TemplateValues.to_json."""
        return cls(loaded.tokenizer, data, values_of(loaded, kept))

    def prompt_ids(self, messages, tools=()) -> list[int]:
        """Ids of the messages up to where the answer begins. Errors: Unusable for control tokens in their texts."""
        messages, tools = self.control.safe_messages(messages), self.control.safe_tools(tools)
        text = self.template.prompt_text(messages, tools)
        if self._made and self._made.in_prompt(messages, text, self.template.sampled_placement, tools):
            raise Unusable(MADE)
        return self._require_own(text, self._ids(text))

    def settle_thinking(self, report: EncodingReport) -> None:
        """Let sampled answers think if most answers of these pairs do, unless that is decided already."""
        values = self.template.values
        if values.thinking is None and report.pairs:
            self.template.values = replace(values, thinking=report.thinking > report.pairs)

    def encode_pairs(self, pairs) -> tuple[list[EncodedPair], EncodingReport]:
        """All pairs that fit, as ids, and the report of those that do not; every dropped pair is counted."""
        report = EncodingReport()
        return [encoded for chunk in self.encode_chunks(pairs, report) for encoded in chunk], report

    def encode_chunks(self, pairs, report: EncodingReport) -> Iterator[list[EncodedPair]]:
        """The pairs that fit, in order, in lists small enough that memory does not grow with the number of pairs.

        `report` is filled on the way, and complete with its notes once the iterator is exhausted.
        """
        system_turns, number = bool(self.data.system_prompt), 0
        for chunk, rendered, tokenizing in self._tokenized(self.control.prepared(_chunks(pairs), report)):
            system_turns = system_turns or any(_has_system_turn(pair) for pair in chunk)
            ids, encoded = iter(tokenizing.result()), []
            for pair, texts in zip(chunk, rendered, strict=True):
                number += 1
                if texts.refusal:
                    report.drop(texts.refusal, pair.pair_id, pair.where)
                    continue
                parts = (next(ids), next(ids), next(ids))
                if self._made and self._made.in_pair(pair, texts):
                    report.drop(MADE, pair.pair_id, pair.where)
                    continue
                if None in parts:
                    report.drop(CANNOT, pair.pair_id, pair.where)
                    continue
                prompt, chosen, rejected = parts[0], [*parts[1], self.end_of_turn_id], [*parts[2], self.end_of_turn_id]
                kinds = list(texts.kinds)
                if kinds or number <= COMPARED_PAIRS or self._is_unusual(pair, texts):
                    report.compared += 1
                    kinds += self._id_faults(texts, prompt, chosen, rejected)
                    if self._refused(pair, kinds, report):
                        continue
                fitting = self._fit(pair, texts.placement, prompt, chosen, rejected, report)
                if fitting is not None:
                    encoded.append(fitting)
                    report.truncated += fitting.truncated
                    report.rewritten += (texts.chosen != pair.chosen) + (texts.rejected != pair.rejected)
                    report.unplaced += any(kind == mismatch.UNPLACED for kind, _ in kinds)
                    report.thinking += texts.thinking
            report.pairs += len(encoded)
            yield encoded
        report.notes += self.control.notes(report)
        report.notes += self._notes(report, system_turns)
        self.settle_thinking(report)

    def _is_unusual(self, pair, texts):
        """Whether a pair has tools, calls, reasoning, thinking, or control tokens in its texts."""
        if pair.tools or pair.chosen_turn or pair.rejected_turn or texts.thinking:
            return True
        return self.control.is_safe_text(texts.prompt + texts.chosen + texts.rejected) or not all(
            map(is_plain, pair.prompt)
        )

    def _refused(self, pair, kinds, report):
        """Count the kinds of a pair once each; whether the pair is left out for one of them."""
        for kind, text in dict(kinds).items():
            report.mismatch(kind, pair, self.control.readable(text))
        reason = mismatch.refused(dict(kinds), self.data.on_template_mismatch)
        if reason is not None:
            report.drop(mismatch.KINDS[reason].words, pair.pair_id, pair.where)
        return reason is not None

    def _id_faults(self, texts, prompt, chosen, rejected):
        """The (kind, text) of answers whose ids are others in one text with the prompt."""
        faults = []
        for answer, ids in ((texts.chosen, chosen), (texts.rejected, rejected)):
            whole = self._ids_or_none(texts.prompt + self.template.answer_space + answer)
            fault = mismatch.IDS if whole is None else mismatch.ids_fault(whole, prompt, ids[:-1])
            if fault:
                faults.append((fault, texts.prompt[-20:] + self.template.answer_space + answer[:40]))
        return faults

    def _notes(self, report, system_turns):
        template = self.template
        if system_turns and not template.takes_system_turn:
            yield "The chat template has no system turn: system text was put in front of the first user turn."
        if template.own.is_open and report.thinking < 2 * report.pairs:
            if template.thinking_switch:
                (option, value), *_ = template.thinking_switch.items()
                how = f"the prompts of pairs without thinking are rendered with {option}: {str(value).lower()}"
            else:
                how = "it has no switch, so answers without thinking begin where it writes those of earlier turns"
            yield f"The chat template opens thinking: {how}, in training, scoring and sampling alike."
        yield from report.mismatch_notes()

    def _tokenized(self, chunks):
        """(pairs, RenderedPairs, future of the ids of all their texts) of every chunk.

        The Rust tokenizer needs no Python: while it works on one chunk, the template renders the next.
        """
        with ThreadPoolExecutor(1) as executor:
            started = deque()
            for chunk in chunks:
                rendered = self.template.render_pairs(chunk)
                texts = [
                    text
                    for pair in rendered
                    if not pair.refusal
                    for text in (pair.prompt, self._answer_space + pair.chosen, self._answer_space + pair.rejected)
                ]
                tokenizing = executor.submit(self._ids_of_all, texts)
                if plain_backend(self.tokenizer) is None:
                    # a tokenizer written in Python may not be used by two threads, and cutting a prompt uses it too
                    wait([tokenizing])
                started.append((chunk, rendered, tokenizing))
                if len(started) == 2:
                    yield started.popleft()
            yield from started

    def _fit(self, pair, placement, prompt, chosen, rejected, report):
        """The EncodedPair of three lists of ids, the prompt cut if needed; None, and counted, when it is unusable."""
        limit = self.data.max_tokens
        if len(chosen) == 1 or len(rejected) == 1:
            report.drop("an answer has no tokens", pair.pair_id, pair.where)
            return None
        if chosen == rejected:
            report.drop("both answers have the same tokens", pair.pair_id, pair.where)
            return None
        if self.end_of_turn_id in chosen[:-1] or self.end_of_turn_id in rejected[:-1]:
            report.drop("an answer holds the end-of-turn token in its middle", pair.pair_id, pair.where)
            return None
        room = limit - max(len(chosen), len(rejected))
        if len(prompt) <= room:
            return EncodedPair(pair.pair_id, prompt, chosen, rejected)
        if self.data.overlong == "drop":
            report.drop(f"longer than data.max_tokens {limit}", pair.pair_id, pair.where)
            return None
        cut = self._cut_prompt(pair, placement, room)
        if cut is None:
            report.drop(
                f"answer and fixed parts of the prompt alone are longer than data.max_tokens {limit}",
                pair.pair_id,
                pair.where,
            )
            return None
        return EncodedPair(pair.pair_id, cut, chosen, rejected, truncated=True)

    def _cut_prompt(self, pair, placement, room):
        """Prompt ids of at most `room`, or None: the earliest turns go first, then the start of the last user turn.

        System turn, assistant header and what the placement adds stay, so that what is left is a well-formed
        conversation; one that the template refuses is not.
        """
        start = functools.partial(self.template.start, placement=placement, tools=pair.tools)
        messages = self.template.with_system_turn(pair.prompt)
        system = [message for message in messages[:1] if message["role"] == "system"]
        turns = messages[len(system) :]
        for first in range(1, len(turns)):
            if turns[first]["role"] == "user":
                with contextlib.suppress(WorkbenchError):
                    ids = self._ids(start(system + turns[first:]))
                    if len(ids) <= room:
                        return ids
        if turns[-1]["role"] != "user":
            return None
        before, _, after = start([*system, {"role": "user", "content": PROBE}]).rpartition(PROBE)
        head, tail, content = self._ids(before), self._ids(after), self._ids(turns[-1]["content"])
        keep = room - len(head) - len(tail)
        return head + content[len(content) - keep :] + tail if keep >= _MIN_CONTENT_TOKENS else None

    def _ids(self, text):
        if self.control.is_safe_text(text):
            return self.control.encoded(text)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _ids_of_all(self, texts):
        """Ids of every text as `_ids` gives them, None where it is Unusable; equal texts are tokenized once."""
        safe_ids = {text: self._ids_or_none(text) for text in texts if self.control.is_safe_text(text)}
        unique = list(dict.fromkeys(texts).keys() - safe_ids.keys()) if safe_ids else list(dict.fromkeys(texts))
        backend = plain_backend(self.tokenizer)
        if backend is None:
            ids = self.tokenizer(unique, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        else:
            ids = [encoding.ids for encoding in backend.encode_batch_fast(unique, add_special_tokens=False)]
        if self._made and self._made.by_normalizer:
            ids = [own if self.control.has_own_ids(text, own) else None for text, own in zip(unique, ids, strict=True)]
        ids_of = dict(zip(unique, ids, strict=True)) | safe_ids
        return [ids_of[text] for text in texts]

    def _ids_or_none(self, text):
        try:
            return self._require_own(text, self._ids(text))
        except Unusable:
            return None

    def _require_own(self, text, ids):
        """The ids of a text. Errors: Unusable where a normalizer made control tokens that do not stand in it."""
        looked_at = self._made and self._made.by_normalizer and not self.control.is_safe_text(text)
        if looked_at and not self.control.has_own_ids(text, ids):
            raise Unusable(CANNOT)
        return ids

    def _find_answer_space(self):
        """The template's white space in front of an answer, where it has to be tokenized with the answer.

        Empty for tokenizers that mark the beginning of a word by themselves.
        """
        space = self.template.answer_space
        if not space:
            return ""
        prompt = self.template.render([{"role": "user", "content": "x"}])
        apart = self._ids(prompt) + self._ids(space + PROBE)
        return space if apart == self._ids(prompt + space + PROBE) else ""

    def _find_end_of_turn(self):
        ids = self._ids(self.template.end_of_turn) if self.template.end_of_turn else []
        if len(ids) > 1 and ids[0] not in self.control.ids.values():
            raise WorkbenchError(
                f"The chat template ends a turn with {self.template.end_of_turn!r}, which is {len(ids)} tokens to this"
                " tokenizer, and an answer can only end with one. Choose the template of this model, or one whose turns"
                f" end with {self.tokenizer.eos_token or 'a token of it'!r}, with data.chat_template."
            )
        if ids:
            return ids[0]
        # GLM's templates put nothing after an answer: the model ends its turn by opening the next one
        next_turn = self._ids(self.template.next_turn)[:1] if self.template.next_turn else []
        if next_turn and next_turn[0] in self.template.values.end_ids:
            return next_turn[0]
        if self.tokenizer.eos_token_id is None:
            raise WorkbenchError(
                "The chat template puts nothing after an answer and the tokenizer has no end-of-sequence token: answers"
                " would never end."
            )
        return self.tokenizer.eos_token_id


def plain_backend(tokenizer) -> Tokenizer | None:
    """The Rust tokenizer inside a fast one, set to encode whole texts as they are; None for other tokenizers.

    None also where the class around it overrides the encoding, which the Rust tokenizer would bypass.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    classes = type(tokenizer).__mro__
    for derived in classes[: classes.index(PreTrainedTokenizerFast)]:
        if any(name in vars(derived) for name in _ENCODING_METHODS):
            return None
    backend = tokenizer.backend_tokenizer
    # an earlier call may have left its own settings; they are touched only then, because that fails while another
    # thread encodes
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    if backend.encode_special_tokens != tokenizer.split_special_tokens:
        backend.encode_special_tokens = tokenizer.split_special_tokens
    return backend


def characters(pair) -> int:
    """Characters of a pair's texts, without those of the template."""
    return len(pair.chosen) + len(pair.rejected) + sum(len(turn["content"] or "") for turn in pair.prompt)


def _has_system_turn(pair):
    return bool(pair.prompt) and pair.prompt[0]["role"] == "system" and bool((pair.prompt[0]["content"] or "").strip())


def _chunks(pairs):
    chunk, size = [], 0
    for pair in pairs:
        chunk.append(pair)
        size += characters(pair)
        if len(chunk) == _CHUNK_PAIRS or size >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
