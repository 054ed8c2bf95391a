"""What a user would lose: pairs that were dropped unseen, a mapping to be guessed by hand, the sight of what the model
is really shown.
"""

import json
import re
import time
from types import SimpleNamespace

import pandas as pd
import pytest
import tiny

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.config.run_config import DataConfig, ModelConfig
from simpo_workbench.pairs.pairs import load_pairs, raw_rows
from simpo_workbench.ui.data import data_view, pair_browser
from simpo_workbench.ui.data.data_view import FINAL, HELD_OUT, TRAINING, DataView
from simpo_workbench.ui.data.pair_browser import TEXT, TOKENS
from simpo_workbench.ui.data.token_view import TokenView, visible
from simpo_workbench.ui.parts.following import LOCK
from simpo_workbench.ui.parts.html import html
from simpo_workbench.ui.parts.model_requests import OPEN_MODELS
from simpo_workbench.ui.parts.panel import show

DEADLINE_S = 120
HOSTILE = '<img src=x onerror="alert(1)">'


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def until(condition):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def loaded(view):
    def idle():
        with LOCK:
            return view._reading is None

    until(idle)
    assert view.trouble == ""
    return view


def words(widget):
    return re.sub(r"<[^>]+>", " ", widget.value)


# --- loading


def test_a_view_opens_at_once_and_then_shows_the_demo():
    view = DataView()
    assert "Reading demo" in view.line.value
    loaded(view)
    assert len(view.pairs) == 230
    assert "230 training pairs and 60 held-out pairs" in view.line.value
    assert "230 rows read, 230 kept" in words(view.report)
    assert "n=230" in words(view.bias)
    assert view.browser.table.count_text == "230 pairs"
    assert view.browser.pair is view.pairs[0]
    view.which.value = HELD_OUT
    until(lambda: view.browser.table.count_text == "60 pairs")
    assert "60 pairs" in view._figure.widget.layout.title.text


def test_what_was_refused_is_shown_with_its_first_place(tmp_path):
    rows = [
        *tiny.rows(6),
        *tiny.rows(2),
        {"prompt": "p", "chosen": "a"},
        {"prompt": "p", "chosen": HOSTILE, "rejected": HOSTILE},
    ]
    view = loaded(DataView(DataConfig(train=write(tmp_path / "some.jsonl", rows), eval_fraction=0.34)))
    shown = words(view.report)
    assert "duplicate" in shown
    assert "line 7" in shown
    assert "line 9" in shown
    assert "No prompt is on both sides: 34% of the prompts are held out." in shown
    assert "<img" not in view.report.value


def test_prompts_on_both_sides_are_said_loudly(tmp_path):
    data = DataConfig(
        train=write(tmp_path / "train.jsonl", tiny.rows(6)), eval=write(tmp_path / "eval.jsonl", tiny.rows(2))
    )
    view = loaded(DataView(data))
    assert re.search(r'swb-attention">2 prompts are among both', view.report.value)


def test_fields_change_the_configuration_and_load(tmp_path):
    view = loaded(DataView(DataConfig(limit=5, columns={})))
    view.train.value = source = write(tmp_path / "mine.jsonl", tiny.rows(9))
    assert view.data == DataConfig(limit=5, train=source)
    assert view.pairs is None  # the demo is not shown under another name
    loaded(view)
    assert len(view.pairs) == 5
    view.eval.value = source
    loaded(view)
    assert view.data.eval == source


def test_setting_the_configuration_fills_the_fields_and_loads(tmp_path):
    view = loaded(DataView())
    source = write(tmp_path / "mine.jsonl", tiny.rows(9))
    view.data = DataConfig(train=source, eval=source)
    assert (view.train.value, view.eval.value) == (source, source)
    loaded(view)
    assert len(view.pairs) == 9
    before = view.pairs
    view.data = DataConfig(train=source, eval=source, max_tokens=64)  # changes no pair: nothing is read again
    assert view.pairs is before


def test_a_source_that_cannot_be_read_is_one_sentence_and_teaches(tmp_path):
    view = loaded(DataView(DataConfig(train=str(tmp_path / "nowhere.jsonl"))))
    assert view.pairs is None
    assert "Error:" in view.line.value
    assert "nowhere.jsonl" in view.line.value
    assert "a row of a file can be as plain as this" in words(view.report).lower()
    assert view._with_pairs.layout.display == "none"
    view.train.value = "demo"
    loaded(view)
    assert view._with_pairs.layout.display is None


def test_an_earlier_source_that_comes_late_is_not_shown(tmp_path, monkeypatch):
    """The slow source answers last, under the fast one's name it would be a lie."""
    import threading

    slow, fast = (write(tmp_path / f"{name}.jsonl", tiny.rows(count)) for name, count in (("slow", 9), ("fast", 6)))
    go_on, load_data = threading.Event(), data_view.load_data

    def delayed(data, seed):
        if data.train == slow:
            go_on.wait(DEADLINE_S)
        return load_data(data, seed)

    monkeypatch.setattr(data_view, "load_data", delayed)
    view = DataView(DataConfig(train=slow))
    reading = view._reading
    assert not view.cancel_button.disabled
    view.data = DataConfig(train=fast)
    loaded(view)
    kept = view.pairs
    go_on.set()
    until(reading.ready.is_set)
    view._take(reading)
    assert view.pairs is kept
    assert view.pairs.name == "fast.jsonl"


def test_cancelling_shows_nothing_and_load_reads_again(tmp_path):
    with LOCK:  # else it may be read before it is cancelled
        view = DataView(DataConfig(train=write(tmp_path / "one.jsonl", tiny.rows(4))))
        reading = view._reading
        view.cancel_button.click()
    until(reading.ready.is_set)
    view._take(reading)
    assert view.pairs is None
    assert "Cancelled" in view.line.value
    assert "Nothing is being read" in view.cancel_button.tooltip
    view.load_button.click()
    assert loaded(view).pairs is not None


def test_the_pairs_are_held_out_by_the_seed_of_the_run(tmp_path):
    data = DataConfig(train=write(tmp_path / "many.jsonl", tiny.rows(40)))
    train, held_out, *_ = data_view.load_data(data, 7)
    view = loaded(DataView(data, seed=7))
    assert [pair.pair_id for pair in view.pairs] == [pair.pair_id for pair in train]
    assert [pair.pair_id for pair in view._loaded.sets[HELD_OUT].pairs] == [pair.pair_id for pair in held_out]
    view.seed = 8
    assert view.pairs is None
    again = [pair.pair_id for pair in loaded(view).pairs]
    assert again == [pair.pair_id for pair in data_view.load_data(data, 8)[0]]
    assert again != [pair.pair_id for pair in train]


def test_a_hidden_panel_reads_nothing_until_it_is_turned_to(tmp_path, monkeypatch):
    read, load_data = [], data_view.load_data
    monkeypatch.setattr(
        data_view, "load_data", lambda data, seed: read.append((data.train, seed)) or load_data(data, seed)
    )
    view, source = loaded(DataView()), write(tmp_path / "mine.jsonl", tiny.rows(9))
    show(view, False)
    for typed in ("t", "tr", source):
        view.data = DataConfig(train=typed, limit=5)
        assert view.pairs is None
        assert view.train.value == typed
    view.seed = 7
    view.model = ModelConfig(name="org/other")
    assert (view._reading, view.browser._model.name) == (None, ModelConfig().name)
    view.refresh()
    show(view, True)
    assert len(loaded(view).pairs) == 5
    assert read == [("demo", 0), (source, 7)]
    assert view.browser._model.name == "org/other"
    view.refresh()
    assert view._reading is None, "it is read already"


def test_what_was_being_read_when_the_panel_was_left_comes_only_if_it_is_still_named():
    view = DataView()
    show(view, False)
    assert len(loaded(view).pairs) == 230
    with LOCK:  # else it may be read before another is named
        view.load()
        reading = view._reading
        view.data = DataConfig(train="t")
    until(reading.ready.is_set)
    view._take(reading)
    assert view.pairs is None


# --- columns


def test_unknown_columns_are_guessed_previewed_and_used(tmp_path):
    rows = [
        {"question": f"{HOSTILE} {index}", "good_answer": f"yes {index}", "bad_answer": f"no {index}", "topic": "t"}
        for index in range(8)
    ]
    view = loaded(DataView(DataConfig(train=write(tmp_path / "named.jsonl", rows))))
    form = view.column_form
    assert form.layout.display is None
    with pytest.raises(WorkbenchError) as error:
        load_pairs(tmp_path / "named.jsonl")
    assert html("{}", str(error.value)) in form.words.value  # the words of the command line
    assert form.mapping == {"prompt": "question", "chosen": "good_answer", "rejected": "bad_answer"}
    assert "yes 0" in form.preview.value
    assert HOSTILE not in form.preview.value
    form.use.click()
    assert view.data.columns == form.mapping
    loaded(view)
    assert view.pairs[0].chosen == "yes 0"
    assert form.layout.display == "none"


def test_columns_without_a_guess_are_chosen_by_hand(tmp_path):
    rows = [{"a": f"what {index}", "b": f"yes {index}", "c": f"no {index}"} for index in range(4)]
    view = loaded(DataView(DataConfig(train=write(tmp_path / "abc.jsonl", rows))))
    form = view.column_form
    assert form.use.disabled
    assert "the column of the prompt first" in form.use.tooltip
    for role, name in (("prompt", "a"), ("chosen", "b"), ("rejected", "b")):
        form.menus[role].value = name
    assert "is chosen in two menus" in form.use.tooltip
    form.menus["rejected"].value = "c"
    assert not form.use.disabled
    form.use.click()
    assert len(loaded(view).pairs) + len(view._loaded.sets[HELD_OUT].pairs) == 4


def test_another_file_does_not_inherit_the_mapping(tmp_path):
    named = write(
        tmp_path / "named.jsonl", [{"q": f"what {i}", "good": f"yes {i}", "bad": f"no {i}"} for i in range(4)]
    )
    view = loaded(DataView(DataConfig(train=named, columns={"prompt": "q", "chosen": "good", "rejected": "bad"})))
    assert view.pairs is not None
    view.train.value = "demo"
    assert view.data.columns == {}
    assert len(loaded(view).pairs) == 230


def test_columns_can_be_changed_although_they_were_recognised(tmp_path):
    view = loaded(DataView(DataConfig(train=write(tmp_path / "one.jsonl", tiny.rows(6)))))
    view.columns_button.click()
    until(lambda: view.column_form.layout.display is None)
    assert view.column_form.mapping == {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
    view.column_form.menus["chosen"].value, view.column_form.menus["rejected"].value = "rejected", "chosen"
    view.column_form.use.click()
    first = tiny.rows(6)[0]
    by_prompt = {pair.prompt_text: pair for side in loaded(view)._loaded.sets.values() for pair in side.pairs}
    assert by_prompt[first["prompt"]].chosen == first["rejected"]


def test_raw_rows_are_the_rows_of_the_file(tmp_path):
    path = tmp_path / "torn.jsonl"
    path.write_text('{"a": 1, "b": [2]}\nnot json\n{"a": 3}\n{"a": 4}\n')
    assert raw_rows(str(path), 2) == [{"a": 1, "b": [2]}, {"a": 3}]


# --- browsing


def test_search_counts_hits_and_the_chosen_pair_follows():
    view = loaded(DataView())
    view.browser.search.value = "CAPITAL"
    until(lambda: view.browser.table.count_text == "5 pairs")
    assert "5 of 230 pairs hold “CAPITAL”" in view.browser.hits.value
    last = view.browser.table.rows[2]["id"]
    view.browser.table._heard(None, {"choose": last}, [])
    assert view.browser.pair.pair_id == last
    assert view.browser.pair.chosen.split()[0] in view.browser.text.value
    view.browser.search.value = "no pair says this"
    until(lambda: view.browser.table.count_text == "0 pairs")
    assert view.browser.pair is None
    assert "Choose a pair" in view.browser.text.value


def test_hostile_texts_are_texts(tmp_path):
    rows = [
        {"prompt": f"{HOSTILE} p {index}", "chosen": f"{HOSTILE} c", "rejected": f"{HOSTILE} r", HOSTILE: HOSTILE}
        for index in range(3)
    ]
    view = loaded(DataView(DataConfig(train=write(tmp_path / "bad.jsonl", rows))))
    for shown in (view.browser.text.value, view.report.value, view.snapshot(), view._repr_mimebundle_()["text/html"]):
        assert "<img" not in shown
    assert "&lt;img" in view.browser.text.value


def test_the_still_picture_holds_the_essentials():
    html = DataView()._repr_mimebundle_()["text/html"]
    assert "230 rows read, 230 kept" in html
    assert "The chosen answer is the longer one in" in html
    assert "Rejected answer" in html


def test_charts_follow_the_theme():
    view = loaded(DataView())
    view._frame.theme = "dark"
    assert view._figure.widget.layout.paper_bgcolor == "#111111"


# --- tokens


@pytest.fixture
def token_view(tiny_model, tiny_pairs):
    view = loaded(
        DataView(DataConfig(train=tiny_pairs[0], eval=tiny_pairs[1]), ModelConfig(name=tiny_model, load_in="fp32"))
    )
    yield view
    OPEN_MODELS.close()


def test_a_pair_is_shown_as_the_model_sees_it(token_view):
    browser = token_view.browser
    browser.form.value = TOKENS
    assert "Loading the tokenizer" in browser.tokens.value
    assert browser.text.layout.display == "none"
    until(lambda: "swb-tokens" in browser.tokens.value)
    shown = browser.tokens.value
    assert re.search(
        r'swb-token-template[^>]*title="template, token 1 of the prompt, id \d+">&lt;\|im_start\|&gt;<', shown
    )
    assert re.search(r'swb-token-end swb-side-chosen[^>]*title="end of turn', shown)
    assert "scored tokens" in shown
    assert token_view.trouble == ""
    second = browser.table.rows[1]["id"]
    browser.table._heard(None, {"choose": second}, [])
    assert "swb-tokens" not in browser.tokens.value  # never the tokens of another pair
    until(lambda: "swb-tokens" in browser.tokens.value)
    token_view.data = token_view.data.model_copy(update={"max_tokens": 8})
    until(lambda: "longer than data.max_tokens 8" in browser.tokens.value)
    browser.form.value = TEXT
    assert browser.text.layout.display is None


def test_a_tokenizer_that_cannot_be_loaded_says_so(token_view):
    token_view.model = ModelConfig(name="./nowhere")
    token_view.browser.form.value = TOKENS
    until(lambda: "There is no model folder" in token_view.browser.tokens.value)
    assert token_view.trouble == ""


@pytest.mark.parametrize("broken", ["ask", "show"])
def test_a_request_for_tokens_that_cannot_be_made_or_shown_is_not_waited_for(token_view, monkeypatch, broken):
    browser = token_view.browser
    if broken == "ask":
        monkeypatch.setattr(
            pair_browser.OPEN_MODELS, "of", lambda *_, **__: SimpleNamespace(ask=lambda *_, **__: refuse())
        )
    else:
        monkeypatch.setattr(browser.tokens, "show", lambda _: refuse())
    browser.form.value = TOKENS
    until(lambda: "The disk is full." in browser.tokens.value)
    assert "The disk is full." in token_view.line.value
    assert token_view.trouble == ""


def refuse():
    raise WorkbenchError("The disk is full.")


def test_white_space_is_kept_and_what_cannot_be_seen_is_named():
    assert visible(" a\n") == '<span class="swb-space"> </span>a<span class="swb-newline">\n</span>'
    assert "U+202E" in visible("a\u202eb")
    assert "U+000D" in visible("\r")
    assert visible("<b>") == "&lt;b&gt;"


def test_counts_and_reports_stand_with_the_tokens():
    rows = [
        ("prompt", "<s>", False, "template"),
        ("prompt", "Hi", False, "prompt"),
        ("chosen", "A", True, "answer"),
        ("chosen", "</s>", True, "end of turn"),
        ("rejected", "</s>", True, "end of turn"),
    ]
    tokens = pd.DataFrame(
        [
            {"side": side, "position": place, "token_id": place, "token": token, "scored": scored, "kind": kind}
            for place, (side, token, scored, kind) in enumerate(rows)
        ]
    )
    tokens.attrs["report"] = "The prompt was cut from the left."
    view = TokenView()
    view.show(tokens)
    shown = words(view)
    assert "2 tokens · 1 of them the template&#39;s · none scored" in shown
    assert "2 scored tokens" in shown
    assert "1 scored token ·" in shown
    assert "cut from the left" in shown


def test_titles_of_the_sets_are_their_counts():
    view = loaded(DataView())
    assert view.which.options == (("Training (230)", TRAINING), ("Held-out (60)", HELD_OUT))


def test_the_final_pairs_are_counted_and_can_be_looked_at(tmp_path):
    """200 prompts, half of them held out: 20 of these 100 are too few for "auto", a half is taken as it is."""
    rows = [{"prompt": f"Question {n}?", "chosen": "Yes.", "rejected": "No, not at all."} for n in range(200)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataConfig(train=str(tmp_path / "own.jsonl"), eval_fraction=0.5)
    view = loaded(DataView(data))
    assert "100 held-out pairs are too few for a final share" in view.report.value
    assert [name for name, _ in view.which.options] == ["Training (100)", "Held-out (100)"]
    view.data = data.model_copy(update={"final_fraction": 0.5})
    loaded(view)
    assert [name for name, _ in view.which.options] == ["Training (100)", "Held-out (50)", "Final (50)"]
    assert "<dd>50</dd><dt>final pairs, on which no step is chosen</dt>" in view.report.value
    view.which.value = FINAL
    assert len(view.browser._set.pairs) == 50
