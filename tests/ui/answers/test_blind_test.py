"""What would be lost: a vote, by a killed kernel or a full disk; the blindness, by a word too many; and an answer never
seen, by a key pressed too fast.
"""

import re
import threading
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from fake_model import FakeModel, keep_adapters
from fake_run import PROMPTS, fake_run
from panels import until, visible

import simpo_workbench as wb
from simpo_workbench.analysis import BlindVotes
from simpo_workbench.ui import BlindTest
from simpo_workbench.ui.answers import blind_start, two_models
from simpo_workbench.ui.answers.blind_start import _ASKED, _FILE, _HELD_OUT, _OWN, _SAMPLED
from simpo_workbench.ui.parts.keys import Keys

HOSTILE = '<img src=x onerror="alert(1)">'


@pytest.fixture
def run(tmp_path):
    made = fake_run(tmp_path / "runs", total_steps=40)
    keep_adapters(made, (0, 20, 40))
    return made


@pytest.fixture
def panel(run):
    made = BlindTest(run)
    until(lambda: made.start.first.options)
    return made


@pytest.fixture
def models(monkeypatch):
    opened = {}

    class Answering(FakeModel):
        def result(self, timeout_s=None):
            rows = [
                {"base": f"Base to {n}.", "base_tokens": 5, "tuned": f"Tuned to {n}.", "tuned_tokens": 4}
                for n, _ in enumerate(self.asked[-1][1]["prompts"])
            ]
            return pd.DataFrame(rows).assign(
                base_ended=True, base_repeated_4grams=0.0, tuned_ended=True, tuned_repeated_4grams=0.0
            )

    monkeypatch.setattr(
        two_models.OPEN_MODELS,
        "of_run",
        lambda run, step=None: opened.setdefault((run.name, step), Answering(run, step)),
    )
    return opened


@pytest.fixture
def held(monkeypatch):
    """held(name): what the first page does in the background by this function waits for `.go()`; `.made` holds what
    came of it.
    """

    def hold(name):
        work, gate, made = getattr(blind_start, name), threading.Event(), []

        def waiting(*given):
            gate.wait(120)
            made.append(work(*given))
            return made[-1]

        monkeypatch.setattr(blind_start, name, waiting)

        def go():
            gate.set()
            until(lambda: made)
            for thread in threading.enumerate():  # what came of it has been handed over
                if thread.name == "simpo-workbench-work":
                    thread.join(30)

        return SimpleNamespace(go=go, made=made)

    return hold


def answers(n=6, **more):
    return pd.DataFrame(
        [
            {
                "prompt": f"Question {i}?",
                "first": f"Long answer {i}.",
                "second": f"Short {i}.",
                "first_tokens": 40,
                "second_tokens": 10,
                **more,
            }
            for i in range(n)
        ]
    )


def begin(panel):
    panel.start.begin_button.click()
    return until(lambda: panel.votes)


def press(panel, name, number=None):
    """As the page does: with the number of what it shows, or an older one."""
    panel.vote_keys._heard(None, {"press": name, "number": panel.vote_keys.number if number is None else number}, [])


def offered(panel):
    return [one["name"] for one in panel.vote_keys.actions if not one.get("why_not")]


def words(panel):
    return panel.snapshot().striptags()


# --- keys


def test_a_press_counts_only_for_what_was_shown_when_it_was_made():
    pressed = []
    keys = Keys("Vote", pressed.append)
    keys.offer(
        7,
        [
            {"name": "left", "keys": ["1"], "text": "Answer 1"},
            {"name": "undo", "keys": ["u"], "text": "Undo", "why_not": "There is no vote."},
        ],
    )
    for message in (
        None,
        "left",
        [],
        {},
        {"press": "left"},
        {"press": "left", "number": 6},
        {"press": "undo", "number": 7},
        {"press": "up", "number": 7},
        {"press": ["left"], "number": 7},
    ):
        keys._heard(None, message, [])
    assert pressed == []
    keys._heard(None, {"press": "left", "number": 7}, [])
    assert pressed == ["left"]


def test_keys_pressed_faster_than_prompts_appear_vote_once(tmp_path):
    panel = BlindTest(answers=answers(), path=tmp_path / "x.jsonl")
    shown = panel.vote_keys.number
    for _ in range(5):
        press(panel, "left", shown)
    assert panel.votes.voted == 1
    press(panel, "undo", shown)
    assert panel.votes.voted == 1


# --- voting


def test_every_key_is_saved_at_once_and_the_next_prompt_is_shown(tmp_path):
    path = tmp_path / "x.jsonl"
    panel = BlindTest(answers=answers(), path=path)
    assert "Prompt 1 of 6 · 0 saved" in words(panel)
    for number, choice in enumerate(("left", "right", "tie", "both bad", "skip"), 1):
        item = panel.votes.next_item()
        assert (item.prompt in words(panel), item.left in words(panel)) == (True, True)
        press(panel, choice)
        saved = BlindVotes.resume(path).votes
        assert (len(saved), list(saved["choice"])[-1]) == (number, choice)
    assert "Prompt 6 of 6 · 5 saved" in words(panel)
    press(panel, "undo")
    assert "Prompt 5 of 6 · 4 saved" in words(panel)
    assert "prompt 5 is taken back" in panel.line.value
    press(panel, "tie")
    assert panel.line.value == ""
    assert list(BlindVotes.resume(path).votes["choice"]) == ["left", "right", "tie", "both bad", "tie"]


def test_answer_1_is_the_left_one_and_answer_2_the_right_one_whosever_they_are(tmp_path):
    """The vote says left or right: cards that showed the first model always on the same side would turn half of the
    votes round.
    """
    panel = BlindTest(answers=answers(), path=tmp_path / "x.jsonl")
    seen = set()
    while item := panel.votes.next_item():
        cards = re.findall(r"<h4[^>]*>(.*?)</h4>(.*?)(?=<h4|$)", panel._cards.value, re.DOTALL)
        assert [title for title, _ in cards] == ["1", "2"]
        assert [
            item.left in cards[0][1],
            item.right in cards[0][1],
            item.left in cards[1][1],
            item.right in cards[1][1],
        ] == [True, False, False, True]
        seen.add(item.left_is)
        press(panel, "tie")
    assert seen == {"first", "second"}


def test_a_vote_that_is_taken_back_shows_its_own_prompt_again(tmp_path):
    """Also where it was a second vote on the prompt, or prompts before it are open."""
    panel = BlindTest(answers=answers(), path=tmp_path / "x.jsonl")
    panel.votes.vote(4, "left")
    panel.votes.vote(4, "tie")
    press(panel, "left")
    press(panel, "undo")
    assert "Prompt 1 of 6 · 1 saved" in words(panel)
    press(panel, "undo")
    assert "Prompt 4 of 6 · 0 saved" in words(panel)
    assert panel.votes.items[3].prompt in words(panel)
    press(panel, "right")
    assert panel.votes.votes[["item", "choice"]].to_numpy().tolist() == [[4, "right"]]
    assert "Prompt 1 of 6" in words(panel)


def test_nothing_on_the_page_tells_which_model_is_which(tmp_path):
    path = tmp_path / "x.jsonl"
    panel = BlindTest(answers=answers(first_ended=False), path=path)
    for _ in range(6):
        sent = " ".join(
            str(widget.value) for widget in (panel._progress, panel._prompt, panel._cards, panel.line)
        ) + str(panel.vote_keys.actions)
        for word in ("base", "tuned", "tokens", "first", "second", "cut off", "ends properly"):
            assert not re.search(rf"\b{word}\b", sent), word
        assert re.findall(r"<h4[^>]*>(.*?)</h4>", panel._cards.value) == ["1", "2"]
        assert "<del>" not in sent
        press(panel, "left")
    assert "base" not in words(panel)


def test_the_result_comes_when_it_is_asked_for_and_the_last_vote_can_be_taken_back_until_then(tmp_path):
    panel = BlindTest(answers=answers(), path=tmp_path / "x.jsonl")
    while item := panel.votes.next_item():
        press(panel, "right" if item.left_is == "first" else "left")
    assert not visible(panel._result_page)
    assert "Every prompt has its vote" in words(panel)
    assert offered(panel) == ["result", "undo"]
    press(panel, "undo")
    assert "Prompt 6 of 6" in words(panel)
    press(panel, "tie")
    press(panel, "result")
    assert visible(panel._result_page)
    assert not visible(panel._voting)
    assert "No difference can be told from 6 votes" in words(panel)
    assert "tuned preferred5counts 1" in words(panel)
    assert "The answers of tuned are 30 tokens shorter" in words(panel)
    assert not visible(panel.again_button)
    assert "not blind" not in words(panel)


def test_a_look_at_the_result_before_the_end_is_asked_for_twice_and_recorded(tmp_path):
    path = tmp_path / "x.jsonl"
    panel = BlindTest(answers=answers(), path=path)
    assert panel.results_button.tooltip == "There is no vote yet."
    press(panel, "left")
    panel.results_button.click()
    assert visible(panel._warning)
    assert BlindVotes.resume(path).blind
    assert not visible(panel._result_page)
    panel._warning.children[1].children[0].click()
    assert visible(panel._result_page)
    assert not BlindVotes.resume(path).blind
    assert "5 of 6 prompts have no vote yet" in words(panel)
    assert panel.again_button.description == "Go on with the 5 left"
    panel.again_button.click()
    press(panel, "left")
    panel.show_result()
    assert "1 vote came after the models had been named and is not blind" in words(panel)


def test_a_vote_that_cannot_be_saved_is_said_and_its_prompt_stays(tmp_path, monkeypatch):
    panel = BlindTest(answers=answers(), path=tmp_path / "x.jsonl")
    shown = panel._cards.value

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("simpo_workbench.analysis.blind_votes.append_jsonl", full)
    press(panel, "left")
    assert "not saved" in panel.line.value
    assert (panel._cards.value, panel.votes.voted) == (shown, 0)
    monkeypatch.undo()
    press(panel, "left")
    assert panel.votes.voted == 1


def test_a_vote_on_a_test_whose_file_is_gone_is_said_and_makes_no_file(tmp_path):
    path = tmp_path / "x.jsonl"
    panel = BlindTest(answers=answers(), path=path)
    path.unlink()
    press(panel, "left")
    assert "It is not saved" in panel.line.value
    assert "is gone" in panel.line.value
    assert "Prompt 1 of 6 · 0 saved" in words(panel)
    assert not path.exists()


def test_a_finished_test_that_cannot_be_written_shows_its_result_and_says_that_the_look_is_not_recorded(
    tmp_path, monkeypatch
):
    path, unfinished = tmp_path / "x.jsonl", tmp_path / "y.jsonl"
    for test in (BlindVotes.begin(path, answers(2)), BlindVotes.begin(unfinished, answers(3))):
        test.vote(1, "left")
        test.vote(2, "tie")

    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("simpo_workbench.analysis.blind_votes.append_jsonl", read_only)
    panel = BlindTest(path=path)
    assert visible(panel._result_page)
    assert "No difference can be told from 2 votes" in words(panel)
    assert "could not be recorded" in panel.line.value
    assert "Read-only file system" in panel.line.value
    other = BlindTest(path=unfinished)
    other._warning.children[1].children[0].click()
    assert not visible(other._result_page), "votes that come later would be called blind"
    assert "Read-only file system" in other.line.value


def test_the_same_cell_run_again_goes_on_where_the_kernel_died(tmp_path):
    path = tmp_path / "x.jsonl"
    first = BlindTest(answers=answers(), path=path)
    press(first, "left")
    press(first, "tie")
    again = BlindTest(answers=answers(), path=path)
    assert "Prompt 3 of 6 · 2 saved" in words(again)
    assert again.votes.items == first.votes.items
    for _ in range(4):
        press(again, "skip")
    press(again, "result")
    assert visible(BlindTest(path=path)._result_page), "a finished test opens with its result"


def test_answers_that_are_all_the_same_leave_nothing_to_vote_on(tmp_path):
    panel = BlindTest(answers=answers().assign(second=answers()["first"]), path=tmp_path / "x.jsonl")
    assert "nothing to vote on" in words(panel)
    press(panel, "result")
    assert "No difference can be told from 0 votes" in words(panel)
    assert "6 prompts with the same answer from both count as ties" in words(panel)


@pytest.mark.parametrize(
    ("given", "said"),
    [({"answers": answers().drop(columns="first")}, "lack the column"), ({}, "There is no blind test in")],
)
def test_what_cannot_begin_is_said_in_words(tmp_path, given, said):
    panel = BlindTest(path=tmp_path / "x.jsonl", **given)
    assert said in panel.line.value
    assert panel.trouble == ""
    assert panel.votes is None


def test_markup_in_prompts_answers_and_titles_is_text(tmp_path):
    table = pd.DataFrame({"prompt": [HOSTILE] * 2, "first": ["a", "b"], "second": [HOSTILE] * 2})
    BlindVotes.begin(tmp_path / "x.jsonl", table, HOSTILE, "tuned")
    panel = BlindTest(path=tmp_path / "x.jsonl")
    assert "<img" not in panel.snapshot()
    press(panel, "left")
    panel.show_result()
    panel.result.table.choose(["1"])
    assert "<img" not in panel.snapshot() + panel.result._item.value


# --- the result


def test_the_result_opens_every_item_with_the_names_and_exports_the_pairs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel = BlindTest(answers=answers(12), path=tmp_path / "x.jsonl")
    while item := panel.votes.next_item():
        press(panel, "left" if item.left_is == "second" else "right")
    press(panel, "result")
    assert "tuned is better than base" in words(panel)
    assert 'aria-label="Win rate of tuned: 1.00 with the interval 0.74 to 1.00' in panel.snapshot()
    result, item = panel.result, panel.votes.items[3]
    assert len(result.table.rows) == 12
    result.table._heard(None, {"choose": "4"}, [])
    titles = re.findall(r"<h4[^>]*>(.*?)</h4>", result._item.value)
    assert titles == (["1 · base", "2 · tuned"] if item.left_is == "first" else ["1 · tuned", "2 · base"])
    assert item.prompt in result._item.value
    assert result.export_button.description == "Export 12 pairs"
    result.export_button.click()
    until(lambda: "12 pairs written" in panel.line.value)
    pairs = wb.load_pairs(tmp_path / "pairs-of-blind-test-x.jsonl")
    assert {pair.chosen[:5] for pair in pairs} == {"Short"}
    result.export_button.click()
    until(lambda: "nothing is replaced" in panel.line.value)


# --- the first page


def test_without_a_run_one_sentence_says_what_to_do():
    panel = BlindTest()
    assert "wb.ui.BlindTest(answers=table)" in panel.start._empty.value
    assert "wb.ui.BlindTest(answers=table)" in words(panel)
    assert not visible(panel.start._choices)


def test_the_runs_samples_are_compared_at_once_with_the_base_model_as_anchor(run, panel):
    start = panel.start
    assert (start.source.value, start.first.value, start.second.value) == (_SAMPLED, 0, 40)
    votes = begin(panel)
    assert votes.path.parent == run.path / "blind"
    assert votes.titles == {"first": "base model · step 0", "second": "tuned · step 40"}
    item = next(item for item in votes.items if item.prompt == PROMPTS[0])
    assert item.answer("first").startswith("Answer 0 at step 0")
    assert item.answer("second").startswith("Answer 0 at step 40")
    assert (item.first_tokens, item.second_tokens) == (62, 22)
    assert visible(panel._voting)


def test_a_new_path_that_is_given_with_a_run_is_where_its_votes_are_kept(run, tmp_path):
    path = tmp_path / "mine" / "votes.jsonl"
    panel = BlindTest(run, path=path)
    until(lambda: panel.start.first.options)
    assert visible(panel.start)
    assert panel.line.value == ""
    assert panel.start.path.value == str(path)
    assert begin(panel).path == path
    press(panel, "left")
    assert "Prompt 2 of 3 · 1 saved" in words(BlindTest(run, path=path))


def test_a_double_click_begins_one_test(run, panel, held):
    begins = held("_begin_with_samples")
    panel.start.begin_button.click()
    assert panel.start.begin_button.disabled
    panel.start.begin_button.click()
    assert not panel.start.cancel_button.disabled
    begins.go()
    until(lambda: panel.votes)
    assert len(begins.made) == 1
    assert "is there already" not in panel.line.value
    assert (panel.start.begin_button.disabled, panel.start.cancel_button.disabled) == (False, True)


@pytest.mark.parametrize("leave", ["cancel", "another run"])
def test_a_test_that_was_cancelled_or_left_for_another_run_does_not_come_up_later(panel, tmp_path, held, leave):
    begins = held("_begin_with_samples")
    panel.start.begin_button.click()
    if leave == "cancel":
        panel.start.cancel_button.click()
    else:
        panel.run = fake_run(tmp_path / "other", name="other", total_steps=20)
    until(lambda: not panel.start.begin_button.disabled)
    begins.go()
    assert panel.votes is None
    assert visible(panel.start)
    until(lambda: not Path(panel.start.path.value).exists())
    if leave == "cancel":
        until(lambda: any("0 of 3 voted" in title for title, _ in panel.start.earlier.options))
    assert panel.start.second.value == (40 if leave == "cancel" else 20)


def test_the_same_model_twice_and_a_missing_file_name_are_no_test(panel):
    panel.start.second.value = 0
    assert panel.start.begin_button.tooltip == "Choose two different models."
    panel.start.second.value = 20
    panel.start.path.value = "  "
    assert "Name a file" in panel.start.begin_button.tooltip
    panel.start.path.value = "x.jsonl"
    assert not panel.start.begin_button.disabled


def test_unfinished_tests_of_the_run_are_gone_on_with_and_finished_ones_show_their_result(run, panel):
    begin(panel)
    press(panel, "left")
    panel.leave_button.click()
    assert "1 of 3 votes are kept" in panel.line.value
    (title,) = until(lambda: [title for title, _ in panel.start.earlier.options if "1 of 3 voted" in title])
    assert "base model · step 0 | tuned · step 40" in title

    other = BlindTest(run)  # as after the kernel died
    until(lambda: other.start.earlier.options)
    other.start.open_button.click()
    assert "Prompt 2 of 3 · 1 saved" in words(other)
    press(other, "tie")
    press(other, "tie")
    other.leave_button.click()
    until(lambda: any("finished, 3 votes" in title for title, _ in other.start.earlier.options))
    other.start.open_button.click()
    assert visible(other._result_page)
    other.leave_result_button.click()
    assert visible(other.start)


def test_a_second_test_gets_a_file_of_its_own(run, panel):
    first = begin(panel).path
    panel.leave()
    until(lambda: panel.start.path.value != str(first))
    panel.votes = None
    assert begin(panel).path != first
    assert len(list((run.path / "blind").glob("*.jsonl"))) == 2


def test_a_damaged_file_among_the_tests_is_named_and_stops_nothing(run):
    (run.path / "blind").mkdir()
    (run.path / "blind" / "torn.jsonl").write_text("nothing\n")
    panel = BlindTest(run)
    (title,) = until(lambda: [title for title, _ in panel.start.earlier.options])
    assert title == "torn · cannot be read"
    panel.start.open_button.click()
    assert "holds no blind test" in panel.line.value


def test_where_the_run_folder_cannot_be_written_another_path_is_offered_and_said(run, monkeypatch):
    monkeypatch.setattr(blind_start.os, "access", lambda *_: False)
    panel = BlindTest(run)
    until(lambda: panel.start.path.value)
    assert str(run.path) not in panel.start.path.value
    assert "cannot be written" in panel.start._path_note.value
    monkeypatch.undo()
    (run.path / "blind").write_text("in the way")
    panel.start.path.value = str(run.path / "blind" / "x.jsonl")
    panel.start.begin_button.click()
    until(lambda: "cannot be made" in panel.line.value)
    assert "Choose another path" in panel.line.value
    assert visible(panel.start)


def test_refresh_finds_new_steps_and_keeps_what_was_chosen(tmp_path):
    import shutil

    live = fake_run(tmp_path / "a", total_steps=120, last_step=40, state="training")
    panel = BlindTest(live)
    until(lambda: len(panel.start.first.options) == 3)
    panel.start.second.value, panel.start.path.value = 20, "mine.jsonl"
    longer = fake_run(tmp_path / "b", total_steps=120, last_step=60)
    shutil.copy(longer.folder.generations(60), live.folder.generations(60))
    panel.refresh()
    until(lambda: len(panel.start.first.options) == 4)
    assert (panel.start.second.value, panel.start.path.value) == (20, "mine.jsonl")


def test_what_was_read_of_a_run_that_is_not_there_any_more_fills_nothing(run, held):
    reads = held("_read")
    panel = BlindTest(run)
    panel.run = None
    reads.go()
    assert panel.start.first.options == ()
    assert (panel.start._samples, panel.start.path.value, panel.trouble) == (None, "", "")


def test_another_run_shows_its_first_page(panel, tmp_path):
    begin(panel)
    panel.run = fake_run(tmp_path / "other", name="other", total_steps=20)
    assert visible(panel.start)
    until(lambda: panel.start.second.value == 20)
    assert "/other/blind/" in panel.start.path.value


# --- asking the models


def asks(panel, models, prompts, **values):
    start = panel.start
    start.source.value, start.prompts.value = _ASKED, prompts
    for name, value in values.items():
        getattr(start, name).value = value
    start.begin_button.click()
    until(lambda: models and all(model.asked for model in models.values()))
    return next(iter(models.values()))


def test_both_models_are_asked_all_prompts_at_once_and_then_the_test_begins(panel, models):
    model = asks(panel, models, _OWN, own="One?\n\nTwo?\nOne?\n", max_new_tokens=30, temperature=0.7, seed=5)
    assert list(models) == [(panel.run.name, 40)], "the base model answers beside the tuned one"
    ((_, values),) = model.asked
    assert values["prompts"] == ["One?", "Two?"]
    assert (values["generation"].max_new_tokens, values["generation"].temperature, values["seed"]) == (30, 0.7, 5)
    assert panel.start.begin_button.tooltip == "The models are answering."
    model.state = "done"
    votes = until(lambda: panel.votes)
    assert sorted(
        (item.prompt, item.answer("first"), item.answer("second"), item.first_tokens, item.second_tokens)
        for item in votes.items
    ) == [
        ("One?", "Base to 0.", "Tuned to 0.", 5, 4),
        ("Two?", "Base to 1.", "Tuned to 1.", 5, 4),
    ]
    assert votes.titles["first"] == "base model"
    assert votes.titles["second"].startswith("step 40")


def test_the_models_that_were_chosen_at_the_click_are_asked(panel, models, held):
    """Menus and fields may change while held-out prompts load."""
    start, prompts = panel.start, held("_prompts")
    start.source.value, start.second.value, start.temperature.value, start.max_new_tokens.value, start.seed.value = (
        _ASKED,
        "step 20",
        0.5,
        30,
        7,
    )
    start.begin_button.click()
    assert start.begin_button.disabled
    assert not start.cancel_button.disabled
    path = start.path.value
    start.second.value, start.temperature.value, start.max_new_tokens.value, start.seed.value, start.path.value = (
        "step 40",
        1.0,
        99,
        8,
        "other.jsonl",
    )
    prompts.go()
    until(lambda: models and all(model.asked for model in models.values()))
    assert list(models) == [(panel.run.name, 20)]
    model = models[panel.run.name, 20]
    ((_, values),) = model.asked
    assert (values["generation"].max_new_tokens, values["generation"].temperature, values["seed"]) == (30, 0.5, 7)
    model.state = "done"
    votes = until(lambda: panel.votes)
    assert (votes.titles["second"].split(" (")[0], str(votes.path)) == ("step 20", path)


@pytest.mark.parametrize("leave", ["cancel", "another run"])
def test_nobody_is_asked_once_it_was_cancelled_or_another_run_chosen_while_prompts_loaded(
    panel, models, held, tmp_path, leave
):
    start, prompts = panel.start, held("_prompts")
    start.source.value = _ASKED
    start.begin_button.click()
    if leave == "cancel":
        start.cancel_button.click()
        assert "Cancelled" in panel.line.value
    else:
        other = fake_run(tmp_path / "other", name="other", total_steps=40)
        keep_adapters(other, (20, 40))
        panel.run = other
    until(lambda: not start.begin_button.disabled)
    prompts.go()
    assert models == {}
    assert (start._round, panel.votes) == (None, None)
    assert start.cancel_button.disabled


def test_answers_that_come_while_another_run_is_shown_begin_nothing(panel, models, held, tmp_path):
    model, begins = asks(panel, models, _OWN, own="One?"), held("_begin_with_answers")
    first, path = panel.run, panel.start.path.value
    model.state = "done"
    until(lambda: "Answered in" in panel.line.value)
    panel.run = fake_run(tmp_path / "other", name="other", total_steps=20)
    begins.go()
    assert panel.votes is None
    assert visible(panel.start)
    assert BlindVotes.resume(path).asked == 1
    panel.run = first
    until(lambda: any("0 of 1 voted" in title for title, _ in panel.start.earlier.options))


def test_held_out_prompts_and_those_of_the_run_are_asked(panel, models):
    model = asks(panel, models, _HELD_OUT, count=5)
    assert len(model.asked[0][1]["prompts"]) == 5
    panel.start.cancel_button.click()
    until(lambda: model.cancelled)
    assert "Cancelled" in panel.line.value
    assert panel.votes is None
    model.asked.clear()
    panel.start.prompts.value = "the run's sample prompts"
    panel.start.begin_button.click()
    until(lambda: model.asked)
    assert model.asked[0][1]["prompts"] == PROMPTS


def test_prompts_come_from_a_file_as_texts_and_conversations(panel, models, tmp_path):
    turns = (
        '[{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}, {"role": "user", "content":'
        ' "Why?"}]'
    )
    (tmp_path / "p.jsonl").write_text(f'{{"prompt": "One?"}}\n"Two?"\n{{"prompt": {turns}}}\n')
    model = asks(panel, models, _FILE, file=str(tmp_path / "p.jsonl"))
    assert [prompt if isinstance(prompt, str) else len(prompt) for prompt in model.asked[0][1]["prompts"]] == [
        "One?",
        "Two?",
        3,
    ]
    model.state = "done"
    votes = until(lambda: panel.votes)
    assert {len(item.messages) for item in votes.items} == {1, 3}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "One?"}\n', "line 1 holds no prompt"),
        ("[" * 100_000 + "\n", "line 1 holds no prompt"),
        ("\n", "no prompts for the test"),
        (None, "cannot be read"),
    ],
    ids=["no prompt", "nested", "blank", "missing"],
)
def test_a_file_without_prompts_is_an_error_in_words(panel, models, tmp_path, content, said):
    if content is not None:
        (tmp_path / "p.jsonl").write_text(content)
    panel.start.source.value, panel.start.prompts.value, panel.start.file.value = (
        _ASKED,
        _FILE,
        str(tmp_path / "p.jsonl"),
    )
    panel.start.begin_button.click()
    until(lambda: said in panel.line.value)
    assert panel.trouble == ""
    assert not panel.start.begin_button.disabled


def test_what_is_still_to_be_chosen_is_said_at_the_button(panel):
    start = panel.start
    start.source.value, start.prompts.value = _ASKED, _OWN
    assert start.begin_button.tooltip == "Type prompts first."
    start.prompts.value = _FILE
    assert start.begin_button.tooltip == "Name the file with the prompts first."
    assert (visible(start.file), visible(start.own), visible(start.count)) == (True, False, False)


def test_other_runs_can_be_judged_too(run, tmp_path, models):
    other = fake_run(tmp_path / "runs", name="gentle", total_steps=20)
    keep_adapters(other, (20,))
    panel = BlindTest(run)
    until(lambda: panel.start.first.options)
    panel.start.source.value = _ASKED
    panel.start.first.value, panel.start.second.value = "step 40", "run gentle"
    panel.start.begin_button.click()
    until(lambda: len(models) == 2 and all(model.asked for model in models.values()))
    assert set(models) == {(run.name, 40), ("gentle", None)}
    for model in models.values():
        model.state = "done"
    votes = until(lambda: panel.votes)
    assert votes.titles["second"] == "run gentle, final adapter"
