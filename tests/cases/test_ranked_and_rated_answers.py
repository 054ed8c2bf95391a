"""Lists, ranks and ratings in place of one pair.

What a user would lose: half of the pairs the wrong way round, or an hour with advice that cannot read the data.
"""

import facts
import pytest
from facts import FACTS, PAIRS, assistant, user

import simpo_workbench as wb

POOREST = "No."
#: The best with the poorest of three answers.
WITH_THE_POOREST = [(question, good, POOREST) for question, good, _ in FACTS]


def test_lists_of_one_text_are_that_text(tmp_path):
    path = facts.jsonl(
        tmp_path / "a.jsonl", lambda q, good, poor: {"question": q, "chosen": [good], "rejected": [poor]}
    )
    texts, report, _ = facts.read(path)
    assert texts == PAIRS
    assert report.notes == ()


def test_several_rejected_answers(tmp_path):
    path = facts.jsonl(
        tmp_path / "a.jsonl", lambda q, good, poor: {"prompt": q, "chosen": [good], "rejected": [poor, POOREST]}
    )
    texts, report, _ = facts.read(path)
    assert texts == PAIRS
    assert "4 rows with more than two answers: data.pairs_from_ranking is best_worst" in report.notes
    texts, _, _ = facts.read(path, pairs_from_ranking="all")
    assert set(texts) == {*PAIRS, *WITH_THE_POOREST}


def test_three_outputs_without_grades_are_refused_with_what_to_add(tmp_path):
    path = facts.jsonl(
        tmp_path / "a.jsonl", lambda q, good, poor: {"instruction": q, "input": "", "output": [good, poor, POOREST]}
    )
    with pytest.raises(wb.WorkbenchError) as caught:
        wb.load_pairs(path)
    assert "output is a list of 3" in str(caught.value)
    assert "a column `ranks` or `ratings` with one number for each" in str(caught.value)
    # the advice works
    path = facts.jsonl(
        tmp_path / "b.jsonl",
        lambda q, good, poor: {"instruction": q, "input": "", "output": [poor, good, POOREST], "ranks": [2, 1, 3]},
    )
    assert facts.read(path)[0] == WITH_THE_POOREST


def test_the_order_of_two_outputs_does_not_win_over_their_ranks(tmp_path):
    path = facts.jsonl(
        tmp_path / "a.jsonl", lambda q, good, poor: {"instruction": q, "output": [poor, good], "ratings": [1, 5]}
    )
    assert facts.read(path)[0] == PAIRS


def test_outputs_with_ranks_inside(tmp_path):
    def row(question, good, poor):
        output = [{"text": poor, "rank": 4}, {"text": good, "rank": 1}]
        return {"instruction": question, "input": "", "output": output}

    texts, report, pairs = facts.read(facts.jsonl(tmp_path / "a.jsonl", row))
    assert texts == PAIRS
    assert any("read from 'rank', where the lowest is the best" in note for note in report.notes)
    assert {pair.extra["rank_margin"] for pair in pairs} == {3.0}


def test_completions_ranked_from_0(tmp_path):
    def row(question, good, poor):
        completions = [{"rank": 1, "completion": [assistant(poor)]}, {"rank": 0, "completion": [assistant(good)]}]
        return {"context": [user(question)], "completions": completions, "task_name": "facts"}

    texts, report, _ = facts.read(facts.jsonl(tmp_path / "a.jsonl", row))
    assert texts == PAIRS
    # "rank 1 is the best" would be false here
    assert any("read from 'rank', where the lowest is the best" in note for note in report.notes)


def test_generations_and_ratings(tmp_path):
    def row(question, good, poor):
        return {"instruction": question, "generations": [poor, good], "ratings": [1, 5], "model_name": "x"}

    texts, report, pairs = facts.read(facts.jsonl(tmp_path / "a.jsonl", row))
    assert texts == PAIRS
    assert any("read from 'ratings', where the highest is the best" in note for note in report.notes)
    assert pairs[0].extra["rating_margin"] == 4.0


def test_a_transcript_as_prompt_and_ranked_answers(tmp_path):
    def row(question, good, poor):
        answers = [
            {"answer": text, "model": "x", "rank": rank} for text, rank in ((poor, 2.0), (POOREST, 3.0), (good, 1.0))
        ]
        return {"prompt": f"\n\nHuman: {question}\n\nAssistant: ", "answers": answers, "turns": 1}

    path = facts.jsonl(tmp_path / "a.jsonl", row)
    texts, report, _ = facts.read(path)
    assert texts == WITH_THE_POOREST
    assert "4 rows with more than two answers: data.pairs_from_ranking is best_worst" in report.notes
    texts, _, _ = facts.read(path, pairs_from_ranking="adjacent")
    assert texts == [pair for q, good, poor in FACTS for pair in ((q, good, poor), (q, poor, POOREST))]


@pytest.mark.parametrize("preference", [-3, -1, 1, 2])
def test_a_preference_below_0_is_for_the_first_answer_and_above_it_for_the_second(tmp_path, preference):
    def row(question, good, poor):
        first, second = (good, poor) if preference < 0 else (poor, good)
        return {
            "domain": "general",
            "context": [user(question)],
            "response1": first,
            "response2": second,
            "overall_preference": preference,
        }

    texts, report, pairs = facts.read(facts.jsonl(tmp_path / "a.jsonl", row))
    assert texts == PAIRS
    assert pairs[0].extra["rating_margin"] == abs(preference)
    assert "Which of 'response1' and 'response2' is better was read from 'overall_preference'" in report.notes


def test_the_mapping_that_turns_such_pairs_round_is_refused_row_by_row(tmp_path):
    def row(question, good, poor):
        return {"context": [user(question)], "response1": poor, "response2": good, "overall_preference": 2}

    path = facts.jsonl(tmp_path / "a.jsonl", row)
    mapping = {"prompt": "context", "chosen": "response1", "rejected": "response2"}
    with pytest.raises(wb.WorkbenchError, match="label disagrees 4"):
        wb.load_pairs(path, columns=mapping)


def test_completions_with_an_overall_score(tmp_path):
    def row(question, good, poor):
        completions = [
            {"model": "x", "response": poor, "overall_score": 3.5},
            {"model": "y", "response": good, "overall_score": 8.0},
        ]
        return {"source": "facts", "instruction": question, "models": ["x", "y"], "completions": completions}

    texts, report, pairs = facts.read(facts.jsonl(tmp_path / "a.jsonl", row))
    assert texts == PAIRS
    assert any("read from 'overall_score', where the highest is the best" in note for note in report.notes)
    assert (pairs[0].extra["chosen_rating"], pairs[0].extra["rejected_rating"]) == (8.0, 3.5)


@pytest.mark.parametrize("better", [0, 1])
def test_the_number_of_the_better_response_counts_from_0_where_the_columns_do(tmp_path, better):
    def row(question, good, poor):
        answers = (good, poor)[:: 1 - 2 * better]
        return {
            "prompt": question,
            "response_0": answers[0],
            "response_1": answers[1],
            "better_response_id": better,
            "safer_response_id": 1 - better,
        }

    texts, report, pairs = facts.read(facts.jsonl(tmp_path / "a.jsonl", row))
    assert texts == PAIRS
    assert any("is better was read from 'better_response_id'" in note for note in report.notes)
    assert {pair.extra["safer_response_id"] for pair in pairs} == {1 - better}
