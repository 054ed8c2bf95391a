"""Metrics in, verdicts out: what is seen, why it happens, what to do. Pure functions.

SimPO can raise accuracy and margin while the model collapses. What shows a collapse is the log-probability of chosen
answers against step 0, and the repetition, length and endings of sampled answers.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..base.format import signed
from .changes import Measured, answers_change, as_dicts, drift, newest_answers, own_interval
from .metrics import METRICS
from .scores import CHANCE, sign_test

#: Chosen answers this much less likely than at step 0 (nats per token) want a closer look. Measured with the demo model
#: on NF4: healthy at 1e-4 (+0.04) and 1.4e-4 (−0.16), in trouble at 2e-4 (−0.34), ruined in fp32 at 6e-4 (−2.0) and
#: 1e-3 (−3.9).
CHOSEN_DRIFT_ATTENTION = -0.3
#: Below this the fall is worth a note: scoring noise between evaluations of a healthy demo run stayed under 0.05.
CHOSEN_DRIFT_NOTE = -0.1
#: A fall of chosen answers this deep, measured on every pair, is a collapse also where few sampled answers show it.
CHOSEN_DRIFT_RUINED = -1.0
#: Rise of the share of repeated 4-grams that counts as repetition. Same runs: 0.17 → 0.11 healthy, → 0.28 at 1.4e-4, →
#: 0.40 at 2e-4.
REPETITION_RISE = 0.15
#: With this rise the answers are mostly loops, whatever their log-probabilities are.
REPETITION_RISE_RUINED = 0.4
#: Fall of the share of answers that end by themselves that counts as lost endings (a quarter of the answers).
ENDED_FALL = 0.25
#: Sampled answers this many times longer or shorter than the chosen answers in the data, and moving away, have drifted
#: (SimPO's length bias).
LENGTH_RATIO = 1.75
#: Held-out pairs beyond γ from which hardly any pair still pulls: at the gradient weight β·σ(γ − margin) half its start
#: value or less.
SATURATED_SHARE = 0.95
#: Only where the interval of the share begins here or above: all of six pairs may be six of ten.
SURELY_SATURATED_SHARE = 0.8
#: Answers that became wrong beyond those that became right: so many count as lost facts when chance would hardly turn
#: answers as one-sidedly (`sign_test`, CHANCE), and are too few to tell when they are this share of the checked ones.
WRONG_ANSWERS, WRONG_ANSWERS_SHARE = 3, 0.1
#: Fewer steps than this say nothing about a rate that is too low: warm-up is part of them.
FEWEST_STEPS = 10
#: A lead (nats per token) and an accuracy that both moved less than this in half of the steps: nothing happens.
LEAD_MOVED, ACCURACY_MOVED = 0.03, 0.03
#: A gradient norm this many times the median of the run so far is a spike; this many spikes in the last ten steps mean
#: that the rate is too high.
GRADIENT_SPIKE, SPIKES = 5.0, 3

SEVERITIES = ("healthy", "note", "attention", "collapse")
_EXPLAINED_BY_COLLAPSE = ("wrong answers", "repetition", "lost endings", "chosen falling", "learning rate too high")


@dataclass(frozen=True)
class Verdict:
    """One finding: kind, severity (healthy, note, attention or collapse), its step, and three plain sentences."""

    kind: str
    severity: str
    step: int
    seen: str
    cause: str
    remedy: str

    def __str__(self) -> str:
        return " ".join(part for part in (self.seen, self.cause, self.remedy) if part)


def diagnose(records, total_steps: int | None = None) -> list[Verdict]:
    """Verdicts on the newest evaluation of a run, the worst first; one "healthy" or "too early" verdict when nothing
    else is found.

    records: metrics as a list of dicts or a DataFrame (`run.metrics`). total_steps: planned optimizer steps, to judge
    whether nothing moves.
    """
    records = as_dicts(records)
    evaluations = [record for record in records if record.get("kind") == "eval"]
    if len(evaluations) < 2:
        step = evaluations[-1]["step"] if evaluations else 0
        return [Verdict("too early", "healthy", step, "Too early to tell: a verdict needs two evaluations.", "", "")]
    first, last = evaluations[0], {**newest_answers(evaluations), **evaluations[-1]}
    collapse = _collapse(first, last)
    candidates = [
        collapse,
        _wrong_answers(first, last),
        *(_repetition(first, last), _lost_endings(first, last), _chosen_falling(first, last)),
        *(_length_drift(first, last), _rate_too_high(records), _rate_too_low(first, last, total_steps)),
        _saturated(last),
    ]
    if not collapse:
        candidates.append(_too_few(first, last))
    explained = _EXPLAINED_BY_COLLAPSE if collapse else ()
    verdicts = [verdict for verdict in candidates if verdict and verdict.kind not in explained]
    verdicts.sort(key=lambda verdict: -SEVERITIES.index(verdict.severity))
    return verdicts or [_healthy(first, last)]


def is_healthy(first: dict, evaluation: dict) -> bool:
    """Whether an evaluation, against that of step 0, shows no collapse, wrong answers, repetition, lost endings or deep
    fall of chosen answers.
    """
    return not (
        _collapse(first, evaluation)
        or _wrong_answers(first, evaluation)
        or _repetition(first, evaluation)
        or _lost_endings(first, evaluation)
        or (_falls(drift(evaluation)) and drift(evaluation).value < CHOSEN_DRIFT_ATTENTION)
    )


def _collapse(first, last):
    fallen = drift(last)
    rise, fall = (answers_change(first, last, name) for name in ("repeated_4grams", "ended"))
    # few answers show by chance what they seem to show, but not together with log-probabilities as low as these
    is_deep = _falls(fallen) and fallen.value <= CHOSEN_DRIFT_RUINED
    repeats = rise.value >= REPETITION_RISE and (is_deep or rise.low > 0)
    endless = fall.value <= -ENDED_FALL and (is_deep or fall.high < 0)
    ruined = rise.value >= REPETITION_RISE_RUINED and rise.low > 0
    if not (_falls(fallen) and fallen.value <= CHOSEN_DRIFT_NOTE and (repeats or endless)) and not ruined:
        return None
    drift_value = fallen.value
    seen = [
        f"chosen answers became {'less' if drift_value < 0 else 'more'} likely"
        f" (log-probability {signed(drift_value)} nats per token since the start)"
    ]
    if repeats:
        seen.append(
            f"sampled answers repeat themselves (repeated 4-grams {first['eval/answers/repeated_4grams']:.2f} →"
            f" {_share(last, 'eval/answers/repeated_4grams')})"
        )
    if endless:
        seen.append(
            f"answers no longer come to an end (ended properly {first['eval/answers/ended']:.2f} →"
            f" {_share(last, 'eval/answers/ended')})"
        )
    accuracy = _share(last, "eval/rewards/accuracies")
    return Verdict(
        "collapse",
        "collapse",
        last["step"],
        f"The model is collapsing: {', and '.join(seen)}. Held-out accuracy of {accuracy} does not show it.",
        (
            "The margin grows by making every answer unlikely, rejected ones a little more; what the model then says is"
            " noise. "
            if drift_value <= CHOSEN_DRIFT_NOTE
            else "The model has lost its way of writing, whatever the probabilities of the answers in the data say. "
        )
        + "Almost always the learning rate is too high.",
        "Lower training.learning_rate to a third or less and start again, or go on from the recommended checkpoint; a"
        " smaller γ/β is the second remedy.",
    )


def _wrong_answers(first, last):
    wrong, right, _ = _turned(last)
    if wrong - right < WRONG_ANSWERS or sign_test(right, wrong) >= CHANCE:
        return None
    gained = str(right) if right else "none"
    return Verdict(
        "wrong answers",
        "attention",
        last["step"],
        f"{wrong} of {_right_count(first)} answers that were right became wrong, {gained} the other way.",
        "The model learns how the pairs' answers sound and loses what it knew; accuracy on pairs does not show it.",
        "Read these answers. Pairs of answers that the model itself can give keep its knowledge; so do a lower"
        " training.learning_rate and fewer steps.",
    )


def _turned(last):
    """(became wrong, became right, checked), as whole numbers: a DataFrame of records holds them as floats."""
    return tuple(int(last.get(f"eval/answers/{name}", 0)) for name in ("became_wrong", "became_right", "checked"))


def _right_count(record):
    """How many of an evaluation's checked answers are right."""
    return round(record["eval/answers/right"] * record["eval/answers/checked"])


def _repetition(first, last):
    rise = answers_change(first, last, "repeated_4grams")
    if rise.value < REPETITION_RISE or rise.low <= 0:
        return None
    return Verdict(
        "repetition",
        "attention",
        last["step"],
        f"Sampled answers repeat themselves more (repeated 4-grams {first['eval/answers/repeated_4grams']:.2f} →"
        f" {_share(last, 'eval/answers/repeated_4grams')}).",
        "That is how a collapse begins, even while chosen answers keep their probability.",
        "Watch the next evaluation; if it goes on, lower training.learning_rate.",
    )


def _lost_endings(first, last):
    fall = answers_change(first, last, "ended")
    if fall.value > -ENDED_FALL or fall.high >= 0:
        return None
    return Verdict(
        "lost endings",
        "attention",
        last["step"],
        f"Sampled answers come to an end less often (ended properly {first['eval/answers/ended']:.2f} →"
        f" {_share(last, 'eval/answers/ended')}).",
        "The model is losing the end-of-turn token: it runs on until it is cut off.",
        "See that chosen answers end as they should and are not cut; if they are sound, lower training.learning_rate.",
    )


def _chosen_falling(first, last):
    fallen = drift(last)
    if fallen.value > CHOSEN_DRIFT_NOTE or not _falls(fallen):
        return None
    severity = "attention" if fallen.value < CHOSEN_DRIFT_ATTENTION else "note"
    return Verdict(
        "chosen falling",
        severity,
        last["step"],
        f"Chosen answers became less likely (log-probability {signed(fallen.value)} nats per token since the start),"
        f" rejected ones {signed(last['eval/logps/rejected_drift'])}.",
        "SimPO only asks for the difference, so both may fall; alone this is no harm as long as answers neither"
        " repeat nor lose their endings.",
        (
            "Keep an eye on repetition and endings."
            if severity == "note"
            else "Look at the sampled answers; a lower training.learning_rate keeps chosen answers likely."
        ),
    )


def _length_drift(first, last):
    start, now = first.get("eval/answers/mean_tokens"), last.get("eval/answers/mean_tokens")
    wanted = last.get("eval/chosen_tokens")
    if not now or not start or not wanted:
        return None
    too_long = now > LENGTH_RATIO * wanted and now > LENGTH_RATIO * start
    too_short = now < wanted / LENGTH_RATIO and now < start / LENGTH_RATIO
    if not (too_long or too_short) or not answers_change(first, last, "mean_tokens").is_clear:
        return None
    return Verdict(
        "length drift",
        "attention",
        last["step"],
        f"Sampled answers got {'longer' if too_long else 'shorter'}: {start:.0f} → {now:.0f} tokens, while chosen"
        f" answers have {wanted:.0f}.",
        "If one length is preferred throughout the pairs, the model learns the length instead of the content.",
        "Compare the lengths of chosen and rejected answers in the data; a larger loss.beta or fewer steps hold the"
        " length back.",
    )


def _rate_too_high(records):
    norms = [
        (record["step"], record["grad_norm"])
        for record in records
        if record.get("kind") == "train" and "grad_norm" in record
    ]
    if len(norms) < 20:
        return None
    ordered = sorted(norm for _, norm in norms[:-10])
    median = ordered[len(ordered) // 2]
    spikes = [norm for _, norm in norms[-10:] if norm > GRADIENT_SPIKE * median]
    if len(spikes) < SPIKES:
        return None
    return Verdict(
        "learning rate too high",
        "attention",
        norms[-1][0],
        f"The gradient jumps: {len(spikes)} of the last 10 steps had more than {GRADIENT_SPIKE:g} times the usual"
        f" norm ({median:.2g}).",
        "Steps overshoot, which is what a learning rate that is too high looks like before answers suffer.",
        "Halve training.learning_rate.",
    )


def _rate_too_low(first, last, total_steps):
    if not total_steps or last["step"] < max(total_steps / 2, FEWEST_STEPS):
        return None
    lead = [evaluation["eval/logps/chosen"] - evaluation["eval/logps/rejected"] for evaluation in (first, last)]
    gained = last["eval/rewards/accuracies"] - first["eval/rewards/accuracies"]
    if abs(lead[1] - lead[0]) >= LEAD_MOVED or abs(gained) >= ACCURACY_MOVED:
        return None
    return Verdict(
        "learning rate too low",
        "attention",
        last["step"],
        f"Hardly anything moved in {last['step']} of {total_steps} steps: the lead of chosen answers changed by"
        f" {signed(lead[1] - lead[0], 3)} nats per token, accuracy by {signed(gained)}.",
        "The steps are too small for an adapter; learning rates of full fine-tuning (1e-7 … 1e-6) do little with LoRA.",
        "Raise training.learning_rate three to ten times, or train for more steps.",
    )


def _saturated(last):
    beyond, n = last["eval/rewards/beyond_gamma"], int(last.get("eval/pairs", 0))
    if beyond < SATURATED_SHARE:
        return None
    gamma = last.get("gamma_beta_ratio", 1) > 0  # DPO has none, and SimPO may be run without
    where = "beyond γ" if gamma else "won by the chosen answer"
    known = own_interval(last, "rewards/beyond_gamma", n)
    measured = f"{beyond:.2f}" + (f" (n={n}, 95 % {known.low:.2f} to {known.high:.2f})" if known else "")
    if known and known.low < SURELY_SATURATED_SHARE:
        return Verdict(
            "too few",
            "note",
            last["step"],
            f"Too few held-out pairs to tell whether nearly all are {where}: {measured}.",
            "With so few pairs chance does as much.",
            "Hold out more pairs before you conclude anything.",
        )
    return Verdict(
        "saturated margin",
        "note",
        last["step"],
        f"Nearly all held-out pairs are {where}: {measured}.",
        "Such pairs hardly pull: further steps mostly sharpen what is learned already.",
        "Stop here, or use harder pairs"
        + ("; a larger γ/β makes them pull again, at the price of probability." if gamma else "."),
    )


def _healthy(first, last):
    name, answers = "eval/answers/repeated_4grams", "; no answers were sampled"
    if name in first and name in last:
        answers = f", repeated 4-grams {first[name]:.2f} → {_share(last, name)}"
    if "eval/answers/right" in first and "eval/answers/right" in last:
        before, now = (f"{_right_count(record)} of {record['eval/answers/checked']:.0f}" for record in (first, last))
        answers += f", right answers {before} → {now}"
    return Verdict(
        "healthy",
        "healthy",
        last["step"],
        f"Healthy: accuracy on held-out pairs {first['eval/rewards/accuracies']:.2f} →"
        f" {_share(last, 'eval/rewards/accuracies')}, chosen answers {signed(last['eval/logps/chosen_drift'])} and"
        f" rejected ones {signed(last['eval/logps/rejected_drift'])} nats per token since the start{answers}.",
        "",
        "",
    )


def _too_few(first, last):
    """What seems to have got worse by as much as a verdict asks for, but may be chance: said, and no verdict."""
    seen = []
    for name, worst in (("repeated_4grams", REPETITION_RISE), ("ended", -ENDED_FALL)):
        change = answers_change(first, last, name)
        if abs(change.value) >= abs(worst) and change.value * worst > 0 and not change.is_clear:
            key = f"eval/answers/{name}"
            seen.append(f"{METRICS[f'answers/{name}'].label} {first[key]:.2f} → {last[key]:.2f} ({change})")
    if drift(last).value <= CHOSEN_DRIFT_NOTE and not _falls(drift(last)):
        seen.append(f"log-probability of chosen answers ({drift(last)} nats per token)")
    wrong, right, checked = _turned(last)
    lost = wrong - right
    if lost >= WRONG_ANSWERS and lost >= WRONG_ANSWERS_SHARE * checked and sign_test(right, wrong) >= CHANCE:
        seen.append(f"{wrong} of {checked} checked answers became wrong, {right or 'none'} the other way")
    if not seen:
        return None
    return Verdict(
        "too few",
        "note",
        last["step"],
        f"Too few cases to tell whether it got worse: {'; '.join(seen)}.",
        "With so few cases chance does as much.",
        "Answer more prompts (generation.held_out_prompts), or hold out more pairs, before you conclude anything.",
    )


def _falls(change: Measured):
    """Whether a change is below 0 for certain."""
    return change.high < 0


def _share(record, name):
    """A share as text, with its number of cases and the 95 % interval of its change since step 0, or its own, where the
    record has them.
    """
    key = name.removeprefix("eval/")
    metric, change = METRICS[key], METRICS.get(f"{key}_change")
    text, n = metric.text(record[name]), record.get(f"eval/{metric.cases}")
    if n is None:
        return text
    if change and (interval := change.interval(record)):
        return f"{text} (n={n:.0f}, change {change.text(record[f'eval/{change.key}'])}, 95 % {interval})"
    interval = metric.interval(record)
    return f"{text} (n={n:.0f}, 95 % {interval})" if interval else text
