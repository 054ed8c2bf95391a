"""What a user would lose: an index error in the middle of a run, or a model that reads another model's token ids."""

from types import SimpleNamespace

import pytest
import tiny
from transformers import AutoConfig

import simpo_workbench as wb
from simpo_workbench.config.run_config import ModelConfig
from simpo_workbench.engine.model.vocabulary import positions_of, require_known_tokens


def saved(folder, more_rows=0, tokens=(), special=False):
    """A tiny model with `more_rows` beyond its tokenizer's vocabulary, to whose tokenizer `tokens` were added after."""
    tokenizer = tiny.tokenizer()
    model = tiny.model(vocab_size=len(tokenizer) + more_rows)
    tokenizer.add_tokens(list(tokens), special_tokens=special)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    name = saved(tmp_path, more_rows=-20)
    with pytest.raises(
        wb.WorkbenchError, match="has 20 tokens beyond the .* rows of the model's embedding.*resize_tok"
    ):
        wb.load_model(ModelConfig(name=name, load_in="fp32"))


def test_tokens_added_to_the_tokenizer_alone_are_refused(tmp_path):
    name = saved(tmp_path, tokens=["<fact>"])
    with pytest.raises(wb.WorkbenchError, match="such as '<fact>' with the id"):
        wb.load_model(ModelConfig(name=name, load_in="fp32"))


def test_rows_without_tokens_are_no_fault(tmp_path):
    """Embeddings are often padded to a multiple of 64."""
    wb.load_model(ModelConfig(name=saved(tmp_path, more_rows=64), load_in="fp32")).close()


def test_a_special_token_that_nothing_uses_is_said_and_refused_where_it_is_used(tmp_path):
    """As Gemma 3's text models: the tokenizer has a token for images, the embedding no row for it."""
    name = saved(tmp_path, tokens=["<image_soft>"], special=True)
    with wb.load_model(ModelConfig(name=name, load_in="fp32")) as loaded:
        assert "'<image_soft>': texts that contain one are refused" in loaded.notes[0]
        assert len(wb.generate(loaded, ["Hello"], wb.GenerationConfig(max_new_tokens=2))) == 1


@pytest.mark.parametrize("use", ["end", "template"])
def test_a_special_token_that_is_used_is_refused(use):
    tokenizer = tiny.tokenizer()
    rows = len(tokenizer)
    tokenizer.add_tokens(["<new>"], special_tokens=True)
    if use == "end":
        tokenizer.eos_token = "<new>"
    else:
        tokenizer.chat_template = tokenizer.chat_template + "{{ '<new>' }}"
    with pytest.raises(wb.WorkbenchError, match="such as '<new>'"):
        require_known_tokens(tokenizer, rows, "m")
    assert require_known_tokens(tokenizer, rows + 1, "m") is None


def test_a_padding_token_without_a_row_is_replaced(tmp_path):
    """Padding is masked; many add a token for it without enlarging the embedding."""
    tokenizer = tiny.tokenizer()
    tiny.model(vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(tmp_path)
    with wb.load_model(ModelConfig(name=str(tmp_path), load_in="fp32")) as loaded:
        assert loaded.tokenizer.pad_token == loaded.tokenizer.eos_token
        answers = wb.generate(loaded, ["Hi", "What is the capital of France?"], wb.GenerationConfig(max_new_tokens=2))
        assert len(answers) == 2


@pytest.mark.parametrize(
    ("kind", "settings", "positions"),
    [
        ("gpt2", {"n_positions": 256}, 256),
        ("llama", {"max_position_embeddings": 4096}, 4096),
        (
            "qwen2",
            {
                "max_position_embeddings": 32768,
                "rope_parameters": {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 32768,
                    "rope_theta": 1e6,
                },
            },
            131072,
        ),
        (
            "llama",  # as Llama 3.1: the number already holds the factor
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "original_max_position_embeddings": 8192,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "rope_theta": 5e5,
                },
            },
            131072,
        ),
        ("falcon", {"alibi": True}, None),
        ("bloom", {}, None),
        ("mamba", {}, None),
    ],
)
def test_positions(kind, settings, positions):
    assert positions_of(AutoConfig.for_model(kind, **settings)) == positions


def test_a_number_that_is_none_is_no_limit():
    config = SimpleNamespace(max_position_embeddings=None, get_text_config=lambda: config)
    assert positions_of(config) is None
