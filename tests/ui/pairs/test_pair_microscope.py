"""What would be lost: the tokens of the pair one looks at, the way back from a request that takes too long, and what
went wrong.
"""

import json
import threading
from types import SimpleNamespace

import pandas as pd
import pytest
from fake_run import fake_run
from panels import until, visible
from token_tables import by_hand, of_length, with_tokens

import simpo_workbench as wb
from simpo_workbench.base.files import write_json
from simpo_workbench.charts.subplots import COLORS
from simpo_workbench.ui.pairs import pair_microscope
from simpo_workbench.ui.pairs.pair_microscope import PairMicroscope
from simpo_workbench.ui.parts.model_requests import OPEN_MODELS

PAIR = {
    "pair_id": "pair-003",
    "prompt": "Question 3?",
    "chosen": "Blue, mostly",
    "rejected": "Green, I think",
    "lead_before": 0.1,
}


def keep_adapters(run, steps):
    for step in steps:
        (run.folder.checkpoint(step) / "adapter").mkdir(parents=True, exist_ok=True)
    run.folder.adapter.mkdir(exist_ok=True)
    write_json(run.folder.adapter / "adapter_config.json", {})


@pytest.fixture
def run(tmp_path):
    made = fake_run(tmp_path, total_steps=40)
    keep_adapters(made, (0, 20, 40))
    return made


class FakeModel:
    """An opened model whose answer comes when it is told to."""

    def __init__(self):
        self.run = SimpleNamespace(status=SimpleNamespace(alive=True, state="loading"))
        self.asked, self.state, self.cancelled, self.error, self.tokens = [], "asked", 0, None, by_hand()

    def ask(self, kind, **values):
        self.asked.append((kind, values))
        self.state = "asked"
        return self

    def result(self, timeout_s=None):
        if self.error:
            raise self.error
        return self.tokens

    def cancel(self):
        self.cancelled += 1
        return True


@pytest.fixture
def models(monkeypatch):
    opened = {}
    monkeypatch.setattr(OPEN_MODELS, "of_run", lambda run, step=None: opened.setdefault((run.name, step), FakeModel()))
    return opened


@pytest.fixture
def panel(run, models):
    made = PairMicroscope(run, PAIR)
    until(lambda: made.model.options)
    return made


def ask(panel, models, step=40, count=1):
    panel.ask_button.click()
    return until(lambda: (model := models.get((panel.run.name, step))) and len(model.asked) == count and model)


def answer(panel, model):
    model.state = "done"
    return until(lambda: panel.tokens is not None and panel._shown)


# --- before anything is asked


def test_an_empty_panel_teaches_how_tokens_come_here(run):
    panel = PairMicroscope()
    assert "PairMicroscope(tokens=wb.explain_pair(model, pair))" in panel._empty.value
    assert not visible(panel._asks)
    assert "PairMicroscope(" in panel.snapshot()
    without_pair = PairMicroscope(run)
    assert "Choose a pair" in without_pair._empty.value
    until(lambda: without_pair.model.options)
    assert (without_pair.ask_button.disabled, without_pair.ask_button.tooltip) == (True, "Choose a pair first.")


def test_the_menu_holds_the_runs_own_models_and_stands_at_the_last(panel, run, tmp_path):
    keep_adapters(fake_run(tmp_path, name="other", total_steps=20), (20,))
    assert [value for _, value in panel.model.options] == ["step 20", "step 40", "base"]
    assert panel.model.value == "step 40"
    panel.model.value = "step 20"
    keep_adapters(run, (60,))
    panel.refresh()
    until(lambda: "step 60" in dict(panel.model.options).values())
    assert panel.model.value == "step 20", "what was chosen stays"


def test_a_run_that_trains_is_asked_as_it_is_now(tmp_path, models):
    panel = PairMicroscope(fake_run(tmp_path, state="training", last_step=40), PAIR)
    until(lambda: panel.model.options)
    assert dict(panel.model.options)["as it is now"] == panel.model.value == "now"


# --- tokens that are there already


def test_tokens_alone_are_shown_without_any_model():
    panel = PairMicroscope(tokens=by_hand())
    pd.testing.assert_frame_equal(panel.tokens, wb.analysis.token_leads(by_hand()))
    assert "The lead grew by 0.38 nats per token" in panel._said.value
    assert not visible(panel._asks)
    assert "change of lead +0.38" in [one.text for one in panel.won.widget.layout.annotations]
    assert "change of the lead" in panel.won.words.value
    assert "Green" in panel.curves.words.value
    picture = panel.snapshot()
    assert "Green" in picture
    assert "loss −log σ(z)" in picture


def test_tokens_of_a_run_are_placed_by_the_settings_of_the_run(tmp_path):
    run = fake_run(tmp_path, total_steps=20, changes={"loss.beta": 2.5, "loss.gamma_beta_ratio": 0.3})
    assert "β 2.5, γ/β 0.3 (γ 0.75): as in the run" in PairMicroscope(run=run, tokens=by_hand()).snapshot()


def test_without_a_base_model_there_is_nothing_to_switch():
    panel = PairMicroscope(tokens=by_hand(base=False))
    assert not visible(panel.what)
    assert "the less the model expected" in panel._heat.value
    assert panel.trouble == ""


def test_a_wrong_table_is_refused_in_words():
    panel = PairMicroscope(tokens=by_hand().drop(columns="logp"))
    assert "lacks the column &#39;logp&#39;" in panel.line.value
    assert (panel.trouble, panel.tokens) == ("", None)


def test_the_switch_shows_other_numbers_on_the_same_text():
    panel = PairMicroscope(tokens=by_hand())
    assert "likelier than in the base model" in panel._heat.value
    panel.what.value = "logp"
    assert "the less the tuned model expected" in panel._heat.value
    panel.what.value = "base_logp"
    assert "the less the base model expected" in panel._heat.value


def test_markup_in_tokens_is_text_everywhere():
    bad = "<img src=x onerror=alert(1)>"
    panel = PairMicroscope(tokens=with_tokens([bad, "\u202ea", "\x07"], [bad + " b"]))
    for shown in (
        panel._said.value,
        panel._heat.value,
        panel._numbers.value,
        panel.curves.words.value,
        panel.snapshot(),
    ):
        assert "<img" not in shown
        assert "\u202e" not in shown
        assert "\x07" not in shown
    assert not any("<img" in text for one in panel.curves.widget.data if one.text is not None for text in one.text)


def test_the_charts_follow_the_theme():
    panel = PairMicroscope(tokens=by_hand())
    panel._frame.theme = "dark"
    assert panel.trouble == ""
    assert {chart.widget.layout.paper_bgcolor for chart in (panel.won, panel.curves)} == {COLORS["dark"]["ground"]}


def test_a_pair_of_five_thousand_tokens_stays_a_page():
    panel = PairMicroscope(tokens=of_length(5000, 5000))
    assert len(panel._heat.value) < 1_500_000
    assert len(panel._said.value) + len(panel._numbers.value) + len(panel.curves.words.value) < 20_000
    assert len(panel.tokens) == 10_000


# --- asking


def test_the_pair_is_asked_by_its_texts_with_the_runs_data_settings(panel, models):
    model = ask(panel, models)
    kind, values = model.asked[0]
    assert kind == "explain"
    assert values["pairs"] == [
        {"prompt": [{"role": "user", "content": "Question 3?"}], "chosen": PAIR["chosen"], "rejected": PAIR["rejected"]}
    ]
    assert values["data"] == panel.run.config.data
    answer(panel, model)
    assert panel.tokens["change_share"].sum() == pytest.approx(0.375)
    assert f"{panel._sides['step 40'].title.capitalize()} against the base model" in panel._said.value
    assert "Question 3?" in panel._said.value
    assert "Read in" in panel.line.value
    assert panel.trouble == ""


def test_a_pair_id_of_the_held_out_pairs_is_enough(run, models):
    panel = PairMicroscope(run, "pair-005")
    until(lambda: panel.model.options)
    model = ask(panel, models)
    assert model.asked[0][1]["pairs"][0]["chosen"] == "Short answer 5."


def test_an_answer_that_is_not_what_was_scored_is_said_to_be_so(panel, models):
    answer(panel, ask(panel, models))
    assert "The averages are not those of the run&#39;s scores at step" in panel._said.value


def test_it_says_what_it_waits_for_and_cancel_takes_it_back(panel, models):
    panel.ask_button.click()
    assert "Opening the model … 0 s" in panel.progress.value, "at once, with the click"
    assert not panel.cancel_button.disabled
    model = until(lambda: models.get((panel.run.name, 40)))
    until(lambda: "Loading the model" in panel.progress.value)
    assert panel.ask_button.tooltip == "The model is reading the pair."
    panel.cancel_button.click()
    until(lambda: model.cancelled)
    assert panel.progress.value == ""
    assert "Cancelled" in panel.line.value
    assert panel.cancel_button.disabled
    assert not panel.ask_button.disabled
    model.state = "done"
    ask(panel, models, count=2)
    assert panel.tokens is None, "the reply to the first request is not wanted any more"


def test_a_request_cancelled_while_the_model_opens_is_never_sent(run, monkeypatch):
    may_open, model = threading.Event(), FakeModel()

    def slow(run, pair):
        assert may_open.wait(120)
        return {"prompt": [{"role": "user", "content": "x"}], "chosen": "a", "rejected": "b"}

    monkeypatch.setattr(pair_microscope, "original_pair", slow)
    monkeypatch.setattr(OPEN_MODELS, "of_run", lambda run, step=None: model)
    panel = PairMicroscope(run, PAIR)
    until(lambda: panel.model.options)
    panel.ask_button.click()
    work = [thread for thread in threading.enumerate() if thread.name == "simpo-workbench-work"]
    panel.cancel_button.click()
    may_open.set()
    for thread in work:
        thread.join(20)
    assert model.asked == []
    assert panel.progress.value == ""


def test_what_goes_wrong_is_said_and_one_can_ask_again(panel, models):
    model = ask(panel, models)
    model.error, model.state = (
        wb.WorkbenchError("The pair cannot be scored. Dropped 1: longer than data.max_tokens."),
        "refused",
    )
    until(lambda: "longer than data.max_tokens" in panel.line.value)
    assert (panel.progress.value, panel.trouble, panel.ask_button.disabled) == ("", "", False)
    model.error = None
    answer(panel, ask(panel, models, count=2))


def test_an_answer_that_cannot_be_shown_ends_the_waiting(panel, models):
    model = ask(panel, models)
    model.tokens = by_hand().drop(columns="logp")
    model.state = "done"
    until(lambda: "lacks the column" in panel.line.value)
    assert panel.progress.value == ""
    assert not panel.ask_button.disabled


def test_a_pair_that_the_run_does_not_have_is_refused_in_words(run, models):
    panel = PairMicroscope(run, "nobody")
    until(lambda: panel.model.options)
    panel.ask_button.click()
    until(lambda: "has no held-out pair" in panel.line.value)
    assert panel.progress.value == ""
    assert panel.trouble == ""


# --- another pair, another run


def test_another_pair_forgets_the_first_and_is_read_at_once_while_the_model_is_open(panel, models):
    model = ask(panel, models)
    answer(panel, model)
    panel.pair = {**PAIR, "pair_id": "pair-004", "prompt": "Question 4?"}
    assert panel.tokens is None
    until(lambda: len(model.asked) == 2)
    assert model.asked[1][1]["pairs"][0]["prompt"][0]["content"] == "Question 4?"
    answer(panel, model)
    panel.pair = None
    assert panel.tokens is None
    assert "Choose a pair" in panel._empty.value


def test_a_pair_chosen_while_another_is_read_takes_its_place(panel, models):
    model = ask(panel, models)
    panel.pair = {**PAIR, "pair_id": "pair-004", "prompt": "Question 4?"}
    until(lambda: len(model.asked) == 2 and model.cancelled == 1)


def test_before_the_first_request_choosing_pairs_loads_nothing(panel, models):
    for number in range(4):
        panel.pair = {**PAIR, "pair_id": f"pair-00{number}"}
    assert models == {}
    assert not panel._waits


def test_a_hidden_panel_reads_nothing_on_its_own(panel, models):
    model = ask(panel, models)
    answer(panel, model)
    panel.layout.display = "none"
    panel.pair = {**PAIR, "pair_id": "pair-004"}
    assert not panel._waits
    assert len(model.asked) == 1


def test_another_run_brings_its_own_models_and_forgets_the_tokens(panel, models, tmp_path):
    answer(panel, ask(panel, models))
    other = fake_run(tmp_path, name="other", total_steps=20)
    keep_adapters(other, (20,))
    panel.run = other
    until(lambda: panel.model.options)
    assert panel.tokens is None
    assert panel.model.value == "step 20"
    panel.run = None
    assert not visible(panel._asks)


# --- with a real model


def test_a_conversation_is_read_as_it_was_scored(tiny_config, tmp_path):
    turns = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "Of Spain?"},
    ]
    rows = [
        {"prompt": turns, "chosen": "Madrid, of course.", "rejected": "The lazy dog."},
        {"prompt": "What color is the fox?", "chosen": "Brown.", "rejected": "Quick."},
    ]
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {
        "data.eval": str(tmp_path / "talks.jsonl"),
        "data.system_prompt": "Be brief.",
        "training.max_steps": 2,
        "training.eval_every": 2,
        "training.learning_rate": 1e-3,
    }
    run = wb.train(tiny_config.with_changes(changes | {"generation.prompts": [], "generation.held_out_prompts": 0}))
    table = run.scores[run.scores["step"] == 2].set_index("prompt")
    talk = next(prompt for prompt in table.index if "Madrid" not in prompt and "User:" in prompt)
    panel = PairMicroscope(run, {"prompt": talk, **table.loc[talk].to_dict()})
    try:
        until(lambda: panel.model.options)
        panel.ask_button.click()
        until(lambda: panel.tokens is not None or "Error" in panel.line.value, 120)
        assert "Error" not in panel.line.value, panel.line.value
        means = panel.tokens.groupby("side")[["logp", "base_logp"]].mean()
        before = run.scores[run.scores["step"] == 0].set_index("prompt")
        for side in ("chosen", "rejected"):
            assert means.loc[side, "logp"] == pytest.approx(table.loc[talk, f"{side}_avg_logp"], abs=1e-5)
            assert means.loc[side, "base_logp"] == pytest.approx(before.loc[talk, f"{side}_avg_logp"], abs=1e-5)
        assert "swb-attention" not in panel._said.value
    finally:
        OPEN_MODELS.close()
