"""What would be lost: the step at which a pair turned, the answer it gave then, or a comparison that joins the wrong
pairs.
"""

import numpy as np
import pandas as pd
import pytest
from fake_run import fake_run, rescore, sampled, scores
from panels import until, visible

from simpo_workbench.analysis.leads import lead_history
from simpo_workbench.base.files import write_jsonl
from simpo_workbench.charts.subplots import COLORS
from simpo_workbench.ui.pairs.lead_history import LeadHistory

NOISE = 0.05


@pytest.fixture
def run(tmp_path):
    return fake_run(tmp_path, total_steps=60, noise=NOISE)


@pytest.fixture
def panel(run):
    return opened(run)


def opened(run):
    made = LeadHistory(run)
    until(lambda: made._here)
    return made


def cells(panel, title):
    place = [column["title"] for column in panel.table.columns].index(title)
    return [row["cells"][place] for row in panel.table.rows]


def groups(panel):
    return {label.rsplit(" ", 1)[0]: int(label.rsplit(" ", 1)[1]) for label, _ in panel.chips.options}


def text(widget):
    return widget.value.striptags()


# --- what is read


def test_without_scores_it_says_where_they_come_from(tmp_path):
    assert "after the first evaluation" in LeadHistory()._empty.value
    run = fake_run(tmp_path)
    for path in run.path.glob("scores/*"):
        path.unlink()
    panel = LeadHistory(run)
    panel.snapshot()
    assert visible(panel._empty)
    assert not visible(panel._content)
    assert panel.trouble == ""


def test_the_newest_step_is_shown_first_with_its_counts(panel, run):
    history = lead_history(run.scores, NOISE)
    counts = history["became"].value_counts()
    assert (list(panel.step.options), panel.step.value) == ([0, 20, 40, 60], 60)
    assert f"ahead in {(history[60] > 0).sum()} of 24 pairs" in text(panel._sentence)
    assert f"Since step 0: {counts['to right']} flipped to right, 0 to wrong" in text(panel._sentence)
    within = int((((history[0] > 0) != (history[60] > 0)) & (history["flips"] == 0)).sum())
    assert within > 0
    assert f"{within} flips lie within the noise of scoring (±0.05 nats per token)" in text(panel._sentence).replace(
        "1 flip lies", "1 flips lie"
    )
    assert len(panel.table.rows) == counts["to right"]


def test_at_an_earlier_step_only_what_had_happened_by_then_is_told(panel, run):
    panel.step.value = 20
    history = lead_history(run.scores.query("step <= 20"), NOISE)
    flipped = history[history["flips"] > 0]
    assert f"{len(flipped)} flipped to right" in text(panel._sentence)
    assert {row["id"] for row in panel.table.rows} == set(flipped["pair_id"])
    assert set(cells(panel, "at step")) == {"20"}
    panel.step.value = 0
    assert "Since step" not in text(panel._sentence)
    assert panel.table.rows == []


def test_steps_are_turned_by_buttons_that_say_why_they_end(panel):
    assert panel.next.disabled
    assert "last evaluated step" in panel.next.tooltip
    panel.previous.click()
    panel.previous.click()
    assert panel.step.value == 20
    panel.next.click()
    assert panel.step.value == 40
    panel.step.value = 0
    assert "first evaluated step" in panel.previous.tooltip


def test_a_row_says_when_and_which_way_and_from_where_to_where(panel, run):
    history = lead_history(run.scores, NOISE).set_index("pair_id")
    row = panel.table.rows[0]
    at, became, before, now = row["cells"][:4]
    pair = history.loc[row["id"]]
    assert (at, became) == (str(pair["last_flip"]), "to right")
    assert (before, now) == tuple(f"{pair[step]:+.2f}".replace("-", "−") for step in (0, 60))
    assert row["tones"][1] == "chosen"


def test_scores_alone_are_enough(run):
    panel = LeadHistory(scores=run.scores)
    assert panel.trouble == ""
    assert "of 24 pairs" in text(panel._sentence)
    assert "noise" not in text(panel._sentence), "nobody knows whether it was measured"
    assert not visible(panel._answers_part)
    assert "no runs beside it" in panel.beside.tooltip
    panel.picked = "pair-003"
    assert "Short answer 3." in text(panel._pair)
    wrong = LeadHistory(scores=run.scores.drop(columns="step"))
    assert "lack the column" in wrong.line.value


@pytest.mark.parametrize("number", [int, np.int64])
def test_pairs_that_are_numbered_can_be_chosen(run, number):
    scores = run.scores
    panel = LeadHistory(scores=scores.assign(pair_id=[number(one[5:]) for one in scores["pair_id"]]))
    panel._line_chosen("to right", [5])
    assert panel.picked == str(int(panel.picked))
    assert f"Short answer {panel.picked}." in text(panel._pair)
    panel.table._heard(None, {"choose": panel.table.rows[3]["id"]}, [])
    assert panel.table.selected == panel.chosen == [panel.table.rows[3]["id"]]
    assert f"Short answer {panel.picked}." in text(panel._pair)
    assert panel.trouble == ""


def test_a_pair_that_was_not_scored_at_the_step_is_no_flip_within_the_noise(run):
    """The pairs that begin ahead have no lead at step 60: nothing is known of a change of sides."""
    first = run.scores.query("step == 0").set_index("pair_id")
    ahead = first.index[first["chosen_avg_logp"] > first["rejected_avg_logp"]]
    table = pd.read_parquet(run.folder.scores(60))
    rescore(run, 60, table[~table["pair_id"].isin(ahead)])
    panel, history = opened(run), lead_history(run.scores, NOISE)
    within = int(((history[0] <= 0) & (history[60] > 0) & (history["flips"] == 0)).sum())
    assert 0 < within < len(ahead)
    assert f"{within} flip{' lies' if within == 1 else 's lie'} within the noise" in text(panel._sentence)
    assert f"{len(ahead)} pairs were not scored at every step" in text(panel._sentence)


def test_refresh_follows_a_live_run_and_reads_only_what_is_new(tmp_path, monkeypatch):
    run = fake_run(tmp_path, total_steps=60, last_step=20, noise=NOISE)
    panel = opened(run)
    read = []
    real = pd.read_parquet
    monkeypatch.setattr(pd, "read_parquet", lambda path, **more: read.append(path.name) or real(path, **more))
    panel.refresh()
    panel.refresh()
    scores(40, 60, 24).to_parquet(run.folder.scores(40))
    write_jsonl(run.folder.generations(40), sampled(40, 60, ["What is the capital of France?"]))
    panel.refresh()
    until(lambda: panel.step.value == 40)
    panel.refresh()
    assert read == ["step-000040.parquet"]
    assert "step 40" in text(panel._cards)
    panel.step.value = 20
    scores(60, 60, 24).to_parquet(run.folder.scores(60))
    panel.refresh()
    until(lambda: 60 in panel.step.options)
    assert panel.step.value == 20, "who looks at an earlier step stays there"


def test_a_run_that_goes_back_and_evaluates_anew_is_read_anew(run, panel):
    panel.step.value = 40
    before = panel._now.set_index("pair_id")[40]
    run.folder.scores(60).unlink()
    rescore(run, 40, scores(40, 40, 24))  # other numbers at the same step
    panel.refresh()
    until(lambda: list(panel.step.options) == [0, 20, 40])
    assert (panel._now.set_index("pair_id")[40] != before).any()


def test_a_step_that_cannot_be_read_is_said_and_what_was_there_stays(run, panel):
    said = text(panel._sentence)
    run.folder.scores(80).write_bytes(b"no table")
    panel.refresh()
    until(lambda: "Error" in panel.line.value)
    assert text(panel._sentence) == said


def test_sixty_thousand_pairs_send_the_page_one_page_and_some_lines():
    frame = pd.concat(
        [
            scores(step, 20, 3)
            .sample(60_000, replace=True, random_state=0)
            .assign(pair_id=[f"p{n}" for n in range(60_000)])
            for step in (0, 20)
        ],
        ignore_index=True,
    )
    panel = LeadHistory(scores=frame)
    assert panel.trouble == ""
    assert len(panel.table.rows) <= 50
    assert (
        sum(len(trace.customdata) for trace in panel._drawn["figure"].data if trace.customdata is not None)
        <= 4 * 100 * 3
    )


# --- answers


def test_the_answer_of_the_step_stands_beside_the_base_models(panel):
    assert "Answer 0 at step 0" in text(panel._cards)
    assert "tuned · step 60" in text(panel._cards)
    panel.step.value = 20
    assert "tuned · step 20" in text(panel._cards)
    panel.prompt.value = panel.prompt.options[2][1]
    assert "How do I keep basil alive indoors?" in text(panel._cards)
    assert "Answer 2" in text(panel._cards)


def test_where_nothing_was_sampled_the_answer_before_it_is_shown_and_named(run):
    run.folder.generations(40).unlink()
    panel = opened(run)
    panel.step.value = 40
    assert "Nothing was sampled at step 40: this is the answer of step 20" in text(panel._cards)
    for path in run.path.glob("generations/*"):
        path.unlink()
    assert "generation.prompts" in text(opened(run)._cards)


# --- choosing


def test_a_line_and_a_row_pick_the_pair_and_open_it(panel, run):
    name = "to right"
    trace = next(one for one in panel._drawn["figure"].data if one.name == name)
    panel._line_chosen(name, [5])
    assert panel.picked == trace.customdata[5]
    assert panel.chosen == [panel.picked]
    assert panel.table.selected == [panel.picked]
    row = panel.table.rows[3]
    panel.table._heard(None, {"choose": row["id"]}, [])
    assert panel.picked == row["id"]
    thick = next(one for one in panel._drawn["figure"].data if one.name == "chosen pairs")
    assert set(thick.customdata) == {row["id"]}
    history = lead_history(run.scores, NOISE).set_index("pair_id").loc[row["id"]]
    shown = text(panel._pair)
    assert f"flipped to right at step {history['last_flip']}" in shown
    assert all(f"{history[step]:+.2f}".replace("-", "−") in shown for step in (0, 20, 40, 60))
    assert "A long and winding answer" in shown
    panel.step.value = 0
    assert "still wrong" in text(panel._pair), "at the first step it had not happened"
    assert panel.trouble == ""


def test_what_another_panel_chooses_is_drawn_and_the_same_pair_can_be_picked_again(panel):
    told = []
    panel.observe(lambda change: told.append(change["new"]), "picked")
    panel._pick("pair-003")
    panel.chosen = ["pair-001", "pair-002"]
    thick = next(one for one in panel._drawn["figure"].data if one.name == "chosen pairs")
    assert set(thick.customdata) == {"pair-001", "pair-002"}
    assert "Question 2?" in text(panel._pair)
    panel._pick("pair-003")
    assert [one for one in told if one] == ["pair-003", "pair-003"]
    panel.chosen = []
    assert "Choose a line" in text(panel._pair)


def test_a_pair_that_is_chosen_but_not_there_opens_nothing(panel):
    panel.chosen = ["nobody"]
    assert "Choose a line" in text(panel._pair)
    assert panel.trouble == ""


# --- two runs


@pytest.fixture
def two(tmp_path, run):
    """The run, and another seed that was evaluated on 20 of its pairs at steps 0, 20 and 30; its leads are smaller."""
    other = fake_run(tmp_path, name="other-seed", total_steps=30, pairs=24, noise=0.01)
    for step in (0, 20, 30):
        table = pd.read_parquet(other.folder.scores(step)).iloc[:20]
        rescore(other, step, table.assign(chosen_avg_logp=table["chosen_avg_logp"] - 0.02 * step))
    panel = opened(run)
    panel.beside.value = "other-seed"
    until(lambda: panel._other)
    return panel, other


def test_beside_another_run_every_common_pair_is_in_one_group(two, run):
    panel, other = two
    mine, theirs = (
        table.set_index("pair_id") for table in (run.scores.query("step == 60"), other.scores.query("step == 30"))
    )
    here, there = (table["chosen_avg_logp"] - table["rejected_avg_logp"] for table in (mine.loc[theirs.index], theirs))
    assert sum(groups(panel).values()) == 20
    assert groups(panel)["only this run"] == ((here > NOISE) & (there <= -NOISE)).sum() > 0
    assert groups(panel)["both right"] == ((here > 0) & (there > 0)).sum()
    assert groups(panel)["neither"] == ((here <= 0) & (there <= 0)).sum()
    assert "other-seed at step 30 (its last evaluation until then; this run's is of step 60): 20 pairs in both" in text(
        panel._sentence
    )
    panel.chips.value = "neither"
    assert {row["id"] for row in panel.table.rows} == set(theirs.index[(here <= 0) & (there <= 0)])
    assert [column["title"] for column in panel.table.columns] == [
        "this run",
        "that run",
        "flip here",
        "flip there",
        "prompt",
    ]
    panel.step.value = 20
    assert "other-seed at step 20:" in text(panel._sentence)
    assert panel.chips.value == "neither", "a group that was chosen stays"
    assert panel.trouble == ""


def test_beside_another_run_a_picked_pair_shows_its_way_in_both(two):
    panel, other = two
    panel.chosen = ["pair-003"]
    names = [trace.name for trace in panel.figure.widget.data if trace.name and trace.name.endswith("chosen pairs")]
    assert len(names) == 2
    lead = other.scores.query("step == 20 and pair_id == 'pair-003'").iloc[0]
    assert "in other-seed" in text(panel._pair)
    assert f"{lead['chosen_avg_logp'] - lead['rejected_avg_logp']:+.2f}".replace("-", "−") in text(panel._pair)
    panel.beside.value = ""
    until(lambda: panel._other is None)
    assert not visible(panel._chip_row)
    assert "in other-seed" not in text(panel._pair)


def test_the_other_run_is_followed_too(two):
    panel, other = two
    scores(50, 50, 20).to_parquet(other.folder.scores(50))
    panel.refresh()
    until(lambda: 50 in panel._other.steps)
    assert "other-seed at step 50" in text(panel._sentence)


def test_a_run_of_other_pairs_is_refused_and_the_menu_goes_back(run, tmp_path):
    other = fake_run(tmp_path, name="foreign", total_steps=20)
    for path in (other.folder.pairs, other.folder.scores(0), other.folder.scores(20)):
        frame = pd.read_parquet(path)
        frame.assign(pair_id="x" + frame["pair_id"]).to_parquet(path)
    panel = opened(run)
    panel.beside.value = "foreign"
    until(lambda: "have no pair in common" in panel.line.value)
    assert panel.beside.value == ""
    assert "Since step 0" in text(panel._sentence)


def test_an_unknown_noise_of_one_run_is_said(two, tmp_path, run):
    fake_run(tmp_path, name="older", total_steps=20)
    panel, _ = two
    panel.refresh()
    panel.run = None
    panel.run = run
    until(lambda: panel._here)
    panel.beside.value = "older"
    until(lambda: panel._other)
    assert "not measured in each of the two runs" in text(panel._sentence)


# --- looks


def test_what_was_read_of_an_earlier_run_and_comes_late_is_not_shown(panel, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "simpo_workbench.ui.parts.panel.in_background", lambda work, done, failed: asked.append((work, done, failed))
    )
    panel.run = fake_run(tmp_path, name="slow", total_steps=20)
    panel.run = fake_run(tmp_path, name="quick", total_steps=20)
    (slow, shown_late, failed_late), (quick, shown, _) = asked
    shown(quick())
    shown_late(slow())
    failed_late(OSError())
    assert panel._here.name == "quick"
    assert "Leads of the chosen answers in quick" in panel.figure.words.value


def test_another_run_forgets_the_choice_and_none_shows_the_empty_words(panel, tmp_path):
    panel._pick("pair-003")
    panel.run = fake_run(tmp_path, name="another", total_steps=20, pairs=4)
    until(lambda: panel._here and len(panel._here.leads) == 4)
    assert (panel.chosen, panel.picked, panel.step.value) == ([], "", 20)
    panel.run = None
    assert not visible(panel._content)


def test_the_chart_follows_the_theme_and_has_words_and_a_table(panel):
    panel._frame.theme = "dark"
    assert panel.trouble == ""
    assert panel.figure.widget.layout.paper_bgcolor == COLORS["dark"]["ground"]
    assert "the line is the median" in panel.figure.words.value
    assert panel.figure.words.value.count("<tr>") == 5, "a head and four steps"


def test_the_still_picture_holds_counts_steps_pairs_and_answers(run):
    panel = LeadHistory(run)
    picture = panel.snapshot().striptags()
    assert "of 24 pairs" in picture
    assert "Leads of the chosen answers in plain-answers-0412, nats per token" in picture
    assert "Answer 0 at step 60" in picture
    panel._pick("pair-003")
    assert "Short answer 3." in panel.snapshot()


def test_markup_in_texts_is_text_everywhere(tmp_path):
    bad = "<img src=x onerror=alert(1)>"
    panel = opened(fake_run(tmp_path, total_steps=20, texts=(bad, bad, bad), prompts=[bad]))
    panel.chosen = ["pair-000"]
    for shown in (panel._pair.value, panel._cards.value, panel._sentence.value, panel.snapshot()):
        assert "<img" not in shown
    assert not any("<img" in one for trace in panel.figure.widget.data if trace.text is not None for one in trace.text)
