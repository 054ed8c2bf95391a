"""What a user would lose: an evaluation, a checkpoint, or a run that goes on although it was to stop."""

import pytest

from simpo_workbench.config.run_config import TrainingConfig
from simpo_workbench.engine.decide import Decision, Evaluation, decide

TOTAL = 10
PLAIN, COLLAPSED, BEST = Evaluation(), Evaluation(collapsed=True), Evaluation(recommended=True)

# step, requests, evaluation, on_collapse -> decision; evaluated every 4 steps, saved every 3
AFTER_A_STEP = {
    "nothing is due": (1, "", None, "warn", Decision()),
    "evaluation is due": (4, "", None, "warn", Decision(evaluate=True, save="adapter")),
    "an evaluated step keeps its adapter": (4, "", PLAIN, "warn", Decision(evaluate=True, save="adapter")),
    "the best step can be resumed": (4, "", BEST, "warn", Decision(evaluate=True, save="resumable")),
    "a checkpoint is due": (3, "", None, "warn", Decision(save="resumable")),
    "the last step": (10, "", PLAIN, "warn", Decision(evaluate=True, save="resumable")),
    "save requested": (1, "save", None, "warn", Decision(save="resumable")),
    "evaluate requested": (1, "evaluate", None, "warn", Decision(evaluate=True, save="adapter")),
    "stop requested": (1, "stop", None, "warn", Decision(save="resumable", ending="stop")),
    "suspend requested": (1, "suspend", None, "warn", Decision(save="resumable", ending="suspend")),
    "stop goes before suspend": (1, "suspend stop", None, "warn", Decision(save="resumable", ending="stop")),
    "pause requested": (1, "pause", None, "warn", Decision(save="resumable", pause=True)),
    "stop goes before pause": (1, "pause stop", None, "warn", Decision(save="resumable", ending="stop")),
    "unpause without a pause": (1, "unpause", None, "warn", Decision()),
    "the last step just ends": (
        10,
        "stop pause suspend",
        PLAIN,
        "warn",
        Decision(evaluate=True, save="resumable"),
    ),
    "a collapse that only warns": (4, "", COLLAPSED, "warn", Decision(evaluate=True, save="adapter")),
    "a collapse that pauses": (4, "", COLLAPSED, "pause", Decision(True, "resumable", pause=True)),
    "a collapse that stops": (4, "", COLLAPSED, "stop", Decision(True, "resumable", ending="collapse")),
    "a collapse goes before suspend": (4, "suspend", COLLAPSED, "stop", Decision(True, "resumable", ending="collapse")),
    "suspend goes before a collapse that pauses": (
        *(4, "suspend", COLLAPSED, "pause"),
        Decision(True, "resumable", ending="suspend"),
    ),
    "a collapse at the last step": (10, "", COLLAPSED, "stop", Decision(evaluate=True, save="resumable")),
}

# requests, evaluation -> decision, after step 4 with on_collapse "stop"
WHILE_PAUSED = {
    "nothing requested": ("", None, Decision(pause=True)),
    "save": ("save", None, Decision(save="resumable", pause=True)),
    "evaluate": ("evaluate", None, Decision(evaluate=True, pause=True)),
    "an evaluation that collapses": ("evaluate", COLLAPSED, Decision(evaluate=True, pause=True)),
    "the resumable checkpoint of the pause stays": ("evaluate", BEST, Decision(evaluate=True, pause=True)),
    "another pause": ("pause", None, Decision(pause=True)),
    "unpause": ("unpause", None, Decision()),
    "unpause and evaluate": ("unpause evaluate", PLAIN, Decision(evaluate=True)),
    "stop": ("stop", None, Decision(ending="stop")),
    "suspend": ("suspend", None, Decision(ending="suspend")),
    "stop goes before unpause": ("unpause stop", None, Decision(ending="stop")),
}


@pytest.mark.parametrize(
    ("step", "requests", "evaluation", "on_collapse", "expected"), AFTER_A_STEP.values(), ids=AFTER_A_STEP
)
def test_after_a_step(step, requests, evaluation, on_collapse, expected):
    training = TrainingConfig(eval_every=4, save_every=3, on_collapse=on_collapse)
    assert decide(step, TOTAL, set(requests.split()), training, evaluation=evaluation) == expected


@pytest.mark.parametrize(("requests", "evaluation", "expected"), WHILE_PAUSED.values(), ids=WHILE_PAUSED)
def test_while_paused(requests, evaluation, expected):
    training = TrainingConfig(eval_every=4, save_every=4, on_collapse="stop")
    assert decide(4, TOTAL, set(requests.split()), training, paused=True, evaluation=evaluation) == expected


def test_zero_turns_the_schedule_off():
    training = TrainingConfig(eval_every=0, save_every=0)
    assert {decide(step, TOTAL, set(), training) for step in range(1, TOTAL)} == {Decision()}
    assert decide(TOTAL, TOTAL, set(), training) == Decision(evaluate=True, save="resumable")
