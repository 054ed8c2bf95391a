"""What a user would lose: a part of the prompt, or pairs whose own ratings contradict them, without a word."""

import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.pairs.pairs import load_pairs

LOST = "Not shown to the model, although the names may say otherwise: "


def said(**more):
    """The report on two pairs that have more columns than the three."""
    rows = [{"prompt": f"Sum {n}", "chosen": f"right {n}", "rejected": f"wrong {n}", **more} for n in range(2)]
    return str(load_pairs(rows).report())


@pytest.mark.parametrize(
    "column",
    ["initial_steps", "prefix", "partial_answer_prefix", "system_message", "passage", "dialogueHistory", "title"],
)
def test_a_column_whose_words_say_that_it_belongs_to_the_prompt_is_named(column):
    assert f"{LOST}'{column}' (2 pairs)" in said(**{column: "Step 1: add."})
    assert LOST not in said(**{column: "Sum"})  # the prompt holds it


@pytest.mark.parametrize(
    "columns",
    [
        {"prompt_id": "a3f"}, {"source": "forum"}, {"prompt_source": "forum"}, {"question_type": "open"}, {"task": "x"},
        {"original_response": "no"}, {"system_prompt_hash": "af"}, {"num_turns": 3}, {"score_chosen": 3}, {"turns": 2},
        {"labelling_prompt": "Judge!"}, {"full_chosen": "x", "full_rejected": "y"},
    ],
    ids=str,
)  # fmt: skip
def test_other_columns_are_not_named(columns):
    assert LOST not in said(**columns)


def test_a_column_of_turns_is_named_whatever_it_is_called():
    assert f"{LOST}'spur' (2 pairs)" in said(spur=[{"from": "user", "value": "Add 1 and 2"}])
    assert f"{LOST}'spur' (2 pairs)" in said(spur='[{"role": "user", "content": "Add 1 and 2"}]')
    assert LOST not in said(spur=[{"model": "x", "text": "Add"}])


def test_what_an_object_holds_beside_the_text_of_the_prompt_is_kept_and_said():
    """The article stands for the post where there is none."""
    rows = [
        {
            "info": {"id": f"t{n}", "title": "My cat", "subreddit": "cats", "site": None, **text},
            "summaries": [{"text": "Short."}, {"text": "Good."}],
            "choice": 1,
        }
        for n, text in enumerate([{"post": "A long post.", "article": None}, {"post": None, "article": "News."}])
    ]
    pairs = load_pairs(rows)
    assert [pair.prompt_text for pair in pairs] == ["A long post.", "News."]
    assert f"{LOST}'info.title' (2 pairs), 'info.subreddit' (2 pairs)" in str(pairs.report())
    assert pairs[0].extra["info"] == {"id": "t0", "title": "My cat", "subreddit": "cats"}
    question = {"question": {"full_text": "Why?", "id": "1", "dataset": "x"}, "answer_0": "a", "answer_1": "b"}
    pairs = load_pairs([question | {"score_0": 1, "score_1": 0}])
    assert pairs[0].prompt_text == "Why?"
    assert LOST not in str(pairs.report())


@pytest.mark.parametrize(
    "columns",
    [
        ("score_chosen", "score_rejected"),
        ("chosen_rating", "rejected_rating"),
        ("chosen-rating", "rejected-rating"),
        ("rating_chosen", "rating_rejected"),
        ("chosen_avg_rating", "rejected_avg_rating"),
        ("better_reward", "worse_reward"),
    ],
)
def test_pairs_whose_own_ratings_contradict_them_are_counted(columns):
    rows = [
        {"prompt": f"p{n}", "chosen": "a", "rejected": "b", columns[0]: one, columns[1]: other}
        for n, (one, other) in enumerate([(8, 3), (3, 8.5), (4, 4), ("2", "5")])
    ]
    report = str(load_pairs(rows).report())
    assert "2 pairs whose own ratings say that the rejected answer is the better one" in report
    assert f"(first: row 2, {columns[0]} 3, {columns[1]} 8.5)" in report
    assert "1 pair whose own ratings are equal (first: row 3" in report


def test_ranks_and_lists_of_ratings_and_words_for_a_tie_are_compared_too():
    assert "say that the rejected answer is the better" in said(chosen_rank=4, rejected_rank=1)
    assert "whose own ratings" not in said(chosen_rank=1, rejected_rank=4)
    assert "whose own ratings" not in said(chosen_toxicity_score=1, rejected_toxicity_score=4)  # less is better
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "generations": ["b", "a"]}
    assert "say that the rejected answer is the better" in str(load_pairs([row | {"rating": [9, 3]}]).report())
    assert "whose own ratings" not in str(load_pairs([row | {"rating": [3, 9]}]).report())
    assert "2 pairs whose own ratings are equal" in said(status="tie")


def test_a_label_that_the_scores_beside_it_contradict_refuses_the_row():
    rows = [
        {"prompt": f"p{n}", "response_a": "x", "response_b": "y", "winner": "a", "score_a": one, "score_b": other}
        for n, (one, other) in enumerate([(9, 1), (1, 9), (2, 2)])
    ]
    pairs = load_pairs(rows)
    assert [pair.prompt_text for pair in pairs] == ["p0", "p2"]
    assert pairs.report().refused == {"labels disagree": 1}
    by_label = {"answer_1": "response_a", "answer_2": "response_b", "label": "winner"}
    assert len(load_pairs(rows, columns=by_label)) == 3


def test_lists_of_texts_that_do_not_fit_are_refused_and_never_trained_as_text():
    def row(prompt, a, b):
        return {"prompt": prompt, "response_a": a, "response_b": b, "winner": "b"}

    good = row('["q"]', '["a"]', '["b"]')
    reasons = {
        "empty": [
            row('["q1"]', "[null]", '["b"]'),
            row('["q1", "q2"]', '["a", null]', '["a", "b"]'),
            row([None], ["a"], ["b"]),
        ],
        "wrong type": [
            row('["q1", "q2"]', '["a"]', '["b"]'),
            row('["q1"]', '["a"]', '["b", "c"]'),
            row('["q1"]', "[3]", '["b"]'),
            row('["q1"]', "a", '["b"]'),
        ],
    }  # fmt: skip
    for reason, rows in reasons.items():
        for bad in rows:
            pairs = load_pairs([good, bad])
            assert [(pair.chosen, pair.rejected) for pair in pairs] == [("b", "a")], bad
            assert pairs.report().refused == {reason: 1}
    with pytest.raises(WorkbenchError, match="2 texts in the prompt's list and 1 in an answer's"):
        load_pairs([reasons["wrong type"][0]])
