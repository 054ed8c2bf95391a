"""What a user would lose: the learning rate that a schedule of this name has everywhere else."""

from typing import get_args

import pytest
import torch
from transformers import get_scheduler

from simpo_workbench.config.run_config import TrainingConfig
from simpo_workbench.config.schedule import learning_rate

SCHEDULERS = get_args(TrainingConfig.model_fields["scheduler"].annotation)
RATE = 3e-4


def rates_of_transformers(scheduler, total_steps, warmup_steps):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=RATE)
    schedule = get_scheduler(scheduler, optimizer, num_warmup_steps=warmup_steps, num_training_steps=total_steps)
    rates = []
    for _ in range(total_steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.1, 0.37, 1.0])
@pytest.mark.parametrize("total_steps", [1, 7, 200])
def test_rates_are_those_of_transformers(scheduler, warmup_ratio, total_steps):
    training = TrainingConfig(scheduler=scheduler, warmup_ratio=warmup_ratio, learning_rate=RATE)
    rates = [learning_rate(updates, total_steps, training) for updates in range(total_steps)]
    expected = rates_of_transformers(scheduler, total_steps, round(warmup_ratio * total_steps))
    assert rates == expected


def test_by_hand():
    """Ten steps, two of them warm-up: 0, then half the peak, the peak, and half a cosine over the other eight."""
    training = TrainingConfig(scheduler="cosine", warmup_ratio=0.2, learning_rate=0.1)
    rates = [learning_rate(updates, 10, training) for updates in (0, 1, 2, 4, 6, 10)]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.05 * (1 + 0.5**0.5), 0.05, 0.0])
    assert learning_rate(6, 10, training, scale=0.5) == pytest.approx(0.025)
