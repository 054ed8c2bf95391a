"""What a user would lose: a model that is trained to say "response_a", because the answers stand in other columns."""

import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.pairs.pairs import load_pairs

LONG, SHORT = "Lima, on the coast.", "Cusco, in the hills."
TWO = {"response_a": LONG, "response_b": SHORT}
LIST = {"responses": [LONG, SHORT]}
NAMED = {
    "columns": TWO | {"chosen": "response_a", "rejected": "response_b"},
    "letters": TWO | {"chosen": "A", "rejected": "B"},
    "sides": TWO | {"model_a": "x", "model_b": "y", "chosen": "model_a", "rejected": "model_b"},
    "models": TWO | {"model_a": "x", "model_b": "y", "chosen": "x", "rejected": "y"},
    "other words": TWO | {"chosen": "Assistant A", "rejected": "Assistant B"},
    "no rejected": TWO | {"chosen": "response_a", "rejected": None},
    "long names": TWO | {"chosen_response": "a", "rejected_response": "b"},
    "numbers": {"output_1": LONG, "output_2": SHORT, "chosen": 1, "rejected": 2},
    "any columns": {"llama_text": SHORT, "qwen_text": LONG, "chosen": "qwen_text", "rejected": "llama_text"},
    "places": LIST | {"chosen": 0, "rejected": 1},
    "places as text": LIST | {"chosen": "0", "rejected": "1"},
    "places from 1": LIST | {"chosen": 1, "rejected": 2},
    "letters of a list": LIST | {"chosen": "A", "rejected": "B"},
    "models of a list": LIST | {"models": ["x", "y"], "chosen": "x", "rejected": "y"},
    "models inside": {
        "completions": [{"model": "y", "response": SHORT}, {"model": "x", "response": LONG}],
        "chosen": "x",
        "rejected": "y",
    },
    "keys": {"responses": {"x": LONG, "y": SHORT}, "chosen": "x", "rejected": "y"},
    "a list as text": {"responses": f'["{LONG}", "{SHORT}"]', "chosen": "0", "rejected": "1"},
}


@pytest.mark.parametrize("row", NAMED.values(), ids=NAMED)
def test_answers_that_are_only_named_are_found(row):
    pairs = load_pairs([{"prompt": "Capital of Peru?", **row}])
    assert [(pair.prompt_text, pair.chosen, pair.rejected) for pair in pairs] == [("Capital of Peru?", LONG, SHORT)]


def test_the_sides_are_not_told_apart_by_their_order():
    rows = [
        {"prompt": f"p{n}", **TWO, "chosen": f"response_{a}", "rejected": f"response_{b}"}
        for n, (a, b) in enumerate(["ab", "ba"])
    ]
    pairs = load_pairs(rows)
    assert [pair.chosen for pair in pairs] == [LONG, SHORT]
    assert "Which of 'response_a' and 'response_b' is better was read from 'chosen'" in str(pairs.report())
    mapped = load_pairs([{"frage": row.pop("prompt"), **row} for row in rows], columns={"prompt": "frage"})
    assert [pair.chosen for pair in mapped] == [LONG, SHORT]


WRITTEN = {
    "the texts stand beside them": TWO | {"chosen": LONG, "rejected": SHORT},
    "short texts": {"responses": ["5", "4"], "chosen": "5", "rejected": "4"},
    "numbers that are answers": {"response_1": "2", "response_2": "1", "chosen": "2", "rejected": "1"},
    "letters without answers": {"chosen": "A", "rejected": "B", "option_a": "x", "option_b": "y", "option_c": "z"},
    "names that are no columns": TWO | {"chosen": "response_x", "rejected": "response_y"},
    "a model's name": {"chosen": "model_x", "rejected": "model_y", "model_x": "gpt", "model_y": "llama"},
}


@pytest.mark.parametrize("row", WRITTEN.values(), ids=WRITTEN)
def test_answers_that_are_written_stay_what_they_are(row):
    [pair] = load_pairs([{"prompt": "p", **row}])
    assert (pair.chosen, pair.rejected) == (row["chosen"], row["rejected"])


def test_what_may_be_a_name_or_the_answer_and_places_that_may_count_from_0_or_1_are_refused():
    option = {"prompt": "Which?", "option_a": "Lima", "option_b": "Cusco", "chosen": "A", "rejected": "B"}
    with pytest.raises(WorkbenchError, match="the answer itself, or the name of 'option_a' or 'option_b'"):
        load_pairs([option])
    mapping = {"answer_1": "option_a", "answer_2": "option_b", "label": "chosen"}
    assert load_pairs([option], columns=mapping)[0].chosen == "Lima"
    with pytest.raises(WorkbenchError, match="count from 0 or from 1"):
        load_pairs([{"prompt": "p", "responses": ["x", "y", "z"], "chosen": 1, "rejected": 2}])
