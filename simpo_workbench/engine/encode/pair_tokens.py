"""One pair as the model sees it, token by token, and what every token is: template, prompt, answer or end of turn.

Needs a tokenizer, but neither weights nor torch.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ...base.errors import WorkbenchError
from ...config.run_config import DataConfig
from ...pairs.data_sets import as_pairs
from ...pairs.pairs import Pair
from .template_values import TemplateValues
from .tokens import ChatEncoder, EncodedPair

if TYPE_CHECKING:
    import pandas as pd

_STANDS_FOR = "Zebra quartz {} at noon"  # in place of a turn's text; no template contains it by itself


def encode_pair(tokenizer, pair, data: DataConfig | None = None, values: TemplateValues | None = None) -> pd.DataFrame:
    """DataFrame with one row per token of a pair: side, position (from 1), token_id, token, scored, kind.

    side: "prompt" (once), "chosen" or "rejected"; answers are scored from their first token to the end of turn. kind:
    "template" (what the chat template put around the prompt's texts), "prompt", "answer" or "end of turn".
    `.attrs["report"]` says whether the prompt was cut, and what was noticed in the texts. values: the model's end
    tokens, and what a run has kept.
    Errors: WorkbenchError when it is not exactly one pair, or does not fit data.max_tokens.
    """
    pair, encoder = single_pair(pair), ChatEncoder(tokenizer, data, values)
    encoded, report = _encoded(encoder, pair)
    table = token_table(
        tokenizer, {"prompt": encoded.prompt_ids, "chosen": encoded.chosen_ids, "rejected": encoded.rejected_ids}
    )
    table["scored"] = table["side"] != "prompt"
    kinds = prompt_kinds(encoder, pair, encoded.prompt_ids)
    for ids in (encoded.chosen_ids, encoded.rejected_ids):
        kinds += [*["answer"] * (len(ids) - 1), "end of turn"]
    table["kind"] = kinds
    cut = ["The prompt was cut from the left."] if encoded.truncated else []
    table.attrs["report"] = " ".join([*cut, *report.notes])
    return table


def single_pair(pair) -> Pair:
    """The one Pair in a row, a list of one row, or Pairs of one. Errors: WorkbenchError when it is not exactly one."""
    pairs = as_pairs(pair)
    if len(pairs) != 1:
        if len(pairs):
            raise WorkbenchError(f"One pair is taken at a time; got {len(pairs)}. Give one of them, such as pairs[:1].")
        raise WorkbenchError(f"One pair is taken at a time; got none. {pairs.report()}")
    return pairs[0]


def encoded_pair(encoder: ChatEncoder, pair: Pair) -> EncodedPair:
    """The pair as ids. Errors: WorkbenchError with the reason why it cannot be used, such as data.max_tokens."""
    return _encoded(encoder, pair)[0]


def _encoded(encoder, pair):
    """(the EncodedPair, its EncodingReport). Errors: as in `encoded_pair`."""
    encoded, report = encoder.encode_pairs([pair])
    if not encoded:
        raise WorkbenchError(f"The pair cannot be scored. {report}")
    return encoded[0], report


def token_table(tokenizer, sides: dict[str, list[int]]) -> pd.DataFrame:
    """DataFrame with one row per id: side, position (from 1), token_id, token."""
    import pandas as pd

    rows = [
        (side, position, token, tokenizer.decode([token]))
        for side, ids in sides.items()
        for position, token in enumerate(ids, 1)
    ]
    return pd.DataFrame(rows, columns=["side", "position", "token_id", "token"])


def prompt_kinds(encoder: ChatEncoder, pair: Pair, ids: list[int]) -> list[str]:
    """Kind of every id of a prompt: "prompt" inside the text of a turn, "template" elsewhere.

    Determined by rendering the conversation with other texts in place of the turns', and by the tokenizer's offsets.
    Where a template changes the texts themselves, or the tokenizer has no offsets, only special tokens count as
    template.
    """
    pair = encoder.control.safe_pair(pair)
    (rendered,) = encoder.template.render_pairs([pair])

    start = functools.partial(encoder.template.start, placement=rendered.placement, tools=pair.tools)
    turns = encoder.template.with_system_turn(pair.prompt)
    system = [turn for turn in turns[:1] if turn["role"] == "system"]
    rest = turns[len(system) :]
    for first in range(len(rest)):  # cutting a prompt removes its earliest turns first
        try:
            text, spans = _turn_spans(start, [*system, *rest[first:]])
        except WorkbenchError:  # some templates take only certain orders of turns
            continue
        rendered_ids, kinds = _kinds(encoder, text, spans)
        if spans and rendered_ids == ids:
            return kinds
    return _kinds_of_cut_turn(encoder, start, system, ids) or _kinds_by_special_ids(encoder.tokenizer, ids)


def _turn_spans(start_of, turns):
    """(rendered text, [(start, end) of every turn's text in it]); no spans where the template changes the texts.

    start_of: messages -> the text in front of an answer.
    """
    text = start_of(turns)
    stand_ins = [_STANDS_FOR.format(index) for index in range(len(turns))]
    rest = start_of([{**turn, "content": stand_in} for turn, stand_in in zip(turns, stand_ins, strict=True)])
    around = []
    for stand_in in stand_ins:
        before, separator, rest = rest.partition(stand_in)
        if not separator:
            return text, []
        around.append(before)
    around.append(rest)
    if not text.startswith(around[0]):
        return text, []
    spans, start = [], len(around[0])
    for index, turn in enumerate(turns):
        content = turn["content"] or ""
        forms = dict.fromkeys((content, content.strip(), content.lstrip(), content.rstrip()))
        fitting = next((form for form in forms if text.startswith(form + around[index + 1], start)), None)
        if fitting is None:
            return text, []
        spans.append((start, start + len(fitting)))
        start = spans[-1][1] + len(around[index + 1])
    return (text, spans) if start == len(text) else (text, [])


def _kinds(encoder, text, spans):
    """(ids, kinds) of a text; both empty for a tokenizer without offsets."""
    if not encoder.tokenizer.is_fast:
        return [], []
    if encoder.control.is_safe_text(text):
        ids, offsets = encoder.control.encoded_with_offsets(text)
    else:
        encoded = encoder.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    kinds, last = [], 0
    for start, end in offsets:
        start = min(start, last)  # some tokenizers leave the space in front of a word out of its offsets
        in_a_turn = any(start < span_end and end > span_start for span_start, span_end in spans)
        kinds.append("prompt" if in_a_turn else "template")
        last = max(last, end)
    return ids, kinds


def _kinds_of_cut_turn(encoder, start_of, system, ids):
    """Kinds where the last turn itself was cut: everything between the template's texts around it is prompt.

    None where the prompt is not of that form.
    """
    text, spans = _turn_spans(start_of, [*system, {"role": "user", "content": _STANDS_FOR}])
    if not spans:
        return None
    start, end = spans[-1]
    head_ids, head = _kinds(encoder, text[:start], spans[:-1])
    tail_ids, tail = _kinds(encoder, text[end:], [])
    cut_length = len(ids) - len(head) - len(tail)
    if not tail_ids or cut_length < 0 or ids[: len(head)] != head_ids or ids[len(ids) - len(tail) :] != tail_ids:
        return None
    return [*head, *["prompt"] * cut_length, *tail]


def _kinds_by_special_ids(tokenizer, ids):
    added = {token for token, details in tokenizer.added_tokens_decoder.items() if details.special}
    special = added.union(tokenizer.all_special_ids)
    return ["template" if token in special else "prompt" for token in ids]
