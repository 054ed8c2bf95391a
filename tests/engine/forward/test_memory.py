"""What a user would lose: a run that dies of memory it could have saved, or one that is slow for memory it had."""

import pytest
import tiny
import torch

from simpo_workbench.config.run_config import TrainingConfig
from simpo_workbench.engine.encode.tokens import EncodedPair
from simpo_workbench.engine.forward import memory, proof
from simpo_workbench.engine.forward.logprobs import PackedScorer
from simpo_workbench.engine.forward.memory import MemoryPlan, choose
from simpo_workbench.engine.forward.packing import RowPolicy

GB = 10**9


def measured(whole, least):
    """A model of ten layers that takes so many bytes per token with none and with all of them checkpointed, 600 kB with
    four.
    """
    return {0: whole, 4: 600_000, 10: least}.get


@pytest.mark.parametrize(
    ("given", "whole", "least", "free", "expected"),
    [
        # 800 MB usable, 10 layers, largest pair 1000 tokens, 8 pairs a step, enough is 16384, all eight pairs are 8000
        (
            {},
            100_000,
            10_000,
            1 * GB,
            MemoryPlan(8000, 0),
        ),  # everything fits: as much as makes sense at once, nothing twice
        ({}, 500_000, 10_000, 1 * GB, MemoryPlan(1600, 0)),  # 800 MB / 0.5 MB
        (
            {},
            1_250_000,
            250_000,
            1 * GB,
            MemoryPlan(1066, 5),
        ),  # 1000 tokens want 1.25 GB: each layer saves 0.1 MB a token, five leave 0.75
        ({}, 10_000_000, 4_000_000, 1 * GB, MemoryPlan(200, 10)),  # not even that is enough: the most that can be done
        (
            {},
            None,
            100_000,
            1 * GB,
            MemoryPlan(8000, 10),
        ),  # without checkpointing it does not even fit for the measurement
        ({"max_tokens_per_microbatch": 512}, 100_000, 10_000, 1 * GB, MemoryPlan(512, 0)),
        (
            {"max_tokens_per_microbatch": 4096},
            500_000,
            100_000,
            1 * GB,
            MemoryPlan(4096, 8),
        ),  # 4096 tokens within 800 MB: 195 kB a token
        ({"gradient_checkpointing": "all"}, 100_000, 10_000, 1 * GB, MemoryPlan(8000, 10)),
        ({"gradient_checkpointing": "none"}, 1_250_000, 1, 1 * GB, MemoryPlan(640, 0)),
        ({"gradient_checkpointing": 4}, 1_000_000, 500_000, 1 * GB, MemoryPlan(1333, 4)),  # measured as it is asked for
        (
            {"gradient_checkpointing": 4, "max_tokens_per_microbatch": 77},
            None,
            None,
            1,
            MemoryPlan(77, 4),
        ),  # all said: nothing is measured
        ({}, None, None, 1 * GB, MemoryPlan(1000, 10)),  # not even checkpointed: one pair at a time is tried
        ({"gradient_checkpointing": "none"}, None, None, 1 * GB, MemoryPlan(1000, 0)),
        ({}, 0.0, 0.0, 1 * GB, MemoryPlan(8000, 0)),  # a system that cannot measure
    ],
)
def test_a_plan_by_hand(given, whole, least, free, expected):
    assert choose(TrainingConfig(pairs_per_step=8, **given), measured(whole, least), 10, 1000, free, "cuda") == expected


def test_nothing_is_measured_when_everything_is_given():
    def refuse(layers):
        raise AssertionError("measured")

    training = TrainingConfig(max_tokens_per_microbatch=100, gradient_checkpointing="none")
    assert choose(training, refuse, 10, 1000, GB, "cuda") == MemoryPlan(100, 0)


def test_shrinking_gives_up_tokens_first_then_layers_then_says_no():
    plan = MemoryPlan(1000, 2)
    assert plan.shrink(300, [None] * 5) == "at most 500 tokens at once"
    assert plan.shrink(300, [None] * 5) == "at most 300 tokens at once"
    assert plan.shrink(300, [None] * 5) == "all 5 layers checkpointed"
    assert plan.shrink(300, [None] * 5) is None
    assert plan == MemoryPlan(300, 5)


def test_a_measured_step_leaves_no_trace():
    model = tiny.model()
    proof.install(model)
    pair = EncodedPair("x", [5] * 50, [8] * 60, [9] * 70)
    before, random = [parameter.clone() for parameter in model.parameters()], torch.get_rng_state()
    measure = memory.bytes_per_token_of(PackedScorer(model), model, pair, RowPolicy(shared=True), torch.device("cpu"))
    assert measure(0) is not None
    assert measure(3) is not None
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert torch.equal(random, torch.get_rng_state())


def test_a_measurement_that_does_not_fit_is_none_and_other_errors_are_not_swallowed():
    class Full(torch.nn.Module):
        def __init__(self, error):
            super().__init__()
            self.error = error

        def forward(self, batch):
            raise self.error

    pair, model = EncodedPair("x", [5], [8], [9]), tiny.model()
    errors = [
        torch.cuda.OutOfMemoryError("full"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ]
    for error in errors:
        assert memory.bytes_per_token_of(Full(error), model, pair, RowPolicy(True), torch.device("cpu"))(0) is None
    with pytest.raises(RuntimeError, match="something else"):
        memory.bytes_per_token_of(
            Full(RuntimeError("something else")), model, pair, RowPolicy(True), torch.device("cpu")
        )(0)


def test_the_peak_is_what_was_in_use_at_once():
    """300 MB that came and went are in the peak, and no longer once it is counted anew."""
    device = torch.device("cpu")
    if not memory.reset_peak_memory(device):
        pytest.skip("this system does not count peaks anew")
    start = memory.peak_memory_bytes(device)
    block = torch.ones(75_000_000)
    del block
    peak = memory.peak_memory_bytes(device)
    assert 280e6 < peak - start < 400e6
    memory.reset_peak_memory(device)
    assert memory.peak_memory_bytes(device) < peak - 200e6


def test_only_the_wanted_layers_are_checkpointed():
    model = tiny.model()
    for count in (2, 0, 3):
        memory.checkpoint_layers(model, count)
        assert [layer.gradient_checkpointing for layer in memory.layers_of(model)] == [
            index < count for index in range(3)
        ]


def test_checkpointing_is_measured_to_take_less():
    """On a model big enough that the system's pages can tell."""
    model = tiny.model("llama", hidden_size=256, intermediate_size=1024, num_hidden_layers=8)
    proof.install(model)
    device = torch.device("cpu")
    if not memory.reset_peak_memory(device):
        pytest.skip("this system does not count peaks anew")
    pair = EncodedPair("x", [5] * 100, [8] * 400, [9] * 400)
    measure = memory.bytes_per_token_of(PackedScorer(model), model, pair, RowPolicy(shared=True), device)
    measure(0)
    whole, least = measure(0), measure(8)
    assert 0 < least < 0.7 * whole
