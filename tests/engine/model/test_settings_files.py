"""A damaged or hostile settings file of a model ends in a sentence, whatever error the library raises for it."""

import json
import shutil
from pathlib import Path

import pytest

import simpo_workbench as wb
from simpo_workbench.config.run_config import GenerationConfig, ModelConfig
from simpo_workbench.engine.model import file_check

FILES = ["config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"]


@pytest.fixture
def folder(tiny_model, tmp_path):
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def change(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **values}))


def refusal(folder):
    model = ModelConfig(name=str(folder), load_in="fp32")
    with pytest.raises(wb.WorkbenchError) as error, wb.load_model(model) as loaded:
        wb.generate(loaded, ["Hi"], GenerationConfig(max_new_tokens=2))
    assert len(str(error.value)) < 900
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"[1]", b"null", b"\xff\xfe\x00", b"[" * 100_000])
def test_what_is_no_json_object_is_named(folder, name, content):
    (folder / name).write_bytes(content)
    assert f"{name} is damaged, expected a JSON object" in refusal(folder)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hidden_size": "x"}, "hidden_size"),
        ({"num_attention_heads": 0}, "ZeroDivisionError"),
        ({"hidden_act": 5}, "hidden_act"),
        ({"dtype": "nope"}, "nope"),
        ({"quantization_config": "x"}, "wrong kind"),
        ({"text_config": 5}, "wrong kind"),
        ({"auto_map": 5}, "wrong kind"),
        ({"layer_types": ["x"]}, "layer_type"),
        ({"is_encoder_decoder": True}, "an encoder with a decoder"),
    ],
)
def test_values_of_a_wrong_kind_in_config_json(folder, values, said):
    change(folder, "config.json", **values)
    assert said in refusal(folder)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"eos_token_id": "x"}, "eos_token_id in its generation_config.json (or config.json) is 'x'"),
        ({"eos_token_id": [None]}, "expected a token id or a list of them"),
        ({"pad_token_id": "q"}, "cannot be loaded"),
        ({"no_repeat_ngram_size": "a"}, "cannot be sampled from"),
        ({"penalty_alpha": 0.5, "top_k": 4}, "cannot be sampled from"),
        ({"watermarking_config": {"a": 1}}, "WatermarkingConfig"),
        ({"stop_strings": ["(" * 1000]}, "cannot be sampled from"),
    ],
)
def test_values_of_a_wrong_kind_in_generation_config(folder, values, said):
    change(folder, "generation_config.json", **values)
    assert said in refusal(folder)


def test_beams_of_a_models_own_settings_are_not_searched(folder):
    expected = None
    for beams in (1, 10**9):  # whose memory no machine has
        change(folder, "generation_config.json", num_beams=beams, num_return_sequences=beams)
        with wb.load_model(ModelConfig(name=str(folder), load_in="fp32")) as model:
            answer = wb.generate(model, ["Hi"], GenerationConfig(max_new_tokens=4))["base"][0]
        expected = answer if expected is None else expected
        assert answer == expected


@pytest.mark.parametrize(
    "values",
    [
        {"tokenizer_class": 5},
        {"eos_token": 5},
        {"pad_token": {"content": 5}},
        {"added_tokens_decoder": 5},
        {"added_tokens_decoder": {"5": {"content": 5}}},
        {"model_max_length": "x"},
        {"extra_special_tokens": 5},
        {"tokenizer_object": 5},
        {"self": 1},
    ],
)
def test_values_of_a_wrong_kind_in_tokenizer_config(folder, values):
    change(folder, "tokenizer_config.json", **values)
    assert "cannot be loaded" in refusal(folder)


@pytest.fixture
def word_lists(folder):
    """A model whose tokenizer is a list of words and one of merges, as older models have it."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in tokenizer["merges"]]
    (folder / "vocab.json").write_text(json.dumps(tokenizer["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    change(folder, "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    return folder


def test_a_tokenizer_of_word_lists_is_tried_in_the_limited_process(word_lists, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tried, verdict = [], file_check.limited_process.verdict

    def watched(script, task, *rest):
        tried.append(task["kind"])
        return verdict(script, task, *rest)

    monkeypatch.setattr(file_check.limited_process, "verdict", watched)
    file_check.require_bounded_tokenizer(word_lists, "words")
    file_check.require_bounded_tokenizer(word_lists, "words")  # it is remembered
    assert tried == ["word lists"]
    change(word_lists, "tokenizer_config.json", model_max_length=77)
    file_check.require_bounded_tokenizer(word_lists, "words")
    assert tried == ["word lists"] * 2


def test_word_lists_that_make_endless_texts_are_refused(word_lists):
    endless = "x" * 1_000_000
    (word_lists / "vocab.txt").write_text(f"[PAD]\n{endless}\n[CLS]\n[SEP]\n[MASK]\n")
    change(word_lists, "tokenizer_config.json", tokenizer_class="BertTokenizer", unk_token=endless)
    with pytest.raises(wb.WorkbenchError, match="it is not used"):
        file_check.require_bounded_tokenizer(word_lists, "words")


def test_word_lists_beyond_all_measure_are_not_read(word_lists, monkeypatch):
    monkeypatch.setattr(file_check, "LARGEST_TOKENIZER", 10)
    with pytest.raises(wb.WorkbenchError, match="it is not read"):
        file_check.require_bounded_tokenizer(word_lists, "words")
