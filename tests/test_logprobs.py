"""What a user would lose: scores of the wrong tokens, divided by the wrong length, depending on what else was in the batch."""

import pytest
import tiny
import torch

from simpo_workbench.config import DataConfig
from simpo_workbench.engine.logprobs import PackedScorer
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
    model, pairs = tiny.model(family).double().eval(), encoded()
    logps = PackedScorer(model)(collate(pairs))
    for index, pair in enumerate(pairs):
        assert logps.chosen[index].item() == pytest.approx(plain_logps(model, pair.prompt_ids, pair.chosen_ids), abs=1e-9)
        assert logps.rejected[index].item() == pytest.approx(plain_logps(model, pair.prompt_ids, pair.rejected_ids), abs=1e-9)
        assert (logps.chosen_tokens[index], logps.rejected_tokens[index]) == (len(pair.chosen_ids), len(pair.rejected_ids))


def test_average_is_over_scored_tokens_only():
    pair = EncodedPair("x", [5, 6, 7], [8, 9], [10, 11, 12])
    model = tiny.model().double().eval()
    logps = PackedScorer(model)(collate([pair, EncodedPair("long", [5] * 30, [8] * 20, [9] * 20)]))  # padding beside it must not count
    assert logps.chosen_avg[0].item() == pytest.approx(plain_logps(model, [5, 6, 7], [8, 9]) / 2, abs=1e-9)
    assert logps.rejected_avg[0].item() == pytest.approx(plain_logps(model, [5, 6, 7], [10, 11, 12]) / 3, abs=1e-9)


def test_prompt_and_answer_of_one_token():
    model = tiny.model().double().eval()
    logps = PackedScorer(model)(collate([EncodedPair("x", [5], [8], [9])]))
    assert logps.chosen[0].item() == pytest.approx(plain_logps(model, [5], [8]), abs=1e-9)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_agrees_with_trl_on_the_same_tokens(family):
    from trl.experimental.cpo import CPOTrainer

    model, pairs = tiny.model(family).eval(), encoded()
    ours = PackedScorer(model)(collate(pairs))
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
    batch = collate(pairs)
    PackedScorer(model)(batch)
    assert sum(seen) == sum(len(pair.chosen_ids) + len(pair.rejected_ids) for pair in pairs)
    assert len(batch.blocks) == len(seen)
    model(input_ids=batch.blocks[0].input_ids[:1])
    assert seen[-1] == batch.blocks[0].input_ids.shape[1]  # outside the scorer the head is as it was


def test_plan_keeps_every_pair_once_and_stays_within_the_budget():
    pairs = encoded(12)
    groups = plan(pairs, 256)
    assert sorted(pair.pair_id for group in groups for pair in group) == sorted(pair.pair_id for pair in pairs)
    assert all(collate(group).tokens <= 256 or len(group) == 1 for group in groups)
    assert sum(collate(group).tokens for group in groups) < 1.15 * sum(pair.tokens for pair in pairs)  # little is padded
    assert len(groups) > 1
    assert [[p.pair_id for p in g] for g in plan(pairs[::-1], 256)] == [[p.pair_id for p in g] for g in groups]
    assert [len(group) for group in plan(pairs, 1)] == [1] * 12
