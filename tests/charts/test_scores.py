"""Charts of scores tables: a pair in the wrong corner or bin is a wrong conclusion about a model."""

import numpy as np
import pandas as pd
import pytest

from simpo_workbench.analysis.scores import compare_scores
from simpo_workbench.charts.scores import lead_scatter, score_histogram


def trace(figure, name):
    return next(one for one in figure.data if one.name == name)


def labels(figure):
    return [note.text for note in figure.layout.annotations]


def score_table(leads):
    leads = pd.Series(leads, dtype=float)
    frame = pd.DataFrame(
        {
            "pair_id": [f"p{n}" for n in range(len(leads))],
            "prompt": "why?",
            "chosen": "a",
            "rejected": "b",
            "chosen_avg_logp": -1.0,
            "rejected_avg_logp": -1.0 - leads,
        }
    )
    return frame.assign(margin=2 * leads, correct=leads > 0, beyond_gamma=leads > 0.5)


def test_histograms_share_bins_that_count_every_pair_and_split_at_zero():
    rng = np.random.default_rng(0)
    before, after = score_table(rng.normal(-0.2, 0.3, 211)), score_table(rng.normal(0.3, 0.5, 211))
    figure = score_histogram(before, after, 0.5)
    first, second = trace(figure, "before"), trace(figure, "after")
    assert sum(first.y) == sum(second.y) == 211
    assert list(first.x) == list(second.x)
    assert 10 <= len(first.x) <= 50
    edges = first.customdata
    leads = before["chosen_avg_logp"] - before["rejected_avg_logp"]
    for (low, high), count in zip(edges, first.y, strict=True):
        assert not low < -1e-9 < 1e-9 < high
        assert ((leads >= low) & (leads < high)).sum() == count
    assert [shape.x0 for shape in figure.layout.shapes] == [0.0, 0.5]
    assert {"0", "γ/β"} <= set(labels(figure))


def test_histogram_says_mean_and_pairs_ahead():
    figure = score_histogram(score_table([-0.5, -0.1, 0.3]), score_table([0.2, 0.4, 0.9]), 0.5)
    assert "□ before: mean −0.10, 1 of 3 ahead" in labels(figure)
    assert "■ after: mean +0.50, 3 of 3 ahead" in labels(figure)


@pytest.mark.parametrize("leads", [[0.0], [0.0, 0.0], [0.7], [-3.0, 1e-17]])
def test_histogram_of_few_or_equal_leads_counts_them_all(leads):
    for ratio in (0.5, 0.0, None):
        assert sum(trace(score_histogram(score_table(leads), None, ratio), "before").y) == len(leads)


def test_the_axis_of_few_pairs_shows_no_number_twice():
    """Half pairs, rounded, would read 0, 1, 1, 2."""
    assert score_histogram(score_table([-0.5, 0.5]), None, 0.5).layout.yaxis.dtick == 1


def test_histogram_without_pairs_says_so():
    assert labels(score_histogram(None, None, 0.5)) == ["comes with the first evaluation"]
    assert labels(score_histogram(score_table([]), None, 0.5)) == ["comes with the first evaluation"]


def test_scatter_puts_every_pair_into_its_corner():
    compared = compare_scores(score_table([-1, -1, 1, 1, 1]), score_table([-2, 3, 4, -5, 6]))
    figure = lead_scatter(compared)
    assert {one.name: list(zip(one.x, one.y, strict=True)) for one in figure.data} == {
        "still right": [(1.0, 4.0), (1.0, 6.0)],
        "still wrong": [(-1.0, -2.0)],
        "to right": [(-1.0, 3.0)],
        "to wrong": [(1.0, -5.0)],
    }
    assert {"still right: 2", "still wrong: 1", "to right: 1", "to wrong: 1"} <= set(labels(figure))


def test_pairs_that_crossed_within_the_noise_are_a_group_of_their_own():
    compared = compare_scores(score_table([-1, -0.01, 1]), score_table([1, 0.01, 2]), noise=0.05)
    figure = lead_scatter(compared)
    assert {one.name: list(one.customdata) for one in figure.data if len(one.x)} == {
        "to right": ["p0"],
        "within the noise": ["p1"],
        "still right": ["p2"],
    }
    assert "within the noise: 1" in labels(figure)


def test_corners_are_of_the_lead_that_the_axes_show_whatever_the_margin_says():
    compared = compare_scores(score_table([-1, -1, 1, 1]), score_table([-2, 3, 4, -5])).assign(
        correct_before=False, correct_after=True
    )
    found = {one.name: (min(one.x), min(one.y)) for one in lead_scatter(compared).data}
    assert found == {
        "still right": (1.0, 4.0),
        "still wrong": (-1.0, -2.0),
        "to right": (-1.0, 3.0),
        "to wrong": (1.0, -5.0),
    }


def test_prompts_in_hover_texts_are_no_markup():
    compared = compare_scores(score_table([1.0]).assign(prompt="<a href='x'>click</a>"), score_table([2.0]))
    assert trace(lead_scatter(compared), "still right").text[0] == "&lt;a href='x'&gt;click&lt;/a&gt;"
