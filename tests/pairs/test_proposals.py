"""What a user would lose: an afternoon on the right mapping, or half of the pairs turned round by the wrong one."""

import pytest

from simpo_workbench.pairs.advice import tried
from simpo_workbench.pairs.pairs import load_pairs
from simpo_workbench.pairs.proposals import propose

QUESTIONS = [f"What is {n} plus {n}?" for n in range(12)]
LONG, SHORT = [f"It is {2 * n}, surely." for n in range(12)], [f"I do not know, maybe {n}." for n in range(12)]


def rows(**columns):
    """Twelve rows; shorter columns are repeated."""
    return [{name: values[n % len(values)] for name, values in columns.items()} for n in range(12)]


def two(label, values, first="model_1_answer", second="model_2_answer"):
    return rows(**{"question": QUESTIONS, first: LONG, second: SHORT, label: values})


LISTS = [[good, bad, "Three."] for good, bad in zip(LONG, SHORT, strict=True)]

WHOLE = {
    "numbers from 1": (two("winner", ["1", "2"]), ["L", "S"]),
    "short names": (two("winner", ["a", "b", "b"], "a", "b"), ["L", "S", "S"]),
    "names of columns": (two("winner", ["modelB", "modelA"], "modelA", "modelB"), ["S", "L"]),
    "the worse answer": (two("worse_one", ["a", "b"], "answer_a", "answer_b"), ["S", "L"]),
    "yes for one side": (two("a_is_better", [0, 1], "answer_a", "answer_b"), ["S", "L"]),
    "good and bad by name": (
        rows(question=QUESTIONS, good_answer=LONG, bad_answer=SHORT, topic=["t", "u"]),
        ["L", "L"],
    ),
    "two scores": (
        rows(frage=QUESTIONS, response_a=LONG, response_b=SHORT, score_a=[1, 2], score_b=[3, 0]),
        ["S", "L"],
    ),
    "ranks": (rows(frage=QUESTIONS, antworten=LISTS, ranking=[[1, 2, 3], [2, 1, 3]]), ["L", "S"]),
    "ratings": (rows(frage=QUESTIONS, antworten=LISTS, ratings=[[5, 2, 3], [2, 9, 3]]), ["L", "S"]),
    "ranks as text": (rows(frage=QUESTIONS, antworten=list(map(str, LISTS)), ranks=["[1, 2, 3]", "[2, 1, 3]"]), "LS"),
}


@pytest.mark.parametrize(("data", "sides"), WHOLE.values(), ids=WHOLE)
def test_what_the_rows_say_is_proposed_whole_and_reads_them_right(data, sides):
    proposal = propose(data)
    assert proposal.question == ""
    pairs = load_pairs(data, columns=proposal.columns)
    expected = [{"L": LONG, "S": SHORT}[sides[n % len(sides)]][n] for n in range(12)]
    assert [pair.chosen for pair in pairs] == expected
    assert [pair.prompt_text for pair in pairs] == QUESTIONS


OPEN = {
    "0 and 1": (two("winner", [0, 1]), "winner holds 0 and 1: which of them means model_1_answer?"),
    "0 and 1 as text": (two("winner", ["1", "0"]), "winner holds '0' and '1'"),
    "a 1 in all rows": (two("winner", [1], "answer_a", "answer_b"), "winner holds 1"),
    "a name that says nothing": (two("spalte", [1, 2]), "Does spalte name the better or the worse answer?"),
    "a name with two meanings": (
        two("flipped_label", ["a", "b"], "answer_a", "answer_b"),
        "Does flipped_label name the better or the worse answer?",
    ),
    "names of nobody": (two("winner", ["Alice", "Bob"]), "winner cannot be read as it is"),
    "no label": (rows(question=QUESTIONS, answer_1=LONG, answer_2=SHORT), "Which column says which answer is better?"),
    "scores of which less may be better": (
        rows(question=QUESTIONS, answer_1=LONG, answer_2=SHORT, penalty_score_1=[1, 2], penalty_score_2=[2, 1]),
        "Is more or less of penalty_score_1 and penalty_score_2 better?",
    ),
    "numbers of a list": (
        rows(frage=QUESTIONS, antworten=LISTS, noten=[[1, 2, 3]]),
        "Is more or less of noten better?",
    ),
    "a list without numbers": (rows(frage=QUESTIONS, antworten=LISTS), "Which column has a number for each answer?"),
}


@pytest.mark.parametrize(("data", "question"), OPEN.values(), ids=OPEN)
def test_what_nothing_says_is_asked_instead_of_guessed(data, question):
    assert propose(data).question.startswith(question)


def test_one_answer_and_a_verdict_is_proposed_although_partners_may_stand_further_down():
    single = [{"frage": q, "antwort": text, "daumen": "up"} for q, text in zip(QUESTIONS, LONG, strict=True)]
    assert propose(single).columns == {"prompt": "frage", "answer": "antwort", "label": "daumen"}
    both = single + [{"frage": q, "antwort": text, "daumen": "down"} for q, text in zip(QUESTIONS, SHORT, strict=True)]
    assert [pair.chosen for pair in load_pairs(both, columns=propose(both).columns)] == LONG
    unsaid = [row | {"daumen": n % 2} for n, row in enumerate(both)]
    assert propose(unsaid).question == "daumen holds 0 and 1: which of them is a good answer?"


def test_two_texts_of_which_nothing_says_more_are_left_to_the_user():
    assert propose(rows(frage=QUESTIONS, links=LONG, rechts=SHORT)) is None
    assert propose(rows(text=LONG)) is None
    assert propose([]) is None


def test_trying_a_mapping_gives_pairs_and_the_reasons_of_a_refusal():
    data = two("winner", [1, 2, "tie"])
    mapping = {"answer_1": "model_1_answer", "answer_2": "model_2_answer", "label": "winner"}
    pairs, report = tried(data, mapping)
    assert (len(pairs), report.refused) == (8, {"tie": 4})
    assert str(report).startswith("the first 12 rows: 12 rows read, 8 kept")
