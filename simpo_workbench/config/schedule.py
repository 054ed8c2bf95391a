"""How many steps a run has, and the learning rate of every update: warm-up from 0, then a constant, a straight line or
half a cosine down to 0.
"""

import math

from .run_config import RunConfig, TrainingConfig


def total_steps(config: RunConfig, pairs: int) -> int:
    """Optimizer steps of a run over `pairs` encoded training pairs: max_steps, else epochs · pairs / pairs_per_step,
    rounded, at least 1.
    """
    by_epochs = max(1, round(config.training.epochs * pairs / config.training.pairs_per_step))
    return config.training.max_steps or by_epochs


def learning_rate(applied_updates: int, total_steps: int, training: TrainingConfig, scale: float = 1.0) -> float:
    """The rate of the update that follows `applied_updates` others; scale: a factor on the configured peak rate.

    A step that fp16 loss scaling skips is no update. Source: transformers.get_scheduler, the same values.
    """
    peak = training.learning_rate * scale
    if training.scheduler == "constant":  # the only one without warm-up
        return peak
    warmup = round(training.warmup_ratio * total_steps)
    if applied_updates < warmup:
        return peak * (applied_updates / warmup)
    if training.scheduler == "constant_with_warmup":
        return peak
    decay = max(1, total_steps - warmup)
    if training.scheduler == "linear":
        return peak * max(0.0, (total_steps - applied_updates) / decay)
    return peak * (0.5 * (1.0 + math.cos(math.pi * ((applied_updates - warmup) / decay))))
