"""The charts: a wrong value, a hidden label or a missing point is a wrong conclusion about a model."""

import itertools
import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from fake_run import fake_run

from simpo_workbench.charts import training
from simpo_workbench.charts.scores import lead_scatter, score_histogram
from simpo_workbench.charts.subplots import COLORS, thinned
from simpo_workbench.charts.training import rewards_figure, smoothed, steps_figure, training_figure

TITLES = [
    "Log-prob since the start (nats/token)",
    "Answer length (tokens)",
    "Answers: share",
    "Lead (nats/token)",
    "Loss (mean per pair)",
    "Held-out pairs: share",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fake_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def metrics(run):
    return run.metrics


def trace(figure, name):
    found = [one for one in figure.data if one.name == name]
    assert len(found) == 1, [one.name for one in figure.data]
    return found[0]


def labels(figure):
    return [note.text for note in figure.layout.annotations]


def label(figure, text):
    return next(note for note in figure.layout.annotations if note.text == text)


# ---- values


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("chosen", "eval/logps/chosen_drift"),
        ("rejected", "eval/logps/rejected_drift"),
        ("sampled answers", "eval/answers/mean_tokens"),
        ("answers end properly", "eval/answers/ended"),
        ("repeated 4-grams", "eval/answers/repeated_4grams"),
        ("loss, held-out", "eval/loss"),
        ("chosen ahead", "eval/rewards/accuracies"),
        ("beyond γ", "eval/rewards/beyond_gamma"),
    ],
)
def test_evaluation_points_are_the_metrics(metrics, name, column):
    evaluations = metrics[metrics["kind"] == "eval"]
    drawn = trace(training_figure(metrics, 0.5, 120), name)
    assert list(drawn.x) == [0, 20, 40, 60, 80, 100, 120]
    assert list(drawn.y) == evaluations[column].tolist()
    if f"{column}_low" in evaluations:
        assert list(drawn.y + drawn.error_y.array) == pytest.approx(evaluations[f"{column}_high"].tolist(), nan_ok=True)
        assert list(drawn.y - drawn.error_y.arrayminus) == pytest.approx(
            evaluations[f"{column}_low"].tolist(), nan_ok=True
        )


def test_right_answers_are_drawn_and_named_with_their_number(tmp_path):
    metrics = fake_run(tmp_path, checked=True).metrics
    figure = training_figure(metrics, 0.5, 120)
    assert list(trace(figure, "right answers").y) == [1.0, *[0.5] * 6]
    assert "right<br>(of 2)" in labels(figure)


def test_training_steps_are_drawn_raw_and_leads_are_per_token(metrics):
    figure = training_figure(metrics, 0.5, 120)
    train = metrics[metrics["kind"] == "train"]
    assert list(trace(figure, "loss, training, each step").y) == train["loss"].tolist()
    assert list(trace(figure, "lead, training, each step").y) == pytest.approx(
        (train["rewards/margins"] / 2.0).tolist()
    )


def test_leads_of_runs_with_different_beta_are_one_line():
    """Margin 1.5 at β 2 is the lead of 0.75 nats that margin 7.5 at β 10 is; both come from metrics without log-probs
    here.
    """
    rows = [
        {"kind": "train", "step": 1, "rewards/margins": 1.5, "beta": 2.0},
        {"kind": "train", "step": 2, "rewards/margins": 7.5, "beta": 10.0},
    ]
    assert list(trace(training_figure(pd.DataFrame(rows), 0.5, 2), "lead, training, each step").y) == [0.75, 0.75]


def test_the_lead_of_summed_rewards_is_still_per_token():
    """DPO rewards are sums over tokens against a reference; the lead per token is −1.0 − (−1.4) whatever they say."""
    row = {
        "kind": "train",
        "step": 1,
        "rewards/margins": 30.0,
        "beta": 0.1,
        "logps/chosen": -1.0,
        "logps/rejected": -1.4,
    }
    assert trace(training_figure(pd.DataFrame([row]), None, 2), "lead, training, each step").y[0] == pytest.approx(0.4)


def test_smoothing_is_the_mean_of_the_steps_around():
    points = pd.DataFrame({"step": range(7), "value": [0.0, 0, 10, 0, 0, 5, 7]})
    assert smoothed(points)["value"].tolist() == pytest.approx([10 / 3, 2.5, 2.0, 3.0, 22 / 5, 3.0, 4.0])


def test_a_long_run_is_thinned_not_truncated():
    steps = range(1, 10_001)
    figure = training_figure(
        pd.DataFrame({"kind": "train", "step": steps, "loss": [1 / step for step in steps]}), 0.5, 10_000
    )
    for name in ("loss, training, each step", "loss, training, smoothed"):
        x = trace(figure, name).x
        assert len(x) == 2000
        assert (x[0], x[-1]) == (1, 10_000)
        assert max(np.diff(x)) <= 6


def test_thinning_leaves_short_tables_alone_and_keeps_ends():
    points = pd.DataFrame({"step": range(5)})
    assert thinned(points, 5) is points
    assert thinned(points, 3)["step"].tolist() == [0, 2, 4]


def test_reward_charts_show_rewards_and_rate_but_no_skipped_gradient(metrics):
    spoiled = metrics.copy()
    spoiled.loc[spoiled["step"] == 7, "grad_norm"] = -1.0
    figure = rewards_figure(spoiled, 120)
    train = metrics[metrics["kind"] == "train"]
    assert list(trace(figure, "learning rate").y) == train["learning_rate"].tolist()
    assert list(trace(figure, "rejected, training, each step").y) == train["rewards/rejected"].tolist()
    assert (
        list(trace(figure, "chosen, held-out").y)
        == metrics.loc[metrics["kind"] == "eval", "eval/rewards/chosen"].tolist()
    )
    assert len(trace(figure, "gradient norm, each step").y) == 119


def test_a_run_plots_itself_with_its_own_gamma_and_plan(run, metrics):
    assert run.plot().to_json() == training_figure(metrics, 0.5, 120).to_json()


def test_charts_and_report_load_no_heavy_package_before_they_are_needed():
    import subprocess
    import sys

    heavy = "{'torch', 'pandas', 'plotly', 'numpy', 'jinja2'}"
    code = (
        f"import sys, simpo_workbench.charts.training, simpo_workbench.report.report; print({heavy} & set(sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "set()"
    )


# ---- axes, thresholds, events


def test_all_axes_go_from_zero_to_the_last_planned_step(tmp_path):
    figure = training_figure(fake_run(tmp_path, last_step=40, state="training").metrics, 0.5, 120)
    assert {tuple(axis.range) for axis in figure.select_xaxes()} == {(0, 120)}
    assert sorted(str(axis.matches) for axis in figure.select_xaxes()) == [
        "None",
        *["x"] * 5,
    ], "zooming one chart must zoom all: five follow the sixth"
    assert [axis.title.text for axis in figure.select_xaxes()] == [None] * 3 + ["optimizer step"] * 3


def test_one_chart_more_gets_its_place_and_squeezes_none(metrics, monkeypatch):
    def figures():
        live = [training.live_figure(metrics, 0.5, 120, columns=columns) for columns in (3, 2)]
        return [go.Figure(spec) for spec in live] + [training_figure(metrics, 0.5, 120), rewards_figure(metrics, 120)]

    def chart_px(figure):
        low, high = figure.layout.yaxis.domain
        return (high - low) * figure.layout.height

    before, names = figures(), ("_objective_subplots", "_background_subplots")
    for name, subplots in [(name, getattr(training, name)) for name in names]:
        monkeypatch.setattr(training, name, lambda *args, of=subplots: [*of(*args), of(*args)[0]])
    for old, figure in zip(before, figures(), strict=True):
        domains = [axis.domain for axis in figure.select_yaxes()]
        assert len(domains) > len(list(old.select_yaxes()))
        assert all(0 <= low < high <= 1 for low, high in domains)
        assert chart_px(figure) > 190, "none is squeezed"


def test_in_reward_units_a_line_and_its_interval_are_times_the_beta_of_each_record():
    key = "eval/logps/chosen_drift"
    rows = [
        {"kind": "eval", "step": step, "beta": beta, key: -0.5, f"{key}_low": -1.0, f"{key}_high": -0.25}
        for step, beta in ((10, 2.0), (20, 4.0))
    ]
    spec = training.live_figure(pd.DataFrame(rows), 0.5, 20, in_rewards=True)
    drawn = next(one for one in spec["data"] if one["name"] == "chosen")
    assert list(drawn["y"]) == [-1.0, -2.0]
    assert list(drawn["error_y"]["array"]) == [0.5, 1.0]


def test_every_chart_has_a_title_with_its_unit(metrics):
    texts = labels(training_figure(metrics, 0.5, 120))
    assert all(any(text.startswith(title) for text in texts) for title in TITLES)
    assert "Held-out pairs: share (n 24, bars: 95 %)" in texts
    assert "Answers: share (n 3, bars: 95 %)" in texts


def test_thresholds_are_drawn_where_they_are_and_named(metrics):
    figure = training_figure(metrics, 0.8, 120, chosen_tokens=33.0, attention_drift=-0.3)
    levels = {(shape.yref, shape.y0) for shape in figure.layout.shapes if shape.y0 == shape.y1}
    assert levels == {("y", -0.3), ("y2", 33.0), ("y4", 0.8)}
    assert label(figure, "γ/β").y == 0.8
    assert label(figure, "chosen,<br>in the data").y == 33.0


def test_mean_tokens_of_chosen_answers_come_from_the_metrics(metrics):
    assert (
        label(training_figure(metrics, 0.5, 120), "chosen,<br>in the data").y
        == metrics["eval/chosen_tokens"].dropna().iloc[-1]
    )


def test_a_loss_without_gamma_shows_none(metrics):
    figure = training_figure(metrics, None, 120)
    assert not any("γ" in text for text in labels(figure))
    assert "beyond γ" not in [one.name for one in figure.data]


def test_events_are_named_lines_in_every_chart(metrics):
    figure = training_figure(metrics, 0.5, 120)
    upright = [shape for shape in figure.layout.shapes if shape.x0 == shape.x1]
    assert [shape.x0 for shape in upright] == [50.0] * 6
    assert len({shape.xref for shape in upright}) == 6
    paused = label(figure, "paused")
    assert (paused.x, paused.hovertext) == (50.0, "Paused after step 50.")


def test_only_verdicts_that_ask_for_attention_are_marked():
    def verdict(step, kind, severity):
        return {
            "kind": "event",
            "step": step,
            "event": "verdict",
            "verdict": kind,
            "severity": severity,
            "text": f"about {kind}",
        }

    rows = [
        verdict(20, "chosen falling", "note"),
        verdict(40, "repetition", "attention"),
        verdict(60, "collapse", "collapse"),
        verdict(80, "healthy", "healthy"),
    ]
    figure = training_figure(pd.DataFrame(rows), 0.5, 120)
    assert sorted({shape.x0 for shape in figure.layout.shapes if shape.x0 == shape.x1}) == [40.0, 60.0]
    assert label(figure, "repetition").font.color == COLORS["light"]["attention"]
    assert label(figure, "collapse").font.color == COLORS["light"]["failure"]


def test_events_at_one_step_share_a_line_and_crowded_names_do_not_overlap():
    rows = [{"kind": "event", "step": 50, "event": name} for name in ("paused", "unpaused")]
    rows += [{"kind": "event", "step": 51 + n, "event": "stopped"} for n in range(9)]
    figure = training_figure(pd.DataFrame(rows), 0.5, 120)
    assert "paused, unpaused" in labels(figure)
    rows_used = [
        note.yshift
        for note in figure.layout.annotations
        if note.xref == "x" and note.text in ("stopped", "paused, unpaused")
    ]
    assert len(rows_used) == len(set(rows_used)) == 3
    assert len({shape.x0 for shape in figure.layout.shapes}) == 10, (
        "a name may be left out for lack of room, its line may not"
    )


def test_a_change_of_the_objective_is_marked():
    rows = [
        {"kind": "train", "step": step, "loss": 1.0, "beta": 2.0 if step < 30 else 4.0, "gamma_beta_ratio": 0.5}
        for step in range(1, 61)
    ]
    mark = label(training_figure(pd.DataFrame(rows), 0.5, 60), "objective changed")
    assert (mark.x, mark.hovertext) == (30.0, "β 4, γ/β 0.5 from step 30 on")


def test_hostile_event_texts_are_no_markup():
    row = {"kind": "event", "step": 1, "event": '<a href="javascript:alert(1)">x</a>', "text": "<b>bold</b> & more"}
    note = next(note for note in training_figure(pd.DataFrame([row]), 0.5, 2).layout.annotations if note.hovertext)
    assert note.text == '&lt;a href="javascript:alert(1)"&gt;x&lt;/a&gt;'
    assert note.hovertext == "&lt;b&gt;bold&lt;/b&gt; &amp; more"


# ---- labels


@pytest.mark.parametrize("last_step", [0, 20, 64, 120])
def test_names_at_line_ends_lie_right_of_every_line_and_apart(tmp_path, last_step):
    """A name that lies on its line, or two that lie on each other, cannot be read."""
    figure = training_figure(fake_run(tmp_path, last_step=last_step).metrics, 0.5, 120, attention_drift=-0.05)
    px = (figure.layout.height - figure.layout.margin.t - figure.layout.margin.b) * (
        figure.layout.yaxis.domain[1] - figure.layout.yaxis.domain[0]
    )
    for number in ["", *range(2, 7)]:
        low, high = figure.layout[f"yaxis{number}"].range
        drawn = [one for one in figure.data if one.xaxis == f"x{number}" and one.x[0] is not None]
        end = max(max(one.x) for one in drawn)
        boxes = []
        for note in figure.layout.annotations:
            at_line_end, at_threshold = (
                note.xref == f"x{number}" and note.yref == f"y{number}",
                note.xref == f"x{number} domain" and note.yref == f"y{number}",
            )
            if at_line_end:
                assert note.x >= end
                assert note.xanchor == "left"
                assert note.xshift > 0
            if at_line_end or at_threshold:
                middle = (note.y - low) / (high - low) * px + (note.yshift or 0)
                boxes.append((middle, 6.5 * (note.text.count("<br>") + 1)))
        boxes.sort()
        assert boxes
        assert all(upper - lower >= half + other for (lower, half), (upper, other) in itertools.pairwise(boxes)), boxes


def test_names_of_lines_near_the_bottom_keep_their_order_and_stay_in_the_chart():
    """Two lines near 0: their names must not run into the numbers below the axis, nor swap places."""
    row = {"kind": "eval", "step": 10, "eval/answers/ended": 0.02, "eval/answers/repeated_4grams": 0.03}
    figure = training_figure(pd.DataFrame([row]), 0.5, 100)
    px = (600 - 68 - 50) * 0.4
    low, high = figure.layout.yaxis3.range
    ended, repeated = (
        (note.y - low) / (high - low) * px + note.yshift
        for note in (label(figure, "end<br>properly"), label(figure, "repeated<br>4-grams"))
    )
    assert ended >= 10
    assert repeated - ended >= 26


def test_one_wild_step_does_not_flatten_the_loss():
    losses = [1.0 + 0.2 * math.sin(step) for step in range(200)]
    losses[100] = 50.0
    figure = training_figure(pd.DataFrame({"kind": "train", "step": range(1, 201), "loss": losses}), 0.5, 200)
    assert figure.layout.yaxis5.range[1] < 6
    assert max(trace(figure, "loss, training, each step").y) == 50.0, (
        "it leaves the chart at the top; it is not taken away"
    )


def test_scoring_noise_does_not_look_like_a_fall():
    rows = [{"kind": "eval", "step": step, "eval/logps/chosen_drift": -0.004 * (step > 0)} for step in (0, 20)]
    assert training_figure(pd.DataFrame(rows), 0.5, 40).layout.yaxis.range[0] <= -0.1


def test_labels_serve_instead_of_a_legend(metrics):
    figure = training_figure(metrics, 0.5, 120)
    assert figure.layout.showlegend is False
    assert {
        "chosen",
        "rejected",
        "sampled",
        "end<br>properly",
        "repeated<br>4-grams",
        "training",
        "held-out",
        "chosen<br>ahead",
        "beyond γ",
    } <= set(labels(figure))


def test_chosen_and_rejected_differ_by_more_than_colour(metrics):
    figure = training_figure(metrics, 0.5, 120)
    looks = [
        (one.line.dash, one.marker.symbol, one.line.color)
        for one in (trace(figure, "chosen"), trace(figure, "rejected"))
    ]
    assert looks == [("solid", "circle", "#1b6ca8"), ("dash", "diamond", "#b3521a")]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_can_be_read_as_text_on_its_ground(theme):
    def luminance(color):
        channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ground = luminance(COLORS[theme]["ground"])
    for name, color in COLORS[theme].items():
        if name not in ("ground", "grid"):
            lighter, darker = sorted((luminance(color), ground), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (theme, name)


def test_the_dark_theme_is_dark_throughout(run, metrics):
    scores = run.scores
    before, after = scores[scores["step"] == 0], scores[scores["step"] == 120]
    for figure in (
        training_figure(metrics, 0.5, 120, theme="dark"),
        rewards_figure(metrics, 120, "dark"),
        score_histogram(before, after, 0.5, "dark"),
        lead_scatter(run.compare(), "dark"),
    ):
        words = figure.to_json()
        assert figure.layout.paper_bgcolor == "#111111"
        assert not any(
            color in words for name, color in COLORS["light"].items() if color not in COLORS["dark"].values()
        ), "a colour of the light theme"


# ---- empty and partial metrics


@pytest.mark.parametrize("frame", [pd.DataFrame(), pd.DataFrame(columns=["kind", "step", "time"])])
def test_a_run_without_metrics_says_what_will_come(frame):
    figure = training_figure(frame, 0.5, 0)
    assert labels(figure).count("comes with the first evaluation") == 4
    assert labels(figure).count("comes with the first sampled answers") == 2
    assert isinstance(rewards_figure(frame, 0), go.Figure)


def test_only_train_rows(metrics):
    train = metrics[metrics["kind"] == "train"].dropna(axis=1, how="all")
    figure = training_figure(train, 0.5, 120)
    assert len(trace(figure, "loss, training, smoothed").y) == 120
    assert trace(figure, "chosen").x == (None,), "it keeps its place, with nothing in it"
    assert "comes with the first evaluation" in labels(figure)


def test_only_step_zero(tmp_path):
    figure = training_figure(fake_run(tmp_path, last_step=0).metrics, 0.5, 120)
    assert list(trace(figure, "chosen").x) == [0]
    assert list(trace(figure, "lead, held-out").y) == pytest.approx([-0.175]), "pairs lead by −0.6 … 0.25, evenly"


def test_evaluations_without_answers_leave_a_gap_in_no_line(metrics):
    """generation.every may be twice eval_every: the line goes on to the next sampled step."""
    thinner = metrics.copy()
    thinner.loc[thinner["step"].isin([20, 60, 100]), ["eval/answers/mean_tokens", "eval/answers/ended"]] = math.nan
    assert list(trace(training_figure(thinner, 0.5, 120), "sampled answers").x) == [0, 40, 80, 120]


def test_metrics_beyond_the_plan_are_still_shown():
    rows = [{"kind": "train", "step": step, "loss": 1.0} for step in (1, 200)]
    assert training_figure(pd.DataFrame(rows), 0.5, 100).layout.xaxis.range == (0, 200)


def test_a_change_on_the_way_is_named_by_what_it_changes(tmp_path):
    run = fake_run(tmp_path)
    run.folder.append_metrics(
        {
            "kind": "event",
            "step": 30,
            "event": "set",
            "text": "After step 30.",
            "changes": {"learning_rate_scale": 0.5, "beta": 4, "prompts": ["Hi"]},
        }
    )
    assert "learning rate × 0.5, β 4, other prompts" in labels(training_figure(run.metrics, 0.5, 120))


def test_single_steps_are_drawn_with_both_sides_their_lead_and_the_loss():
    records = [
        {"step": 1, "loss": 0.8, "logps/chosen": -2.0, "logps/rejected": -2.1},
        {"step": 2, "loss": 0.6, "logps/chosen": -1.9, "logps/rejected": -2.4},
    ]
    figure = steps_figure(records, 0.5)
    drawn = {one.name: list(zip(one.x, [round(value, 6) for value in one.y], strict=True)) for one in figure.data}
    assert drawn == {
        "chosen": [(1, -2.0), (2, -1.9)],
        "rejected": [(1, -2.1), (2, -2.4)],
        "lead": [(1, 0.1), (2, 0.5)],
        "loss": [(1, 0.8), (2, 0.6)],
    }
    assert {"Average log-prob (nats/token)", "Lead (nats/token)", "Loss (mean per pair)", "γ/β"} <= set(labels(figure))


def test_the_axis_of_few_steps_shows_no_number_twice():
    """Half steps, rounded, would read 0, 1, 1, 2."""
    assert {axis.dtick for axis in training_figure(pd.DataFrame(), 0.5, 3).select_xaxes()} == {1}
    assert training_figure(pd.DataFrame(), 0.5, 300).layout.xaxis.dtick is None
