"""What a user would lose: a model trained on conversations inside a user turn, which it never meets in use."""

import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.config.run_config import DataConfig
from simpo_workbench.pairs.data_sets import load_data
from simpo_workbench.pairs.framed_prompts import REASON, framed_by, framed_turns, unframed_prompt
from simpo_workbench.pairs.pairs import load_pairs

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Capital of\nPeru?"},
]
FRAMED = {
    "ChatML": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello."
    "<|im_end|>\n<|im_start|>user\nCapital of\nPeru?<|im_end|>\n<|im_start|>assistant\n",
    "Llama 3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_head"
    "er_id|>user"
    "<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nCapital of\nPeru?<|eot_id|><|start_header_id|>assistant"
    "<|end_header_id|>\n\n",
    "Phi, Zephyr or GLM": "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello.</s>\n<|user|>\nC"
    "apital of\n"
    "Peru?</s>\n<|assistant|>\n",
    "Command R": "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be brief.<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Hello."
    "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Capital of\nPeru?<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "Llama 2 or Mistral": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello. </s><s>[INST] Capital of\nPeru?"
    " [/INST]",
    "Gemma 4": "<bos><|turn>system\nBe brief.<turn|>\n<|turn>user\nHi<turn|>\n<|turn>model\nHello.<turn|>\n<|t"
    "urn>user\n"
    "Capital of\nPeru?<turn|>\n<|turn>model\n",
}
WITHOUT_SYSTEM = {
    "Gemma": "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n<start_of_"
    "turn>user\n"
    "Capital of\nPeru?<end_of_turn>\n<start_of_turn>model\n",
    "DeepSeek": "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>Hello.<｜end▁of▁sentence｜>"
    "<｜User｜>Capital of\nPeru?<｜Assistant｜><think>\n",
}
ALPACA = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write "
    "a response"
    " that appropriately completes the request.\n\n### Instruction:\nTranslate.\n\n### Input:\nHola\n\n### Response:\n"
)


def row(prompt, number=0):
    return {"prompt": prompt, "chosen": f"Lima. {number}", "rejected": "Cusco."}


@pytest.mark.parametrize(
    ("name", "text", "turns"),
    [
        *((name, text, CONVERSATION) for name, text in FRAMED.items()),
        *((name, text, CONVERSATION[1:]) for name, text in WITHOUT_SYSTEM.items()),
        ("Alpaca", ALPACA, [{"role": "user", "content": "Translate.\n\nHola"}]),
    ],
)
def test_a_framed_prompt_is_refused_with_the_option_that_reads_it_and_the_option_does(name, text, turns):
    assert (framed_by(text), framed_turns(text)) == (name, turns)
    pairs = load_pairs([row("plain"), row(text)])
    assert pairs.report().refused == {REASON: 1}
    assert "data.framed_prompts as_conversation" in str(pairs.report())
    pairs = load_pairs([row("plain"), row(text)], framed_prompts="as_conversation")
    assert list(pairs[1].prompt) == turns
    assert pairs[1].pair_id == load_pairs([row(turns)])[0].pair_id
    assert "1 pair that a chat template had framed was read as a conversation" in str(pairs.report())
    assert load_pairs([row(text)], framed_prompts="keep")[0].prompt == ({"role": "user", "content": text},)


@pytest.mark.parametrize(
    "text",
    [
        "What does <|im_start|>assistant mean?",
        "Explain: <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",  # a text before the frame
        "<|im_start|>user\nHi",  # the turn does not end
        "USER: Hi ASSISTANT: Hello. Who said so?",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello",  # the answer has begun
        "<|im_start|>assistant\n",
        "### Response: is a heading",
        "Use [INST] and [/INST].",
        "",
    ],
)
def test_a_text_that_only_speaks_of_a_frame_is_none(text):
    assert framed_by(text) is None
    assert framed_turns(text) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("<|im_start|>user\nHi<|im_end|>\n", "ChatML"),
        ("<start_of_turn>user\nHi<end_of_turn>\n", "Gemma"),
        ("USER: Hi ASSISTANT:", "Vicuna"),
        (
            "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful"
            " answers. USER: Hi ASSISTANT:",
            "Vicuna",
        ),
    ],
)
def test_a_framed_prompt_may_end_with_its_turn_and_may_have_words_for_marks(text, name):
    assert framed_by(text) == name
    assert framed_turns(text) == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("mark", ["<|im_start|>assistant\n", "<start_of_turn>model\n", "ASSISTANT: ", "[/INST] "])
def test_an_answer_that_begins_with_its_own_frame_is_refused_or_read(mark):
    rows = [row("Where?") | {"chosen": mark + "Here."}, row("Who?")]
    report = load_pairs(rows).report()
    assert report.refused == {"framed by a template": 1}
    assert load_pairs(rows, framed_prompts="as_conversation")[0].chosen == "Here."
    assert load_pairs(rows, framed_prompts="keep")[0].chosen == mark + "Here."


def test_where_all_prompts_are_framed_the_error_names_the_option():
    with pytest.raises(WorkbenchError, match="as_conversation"):
        load_pairs([row(FRAMED["ChatML"])])


def test_the_setting_reaches_training_data(tmp_path):
    import json

    path = tmp_path / "pairs.jsonl"
    texts = [FRAMED["ChatML"], FRAMED["ChatML"].replace("Peru", "Chile")]
    path.write_text("".join(json.dumps(row(text)) + "\n" for text in texts))
    train, held_out, _, notes, _ = load_data(DataConfig(train=str(path), framed_prompts="as_conversation"), seed=0)
    assert (len(train), len(held_out), len(train[0].prompt)) == (1, 1, 4)
    assert "2 pairs that a chat template had framed" in notes[0]


def test_a_framed_system_text_beside_another_is_refused():
    rows = [row("plain"), row(FRAMED["ChatML"]) | {"system": "Be long."}]
    assert load_pairs(rows, framed_prompts="as_conversation").report().refused == {"two system texts": 1}


def test_marks_in_texts_are_counted_per_data_set_without_those_that_end_an_answer():
    rows = [
        row("a <|im_end|> b [INST]"),
        row("c") | {"chosen": "x<|im_end|>\n</s>"},
        row("d") | {"rejected": "[INST] y"},
    ]
    assert "2 pairs hold marks of chat templates in the texts ('[INST]' in 2, '<|im_end|>' in 1)" in str(
        load_pairs(rows).report()
    )
    assert load_pairs(rows[1:2]).report().notes == ()


def test_prompts_that_a_user_gives_are_read_as_the_policy_says():
    framed = [{"role": "user", "content": "<|im_start|>system\nShort.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"}]
    assert unframed_prompt(framed, "keep") == framed
    read = [{"role": "system", "content": "Short."}, {"role": "user", "content": "Hi"}]
    assert unframed_prompt(framed, "as_conversation") == read
    with pytest.raises(WorkbenchError, match=r"framed as ChatML does it; give data\.framed_prompts as_conversation"):
        unframed_prompt(framed, "refuse")
    with pytest.raises(WorkbenchError, match="one is inside the framed prompt"):
        unframed_prompt([read[0], *framed], "as_conversation")
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    assert unframed_prompt(parts, "refuse") == parts
