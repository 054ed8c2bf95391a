"""What a user would lose: a row that ends its own turn with characters that only a template or a normalizer turns into
a control token.
"""

import pytest
import tiny
from tokenizers import AddedToken, normalizers

from simpo_workbench.config.run_config import DataConfig
from simpo_workbench.engine.encode.control_tokens import CANNOT, Unusable
from simpo_workbench.engine.encode.made_tokens import MADE
from simpo_workbench.engine.encode.tokens import ChatEncoder
from simpo_workbench.pairs.pairs import load_pairs

#: normalizer -> a text that it makes the token <tool_call> of
NORMALIZED = {
    "NFKC": (normalizers.NFKC(), "＜tool_call＞ hi"),
    "lowercase": (normalizers.Lowercase(), "<TOOL_CALL> hi"),
    "accents": (normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]), "<tóol_call> hi"),
}
#: filter of a template -> a text that it makes the end of a turn of
FILTERED = {
    "zero width": (".replace('\u200b', '')", "Hi<|im_\u200bend|> x"),
    "replace": (" | replace('(bar)', '|')", "Hi<(bar)im_end(bar)> x"),
}


def pairs(*rows):
    return list(
        load_pairs([{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in rows])
    )


def normalizing(normalizer, normalized=True):
    tokenizer = tiny.tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizer
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=normalized, special=False)])
    tokenizer.chat_template = tiny.CHATML + "{# <tool_call> #}"
    return tokenizer


@pytest.mark.parametrize("name", NORMALIZED)
@pytest.mark.parametrize("policy", ["as_text", "refuse", "as_tokens"])
def test_a_token_that_a_normalizer_makes(name, policy):
    normalizer, text = NORMALIZED[name]
    tokenizer = normalizing(normalizer)
    encoder = ChatEncoder(tokenizer, DataConfig(special_tokens_in_text=policy))
    rows = pairs(("ok", "a", "b"), (text, "a", "b"), ("ok", text, "b"))
    encoded, report = encoder.encode_pairs(rows)
    if policy == "as_tokens":
        assert len(encoded) == 3
        assert tokenizer.convert_tokens_to_ids("<tool_call>") in encoded[1].prompt_ids
        return
    assert [pair.pair_id for pair in encoded] == [rows[0].pair_id]
    assert report.dropped == {CANNOT: 2}
    with pytest.raises(Unusable, match="this tokenizer cannot encode as text"):
        encoder.prompt_ids([{"role": "user", "content": text}])
    assert encoder.prompt_ids([{"role": "user", "content": "ok"}]) == encoded[0].prompt_ids


@pytest.mark.parametrize("name", NORMALIZED)
def test_where_the_token_is_looked_for_in_the_text_as_it_is_nothing_is_refused(name):
    normalizer, text = NORMALIZED[name]
    tokenizer = normalizing(normalizer, normalized=False)
    (pair,), report = ChatEncoder(tokenizer).encode_pairs(pairs((text, "a", "b")))
    assert tokenizer.convert_tokens_to_ids("<tool_call>") not in pair.prompt_ids
    assert not report.dropped


@pytest.mark.parametrize("name", FILTERED)
@pytest.mark.parametrize("policy", ["as_text", "refuse", "as_tokens"])
def test_a_token_that_a_template_makes(name, policy):
    change, text = FILTERED[name]
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = tiny.CHATML.replace("m['content'] +", f"(m['content']{change}) +")
    encoder = ChatEncoder(tokenizer, DataConfig(special_tokens_in_text=policy))
    rows = pairs(("ok", "a", "b"), (text, "a", "b"), ("ok", text, "b"), ("a\u200bb (bar) c", "x\u200by (bar)", "z"))
    encoded, report = encoder.encode_pairs(rows)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    if policy == "as_tokens":
        assert encoded[1].prompt_ids.count(end) == 2
        return
    assert [pair.pair_id for pair in encoded] == [row.pair_id for row in (rows[0], *rows[2:])]
    assert report.dropped == {MADE: 1}
    assert encoded[1].chosen_ids.count(end) == 1, "an answer that the template changes is scored as the data have it"
    with pytest.raises(Unusable, match="the chat template makes a control token"):
        encoder.prompt_ids([{"role": "user", "content": text}])


def test_a_template_that_changes_every_text_is_rendered_once_more_for_each_order_of_turns(monkeypatch):
    """And not for every row."""
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = tiny.CHATML.replace("m['content'] +", "(m['content'] | replace('num', 'NUM')) +")
    encoder = ChatEncoder(tokenizer)
    calls = []
    made = encoder._made
    monkeypatch.setattr(
        made, "_marks_around", lambda *given: calls.append(given) or type(made)._marks_around(made, *given)
    )
    encoded, _ = encoder.encode_pairs(pairs(*((f"num {n}", "A", "B") for n in range(20))))
    assert len(encoded) == 20
    assert len(calls) == 1
