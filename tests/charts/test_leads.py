"""What would be lost: the pair behind a line, the lines' true values, or a picture that one outlier has flattened."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from simpo_workbench.analysis.leads import lead_history, lead_history_of
from simpo_workbench.charts.leads import MOST_LINES, lead_histories_figure, lead_history_figure, with_step
from simpo_workbench.charts.subplots import COLORS

STEPS = [0, 10, 20]


def leads(n=60, seed=0):
    chance = np.random.default_rng(seed)
    first = chance.normal(-0.2, 0.5, (n, 1))
    return pd.DataFrame(
        first + np.array([[0.0, 0.2, 0.4]]) + chance.normal(0, 0.05, (n, 3)),
        columns=STEPS,
        index=[f"p{place}" for place in range(n)],
    )


def trace(figure, name):
    return next(one for one in figure.data if one.name == name)


def lines_of(figure, name):
    """{pair_id: leads} of one trace that holds many lines with gaps."""
    found = {}
    for pair_id, y in zip(trace(figure, name).customdata, trace(figure, name).y, strict=True):
        found.setdefault(pair_id, []).append(float(y))
    return {pair_id: course[:-1] for pair_id, course in found.items()}


def words(figure):
    return [one.text for one in figure.layout.annotations]


def test_every_pair_is_one_line_of_its_kind_with_its_own_values_and_a_gap_after_it():
    table = leads()
    history = lead_history_of(table)
    figure = lead_history_figure(history, 0.5)
    kinds = {
        "to right": ["to right"],
        "to wrong": ["to wrong"],
        "back and forth": ["back and forth"],
        "no flip": ["still right", "still wrong", "undecided"],
    }
    for name, became in kinds.items():
        drawn = lines_of(figure, name)
        assert set(drawn) == set(history.loc[history["became"].isin(became), "pair_id"])
        for pair_id, course in drawn.items():
            assert course == pytest.approx(table.loc[pair_id].tolist())
    ends = np.array(trace(figure, "to right").y, dtype=float)[len(STEPS) :: len(STEPS) + 1]
    assert len(ends) > 3
    assert np.isnan(ends).all(), "else one line would run on into the next"
    assert len(figure.data) == 8, "one trace for each kind, not for each pair"


def test_median_and_bands_are_those_of_all_pairs():
    table = leads()
    figure = lead_history_figure(lead_history_of(table))
    assert list(trace(figure, "median").y) == pytest.approx(np.median(table, axis=0))
    band = trace(figure, "middle 80 %")
    low, high = np.quantile(table, [0.1, 0.9], axis=0)
    assert list(band.y) == pytest.approx([*high, *low[::-1]])
    assert list(band.x) == [*STEPS, *STEPS[::-1]]


def test_of_very_many_pairs_some_are_drawn_and_it_says_so():
    history = lead_history_of(leads(60_000))
    figure = lead_history_figure(history, 0.5, "dark")
    n = int((history["became"] == "to right").sum())
    assert n > MOST_LINES
    assert f"— to right: {n:,}, {MOST_LINES} drawn" in words(figure)
    drawn = lines_of(figure, "to right")
    assert len(drawn) == MOST_LINES
    ends = history.loc[history["became"] == "to right", 20]
    assert (min(one[-1] for one in drawn.values()), max(one[-1] for one in drawn.values())) == (
        ends.min(),
        ends.max(),
    ), "evenly chosen, from the lowest to the highest"
    assert len(figure.to_json()) < 300_000, "what the page is sent"


def test_an_outlier_does_not_flatten_the_others_and_it_says_that_it_is_out():
    table = leads()
    table.loc["p7"] = [40.0, 50.0, 60.0]
    figure = lead_history_figure(lead_history_of(table), 0.5)
    low, high = figure.layout.yaxis.range
    assert high < 3
    assert low < table.min().min()
    assert "1 pair leaves the picture" in words(figure)
    assert "leave" not in " ".join(words(lead_history_figure(lead_history_of(leads()))))


def test_the_axis_holds_zero_and_the_wanted_lead():
    figure = lead_history_figure(lead_history_of(leads() - 5), 1.5)
    low, high = figure.layout.yaxis.range
    assert low < 0 < 1.5 < high
    assert {"0", "γ/β"} <= set(words(figure))
    assert "γ/β" not in words(lead_history_figure(lead_history_of(leads())))


def test_chosen_pairs_are_drawn_thick_whatever_became_of_them():
    figure = lead_history_figure(lead_history_of(leads()), chosen=["p3", "p5", "nobody"])
    drawn = lines_of(figure, "chosen pairs")
    assert set(drawn) == {"p3", "p5"}
    assert drawn["p3"] == pytest.approx(leads().loc["p3"].tolist())
    assert trace(figure, "chosen pairs").line.width > trace(figure, "to right").line.width


def test_a_step_is_marked_in_a_new_figure():
    figure = lead_history_figure(lead_history_of(leads()))
    marked = with_step(figure, 10)
    assert "step 10" in words(marked)
    assert [shape.x0 for shape in marked.layout.shapes if shape.xref == "x"] == [10]
    assert "step 10" not in words(figure)
    assert "step 20" in words(with_step(figure, 20))


def test_names_at_the_line_ends_keep_their_order_and_do_not_overlap():
    figure = lead_history_figure(lead_history_of(leads() * 0.001), 2.0)
    names = ["10 %", "25 %", "median", "75 %", "90 %"]
    low, high = figure.layout.yaxis.range
    px = (figure.layout.height - figure.layout.margin.t - figure.layout.margin.b) / (high - low)
    heights = [
        next((one.y - low) * px + one.yshift for one in figure.layout.annotations if one.text == name) for name in names
    ]
    assert all(above - below >= 12.9 for below, above in pairwise(heights))


def test_foreign_prompts_are_text():
    history = lead_history_of(leads(), pd.Series("<a href='x'>click</a> $x$", index=leads().index))
    figure = lead_history_figure(history, chosen=["p3"])
    assert not any("<a" in text or "$" in text for one in figure.data if one.text is not None for text in one.text)


def test_a_first_evaluation_alone_is_points_and_none_is_a_sentence():
    figure = lead_history_figure(lead_history_of(leads()[[0]]))
    assert trace(figure, "no flip").mode == "markers"
    assert figure.layout.xaxis.range == (0, 1)
    for empty in (lead_history_figure(lead_history_of(leads().iloc[:0])), lead_histories_figure({})):
        assert "comes with the first evaluation" in words(empty)


def test_two_runs_lie_over_each_other_each_with_its_steps_and_colour():
    other = leads(40, seed=1).rename(columns={20: 30})
    figure = lead_histories_figure(
        {"seed-a": lead_history_of(leads()), "seed-b": lead_history_of(other)}, 0.5, "dark", chosen=["p3"]
    )
    assert list(trace(figure, "seed-b").x) == [0, 10, 30]
    assert list(trace(figure, "seed-b").y) == pytest.approx(np.median(other, axis=0))
    assert lines_of(figure, "seed-b, chosen pairs") == {"p3": pytest.approx(other.loc["p3"].tolist())}
    colors = {trace(figure, name).line.color for name in ("seed-a", "seed-b")}
    assert len(colors) == 2
    assert not colors & {COLORS["dark"][name] for name in ("chosen", "rejected", "lead")}
    assert figure.layout.xaxis.range == (0, 30)
    assert any("60 pairs" in text for text in words(figure))


def test_a_pair_that_was_not_scored_at_a_step_has_a_gap_there():
    table = leads()
    table.loc["p3", 10] = np.nan
    figure = lead_history_figure(lead_history_of(table), chosen=["p3"])
    assert np.isnan(lines_of(figure, "chosen pairs")["p3"][1])
    assert list(trace(figure, "median").y) == pytest.approx(np.nanmedian(table, axis=0))


def test_a_history_from_scores_is_drawn_as_it_comes():
    rows = [
        {"step": step, "pair_id": pair_id, "prompt": "Why?", "chosen_avg_logp": value, "rejected_avg_logp": 0.0}
        for pair_id, row in leads(5).iterrows()
        for step, value in row.items()
    ]
    figure = lead_history_figure(lead_history(pd.DataFrame(rows)), chosen=["p1"])
    assert trace(figure, "chosen pairs").text[0] == "Why?"
