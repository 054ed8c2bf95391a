"""What a user would lose: a check that the short way for ordinary rows leaves out."""

import itertools

import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.pairs import reading
from simpo_workbench.pairs.pairs import load_pairs

TEXTS = (
    "Two words", "Zwei Wörter, ja", "one", "", "  leading blank", "\n\nHuman: Hi\n\nAssistant:", "Human: Hi there",
    "\n\nHuman: Hi\n\nAssistant: Two words", '["a text", "b"]', '[{"role": "user", "content": "Two words"}]',
    "{'role': 'assistant', 'content': 'Two words'}", "a.png", "my photo.png", "data:image/png;base64, iVBORw0KGgo= x",
    "DATA:image/png;base64,iVBORw0KGgo=", "iVBORw0KGgo" + "A" * 60, "half \ud83d a character",
    "ＡＢ ｃｄ", "東京 タワー",
    "<|im_start|>user\nTwo words<|im_end|>", "ASSISTANT: Two words",
)  # fmt: skip
MORE = ({}, {"system": "Be brief."}, {"history": [["a", "b"]]}, {"photo": "a.png"}, {"score": 3, "input": "x"})


def outcome(row):
    try:
        return [(pair.pair_id, pair.prompt, pair.chosen, pair.rejected, pair.extra) for pair in load_pairs([row])]
    except WorkbenchError as error:
        return str(error)


@pytest.mark.parametrize("more", MORE, ids=lambda more: ", ".join(more) or "three columns")
def test_the_short_way_for_ordinary_rows_reads_what_the_long_one_reads(more, monkeypatch):
    rows = [
        {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}
        for prompt, chosen, rejected in itertools.product(TEXTS, TEXTS, ("Two words", "Other words", "b.png"))
    ]
    short = list(map(outcome, rows))
    monkeypatch.setattr(reading, "_plain_pair", lambda row: None)
    assert short == list(map(outcome, rows))
