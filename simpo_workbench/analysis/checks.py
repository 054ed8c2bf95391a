"""Are sampled answers right, and which became so or ceased to be: the metrics of prompts that have checks."""

from __future__ import annotations

from collections.abc import Iterable

from .scores import share, share_change


def right_metrics(answers: Iterable[dict], first_answers: Iterable[dict] = ()) -> dict:
    """Metrics of the answers whose prompts have checks, with the prefix eval/answers/; {} where none has.

    The share of right answers with its 95 % interval, and the number of checked ones; against the answers of step 0 to
    the same prompts how many became right and wrong, and the change of the share with its interval.
    answers, first_answers: as in generations/*.jsonl; those without `right` are left out.
    """
    right = _by_prompt(answers)
    if not right:
        return {}
    measured = share(sum(right.values()), len(right))
    metrics = {"eval/answers/checked": len(right)} | measured.as_metrics("eval/answers/right")
    before = _by_prompt(first_answers)
    both = [(before[prompt], now) for prompt, now in right.items() if prompt in before]
    if both:
        became_right = sum(now and not first for first, now in both)
        became_wrong = sum(first and not now for first, now in both)
        metrics |= {"eval/answers/became_right": became_right, "eval/answers/became_wrong": became_wrong}
        change = share_change(became_right, became_wrong, len(both))
        metrics |= change.as_metrics("eval/answers/right_change")
    return metrics


def _by_prompt(answers):
    return {answer["prompt"]: answer["right"] for answer in answers if answer.get("right") is not None}
