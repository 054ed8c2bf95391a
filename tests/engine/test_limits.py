"""What a user would lose: an assertion on the device that names nothing, or answers that were cut without a word."""

import json

import pytest
import tiny

import simpo_workbench as wb
from simpo_workbench.config.run_config import DataConfig, GenerationConfig, ModelConfig
from simpo_workbench.runs.folder import RunFolder


@pytest.fixture(scope="module")
def short_model(tmp_path_factory):
    """A GPT-2 of 64 positions, each with an embedding of its own."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder, tokenizer = tmp_path_factory.mktemp("gpt2"), tiny.tokenizer()
    tokenizer.save_pretrained(folder)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=2)
    model = GPT2LMHeadModel(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    return str(folder)


def pairs(words):
    return [{"prompt": "Why? " * words, "chosen": "Yes " * 3, "rejected": "No " * 3}]


@pytest.fixture
def config(tiny_config, short_model, tmp_path):
    """A run on the short model whose pairs all fit."""
    rows = [{"prompt": f"Say {i}", "chosen": "Yes.", "rejected": "No."} for i in range(8)]
    for name in ("train", "eval"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tiny_config.with_changes(
        {
            "model.name": short_model,
            "data.train": str(tmp_path / "train.jsonl"),
            "data.eval": str(tmp_path / "eval.jsonl"),
            "generation.prompts": ["Hi"],
            "training.max_steps": 1,
        }
    )


@pytest.mark.parametrize("start", [wb.preflight, wb.train])
@pytest.mark.parametrize("side", ["train", "eval"])
def test_pairs_longer_than_the_models_positions_are_refused_before_the_first_step(config, start, side, tmp_path):
    with open(tmp_path / f"{side}.jsonl", "a") as file:
        file.write(json.dumps(pairs(40)[0]) + "\n")
    named = {"train": "training", "eval": "held-out"}[side]
    with pytest.raises(
        wb.WorkbenchError, match=f"1 of 9 {named} pairs is longer than the model's 64 positions"
    ) as said:
        start(config)
    assert "Set data.max_tokens to 64 or less" in str(said.value)
    fitting = wb.preflight(config.with_changes({"data.max_tokens": 64}))
    assert sum(fitting.dropped.values()) == 1  # the advice works, and the pair is counted


@pytest.mark.parametrize("start", [wb.preflight, wb.train])
def test_answers_longer_than_the_models_positions_are_refused_before_the_first_step(config, start):
    with pytest.raises(wb.WorkbenchError, match=r"answer may have 64 \(generation.max_new_tokens\)") as said:
        start(config.with_changes({"generation.max_new_tokens": 64}))
    room = int(str(said.value).partition("generation.max_new_tokens to at most ")[2].split(",")[0])
    run = wb.train(config.with_changes({"generation.max_new_tokens": room, "run.name": "shorter"}))
    assert run.status.state == "finished"


def test_prompts_that_are_too_long_are_refused_while_it_trains(config):
    """Otherwise the run would end at its next evaluation."""
    box, requests = RunFolder(f"{config.run.root}/tiny").mailbox, []

    def ask(record):
        if record["kind"] == "train" and not requests:
            requests.append(box.ask("set", prompts=["Why? " * 60]))

    run = wb.train(config.with_changes({"training.max_steps": 3}), on_record=ask)
    assert run.status.state == "finished"
    assert box.reply(requests[0])["state"] == "refused"
    assert "more than the model's 64 positions" in box.reply(requests[0])["text"]


def test_generate_score_and_explain_refuse_what_does_not_fit(short_model):
    with wb.load_model(ModelConfig(name=short_model, load_in="fp32")) as loaded:
        short, long = GenerationConfig(max_new_tokens=4), GenerationConfig(max_new_tokens=60)
        assert len(wb.generate(loaded, ["Hi"], short)) == 1
        with pytest.raises(wb.WorkbenchError, match="which is more than the model's 64 positions. Ask for shorter"):
            wb.generate(loaded, ["Hi"], long)
        with pytest.raises(wb.WorkbenchError, match="Shorten or leave out that prompt"):
            wb.generate(loaded, ["Why? " * 60], short)
        assert len(wb.score(loaded, pairs(2))) == 1
        with pytest.raises(wb.WorkbenchError, match="1 of 1 pair is longer than the model's 64 positions"):
            wb.score(loaded, pairs(40))
        with pytest.raises(wb.WorkbenchError, match="longer than the model's 64 positions"):
            wb.explain_pair(loaded, pairs(40))
        cut = wb.score(loaded, pairs(40), data=DataConfig(max_tokens=64, overlong="keep_end"))
        assert cut["truncated"].tolist() == [True]


def test_a_token_beyond_the_embedding_is_refused_where_it_is_used(tmp_path):
    tokenizer = tiny.tokenizer()
    tiny.model(vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.add_tokens(["<image_soft>"], special_tokens=True)
    tokenizer.save_pretrained(tmp_path)
    with wb.load_model(ModelConfig(name=str(tmp_path), load_in="fp32")) as loaded:
        with pytest.raises(wb.WorkbenchError, match="The token '<image_soft>' of a prompt has the id"):
            wb.generate(loaded, ["See <image_soft>"], GenerationConfig(max_new_tokens=2))
        with pytest.raises(wb.WorkbenchError, match="The token '<image_soft>' of a pair has the id"):
            wb.score(loaded, [{"prompt": "Hi", "chosen": "a <image_soft> b", "rejected": "No."}])
