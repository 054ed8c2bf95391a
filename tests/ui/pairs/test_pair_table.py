"""What would be lost: a pair that cannot be found, a selection that is another than the one seen, a table that freezes
the page.
"""

import base64

import numpy as np
import pandas as pd
import pytest
from fake_run import fake_run, scores
from panels import until

from simpo_workbench.charts.scores import MOST_IN_CORNER
from simpo_workbench.charts.subplots import COLORS
from simpo_workbench.ui.pairs.pair_table import PairTable


@pytest.fixture
def run(tmp_path):
    return fake_run(tmp_path, total_steps=40)


@pytest.fixture
def panel(run):
    made = PairTable(run)
    until(lambda: made._loaded)
    return made


def press(panel, name):
    panel.chips.index = next(
        number for number, (label, _) in enumerate(panel.chips.options) if label.rsplit(" ", 1)[0] == name
    )


def chips(panel):
    return {label.rsplit(" ", 1)[0]: int(label.rsplit(" ", 1)[1].replace(",", "")) for label, _ in panel.chips.options}


def cells(panel, title):
    place = [column["title"] for column in panel.table.columns].index(title)
    return [row["cells"][place] for row in panel.table.rows]


def corner(panel, name):
    return next(trace for trace in panel.chart.widget.data if trace.name == name)


def values(sent):
    return (
        np.frombuffer(base64.b64decode(sent["bdata"]), sent["dtype"]).tolist() if isinstance(sent, dict) else list(sent)
    )


# --- what is read


def test_without_scores_it_says_where_they_come_from(tmp_path):
    assert "after the first evaluation" in PairTable()._empty.value
    assert PairTable().selection.empty
    run = fake_run(tmp_path)
    for path in run.path.glob("scores/*"):
        path.unlink()
    panel = PairTable(run)
    panel.snapshot()
    assert panel._empty.layout.display is None
    assert panel.export_button.description == "Export 0 shown pairs"


def test_a_run_is_shown_first_against_last_and_counted(panel, run):
    compared = run.compare()
    assert (panel.before.value, panel.after.value) == (0, 40)
    assert chips(panel)["all"] == 24
    assert chips(panel)["flipped to right"] == (compared["flip"] == "to right").sum() > 0
    assert (
        sum(chips(panel)[name] for name in ("flipped to right", "flipped to wrong", "still right", "still wrong")) == 24
    )
    assert [column["title"] for column in panel.table.columns][:4] == ["before", "after", "change", "chosen change"]
    assert panel.table.count_text == "24 pairs"


def test_other_steps_are_read_when_they_are_chosen(panel, run):
    panel.after.value = 20
    until(lambda: panel._loaded.after == 20)
    assert panel.table.rows[0]["cells"][1] == f"{run.compare(0, 20)['lead_after'].iloc[0]:+.2f}".replace("-", "−")


def test_refresh_follows_the_newest_evaluation(tmp_path):
    run = fake_run(tmp_path, total_steps=40, last_step=20)
    panel = PairTable(run)
    until(lambda: panel._loaded)
    scores(40, 40, 24).to_parquet(run.folder.scores(40))
    panel.refresh()
    until(lambda: panel.after.value == 40)
    panel.after.value = 20
    until(lambda: panel._loaded.after == 20)
    scores(60, 60, 24).to_parquet(run.folder.scores(60))
    panel.refresh()
    until(lambda: 60 in panel._loaded.steps)
    assert panel.after.value == 20


def test_refresh_reads_nothing_where_nothing_is_new(panel, run, monkeypatch):
    read = []
    monkeypatch.setattr(panel, "later", lambda *work, latest: read.append(work))
    for _ in range(3):
        panel.refresh()
    run.folder.append_metrics({"kind": "event", "step": 40, "event": "note", "text": "Nothing for this panel."})
    panel.refresh()
    assert read == []
    scores(60, 60, 24).to_parquet(run.folder.scores(60))
    panel.refresh()
    panel.refresh()
    assert len(read) == 1, "it is on the way"


def test_refresh_keeps_filter_search_page_order_and_the_pair_that_is_looked_at(tmp_path):
    run = fake_run(tmp_path, total_steps=120, last_step=20, pairs=500)
    panel = PairTable(run)
    until(lambda: panel._loaded)
    press(panel, "still wrong")
    panel.search.value, panel.path.value = "question", "mine.csv"
    panel.table._heard(None, {"sort": "lead_after"}, [])
    chosen = next(
        row["id"] for row in panel.table.rows if int(row["id"][5:]) % 7 == 0
    )  # near a lead, and it gains: it will flip
    panel.table._heard(None, {"choose": chosen}, [])
    panel.table._heard(None, {"page": 2}, [])
    scores(120, 120, 500).to_parquet(run.folder.scores(120))
    panel.refresh()
    until(lambda: panel.after.value == 120)
    assert panel.chips.options[panel.chips.index][0].startswith("still wrong")
    assert (panel.before.value, panel.search.value, panel.path.value) == (0, "question", "mine.csv")
    assert (panel.table.sort_by, panel.table.page) == ("lead_after", 2)
    assert panel.selection["pair_id"].tolist() == [chosen]
    assert "flipped to right" in panel._pair.value
    press(panel, "still right")
    assert panel.selection.empty, "another filter, chosen by hand, lets go of it"


def test_a_filter_is_kept_by_its_name_when_a_second_evaluation_brings_others(tmp_path):
    run = fake_run(tmp_path, total_steps=40, last_step=0)
    panel = PairTable(run)
    until(lambda: panel._loaded)
    press(panel, "chosen ahead")
    scores(20, 40, 24).to_parquet(run.folder.scores(20))
    panel.refresh()
    until(lambda: panel.after.value == 20)
    assert panel.chips.index == 0, "there is no such filter now, and no other takes its place"
    press(panel, "longer rejected ahead")
    scores(40, 40, 24).to_parquet(run.folder.scores(40))
    panel.refresh()
    until(lambda: panel.after.value == 40)
    assert panel.chips.options[panel.chips.index][0].startswith("longer rejected ahead")


def test_a_step_that_cannot_be_read_leaves_what_was_there_and_no_waiting_words(panel, run):
    said = panel._sentence.value
    run.folder.scores(20).write_bytes(b"no table")
    panel.after.value = 20
    assert "Reading the scores" in panel._sentence.value
    until(lambda: "Error" in panel.line.value)
    assert panel._sentence.value == said
    assert (panel.after.value, len(panel.shown)) == (40, 24)


def test_the_words_are_of_the_lead_in_a_run_whose_margin_counts_from_the_base_model(tmp_path):
    """DPO: before training every margin is 0, so by the margin no pair would be ahead and all of them would flip."""
    run = fake_run(tmp_path, total_steps=20)
    table = run.scores
    before = table[table["step"] == 0].assign(margin=0.0, correct=False)
    panel = PairTable(before=before, after=table[table["step"] == 20].assign(correct=True))
    leads = panel._loaded.table
    assert chips(panel)["still right"] == ((leads["lead_before"] > 0) & (leads["lead_after"] > 0)).sum() > 0
    assert chips(panel)["still wrong"] == ((leads["lead_before"] <= 0) & (leads["lead_after"] <= 0)).sum() > 0
    for name, label in (
        ("still right", "still right"),
        ("to right", "flipped to right"),
        ("still wrong", "still wrong"),
    ):
        assert len(values(corner(panel, name).x)) == chips(panel)[label]
    panel.table._heard(None, {"choose": "pair-023"}, [])
    assert "still right" in panel._pair.value


def test_one_table_alone_has_no_change_columns(tmp_path):
    table = fake_run(tmp_path, total_steps=20).scores
    panel = PairTable(before=table[table["step"] == 0])
    assert [column["title"] for column in panel.table.columns] == ["lead", "chosen tokens", "rejected tokens", "prompt"]
    assert set(chips(panel)) == {"all", "chosen ahead", "chosen behind", "longer rejected ahead"}
    assert panel.chart.widget.data[0].type == "bar"
    panel.table._heard(None, {"choose": "pair-001"}, [])
    assert "chosen behind" in panel._pair.value
    assert panel._steps.layout.display == "none"


def test_a_wrong_table_is_refused_in_words():
    panel = PairTable(before=pd.DataFrame({"pair_id": ["a"]}))
    assert "lacks the column" in panel.line.value
    assert panel.trouble == ""


# --- filter, search, sort


def test_a_filter_leaves_its_pairs_in_table_and_chart(panel):
    press(panel, "flipped to right")
    assert set(cells(panel, "flip")) == {"to right"}
    assert len(values(corner(panel, "to right").x)) == chips(panel)["flipped to right"] == len(panel.shown)
    assert len(values(corner(panel, "still wrong").x)) == 0
    assert "was behind and is ahead now" in panel._sentence.value
    assert "n=24, 95 %" in panel._sentence.value


def test_search_finds_words_in_prompts_and_answers_whatever_their_case(panel):
    panel.search.value = "winding QUESTION 17"
    assert panel.shown["pair_id"].tolist() == ["pair-017"]
    assert "1 pair of these" in panel._sentence.value
    panel.search.value = "nowhere"
    assert panel.shown.empty
    assert panel.table.rows == []
    assert panel.trouble == ""


def test_sorting_puts_the_largest_first(panel):
    panel.table._heard(None, {"sort": "lead_change"}, [])
    changes = [float(text.replace("−", "-")) for text in cells(panel, "change")]
    assert changes == sorted(changes, reverse=True)


# --- choosing


def test_a_row_opens_the_pair_and_rings_its_point(panel, run):
    panel.table._heard(None, {"choose": "pair-003"}, [])
    row = run.compare().set_index("pair_id").loc["pair-003"]
    text = panel._pair.value.striptags()
    assert "Question 3?" in text
    assert "A long and winding answer 3." in text
    assert f"{row['lead_before']:+.2f}".replace("-", "−") in text
    assert "gradient weight" in text
    assert panel.selection["pair_id"].tolist() == ["pair-003"]
    assert values(corner(panel, "chosen pairs").x) == [row["lead_before"]]


def test_a_point_chooses_its_row(panel):
    wanted = corner(panel, "to right").customdata[1]
    panel._points_chosen("to right", [1])
    assert panel.selection["pair_id"].tolist() == [wanted]
    assert panel.table.selected == [wanted]


def test_several_rows_are_a_frame_in_the_order_of_choosing(panel):
    for name, more in (("pair-007", False), ("pair-002", True), ("pair-011", True)):
        panel.table._heard(None, {"choose": name, "more": more}, [])
    assert panel.selection["pair_id"].tolist() == ["pair-007", "pair-002", "pair-011"]
    assert "3 pairs chosen" in panel._pair.value
    assert "Question 11?" in panel._pair.value
    panel.clear_button.click()
    assert panel.selection.empty
    assert list(panel.selection.columns) == list(panel.shown.columns)


def test_a_pair_that_is_not_there_is_not_chosen(panel):
    panel.table.choose(["nobody"])
    assert panel.selection.empty
    assert "Choose a pair" in panel._pair.value
    assert panel.export_button.description == "Export 24 shown pairs"
    panel.table.choose(["pair-003", "nobody"])
    assert panel.selection["pair_id"].tolist() == ["pair-003"]
    assert panel.export_button.description == "Export 1 chosen pair"
    assert panel.trouble == ""


def test_an_order_that_does_not_exist_is_said_in_the_line(panel):
    panel.table._arrange = lambda: 1 / 0
    panel.table._heard(None, {"sort": "lead_change"}, [])
    assert "ZeroDivisionError" in panel.line.value


def test_a_box_chooses_all_shown_pairs_in_it(panel):
    table = panel.shown
    panel._box_chosen((-0.4, 0.0), (-10, 10))
    assert set(panel.selection["pair_id"]) == set(table.loc[table["lead_before"].between(-0.4, 0.0), "pair_id"])
    assert len(panel.selection) > 1


def test_a_filter_lets_go_of_pairs_that_are_not_seen_any_more(panel):
    press(panel, "still wrong")
    panel.table._heard(None, {"choose": panel.table.rows[0]["id"]}, [])
    press(panel, "still right")
    assert panel.selection.empty
    assert "Choose a pair" in panel._pair.value


def test_another_run_forgets_the_choice(panel, tmp_path):
    panel.table._heard(None, {"choose": "pair-003"}, [])
    panel.run = fake_run(tmp_path, name="other", total_steps=20, pairs=3)
    until(lambda: panel._loaded and len(panel._loaded.table) == 3)
    assert panel.selection.empty
    panel.run = None
    assert panel._content.layout.display == "none"
    assert panel.selection.empty


# --- export


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.jsonl"])
def test_the_selection_is_written_and_nothing_is_replaced(panel, tmp_path, name):
    for one in ("pair-007", "pair-002"):
        panel.table._heard(None, {"choose": one, "more": True}, [])
    assert panel.export_button.description == "Export 2 chosen pairs"
    panel.path.value = str(tmp_path / name)
    panel.export_button.click()
    until(lambda: "2 pairs written" in panel.line.value)
    table = pd.read_csv(panel.path.value) if name.endswith("csv") else pd.read_json(panel.path.value, lines=True)
    assert table["pair_id"].tolist() == ["pair-007", "pair-002"]
    panel.export_button.click()
    until(lambda: "is there already" in panel.line.value)


def test_without_a_choice_what_is_shown_is_written(panel, tmp_path):
    press(panel, "still wrong")
    panel.export(tmp_path / "wrong.csv")
    until(lambda: "written" in panel.line.value)
    assert len(pd.read_csv(tmp_path / "wrong.csv")) == chips(panel)["still wrong"]


@pytest.mark.parametrize(
    ("path", "said"),
    [("pairs.xls", "end the name with .csv or .jsonl"), ("/nowhere/at/all/pairs.csv", "cannot be written")],
)
def test_a_path_that_cannot_be_written_is_said_in_words(panel, path, said):
    panel.export(path)
    until(lambda: said in panel.line.value)
    assert panel.trouble == ""


# --- looks


def test_the_chart_follows_the_theme_and_has_words(panel):
    panel._frame.theme = "dark"
    assert panel.trouble == ""
    assert panel.chart.widget.layout.paper_bgcolor == COLORS["dark"]["ground"]
    assert "lead before (across) and after (up)" in panel.chart.words.value


def test_the_still_picture_holds_counts_pairs_and_the_open_one(run):
    panel = PairTable(run)
    picture = panel.snapshot().striptags()
    assert "flipped to right" in picture
    assert "Question 0?" in picture
    panel.table._heard(None, {"choose": "pair-003"}, [])
    assert "A long and winding answer 3." in panel.snapshot()


def test_markup_in_texts_is_text_everywhere(tmp_path):
    bad = "<img src=x onerror=alert(1)>"
    panel = PairTable(fake_run(tmp_path, total_steps=20, texts=(bad, bad, bad)))
    until(lambda: panel._loaded)
    panel.table._heard(None, {"choose": "pair-000"}, [])
    assert "<img" not in panel._pair.value
    assert "<img" not in panel.snapshot()
    assert not any("<img" in text for trace in panel.chart.widget.data if trace.text is not None for text in trace.text)


def test_sixty_thousand_pairs_send_the_page_one_page_and_a_few_points():
    n = 60_000
    chance = np.random.default_rng(0)

    def table(shift):
        leads = chance.normal(shift, 0.5, n)
        numbers = {
            "chosen_avg_logp": leads - 1,
            "rejected_avg_logp": np.full(n, -1.0),
            "margin": 2 * leads,
            "correct": leads > 0,
            "beyond_gamma": leads > 0.5,
        }
        return pd.DataFrame(
            {
                "pair_id": [f"p{i}" for i in range(n)],
                "prompt": [f"Prompt {i}" for i in range(n)],
                "chosen": "Yes.",
                "rejected": "No.",
                **numbers,
            }
        )

    panel = PairTable(before=table(-0.1), after=table(0.3))
    assert panel.trouble == ""
    assert len(panel.table.rows) == 50
    assert sum(len(values(trace.x)) for trace in panel.chart.widget.data) <= 4 * MOST_IN_CORNER
    assert any("1,000 drawn" in note.text for note in panel.chart.widget.layout.annotations)
    panel._box_chosen((-10, 10), (-10, 10))
    assert len(panel.selection) == n
    assert len(panel.table.selected) == 50, "what is not on the page is not sent to it"


# --- the noise of scoring, and another run beside this one


def test_flips_within_the_noise_of_the_run_are_not_counted_and_it_says_so(tmp_path):
    run = fake_run(tmp_path, total_steps=40, noise=0.3)
    panel = PairTable(run)
    until(lambda: panel._loaded)
    compared, sides = run.compare(), run.scores.pivot(index="pair_id", columns="step", values="margin") > 0
    crossed = int((sides[0] != sides[40]).sum())
    assert 0 < chips(panel)["flipped to right"] == (compared["flip"] == "to right").sum() < crossed
    within = chips(panel)["within the noise"]
    assert chips(panel)["flipped to right"] + chips(panel)["flipped to wrong"] + within == crossed
    assert (
        f"{within} flips lie within the noise of scoring (±0.3 nats per token) and are not counted"
        in panel._sentence.value
    )
    press(panel, "within the noise")
    panel.table._heard(None, {"choose": panel.table.rows[0]["id"]}, [])
    assert "changed sides within the noise of scoring" in panel._pair.value


def test_a_run_without_a_measured_noise_says_so_and_counts_every_flip(panel):
    assert "not measured in this run" in panel._sentence.value
    assert "within the noise" not in chips(panel)


def test_after_may_be_a_step_of_another_run_whose_pairs_are_joined(tmp_path):
    run, other = (
        fake_run(tmp_path, total_steps=40, noise=0.01),
        fake_run(tmp_path, name="other-seed", total_steps=60, pairs=20, noise=0.02),
    )
    panel = PairTable(run)
    until(lambda: panel._loaded)
    assert [name for name, _ in panel.after_of.options] == ["this run", "other-seed"]
    panel.after_of.value = "other-seed"
    until(lambda: panel._loaded.after_of == "other-seed")
    assert [step for _, step in panel.after.options] == [0, 20, 40, 60]
    assert (panel.after.value, len(panel.shown)) == (60, 20), "its newest step, and the pairs of both"
    theirs = other.scores.query("step == 60").set_index("pair_id")
    wanted = theirs["chosen_avg_logp"] - theirs["rejected_avg_logp"]
    pd.testing.assert_series_equal(panel.shown.set_index("pair_id")["lead_after"], wanted, check_names=False)
    assert "±0.02 nats per token" in panel._sentence.value, "of two noises the larger one"
    panel.after.value = 20
    until(lambda: panel._loaded.after == 20)
    scores(80, 80, 20).to_parquet(other.folder.scores(80))
    panel.refresh()
    until(lambda: 80 in panel._loaded.after_steps)
    assert (panel.after.value, panel.after_of.value) == (
        20,
        "other-seed",
    ), "whoever looks at an earlier step stays there"
    panel.after_of.value = ""
    until(lambda: panel._loaded.after_of == "")
    assert (panel.after.value, len(panel.shown)) == (40, 24)
    assert panel.trouble == ""


def test_a_run_of_other_pairs_is_refused_and_what_was_shown_stays(tmp_path):
    run, other = fake_run(tmp_path, total_steps=20), fake_run(tmp_path, name="foreign", total_steps=20)
    for table in ("pairs.parquet", "scores/step-000000.parquet", "scores/step-000020.parquet"):
        frame = pd.read_parquet(other.path / table)
        frame.assign(pair_id="x" + frame["pair_id"]).to_parquet(other.path / table)
    panel = PairTable(run)
    until(lambda: panel._loaded)
    panel.after_of.value = "foreign"
    until(lambda: "no pair in common" in panel.line.value)
    assert (panel.after_of.value, panel.after.value, len(panel.shown)) == ("", 20, 24)


def test_alone_in_its_folder_a_run_has_nothing_beside_it_and_the_menu_says_why(panel):
    assert panel.after_of.disabled
    assert "no other evaluated run" in panel.after_of.tooltip


def test_the_pair_that_was_chosen_last_is_there_for_other_panels(panel):
    told = []
    panel.observe(lambda change: told.append(change["new"].get("pair_id")), "picked_pair")
    assert panel.picked_pair == {}
    panel.table._heard(None, {"choose": "pair-003"}, [])
    panel.table._heard(None, {"choose": "pair-007", "more": True}, [])
    assert panel.picked_pair["pair_id"] == "pair-007"
    assert panel.picked_pair["chosen"] == "Short answer 7."
    assert "lead_before" in panel.picked_pair
    panel.clear_button.click()
    assert panel.picked_pair == {}
    assert list(dict.fromkeys(told)) == ["pair-003", "pair-007", None]
