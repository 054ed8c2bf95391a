"""What a user would lose: pairs left out or counted twice, tokens that look at another answer, ranks that wait for each
other for ever.
"""

import dataclasses
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simpo_workbench.engine.encode.tokens import EncodedPair
from simpo_workbench.engine.forward.packing import Layout, RowPolicy, Span, collate, plan, visible

SHARED, PLAIN = RowPolicy(shared=True), RowPolicy(shared=False)


def pair(name, prompt, chosen, rejected):
    """A pair whose tokens say where they belong: 1xx prompt, 2xx chosen, 3xx rejected."""
    return EncodedPair(
        name, list(range(100, 100 + prompt)), list(range(200, 200 + chosen)), list(range(300, 300 + rejected))
    )


def some_pairs(count, seed=0):
    rng = random.Random(seed)
    return [pair(str(index), rng.randint(1, 30), rng.randint(1, 40), rng.randint(1, 40)) for index in range(count)]


def test_a_packed_row_by_hand():
    batch = collate([pair("a", 2, 1, 3), pair("b", 3, 2, 2)], SHARED)
    (block,) = batch.blocks
    assert block.input_ids.tolist() == [
        [100, 101, 102, 200, 201, 300, 301, 100, 101, 200, 300, 301, 302]
    ]  # the longer pair first
    assert block.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 0, 1, 2, 2, 3, 4]]
    assert block.predicting.tolist() == [2, 3, 2, 5, 8, 8, 10, 11]
    assert block.targets.tolist() == [200, 201, 300, 301, 200, 300, 301, 302]
    assert block.sequence.tolist() == [1, 1, 3, 3, 0, 2, 2, 2]  # sequence i: chosen of pair i; i + 2: its rejected
    assert block.layout.spans == (Span(0, 3, 2, 2), Span(7, 2, 1, 3))
    assert (batch.pair_ids, batch.tokens) == (["a", "b"], 13)


def test_who_sees_whom_by_hand():
    """One pair [p p c c r]: r sees the prompt and itself, never c; with a window of two positions the second r still
    counts from the prompt's end.
    """
    seen = visible(Layout((Span(0, 2, 2, 1),)))
    assert seen.int().tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert visible(Layout((Span(0, 2, 2, 1),)), window=2).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 1, 0, 0, 1],
    ]


def test_what_all_prompts_of_a_row_begin_with_stands_there_once():
    """Such as a system turn.

    A pair keeps the last token of its prompt even where the other prompt goes on with the same ones.
    """
    batch = collate([pair("a", 5, 1, 2), pair("b", 7, 2, 1)], SHARED)
    (block,) = batch.blocks
    assert block.input_ids.tolist() == [[100, 101, 102, 103, 104, 105, 106, 200, 201, 300, 104, 200, 300, 301]]
    assert block.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 4, 5, 5, 6]]
    assert block.predicting.tolist() == [6, 7, 6, 10, 10, 12]
    assert block.targets.tolist() == [200, 201, 300, 200, 300, 301]
    assert (block.layout.shared, block.layout.spans) == (4, (Span(4, 3, 2, 1), Span(10, 1, 1, 2)))
    assert visible(block.layout)[[3, 4, 8, 9, 10, 13]].int().tolist() == [
        [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1],
    ]
    assert visible(block.layout, window=3)[10].nonzero()[:, 0].tolist() == [2, 3, 10]
    assert (
        collate([pair("a", 4, 1, 2), pair("b", 7, 2, 1)], SHARED).blocks[0].layout.shared == 0
    )  # three tokens are not worth it


def test_no_token_sees_another_pair():
    seen = visible(Layout((Span(0, 3, 4, 5), Span(12, 1, 1, 1))))
    assert not seen[:12, 12:].any()
    assert not seen[12:, :12].any()


@given(st.integers(1, 40), st.integers(1, 400), st.integers(1, 4), st.booleans())
def test_a_plan_keeps_every_pair_once_within_its_budget_and_deals_the_ranks_alike(count, budget, ranks, share):
    pairs, policy = some_pairs(count), SHARED if share else PLAIN
    by_rank = plan(pairs, budget, policy, ranks)
    groups = [group for rank in by_rank for group in rank]
    assert sorted(one.pair_id for group in groups for one in group) == sorted(one.pair_id for one in pairs)
    assert len({len(rank) for rank in by_rank}) == 1
    assert all(collate(group, policy).tokens <= budget for group in groups if len(group) > 1)
    assert plan(pairs[::-1], budget, policy, ranks) == by_rank


def test_fewer_pairs_than_processes_leaves_some_without_and_loses_none():
    by_rank = plan(some_pairs(3), 1000, SHARED, ranks=4)
    assert [len(rank) for rank in by_rank] == [1, 1, 1, 1]
    assert sorted(len(rank[0]) for rank in by_rank) == [0, 1, 1, 1]


def test_packed_rows_hold_no_padding_and_padded_ones_little():
    pairs = some_pairs(24)
    packed = collate(pairs, SHARED)
    assert packed.tokens == sum(one.tokens(True) for one in pairs) - 23 * packed.blocks[0].layout.shared
    real = sum(one.tokens(False) for one in pairs)
    assert real < collate(pairs, PLAIN).tokens < 1.15 * real


def test_padded_rows_score_the_same_tokens_as_packed_ones():
    pairs = some_pairs(9)
    targets = {}
    for policy in (SHARED, PLAIN):
        found = {}
        for block in collate(pairs, policy).blocks:
            for place, target, sequence in zip(
                block.predicting.tolist(), block.targets.tolist(), block.sequence.tolist(), strict=True
            ):
                found.setdefault(sequence, []).append((int(block.input_ids.flatten()[place]), target))
        targets[policy.shared] = found
    assert targets[True] == targets[False]


def test_pairs_beyond_the_rotary_factors_go_alone():
    """Their sequences each get a row of their own; the others still share."""
    policy = RowPolicy(shared=True, longest=20)
    short, long = pair("short", 10, 5, 10), pair("long", 10, 5, 11)
    blocks = collate([long, short, pair("longer", 10, 12, 12)], policy).blocks
    assert [(block.layout is not None, tuple(block.input_ids.shape)) for block in blocks] == [
        (True, (1, 25)),
        (False, (1, 22)),
        (False, (1, 22)),
        (False, (1, 21)),
        (False, (1, 15)),
    ]
    assert policy.tokens(short) == 25
    assert policy.tokens(long) == 10 + 5 + 10 + 11
    for counted in (policy, SHARED, PLAIN):
        assert counted.count(np.array([[10, 5, 10], [10, 5, 11]])).tolist() == [
            counted.tokens(short),
            counted.tokens(long),
        ]
    padded = dataclasses.replace(policy, shared=False)
    assert [
        tuple(block.input_ids.shape) for block in collate([pair("a", 10, 9, 10), pair("b", 10, 10, 9)], padded).blocks
    ] == [(4, 20)]


def test_moving_to_a_device_keeps_the_layout():
    batch = collate(some_pairs(3), SHARED)
    moved = batch.to("meta")
    assert moved.blocks[0].layout is batch.blocks[0].layout
    assert moved.blocks[0].position_ids.device == torch.device("meta")


@pytest.mark.parametrize("budget", [1, 100, 10_000])
def test_the_plan_does_not_cut_or_join_pairs(budget):
    pairs = some_pairs(5)
    (groups,) = plan(pairs, budget, SHARED)
    assert {id(one) for group in groups for one in group} == {id(one) for one in pairs}
