"""The table of metrics: a number that a run records but nothing can name, or a name that nothing records, misleads."""

import json
from pathlib import Path

import pytest

from simpo_workbench.analysis.metrics import METRICS, SHARE, answer_metrics, score_metrics
from simpo_workbench.analysis.scores import share_change
from simpo_workbench.charts.runs import SHOWN
from simpo_workbench.cli import last_screen, terminal
from simpo_workbench.report import facts, report
from simpo_workbench.runs import root
from simpo_workbench.ui.train import run_monitor

OLD_RUN = Path(__file__).parents[1] / "old_runs" / "finished" / "metrics.jsonl"
BOOKKEEPING = {"kind", "step", "time"}
INTERVAL_ENDS = {f"{key}_{end}" for key in METRICS for end in ("low", "high")}


@pytest.fixture(scope="module")
def records():
    """Records of a real run: training steps and evaluations."""
    lines = [json.loads(line) for line in OLD_RUN.read_text(encoding="utf-8").splitlines()]
    return [record for record in lines if record["kind"] in ("train", "eval")]


@pytest.fixture
def table_of_scores():
    """Scores of two pairs."""
    import pandas as pd

    return pd.DataFrame(
        {
            "chosen_avg_logp": [-1.0, -2.0],
            "rejected_avg_logp": [-1.5, -1.5],
            "chosen_reward": [-2.0, -4.0],
            "rejected_reward": [-3.0, -3.0],
            "margin": [1.0, -1.0],
            "correct": [True, False],
            "beyond_gamma": [False, False],
            "loss": [0.5, 1.5],
            "chosen_tokens": [10, 20],
            "rejected_tokens": [30, 50],
            "beta": 2.0,
            "gamma_beta_ratio": 0.5,
        }
    )


def test_every_number_of_an_older_run_has_a_row(records):
    recorded = {key.removeprefix("eval/") for record in records for key in record} - BOOKKEEPING
    assert recorded - INTERVAL_ENDS <= set(METRICS)


def test_every_number_of_an_evaluation_has_a_row(table_of_scores):
    answers = [{"prompt": "a", "tokens": 10, "ended": True, "repeated_4grams": 0.0, "right": True}]
    measured = score_metrics(table_of_scores, None) | answer_metrics(answers, answers)
    assert "eval/answers/right_change" in measured
    assert {key.removeprefix("eval/") for key in measured} - INTERVAL_ENDS <= set(METRICS)


def test_every_place_that_lists_metrics_lists_such_as_exist():
    beside = [key for shown in facts._BESIDE.values() for _, key in shown]
    listed = [SHOWN, terminal._PROGRESS, last_screen._ROWS, last_screen._PHRASES, facts.TILES, beside]
    listed += [report._COLUMNS, run_monitor._COLUMNS, root._MEASURED.values()]
    assert set().union(*listed) - INTERVAL_ENDS <= set(METRICS)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_row_is_complete(metric):
    assert metric.label
    assert metric.explanation.endswith(".")
    assert metric.better in ("higher", "lower", "")
    assert metric.cases in ("", *METRICS)
    assert metric.text(0.25), "its format is one"
    assert metric.text(None) == "–"


def test_values_read_the_same_everywhere():
    drift, ahead = METRICS["logps/chosen_drift"], METRICS["rewards/accuracies"]
    assert (drift.text(-0.1234), drift.text(0.1234, short=True)) == ("−0.123", "+0.12")
    assert (drift.text(-0.0001), drift.text(-0.001, short=True)) == ("+0.000", "+0.00"), "zero is no fall"
    assert drift.title == "chosen drift (nats/token)"
    assert drift.heading == "Chosen drift (nats/token)"
    assert drift.with_unit("−0.12") == "−0.12 nats/token"
    assert drift.tooltip.endswith("Higher is better.")
    assert (ahead.unit, ahead.title, ahead.text(0.75), ahead.with_unit("0.75")) == (
        SHARE,
        *["chosen ahead"],
        "0.75",
        "0.75",
    )
    record = {"eval/rewards/accuracies_low": 0.551, "eval/rewards/accuracies_high": 0.88}
    assert ahead.interval(record) == "0.55 to 0.88"
    assert ahead.interval({}) == ""
    assert METRICS["peak_memory_bytes"].text(1.9e9) == "1.9 GB"


def test_an_evaluation_is_the_means_of_its_table_with_intervals_and_drifts(table_of_scores):
    scores = table_of_scores
    first = score_metrics(scores, None)
    assert first["eval/logps/chosen"] == -1.5
    assert (first["eval/logps/chosen_drift"], first["eval/logps/rejected_drift"]) == (0.0, 0.0)
    assert (first["eval/loss"], first["eval/rewards/margins"], first["eval/rewards/accuracies"]) == (1.0, 0.0, 0.5)
    assert (first["eval/pairs"], first["eval/chosen_tokens"], first["eval/rejected_tokens"]) == (2, 15.0, 40.0)
    # exact, 1 of 2: 1 − (1 − p)² = 0.025
    assert first["eval/rewards/accuracies_low"] == pytest.approx(1 - 0.975**0.5)
    later = score_metrics(scores.assign(chosen_avg_logp=[-1.25, -2.25]), first)
    assert later["eval/logps/chosen_drift"] == -0.25
    assert later["eval/logps/rejected_drift"] == 0.0


def test_pairs_that_share_a_prompt_are_told_and_counted_as_what_they_are_worth(table_of_scores):
    import pandas as pd

    twelve = pd.concat([table_of_scores] * 6, ignore_index=True).assign(pair_id=[str(n) for n in range(12)])
    alone = score_metrics(twelve.assign(prompt=[f"q{n}" for n in range(12)]), None)
    shared = score_metrics(twelve.assign(prompt=["right", "wrong"] * 6), None)
    assert "eval/prompts" not in alone
    assert alone == score_metrics(twelve, None)
    assert shared["eval/prompts"] == 2
    assert shared["eval/rewards/accuracies"] == alone["eval/rewards/accuracies"] == 0.5
    # one of two: 1 - sqrt(1 - 0.025) = 0.0126
    assert shared["eval/rewards/accuracies_low"] == pytest.approx(0.0126, abs=1e-4)
    assert alone["eval/rewards/accuracies_low"] == pytest.approx(0.2109, abs=1e-4)
    later = score_metrics(twelve.assign(prompt=["right", "wrong"] * 6), shared, twelve)
    assert "eval/lead_change_low" not in later, "nothing changed, which says nothing of other pairs"
    assert later["eval/rewards/accuracies_change_low"] < 0


def test_changes_have_paired_intervals(table_of_scores):
    table_of_scores = table_of_scores.assign(pair_id=["a", "b"])
    first = score_metrics(table_of_scores, None)
    now = table_of_scores.assign(chosen_avg_logp=[-1.25, -2.25], correct=[True, True])
    later = score_metrics(now, first, table_of_scores)
    before, after = (list(table["chosen_avg_logp"]) for table in (table_of_scores, now))
    assert later["eval/logps/chosen_drift"] == pytest.approx((sum(after) - sum(before)) / 2)
    assert later["eval/logps/chosen_drift_low"] < -0.25 < later["eval/logps/chosen_drift_high"]
    assert later["eval/lead_change"] == pytest.approx(-0.25)
    gained = share_change(int((~table_of_scores["correct"]).sum()), 0, 2)
    assert later["eval/rewards/accuracies_change_low"] == gained.low
    answers = [{"prompt": name, "tokens": 10, "ended": True, "repeated_4grams": 0.0} for name in "ab"]
    looped = [answers[0], {**answers[1], "ended": False, "repeated_4grams": 0.5}, {**answers[1], "prompt": "new"}]
    metrics = answer_metrics(looped, answers)
    assert (metrics["eval/answers/compared"], metrics["eval/answers/n"]) == (2, 3)
    assert metrics["eval/answers/repeated_4grams_change"] == 0.25
    assert metrics["eval/answers/ended_change"] == -0.5
    assert metrics["eval/answers/ended_change_low"] == share_change(0, 1, 2).low


def test_answers_have_a_mean_length_and_shares():
    answers = [
        {"prompt": "a", "tokens": 10, "ended": True, "repeated_4grams": 0.0},
        {"prompt": "b", "tokens": 20, "ended": False, "repeated_4grams": 0.5},
    ]
    metrics = answer_metrics(answers)
    assert (metrics["eval/answers/n"], metrics["eval/answers/mean_tokens"]) == (2, 15.0)
    assert (metrics["eval/answers/ended"], metrics["eval/answers/repeated_4grams"]) == (0.5, 0.25)
    assert {"eval/answers/ended_low", "eval/answers/repeated_4grams_high"} <= set(metrics)
    assert answer_metrics([]) == {}, "without prompts nothing is measured"
