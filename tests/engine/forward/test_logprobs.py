"""What a user would lose: scores of the wrong tokens, divided by the wrong length, depending on what else was in the
batch.
"""

import dataclasses

import pytest
import tiny
import torch

from simpo_workbench.config.run_config import DataConfig
from simpo_workbench.engine.encode.tokens import ChatEncoder, EncodedPair
from simpo_workbench.engine.forward import attention, proof
from simpo_workbench.engine.forward.logprobs import PackedScorer
from simpo_workbench.engine.forward.packing import RowPolicy, collate
from simpo_workbench.pairs.pairs import load_pairs

SHARED, PLAIN = RowPolicy(shared=True), RowPolicy(shared=False)


def encoded(count=6):
    return ChatEncoder(tiny.tokenizer(), DataConfig()).encode_pairs(list(load_pairs(tiny.rows(count))))[0]


@torch.no_grad()
def plain_logps(model, prompt, response):
    """One sequence alone through the plain model: the summed log-probability of its response."""
    logits = model(input_ids=torch.tensor([prompt + response])).logits[0].double()
    logps = torch.log_softmax(logits, -1)
    return sum(logps[len(prompt) - 1 + i, token] for i, token in enumerate(response)).item()


def tiny_model(family="llama"):
    model = tiny.model(family).double().eval()
    proof.install(model)
    return model


@pytest.mark.parametrize("policy", [SHARED, PLAIN])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "mistral"])
def test_equal_to_one_plain_forward_pass_per_answer(family, policy):
    model, pairs = tiny_model(family), encoded()
    logps = PackedScorer(model)(collate(pairs, policy))
    for index, pair in enumerate(pairs):
        assert logps.chosen[index].item() == pytest.approx(
            plain_logps(model, pair.prompt_ids, pair.chosen_ids), abs=1e-9
        )
        assert logps.rejected[index].item() == pytest.approx(
            plain_logps(model, pair.prompt_ids, pair.rejected_ids), abs=1e-9
        )
        assert (logps.chosen_tokens[index], logps.rejected_tokens[index]) == (
            len(pair.chosen_ids),
            len(pair.rejected_ids),
        )


@pytest.mark.parametrize("policy", [SHARED, PLAIN])
def test_a_model_of_unknown_kind_computes_its_logits_itself(policy):
    """Nothing is known of what follows its head, so its own forward pass makes the logits, still at the answers'
    positions only.
    """
    model, pairs = tiny_model("gemma2"), encoded()
    known = PackedScorer(model)(collate(pairs, policy))
    model.proof = dataclasses.replace(model.proof, head=None)
    seen = []
    model.lm_head.register_forward_hook(lambda module, arguments, output: seen.append(output.shape[:-1].numel()))
    own = PackedScorer(model)(collate(pairs, policy))
    assert torch.allclose(own.chosen, known.chosen, atol=1e-10)
    assert torch.allclose(own.rejected, known.rejected, atol=1e-10)
    assert sum(seen) == sum(len(pair.chosen_ids) + len(pair.rejected_ids) for pair in pairs)


@pytest.mark.parametrize("policy", [SHARED, PLAIN])
def test_average_is_over_scored_tokens_only(policy):
    pair = EncodedPair("x", [5, 6, 7], [8, 9], [10, 11, 12])
    model = tiny_model()
    logps = PackedScorer(model)(
        collate([pair, EncodedPair("long", [5] * 30, [8] * 20, [9] * 20)], policy)
    )  # padding beside it must not count
    assert logps.chosen_avg[0].item() == pytest.approx(plain_logps(model, [5, 6, 7], [8, 9]) / 2, abs=1e-9)
    assert logps.rejected_avg[0].item() == pytest.approx(plain_logps(model, [5, 6, 7], [10, 11, 12]) / 3, abs=1e-9)


@pytest.mark.parametrize("policy", [SHARED, PLAIN])
def test_prompt_and_answer_of_one_token(policy):
    model = tiny_model()
    logps = PackedScorer(model)(collate([EncodedPair("x", [5], [8], [9])], policy))
    assert logps.chosen[0].item() == pytest.approx(plain_logps(model, [5], [8]), abs=1e-9)
    assert logps.rejected[0].item() == pytest.approx(plain_logps(model, [5], [9]), abs=1e-9)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_agrees_with_trl_on_the_same_tokens(family):
    from trl.experimental.cpo import CPOTrainer

    model, pairs = tiny_model(family).float(), encoded()
    ours = PackedScorer(model)(collate(pairs, attention.row_policy(model)))
    for index, pair in enumerate(pairs):
        ids = torch.tensor([pair.prompt_ids + pair.chosen_ids])
        labels = ids.clone()
        labels[:, : len(pair.prompt_ids)] = -100
        theirs = CPOTrainer.get_batch_logps(model(input_ids=ids).logits, labels, average_log_prob=True)
        assert ours.chosen_avg[index].item() == pytest.approx(theirs.item(), abs=1e-5)


@pytest.mark.parametrize("policy", [SHARED, PLAIN])
def test_the_model_is_as_it_was_outside_of_the_scorer(policy):
    model, pairs = tiny_model(), encoded()
    head = model.lm_head
    before = dict(vars(head))
    batch = collate(pairs, policy)
    PackedScorer(model)(batch)
    assert vars(head) == before
    assert model(input_ids=batch.blocks[0].input_ids).logits.shape[-1] == head.out_features
    with pytest.raises(IndexError):
        PackedScorer(model)(
            type(batch)(batch.pair_ids, [type(batch.blocks[0])(torch.tensor([[10_000]]), *(torch.tensor([0]),) * 3)])
        )
    assert vars(head) == before
