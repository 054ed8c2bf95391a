"""What a user would lose: a run's sampled answers, answers to a typed prompt, and a request that can be cancelled."""

import shutil
import threading

import pandas as pd
import pytest
from fake_model import FakeModel, keep_adapters
from fake_run import PROMPTS, fake_run
from panels import until

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.base.files import write_json
from simpo_workbench.ui.answers import comparison, two_models
from simpo_workbench.ui.answers.comparison import Comparison
from simpo_workbench.ui.parts.following import LOCK
from simpo_workbench.ui.parts.model_requests import OPEN_MODELS


@pytest.fixture
def run(tmp_path):
    made = fake_run(tmp_path, total_steps=40)
    keep_adapters(made, (0, 20, 40))
    return made


@pytest.fixture
def panel(run):
    made = Comparison(run)
    until(lambda: made.left.options and made._shown)
    return made


@pytest.fixture
def models(monkeypatch):
    opened = {}

    def of_run(run, step=None):
        return opened.setdefault((run.name, step), FakeModel(run, step, tuned=step != 0))

    monkeypatch.setattr(two_models.OPEN_MODELS, "of_run", of_run)
    return opened


def ask(panel, models, left, right, count=1, prompt="Where did it sit?"):
    panel.left.value, panel.right.value, panel.prompt.value = left, right, prompt
    before = sum(len(model.asked) for model in models.values())
    panel.ask_button.click()
    until(lambda: sum(len(model.asked) for model in models.values()) == before + count)


def titles(menu):
    return [title for title, _ in menu.options]


# --- the run's own samples


def test_without_a_run_one_sentence_says_what_to_do():
    panel = Comparison()
    assert "Start a run in 3 Train, or open one in Runs" in panel._empty.value
    assert panel._empty.layout.display is None
    assert panel._with_run.layout.display == "none"
    assert "Start a run" in panel.snapshot()


def test_samples_show_the_base_model_beside_the_newest_step(panel):
    assert [prompt for _, prompt in panel.sample_prompt.options] == PROMPTS
    assert (panel.sample_left.value, panel.sample_right.value) == (0, 40)
    assert "Answer 0 at step 0" in panel.snapshot().striptags()
    assert "62 tokens" in panel._cards.value
    assert "22 tokens · repeated 4-grams 0.06 · ends properly" in panel._cards.value


def test_samples_of_prompts_with_checks_say_whether_they_are_right(tmp_path):
    panel = Comparison(fake_run(tmp_path, total_steps=40, checked=True))
    until(lambda: panel.left.options and panel._shown)
    base, tuned, below = panel.snapshot().split("</section>")
    assert "✓ right" in base
    assert "✗ wrong" in tuned
    assert "Reference: Paris &amp; nothing" in below
    panel.sample_prompt.value = PROMPTS[2]
    assert not any(word in panel.snapshot() for word in ("✓", "✗", "Reference"))


def test_another_prompt_and_another_step_change_the_cards(panel):
    panel.sample_prompt.value = PROMPTS[2]
    panel.sample_right.value = 20
    assert "How do I keep basil alive indoors?" in panel._cards.value
    assert "tuned · step 20" in panel._cards.value
    assert "step 40" not in panel._cards.value


def test_refresh_follows_the_newest_step_but_not_away_from_a_chosen_one(tmp_path):
    live = fake_run(tmp_path / "a", total_steps=120, last_step=40)
    panel = Comparison(live)
    until(lambda: panel.sample_right.value == 40)
    longer = fake_run(tmp_path / "b", total_steps=120, last_step=80)
    for step in (60, 80):
        shutil.copy(longer.folder.generations(step), live.folder.generations(step))
    panel.refresh()
    until(lambda: "step 80" in panel._cards.value)
    assert panel.sample_right.value == 80
    panel.sample_right.value = 20
    live.folder.generations(80).unlink()
    panel.refresh()
    until(lambda: len(panel.sample_right.options) == 4)
    assert panel.sample_right.value == 20


def test_refresh_reads_nothing_where_nothing_is_new_and_keeps_what_was_chosen_and_typed(tmp_path, monkeypatch):
    live = fake_run(tmp_path / "a", total_steps=120, last_step=40, state="training")
    keep_adapters(live, (20, 40), final=False)
    panel, read = Comparison(live), []
    until(lambda: panel._shown)
    panel.sample_prompt.value, panel.sample_left.value = PROMPTS[2], 20
    panel.left.value, panel.right.value, panel.prompt.value, panel.seed.value = "step 20", "step 40", "Half a que", 7
    controls = (panel.sample_prompt, panel.sample_left, panel.left, panel.right, panel.prompt, panel.seed)

    def choices():
        return [control.value for control in controls]

    chosen, read_now = choices(), comparison._read
    monkeypatch.setattr(comparison, "_read", lambda run: read.append(run) or read_now(run))
    for _ in range(5):
        panel.refresh()
    live.folder.append_metrics({"kind": "event", "step": 41, "event": "note", "text": "Nothing to compare."})
    panel.refresh()
    assert panel.sample_right.value == 40
    longer = fake_run(tmp_path / "b", total_steps=120, last_step=60)
    shutil.copy(longer.folder.generations(60), live.folder.generations(60))
    keep_adapters(live, (60,), final=False)
    panel.refresh()
    until(lambda: "step 60" in panel._cards.value)
    assert len(read) == 1, "what has not changed is not read again"
    assert choices() == chosen
    assert panel.sample_right.value == 60, "it stood at the newest"
    assert "step 60" in titles(panel.right)


def test_a_reading_that_comes_late_does_not_take_the_place_of_a_newer_one(tmp_path, monkeypatch):
    live, may_end, read_now = (
        fake_run(tmp_path / "a", total_steps=120, last_step=40),
        threading.Event(),
        comparison._read,
    )
    numbers = iter(range(9))

    def first_one_is_slow(run):
        found = read_now(run)
        assert next(numbers) or may_end.wait(120)
        return found

    monkeypatch.setattr(comparison, "_read", first_one_is_slow)
    panel = Comparison(live)
    longer = fake_run(tmp_path / "b", total_steps=120, last_step=60)
    shutil.copy(longer.folder.generations(60), live.folder.generations(60))
    panel.refresh()
    until(lambda: panel.sample_right.value == 60)
    slow = [thread for thread in threading.enumerate() if thread.name == "simpo-workbench-work"]
    may_end.set()
    for thread in slow:
        thread.join(20)
    assert panel.sample_right.value == 60


def test_a_run_without_samples_yet_says_so(tmp_path):
    panel = Comparison(fake_run(tmp_path, prompts=[]))
    until(lambda: panel.left.options)
    assert panel.sample_prompt.disabled
    assert "first answers" in panel.sample_prompt.tooltip


# --- prompts typed in


def test_menus_hold_the_base_model_kept_steps_and_other_runs(run, tmp_path):
    other = fake_run(tmp_path, name="gentle", total_steps=20)
    keep_adapters(other, (20,))
    fake_run(tmp_path, name="unfinished", total_steps=20)
    panel = Comparison(run)
    until(lambda: panel.left.options)
    assert titles(panel.left)[0] == "base model"
    assert [title.split(" (")[0] for title in titles(panel.left)[1:3]] == ["step 20", "step 40"]
    assert titles(panel.left)[3:] == ["run gentle, final adapter"]
    assert (panel.left.value, panel.right.value) == ("base", "step 40")


def test_a_run_that_trains_is_asked_as_it_is_now(tmp_path):
    panel = Comparison(fake_run(tmp_path, state="training", last_step=40))
    until(lambda: panel.left.options)
    assert "as it is now" in titles(panel.right)
    assert panel.right.value == "now"


def test_base_and_one_step_are_asked_of_one_model_once(panel, models):
    panel.max_new_tokens.value, panel.temperature.value, panel.seed.value = 30, 0.7, 5
    ask(panel, models, "base", "step 20")
    ((_, values),) = models[panel.run.name, 20].asked
    assert list(models) == [(panel.run.name, 20)]
    assert values["prompts"] == ["Where did it sit?"]
    assert (values["generation"].max_new_tokens, values["generation"].temperature, values["seed"]) == (30, 0.7, 5)
    assert values["data"] == panel.run.config.data
    models[panel.run.name, 20].state = "done"
    until(lambda: panel._shown.typed)
    assert "<del> cat</del>" in panel._cards.value
    assert "5 tokens · repeated 4-grams 0.00 · ends properly" in panel._cards.value
    assert "8 tokens · repeated 4-grams 0.25 · cut off" in panel._cards.value
    assert "better" not in panel._cards.value
    assert "temperature 0.7, seed 5" in panel._cards.value


def test_two_steps_are_asked_of_two_models(panel, models):
    ask(panel, models, "step 20", "step 40", count=2)
    models[panel.run.name, 40].state = "done"
    assert not panel._shown.typed
    models[panel.run.name, 20].state = "done"
    until(lambda: panel._shown.typed)
    assert (panel._shown.left.text, panel._shown.right.text) == ("The dog sat here at 20.", "The dog sat here at 40.")


def test_the_same_base_model_on_both_sides_is_asked_once(panel, models):
    ask(panel, models, "base", "base")
    models[panel.run.name, 0].state = "done"
    until(lambda: panel._shown.typed)
    assert "the same, word for word" in panel._cards.value


def test_progress_has_words_and_seconds_and_cancel_withdraws_the_request(panel, models):
    panel.left.value, panel.right.value, panel.prompt.value = "base", "step 20", "Hello"
    panel.ask_button.click()
    assert "Loading the model … 0 s" in panel.progress.value
    assert panel.ask_button.disabled
    until(lambda: models.get((panel.run.name, 20)) and models[panel.run.name, 20].asked)
    models[panel.run.name, 20].run.status.state = "paused"
    until(lambda: "Answering …" in panel.progress.value)
    panel.cancel_button.click()
    assert panel.progress.value == ""
    assert not panel.ask_button.disabled
    until(lambda: models[panel.run.name, 20].cancelled)
    models[panel.run.name, 20].state = "done"
    assert not panel._shown.typed


def test_a_refused_request_is_said_in_its_words_and_can_be_asked_again(panel, models):
    ask(panel, models, "base", "step 20")
    model = models[panel.run.name, 20]
    model.error, model.state = WorkbenchError("There is not enough memory for the model."), "refused"
    until(lambda: "not enough memory" in panel.line.value)
    assert panel.trouble == ""
    assert not panel.ask_button.disabled
    assert panel.cancel_button.disabled


@pytest.mark.parametrize("broken", ["ask", "answer"])
def test_a_round_that_cannot_be_put_or_read_ends_with_the_error_said(panel, models, broken):
    panel.left.value, panel.right.value, panel.prompt.value = "step 20", "step 40", "Hello"
    first, second = (models.setdefault((panel.run.name, step), FakeModel(panel.run, step)) for step in (20, 40))
    if broken == "ask":
        second.ask = lambda *_, **__: refuse()
    else:
        second.result = lambda timeout_s=None: pd.DataFrame()  # no row for the prompt
        first.state = second.state = "done"
    panel.ask_button.click()
    until(lambda: "Error" in panel.line.value)
    assert panel.progress.value == ""
    assert not panel.ask_button.disabled
    assert panel.cancel_button.disabled
    if broken == "ask":
        assert "The disk is full." in panel.line.value
        until(lambda: first.cancelled == len(first.asked))


def refuse():
    raise WorkbenchError("The disk is full.")


def test_a_cancelled_round_that_fails_later_does_not_end_the_next_one(panel, models, monkeypatch):
    may_fail, open_now = threading.Event(), two_models.OPEN_MODELS.of_run
    first = []

    def of_run(run, step=None):
        if not first:
            first.append(step)
            LOCK.release()  # a model that takes long to open; the panel goes on meanwhile
            try:
                assert may_fail.wait(120)
            finally:
                LOCK.acquire()
            refuse()
        return open_now(run, step)

    monkeypatch.setattr(two_models.OPEN_MODELS, "of_run", of_run)
    panel.left.value, panel.right.value, panel.prompt.value = "base", "step 20", "Hello"
    panel.ask_button.click()
    until(lambda: first)
    panel.cancel_button.click()
    panel.ask_button.click()
    until(lambda: models.get((panel.run.name, 20)) and models[panel.run.name, 20].asked)
    slow = [thread for thread in threading.enumerate() if thread.name == "simpo-workbench-work"]
    may_fail.set()
    for thread in slow:
        thread.join(20)
    assert panel.ask_button.disabled, "the second round still waits for its answers"
    assert "The disk is full." not in panel.line.value


def test_one_side_that_fails_withdraws_the_other_request(panel, models):
    ask(panel, models, "step 20", "step 40", count=2)
    models[panel.run.name, 20].error, models[panel.run.name, 20].state = WorkbenchError("Gone."), "refused"
    until(lambda: models[panel.run.name, 40].cancelled and "Gone." in panel.line.value)
    assert not panel._shown.typed


def test_earlier_prompts_can_be_opened_again(panel, models):
    for prompt in ("First prompt", "Second prompt"):
        ask(panel, models, "base", "step 20", prompt=prompt)
        models[panel.run.name, 20].state = "done"
        until(lambda prompt=prompt: panel._shown.prompt == prompt)
        models[panel.run.name, 20].state = "asked"
    second, first = titles(panel.earlier)
    assert ("Second prompt" in second, "First prompt" in first) == (True, True)
    panel.earlier.index = 1
    assert "First prompt" in panel._cards.value
    panel.sample_right.value = 20
    assert "First prompt" not in panel._cards.value
    panel.earlier.index = 1
    assert "First prompt" in panel._cards.value


def test_a_typed_answer_stays_when_the_run_is_read_again(panel, models):
    ask(panel, models, "base", "step 20")
    models[panel.run.name, 20].state = "done"
    until(lambda: panel._shown.typed)
    panel.right.value = "base"
    keep_adapters(panel.run, (30,))
    panel.refresh()
    until(lambda: "step 30" in titles(panel.left))
    assert panel._shown.typed
    assert panel.right.value == "base"


def test_nothing_is_asked_without_a_prompt_and_the_button_says_why(panel):
    assert panel.ask_button.disabled
    assert panel.ask_button.tooltip == "Type a prompt first."
    panel.prompt.value = "  \n"
    assert panel.ask_button.disabled
    panel.prompt.value = "Hi"
    assert not panel.ask_button.disabled


def test_another_run_takes_the_place_of_the_first(panel, tmp_path):
    panel.run = fake_run(tmp_path / "other", name="other", total_steps=20, prompts=["Only this?"])
    until(lambda: "Only this?" in panel._cards.value)
    assert panel.sample_right.value == 20
    panel.run = None
    assert panel._with_run.layout.display == "none"
    assert panel._cards.value == ""


def test_markup_in_prompts_and_answers_is_text(tmp_path, models):
    bad = "<img src=x onerror=alert(1)>"
    run = fake_run(tmp_path, prompts=[bad])
    panel = Comparison(run)
    until(lambda: panel._shown)
    assert "<img" not in panel._cards.value
    assert "<img" not in panel.snapshot()


def test_a_real_model_answers_in_a_process_of_its_own(tiny_config):
    from simpo_workbench.runs.folder import create_run
    from simpo_workbench.runs.run import Run

    folder = create_run(tiny_config)
    write_json(folder.status, {"state": "stopped", "step": 0, "total_steps": 6, "message": "Stopped."})
    panel = Comparison(Run(folder))
    until(lambda: panel.left.options)
    assert panel.max_new_tokens.value == 8
    panel.prompt.value = "What is the capital of France?"
    try:
        panel.ask_button.click()
        until(lambda: panel._shown or "Error" in panel.line.value, 120)
        assert panel._shown.typed, panel.line.value
        assert panel._shown.left.tokens <= 8
    finally:
        OPEN_MODELS.close()
