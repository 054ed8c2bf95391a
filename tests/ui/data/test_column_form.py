"""What a user would lose: half of the pairs turned round, because the panel knows no other mapping than chosen and
rejected, or because nobody sees what a mapping makes before it is used.
"""

import json
import re
import time

import pytest

from simpo_workbench.config.run_config import DataConfig
from simpo_workbench.pairs.columns import COLUMN_ROLES, MORE_ROLES
from simpo_workbench.ui.data.column_form import ColumnForm
from simpo_workbench.ui.data.column_kinds import CHOSEN, KINDS, LABELLED, LISTED, NUMBERED, SINGLE, kind_of_mapping
from simpo_workbench.ui.data.data_view import DataView
from simpo_workbench.ui.parts.following import LOCK

HOSTILE = '<img src=x onerror="alert(1)">'


def rows(count=8, **columns):
    """Rows with a question and two answers; further columns are repeated."""
    return [
        {"question": f"What is {n}?", "answer_a": f"yes {n}", "answer_b": f"no {n}"}
        | {name: values[n % len(values)] for name, values in columns.items()}
        for n in range(count)
    ]


@pytest.fixture
def form():
    form = ColumnForm(lambda mapping: form.used.append(mapping), lambda handler: handler)
    form.used = []
    return form


def words(widget):
    return " ".join(re.sub(r"<[^>]+>", " ", widget.value).split())


def visible(form):
    return [name for name, menu in form.menus.items() if menu.layout.display is None]


def loaded(view):
    end = time.monotonic() + 120
    while True:
        with LOCK:
            if view._reading is None:
                return view
        assert time.monotonic() < end
        time.sleep(0.02)


def test_two_answers_and_a_label_are_proposed_and_their_pairs_shown(form):
    form.show("Unknown.", rows(winner=["a", "b", "tie"]), {})
    assert form.kind.value is LABELLED
    assert visible(form) == ["prompt", "first", "second", "label", "system"]
    assert form.mapping == {"prompt": "question", "answer_1": "answer_a", "answer_2": "answer_b", "label": "winner"}
    assert "8 rows read, 6 kept, 2 refused: tie 2" in words(form.outcome)
    assert "What is 1? no 1 yes 1" in words(form.outcome)  # prompt, chosen, rejected of the row that b has won
    assert "winner → Label" in words(form.preview)
    form.use.click()
    assert form.used == [form.mapping]


def test_a_label_with_two_readings_is_asked_and_both_readings_are_shown_before_one_is_used(form):
    form.show("Unknown.", rows(winner=[0, 1]), {})
    assert "winner holds 0 and 1: which of them means answer_a?" in words(form.words)
    assert form.use.disabled
    assert "a wrong guess would turn every pair" in form.use.tooltip
    assert "label" not in form.mapping
    meanings = {words: value for words, value in form.reading.options if value}
    shown = {}
    for meaning in meanings.values():
        form.reading.value = meaning
        shown[meaning] = words(form.outcome)
    assert "What is 0? yes 0 no 0" in shown["0 is the first, 1 the second"]
    assert "What is 0? no 0 yes 0" in shown["1 or yes if the first is better, else 0"]
    assert "No pair can be made" in shown["names the better one, or 1 is the first and 2 the second"]
    form.reading.value = "1 or yes if the first is better, else 0"
    form.use.click()
    assert form.used == [{"prompt": "question", "answer_1": "answer_a", "answer_0": "answer_b", "label": "winner"}]


def test_chosen_and_rejected_beside_a_label_that_contradicts_them_show_what_would_be_refused(form):
    form.show("Unknown.", rows(winner=["a", "b"]), {})
    form.kind.value = CHOSEN
    assert visible(form) == ["prompt", "chosen", "rejected", "system"]
    form.menus["chosen"].value, form.menus["rejected"].value = "answer_a", "answer_b"
    assert "label disagrees 4" in words(form.outcome)
    assert "swb-attention" in form.outcome.value


def test_another_kind_of_row_is_chosen_by_hand(form):
    data = [
        {"frage": f"What is {n}?", "texte": [f"yes {n}", f"no {n}"], "noten": [1, 2], "mehr": "m"} for n in range(4)
    ]
    form.show("Unknown.", data, {})
    assert form.kind.value is LISTED
    assert form.use.disabled
    form.reading.value = "less is better"
    assert form.mapping == {"prompt": "frage", "answers": "texte", "ranks": "noten"}
    assert "What is 0? yes 0 no 0" in words(form.outcome)
    form.kind.value = SINGLE
    assert form.reading.layout.display == "none"
    assert form.use.tooltip == "Choose the column of the answer first."


def test_scores_for_each_answer_are_read_in_the_direction_that_is_chosen(form):
    form.show("Unknown.", rows(penalty_score_a=[1, 3], penalty_score_b=[2]), {})
    assert form.kind.value is NUMBERED
    assert form.use.disabled
    form.reading.value = "less is better"
    assert "What is 1? no 1 yes 1" in words(form.outcome)


def test_a_mapping_of_the_configuration_is_shown_as_it_is_and_keeps_what_has_no_menu(form):
    columns = {"prompt": "question", "answer_1": "answer_b", "answer_2": "answer_a", "worse_label": "loser"}
    columns |= {"history": "before"}
    form.show("Choose.", rows(loser=["a", "b"], before=[[]]), columns)
    assert form.kind.value is LABELLED
    assert form.mapping == columns
    assert not form.use.disabled


def test_every_menu_stands_for_a_name_that_a_mapping_knows_and_every_mapping_is_found_again():
    for kind in KINDS:
        for reading, roles in kind.readings.items():
            assert set(roles.values()) <= {*COLUMN_ROLES, *MORE_ROLES}
            columns = {role: f"the {role}" for role in roles.values()}
            assert kind_of_mapping(columns)[0] is kind
            found = kind_of_mapping(columns)
            assert {found[0].readings[found[1]][menu]: column for menu, column in found[2].items()} == columns, reading


def test_texts_of_the_file_are_texts(form):
    data = [{"question": f"{HOSTILE} {n}", HOSTILE: HOSTILE, "answer_b": f"{HOSTILE} no {n}"} for n in range(3)]
    form.show(HOSTILE, data, {})
    for kind in KINDS:
        form.kind.value = kind
        for menu, column in zip(kind.menus, ("question", HOSTILE, "answer_b"), strict=False):
            form.menus[menu].value = column
        assert "<img" not in form.outcome.value + form.preview.value + form.words.value


def test_the_panel_opens_the_form_for_a_label_that_cannot_be_read_and_reads_the_file_as_chosen(tmp_path):
    path = tmp_path / "winner01.csv"
    lines = [f"What is {n}?,yes {n},no {n},{n % 2}" for n in range(20)]
    path.write_text("\n".join(["question,model_1_answer,model_2_answer,winner", *lines]) + "\n")
    view = loaded(DataView(DataConfig(train=str(path))))
    form = view.column_form
    assert form.layout.display is None
    assert form.kind.value is LABELLED
    assert [form.menus[name].value for name in visible(form)][:4] == [
        *("question", "model_1_answer", "model_2_answer", "winner")
    ]
    form.reading.value = "0 is the first, 1 the second"
    form.use.click()
    loaded(view)
    pairs = [pair for side in view._loaded.sets.values() for pair in side.pairs]
    assert len(pairs) == 20
    for pair in pairs:
        number = int(pair.prompt_text.split()[2][:-1])
        assert pair.chosen == f"{('yes', 'no')[number % 2]} {number}"


def test_secrets_in_texts_and_in_other_columns_are_said(tmp_path):
    token = "hf_" + "aB3" * 12
    data = [{"prompt": f"p {n}", "chosen": "good one", "rejected": "bad", "note": "clean"} for n in range(6)]
    data[2]["note"], data[4]["chosen"] = f"key {token}", f"use {token}"
    path = tmp_path / "notes.jsonl"
    path.write_text("\n".join(map(json.dumps, data)))
    view = loaded(DataView(DataConfig(train=str(path), eval=str(path))))
    shown = words(view.report)
    assert "1 training pair holds what looks like a token, key or password, which the model may learn" in shown
    assert "in a column beside the texts (&#39;note&#39;;" in shown
    assert shown.count("1 held-out pair holds") == 2
    assert token not in view.report.value
