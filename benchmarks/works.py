"""The pairs that benchmarks run on: pairs of a file, selected, joined or cut to the lengths of a kind of work.

The same file always gives the same pairs.
"""

import itertools
import statistics
from dataclasses import dataclass
from pathlib import Path

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.base.files import write_jsonl
from simpo_workbench.config.run_config import DataConfig
from simpo_workbench.engine.encode.tokens import ChatEncoder
from simpo_workbench.pairs.data_sets import load_source

_SLACK = 0.15  # a joined answer may be shorter than wanted by this share


@dataclass(frozen=True)
class Work:
    """A kind of work: number of pairs, pairs per optimizer step, longest prompt plus answer, and a description."""

    pairs: int
    pairs_per_step: int
    max_tokens: int
    description: str


WORKS = {
    "long": Work(8, 2, 1024, "long pairs, mostly response"),
    "prompt": Work(8, 2, 1024, "long prompts, short answers"),
    "short": Work(32, 8, 256, "short pairs"),
}


def write_work(path: Path, name: str, source: str, tokenizer, count: int, max_tokens: int) -> str:
    """Write `count` pairs of a work as JSON lines; returns a phrase that says how they were made.

    Errors: WorkbenchError when the source does not give that many different pairs of at most max_tokens.
    """
    data = DataConfig(train=source, max_tokens=max_tokens)
    encoder = ChatEncoder(tokenizer, data)
    pairs = list(load_source(source, "train", data))
    encoded, _ = encoder.encode_pairs(pairs)
    tokens = {pair.pair_id: pair.tokens(share_prompt=True) for pair in encoded}
    fitting = [pair for pair in pairs if pair.pair_id in tokens]
    if name == "long" and tokens and statistics.median(tokens.values()) >= 400:
        chosen, how = fitting[:count], f"the first pairs of the file that fit {max_tokens} tokens"
    elif name == "short":
        chosen, how = (
            [pair for pair in fitting if 70 <= tokens[pair.pair_id] <= 125][:count],
            "the first pairs of 70 to 125 tokens in all",
        )
    else:
        chosen, how = [], ""
    rows = [_row(list(pair.prompt), pair.chosen, pair.rejected) for pair in chosen]
    if len(rows) < count:
        prompt_tokens, answer_tokens = {"long": (None, 420), "prompt": (650, 150), "short": (50, 25)}[name]
        rows, how = (
            _shaped(pairs, encoder, count, prompt_tokens, answer_tokens),
            "texts of several pairs joined, and cut, to the wanted lengths",
        )
    write_jsonl(path, rows)
    kept, report = encoder.encode_pairs(list(load_source(str(path), "train", data)))
    if len(kept) != count:
        raise WorkbenchError(
            f"{source!r} gives {len(kept)} pairs for this work, {count} are needed: give another file, fewer pairs or"
            f" more tokens. {report}"
        )
    return how


def _shaped(pairs, encoder, count, prompt_tokens, answer_tokens):
    """Rows with prompts of about `prompt_tokens` (None: the pair's own prompt) and answers of about `answer_tokens`.

    Each row joins as many of the source's next pairs as it needs; all but the last become context before its prompt.
    """
    frame = len(encoder.prompt_ids([{"role": "user", "content": ""}]))  # tokens of the chat template itself
    room = max(1, prompt_tokens - frame) if prompt_tokens else 0
    least = round((1 - _SLACK) * answer_tokens)
    source, rows = itertools.cycle(pairs), []
    while len(rows) < count:
        used = []
        while len(used) < len(pairs):
            used.append(next(source))
            *before, last = used
            prompt = "\n\n".join([*(f"{pair.prompt_text}\n{pair.chosen}" for pair in before), last.prompt_text])
            answers = [
                _joined(encoder, [getattr(pair, side) for pair in reversed(used)], least)
                for side in ("chosen", "rejected")
            ]
            if all(len(ids) >= least for ids in answers) and len(_ids(encoder, prompt)) >= room:
                break
        prompt = _text(encoder, _ids(encoder, prompt)[-room:]) if prompt_tokens else last.prompt_text
        rows.append(
            _row([{"role": "user", "content": prompt}], *(_text(encoder, ids[:answer_tokens]) for ids in answers))
        )
    return rows


def _joined(encoder, texts, least):
    """Token ids of the first texts, joined until there are at least `least`."""
    taken, ids = [], []
    for text in texts:
        if len(ids) >= least:
            break
        taken.append(text)
        ids = _ids(encoder, "\n\n".join(taken))
    return ids


def _row(messages, chosen, rejected):
    return {
        "prompt": messages,
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def _ids(encoder, text):
    return encoder.tokenizer(text, add_special_tokens=False)["input_ids"]


def _text(encoder, ids):
    return encoder.tokenizer.decode(ids).strip()
