"""Questions with a good and a poor answer, and files of rows that are made of them in any shape."""

import csv
import json

import tiny

from simpo_workbench.config.run_config import DataConfig
from simpo_workbench.engine.encode.tokens import ChatEncoder
from simpo_workbench.pairs.pairs import load_pairs

FACTS = (
    ("Which river runs through Prague?", "The Vltava.", "Probably the Danube?"),
    ("How many strings has a cello?", "Four.", "Six, as on a guitar."),
    ("Who painted The Night Watch?", "Rembrandt.", "It was Vermeer, or one of his pupils."),
    ("What do bees make?", "Honey.", "They knit small hats."),
)
PAIRS = [(question, good, poor) for question, good, poor in FACTS]


def user(text):
    """A user turn."""
    return {"role": "user", "content": text}


def assistant(text, **more):
    """An assistant turn."""
    return {"role": "assistant", "content": text, **more}


def system(text):
    """A system turn."""
    return {"role": "system", "content": text}


def jsonl(path, row_of, facts=FACTS, encoding="utf-8"):
    """A file of JSON Lines with `row_of(question, good, poor)` for every fact; returns its path."""
    rows = [row_of(*fact) for fact in facts]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding=encoding)
    return path


def table(path, row_of, facts=FACTS):
    """The same as CSV."""
    rows = [row_of(*fact) for fact in facts]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(path, **settings):
    """(texts of every pair as (prompt, chosen, rejected), report, pairs) of a file."""
    pairs = load_pairs(path, **settings)
    return [(pair.prompt_text, pair.chosen, pair.rejected) for pair in pairs], pairs.report(), pairs


def encoder(template, control=(), eos=None, **data):
    """A ChatEncoder of the small byte-level tokenizer with a template; `control` become tokens of their own."""
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(control)})
    if eos:
        tokenizer.eos_token = eos
    tokenizer.chat_template = template
    return ChatEncoder(tokenizer, DataConfig(**data))


def encoded(coder, pairs):
    """([(prompt, chosen, rejected)] as text with control tokens, report) of pairs as the model gets them."""
    some, report = coder.encode_pairs(pairs)
    decode = coder.tokenizer.decode
    return [(decode(one.prompt_ids), decode(one.chosen_ids), decode(one.rejected_ids)) for one in some], report
