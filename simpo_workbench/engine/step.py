"""One optimizer step: exactly `pairs_per_step` pairs, in as many micro-batches as memory wants."""

import contextlib
import math
import time
from dataclasses import dataclass

import torch

from ..base.errors import WorkbenchError
from .checkpoints import random_states, set_random_states
from .forward.memory import checkpoint_layers, is_out_of_memory, layers_of, peak_memory_bytes, release_memory
from .forward.packing import collate, plan
from .losses import pair_losses, rewards
from .setup import Setup


@dataclass(frozen=True)
class OptimizerStep:
    """What one optimizer step did: its pairs with average log-probabilities (nats per token) and losses before the
    update, and its metrics record.

    Under several processes all pairs of the step are here, in every process. shortages: a sentence for every time that
    memory ran out.
    """

    number: int
    pair_ids: list[str]
    chosen_avg_logps: torch.Tensor
    rejected_avg_logps: torch.Tensor
    losses: torch.Tensor
    record: dict
    shortages: tuple[str, ...] = ()


def optimizer_step(setup: Setup, number: int, pairs=None) -> OptimizerStep:
    """Do optimizer step `number` (counted from 1), with its own pairs unless others are given.

    The loss is divided by the pairs of the whole step, so neither micro-batches nor the number of processes change the
    gradient. Where memory runs out, the step is repeated with the same pairs, less at once. Errors: WorkbenchError at
    the first loss or gradient that is not finite, before anything is updated.
    """
    started = time.perf_counter()
    pairs = setup.step_pairs(number) if pairs is None else pairs
    pair_ids, table, shortages = _accumulate_within_memory(setup, pairs, number)
    grad_norm = float(
        setup.accelerator.clip_grad_norm_(setup.parameters, setup.config.training.max_grad_norm or math.inf)
    )
    if (
        not math.isfinite(grad_norm) and setup.accelerator.scaler is None
    ):  # with loss scaling the scaler skips the step and lowers its scale
        setup.optimizer.zero_grad()
        raise WorkbenchError(
            f"Step {number}: the gradient is not finite (norm {grad_norm}), pairs {', '.join(pair_ids)}. Nothing was"
            f" updated. {_NOT_FINITE_REMEDY}"
        )
    rate = setup.scheduler.get_last_lr()[0]
    setup.optimizer.step()
    setup.optimizer.zero_grad()
    setup.scheduler.step()

    pair_ids, table = _from_all_processes(setup.accelerator, pair_ids, table)
    record = _step_record(setup, number, table, rate, grad_norm)
    seconds = time.perf_counter() - started
    tokens = sum(map(setup.policy.tokens, pairs))
    record |= {
        "tokens_per_second": tokens / seconds,
        "pairs_per_second": len(pairs) / seconds,
        "peak_memory_bytes": peak_memory_bytes(setup.loaded.device),
    }
    return OptimizerStep(number, pair_ids, table[:, 0], table[:, 1], table[:, 2], record, shortages)


def accumulate_gradients(setup: Setup, pairs, number: int) -> tuple[list[str], torch.Tensor]:
    """This process's part of a step's gradient, added up over its micro-batches: (pair_ids, table).

    table: (pairs, 5), fp32 on the CPU: chosen and rejected average log-probability, loss, chosen and rejected reward.
    """
    config, accelerator, loaded = setup.config, setup.accelerator, setup.loaded
    loaded.model.train()
    groups = plan(pairs, setup.memory.max_tokens_per_microbatch, setup.policy, accelerator.num_processes)[
        accelerator.process_index
    ]
    pair_ids, rows = [], []
    for index, group in enumerate(groups):
        with contextlib.nullcontext() if index == len(groups) - 1 else accelerator.no_sync(setup.scorer):
            # a process without a pair of its own takes part with any other, times nothing: all must meet in backward
            batch = collate(group or pairs[:1], setup.policy).to(loaded.device)
            reference = _reference(setup, batch) if config.loss.kind == "dpo" else None
            logps = setup.scorer(batch)
            sums = (logps.chosen, logps.rejected, logps.chosen_tokens, logps.rejected_tokens)
            losses = pair_losses(config.loss, *sums, reference)
            _require_finite(losses, batch.pair_ids, number)
            # DDP averages over processes, so each one's part is scaled up by their number
            accelerator.backward(losses.sum() * (bool(group) * accelerator.num_processes / len(pairs)))
        if group:
            chosen_rewards, rejected_rewards = rewards(config.loss, *sums, reference)
            columns = (logps.chosen_avg, logps.rejected_avg, losses, chosen_rewards, rejected_rewards)
            rows.append(torch.stack([column.detach().float() for column in columns], dim=1).cpu())
            pair_ids += batch.pair_ids
    return pair_ids, torch.cat([*rows, torch.empty(0, 5)])


def _accumulate_within_memory(setup, pairs, number):
    """(pair_ids, table, shortages): the step's gradient; after running out of memory the same again with a plan that
    takes less.
    """
    shortages = []
    random = random_states()
    while True:
        try:
            return *accumulate_gradients(setup, pairs, number), tuple(shortages)
        except Exception as error:
            # a process of several cannot know whether the others ran out as well
            if not is_out_of_memory(error) or setup.accelerator.num_processes > 1:
                raise
            sentence = setup.memory.shrink(max(map(setup.policy.tokens, pairs)), layers_of(setup.loaded.model))
            if sentence is None:
                raise
        # outside of the except clause the failed pass's tensors are free
        shortages.append(f"Memory ran out in step {number}: it was repeated with {sentence}.")
        setup.optimizer.zero_grad()
        checkpoint_layers(setup.loaded.model, setup.memory.checkpointed_layers)
        release_memory(setup.loaded.device)
        set_random_states(random)


def _from_all_processes(accelerator, pair_ids, table):
    if accelerator.num_processes == 1:
        return pair_ids, table
    parts = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(parts, (pair_ids, table))
    return [pair_id for ids, _ in parts for pair_id in ids], torch.cat([rows for _, rows in parts])


_NOT_FINITE_REMEDY = (
    "Lower training.learning_rate, or compute in bf16 or fp32 (model.compute_dtype); the last checkpoint is whole."
)


def _step_record(setup, number, table, rate, grad_norm):
    """Means over all pairs of the step; table (pairs, 5): chosen and rejected average log-probability, loss, chosen and
    rejected reward.
    """
    loss = setup.config.loss
    margins = table[:, 3] - table[:, 4]
    return {
        "kind": "train",
        "step": number,
        "epoch": number * setup.config.training.pairs_per_step / len(setup.train),
        "loss": float(table[:, 2].mean()),
        "rewards/chosen": float(table[:, 3].mean()),
        "rewards/rejected": float(table[:, 4].mean()),
        "rewards/margins": float(margins.mean()),
        "rewards/accuracies": float((margins > 0).float().mean()),
        "rewards/beyond_gamma": float((margins > loss.target_margin).float().mean()),
        "logps/chosen": float(table[:, 0].mean()),
        "logps/rejected": float(table[:, 1].mean()),
        "learning_rate": rate,
        "grad_norm": grad_norm if math.isfinite(grad_norm) else -1.0,  # −1: a step that loss scaling skipped
        "beta": loss.beta,
        "gamma_beta_ratio": loss.target_margin / loss.beta,
    }


@torch.no_grad()
def _reference(setup, batch):
    """(chosen, rejected) summed log-probabilities of the untrained model, without dropout."""
    setup.loaded.model.eval()
    with setup.loaded.base():
        logps = setup.scorer(batch)
    setup.loaded.model.train()
    return logps.chosen, logps.rejected


def _require_finite(losses, pair_ids, number):
    bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
    if bad:
        names = ", ".join(pair_ids[index] for index in bad)
        raise WorkbenchError(
            f"Step {number}: the loss is not finite for pairs {names}. Nothing was updated. {_NOT_FINITE_REMEDY}"
        )
