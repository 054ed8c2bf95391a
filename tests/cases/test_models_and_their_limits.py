"""Models with few positions, adapters with a larger vocabulary, bases stored in 4 bits, and runs after their end.

What a user would lose: a run that ends in an assertion of the device or in a truncated sentence, or that is "finished"
at once.
"""

import json
import re
import shutil
from pathlib import Path

import facts
import pytest
import tiny
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

import simpo_workbench as wb
from simpo_workbench.config.run_config import ModelConfig
from simpo_workbench.engine.model import models
from simpo_workbench.engine.training import train_in_process
from simpo_workbench.runs.launch import make_clone
from simpo_workbench.runs.run import Run

POSITIONS = 48
HELD_OUT = (("Greet me.", "Good day!", "Leave."), ("Thank me.", "Thank you!", "For what?"))


def plain(question, good, poor):
    return {"prompt": question, "chosen": good, "rejected": poor}


@pytest.fixture
def config(tiny_config, tmp_path):
    """One step on the facts, with held-out pairs of their own."""
    return tiny_config.with_changes(
        {
            "data.train": str(facts.jsonl(tmp_path / "train.jsonl", plain)),
            "data.eval": str(facts.jsonl(tmp_path / "eval.jsonl", plain, HELD_OUT)),
            "training.max_steps": 1,
            "training.learning_rate": 5e-5,
            "generation.prompts": ["Hi"],
            "generation.max_new_tokens": 4,
        }
    )


# --- fewer positions than the data need


@pytest.fixture(scope="module")
def few_positions(tmp_path_factory):
    """A GPT-2 with an embedding for each of 48 positions."""
    folder, tokenizer = tmp_path_factory.mktemp("few"), tiny.tokenizer()
    tokenizer.save_pretrained(folder)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_positions=POSITIONS, n_embd=16, n_layer=1, n_head=2)
    )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    return str(folder)


def short(*_):
    return {"prompt": "Hm?", "chosen": "Yes.", "rejected": "No."}


def numbered(path, count=6):
    return facts.jsonl(path, lambda number, *_: short() | {"prompt": f"{number}?"}, [(n,) for n in range(count)])


@pytest.mark.parametrize("start", [wb.preflight, wb.train])
def test_pairs_longer_than_the_positions_are_refused_with_the_setting_that_helps(
    config, few_positions, tmp_path, start
):
    long = facts.jsonl(tmp_path / "long.jsonl", lambda q, good, poor: plain(q + " Tell all." * 12, good, poor))
    with open(long, "a") as file:
        file.write(numbered(tmp_path / "short.jsonl").read_text())
    config = config.with_changes(
        {"model.name": few_positions, "data.train": str(long), "data.eval": str(numbered(tmp_path / "eval.jsonl"))}
    )
    with pytest.raises(wb.WorkbenchError, match=r"4 of 10 training pairs are longer than the model's 48 pos") as said:
        start(config)
    assert "Set data.max_tokens to 48 or less" in str(said.value)
    # the advice works, and what it leaves out is counted
    result = wb.preflight(config.with_changes({"data.max_tokens": POSITIONS}))
    assert [count for reason, count in result.dropped.items() if "data.max_tokens 48" in reason] == [4]


@pytest.mark.parametrize("start", [wb.preflight, wb.train])
def test_answers_that_would_not_fit_behind_short_pairs_are_refused_too(config, few_positions, tmp_path, start):
    path = str(numbered(tmp_path / "short.jsonl"))
    config = config.with_changes({"model.name": few_positions, "data.train": path, "data.eval": path})
    with pytest.raises(wb.WorkbenchError, match="more than the model's 48 positions") as said:
        start(config.with_changes({"generation.max_new_tokens": 60}))
    room = int(re.search(r"set generation\.max_new_tokens to at most (\d+)", str(said.value))[1])
    run = wb.train(config.with_changes({"generation.max_new_tokens": room, "run.name": "fitting"}))
    assert run.status.state == "finished"


# --- an adapter with embeddings of its own


def adapter(base, folder, more_tokens):
    """A LoRA adapter with the embeddings of a vocabulary of `more_tokens` more."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([f"<part{number}>" for number in range(more_tokens)])
    model.resize_token_embeddings(len(tokenizer))
    made = get_peft_model(model, LoraConfig(r=2, target_modules=["v_proj"], task_type="CAUSAL_LM"))
    made.save_pretrained(folder, save_embedding_layers=True)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("start", [wb.preflight, wb.train])
def test_an_adapter_of_a_larger_vocabulary_says_so_with_both_sizes_and_the_way_on(config, tiny_model, tmp_path, start):
    rows = len(AutoTokenizer.from_pretrained(tiny_model))
    with pytest.raises(wb.WorkbenchError) as said:
        start(config.with_changes({"model.adapter": adapter(tiny_model, tmp_path / "adapter", 4)}))
    text = str(said.value)
    assert f"for a vocabulary of {rows + 4} tokens; the model has {rows}" in text
    assert "merge" in text
    assert "model.name" in text
    assert not text.endswith(":")


def test_embeddings_of_the_same_size_beside_lora_are_no_obstacle(config, tiny_model, tmp_path):
    made = adapter(tiny_model, tmp_path / "adapter", 0)
    settings = {"model.adapter": made, "lora.r": 2, "lora.target_modules": ["v_proj"]}
    assert wb.train(config.with_changes(settings)).status.state == "finished"


def test_the_way_on_works(config, tiny_model, tmp_path):
    """What the sentence advises: merge, save, and give the folder as model.name."""
    from peft import PeftModel

    made = adapter(tiny_model, tmp_path / "adapter", 4)
    tokenizer, base = AutoTokenizer.from_pretrained(made), AutoModelForCausalLM.from_pretrained(tiny_model)
    base.resize_token_embeddings(len(tokenizer))
    PeftModel.from_pretrained(base, made).merge_and_unload().save_pretrained(tmp_path / "merged")
    tokenizer.save_pretrained(tmp_path / "merged")
    run = wb.train(config.with_changes({"model.name": str(tmp_path / "merged")}))
    assert run.status.state == "finished"


# --- a base that is stored in 4 bits


def test_a_base_stored_in_4_bits_is_trained_as_it_is_whatever_is_asked_for(config, tiny_model, tmp_path):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "base-4bit"))
    with models.load_base(ModelConfig(name=tiny_model, load_in="nf4")) as loaded:
        loaded.model.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["quantization_config"]["load_in_4bit"]
    losses = {}
    for name, base, load_in in (("nf4", folder, "nf4"), ("fp32", folder, "fp32"), ("control", tiny_model, "nf4")):
        run = wb.train(config.with_changes({"model.name": str(base), "model.load_in": load_in, "run.name": name}))
        losses[name] = [record["loss"] for record in run.records if record["kind"] == "train"]
        assert any("used as it is" in note for note in run.environment["data_notes"]) == (name != "control")
    assert losses["nf4"] == pytest.approx(losses["control"], rel=1e-5)
    assert losses["fp32"] == pytest.approx(losses["control"], rel=1e-5)


# --- going on after the end


@pytest.fixture
def finished(config):
    """A run of two epochs, finished."""
    run = wb.train(config.with_changes({"training.max_steps": None, "training.epochs": 2.0}))
    assert run.status.state == "finished"
    return run


def refusal(run):
    with pytest.raises(wb.WorkbenchError) as said:
        wb.resume(run.folder.name, run.path.parent)
    return str(said.value)


def test_a_finished_run_is_never_finished_again_without_a_step(finished):
    """Resuming names the call that trains an epoch more, and what becomes of the learning rate; the call works."""
    steps, said = finished.status.total_steps, refusal(finished)
    assert f"is finished: all {steps} steps are done" in said
    assert "learning rate" in said
    call = re.search(r"wb\.clone\((.*)\)", said)[1]
    root, step, changes = re.fullmatch(rf"'{finished.folder.name}', root=(.*), step=(\d+), changes=(.*)", call).groups()
    assert (root, int(step), changes) == (repr(str(finished.path.parent)), steps, "{'training.epochs': 3}")
    clone = make_clone(finished.folder, steps, {"training.epochs": 3})
    train_in_process(clone, resume=True)
    trained = [record["step"] for record in Run(clone).records if record["kind"] == "train"]
    assert trained == list(range(1, steps * 3 // 2 + 1))
    (resumed,) = [record["text"] for record in Run(clone).records if record.get("event") == "resumed"]
    assert "The learning rate goes on at" in resumed


def test_more_epochs_written_into_its_configuration_are_refused_with_the_way_that_works(finished):
    path = finished.folder.config
    text = path.read_text()
    path.write_text(re.sub(r"(?m)^(\s+epochs:) .*$", r"\1 3.0", text))
    assert path.read_text() != text
    said = refusal(finished)
    assert "config.yaml of the run 'tiny' is damaged or was changed" in said
    assert "with the old file back, wb.clone('tiny', changes={…}) trains with them" in said
    path.write_text(text)
    assert "is finished: all" in refusal(finished)
