"""The learning rate of every update: warm-up from 0, then a constant, a straight line or half a cosine down to 0."""

import math

from ..config.run_config import TrainingConfig


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
