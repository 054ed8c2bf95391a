"""What a user would lose: the first five minutes, and the proof that the numbers are those of TRL on a real model."""

import socket

import pytest
import torch

import simpo_workbench as wb
from simpo_workbench.base.paths import bundled
from simpo_workbench.config.run_config import GenerationConfig, ModelConfig
from simpo_workbench.engine.encode.tokens import ChatEncoder
from simpo_workbench.engine.forward.logprobs import PackedScorer
from simpo_workbench.engine.forward.packing import RowPolicy, collate
from simpo_workbench.engine.model import demo_model

pytestmark = pytest.mark.demo_model


def test_it_really_answers():
    with wb.load_model(ModelConfig(load_in="fp32")) as model:
        table = wb.generate(model, ["What is the capital of France?"], GenerationConfig(max_new_tokens=20))
    assert table["base"][0] == "The capital of France is Paris."


def test_end_to_end_parity_with_trl_on_the_same_tokens():
    """TRL's get_batch_logps and cpo_loss on padded rows with labels, against our scorer and loss: 1e-5, on real pairs
    and a real model.
    """
    from types import SimpleNamespace

    from trl.experimental.cpo import CPOTrainer

    pairs = list(wb.load_pairs(bundled("data/plain_answers/eval.jsonl")).limit(6))
    with wb.load_model(ModelConfig(load_in="fp32")) as model, torch.no_grad():
        encoded, _ = ChatEncoder(model.tokenizer).encode_pairs(pairs)
        ours = PackedScorer(model.model)(collate(encoded, RowPolicy(shared=True)))
        rows = [(pair.prompt_ids, pair.chosen_ids) for pair in encoded] + [
            (pair.prompt_ids, pair.rejected_ids) for pair in encoded
        ]
        width = max(len(prompt) + len(response) for prompt, response in rows)
        ids = torch.full((len(rows), width), model.tokenizer.pad_token_id)
        labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
        for index, (prompt, response) in enumerate(rows):
            length = len(prompt) + len(response)
            ids[index, :length], mask[index, :length] = torch.tensor(prompt + response), 1
            labels[index, len(prompt) : length] = torch.tensor(response)
        theirs = CPOTrainer.get_batch_logps(
            model.model(input_ids=ids, attention_mask=mask).logits, labels, average_log_prob=True
        )
    chosen, rejected = theirs[: len(encoded)], theirs[len(encoded) :]
    assert torch.allclose(ours.chosen_avg, chosen, atol=1e-5)
    assert torch.allclose(ours.rejected_avg, rejected, atol=1e-5)
    trainer = SimpleNamespace(
        alpha=0.0,
        beta=2.0,
        simpo_gamma=1.0,
        label_smoothing=0.0,
        loss_type="simpo",
        accelerator=SimpleNamespace(device="cpu"),
    )
    their_loss, *_ = CPOTrainer.cpo_loss(trainer, chosen, rejected)
    assert torch.allclose(wb.simpo_loss(ours.chosen_avg, ours.rejected_avg, 2.0, 0.5), their_loss, atol=1e-5)


def test_two_steps_of_true_qlora_on_the_demo(tmp_path, monkeypatch):
    """The demo as it comes, only shorter: NF4 base, adapters move, every record is whole, and nobody is asked for
    anything over the network.
    """
    demo_model.demo_model_folder()
    asked = []

    def refuse(host, *rest, **options):
        asked.append(host)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    config = (
        wb.RunConfig()
        .with_changes(
            {
                "training.max_steps": 2,
                "training.pairs_per_step": 2,
                "training.warmup_ratio": 0,
                "data.eval_limit": 4,
                "generation.held_out_prompts": 0,
            }
        )
        .with_changes({"generation.max_new_tokens": 8, "run.root": str(tmp_path), "run.name": "short"})
    )
    run = wb.train(config)
    assert run.status.state == "finished"
    assert asked == []
    assert run.environment["versions"]["bitsandbytes"] != "not installed"
    assert abs([record for record in run.records if record["kind"] == "eval"][-1]["eval/logps/chosen_drift"]) > 1e-4
    adapter = (run.adapter / "adapter_config.json").read_text()
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in adapter
