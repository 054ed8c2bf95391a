"""What a user would lose: training on ids that the chat template never writes, without a word.

The oracle is the tokenizer's own `apply_chat_template` (tests/helpers/rendered_by_template.py). Every template that TRL
ships is tried in tests/full/engine/test_shipped_templates.py.
"""

import functools

import pytest
import rendered_by_template as rendered
import tiny
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny_tokenizers import LLAMA2, TOKENIZERS

from simpo_workbench.base.errors import WorkbenchError

TEMPLATES = {
    **tiny.TEMPLATES,
    "llama2": LLAMA2,
    **{
        path.stem: path.read_text()
        for path in rendered.SHIPPED
        if path.stem in ("qwen3", "qwen3_5_think", "deepseek_r1_distill", "gptoss", "nemotron_3_nano", "glm4moe")
    },
}
_PARTS = st.sampled_from(
    [
        *("Lima", "Zürich", "東京 🗼", "e\u0301", " ", "\n", "\n\n", "\t", "1. ", "```\n", "<p>", "{{ x }}", "."),
        *(
            "<think>",
            "</think>",
            "<think>\nhm\n</think>\n\n",
            "<think>\n\n</think>\n\n",
            "[INST]",
            "<|im_start|>user\n",
        ),
    ]
)
_TEXTS = st.lists(_PARTS, min_size=1, max_size=5).map("".join).filter(str.strip)


@st.composite
def rows(draw):
    """Rows with one to three exchanges, perhaps a system turn."""
    turns = [{"role": "system", "content": draw(_TEXTS)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        turns += [{"role": "user", "content": draw(_TEXTS)}, {"role": "assistant", "content": draw(_TEXTS)}]
    turns.append({"role": "user", "content": draw(_TEXTS)})
    chosen, rejected = draw(st.lists(_TEXTS, min_size=2, max_size=2, unique=True))
    return {"prompt": turns, "chosen": chosen, "rejected": rejected}


@functools.cache
def _encoder(kind, template):
    """The encoder, or None where the template's end of turn is no token of this kind, which is refused in words."""
    tokenizer = TOKENIZERS[kind]()
    if kind not in ("unigram", "word piece"):  # their alphabets leave no room for more tokens
        tokenizer.add_special_tokens({"additional_special_tokens": rendered.marks_of(TEMPLATES[template])})
    tokenizer.chat_template = TEMPLATES[template]
    try:
        return rendered.encoder_for(tokenizer)
    except WorkbenchError as error:
        assert "tokens to this tokenizer" in str(error)
        return None


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=rows())
@example(row={"prompt": [{"role": "user", "content": "Hi"}], "chosen": "a<|im_end|>b", "rejected": "c"})
def test_any_conversation_is_scored_as_rendered_or_the_report_says_why(kind, template, row):
    if (encoder := _encoder(kind, template)) is None:
        assert kind in ("unigram", "word piece")
        return
    said = rendered.outcome(encoder, rendered.pair_of(row))
    assert not said.startswith("WRONG"), said


@pytest.mark.parametrize("template", TEMPLATES)
def test_plain_conversations_are_scored_as_rendered(template):
    encoder = _encoder("byte level", template)
    for name in ("plain", "several turns", "line breaks and other scripts"):
        assert rendered.outcome(encoder, rendered.pair_of(rendered.CONVERSATIONS[name])) == "equal", name


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=20, deadline=None)
@given(row=rows())
def test_no_text_of_a_row_ever_opens_or_ends_a_turn(template, row):
    """The frame's tokens are those of the same conversation with harmless texts."""
    encoder = _encoder("byte level", template)
    tokenizer = encoder.tokenizer
    harmless = {"prompt": [{**turn, "content": "x"} for turn in row["prompt"]], "chosen": "y", "rejected": "z"}
    encoded, _ = encoder.encode_pairs([rendered.pair_of(row)])
    expected, _ = encoder.encode_pairs([rendered.pair_of(harmless)])
    frame = {tokenizer.convert_tokens_to_ids(mark) for mark in ("<|im_start|>", "<|im_end|>", "<|eot|>", "<|start|>")}
    for pair in encoded:
        for side in ("prompt_ids", "chosen_ids", "rejected_ids"):
            of_frame = [token for token in getattr(pair, side) if token in frame]
            assert of_frame == [token for token in getattr(expected[0], side) if token in frame]
