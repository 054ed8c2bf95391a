"""What a user would lose: a mapping that an error proposes and that trains on the wrong columns."""

import ast
import re

import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.pairs.pairs import load_pairs


def refusal(rows, **options):
    with pytest.raises(WorkbenchError) as error:
        load_pairs(rows, **options)
    return str(error.value)


def advised(rows):
    """The pairs by each mapping that the refusal names."""
    mappings = [ast.literal_eval(text) for text in re.findall(r"columns=(\{.*?\})", refusal(rows))]
    loads = [load_pairs(rows, columns=mapping) for mapping in mappings]
    return [[(pair.prompt_text, pair.chosen, pair.rejected) for pair in pairs] for pairs in loads]


def two(first, second, label, values):
    return [
        {"prompt": f"p{n}", first: f"first {n}", second: f"second {n}", label: value} for n, value in enumerate(values)
    ]


FIRST, SECOND = ("p0", "first 0", "second 0"), ("p1", "second 1", "first 1")


def test_a_column_of_turns_is_the_prompt_before_any_name_and_a_category_is_none():
    rows = [
        {"task": "Maths", "spur": [{"from": "user", "value": f"Sum {n}?"}], "chosen": f"a{n}", "rejected": f"b{n}"}
        for n in range(2)
    ]
    assert advised(rows) == [[("Sum 0?", "a0", "b0"), ("Sum 1?", "a1", "b1")]]
    categories = [{"task": "Maths", "more": n, "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(2)]
    assert "Try columns" not in refusal(categories)
    assert "Try columns" not in refusal(categories[:1])
    tasks = [{"task": f"Add {n}", "more": n, "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(2)]
    assert advised(tasks)[0][0] == ("Add 0", "a0", "b0")


@pytest.mark.parametrize("names", [("modelA", "modelB"), ("a", "b"), ("gpt_text_left", "gpt_text_right"), ("x1", "x2")])
def test_two_answers_under_any_names_get_a_mapping_of_their_label(names):
    try:
        rows = two(*names, "winner", [1, 2])
        pairs = [[(pair.prompt_text, pair.chosen, pair.rejected) for pair in load_pairs(rows)]]
    except WorkbenchError:
        pairs = advised(rows)
    assert pairs == [[FIRST, SECOND]]


def test_two_columns_that_a_label_names_get_a_mapping():
    assert advised(two("llama", "qwen", "winner", ["llama", "qwen"])) == [[FIRST, SECOND]]
    assert advised(two("llama", "qwen", "loser", ["qwen", "llama"])) == [[FIRST, SECOND]]


def test_a_label_with_two_readings_gets_a_mapping_for_each():
    flipped = [("p0", "second 0", "first 0"), ("p1", "first 1", "second 1")]
    assert advised(two("modelA", "modelB", "winner", [0, 1])) == [[FIRST, SECOND], flipped]


def test_names_of_models_are_not_taken_for_answers():
    rows = [{"prompt": f"p{n}", "model_a": "x-1", "model_b": "y-2", "winner": "model_a"} for n in range(2)]
    assert "Try columns" not in refusal(rows)


def test_two_answers_without_a_label_are_not_to_be_mapped_to_chosen_and_rejected():
    text = refusal([{"question": "q", "answer_a": "x y", "answer_b": "z"}])
    assert "columns={'answer_1': 'answer_a', 'answer_2': 'answer_b', 'label': '…'}" in text
    assert "'chosen'" not in text


@pytest.mark.parametrize("names", ["123", "abc"])
def test_three_answers_in_columns_are_to_be_a_list(names):
    text = refusal([{"prompt": "p", "winner": 1, **{f"answer_{name}": "x" for name in names}}])
    assert "make a list of them in one column `answers`" in text
    assert "'chosen'" not in text


def test_a_verdict_and_a_ranking_under_unknown_names_are_found():
    rows = [{"prompt": "p", "response": text, "thumbs": value} for text, value in [("good", "up"), ("bad", "down")]]
    assert advised(rows) == [[("p", "good", "bad")]]
    ranking = {"prompt": "p", "responses": ["x", "y", "z"], "ranking": [3, 1, 2]}
    assert advised([ranking]) == [[("p", "y", "x")], [("p", "x", "y")]]
    said = str(load_pairs([ranking], columns={"ranks": "ranking"}).report())
    assert "was read from 'ranking', where the lowest is the best" in said


def test_the_useful_half_of_an_error_comes_first_and_is_short():
    text = refusal([{"riddle": 1, "colour": 2}])
    assert text.index("Map other names") < text.index("Columns found") < text.index("docs/data-shapes.md")
    assert len(text) < 320


def test_a_forgotten_ending_is_found_without_a_look_on_the_hub(tmp_path, monkeypatch):
    (tmp_path / "my_pairs.jsonl").write_text("{}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("simpo_workbench.pairs.hub.read_hub", lambda _: pytest.fail("the hub was asked"))
    with pytest.raises(WorkbenchError, match=r"There is no file or folder my_pairs\. Nearest in \.: my_pairs\.jsonl"):
        load_pairs("my_pairs")
