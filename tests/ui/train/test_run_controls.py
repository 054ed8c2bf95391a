"""Buttons and answers of a run that trains.

What a user would lose: a request that never arrives, a change nobody asked for, the answer one was reading.
"""

import json
from types import SimpleNamespace

import pytest
from fake_run import PROMPTS, fake_run, sampled
from panels import until, visible

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.base.files import append_jsonl, read_json, write_json, write_jsonl
from simpo_workbench.runs.mailbox import Inbox
from simpo_workbench.ui.train import run_controls
from simpo_workbench.ui.train.run_controls import RunControls
from simpo_workbench.ui.train.run_samples import RunSamples

HOSTILE = "<img src=x onerror=alert(1)>"
ALL = ["pause", "evaluate", "save", "change", "suspend", "apply", "stop"]


@pytest.fixture
def run(tmp_path):
    """A run at step 50 whose process is this one."""
    return fake_run(tmp_path, "live", last_step=50, state="training", message="Training.")


@pytest.fixture
def controls(run):
    made = RunControls()
    made.attach(run, run.config)
    made.update(run.status)
    yield made
    assert made.trouble == ""


def requests(run):
    found = [json.loads(path.read_text()) for path in sorted((run.path / "requests").glob("*.json"))]
    return [(one["kind"], one["values"]) for one in found]


def look(controls):
    controls.update(controls.run.status)


def hold(controls, step=50, **changes):
    """The run made this change after a step."""
    append_jsonl(controls.run.folder.changes, {"step": step, "changes": changes})
    look(controls)


def to_state(controls, state):
    write_json(controls.run.folder.status, {**read_json(controls.run.folder.status), "state": state})
    look(controls)


# --- what is asked


@pytest.mark.parametrize(
    ("name", "kind"),
    [("pause", "pause"), ("suspend", "suspend"), ("evaluate", "evaluate"), ("save", "save"), ("stop", "stop")],
)
def test_a_button_asks_and_what_came_of_it_is_said(controls, run, name, kind):
    getattr(controls, name).click()
    assert requests(run) == [(kind, {})]
    assert f"Asked the run to {kind}." in controls.line.value
    inbox = Inbox(run.path)
    (request,) = inbox.take()
    look(controls)
    assert "Asked the run" in controls.line.value, "acknowledged is not done"
    inbox.done(request, f"It is done {HOSTILE}.")
    look(controls)
    assert "swb-good" in controls.line.value
    assert "<img" not in controls.line.value
    controls.say("Later.")
    look(controls)
    assert "Later." in controls.line.value, "it is said once"


def test_a_refusal_is_an_error(controls, run):
    controls.save.click()
    inbox = Inbox(run.path)
    inbox.refuse(inbox.take()[0], "The disk is full.")
    look(controls)
    assert "<b>Error:</b> The disk is full." in controls.line.value


def test_a_paused_run_goes_on_where_it_is(controls, run):
    to_state(controls, "paused")
    assert visible(controls.unpause)
    assert not visible(controls.pause)
    assert "go on first" in controls.evaluate.tooltip
    assert not controls.save.disabled
    controls.unpause.click()
    assert requests(run) == [("unpause", {})]
    to_state(controls, "training")
    assert visible(controls.pause)
    assert not visible(controls.unpause)
    assert not controls.evaluate.disabled


@pytest.mark.parametrize("state", ["suspended", "stopped", "failed"])
def test_an_ended_run_goes_on_from_its_checkpoint(controls, run, monkeypatch, state):
    resumed, changed = [], []
    monkeypatch.setattr(run_controls, "resume", resumed.append)
    controls._on_changed = lambda: changed.append(1)
    to_state(controls, state)
    assert controls.stop.disabled
    assert visible(controls.unpause)
    controls.unpause.click()
    until(lambda: changed == [1])  # whoever follows the run looks at once
    assert resumed == [run.path]
    assert requests(run) == []


@pytest.mark.parametrize(
    ("state", "enabled"),
    [("queued", ["stop"]), ("loading", ["stop"]), ("scoring", ["stop"]), ("training", ALL), ("finished", [])],
)
def test_what_cannot_be_asked_now_says_why(controls, state, enabled):
    to_state(controls, state)
    for name in ALL:
        control = getattr(controls, name)
        assert control.disabled == (name not in enabled), name
        assert control.disabled == (f" is {state}" in control.tooltip), name


def test_a_request_that_cannot_be_written_is_a_sentence(controls, run):
    to_state(controls, "finished")
    controls.pause.click()  # as a click that was under way
    assert "cannot be asked to pause" in controls.line.value


# --- what is changed


def test_apply_asks_only_for_what_is_changed(controls, run):
    controls.change.click()
    assert visible(controls._changes)
    controls.apply.click()
    assert "Nothing is changed" in controls.line.value
    assert requests(run) == []
    controls.beta.value = 3.0
    controls.apply.click()
    assert requests(run) == [("set", {"beta": 3.0})]
    assert "beta 3 from the next step on" in controls.line.value
    hold(controls, beta=3.0)
    controls.ratio.value, controls.scale.value = 0.4, 0.25
    controls.apply.click()
    assert requests(run)[1] == ("set", {"gamma_beta_ratio": 0.4, "learning_rate_scale": 0.25})
    controls.change.click()
    assert not visible(controls._changes)


def test_what_somebody_types_stays_until_the_value_itself_changes(controls):
    controls.beta.value = 3.5
    look(controls)
    hold(controls, learning_rate_scale=0.5)
    assert controls.beta.value == 3.5
    hold(controls, beta=4.0)
    assert controls.beta.value == 4.0


@pytest.mark.parametrize("beta", [0.005, 2.5, 40.0])
def test_before_the_first_step_a_change_of_the_rate_changes_nothing_else(tmp_path, beta):
    run = fake_run(
        tmp_path, "begun", last_step=0, state="training", changes={"loss.beta": beta, "loss.gamma_beta_ratio": 0.3}
    )
    controls = RunControls()
    controls.attach(run, run.config)
    look(controls)
    assert (controls.beta.value, controls.ratio.value) == (beta, 0.3)
    controls.scale.value = 0.5
    controls.apply.click()
    assert requests(run) == [("set", {"learning_rate_scale": 0.5})]


def test_gamma_set_by_itself_is_shown_as_the_ratio(controls):
    hold(controls, gamma=3.0)
    assert (controls.beta.value, controls.ratio.value) == (2.0, 1.5)


def test_the_factor_on_the_rate_is_the_one_that_the_run_has_recorded(controls, run, tmp_path):
    controls.scale.value = 0.5
    controls.apply.click()
    look(controls)
    assert controls.scale.value == 0.5, "asked for, not made yet"
    append_jsonl(run.folder.changes, {"step": 50, "changes": {"learning_rate_scale": 0.5}})
    append_jsonl(run.folder.changes, {"step": 50, "changes": {"beta": 3.0}})
    look(controls)
    controls.apply.click()
    assert "Nothing is changed" in controls.line.value
    append_jsonl(
        run.folder.changes, {"step": 90, "changes": {"learning_rate_scale": 7.0}}
    )  # made before the run went back to a checkpoint
    look(controls)
    assert controls.holding["learning_rate_scale"] == 0.5
    other = fake_run(tmp_path, "other", last_step=50, state="training")
    controls.attach(other, other.config)
    look(controls)
    assert (controls.scale.value, controls.holding["learning_rate_scale"]) == (1.0, 1.0)
    controls.attach(run, run.config)  # as after a kernel was restarted
    look(controls)
    assert controls.scale.value == 0.5
    assert not visible(controls._changes)


def test_a_change_out_of_bounds_is_refused_in_words(controls, run, monkeypatch):
    def refuse(**changes):
        raise WorkbenchError("beta = 5000 is not possible.")

    monkeypatch.setattr(run, "set", refuse)
    controls.beta.value = 10
    controls.apply.click()
    assert "is not possible" in controls.line.value
    assert requests(run) == []


def test_without_gamma_there_is_no_gamma_to_change(controls, run):
    controls.attach(run, run.config.with_changes({"loss.kind": "dpo"}))
    assert not visible(controls.ratio)
    controls.attach(run, run.config)
    assert visible(controls.ratio)


# --- sample answers


def evaluate(run, step, prompts=PROMPTS):
    write_jsonl(run.folder.generations(step), sampled(step, 120, prompts))


def test_the_newest_answers_stand_beside_those_of_the_base_model(run):
    panel = RunSamples(run)
    assert panel.step.value == 40
    words = panel.cards.value.striptags()
    assert "Base · step 0" in words
    assert "Tuned · step 40" in words
    assert "Answer 0 at step 40" in words
    assert "Sample prompt 1 of 3" in panel.about.value
    panel.after.click()
    assert PROMPTS[1] in panel.about.value
    panel.before.click()
    panel.before.click()
    assert PROMPTS[2] in panel.about.value
    assert "Answer 2 at step 40" in panel.cards.value.striptags()
    assert "Answer 2 at step 40" in panel.snapshot().striptags()


def test_the_slider_moves_on_only_if_it_stood_at_the_newest_step(run):
    panel = RunSamples(run)
    evaluate(run, 60)
    panel.refresh()
    assert panel.step.value == 60
    panel.step.value = 20
    assert "Tuned · step 20" in panel.cards.value
    evaluate(run, 80)
    panel.refresh()
    assert panel.step.value == 20
    assert "Tuned · step 20" in panel.cards.value
    assert panel.step.options[-1] == 80
    for step in (20, 40, 60, 80):
        run.folder.generations(step).unlink()
    panel.refresh()
    assert panel.step.value == 0, "the step was taken back"


def test_another_run_begins_at_its_newest_step_and_without_the_answers_of_the_first(run, tmp_path):
    panel = RunSamples(run)
    panel.step.value = 20
    panel.after.click()
    panel.attach(fake_run(tmp_path, "other"))
    assert panel.step.value == 120
    assert "Sample prompt 1 of 3" in panel.about.value
    empty = fake_run(tmp_path, "empty", last_step=0)
    empty.folder.generations(0).unlink()
    panel.attach(empty)
    assert "come with the first evaluation" in panel.cards.value
    assert panel.step.disabled
    assert panel.about.value == ""
    panel.attach(None)
    assert "come with the first evaluation" in panel.snapshot()


def test_a_prompt_that_was_not_asked_at_a_step_says_so_and_foreign_text_stays_text(run):
    evaluate(run, 60, [HOSTILE])
    panel = RunSamples(run)
    assert "(not asked at this step)" in panel.cards.value
    panel.before.click()
    assert "<img" not in panel.snapshot()
    assert HOSTILE in panel.about.value.unescape()


def test_a_damaged_file_is_said_and_what_was_read_stays(run):
    panel = RunSamples(run)
    run.folder.generations(20).write_text("{broken\n{}\n")
    panel.refresh()
    assert "is damaged" in panel.line.value
    assert "Tuned · step 40" in panel.cards.value
    assert panel.trouble == ""


def test_requests_are_followed_to_their_end_whatever_the_order(controls):
    states = [
        SimpleNamespace(state="asked", kind="save", text=""),
        SimpleNamespace(state="done", kind="pause", text=""),
    ]
    controls._requests = list(states)
    look(controls)
    assert "Paused." in controls.line.value
    states[0].state = "done"
    look(controls)
    assert "Saved." in controls.line.value
    assert controls._requests == []
