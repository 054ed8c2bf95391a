"""Column names: a wrong guess or a silent mapping would swap the sides of every pair."""

import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.pairs.columns import checked_mapping, renamed_row
from simpo_workbench.pairs.guesses import guess_columns


@pytest.mark.parametrize(
    ("columns", "guess"),
    [
        (["question", "good_answer", "bad_answer"], ("question", "good_answer", "bad_answer")),
        (["id", "userPrompt", "winnerText", "loserText"], ("userPrompt", "winnerText", "loserText")),
        (["query", "preferred", "dispreferred"], ("query", "preferred", "dispreferred")),
        (["query", "preferred", "non_preferred"], ("query", "preferred", "non_preferred")),
        (["text", "response_w", "response_l"], ("text", "response_w", "response_l")),
    ],
)
def test_columns_are_guessed_from_their_words(columns, guess):
    assert guess_columns(columns) == dict(zip(("prompt", "chosen", "rejected"), guess, strict=True))


@pytest.mark.parametrize("columns", [["messages", "label"], ["a", "b", "c"], ["chosen", "rejected", "x", "y"], []])
def test_no_guess_is_made_up(columns):
    assert guess_columns(columns) is None


def test_a_mapping_renames_and_keeps_every_other_column():
    row = {"good": "a", "bad": "b", "chosen": "by vote", "chosen_in_file": 1, "id": 7}
    renamed = renamed_row(row, checked_mapping({"chosen": "good", "rejected": "bad", "system": None}))
    assert renamed == {
        "chosen": "a",
        "rejected": "b",
        "chosen_in_file_in_file": "by vote",
        "chosen_in_file": 1,
        "id": 7,
    }


@pytest.mark.parametrize(
    ("mapping", "said"), [({"choosen": "a"}, "'chosen'"), ({"chosen": 1}, "name of a column"), ("chosen", "mapping")]
)
def test_a_mapping_that_cannot_be_meant_is_refused(mapping, said):
    with pytest.raises(WorkbenchError, match=said):
        checked_mapping(mapping)
