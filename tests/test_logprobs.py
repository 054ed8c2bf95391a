"""What a user would lose: scores of the wrong tokens, divided by the wrong length, depending on what else was in the batch."""

import pytest
import tiny
import torch

from simpo_workbench.config import DataConfig
from simpo_workbench.engine.logprobs import PackedScorer, can_share_prompts
from simpo_workbench.engine.packing import collate, plan
from simpo_workbench.engine.tokens import ChatEncoder, EncodedPair
from simpo_workbench.pairs import load_pairs

FAMILIES = ["llama", "qwen3", "gemma2", "mistral"]


def encoded(count=6):
    return ChatEncoder(tiny.tokenizer(), DataConfig()).encode_pairs(list(load_pairs(tiny.rows(count))))[0]


@torch.no_grad()
def plain_logps(model, prompt, response):
    """One sequence alone through the plain model: the summed log-probability of its response."""
    logits = model(input_ids=torch.tensor([prompt + response])).logits[0].double()
    logps = torch.log_softmax(logits, -1)
    return sum(logps[len(prompt) - 1 + i, token] for i, token in enumerate(response)).item()


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_to_one_plain_forward_pass_per_answer(family):
    """With the prompt shared where the model allows it; Gemma 2 and this Mistral, whose layers look through a window, must not share."""
    model, pairs = tiny.model(family).double().eval(), encoded()
    assert can_share_prompts(model) == (family in ("llama", "qwen3"))
    logps = PackedScorer(model)(collate(pairs, can_share_prompts(model)))
    for index, pair in enumerate(pairs):
        assert logps.chosen[index].item() == pytest.approx(plain_logps(model, pair.prompt_ids, pair.chosen_ids), abs=1e-9)
        assert logps.rejected[index].item() == pytest.approx(plain_logps(model, pair.prompt_ids, pair.rejected_ids), abs=1e-9)
        assert (logps.chosen_tokens[index], logps.rejected_tokens[index]) == (len(pair.chosen_ids), len(pair.rejected_ids))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_shared_prompt_changes_neither_log_probabilities_nor_gradients(family):
    gradients, logps = {}, {}
    for share in (False, True):
        model = tiny.model(family).double()
        made = PackedScorer(model)(collate(encoded(), share))
        (made.chosen_avg - 2 * made.rejected_avg).sum().backward()
        gradients[share] = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        logps[share] = torch.cat([made.chosen, made.rejected])
    assert torch.allclose(logps[True], logps[False], atol=1e-10)
    assert ((gradients[True] - gradients[False]).norm() / gradients[False].norm()).item() < 1e-6  # the norms compute in fp32 whatever the weights are


def test_the_rejected_answer_never_sees_the_chosen_one():
    """Another chosen answer of the same length leaves the rejected one's log-probability as it is, to the last bit."""
    model = tiny.model().eval()
    one, other = (PackedScorer(model)(collate([EncodedPair("x", [5, 6, 7], chosen, [10, 11, 12])], True)) for chosen in ([8, 9], [20, 30]))
    assert one.chosen.item() != other.chosen.item()
    assert torch.equal(one.rejected, other.rejected)


def test_a_hybrid_or_unknown_model_is_kept_out_of_sharing():
    model = tiny.model()
    model.config.model_type = "something_new"
    assert not can_share_prompts(model)
    model = tiny.model()
    model.config.layer_types = ["full_attention", "linear_attention", "full_attention"]
    assert not can_share_prompts(model)


@pytest.mark.parametrize("share", [False, True])
def test_average_is_over_scored_tokens_only(share):
    pair = EncodedPair("x", [5, 6, 7], [8, 9], [10, 11, 12])
    model = tiny.model().double().eval()
    logps = PackedScorer(model)(collate([pair, EncodedPair("long", [5] * 30, [8] * 20, [9] * 20)], share))  # padding beside it must not count
    assert logps.chosen_avg[0].item() == pytest.approx(plain_logps(model, [5, 6, 7], [8, 9]) / 2, abs=1e-9)
    assert logps.rejected_avg[0].item() == pytest.approx(plain_logps(model, [5, 6, 7], [10, 11, 12]) / 3, abs=1e-9)


@pytest.mark.parametrize("share", [False, True])
def test_prompt_and_answer_of_one_token(share):
    model = tiny.model().double().eval()
    logps = PackedScorer(model)(collate([EncodedPair("x", [5], [8], [9])], share))
    assert logps.chosen[0].item() == pytest.approx(plain_logps(model, [5], [8]), abs=1e-9)
    assert logps.rejected[0].item() == pytest.approx(plain_logps(model, [5], [9]), abs=1e-9)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_agrees_with_trl_on_the_same_tokens(family):
    from trl.experimental.cpo import CPOTrainer

    model, pairs = tiny.model(family).eval(), encoded()
    ours = PackedScorer(model)(collate(pairs, can_share_prompts(model)))
    for index, pair in enumerate(pairs):
        ids = torch.tensor([pair.prompt_ids + pair.chosen_ids])
        labels = ids.clone()
        labels[:, : len(pair.prompt_ids)] = -100
        theirs = CPOTrainer.get_batch_logps(model(input_ids=ids).logits, labels, average_log_prob=True)
        assert ours.chosen_avg[index].item() == pytest.approx(theirs.item(), abs=1e-5)


def test_logits_are_computed_at_predicting_positions_only():
    model, pairs = tiny.model().eval(), encoded()
    seen = []
    model.lm_head.register_forward_hook(lambda module, arguments, output: seen.append(output.shape[:-1].numel()))
    batch = collate(pairs, True)
    PackedScorer(model)(batch)
    assert sum(seen) == sum(len(pair.chosen_ids) + len(pair.rejected_ids) for pair in pairs)
    assert len(batch.blocks) == len(seen)
    model(input_ids=batch.blocks[0].input_ids[:1])
    assert seen[-1] == batch.blocks[0].input_ids.shape[1]  # outside the scorer the head is as it was


@pytest.mark.parametrize("share", [False, True])
def test_plan_keeps_every_pair_once_and_stays_within_the_budget(share):
    pairs = encoded(12)
    groups = plan(pairs, 300, share)
    assert sorted(pair.pair_id for group in groups for pair in group) == sorted(pair.pair_id for pair in pairs)
    assert all(collate(group, share).tokens <= 300 for group in groups)
    assert len(groups) > 1
    assert [[p.pair_id for p in g] for g in plan(pairs[::-1], 300, share)] == [[p.pair_id for p in g] for g in groups]
    assert [len(group) for group in plan(pairs, 1, share)] == [1] * 12
    real = sum(pair.tokens(share) for pair in pairs)
    assert collate(pairs, share).tokens < 1.15 * real  # little is padded
