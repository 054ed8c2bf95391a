"""The whole interface, side by side with Python.

What a user would lose: settings that do not arrive, a run that is not found again, a panel that breaks the others.
"""

import json
import os

import pytest
import tiny
from fake_run import fake_run
from panels import until

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.base.files import read_json, write_json
from simpo_workbench.config.presets import preset
from simpo_workbench.config.run_config import RunConfig
from simpo_workbench.runs.run import Run
from simpo_workbench.ui import workbench
from simpo_workbench.ui.data import data_view
from simpo_workbench.ui.train import run_monitor, run_start
from simpo_workbench.ui.workbench import PANELS, Workbench

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes workbenches on an own root that follow nobody when the test is over."""
    found = []
    monkeypatch.setattr(workbench, "_HEAD_POLL_S", 0.05)
    monkeypatch.setattr(run_monitor, "POLL_S", 0.05)

    def make(config=None, **more):
        found.append(Workbench(config, root=tmp_path / "runs", **more))
        return found[-1]

    yield make
    for one in found:
        one.close()
        for panel in (one, *one._panels.values()):
            assert panel.trouble == ""


@pytest.fixture
def root(tmp_path):
    return tmp_path / "runs"


def shown(bench):
    return [name for name, panel in bench._panels.items() if panel.layout.display != "none"]


# --- panels


def test_an_empty_root_begins_with_the_settings_of_the_demo(made, root):
    bench = made()
    assert list(bench._panels) == shown(bench) == ["1 Setup"]
    assert bench.config == preset("demo").with_changes({"run.root": str(root)})
    assert bench.run is None
    assert bench.pairs is None
    assert bench.selection.empty
    assert bench.menu.value == "1 Setup", "looking at a selection turns no panel"
    assert "demo model" in bench.head.value


def test_panels_are_made_when_they_are_turned_to_and_only_one_is_seen(made):
    bench = made()
    for name in ("2 Data", "Runs", "3 Train", "4 Answers", "5 Pairs", "1 Setup"):
        panel = bench.turn_to(name)
        assert shown(bench) == [name]
        assert bench.menu.value == name
        assert bench.turn_to(name) is panel
    assert set(bench._panels) == set(PANELS)
    bench.menu.value = "4 Answers"
    assert shown(bench) == ["4 Answers"]
    with pytest.raises(WorkbenchError, match="There is no panel 'Train': choose one of 1 Setup"):
        bench.turn_to("Train")
    assert all(panel.line is bench.line for panel in bench._panels.values()), "one line says what happened last"


def test_a_picture_without_a_kernel_is_that_of_the_panel_which_is_seen(made, root):
    fake_run(root, "one", changes={"model.name": HOSTILE})
    bench = made(RunConfig(model={"name": HOSTILE}))
    for name in PANELS:
        bench.turn_to(name)
        until(lambda: bench.pairs is not None or "2 Data" not in bench._panels or "Error" in bench.line.value)
        bundle = bench._repr_mimebundle_()
        assert "<img" not in bundle["text/html"], name
        assert "SimPO Workbench" in bundle["text/html"]


# --- settings


def test_settings_go_from_the_form_to_data_and_start_and_back_and_come_to_rest(made):
    bench, changes = made(), []
    form, data, train = (bench.turn_to(name) for name in ("1 Setup", "2 Data", "3 Train"))
    bench.observe(lambda change: changes.append(change["new"]), "config")
    form.fields.values = {**form.fields.values, "loss.beta": "7"}
    assert [config.loss.beta for config in (bench.config, train.config, train.starter.config)] == [7, 7, 7]
    assert "β 7" in bench.head.value
    assert "β 7" in train.starter.about.value
    assert len(changes) == 1
    bench.config = bench.config.with_changes({"data.limit": 9, "model.name": "org/other"})
    assert (form.config, data.data.limit, data.model.name) == (bench.config, 9, "org/other")
    assert form.fields.values["data.limit"] == "9"
    assert len(changes) == 2
    data.data = data.data.model_copy(update={"limit": 11, "system_prompt": "none"})
    assert bench.config.data.system_prompt == "none", "a text stays the text it is"
    assert [config.data.limit for config in (bench.config, form.config, train.config)] == [11, 11, 11]
    assert len(changes) == 3
    bench.turn_to("2 Data")
    until(lambda: bench.pairs is not None)
    assert len(bench.pairs) == 11


def test_what_is_set_before_a_panel_is_made_is_there_when_it_is(made):
    bench = made()
    bench.config = bench.config.with_changes({"loss.beta": 5, "data.limit": 8})
    assert bench.turn_to("2 Data").data.limit == 8
    assert bench.turn_to("3 Train").config.loss.beta == 5
    assert bench.turn_to("1 Setup").config == bench.config


def test_the_root_is_the_workbenchs_own_whatever_is_chosen(made, root):
    bench = made()
    form = bench.turn_to("1 Setup")
    assert "changed from preset: <b>0</b>" in form.count.value
    form.presets.value = "seed-article"
    assert bench.config == preset("seed-article").with_changes({"run.root": str(root)})
    form.back.click()
    assert bench.config.run.root == str(root)
    bench.config = preset("demo")
    assert bench.config == form.config == preset("demo").with_changes({"run.root": str(root)})


def test_a_configuration_set_before_the_form_is_made_gets_the_root_too(made, root):
    fake_run(root, "one", last_step=20, state="training")
    bench = made()
    assert list(bench._panels) == ["3 Train"]
    bench.config = preset("seed-article")
    assert bench._panels["3 Train"].config.run.root == bench.config.run.root == str(root)


def test_a_source_that_is_typed_in_setup_is_read_once_when_data_is_turned_to(made, tmp_path, monkeypatch):
    read, load_data = [], data_view.load_data
    monkeypatch.setattr(
        data_view, "load_data", lambda data, seed: read.append((data.train, seed)) or load_data(data, seed)
    )
    source = tmp_path / "mine.jsonl"
    source.write_text("".join(json.dumps(one) + "\n" for one in tiny.rows(40)))
    bench = made()
    data = bench.turn_to("2 Data")
    until(lambda: bench.pairs is not None)
    form = bench.turn_to("1 Setup")
    for typed in ("t", "tr", str(source)):
        form.fields.say("data.train", typed)
        assert bench.pairs is None
    form.fields.say("training.seed", "7")
    assert data._reading is None
    bench.turn_to("2 Data")
    until(lambda: bench.pairs is not None)
    assert read == [("demo", 0), (str(source), 7)]
    assert [pair.pair_id for pair in bench.pairs] == [pair.pair_id for pair in load_data(bench.config.data, 7)[0]]
    bench.config = bench.config.with_changes({"data.train": "demo", "training.seed": 8})
    until(lambda: bench.pairs is not None)
    assert read[2:] == [("demo", 8)], "what is seen is read at once, and not by the old seed first"


def test_a_value_that_is_no_number_reaches_no_other_panel(made):
    bench = made()
    before, train = bench.config, bench.turn_to("3 Train")
    form = bench.turn_to("1 Setup")
    form.fields.values = {**form.fields.values, "loss.beta": "much"}
    assert bench.config == train.config == before
    assert "beta" in bench.line.value


# --- runs


def test_a_run_opened_from_the_list_is_shown_everywhere(made, root):
    fake_run(root, "one", total_steps=40)
    bench = made()
    for name in ("3 Train", "4 Answers", "5 Pairs"):
        bench.turn_to(name)
    runs = bench.turn_to("Runs")
    until(lambda: runs.table.rows)
    runs.table._heard(None, {"choose": "one"}, [])
    runs.open_run.click()
    assert shown(bench) == ["3 Train"]
    assert bench.run.name == "one"
    assert all(bench._panels[name].run is bench.run for name in ("3 Train", "4 Answers", "5 Pairs"))
    assert "finished" in bench.head.value
    pairs_panel = bench.turn_to("5 Pairs")
    until(lambda: pairs_panel.pairs.table.rows)
    pairs_panel.pairs.table._heard(None, {"choose": "pair-003"}, [])
    assert bench.selection["pair_id"].tolist() == ["pair-003"]
    bench.run = None
    assert bench._panels["3 Train"].run is None
    assert "finished" not in bench.head.value


def test_a_clone_takes_the_settings_into_the_form_and_into_this_root(made, root):
    fake_run(root, "one", total_steps=40, changes={"loss.beta": 7.5, "run.root": "elsewhere"})
    bench = made()
    runs = bench.turn_to("Runs")
    until(lambda: runs.table.rows)
    runs.table._heard(None, {"choose": "one"}, [])
    runs.clone.click()
    assert shown(bench) == ["1 Setup"]
    assert bench.turn_to("1 Setup").config == bench.config
    assert (bench.config.loss.beta, bench.config.run.root, bench.config.run.name) == (7.5, str(root), None)


def test_an_objective_found_in_the_geometry_is_that_of_the_next_run(made, root):
    fake_run(root, "one", total_steps=40)
    bench = made(run=Run(fake_run(root, "two", total_steps=40).folder))
    form, pairs_panel = bench.turn_to("1 Setup"), bench.turn_to("5 Pairs")
    geometry = pairs_panel.parts.turn_to("Loss geometry")
    geometry._on_use(4.0, 0.3)
    assert (bench.config.loss.beta, bench.config.loss.gamma_beta_ratio) == (4.0, 0.3)
    assert form.config == bench.config
    assert "β 4 and γ/β 0.3" in bench.line.value


def test_the_blind_test_stands_behind_a_switch_in_answers(made, root):
    bench = made(run=fake_run(root, "one", total_steps=40))
    answers = bench.turn_to("4 Answers")
    assert answers.menu.options == ("Side by side", "Blind test")
    assert type(answers.panel).__name__ == "Comparison"
    blind = answers.turn_to("Blind test")
    assert type(blind).__name__ == "BlindTest"
    assert blind.run is bench.run
    assert blind.line is bench.line


def test_a_started_run_is_the_one_of_all_panels(made, root, monkeypatch):
    monkeypatch.setattr(
        run_start,
        "start",
        lambda config: fake_run(root, "fresh", last_step=20, state="training", changes={"loss.beta": config.loss.beta}),
    )
    bench = made(RunConfig(loss={"beta": 3}))
    answers, train = bench.turn_to("4 Answers"), bench.turn_to("3 Train")
    train.starter.skip.click()
    assert bench.run.name == "fresh"
    assert answers.run is train.run is bench.run
    assert "fresh" in bench.head.value
    assert "β 3" in bench.head.value
    assert "● training" in bench.head.value
    assert "width:16.7%" in bench.head.value
    write_json(bench.run.folder.status, {**read_json(bench.run.folder.status), "state": "finished", "step": 120})
    until(lambda: "✓ finished" in bench.head.value)
    assert "β 3" in bench.head.value, "the head speaks of the run whose state it shows"
    until(lambda: train.starter.layout.display != "none")


def test_the_newest_run_that_lives_is_found_again(made, root):
    for age, (name, state) in enumerate({"newest": "training", "older": "paused", "ended": "finished"}.items()):
        run = fake_run(root, name, last_step=20, state=state)
        os.utime(run.folder.config, (1e9 - age, 1e9 - age))
    bench = made()
    assert bench.run.name == "newest"
    assert shown(bench) == ["3 Train"]
    assert "newest is under way and was found again." in bench.line.value
    given = Run(run.folder)
    assert made(run=given).run is given


def test_folders_that_are_no_runs_or_broken_ones_disturb_nothing(made, root, tmp_path):
    fake_run(root, "good", last_step=20, state="training")
    broken = fake_run(root, "broken", last_step=20, state="training")
    broken.folder.config.write_text("loss: {beta: [")
    (root / "empty").mkdir()
    (root / "nothing").mkdir()
    (root / "nothing" / "config.yaml").write_bytes(b"\x00\xff")
    (root / "nothing" / "status.json").write_text('{"state": "training", "process": {"pid": "x"}}')
    (root / "linked").mkdir()
    (root / "linked" / "config.yaml").symlink_to(broken.folder.config)
    (root / "away").symlink_to(tmp_path)
    (root / "a file").write_text("")
    fake_run(root, "half", last_step=0).folder.status.write_text("{")
    bench = made()
    assert bench.run.name in ("good", "broken")
    runs = bench.turn_to("Runs")
    until(lambda: runs.table.rows)
    assert {"good", "broken"} <= {row["id"] for row in runs.table.rows}


def test_a_run_whose_settings_cannot_be_read_is_named_and_why(made, root):
    run = fake_run(root, "broken", last_step=20, state="training")
    run.folder.config.write_text("loss: {beta: [")
    bench = made()
    assert bench.run.name == "broken"
    assert "broken" in bench.head.value
    assert "It cannot be shown" in bench.turn_to("3 Train").verdict.value
    for name in PANELS:
        bench.turn_to(name)
    bench.run = fake_run(root, "good", total_steps=40)
    assert "finished" in bench.head.value


def test_the_head_reads_the_settings_of_a_run_once(made, root, monkeypatch):
    run = fake_run(root, "one", last_step=20, state="training")
    bench, read = made(), []
    original = RunConfig.from_yaml.__func__
    monkeypatch.setattr(
        RunConfig, "from_yaml", classmethod(lambda kind, *args, **more: read.append(1) or original(kind, *args, **more))
    )
    run.folder.config.write_text("loss: {beta: [")
    write_json(run.folder.status, {**read_json(run.folder.status), "step": 60})
    until(lambda: "width:50.0%" in bench.head.value)
    assert read == []
    assert "one" in bench.head.value
    assert "Error" not in bench.line.value


def test_a_status_that_says_nonsense_does_not_end_the_head(made, root):
    run = fake_run(root, "one", last_step=20, state="training")
    bench = made()
    bench._panels["3 Train"].close()
    good = read_json(run.folder.status)
    write_json(run.folder.status, {**good, "step": "many"})
    until(lambda: "width:16.7%" in bench.head.value)  # step 20 of 120, from the records
    write_json(run.folder.status, {**good, "step": 90})
    until(lambda: "width:75.0%" in bench.head.value)
    for panel in (bench, *bench._panels.values()):  # a damaged file is no fault of the panels, but they cannot know
        panel.trouble = ""


def test_a_closed_workbench_follows_nobody(root):
    fake_run(root, "one", last_step=20, state="training")
    bench = Workbench(root=root)
    runs = bench.turn_to("Runs")
    bench.close()
    followers = (bench._follower, runs._follower)
    assert not any(follower.active for follower in followers)
    assert bench._panels["3 Train"]._follower is None
