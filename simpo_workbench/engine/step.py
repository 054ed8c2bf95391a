"""One optimizer step: exactly `pairs_per_step` pairs, in as many micro-batches as memory wants."""

import contextlib
import math
import time
from dataclasses import dataclass

import torch

from ..base.errors import WorkbenchError
from ..config.run_config import LossConfig
from ..config.schedule import learning_rate
from .checkpoints import random_states, set_random_states
from .forward.memory import checkpoint_layers, is_out_of_memory, layers_of, peak_memory_bytes, release_memory
from .forward.packing import collate, plan
from .losses import pair_losses, rewards
from .setup import Settings, Setup

_NOT_FINITE_REMEDY = (
    "Lower training.learning_rate, or compute in bf16 or fp32 (model.compute_dtype); the last checkpoint is intact."
)


@dataclass(frozen=True)
class OptimizerStep:
    """The result of one optimizer step: its pairs, their values before the update, and its metrics record.

    chosen_avg_logps, rejected_avg_logps: (pairs,), nats per token; losses: (pairs,). Under several processes all pairs
    of the step are here, in every process. shortages: a sentence for every time that memory ran out.
    """

    number: int
    pair_ids: list[str]
    chosen_avg_logps: torch.Tensor
    rejected_avg_logps: torch.Tensor
    losses: torch.Tensor
    record: dict
    shortages: tuple[str, ...] = ()


def optimizer_step(setup: Setup, number: int, pairs=None, settings: Settings | None = None) -> OptimizerStep:
    """Do optimizer step `number` (counted from 1), with its own pairs and the configured settings unless others are
    given.

    The loss is divided by the pairs of the whole step, so neither micro-batches nor the number of processes change the
    gradient. Where memory runs out, the step is repeated with the same pairs, fewer at once. Errors: WorkbenchError at
    the first loss or gradient that is not finite, before anything is updated.
    """
    started = time.perf_counter()
    pairs = setup.step_pairs(number) if pairs is None else pairs
    settings = settings or Settings(setup.config)
    training, optimizer = setup.config.training, setup.optimizer
    pair_ids, table, shortages = _accumulate_within_memory(setup, pairs, number, settings.config.loss)
    grad_norm = float(setup.accelerator.clip_grad_norm_(setup.parameters, training.max_grad_norm or math.inf))
    # with loss scaling the scaler skips such a step and lowers its scale
    if not math.isfinite(grad_norm) and setup.accelerator.scaler is None:
        optimizer.zero_grad()
        raise WorkbenchError(
            f"Step {number}: the gradient is not finite (norm {grad_norm}), pairs {', '.join(pair_ids)}. Nothing was"
            f" updated. {_NOT_FINITE_REMEDY}"
        )
    rate = learning_rate(setup.applied_updates, setup.total_steps, training, settings.learning_rate_scale)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    if not optimizer.step_was_skipped:
        setup.applied_updates += 1

    pair_ids, table = _from_all_processes(setup.accelerator, pair_ids, table)
    record = _step_record(setup, number, table, settings.config.loss) | {"learning_rate": rate}
    if math.isfinite(grad_norm):  # it is not in a step that loss scaling skipped
        record["grad_norm"] = grad_norm
    seconds = time.perf_counter() - started
    tokens = sum(map(setup.policy.tokens, pairs))
    record |= {
        "tokens_per_second": tokens / seconds,
        "pairs_per_second": len(pairs) / seconds,
        "peak_memory_bytes": peak_memory_bytes(setup.loaded.device),
    }
    return OptimizerStep(number, pair_ids, table[:, 0], table[:, 1], table[:, 2], record, shortages)


def accumulate_gradients(setup: Setup, pairs, number: int, loss: LossConfig) -> tuple[list[str], torch.Tensor]:
    """This process's part of a step's gradient, added up over its micro-batches: (pair_ids, table).

    table: (pairs, 5), fp32 on the CPU: chosen and rejected average log-probability, loss, chosen and rejected reward.
    """
    accelerator, loaded = setup.accelerator, setup.loaded
    loaded.model.train()
    plans = plan(pairs, setup.memory.max_tokens_per_microbatch, setup.policy, accelerator.num_processes)
    groups = plans[accelerator.process_index]
    pair_ids, rows = [], []
    for index, group in enumerate(groups):
        with contextlib.nullcontext() if index == len(groups) - 1 else accelerator.no_sync(setup.scorer):
            # a process without a pair of its own takes part with any other, times nothing: all must meet in backward
            batch = collate(group or pairs[:1], setup.policy).to(loaded.device)
            reference = _reference(setup, batch) if loss.kind == "dpo" else None
            logps = setup.scorer(batch)
            sums = (logps.chosen, logps.rejected, logps.chosen_tokens, logps.rejected_tokens)
            losses = pair_losses(loss, *sums, reference)
            _require_finite(losses, batch.pair_ids, number)
            # DDP averages over processes, so each one's part is scaled up by their number
            accelerator.backward(losses.sum() * (bool(group) * accelerator.num_processes / len(pairs)))
        if group:
            chosen_rewards, rejected_rewards = rewards(loss, *sums, reference)
            columns = (logps.chosen_avg, logps.rejected_avg, losses, chosen_rewards, rejected_rewards)
            rows.append(torch.stack([column.detach().float() for column in columns], dim=1).cpu())
            pair_ids += batch.pair_ids
    return pair_ids, torch.cat([*rows, torch.empty(0, 5)])


def _accumulate_within_memory(setup, pairs, number, loss):
    """(pair_ids, table, shortages) of the step; when memory runs out, it is repeated with a plan that takes less."""
    shortages = []
    random = random_states()
    while True:
        try:
            return *accumulate_gradients(setup, pairs, number, loss), tuple(shortages)
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


def _step_record(setup, number, table, loss):
    """Means over all pairs of the step; table: as of `accumulate_gradients`."""
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
        "beta": loss.beta,
        "gamma_beta_ratio": loss.target_margin / loss.beta,
    }


@torch.no_grad()
def _reference(setup, batch):
    """(chosen, rejected) summed log-probabilities of the base model, without dropout."""
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
