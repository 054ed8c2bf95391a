"""Tests that every family of models passes, and what they are built from.

The quick tier imports them for one family of each mechanism, tests/full for the others.
"""

import dataclasses
import random

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model

from simpo_workbench.engine.encode.tokens import EncodedPair
from simpo_workbench.engine.forward import attention, attention_blocked, memory, proof
from simpo_workbench.engine.forward.logprobs import PackedScorer
from simpo_workbench.engine.forward.packing import RowPolicy, collate

LENGTHS = [(1, 1, 1), (5, 1, 7), (20, 30, 12), (40, 25, 33), (3, 2, 60), (12, 12, 12)]
COMMON_BEGINNING = [(10, 1, 7), (20, 30, 12), (12, 2, 60), (40, 25, 33), (12, 12, 12)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Tiny pairs take every path of the CPU backend: some go side by side, some block by block."""
    monkeypatch.setattr(attention_blocked, "SHORT_PAIR_TOKENS", 40)
    monkeypatch.setattr(attention_blocked, "QUERIES_PER_BLOCK", 16)
    monkeypatch.setattr(attention_blocked, "KEPT_PAIR_TOKENS", 50)


def pairs(lengths=LENGTHS, seed=1):
    rng = random.Random(seed)
    made = [[[rng.randrange(10, 390) for _ in range(count)] for count in counts] for counts in lengths]
    made[3][2][:10] = made[3][1][:10]  # answers with a common beginning
    if lengths is COMMON_BEGINNING:
        for prompt, _, _ in made:
            prompt[:9] = made[0][0][:9]
    return [EncodedPair(str(index), *ids) for index, ids in enumerate(made)]


def with_lora(family, **shape):
    model = tiny.model(family, **shape)
    proof.install(model)
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lm_head" not in name and name.rsplit(".")[-1] != "gate"
    ]
    torch.manual_seed(3)
    wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False))
    return wrapped.train()


def outcome(model, policy, lengths=LENGTHS):
    """(average log-probabilities, gradient of every trained parameter by name)."""
    model.zero_grad()
    logps = PackedScorer(model)(collate(pairs(lengths), policy))
    (logps.chosen_avg - 2 * logps.rejected_avg).sum().backward()
    return torch.cat([logps.chosen_avg, logps.rejected_avg]).detach(), {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }


def plain_average(model, prompt, answer):
    """One sequence alone through the model as transformers runs it."""
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0]
    return (
        torch.log_softmax(logits.float(), -1)[range(len(prompt) - 1, len(prompt) + len(answer) - 1), answer]
        .mean()
        .item()
    )


@pytest.mark.parametrize("lengths", [LENGTHS, COMMON_BEGINNING], ids=["own prompts", "common beginning"])
def test_packed_rows_equal_the_oracle_and_one_plain_pass_per_answer(family, lengths):
    """Log-probabilities and every LoRA gradient, on the backend in use, the dense-mask oracle and padded rows of whole
    sequences.

    fp32 sums over up to 80 keys in another order differ by a few 1e-7 of their size; 2e-5 holds that a hundred times
    over, and a token that looks at a wrong place changes log-probabilities by 1e-2 and more.
    """
    model = with_lora(family)
    policy = attention.row_policy(model)
    assert policy == RowPolicy(shared=True)
    assert collate(pairs(lengths), policy).blocks[0].layout.shared == (9 if lengths is COMMON_BEGINNING else 0)
    logps, gradients = outcome(model, policy, lengths)
    assert len(gradients) >= 2 * 3 * 4  # A and B of four layers or more in each of three blocks
    for other in (dataclasses.replace(policy, backend="dense"), RowPolicy(shared=False)):
        oracle_logps, oracle_gradients = outcome(model, other, lengths)
        assert torch.allclose(logps, oracle_logps, atol=2e-5, rtol=0)
        assert oracle_gradients.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert (gradient - oracle_gradients[name]).norm() <= 2e-5 * oracle_gradients[name].norm(), name
    with torch.no_grad():
        plain = [
            plain_average(model, one.prompt_ids, answer)
            for side in ("chosen_ids", "rejected_ids")
            for one, answer in ((one, getattr(one, side)) for one in pairs(lengths))
        ]
    assert logps.tolist() == pytest.approx(plain, abs=2e-5)


def test_checkpointing_changes_no_bit(family):
    model = with_lora(family)
    forwards = []
    memory.layers_of(model)[1].self_attn.register_forward_pre_hook(lambda *_: forwards.append(None))
    logps, gradients = outcome(model, attention.row_policy(model))
    assert len(forwards) == 1
    memory.checkpoint_layers(model, 3)
    again_logps, again = outcome(model, attention.row_policy(model))
    assert len(forwards) == 3  # once more in backward
    assert torch.equal(logps, again_logps)
    assert all(torch.equal(gradients[name], again[name]) for name in gradients)


@pytest.mark.parametrize("lengths", [LENGTHS, COMMON_BEGINNING], ids=["own prompts", "common beginning"])
@pytest.mark.parametrize("changed", ["chosen of the same pair", "another pair"])
def test_isolation_to_the_last_bit(family, changed, lengths):
    model = tiny.model(family).eval()
    proof.install(model)
    policy, ours = attention.row_policy(model), pairs(lengths)
    theirs = [dataclasses.replace(one, chosen_ids=[11] * len(one.chosen_ids)) for one in ours]
    if changed == "another pair":
        theirs = [
            ours[0],
            *(
                dataclasses.replace(one, prompt_ids=[*one.prompt_ids[:9], *([12] * (len(one.prompt_ids) - 9))])
                for one in theirs[1:]
            ),
        ]
    first, second = (PackedScorer(model)(collate(group, policy)) for group in (ours, theirs))
    assert not torch.equal(first.chosen, second.chosen)
    if changed == "another pair":
        assert torch.equal(
            torch.stack([first.chosen[0], first.rejected[0]]), torch.stack([second.chosen[0], second.rejected[0]])
        )
    else:
        assert torch.equal(first.rejected, second.rejected)


def test_hybrid_models_are_refused_and_still_scored_right(hybrid):
    model = tiny.model(hybrid).eval()
    proof.install(model)
    policy = attention.row_policy(model)
    assert not policy.shared
    assert "in packed rows of a tiny model of its kind" in policy.reason
    logps = PackedScorer(model)(collate(pairs(), policy))
    with torch.no_grad():
        plain = [plain_average(model, one.prompt_ids, one.chosen_ids) for one in pairs()]
    assert logps.chosen_avg.tolist() == pytest.approx(plain, abs=2e-5)
    wrapped = with_lora(hybrid)
    _, gradients = outcome(wrapped, policy)
    _, alone = outcome(wrapped, RowPolicy(shared=False, longest=0))  # every sequence in a row of its own
    assert gradients
    for name, gradient in alone.items():
        assert (gradients[name] - gradient).norm() <= 2e-5 * gradient.norm().clamp_min(1e-6), name
