"""Pairs and what explains them, linked.

What a user would lose: a pair that is chosen in one place and another one explained below it.
"""

import pytest
from fake_run import fake_run
from panels import until

from simpo_workbench.ui.pairs.pairs_panel import PARTS, PairsPanel


@pytest.fixture
def run(tmp_path):
    return fake_run(tmp_path, total_steps=40)


@pytest.fixture
def panel(run):
    made = PairsPanel(run)
    until(lambda: made.pairs._loaded)
    return made


def test_every_part_shows_the_run_and_says_what_it_has_in_the_one_line(panel, run):
    for name in PARTS:
        part = panel.parts.turn_to(name)
        assert part.run is run
        assert part.line is panel.line
        assert part.trouble == ""


def test_a_pair_chosen_in_the_table_is_that_of_every_part(panel):
    panel.parts.turn_to(PARTS[1])
    panel.pairs.table.choose(["pair-003", "pair-007"])
    microscope, geometry, travel = (panel.parts.turn_to(name) for name in PARTS)
    assert microscope.pair["pair_id"] == "pair-007"
    assert geometry.chosen == travel.chosen == ["pair-003", "pair-007"]
    panel.pairs.table.choose([])
    assert microscope.pair is None
    assert geometry.chosen == travel.chosen == []
    assert panel.selection.empty


def test_a_pair_picked_in_a_chart_below_is_chosen_above(panel):
    microscope = panel.parts.panel
    for name, picked in ((PARTS[1], "pair-005"), (PARTS[2], "pair-009")):
        part = panel.parts.turn_to(name)
        until(lambda part=part: "Reading" not in str(part.snapshot()))
        part.picked = picked
        assert panel.selection["pair_id"].tolist() == [picked]
        assert microscope.pair["pair_id"] == picked


def test_the_texts_of_a_pair_stand_once(panel):
    panel.parts.turn_to(PARTS[2])
    until(lambda: panel.parts.panel._here)
    panel.pairs.table.choose(["pair-003"])
    assert "Short answer 3." in panel.pairs._pair.value
    assert "lead (nats per token)" in panel.parts.panel._pair.value
    assert "Short answer 3." not in panel.parts.panel._pair.value


def test_another_run_reaches_the_table_and_every_part(panel, tmp_path):
    for name in PARTS:
        panel.parts.turn_to(name)
    panel.pairs.table.choose(["pair-003"])
    other = fake_run(tmp_path, "other", total_steps=20, pairs=6)
    panel.run = other
    assert {panel.pairs.run, *(panel.parts.made(name).run for name in PARTS)} == {other}
    until(lambda: panel.pairs._loaded and len(panel.pairs._loaded.table) == 6)
    assert panel.pairs.before.value == 0
    panel.run = None
    assert panel.selection.empty
    assert panel.parts.made(PARTS[0]).pair is None


def test_the_still_picture_holds_the_table_and_the_part_that_is_seen(panel):
    panel.pairs.table.choose(["pair-002"])
    still = str(panel.snapshot())
    assert "Question 2?" in still
    assert "Show every token" in still
