"""Chat template -> prompt ids and response ids, the end of turn, and what happens to pairs that are too long.

Prompt ids are the template with its generation prompt. Response ids are the answer tokenized on its own, as the model
would have produced it after the prompt, then the template's end-of-turn token exactly once. Nothing else is scored.
"""

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerFast

from ...base.errors import WorkbenchError, first_line
from ...config.run_config import DataConfig
from .chat_rendering import render_all
from .template_check import require_bounded_template

_PROBE = "Zebra quartz"  # an answer that no template contains by itself
_MIN_CONTENT_TOKENS = 1  # a cut user turn keeps at least this much of its end
_ENCODING = (
    "__call__",
    "_encode_plus",
    "_tokenizer",
    "backend_tokenizer",
)  # what a tokenizer class would replace to encode in its own way
_CHUNK_PAIRS = 1000  # pairs tokenized in one call: enough to keep all cores at work
_CHUNK_CHARACTERS = 1_000_000  # and at most about so much text: the tokenizer's own records take some 50 bytes a character until they are read


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


@dataclass
class EncodingReport:
    """How many pairs were encoded, cut and dropped (by reason, with the first pair's id), and what the template made
    necessary.
    """

    pairs: int = 0
    truncated: int = 0
    rewritten: int = 0
    unplaced: int = 0
    dropped: Counter = field(default_factory=Counter)
    first_dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def drop(self, reason, pair_id):
        self.dropped[reason] += 1
        self.first_dropped.setdefault(reason, pair_id)

    def __str__(self):
        lines = [
            f"{self.pairs} pairs encoded"
            + (f", {self.truncated} with the prompt cut from the left" if self.truncated else "")
            + "."
        ]
        lines += [
            f"Dropped {count}: {reason} (first: pair {self.first_dropped[reason]})."
            for reason, count in sorted(self.dropped.items())
        ]
        return " ".join(lines + self.notes)


class ChatEncoder:
    """Turns messages into ids with one tokenizer and one set of template options, for training, scoring and sampling
    alike.
    """

    def __init__(self, tokenizer, data: DataConfig | None = None):
        self.tokenizer = tokenizer
        self.data = data or DataConfig()
        if not tokenizer.chat_template:
            raise WorkbenchError(
                f"The model {tokenizer.name_or_path!r} brings no chat template, so the start and end of an answer are"
                " unknown. Give one with data.chat_template (a Jinja text or a file), or choose the model's instruct"
                " version."
            )
        require_bounded_template(tokenizer, self.data.template_options)
        self.takes_system_turn = self._renders_system_turn()
        self.answer_lead, self.answer_space, self.end_of_turn = self._find_answer_frame()
        self.end_of_turn_ids = self._end_of_turn_ids()

    def render(self, messages, add_generation_prompt=True) -> str:
        """The conversation as the model sees it, as text."""
        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt, **self.data.template_options
            )
        except (
            Exception
        ) as error:  # templates raise whatever they like; Jinja errors have no common base that is worth naming
            raise WorkbenchError(
                f"The chat template refused a conversation ({', '.join(m['role'] for m in messages)}):"
                f" {first_line(error)}."
            ) from None

    def prompt_text(self, messages) -> str:
        """The rendered prompt up to and with the assistant header, and an empty thinking block where the template puts
        one before answers.
        """
        return self.render(self.with_system_turn(messages)) + self.answer_lead

    def prompt_ids(self, messages) -> list[int]:
        """Ids of `prompt_text`."""
        return self._ids(self.prompt_text(messages))

    def response_ids(self, text: str) -> list[int]:
        """Ids of one answer and the end-of-turn token after it, exactly once."""
        return self._ids(self.answer_space + text) + self.end_of_turn_ids

    def with_system_turn(self, messages) -> list[dict]:
        """The messages with data.system_prompt in front where none is; for a template without system turn its text
        leads the first user turn.
        """
        messages = [dict(message) for message in messages]
        if self.data.system_prompt and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self.data.system_prompt})
        if messages[0]["role"] == "system" and not self.takes_system_turn and len(messages) > 1:
            system = messages.pop(0)
            messages[0]["content"] = f"{system['content']}\n\n{messages[0]['content']}"
        return messages

    def encode_pairs(self, pairs) -> tuple[list[EncodedPair], EncodingReport]:
        """All pairs that fit, as ids, and the report of those that do not; nothing is dropped without being counted."""
        report = EncodingReport()
        return [one for chunk in self.encode_chunks(pairs, report) for one in chunk], report

    def encode_chunks(self, pairs, report: EncodingReport) -> Iterator[list[EncodedPair]]:
        """The pairs that fit, in order, in lists small enough that memory does not grow with the number of pairs.

        `report` is filled on the way and complete, notes and all, when the iterator is exhausted.
        """
        system_turns = bool(self.data.system_prompt)
        for chunk, encoded in self._overlapped(_chunks(pairs), report):
            system_turns = system_turns or any(pair.prompt[0]["role"] == "system" for pair in chunk)
            report.pairs += len(encoded)
            report.truncated += sum(one.truncated for one in encoded)
            yield encoded
        if system_turns and not self.takes_system_turn:
            report.notes.append(
                "The chat template has no system turn: system text was put in front of the first user turn."
            )
        if report.rewritten:
            report.notes.append(
                f"The chat template writes {report.rewritten} answers otherwise than the data (white space, thinking"
                " tags, end marks): the template's form is scored."
            )
        if report.unplaced:
            report.notes.append(
                f"The chat template changes {report.unplaced} answers so that they cannot be found in the conversation:"
                " the data's form is scored."
            )

    def _overlapped(self, chunks, report):
        """(chunk, its EncodedPairs) of every chunk: while the Rust tokenizer works on one, which needs no Python, the
        template renders the next.
        """
        with ThreadPoolExecutor(1) as beside:
            started = deque()
            for chunk in chunks:
                placed = [
                    self._placed(pair, *rendered, report)
                    for pair, rendered in zip(chunk, self._rendered(chunk), strict=True)
                ]
                texts = [
                    text
                    for prompt, lead, answers in placed
                    for text in (prompt + lead, *(self.answer_space + answer for answer in answers))
                ]
                tokenizing = beside.submit(self._ids_of_all, texts)
                if plain_backend(self.tokenizer) is None:
                    wait(
                        [tokenizing]
                    )  # tokenizers in Python promise nothing to two threads, and cutting a prompt asks them as well
                started.append((chunk, placed, tokenizing))
                if len(started) == 2:
                    yield self._encoded(*started.popleft(), report)
            while started:
                yield self._encoded(*started.popleft(), report)

    def _encoded(self, pairs, placed, tokenizing, report):
        ids, encoded = iter(tokenizing.result()), []
        for pair, (_, lead, _) in zip(pairs, placed, strict=True):
            one = self._fitting(
                pair, lead, next(ids), next(ids) + self.end_of_turn_ids, next(ids) + self.end_of_turn_ids, report
            )
            if one is not None:
                encoded.append(one)
        return pairs, encoded

    def _fitting(self, pair, lead, prompt, chosen, rejected, report):
        """The EncodedPair of three lists of ids, its prompt cut where that is wanted; None, and counted, where the pair
        cannot be used.
        """
        if len(chosen) <= len(self.end_of_turn_ids) or len(rejected) <= len(self.end_of_turn_ids):
            report.drop("an answer has no tokens", pair.pair_id)
            return None
        if chosen == rejected:
            report.drop("both answers have the same tokens", pair.pair_id)
            return None
        if any(self.end_of_turn_ids[0] in ids[: -len(self.end_of_turn_ids)] for ids in (chosen, rejected)):
            report.drop("an answer holds the end-of-turn token in its middle", pair.pair_id)
            return None
        room = self.data.max_tokens - max(len(chosen), len(rejected))
        if len(prompt) <= room:
            return EncodedPair(pair.pair_id, prompt, chosen, rejected)
        if self.data.overlong == "drop":
            report.drop(f"longer than data.max_tokens {self.data.max_tokens}", pair.pair_id)
            return None
        cut = self._cut_prompt(pair.prompt, lead, room)
        if cut is None:
            report.drop(
                f"answer and fixed parts of the prompt alone are longer than data.max_tokens {self.data.max_tokens}",
                pair.pair_id,
            )
            return None
        return EncodedPair(pair.pair_id, cut, chosen, rejected, truncated=True)

    def _rendered(self, pairs):
        """(prompt, [conversation with the chosen answer, with the rejected one]) of every pair, as texts; a prompt
        shared by neighbors is rendered once.
        """
        prompts, place = [], []
        for index, pair in enumerate(pairs):
            if index == 0 or pair.prompt != pairs[index - 1].prompt:
                prompts.append(self.with_system_turn(pair.prompt))
            place.append(len(prompts) - 1)
        wholes = [
            [*prompts[at], {"role": "assistant", "content": answer}]
            for at, pair in zip(place, pairs, strict=True)
            for answer in (pair.chosen, pair.rejected)
        ]
        try:
            options = self.data.template_options
            prompts, wholes = (
                render_all(self.tokenizer, prompts, True, options),
                render_all(self.tokenizer, wholes, False, options),
            )
        except Exception:  # whatever a template raised: one conversation after the other says which one it was
            prompts = [prompts[at] for at in place]
            return [
                (self.render(prompt), [self.render(whole, False) for whole in wholes[2 * at : 2 * at + 2]])
                for at, prompt in enumerate(prompts)
            ]
        return [(prompts[at], wholes[2 * index : 2 * index + 2]) for index, at in enumerate(place)]

    def _placed(self, pair, prompt, wholes, report):
        """(prompt, lead, answers): the rendered prompt, the lead behind it that belongs to it, and both answers as they
        stand in the conversation.

        Templates may trim white space or move thinking tags. Where an answer brings its own thinking block there is no
        empty one to belong to the prompt, so both answers of the pair begin right behind the generation prompt.
        """
        for lead in dict.fromkeys((self.answer_lead, "")):
            if self.end_of_turn and all(whole.startswith(prompt + lead) for whole in wholes):
                found = [
                    self._answer_in(whole[len(prompt + lead) :], answer)
                    for whole, answer in zip(wholes, (pair.chosen, pair.rejected), strict=True)
                ]
                break
        else:
            lead, found = self.answer_lead, [pair.chosen, pair.rejected]
            report.unplaced += any(answer not in whole for whole, answer in zip(wholes, found, strict=True))
        report.rewritten += sum(one != answer for one, answer in zip(found, (pair.chosen, pair.rejected), strict=True))
        return prompt, lead, found

    def _answer_in(self, rendered, answer):
        """The answer out of the rendered text behind the prompt: without end marks (the data may have brought its own)
        and the template's white space.
        """
        body = rendered.rpartition(self.end_of_turn)[0]
        while body.rstrip().endswith(self.end_of_turn):
            body = body.rstrip().removesuffix(self.end_of_turn)
        return answer if body == answer or (body.strip() == answer and answer) else body.strip()

    def _cut_prompt(self, messages, lead, room):
        """Prompt ids of at most `room`: the earliest turns go first, whole; then the last user turn is cut from the
        left. None when that is not enough.

        System turn, assistant header and `lead` stay, so that what is left is a well-formed conversation.
        """
        messages = self.with_system_turn(messages)
        system = [message for message in messages[:1] if message["role"] == "system"]
        turns = messages[len(system) :]
        for first in range(1, len(turns)):
            if turns[first]["role"] == "user":
                ids = self._ids(self.render(system + turns[first:]) + lead)
                if len(ids) <= room:
                    return ids
        if turns[-1]["role"] != "user":
            return None
        before, _, after = (self.render([*system, {"role": "user", "content": _PROBE}]) + lead).rpartition(_PROBE)
        head, tail, content = self._ids(before), self._ids(after), self._ids(turns[-1]["content"])
        keep = room - len(head) - len(tail)
        return head + content[len(content) - keep :] + tail if keep >= _MIN_CONTENT_TOKENS else None

    def _ids(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _ids_of_all(self, texts):
        """Ids of every text, the same as `_ids` of each; equal texts are tokenized once."""
        unique = list(dict.fromkeys(texts))
        backend = plain_backend(self.tokenizer)
        if backend is None:
            ids = self.tokenizer(unique, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        else:
            ids = [encoding.ids for encoding in backend.encode_batch_fast(unique, add_special_tokens=False)]
        return list(map(dict(zip(unique, ids, strict=True)).__getitem__, texts))

    def _renders_system_turn(self):
        try:
            text = self.tokenizer.apply_chat_template(
                [{"role": "system", "content": _PROBE}, {"role": "user", "content": "x"}],
                tokenize=False,
                **self.data.template_options,
            )
        except (
            Exception
        ):  # Gemma's template raises its own error for a system turn: that is the answer to the question asked here
            return False
        return _PROBE in text

    def _find_answer_frame(self):
        """(lead, space, end): what the template puts between the generation prompt and an answer, and what it puts
        behind an answer, as texts.

        The lead is usually empty; it is an empty thinking block for some models, and the assistant header where a
        template ignores add_generation_prompt; it belongs to the prompt. White space there (Llama 2: "[/INST] Paris")
        is no lead: it melts into the answer's first token. Tokenizers that mark the beginning of a word by themselves
        add it on their own; for others it is the `space` in front of every answer. The end is <|im_end|>, <|eot_id|>,
        <end_of_turn>, </s> … or empty.
        """
        user = [{"role": "user", "content": "x"}]
        prompt = self.render(user)
        whole = self.render([*user, {"role": "assistant", "content": _PROBE}], add_generation_prompt=False)
        if _PROBE not in whole:
            raise WorkbenchError(
                "The chat template drops the assistant's answer, so nothing could be scored. Choose another with"
                " data.chat_template."
            )
        before, _, after = whole.rpartition(_PROBE)
        lead = before.removeprefix(prompt) if before.startswith(prompt) else ""
        if lead.strip() or not lead:
            return lead, "", after.strip()
        as_rendered = self._ids(before + _PROBE)
        space = lead if self._ids(prompt) + self._ids(lead + _PROBE) == as_rendered else ""
        return "", space, after.strip()

    def _end_of_turn_ids(self):
        ids = self._ids(self.end_of_turn)[:1] if self.end_of_turn else []
        if not ids and self.tokenizer.eos_token_id is not None:
            ids = [self.tokenizer.eos_token_id]
        if not ids:
            raise WorkbenchError(
                "The chat template puts nothing after an answer and the tokenizer has no end-of-sequence token: answers"
                " would never end."
            )
        return ids


def plain_backend(tokenizer):
    """The Rust tokenizer inside a fast one, set to encode whole texts as they are; None for other tokenizers.

    None also where the class around it has an encoding of its own, which calling the inside would pass by.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or any(
        name in vars(kind) for kind in _classes_above(tokenizer) for name in _ENCODING
    ):
        return None
    backend = tokenizer.backend_tokenizer
    # an earlier call may have left its own settings inside; they are touched only then, because that fails while
    # another thread encodes
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    if backend.encode_special_tokens != tokenizer.split_special_tokens:
        backend.encode_special_tokens = tokenizer.split_special_tokens
    return backend


def _classes_above(tokenizer):
    """The classes between a tokenizer and transformers' general fast one."""
    return type(tokenizer).__mro__[: type(tokenizer).__mro__.index(PreTrainedTokenizerFast)]


def characters(pair) -> int:
    """Characters of a pair's texts, the template's own not counted."""
    return len(pair.chosen) + len(pair.rejected) + sum(len(turn["content"]) for turn in pair.prompt)


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
