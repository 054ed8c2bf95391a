"""What a user would lose: a run that cannot be found again, deleted by a slip, or compared by settings that are not its
own.
"""

import base64
import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from fake_run import fake_run
from panels import until, visible

from simpo_workbench.base import process
from simpo_workbench.base.files import append_jsonl, read_json, write_json
from simpo_workbench.config.run_config import RunConfig
from simpo_workbench.runs.device_queue import DeviceQueue
from simpo_workbench.runs.run import Run, attach
from simpo_workbench.ui.runs import run_list, several_runs
from simpo_workbench.ui.runs.run_list import RunList
from simpo_workbench.ui.runs.several_runs import config_differences


@pytest.fixture
def made(tmp_path):
    """Makes lists that follow nobody when the test is over."""
    lists = []

    def make(root=tmp_path, **more):
        lists.append(RunList(root, **more))
        until(lambda: lists[-1]._runs is not None)
        return lists[-1]

    yield make
    for one in lists:
        one.close()
        assert one.trouble == ""


@pytest.fixture
def waiting(tmp_path):
    """A process that stands for a worker which waits."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        yield process.identify(child.pid)
        child.kill()


def names(panel):
    return [row["id"] for row in panel.table.rows]


def cells(panel, name):
    columns = [column["title"] for column in panel.table.columns]
    return next(dict(zip(columns, row["cells"], strict=True)) for row in panel.table.rows if row["id"] == name)


def choose(panel, *wanted):
    for number, name in enumerate(wanted):
        panel.table._heard(None, {"choose": name, "more": number > 0}, [])


def steps(trace):
    """Steps of a trace, also where plotly keeps them as it sends them."""
    return np.frombuffer(base64.b64decode(trace.x["bdata"]), trace.x["dtype"]) if isinstance(trace.x, dict) else trace.x


# --- the list


def test_the_table_says_what_each_run_is_and_how_well_it_went(tmp_path, made):
    run = fake_run(tmp_path, "good", pairs=24)
    fake_run(tmp_path, "ruined", ruined=True, last_step=80, state="stopped")
    panel = made()
    last = [record for record in run.records if record["kind"] == "eval"][-1]
    good = cells(panel, "good")
    assert good["State"] == "finished"
    assert good["Step"] == "120 / 120"
    assert (
        good["Chosen ahead"] == f"{last['eval/rewards/accuracies']:.2f} ({last['eval/rewards/accuracies_low']:.2f} to"
        f" {last['eval/rewards/accuracies_high']:.2f}, n 24)"
    )
    assert good["Chosen drift"] == "−0.10"
    assert good["Started"].startswith(time.strftime("%m-"))
    assert cells(panel, "ruined")["State"] == "stopped"
    columns = [column["key"] for column in panel.table.columns]
    tones = next(row["tones"] for row in panel.table.rows if row["id"] == "ruined")
    assert tones[columns.index("chosen_drift")] == "attention"


def test_steps_and_accuracy_sort_as_numbers_and_runs_without_come_last(tmp_path, made):
    for name, steps in (("long", 120), ("short", 20), ("middle", 100)):
        fake_run(tmp_path, name, total_steps=steps)
    new = fake_run(tmp_path, "new", last_step=0)
    new.folder.metrics.unlink()
    panel = made()
    panel.table._heard(None, {"sort": "progress"}, [])
    assert names(panel) == ["long", "middle", "short", "new"]
    panel.table._heard(None, {"sort": "chosen_ahead"}, [])
    assert names(panel)[-1] == "new"
    assert cells(panel, "new")["Chosen ahead"] == "–"


def test_right_answers_are_listed_with_their_number(tmp_path, made):
    fake_run(tmp_path, "checked", checked=True)
    fake_run(tmp_path, "unchecked")
    panel = made()
    assert cells(panel, "checked")["Right answers"] == "0.50 (n 2)"
    assert cells(panel, "unchecked")["Right answers"] == "–"
    assert "0.50 (n 2)" in panel.snapshot()


def test_search_looks_at_name_state_model_and_pairs_and_clearing_brings_all_back(tmp_path, made):
    fake_run(tmp_path, "alpha", changes={"model.name": "org/Llama-X"})
    fake_run(tmp_path, "beta", state="stopped", changes={"data.train": "my-pairs.jsonl"})
    panel = made()
    for words, found in (
        ("alp", ["alpha"]),
        ("LLAMA", ["alpha"]),
        ("my-pairs", ["beta"]),
        ("stopped", ["beta"]),
        ("can go on", ["beta"]),
        ("nothing", []),
        ("", ["beta", "alpha"]),
    ):
        panel.search.value = words
        assert sorted(names(panel)) == sorted(found), words


def test_new_runs_and_new_states_appear_by_themselves_and_nothing_is_drawn_without_a_change(
    tmp_path, made, monkeypatch
):
    monkeypatch.setattr(run_list, "REFRESH_S", 0.05)
    run = fake_run(tmp_path, "one", state="stopped")
    panel = made()
    choose(panel, "one")
    version = panel.table.version
    panel.refresh()
    until(lambda: panel._reading is None)
    assert panel.table.version == version
    fake_run(tmp_path, "two")
    write_json(run.folder.status, {**read_json(run.folder.status), "state": "finished"})
    until(lambda: len(names(panel)) == 2 and cells(panel, "one")["State"] == "finished")
    assert panel.table.chosen == ["one"], "the choice stays"
    assert "It is finished" in panel.go_on.tooltip, "what stands below is up to date as well"


def test_another_root_is_another_list(tmp_path, made):
    fake_run(tmp_path / "a", "one")
    fake_run(tmp_path / "b", "two")
    panel = made(tmp_path / "a")
    choose(panel, "one")
    panel.root = str(tmp_path / "b")
    until(lambda: names(panel) == ["two"])
    assert panel.chosen == []
    assert not visible(panel.one)


def test_an_empty_list_teaches_and_its_line_starts_a_run_that_it_will_list(tmp_path, made):
    panel = made(tmp_path / "new's")
    assert visible(panel.empty)
    assert not visible(panel._list)
    line = panel.empty.value.unescape().split("wb.start(")[1].split(")</pre>")[0]
    assert eval(line, {"wb": __import__("simpo_workbench")}).run.root == str(tmp_path / "new's")
    assert "simpo-workbench demo" in panel.snapshot().striptags()
    fake_run(tmp_path / "new's", "first")
    panel.refresh()
    until(lambda: visible(panel._list))
    assert not visible(panel.empty)


def test_the_still_picture_is_the_table(tmp_path, made):
    for number in range(32):
        (tmp_path / f"run-{number:02d}").mkdir()
        RunConfig().to_yaml(tmp_path / f"run-{number:02d}" / "config.yaml")
    still = made().snapshot().striptags()
    assert "The newest 30 of 32 runs." in still
    assert "run-31" in still or "run-00" in still
    assert "Chosen ahead" in still


def test_foreign_text_stays_text(tmp_path, made):
    payload = "<img src=x onerror=alert(1)>"
    run = fake_run(tmp_path, "plain", message=payload, changes={"model.name": payload})
    run.path.rename(tmp_path / payload)
    panel = made()
    choose(panel, payload)
    assert payload not in panel.about.value
    assert payload not in panel.snapshot()


# --- one run


def test_open_and_clone_hand_over_what_was_chosen(tmp_path, made):
    fake_run(tmp_path, "one", changes={"loss.beta": 7.5, "run.name": "one"})
    opened, cloned = [], []
    panel = made(on_open=opened.append, on_clone=cloned.append)
    choose(panel, "one")
    panel.open_run.click()
    panel.clone.click()
    assert [run.name for run in opened] == ["one"]
    assert isinstance(opened[0], Run)
    assert (cloned[0].loss.beta, cloned[0].run.name) == (7.5, None)
    assert str(tmp_path / "one") in panel.about.value


def test_a_list_that_stands_alone_says_why_it_cannot_open(tmp_path, made):
    fake_run(tmp_path, "one")
    panel = made()
    choose(panel, "one")
    for control in (panel.open_run, panel.clone):
        assert control.disabled
        assert "stands alone" in control.tooltip


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("finished", "It is finished"),
        ("training", "it needs no resume"),
        ("stopped", ""),
        ("failed", ""),
        ("suspended", ""),
        ("paused", ""),
    ],
)
def test_resume_is_offered_where_it_makes_sense(tmp_path, made, state, why):
    fake_run(tmp_path, "one", last_step=40, state=state)
    panel = made(on_open=print)
    choose(panel, "one")
    assert panel.go_on.disabled == bool(why)
    assert why in panel.go_on.tooltip
    assert panel.open_run.description == ("Attach" if state in ("training", "paused") else "Open")


def test_resume_goes_on_with_the_chosen_run_and_an_error_is_a_sentence(tmp_path, made, monkeypatch):
    run = fake_run(tmp_path, "one", last_step=40, state="stopped")
    resumed = []
    monkeypatch.setattr(run_list, "resume", lambda name, root: resumed.append((name, root)) or attach(name, root))
    panel = made()
    choose(panel, "one")
    panel.go_on.click()
    until(lambda: "continues from its newest checkpoint" in panel.line.value)
    assert resumed == [("one", str(tmp_path))]
    monkeypatch.undo()
    write_json(run.folder.status, {**read_json(run.folder.status), "state": "finished"})
    panel.go_on.click()
    until(lambda: "is finished: all 120 steps are done" in panel.line.value)
    assert panel.go_on.disabled


def test_a_broken_configuration_is_said_and_cannot_be_cloned(tmp_path, made):
    fake_run(tmp_path, "one").folder.config.write_text("loss: {beta: [")
    panel = made(on_clone=print)
    choose(panel, "one")
    assert "this is not YAML" in panel.about.value
    assert panel.clone.disabled
    assert not panel.delete.disabled


def test_deleting_takes_two_clicks_on_two_buttons(tmp_path, made):
    run, other = fake_run(tmp_path, "one"), fake_run(tmp_path, "other")
    panel = made()
    choose(panel, "one")
    assert not visible(panel.sure)
    panel.delete.click()
    assert visible(panel.sure)
    assert panel.delete_now.description == "Delete 'one' for good"
    assert run.path.exists()
    panel.keep.click()
    assert not visible(panel.sure)
    panel.delete.click()
    choose(panel, "other")
    assert not visible(panel.sure), "the question was about another run"
    choose(panel, "one")
    panel.delete.click()
    panel.delete_now.click()
    until(lambda: names(panel) == ["other"])
    assert not run.path.exists()
    assert other.path.exists()
    assert not visible(panel.one)
    until(lambda: "is deleted" in panel.line.value)


def test_a_live_run_is_not_deleted_even_if_it_began_after_the_question(tmp_path, made):
    run = fake_run(tmp_path, "one", last_step=40, state="stopped")
    panel = made()
    choose(panel, "one")
    panel.delete.click()
    write_json(run.folder.status, {**read_json(run.folder.status), "state": "training"})
    panel.delete_now.click()
    until(lambda: "stop it first" in panel.line.value)
    panel.refresh()
    until(lambda: panel.delete.disabled)
    assert "stop it first" in panel.delete.tooltip
    assert not visible(panel.sure)
    assert run.path.exists()


# --- several runs


def test_several_runs_are_drawn_over_each_other_and_their_differences_listed(tmp_path, made):
    fake_run(tmp_path, "one", changes={"training.learning_rate": 1.2e-4})
    second = fake_run(tmp_path, "two", ruined=True, changes={"training.learning_rate": 1e-3, "loss.beta": 4})
    append_jsonl(second.folder.changes, {"step": 50, "changes": {"learning_rate_scale": 0.5}})
    panel = made()
    choose(panel, "one", "two")
    assert visible(panel.several)
    assert not visible(panel.one)
    until(lambda: panel.several.settings.value)
    assert {trace.name for trace in panel.several.figure.widget.data} == {"one", "two"}
    words = panel.several.settings.value.striptags()
    for part in ("training.learning_rate", "1.2e-4", "0.001", "loss.beta", "step 50: learning_rate_scale 0.5"):
        assert part in words
    assert "lora.r" not in words
    assert panel.several.key.value == "", "short names stand at the lines themselves"
    panel._frame.theme = "light"  # whatever a test before left
    ground = panel.several.figure.widget.layout.paper_bgcolor
    panel._frame.theme = "dark"
    assert panel.several.figure.widget.layout.paper_bgcolor != ground
    choose(panel, "one")
    assert not visible(panel.several)


def test_long_names_are_letters_at_the_lines_and_a_key_says_whose(tmp_path, made):
    for name in ("a-long-name-of-one", "<b>another-long-name"):
        fake_run(tmp_path, "x").path.rename(tmp_path / name)
    panel = made()
    choose(panel, "a-long-name-of-one", "<b>another-long-name")
    until(lambda: panel.several.settings.value)
    assert panel.several.key.value.striptags() == "A a-long-name-of-one · B <b>another-long-name"
    assert "<b>another" not in panel.several.key.value
    assert {note.text for note in panel.several.figure.widget.layout.annotations} >= {"A", "B"}


def test_charts_of_several_runs_follow_a_new_evaluation(tmp_path, made):
    one = fake_run(tmp_path, "one", last_step=40, state="training")
    fake_run(tmp_path, "two")
    panel = made()
    choose(panel, "one", "two")
    until(lambda: panel.several.settings.value)
    evaluation = [record for record in one.records if record["kind"] == "eval"][-1]
    one.folder.append_metrics({**evaluation, "step": 60, "eval/logps/chosen_drift": -0.5})
    panel.refresh()
    until(lambda: steps(panel.several.figure.widget.data[0])[-1] == 60)


def test_runs_that_are_compared_are_read_on_from_where_the_last_reading_ended(tmp_path, made, monkeypatch):
    one, read = fake_run(tmp_path, "one", last_step=40, state="training"), []
    fake_run(tmp_path, "two")

    class Tail(several_runs.MetricsTail):
        def read(self):
            new = super().read()
            read.append((self.path.parent.name, len(new)))
            return new

    monkeypatch.setattr(several_runs, "MetricsTail", Tail)
    panel = made()
    choose(panel, "one", "two")
    until(lambda: panel.several.settings.value and not panel.several._reading)
    whole = len(read)
    one.folder.append_metrics({**[record for record in one.records if record["kind"] == "eval"][-1], "step": 60})
    panel.several.show_runs(["one", "two"])
    until(lambda: steps(panel.several.figure.widget.data[0])[-1] == 60)
    assert sum(new for name, new in read[whole:] if name == "one") == 1, "the one new record, not all of them"
    assert {new for name, new in read[whole:] if name == "two"} == {0}


def test_a_reading_on_the_way_is_waited_for_and_then_what_is_chosen_by_now_is_read(tmp_path, made, monkeypatch):
    for name in ("one", "two", "three"):
        fake_run(tmp_path, name)
    panel, begun, may_end, read_now = made(), [], threading.Event(), several_runs._read

    def slow(runs, *more):
        begun.append([run.name for run in runs])
        assert may_end.wait(120)
        return read_now(runs, *more)

    monkeypatch.setattr(several_runs, "_read", slow)
    panel.several.show_runs(["one", "two"])
    until(lambda: begun)
    for chosen in (["one", "two"], ["one", "two"], ["one", "three"]):
        panel.several.show_runs(chosen)
    assert begun == [["one", "two"]]
    may_end.set()
    until(lambda: panel.several._read)
    assert begun == [["one", "two"], ["one", "three"]]
    assert list(panel.several._read["metrics"]) == ["one", "three"]


def test_a_table_of_runs_says_its_errors_in_the_panels_line(made, tmp_path):
    fake_run(tmp_path, "one")
    panel = made()
    panel.table._choose_one = lambda *_: 1 / 0
    panel.table._heard(None, {"choose": "one"}, [])
    assert "ZeroDivisionError" in panel.line.value
    panel.trouble = ""  # it was meant


def test_only_settings_that_differ_are_listed_and_a_broken_configuration_does_not_hide_the_others():
    base = RunConfig(run={"name": "a"})
    columns, rows = config_differences(
        {"a": base, "b": base.with_changes({"run.name": "b", "lora.r": 64, "training.max_steps": 9}), "c": None}
    )
    assert columns == ["setting", "a", "b", "c"]
    assert rows == [["lora.r", str(base.lora.r), "64", "?"], ["training.max_steps", "none", "9", "?"]]
    assert config_differences({"a": base, "b": base}) == (["setting", "a", "b"], [])


# --- the queue


@pytest.fixture
def line(tmp_path, waiting, monkeypatch):
    """Three runs that wait before a device of their own."""
    monkeypatch.setenv("SIMPO_WORKBENCH_DEVICES", str(tmp_path / "devices"))
    for name in ("first", "second", "third"):
        run = fake_run(tmp_path / "runs", name, last_step=0, state="queued")
        write_json(run.folder.status, {**read_json(run.folder.status), "process": waiting, "owner": "worker"})
        path = DeviceQueue().folder / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps(
                {
                    "run": str(run.path.resolve()),
                    "name": name,
                    "process": waiting,
                    "place": {"first": 1, "second": 2, "third": 3}[name],
                }
            )
        )
    return tmp_path / "runs"


def order(panel):
    return [part._run["name"] for part in panel.queue.children[1].children] if len(panel.queue.children) > 1 else []


def test_runs_that_wait_are_moved_and_leave(line, made):
    panel = made(line)
    assert order(panel) == ["first", "second", "third"]
    rows = panel.queue.waiting
    assert [part.up.disabled for part in rows] == [True, False, False]
    assert [part.down.disabled for part in rows] == [False, False, True]
    rows[2].up.click()
    until(lambda: order(panel) == ["first", "third", "second"])
    assert panel.queue.waiting == rows, "buttons keep their place, and the keyboard its focus"
    rows[0].down.click()
    until(lambda: order(panel) == ["third", "first", "second"])
    rows[2].cancel.click()
    requests = [json.loads(path.read_text()) for path in (line / "second" / "requests").glob("*.json")]
    assert [request["kind"] for request in requests] == ["stop"]
    (DeviceQueue().folder / "second.json").unlink()  # as its worker does then
    panel.refresh()
    until(lambda: order(panel) == ["third", "first"])


def test_an_empty_queue_says_so(tmp_path, made, monkeypatch):
    monkeypatch.setenv("SIMPO_WORKBENCH_DEVICES", str(tmp_path / "devices"))
    fake_run(tmp_path / "runs", "one")
    panel = made(tmp_path / "runs")
    assert "no run waits" in panel.queue.words.value
    assert order(panel) == []


def test_a_run_that_got_the_device_meanwhile_is_not_moved_and_that_is_said(line, made):
    panel = made(line)
    (DeviceQueue().folder / "third.json").unlink()
    panel.queue.waiting[2].up.click()
    assert "does not wait" in panel.line.value
