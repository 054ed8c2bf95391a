"""What a user would lose: a flip that another layout of the same pairs would not show."""

import pytest
import tiny
import torch

import simpo_workbench as wb
from simpo_workbench.analysis.scores import scoring_noise
from simpo_workbench.config.run_config import ModelConfig
from simpo_workbench.engine.encode.tokens import ChatEncoder
from simpo_workbench.engine.forward.attention import row_policy
from simpo_workbench.engine.forward.logprobs import PackedScorer
from simpo_workbench.engine.forward.packing import plan
from simpo_workbench.engine.scoring_again import ALONE, MIXED, OTHER_KERNELS, mixed, noise_sample, scored_again


@pytest.fixture(scope="module")
def loaded(tiny_model):
    with wb.load_model(ModelConfig(name=tiny_model, load_in="fp32")) as model:
        yield model


@pytest.fixture(scope="module")
def encoded(loaded):
    pairs, _ = ChatEncoder.of(loaded, None).encode_pairs(list(wb.load_pairs(tiny.rows(12))))
    return pairs


def test_the_second_layout_is_none_that_an_evaluation_makes(loaded, encoded):
    policy = row_policy(loaded.model)
    ids = [[pair.pair_id for pair in group] for group in mixed(encoded, 10**6, policy)]
    assert sorted(pair_id for group in ids for pair_id in group) == sorted(pair.pair_id for pair in encoded)
    assert len(ids) >= 2
    usual = [{pair.pair_id for pair in group} for group in plan(encoded, 10**6, policy)[0]]
    assert not any(set(group) in usual for group in ids)
    assert ids == [[pair.pair_id for pair in group] for group in mixed(encoded[::-1], 10**6, policy)]
    assert len(mixed(encoded, 1, policy)) == len(encoded), "a pair that is larger goes alone"


def test_all_ways_measure_the_same_log_probabilities(loaded, encoded):
    scorer = PackedScorer(loaded.model).eval()
    tables = scored_again(scorer, encoded, loaded, 4096, other_kernels=True)
    assert list(tables) == [ALONE, MIXED, OTHER_KERNELS]
    for table in tables.values():
        assert table["pair_id"].tolist() == [pair.pair_id for pair in encoded]
        assert scoring_noise(tables[ALONE], table) < 1e-4, "fp32"
    assert scoring_noise(tables[MIXED], tables[OTHER_KERNELS]) > 0
    assert list(scored_again(scorer, encoded, loaded, 4096)) == [ALONE, MIXED], "other kernels are for 16 bits on a GPU"


def test_the_kernels_are_those_of_before_afterwards(loaded, encoded):
    before = torch.backends.cuda.flash_sdp_enabled()
    scored_again(PackedScorer(loaded.model).eval(), encoded[:2], loaded, 4096, other_kernels=True)
    assert torch.backends.cuda.flash_sdp_enabled() == before


def test_the_sample_is_spread_over_the_held_out_pairs():
    assert noise_sample(list(range(160))) == list(range(0, 160, 10))
    assert noise_sample([1, 2, 3]) == [1, 2, 3]
