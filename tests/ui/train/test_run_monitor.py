"""What a user would lose: a collapse that is not seen, a dead run that looks alive, a change that was never asked for,
a panel that stops in silence.
"""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from fake_run import BETA, PROMPTS, evaluation_record, fake_run, sampled, scores, train_record
from panels import until, visible

from simpo_workbench.analysis.doctor import Verdict
from simpo_workbench.base import process
from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.base.files import append_jsonl, read_json, write_json, write_jsonl
from simpo_workbench.ui.parts.panel import Panel
from simpo_workbench.ui.train import run_monitor
from simpo_workbench.ui.train.remedies import remedies
from simpo_workbench.ui.train.run_monitor import RunMonitor

HOSTILE = "<img src=x onerror=alert(1)>"
TOTAL = 120


@pytest.fixture
def watch(monkeypatch):
    """Makes monitors that look often, and follow nobody when the test is over."""
    made = []
    monkeypatch.setattr(Panel, "_page_theme", "light")
    for name, seconds in (("POLL_S", 0.05), ("_DRAW_S", 0.05), ("_ENDED_POLL_S", 0.05)):
        monkeypatch.setattr(run_monitor, name, seconds)

    def make(run=None, config=None):
        made.append(RunMonitor(run, config))
        return made[-1]

    yield make
    for one in made:
        one.close()
        assert one.trouble == ""


@pytest.fixture
def live(tmp_path):
    """A run at step 50 of 120 whose process is this one."""
    return fake_run(tmp_path, "live", TOTAL, last_step=50, state="training", message="Training.")


def step_to(run, last, ruined=False, pairs=24):
    """What the recorder of a run writes, up to a step."""
    status = read_json(run.folder.status)
    first = next(record for record in run.records if record["kind"] == "eval")
    for step in range(status["step"] + 1, last + 1):
        run.folder.append_metrics(train_record(step, TOTAL))
        if step % 20 == 0:
            table, answers = scores(step, TOTAL, pairs, ruined), sampled(step, TOTAL, PROMPTS, ruined)
            table.to_parquet(run.folder.scores(step))
            write_jsonl(run.folder.generations(step), answers)
            run.folder.append_metrics(evaluation_record(step, table, answers, first))
    write_json(run.folder.status, {**read_json(run.folder.status), "step": last, "progress_awake_s": process.awake_s()})


def set_status(run, **changes):
    write_json(run.folder.status, {**read_json(run.folder.status), **changes})


def trace(panel, name):
    return next(one for one in panel.figure.widget.data if one.name == name)


def values(sent):
    return (
        np.frombuffer(base64.b64decode(sent["bdata"]), sent["dtype"])
        if isinstance(sent, dict)
        else np.asarray(sent, dtype=float)
    )


def last_step(panel, name="loss, training, each step"):
    return values(trace(panel, name).x)[-1]


def requests(run):
    found = [json.loads(path.read_text()) for path in sorted((run.path / "requests").glob("*.json"))]
    return [(one["kind"], one["values"]) for one in found]


def thresholds(panel):
    return [note.text for note in panel.figure.widget.layout.annotations if note.text in ("γ", "γ/β")]


# --- a run as it happens


def test_a_run_that_grows_is_shown_as_it_grows(live, watch):
    panel = watch(live)
    assert last_step(panel) == 50
    assert "step 50 of 120" in panel.head.value
    assert "● training" in panel.head.value
    step_to(live, 85)
    until(lambda: last_step(panel) == 85 and 'aria-valuenow="85"' in panel.bar.value)
    assert list(values(trace(panel, "chosen ahead").x)) == [0, 20, 40, 60, 80]
    assert "evaluated at step 80" in panel.head.value
    assert "step 85 of 120" in panel.head.value
    assert panel.samples.step.value == 80
    live.folder.append_metrics({"kind": "event", "step": 85, "event": "saved", "text": f"Saved {HOSTILE}."})
    until(lambda: "Saved" in panel.line.value)
    assert "<img" not in panel.line.value
    set_status(live, state="finished", message="Finished.")
    until(lambda: "✓ finished" in panel.head.value)
    assert "Healthy" in panel.verdict.value


def test_what_a_run_does_beside_its_steps_is_shown_and_is_text(live, watch):
    panel = watch(live)
    set_status(live, doing=f"answering 12 of 24 prompts, 30 s left {HOSTILE}")
    until(lambda: "step 50 of 120 · answering 12 of 24 prompts, 30 s left" in panel.head.value)
    assert "<img" not in panel.head.value
    set_status(live, doing="")
    until(lambda: "answering" not in panel.head.value)


def test_nothing_is_drawn_while_nothing_comes(live, watch):
    panel, drawn = watch(live), []
    until(lambda: not panel._stale)
    panel.figure.show = lambda spec: drawn.append(spec)
    looks = []
    look = panel._tail.read
    panel._tail.read = lambda: looks.append(1) or look()
    until(lambda: len(looks) > 5)
    assert drawn == []


def test_a_resumed_run_takes_back_what_came_after_its_checkpoint(live, watch):
    panel = watch(live)
    live.folder.generations(40).unlink()
    write_jsonl(live.folder.metrics, [record for record in live.records if record["step"] <= 30])
    until(lambda: last_step(panel) == 30)
    assert list(values(trace(panel, "chosen ahead").x)) == [0, 20]
    assert panel.samples.step.value == 20


def test_another_run_shows_nothing_of_the_one_before(tmp_path, live, watch):
    ruined = fake_run(tmp_path, "ruined", TOTAL, ruined=True)
    new = fake_run(tmp_path, "new", TOTAL, last_step=0, state="training")
    for path in (new.folder.metrics, new.folder.generations(0)):
        path.unlink()
    panel = watch(ruined)
    assert visible(panel.remedy)
    assert "collapsing" in panel.verdict.value
    panel.run = new
    assert not visible(panel.remedy)
    assert "collapsing" not in panel.verdict.value
    assert "ruined" not in panel.head.value
    assert list(values(trace(panel, "chosen ahead").x)) != [0, 20, 40, 60, 80, 100, 120]
    assert "come with the first evaluation" in panel.samples.cards.value
    step_to_line = panel.tiles.value
    panel.run = None
    assert not visible(panel._live)
    assert visible(panel.starter)
    assert "swb-tile" not in panel.snapshot()
    panel.run = live
    until(lambda: last_step(panel) == 50)
    assert panel.samples.step.value == 40, "another run begins at its newest answers"
    assert panel.tiles.value != step_to_line


def test_a_picture_without_a_kernel_holds_the_verdict_and_the_evaluations(tmp_path, watch):
    run = fake_run(tmp_path, "one", TOTAL, prompts=[HOSTILE], changes={"model.name": HOSTILE})
    still = watch(run).snapshot()
    assert "<img" not in still
    for part in ("Healthy", "Held-out evaluations", "120", "recommended", HOSTILE):
        assert part in still.unescape()


def test_a_finished_run_can_be_followed_by_the_next(tmp_path, live, watch):
    from simpo_workbench.config.run_config import RunConfig

    panel = watch(live, RunConfig())
    assert not visible(panel.starter)
    set_status(live, state="stopped")
    until(lambda: visible(panel.starter))


# --- what goes wrong


def test_a_collapse_is_said_and_the_remedy_is_one_click(tmp_path, watch, monkeypatch):
    run = fake_run(
        tmp_path, "ruined", TOTAL, last_step=60, ruined=True, state="training", changes={"training.learning_rate": 9e-4}
    )
    for step in (10, 20, 60):
        run.folder.checkpoint(step).mkdir(parents=True)
        write_json(run.folder.checkpoint(step) / "manifest.json", {"step": step, "resumable": step != 20})
    set_status(run, recommended_step=20)
    made, cloned = fake_run(tmp_path, "healed", TOTAL, last_step=10, state="training"), []
    monkeypatch.setattr(run_monitor, "clone", lambda path, **more: cloned.append((path, more)) or made)
    panel = watch(run)
    assert "swb-collapse" in panel.verdict.value
    assert "The model is collapsing" in panel.verdict.value
    assert panel.remedy.description == "Stop, clone from step 10 with a third of the rate"
    assert "0.0003" in panel.remedy.tooltip
    assert panel.second_remedy.description == "Go on from step 10 as it was"
    panel.remedy.click()
    panel.remedy.click()
    until(lambda: requests(run))
    ((path, wanted),) = cloned
    assert (path, wanted["step"]) == (run.path, 10)
    assert wanted["changes"] == {"training.learning_rate": pytest.approx(3e-4)}
    assert requests(run) == [("stop", {})]
    assert panel.run is made
    assert "healed was made from ruined" in panel.line.value


def test_the_remedy_takes_the_rate_that_holds_and_a_clone_that_fails_stops_nothing(tmp_path, watch, monkeypatch):
    run = fake_run(
        tmp_path, "ruined", TOTAL, last_step=60, ruined=True, state="training", changes={"training.learning_rate": 9e-4}
    )
    append_jsonl(run.folder.changes, {"step": 50, "changes": {"learning_rate_scale": 0.1}})
    wanted = []

    def fails(path, **more):
        wanted.append(more)
        raise WorkbenchError("No space is left.")

    monkeypatch.setattr(run_monitor, "clone", fails)
    panel = watch(run)
    assert "from the start" in panel.remedy.description
    panel.remedy.click()
    until(lambda: "No space is left." in panel.line.value)
    assert wanted == [{"step": None, "changes": {"training.learning_rate": pytest.approx(3e-5)}}]
    assert "No space is left." in panel.line.value
    assert requests(run) == []
    assert panel.run is run


def test_jumping_gradients_are_said_here_as_well(live, watch):
    for step in range(51, 81):
        live.folder.append_metrics({**train_record(step, TOTAL), "grad_norm": 40.0 if step > 70 else 1.0})
    set_status(live, step=80)
    table, first = scores(80, TOTAL, 24), live.records[0]
    live.folder.append_metrics(evaluation_record(80, table, [], first))
    assert "The gradient jumps" in watch(live).verdict.value


def test_a_run_whose_process_died_is_never_shown_as_running(tmp_path, live, watch):
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        set_status(live, owner="worker", process=process.identify(child.pid))
        panel = watch(live)
        assert "training" in panel.head.value
        assert not panel.controls.pause.disabled
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    until(lambda: "✕ failed" in panel.head.value)
    assert "Failed." in panel.verdict.value
    assert "died while it was training" in panel.verdict.value
    assert panel.controls.stop.disabled
    assert "it has no process" in panel.controls.evaluate.tooltip
    assert visible(panel.controls.unpause)


def test_a_deleted_folder_is_said_and_does_not_end_the_panel(live, watch, tmp_path):
    panel = watch(live)
    live.path.rename(tmp_path / "away")
    until(lambda: "is gone" in panel.verdict.value)
    assert "● training" not in panel.head.value
    assert last_step(panel) == 50, "what was read stays"
    panel.controls.stop.click()
    (tmp_path / "away").rename(live.path)
    step_to(live, 60)
    until(lambda: last_step(panel) == 60 and "● training" in panel.head.value)
    shutil.rmtree(live.path)
    until(lambda: "is gone" in panel.verdict.value)


def test_damaged_lines_are_said_and_the_rest_goes_on(live, watch):
    panel = watch(live)
    with open(live.folder.metrics, "ab") as file:
        file.write(b'{"kind": "train", "step": 51, \xff\n')
    until(lambda: "1 line of metrics.jsonl cannot be read" in panel.line.value)
    live.folder.append_metrics(train_record(52, TOTAL))
    until(lambda: last_step(panel) == 52)


def test_a_damaged_file_of_answers_does_not_end_the_panel(live, watch):
    panel = watch(live)
    live.folder.generations(20).write_text("{broken\n{}\n")
    step_to(live, 60)
    until(lambda: last_step(panel) == 60)
    assert "is damaged" in panel.line.value
    assert "evaluated at step 60" in panel.head.value
    step_to(live, 70)
    until(lambda: last_step(panel) == 70)


def test_a_status_that_says_nonsense_is_said_and_passes(live, watch):
    panel = watch(live)
    set_status(live, step="many")
    until(lambda: "read from the records" in panel._repr_mimebundle_()["text/html"])
    set_status(live, step=50)
    step_to(live, 55)
    until(lambda: last_step(panel) == 55)


def test_an_unreadable_configuration_is_said_and_another_run_can_follow(tmp_path, live, watch):
    broken = fake_run(tmp_path, "broken", TOTAL)
    broken.folder.config.write_text("loss: {beta: [")
    panel = watch(live)
    panel.run = broken
    assert "It cannot be shown:" in panel.verdict.value
    assert "not YAML" in panel.line.value
    assert not visible(panel._readable)
    assert "It cannot be shown" in panel._repr_mimebundle_()["text/html"]
    panel._frame.theme = "dark"
    panel.run = live
    assert visible(panel._readable)
    until(lambda: last_step(panel) == 50)
    live.folder.config.write_text("loss: {beta: [")
    step_to(live, 60)
    until(lambda: last_step(panel) == 60)
    panel.controls.beta.value = 7
    panel.controls.apply.click()
    assert "not YAML" in panel.line.value
    assert "It cannot be shown" in watch(broken).snapshot()


# --- what the charts show


def test_reward_units_are_beta_times_nats(live, watch):
    panel = watch(live)
    names = {"lead, held-out": "margin, held-out", "chosen": "chosen", "rejected": "rejected"}
    nats = {name: values(trace(panel, name).y) for name in names}
    assert thresholds(panel) == ["γ/β"]
    panel.units.value = True
    for name, in_rewards in names.items():
        assert values(trace(panel, in_rewards).y) == pytest.approx(BETA * nats[name])
    assert thresholds(panel) == ["γ"]
    panel.units.value = False
    assert values(trace(panel, "chosen").y) == pytest.approx(nats["chosen"])


def test_gamma_stands_at_the_beta_that_holds(live, watch):
    live.folder.append_metrics({**train_record(51, TOTAL), "beta": 4.0})
    panel = watch(live)
    panel.units.value = True
    assert 4.0 * 0.5 in [shape.y0 for shape in panel.figure.widget.layout.shapes if shape.y0 == shape.y1]


def test_smoothing_is_the_mean_of_so_many_steps(live, watch):
    panel = watch(live)
    single = values(trace(panel, "loss, training, each step").y)
    assert "automatic" in panel.smoothing_words.value
    panel.smoothing.value = 3
    assert "mean of 7 steps" in panel.smoothing_words.value
    assert values(trace(panel, "loss, training, smoothed").y)[10] == pytest.approx(single[7:14].mean())
    assert values(trace(panel, "loss, training, each step").y) == pytest.approx(single)


def test_the_theme_redraws_the_charts(live, watch):
    panel = watch(live)
    panel._frame.theme = "dark"
    assert panel.figure.widget.layout.paper_bgcolor == "#111111"


def test_dpo_has_no_gamma(tmp_path, watch):
    run = fake_run(
        tmp_path, "dpo", TOTAL, last_step=50, state="training", changes={"loss.kind": "dpo", "loss.beta": 0.1}
    )
    write_jsonl(run.folder.metrics, [{**record, "gamma_beta_ratio": 0.0} for record in run.records])
    panel = watch(run)
    assert thresholds(panel) == []
    assert "beyond γ" not in panel.tiles.value
    assert "γ" not in panel.head.value
    assert [one.name for one in panel.figure.widget.data if "γ" in one.name] == []
    assert not visible(panel.controls.ratio)
    panel.units.value = True
    assert thresholds(panel) == []


def test_the_log_is_shown_where_it_is_opened(live, watch):
    panel = watch(live)
    panel._log_fold.selected_index = 0
    assert "The log is empty." in panel.log_text.value
    live.folder.log.write_text(f"Loaded {HOSTILE}\n")
    panel._log_fold.selected_index = None
    panel._log_fold.selected_index = 0
    assert "<img" not in panel.log_text.value
    assert f"Loaded {HOSTILE}" in panel.log_text.value.unescape()


def test_going_on_from_a_healthy_step_changes_nothing(tmp_path, watch, monkeypatch):
    run = fake_run(tmp_path, "ruined", TOTAL, last_step=60, ruined=True, state="stopped")
    run.folder.checkpoint(10).mkdir(parents=True)
    write_json(run.folder.checkpoint(10) / "manifest.json", {"step": 10, "resumable": True})
    set_status(run, recommended_step=20)
    made, cloned = fake_run(tmp_path, "healed", TOTAL, last_step=10, state="training"), []
    monkeypatch.setattr(run_monitor, "clone", lambda path, **more: cloned.append(more) or made)
    panel = watch(run)
    panel.second_remedy.click()
    until(lambda: panel.run is made)
    assert cloned == [{"step": 10, "changes": {}}]
    assert requests(run) == []


def test_a_rate_that_is_too_low_is_not_lowered(tmp_path, watch):
    run = fake_run(tmp_path, "still", 60, last_step=0, state="stopped")
    first = run.records[0]
    for step in (20, 40, 60):
        run.folder.append_metrics({**first, "step": step})
    panel = watch(run)
    assert "Hardly anything moved" in panel.verdict.value
    assert panel.remedy.description == "Clone from the start with three times the rate"


def test_right_answers_are_in_tiles_table_and_samples(tmp_path, watch):
    panel = watch(fake_run(tmp_path, checked=True))
    assert "right answers" in panel.tiles.value
    assert "1.00 → 0.50" in panel.tiles.value
    assert "became wrong: 1; became right: 0" in panel.tiles.value
    text = panel.snapshot()
    assert "<th" in text
    assert "became wrong" in text
    assert "✗ wrong" in panel.samples.snapshot()
    without = watch(fake_run(tmp_path, "without"))
    assert "right answers" not in without.tiles.value + without.snapshot()


def test_lost_answers_are_mended_by_a_lower_rate(tmp_path):
    run = fake_run(tmp_path, changes={"training.learning_rate": 4e-4})
    verdict = Verdict("wrong answers", "attention", 120, "", "", "")
    (remedy,) = remedies(run, run.config, verdict, run.status, 1.0)
    assert remedy.words == "Clone from the start with half the rate"
    assert remedy.changes == {"training.learning_rate": pytest.approx(2e-4)}


def test_the_end_shows_what_the_recommended_step_is_worth_on_the_final_pairs(watch, tmp_path):
    run = fake_run(tmp_path, "final", TOTAL, final=30)
    panel = watch(run)
    assert f"on 30 final pairs, which did not choose it, {run.final.brief}" in panel.tiles.value
    path = run.folder.final_scores(120)
    path.write_bytes(path.read_bytes()[:-20])
    damaged = watch(run)
    assert "final pairs" not in damaged.tiles.value
    assert "step-000120.parquet" in damaged.line.value
