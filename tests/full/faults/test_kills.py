"""What a user would lose: hours of training, to a power cut, an impatient colleague or the kernel's memory killer.

A quick share runs with every test run; `make soak` kills fifty times.
"""

import random

import pytest
from killing import SOAK, outcome, survive

import simpo_workbench as wb

QUICK = ["save", "start", "any"]
LONG = ["save", "any", "save", "start", "any"]


def interruptible(tiny_config, load_in, **changes):
    """A run with dropout, saves that are no evaluations, and steps enough to be killed in."""
    base = {
        "model.load_in": load_in,
        "lora.dropout": 0.2,
        "training.eval_every": 9,
        "training.save_every": 4,
        "training.max_steps": 40,
        "generation.every": 0,
    }
    return tiny_config.with_changes({**base, **changes})


@pytest.mark.parametrize("load_in", ["fp32", "nf4"])
def test_a_killed_run_ends_as_if_it_had_never_been_killed(tiny_config, load_in):
    """Bit for bit: adapter, every step's loss and gradient norm, every evaluation; no step twice, none missing, no
    manual step on the way.
    """
    config = interruptible(tiny_config, load_in)
    quiet = wb.train(config.with_changes({"run.name": "quiet"}))
    run, kills = survive(config, QUICK, random.Random(7))
    assert sum(kills.values()) >= 2
    assert outcome(run) == outcome(quiet)
    assert [step for step, _, _ in outcome(run)[1]] == list(range(1, 41))


@pytest.mark.skipif(not SOAK, reason="make soak runs it: fifty kills take a quarter of an hour")
@pytest.mark.timeout(3000)
def test_fifty_kills_of_which_twenty_come_during_a_save(tiny_config):
    rng, kills, rounds = random.Random(0), {"save": 0, "killed": 0}, 0
    while sum(kills.values()) < 50 or kills["save"] < 20:
        rounds += 1
        load_in = ("fp32", "nf4")[rounds % 2]
        config = interruptible(
            tiny_config, load_in, **{"run.name": f"soak-{rounds}", "training.seed": rounds, "training.max_steps": 150}
        )
        run, found = survive(config, LONG, rng)
        quiet = wb.start(config.with_changes({"run.name": f"quiet-{rounds}"}))
        assert quiet.wait(300).state == "finished"
        assert outcome(run) == outcome(quiet), f"round {rounds}, {load_in}"
        kills = {name: kills[name] + found[name] for name in kills}
        print(f"round {rounds} ({load_in}): {kills}", flush=True)
    assert rounds >= 5
