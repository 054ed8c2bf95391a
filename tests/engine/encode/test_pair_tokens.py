"""What a user would lose: a token view that calls a role's name a prompt, or a user's word a template."""

import pytest
import tiny

import simpo_workbench as wb
from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.config.run_config import DataConfig, ModelConfig
from simpo_workbench.engine.encode.pair_tokens import encode_pair
from simpo_workbench.engine.model.tokenizer import load_tokenizer

PAIR = {"prompt": "user user", "chosen": "Paris, of course.", "rejected": "Lyon"}
DEADLINE_S = 120


def texts(table, kind, side="prompt"):
    return "".join(table.loc[(table["side"] == side) & (table["kind"] == kind), "token"])


@pytest.mark.parametrize(
    ("template", "options", "around"),
    [
        ("chatml", {}, "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"),
        ("llama3", {}, "<s><|start|>user<|end|>\n\n<|eot|><|start|>assistant<|end|>\n\n"),
        ("gemma", {}, "<s><|start|>user\n<|eot|>\n<|start|>model\n"),
        (
            "qwen3",
            {"enable_thinking": False},
            "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        ),
    ],
)
def test_what_the_template_wrote_is_told_from_the_same_words_in_the_prompt(template, options, around):
    table = encode_pair(tiny.tokenizer(template), PAIR, DataConfig(template_options=options))
    assert texts(table, "template") == around
    assert texts(table, "prompt") == "user user"


def test_answers_end_with_the_end_of_turn_and_all_of_it_is_scored():
    table = encode_pair(tiny.tokenizer(), PAIR)
    assert texts(table, "answer", "chosen") == "Paris, of course."
    assert texts(table, "end of turn", "chosen") == texts(table, "end of turn", "rejected") == "<|im_end|>"
    assert table.loc[table["scored"], "kind"].isin(["answer", "end of turn"]).all()
    assert not table.loc[~table["scored"], "kind"].isin(["answer", "end of turn"]).any()


def test_all_turns_are_prompt_and_a_system_turn_of_the_configuration_too():
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "assistant"},
        {"role": "user", "content": "What?"},
    ]
    table = encode_pair(tiny.tokenizer(), {**PAIR, "prompt": turns}, DataConfig(system_prompt="Be brief"))
    assert texts(table, "prompt") == "Be briefHiassistantWhat?"


def test_a_mark_that_the_user_wrote_is_prompt():
    table = encode_pair(tiny.tokenizer(), {**PAIR, "prompt": "see <|im_end|> there"})
    assert texts(table, "prompt") == "see <|im_end|> there"
    assert texts(table, "template").count("<|im_end|>") == 1


def test_a_template_that_trims_is_followed():
    assert texts(encode_pair(tiny.tokenizer("llama3"), {**PAIR, "prompt": "  What? \n"}), "prompt") == "What?"


def test_a_tokenizer_that_leaves_spaces_out_of_its_offsets():
    from tokenizers import processors

    tokenizer = tiny.tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    table = encode_pair(tokenizer, {**PAIR, "prompt": "What is the capital of France?"})
    assert texts(table, "prompt") == "What is the capital of France?"


@pytest.mark.parametrize(
    "earlier", [[], [{"role": "user", "content": "one " * 20}, {"role": "assistant", "content": "yes"}]]
)
def test_a_prompt_cut_from_the_left_keeps_its_kinds(earlier):
    turns = [*earlier, {"role": "user", "content": "word " * 30 + "the end"}]
    table = encode_pair(
        tiny.tokenizer(),
        {**PAIR, "prompt": turns},
        DataConfig(max_tokens=60, overlong="keep_end", system_prompt="Be brief"),
    )
    assert "cut from the left" in table.attrs["report"]
    assert texts(table, "prompt").startswith("Be brief")
    assert texts(table, "prompt").endswith("the end")
    assert texts(table, "template").startswith("<|im_start|>system\n<|im_end|>\n<|im_start|>user\n")


def test_without_offsets_special_tokens_are_the_templates():
    table = encode_pair(tiny.slow_tokenizer(), PAIR)
    assert set(table.loc[table["kind"] == "template", "token"]) == {"<|im_start|>", "<|im_end|>"}


def test_a_tokenizer_is_loaded_without_weights(tiny_model, tmp_path):
    folder = without_weights(tiny_model, tmp_path)
    assert load_tokenizer(ModelConfig(name=folder)).name_or_path == folder
    with pytest.raises(WorkbenchError, match="There is no model folder"):
        load_tokenizer(ModelConfig(name=str(tmp_path / "nowhere")))


def test_a_process_with_the_tokenizer_alone_encodes_and_refuses_the_rest(tiny_model, tmp_path):
    here = encode_pair(load_tokenizer(ModelConfig(name=tiny_model)), PAIR)
    with wb.open_model(ModelConfig(name=without_weights(tiny_model, tmp_path)), tokens_only=True) as there:
        there.ready(DEADLINE_S)
        answer = wb.encode_pair(there, PAIR)
        with pytest.raises(
            WorkbenchError,
            match="Only the tokenizer of this model is open, without its weights: it can encode, but not generate",
        ):
            there.generate("Hi")
        with pytest.raises(WorkbenchError, match=r"longer than data.max_tokens 8"):
            there.encode_pair(PAIR, DataConfig(max_tokens=8))
        with pytest.raises(WorkbenchError, match="One pair is taken at a time; got 2"):
            there.encode_pair([PAIR, {**PAIR, "prompt": "And?"}])
    assert answer.to_dict("records") == here.to_dict("records")
    assert not there.run.path.exists()


def without_weights(tiny_model, tmp_path):
    import shutil

    folder = tmp_path / "bare"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return str(folder)


def test_what_was_noticed_in_the_texts_is_said_beside_the_tokens(tiny_model):
    tokenizer = load_tokenizer(ModelConfig(name=tiny_model))
    assert encode_pair(tokenizer, PAIR).attrs["report"] == ""
    marked = {"prompt": "Hi", "chosen": "See <|im_end|> there", "rejected": "No."}
    report = encode_pair(tokenizer, marked).attrs["report"]
    assert "'<|im_end|>' in 1" in report
    assert "encoded as text" in report
