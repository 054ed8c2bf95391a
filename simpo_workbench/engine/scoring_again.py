"""The same pairs scored again in other ways that are as right: how far they differ is the noise of scoring."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from .forward.attention import row_policy
from .forward.packing import RowPolicy
from .model.models import LoadedModel
from .scoring import response_logps

if TYPE_CHECKING:
    import pandas as pd

#: Held-out pairs that are scored again before the first step.
NOISE_PAIRS = 16
#: The ways: each pair alone; in micro-batches of other pairs, in another order; with other attention kernels.
ALONE, MIXED, OTHER_KERNELS = "alone", "mixed", "other kernels"
#: Attention kernels without the one that is fastest on GPUs, which adds in another order.
_WITHOUT_FLASH = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def noise_sample(held_out) -> list:
    """At most NOISE_PAIRS encoded pairs, spread evenly over the held-out ones."""
    return [held_out[place] for place in sorted({n * len(held_out) // NOISE_PAIRS for n in range(NOISE_PAIRS)})]


def scored_again(
    scorer,
    sample: list,
    loaded: LoadedModel,
    max_tokens_per_microbatch: int,
    progress: Callable[[int, int], None] | None = None,
    other_kernels: bool | None = None,
) -> dict[str, pd.DataFrame]:
    """{way: DataFrame with pair_id, chosen_avg_logp, rejected_avg_logp} of encoded pairs, one row each.

    other_kernels: whether to go through attention of another kind too, with each prompt twice (default: with 16-bit
    arithmetic on a GPU, where the order of a sum decides its last digits). progress: called for the first way. It draws
    no random numbers and changes no weight.
    """
    import pandas as pd

    if other_kernels is None:
        other_kernels = loaded.device.type == "cuda" and loaded.compute_dtype in (torch.bfloat16, torch.float16)
    policy, budget = row_policy(loaded.model), max_tokens_per_microbatch
    ways = {
        ALONE: lambda: response_logps(scorer, sample, loaded, 1, progress),
        MIXED: lambda: response_logps(scorer, sample, loaded, budget, None, policy, mixed),
    }
    if other_kernels:
        apart = replace(policy, shared=False)
        ways[OTHER_KERNELS] = lambda: response_logps(scorer, sample, loaded, budget, None, apart, mixed)
    tables = {}
    for way, score in ways.items():
        with sdpa_kernel(_WITHOUT_FLASH) if way == OTHER_KERNELS else contextlib.nullcontext():
            logps = score()
        tables[way] = pd.DataFrame(
            {
                "pair_id": [pair.pair_id for pair in sample],
                "chosen_avg_logp": logps.chosen_avg.numpy(),
                "rejected_avg_logp": logps.rejected_avg.numpy(),
            }
        )
    return tables


def mixed(pairs: list, max_tokens: int, policy: RowPolicy) -> list[list]:
    """Micro-batches in an order by hash, long beside short, where `packing.plan` sorts by length.

    There are two at least, so that few pairs are not all together once more.
    """
    groups, used = [], 0
    max_tokens = min(max_tokens, sum(map(policy.tokens, pairs)) // 2)
    for pair in sorted(pairs, key=lambda pair: hashlib.sha256(pair.pair_id.encode()).digest()):
        tokens = policy.tokens(pair)
        if not groups or used + tokens > max_tokens:
            groups.append([])
            used = 0
        groups[-1].append(pair)
        used += tokens
    return groups
