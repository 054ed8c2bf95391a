"""The doctor: a collapse that is called healthy costs a model, a healthy run that is called a collapse costs trust."""

import json

import pandas as pd
import pytest

from simpo_workbench.analysis.doctor import SEVERITIES, Verdict, diagnose, is_healthy
from simpo_workbench.analysis.recommendation import recommend, why_recommended


def evaluation(
    step,
    chosen=-1.50,
    rejected=-1.60,
    accuracy=0.60,
    beyond=0.30,
    repeated=0.10,
    ended=0.90,
    tokens=40.0,
    chosen_tokens=40.0,
):
    """One evaluation record, drifts against step 0 of this file's histories (chosen −1.50, rejected −1.60)."""
    record = {
        "kind": "eval",
        "step": step,
        "eval/logps/chosen": chosen,
        "eval/logps/rejected": rejected,
        "eval/logps/chosen_drift": chosen + 1.50,
        "eval/logps/rejected_drift": rejected + 1.60,
        "eval/rewards/accuracies": accuracy,
        "eval/rewards/beyond_gamma": beyond,
        "eval/answers/repeated_4grams": repeated,
        "eval/answers/ended": ended,
        "eval/answers/mean_tokens": tokens,
        "eval/chosen_tokens": chosen_tokens,
    }
    return {name: value for name, value in record.items() if value is not None}


def without_answers(record):
    return {name: value for name, value in record.items() if not name.startswith("eval/answers/")}


def steps(norms):
    return [{"kind": "train", "step": step, "grad_norm": norm} for step, norm in enumerate(norms, 1)]


START = evaluation(0)


def kinds(records, total_steps=None):
    return [(verdict.kind, verdict.severity) for verdict in diagnose(records, total_steps)]


# --- nothing to complain of


@pytest.mark.parametrize(("records", "step"), [([], 0), ([START], 0), (steps([1.0, 2.0]), 0), ([evaluation(5)], 5)])
def test_one_evaluation_is_too_early_to_tell(records, step):
    (verdict,) = diagnose(records)
    assert (verdict.kind, verdict.severity, verdict.step) == ("too early", "healthy", step)
    assert "two evaluations" in str(verdict)


def test_a_run_that_gets_better_is_healthy_and_says_by_what():
    (verdict,) = diagnose([START, evaluation(20, chosen=-1.46, rejected=-1.80, accuracy=0.75, repeated=0.08)])
    assert (verdict.kind, verdict.severity, verdict.step) == ("healthy", "healthy", 20)
    for figure in ("0.60 → 0.75", "+0.04", "−0.20", "0.10 → 0.08"):
        assert figure in verdict.seen


def test_a_run_without_sampled_answers_is_not_credited_with_answers():
    (verdict,) = diagnose([without_answers(START), without_answers(evaluation(20))])
    assert verdict.kind == "healthy"
    assert "4-grams" not in verdict.seen
    assert "no answers were sampled" in verdict.seen


# --- wrong answers


def with_right(record, right, checked, became_wrong=None, became_right=0):
    """The record of an evaluation in which `right` of `checked` answers are right."""
    record = record | {"eval/answers/right": right / checked, "eval/answers/checked": checked}
    if became_wrong is not None:
        record |= {"eval/answers/became_wrong": became_wrong, "eval/answers/became_right": became_right}
    return record


BEFORE = with_right(START, 20, 40)


def test_a_run_whose_answers_became_wrong_is_not_healthy_and_says_how_many():
    last = with_right(evaluation(20, accuracy=0.90, beyond=0.80), 14, 40, became_wrong=6)
    (verdict,) = diagnose([BEFORE, last])
    assert (verdict.kind, verdict.severity, verdict.step) == ("wrong answers", "attention", 20)
    assert verdict.seen == "6 of 20 answers that were right became wrong, none the other way."
    assert not is_healthy(BEFORE, last)
    assert recommend([BEFORE, last]) == 0
    assert why_recommended([BEFORE, last]) == "the base model: no trained step is healthy"


@pytest.mark.parametrize(
    ("checked", "became_wrong", "became_right", "found"),
    [
        (20, 3, 0, "too few"),  # by chance one time in 4
        (20, 2, 0, "healthy"),
        (20, 5, 3, "healthy"),
        (20, 5, 2, "too few"),
        (30, 3, 0, "too few"),  # just a tenth
        (31, 3, 0, "healthy"),
        (62, 6, 0, "wrong answers"),  # less than a tenth, but by chance one time in 32
        (62, 5, 0, "healthy"),  # one time in 16
        (200, 19, 9, "healthy"),  # 19 against 9: one time in 12
        (200, 19, 0, "wrong answers"),
        (40, 6, 0, "wrong answers"),
        (40, 0, 9, "healthy"),
    ],
)
def test_answers_are_lost_where_chance_would_not_do_it_and_too_few_to_tell_where_it_would(
    checked, became_wrong, became_right, found
):
    first = with_right(START, 10, checked)
    last = with_right(evaluation(20), 10 + became_right - became_wrong, checked, became_wrong, became_right)
    verdicts = diagnose([first, last])
    assert [verdict.kind for verdict in verdicts] == [found]
    assert is_healthy(first, last) is (found != "wrong answers")
    if found == "too few":
        other = became_right or "none"
        assert verdicts[0].severity == "note"
        assert f"{became_wrong} of {checked} checked answers became wrong, {other} the other way" in verdicts[0].seen


# --- changes inside their interval


def with_changes(record, n, **changes):
    """The record with paired changes of answers: name=(change, low, high)."""
    record = record | {"eval/answers/n": n, "eval/answers/compared": n}
    for name, values in changes.items():
        key = f"eval/{name}" if name.startswith("logps") else f"eval/answers/{name}_change"
        record |= dict(zip((key, f"{key}_low", f"{key}_high"), values, strict=True))
    return record


def test_a_change_inside_its_interval_is_no_verdict_but_too_few():
    """0.00 → 0.23 of six answers: one of them loops. That is not "repeats more"."""
    first = evaluation(0, repeated=0.0)
    last = with_changes(evaluation(20, repeated=0.23, beyond=0.5), 6, repeated_4grams=(0.23, -0.20, 0.54))
    (verdict,) = diagnose([first, last])
    assert (verdict.kind, verdict.severity) == ("too few", "note")
    assert "0.00 → 0.23 (change +0.23, 95 % −0.20 to +0.54, n=6)" in verdict.seen
    assert is_healthy(first, last)
    assert recommend([first, last]) == 20
    clear = with_changes(evaluation(20, repeated=0.23), 60, repeated_4grams=(0.23, 0.11, 0.33))
    assert kinds([first, clear]) == [("repetition", "attention")]


def test_a_record_of_single_intervals_alone_gives_no_verdict_either():
    """As runs wrote them before: n=6, 0.00 to 0.53."""
    ends = {"eval/answers/n": 6, "eval/answers/repeated_4grams_low": 0.0}
    first = evaluation(0, repeated=0.0) | ends | {"eval/answers/repeated_4grams_high": 0.0}
    last = evaluation(20, repeated=0.23) | ends | {"eval/answers/repeated_4grams_high": 0.53}
    assert kinds([first, last]) == [("too few", "note")]


@pytest.mark.parametrize(
    ("drift", "interval", "found"),
    [
        (-0.4, (-0.5, -0.3), "collapse"),
        (-0.4, (-0.9, 0.1), "too few"),
        (-2.0, (-2.2, -1.8), "collapse"),
    ],
)
def test_log_probabilities_have_an_interval_of_their_own(drift, interval, found):
    answers = {"repeated_4grams": (0.5, 0.3, 0.6)} if drift > -1 else {"repeated_4grams": (0.5, -0.1, 0.9)}
    last = with_changes(
        evaluation(20, chosen=-1.5 + drift, repeated=0.35), 3, **answers, **{"logps/chosen_drift": (drift, *interval)}
    )
    if found == "too few":
        last = with_changes(last, 3, repeated_4grams=(0.1, -0.1, 0.3))
    assert diagnose([START, last])[0].kind == found


def test_lengths_and_endings_of_few_answers_are_no_verdict():
    last = with_changes(
        evaluation(20, ended=0.5, tokens=90), 3, ended=(-0.4, -0.9, 0.2), mean_tokens=(50.0, -10.0, 110.0)
    )
    assert kinds([START, last]) == [("too few", "note")]
    last = with_changes(
        evaluation(20, ended=0.5, tokens=90), 40, ended=(-0.4, -0.5, -0.2), mean_tokens=(50.0, 40.0, 60.0)
    )
    assert [verdict.kind for verdict in diagnose([START, last])] == ["lost endings", "length drift"]


def test_steps_of_different_objectives_are_not_ranked_by_their_shares_beyond_gamma():
    """γ/β 0.5 set to 0: the share beyond γ jumps from 0.00 to 0.83, and the later step is the worse one."""
    first = evaluation(0, accuracy=0.5, beyond=0.0) | {"beta": 2.0, "gamma_beta_ratio": 0.5}
    better = evaluation(20, accuracy=0.9, beyond=0.0) | {"beta": 2.0, "gamma_beta_ratio": 0.5}
    worse = evaluation(40, accuracy=0.83, beyond=0.83) | {"beta": 2.0, "gamma_beta_ratio": 0.0}
    assert recommend([first, better, worse]) == 20
    assert "won by the chosen answer" in why_recommended([first, better, worse])


def test_a_healthy_run_says_how_many_answers_are_right():
    (verdict,) = diagnose([with_right(START, 15, 40), with_right(evaluation(20), 17, 40, 1, 3)])
    assert verdict.kind == "healthy"
    assert verdict.seen.endswith(", right answers 15 of 40 → 17 of 40.")
    assert "right answers" not in diagnose([START, evaluation(20)])[0].seen, "an older run has no checks"


def test_a_later_step_that_lost_its_answers_is_not_recommended():
    good = with_right(evaluation(20, beyond=0.40), 19, 40, 1, 0)
    forgot = with_right(evaluation(40, beyond=0.90), 14, 40, 6, 0)
    assert recommend([BEFORE, good, forgot]) == 20


def test_an_evaluation_without_answers_is_judged_by_the_newest_ones_alone():
    forgot = with_right(evaluation(20), 14, 40, 6, 0)
    other_prompts = evaluation(40)
    assert kinds([BEFORE, forgot, without_answers(evaluation(30))]) == [("wrong answers", "attention")]
    assert kinds([BEFORE, forgot, other_prompts, without_answers(evaluation(60))]) == [("healthy", "healthy")]


def test_a_collapse_explains_wrong_answers():
    ruined = with_right(evaluation(20, chosen=-3.5, repeated=0.60), 0, 40, 20, 0)
    assert kinds([BEFORE, ruined]) == [("collapse", "collapse")]


# --- collapse


@pytest.mark.parametrize("drift", [-0.05, -0.11, -0.29, -0.31, -3.9])
def test_a_falling_chosen_line_alone_is_never_a_collapse(drift):
    found = kinds([START, evaluation(20, chosen=-1.5 + drift)])
    assert ("collapse", "collapse") not in found
    expected = "healthy" if drift > -0.1 else "note" if drift > -0.3 else "attention"
    assert [severity for _, severity in found] == [expected]


@pytest.mark.parametrize(
    ("worse", "sign"),
    [
        ({"repeated": 0.25}, "repeated 4-grams 0.10 → 0.25"),
        ({"ended": 0.65}, "ended properly 0.90 → 0.65"),
        ({"repeated": 0.40, "ended": 0.20}, "no longer come to an end"),
    ],
)
def test_a_falling_chosen_line_with_repetition_or_lost_endings_is_a_collapse(worse, sign):
    found = diagnose([START, evaluation(20, chosen=-1.92, accuracy=0.90, **worse)])
    assert (found[0].kind, found[0].severity, found[0].step) == ("collapse", "collapse", 20)
    assert "−0.42 nats per token" in found[0].seen
    assert sign in found[0].seen
    assert "accuracy of 0.90 does not show it" in found[0].seen
    assert found[0].remedy.startswith("Lower training.learning_rate"), "the first remedy is the learning rate"
    assert len(found) == 1, "its parts are not told a second time"


def test_answers_that_are_mostly_loops_are_a_collapse_whatever_the_log_probabilities_say():
    (verdict,) = diagnose([START, evaluation(20, chosen=-1.45, repeated=0.52)])
    assert verdict.kind == "collapse"
    assert "more likely (log-probability +0.05" in verdict.seen


def test_the_measured_runs_of_the_demo_are_called_what_they_were():
    """Measured on the NF4 demo: 1e-4 healthy, 1.4e-4 at the edge, 2e-4 in trouble; in fp32 6e-4 ruined."""
    base = evaluation(0, repeated=0.17)
    assert kinds([base, evaluation(30, chosen=-1.46, repeated=0.11, tokens=24)]) == [("healthy", "healthy")]
    assert kinds([base, evaluation(30, chosen=-1.66, repeated=0.28)]) == [("chosen falling", "note")]
    assert kinds([base, evaluation(30, chosen=-1.84, repeated=0.40)]) == [("collapse", "collapse")]
    assert kinds([base, evaluation(30, chosen=-3.54, repeated=0.95)]) == [("collapse", "collapse")]


def test_a_collapse_is_not_forgotten_by_an_evaluation_without_answers():
    records = [START, evaluation(10, chosen=-1.9, repeated=0.6), without_answers(evaluation(20, chosen=-1.9))]
    (verdict,) = diagnose(records)
    assert (verdict.kind, verdict.step) == ("collapse", 20)
    assert "0.10 → 0.60" in verdict.seen


def test_answers_that_were_first_sampled_late_are_compared_with_nothing():
    assert kinds([without_answers(START), evaluation(20, repeated=0.9, ended=0.1)]) == [("healthy", "healthy")]


# --- attention


def test_repetition_while_chosen_answers_keep_their_probability_wants_attention():
    (verdict,) = diagnose([START, evaluation(20, chosen=-1.48, repeated=0.26)])
    assert (verdict.kind, verdict.severity) == ("repetition", "attention")
    assert "0.10 → 0.26" in verdict.seen


def test_a_falling_chosen_line_is_told_with_its_figures():
    (verdict,) = diagnose([START, evaluation(20, chosen=-1.84, rejected=-2.10)])
    assert (verdict.kind, verdict.severity) == ("chosen falling", "attention")
    assert "−0.34 nats per token" in verdict.seen
    assert "−0.50" in verdict.seen


@pytest.mark.parametrize(
    ("start", "now", "wanted", "word"),
    [
        (40, 75, 40, "longer"),
        (40, 20, 40, "shorter"),
        (40, 69, 40, None),
        (40, 23.5, 40, None),
        (75, 75, 40, None),
        (80, 40, 40, None),
        (40, 75, 45, None),
    ],
)
def test_answers_drift_in_length_when_they_leave_both_their_start_and_the_data(start, now, wanted, word):
    found = diagnose([evaluation(0, tokens=start), evaluation(20, tokens=now, chosen_tokens=wanted)])
    if word is None:
        assert [verdict.kind for verdict in found] == ["healthy"]
    else:
        assert [(verdict.kind, verdict.severity) for verdict in found] == [("length drift", "attention")]
        assert f"got {word}: {start} → {now} tokens, while chosen answers have {wanted}." in found[0].seen


def test_gradients_that_jump_say_that_the_rate_is_too_high():
    calm, jumps = [1.0] * 20, [1.0, 6.0, 1.0, 7.0, 1.0, 1.0, 8.0, 1.0, 1.0, 1.0]
    (verdict,) = diagnose([START, *steps(calm + jumps), evaluation(30)])
    assert (verdict.kind, verdict.severity, verdict.step) == ("learning rate too high", "attention", 30)
    assert "3 of the last 10 steps" in verdict.seen
    assert kinds([START, *steps(calm + jumps[:-1] + [4.9]), evaluation(30)])[0][0] == "learning rate too high"
    assert kinds([START, *steps(calm + [1.0, 6.0, 1.0, 7.0] + [1.0] * 6), evaluation(30)]) == [
        ("healthy", "healthy")
    ], "two jumps are luck"
    assert kinds([START, *steps([1.0] * 9 + jumps), evaluation(19)]) == [("healthy", "healthy")], (
        "19 steps are too few to know the usual norm"
    )


def test_a_collapse_is_not_told_a_second_time_as_a_jumping_gradient():
    assert kinds([START, *steps([1.0] * 20 + [9.0] * 10), evaluation(30, chosen=-2.5, repeated=0.5)]) == [
        ("collapse", "collapse")
    ]


@pytest.mark.parametrize(
    ("last", "total", "low"),
    [
        (evaluation(50, chosen=-1.49, rejected=-1.60), 100, True),
        (evaluation(49, chosen=-1.49, rejected=-1.60), 100, False),
        (evaluation(50, chosen=-1.46, rejected=-1.60), 100, False),
        (evaluation(50, chosen=-1.49, rejected=-1.60, accuracy=0.65), 100, False),
        (evaluation(50, chosen=-1.49, rejected=-1.60), None, False),
    ],
)
def test_a_run_in_which_nothing_moves_has_too_low_a_rate(last, total, low):
    found = diagnose([START, last], total)
    assert [verdict.kind for verdict in found] == ["learning rate too low" if low else "healthy"]
    if low:
        assert found[0].severity == "attention"
        assert "+0.010 nats per token" in found[0].seen
        assert "50 of 100 steps" in found[0].seen


@pytest.mark.parametrize(("beyond", "saturated"), [(0.95, True), (1.0, True), (0.94, False)])
def test_a_margin_that_is_saturated_is_a_note(beyond, saturated):
    found = diagnose([START, evaluation(20, beyond=beyond)])
    assert [(verdict.kind, verdict.severity) for verdict in found] == (
        [("saturated margin", "note")] if saturated else [("healthy", "healthy")]
    )
    assert not saturated or found[0].seen == f"Nearly all held-out pairs are beyond γ: {beyond:.2f}."


@pytest.mark.parametrize(
    ("n", "kind", "said"),
    [
        (6, "too few", "Too few held-out pairs to tell whether nearly all are beyond γ: 1.00 (n=6, 95 % 0.54 to 1.00)"),
        (24, "saturated margin", "Nearly all held-out pairs are beyond γ: 1.00 (n=24, 95 % 0.86 to 1.00)"),
    ],
)
def test_few_saturated_pairs_are_too_few(n, kind, said):
    (found,) = diagnose([START, evaluation(20, beyond=1.0) | {"eval/pairs": n}])
    assert (found.kind, found.seen) == (kind, f"{said}.")
    assert ("Stop here" in found.remedy) is (kind == "saturated margin")


def test_the_worst_comes_first_and_each_has_three_parts():
    found = diagnose([START, evaluation(20, chosen=-2.0, repeated=0.5, tokens=90, beyond=0.99)])
    assert [verdict.kind for verdict in found] == ["collapse", "length drift", "saturated margin"]
    ranks = [SEVERITIES.index(verdict.severity) for verdict in found]
    assert ranks == sorted(ranks, reverse=True)
    for verdict in found:
        assert verdict.seen
        assert verdict.cause
        assert verdict.remedy
        assert str(verdict) == f"{verdict.seen} {verdict.cause} {verdict.remedy}"


# --- the recommended checkpoint


def test_the_recommended_checkpoint_has_most_pairs_beyond_gamma_among_the_healthy_ones():
    records = [
        evaluation(0, beyond=0.30),
        evaluation(20, beyond=0.45),
        evaluation(40, beyond=0.60, chosen=-1.6),
        evaluation(60, beyond=0.50),
        evaluation(80, beyond=0.95, accuracy=0.99, chosen=-3.0, repeated=0.8),
    ]
    assert recommend(records) == 40
    assert recommend(records[:2]) == 20
    assert why_recommended(records) == "most pairs beyond γ among the healthy ones"
    tied = [*records[:4], evaluation(70, beyond=0.60)]
    assert why_recommended(tied) == "most pairs beyond γ among the healthy ones, as many as at step 70: the earliest"


def test_why_the_base_model_is_recommended_is_true_of_steps_whose_answers_nobody_sampled():
    more = without_answers(evaluation(4, beyond=0.6))
    assert why_recommended([START, more]) == "the base model, until answers of a later step are sampled"
    ruined = evaluation(8, chosen=-5.0, repeated=0.9, ended=0.0, beyond=0.7)
    assert why_recommended([START, more, ruined]) == "the base model: no trained step is healthy"


def test_at_a_tie_the_earlier_checkpoint_is_recommended():
    assert recommend([evaluation(0, beyond=0.3), evaluation(20, beyond=0.5), evaluation(40, beyond=0.5)]) == 20
    assert recommend([evaluation(0, beyond=0.5), evaluation(20, beyond=0.5)]) == 0, (
        "training that gained nothing is not recommended"
    )


def test_the_base_model_is_recommended_when_no_trained_step_is_healthy():
    assert (
        recommend(
            [
                evaluation(0, beyond=0.1),
                evaluation(20, beyond=0.9, chosen=-1.81),
                evaluation(40, beyond=0.9, repeated=0.3),
            ]
        )
        == 0
    )


@pytest.mark.parametrize("records", [[], steps([1.0] * 5), [{"kind": "event", "step": 0, "event": "started"}]])
def test_nothing_is_recommended_before_anything_is_evaluated(records):
    assert recommend(records) is None


def test_a_checkpoint_whose_answers_nobody_sampled_is_not_recommended_over_one_whose_answers_are_known():
    assert recommend([START, evaluation(20, beyond=0.5), without_answers(evaluation(30, beyond=0.8))]) == 20
    assert recommend([without_answers(START), without_answers(evaluation(30, beyond=0.8))]) == 30, (
        "without any answers the numbers must do"
    )


@pytest.mark.parametrize(
    ("record", "healthy"),
    [
        (evaluation(20), True),
        (evaluation(20, chosen=-1.79), True),
        (evaluation(20, chosen=-1.81), False),
        (evaluation(20, repeated=0.26), False),
        (evaluation(20, chosen=-1.65, ended=0.6), False),
    ],
)
def test_healthy_means_neither_collapse_nor_repetition_nor_far_below_the_start(record, healthy):
    assert is_healthy(START, record) is healthy


# --- how the records come


@pytest.mark.parametrize(
    "last",
    [
        evaluation(30),
        evaluation(30, chosen=-2.0, repeated=0.5),
        evaluation(30, chosen=-1.7, tokens=90),
        without_answers(evaluation(30, beyond=0.97)),
    ],
)
def test_a_data_frame_and_a_list_of_records_say_the_same(last):
    records = [
        START,
        *steps([1.0] * 20 + [9.0] * 4 + [1.0] * 6),
        {"kind": "event", "step": 30, "event": "paused", "text": "x"},
        last,
    ]
    assert diagnose(pd.DataFrame(records), 40) == diagnose(records, 40)
    assert recommend(pd.DataFrame(records)) == recommend(records)
    assert diagnose(json.loads(json.dumps(records)), 40) == diagnose(records, 40)
    assert all(isinstance(verdict, Verdict) for verdict in diagnose(records, 40))


def test_the_records_are_left_as_they_are():
    records = [START, evaluation(20)]
    before = json.dumps(records)
    diagnose(records, 40)
    recommend(records)
    assert json.dumps(records) == before


def test_lost_endings_alone_want_attention_and_are_not_recommended():
    """Drift zero, nothing repeated, but every answer runs on until it is cut off: no alarm in accuracy, and not healthy
    all the same.
    """
    last = evaluation(20, accuracy=0.9, beyond=0.9, ended=0.0)
    assert [(verdict.kind, verdict.severity) for verdict in diagnose([START, last])] == [("lost endings", "attention")]
    assert not is_healthy(START, last)
    assert recommend([START, last]) == 0
    assert why_recommended([START, last]) == "the base model: no trained step is healthy"


def test_shares_are_told_with_their_number_and_interval():
    last = evaluation(20) | {
        "eval/pairs": 60,
        "eval/rewards/accuracies_low": 0.47,
        "eval/rewards/accuracies_high": 0.71,
    }
    assert "0.60 (n=60, 95 % 0.47 to 0.71)" in diagnose([START, last])[0].seen


def test_a_number_of_cases_is_a_whole_number_in_words_also_from_a_data_frame():
    more = {"eval/pairs": 60, "eval/rewards/accuracies_low": 0.5, "eval/rewards/accuracies_high": 0.7}
    records = pd.DataFrame(
        [{**START, **more}, {"kind": "train", "step": 1}, {**evaluation(10), **more}]
    )  # the row between makes the counts floats
    assert "(n=60, 95 % 0.50 to 0.70)" in str(diagnose(records)[0])


def test_a_loss_without_gamma_is_not_told_of_gamma():
    last = evaluation(20, beyond=0.99) | {"gamma_beta_ratio": 0.0}
    (verdict,) = diagnose([START, last])
    assert verdict.kind == "saturated margin"
    assert "γ" not in str(verdict)
