"""What a user would lose: a model that forgot what it knew, and is called better."""

import pytest

from simpo_workbench.analysis.checks import right_metrics


def answers(**right):
    """Answers to prompts; None for a prompt without a check."""
    return [{"prompt": prompt, **({} if value is None else {"right": value})} for prompt, value in right.items()]


def test_without_checks_nothing_is_measured():
    assert right_metrics([]) == {}
    assert right_metrics(answers(a=None, b=None), answers(a=True)) == {}


def test_at_step_0_there_is_a_share_and_no_change():
    metrics = right_metrics(answers(a=True, b=False, c=None))
    assert (metrics["eval/answers/right"], metrics["eval/answers/checked"]) == (0.5, 2)
    # exact, 1 of 2: 1 − (1 − p)² = 0.025
    assert metrics["eval/answers/right_low"] == pytest.approx(1 - 0.975**0.5)
    assert not any("became" in key or "change" in key for key in metrics)


def test_changes_are_counted_prompt_by_prompt():
    before = answers(a=True, b=True, c=True, d=False, e=False, gone=True, unchecked=None)
    now = answers(e=True, d=False, c=False, b=False, a=True, new=True, unchecked=True)
    metrics = right_metrics(now, before)
    assert (metrics["eval/answers/became_wrong"], metrics["eval/answers/became_right"]) == (2, 1)
    assert metrics["eval/answers/checked"] == 7
    assert metrics["eval/answers/right"] == pytest.approx(4 / 7)
    assert metrics["eval/answers/right_change"] == pytest.approx(-1 / 5), "of the five that were checked both times"
    assert metrics["eval/answers/right_change_low"] < -0.2 < metrics["eval/answers/right_change_high"]


def test_other_prompts_than_at_step_0_give_no_change():
    assert "eval/answers/became_wrong" not in right_metrics(answers(a=True), answers(b=True))
