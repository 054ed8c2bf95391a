"""What would be lost: a pair drawn off its loss, bubbles that do not add up, an axis that jumps while one drags, markup
out of a prompt.
"""

import numpy as np
import pytest
from score_tables import of_leads

import simpo_workbench as wb
from simpo_workbench.analysis.scored_leads import leads_of
from simpo_workbench.charts.geometry import HEIGHT, MOST, REACH, curve_figure, curve_spec, leads_figure, leads_spec
from simpo_workbench.charts.subplots import COLORS

LEADS = [-3.2, -1.0, -0.4, 0.0, 0.2, 0.45, 0.9, 1.4, 6.0]


@pytest.fixture
def few():
    return leads_of(of_leads(LEADS, prompt=[f"Question {n}?" for n in range(len(LEADS))]))


@pytest.fixture(scope="module")
def many():
    return leads_of(of_leads(np.random.default_rng(0).normal(-0.1, 0.7, 60_000)))


def trace(figure, name):
    return next(one for one in figure["data"] if one["name"] == name)


def texts(figure):
    return [note["text"] for note in figure["layout"]["annotations"]]


# --- the loss with its pairs


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_every_pair_stands_on_the_loss_at_its_place(few, smoothing):
    found = wb.analysis.loss_geometry(few, 2.0, 0.5, smoothing)
    figure = curve_figure(found)
    inside = np.abs(found.z) <= REACH
    points = trace(figure, "pairs")
    assert list(points.customdata) == list(few.pair_id[inside])
    assert points.x == pytest.approx(found.z[inside])
    assert points.y == pytest.approx(found.loss[inside])
    assert points.marker.color == pytest.approx(found.pull_share[inside])
    curve = trace(figure, "loss")
    assert np.interp(points.x, curve.x, curve.y) == pytest.approx(points.y, abs=2e-3)


def test_pairs_beyond_the_drawn_part_stand_at_its_ends_and_are_counted(few):
    figure = curve_spec(wb.analysis.loss_geometry(few, 2.0, 0.5))
    out = trace(figure, "pairs further out")
    assert list(out["customdata"]) == ["p0", "p8"]
    assert out["x"].tolist() == [-REACH, REACH]
    assert out["marker"]["symbol"] == ["triangle-left", "triangle-right"]
    assert {"1 further left", "1 further right"} <= set(texts(figure))


def test_the_zones_are_named_and_counted(few):
    found = wb.analysis.loss_geometry(few, 2.0, 0.5)
    figure = curve_spec(found)
    assert {f"{state} {found.counts[state]}" for state in ("full pull", "pulls", "saturated")} <= set(texts(figure))
    assert not any("pulls back" in text for text in texts(figure))
    smoothed = wb.analysis.loss_geometry(few, 2.0, 0.5, 0.2)
    assert f"pulls back {smoothed.counts['pulls back']}" in texts(curve_spec(smoothed))


def test_chosen_pairs_have_rings_and_unknown_ones_none(few):
    found = wb.analysis.loss_geometry(few, 2.0, 0.5)
    assert trace(curve_spec(found, chosen=["p4", "nobody", "p1", "p8"]), "chosen pairs")["x"] == pytest.approx(
        [found.z[4], found.z[1], REACH]
    )
    assert len(trace(curve_spec(found), "chosen pairs")["x"]) == 0


def test_the_bubbles_hold_all_pairs_whatever_the_sliders_say(many):
    for beta, ratio in ((0.1, 0.0), (2.0, 0.5), (20.0, 2.0)):
        found = wb.analysis.loss_geometry(many, beta, ratio)
        figure = curve_spec(found)
        held = [
            int(text.split()[0].replace(",", ""))
            for name in ("pairs", "pairs further out")
            for text in trace(figure, name)["text"]
        ]
        assert sum(held) == 60_000
        inside = trace(figure, "pairs")
        assert inside["marker"]["size"].sum() == (np.abs(found.z) <= REACH).sum()
        assert len(inside["x"]) < 100
        out = {
            text.split(" further ")[1]: int(text.split()[0].replace(",", ""))
            for text in texts(figure)
            if "further" in text
        }
        assert out.get("left", 0) == (found.z < -REACH).sum()
        assert out.get("right", 0) == (found.z > REACH).sum()


def test_a_bubble_stands_among_its_pairs_and_names_one_of_them(many):
    found = wb.analysis.loss_geometry(many, 3.0, 0.3)
    bubbles = trace(curve_spec(found), "pairs")
    z = found.z[[many.places[name] for name in bubbles["customdata"]]]
    assert np.abs(z - bubbles["x"]).max() < 2 * REACH / 48
    assert bubbles["marker"]["color"] == pytest.approx(1 / (1 + np.exp(bubbles["x"])))


def test_a_larger_bubble_holds_more_pairs_by_its_area(many):
    marker = trace(curve_spec(wb.analysis.loss_geometry(many, 3.0, 0.3)), "pairs")["marker"]
    assert (marker["sizemode"], marker["sizeref"]) == ("area", pytest.approx(2 * 60_000 / 90**2))


# --- the leads


def test_the_bars_hold_all_pairs_and_none_straddles_zero(few, many):
    for leads in (few, many):
        bars = leads_spec(wb.analysis.loss_geometry(leads, 2.0, 0.5))["data"][0]
        assert bars["y"].sum() == len(leads)
        edges = bars["customdata"]
        assert not ((edges[:, 0] < -1e-9) & (edges[:, 1] > 1e-9)).any()


def test_bars_are_the_colour_of_their_pull(few):
    bars = leads_spec(wb.analysis.loss_geometry(few, 2.0, 0.5))["data"][0]
    assert bars["marker"]["color"] == pytest.approx(1 / (1 + np.exp(2.0 * (bars["x"] - 0.5))))


def test_goal_and_saturation_are_marked_where_they_are(few):
    figure = leads_spec(wb.analysis.loss_geometry(few, 2.0, 0.5))
    lines = sorted(line["x0"] for line in figure["layout"]["shapes"])
    assert lines == pytest.approx([0.5 - np.log(19) / 2, 0.0, 0.5, 0.5 + np.log(19) / 2])
    assert {"0", "γ/β 0.5 (γ 1)", "saturated ▸", "◂ full pull"} <= set(texts(figure))


def test_a_goal_beyond_the_axis_is_named_at_its_end():
    figure = leads_spec(wb.analysis.loss_geometry(of_leads([-0.1, 0.0, 0.1]), 2.0, 1.5))
    assert "γ/β 1.5 (γ 3) →" in texts(figure)
    assert 1.5 not in [line["x0"] for line in figure["layout"]["shapes"]]


# --- both


def test_no_axis_and_no_trace_changes_while_one_drags(few, many):
    for leads in (few, many):
        seen = set()
        for beta, ratio in ((0.1, 0.0), (2.0, 0.5), (20.0, 2.0)):
            found = wb.analysis.loss_geometry(leads, beta, ratio)
            for made in (curve_spec(found), leads_spec(found)):
                axes = [
                    (name, tuple(axis.get("range", ())), axis.get("domain") and tuple(axis["domain"]))
                    for name, axis in made["layout"].items()
                    if name[1:].startswith("axis")
                ]
                seen.add((tuple(axes), tuple(one["name"] for one in made["data"]), made["layout"]["height"]))
        assert len(seen) == 2
        assert {height for *_, height in seen} == {HEIGHT}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_have_titles_with_their_unit(few, theme):
    found = wb.analysis.loss_geometry(few, 2.0, 0.5, 0.1)
    curve, bars = curve_figure(found, theme, ["p1"]), leads_figure(found, theme)
    assert curve.layout.title.text == "Loss of each pair (nats), 9 pairs"
    assert bars.layout.title.text == "Lead of each pair (nats per token), 9 pairs"
    assert {figure.layout.paper_bgcolor for figure in (curve, bars)} == {COLORS[theme]["ground"]}
    assert "reward units" in curve.layout.xaxis.title.text


@pytest.mark.parametrize("leads", [[], [0.3], [0.0], [0.4] * 30, [0.4] * (MOST + 1)])
def test_tables_without_spread_are_drawn(leads):
    found = wb.analysis.loss_geometry(of_leads(leads), 2.0, 0.5)
    curve_figure(found, chosen=["p0"])
    figure = leads_figure(found)
    assert sum(sum(one.y) for one in figure.data) == len(leads)


def test_prompts_and_ids_are_text():
    bad = '<img src=x onerror="alert(1)"> $\\frac{1}{2}$ <b>'
    for columns in ({"prompt": bad}, {}):
        table = of_leads([0.1, 0.4], **columns).assign(pair_id=[bad, bad + "2"])
        found = wb.analysis.loss_geometry(table, 2.0, 0.5)
        points = trace(curve_figure(found, chosen=[bad]), "pairs")
        assert not any("<img" in text or "<b>" in text or "$" in text for text in points.text)
        assert list(points.customdata) == [bad, bad + "2"], "what a click asks for is the id itself"
        assert len(trace(curve_spec(found, chosen=[bad]), "chosen pairs")["x"]) == 1
