"""What a user would lose: a model trained to judge two quoted answers, where it should learn to give one."""

import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.pairs.pairs import load_pairs

GOOD = "Rice needs {} minutes in twice its volume of water, with the lid on."
BAD = "Rice should be fried for {} hours in a dry pan, and then be washed well."


def judged_rows(count=4, announce="###Response {}:\n", asked=()):
    """Rows whose prompt quotes the question and both answers, as a judge is asked; asked: columns of the question."""
    rows = []
    for number in range(count):
        question, good, bad = f"How do I cook rice in {number} steps?", GOOD.format(number), BAD.format(number)
        quoted = "\n\n".join(announce.format(side) + text for side, text in (("A", bad), ("B", good)))
        prompt = f"Evaluate.\n\n###Instruction:\n{question}\n\n{quoted}\n\nWhich is better?"
        rows.append({"prompt": prompt, "chosen": good, "rejected": bad, **dict.fromkeys(asked, question)})
    return rows


def asked_rows(count):
    return [
        {"prompt": f"Steps to cook {n} eggs?", "chosen": GOOD.format(n), "rejected": BAD.format(n)}
        for n in range(100, 100 + count)
    ]


def said(rows, **options):
    with pytest.raises(WorkbenchError) as refused:
        load_pairs(rows, **options)
    return str(refused.value)


@pytest.mark.parametrize("announce", ["###Response {}:\n", "[The Start of Assistant {}'s Answer]\n", "Output ({}): "])
def test_a_file_of_judges_prompts_is_refused_with_the_column_of_the_question(announce):
    rows = judged_rows(announce=announce, asked=["question"])
    message = said(rows)
    assert "quotes both answers whole" in message
    assert "row 1" in message
    assert "columns={'prompt': 'question'}" in message
    pairs = load_pairs(rows, columns={"prompt": "question"})  # the advice
    assert pairs[0].prompt_text == "How do I cook rice in 0 steps?"
    assert pairs[0].chosen == GOOD.format(0)
    assert not any("quote" in note for note in pairs.report().notes)


def test_such_prompts_are_kept_where_the_user_says_so_and_are_counted():
    rows = judged_rows()
    message = said(rows)
    assert "with the column of the question" in message  # none of the columns holds it
    assert "columns={'prompt': 'prompt'}" in message
    kept = load_pairs(rows, columns={"prompt": "prompt"})
    assert len(kept) == 4
    assert any(
        note.startswith("4 prompts quote both answers whole, as a judge's prompt does (first: row 1")
        for note in kept.report().notes
    )
    again = load_pairs(kept.df)  # pairs of a run are read once more when they are scored
    assert again.content_hash == kept.content_hash


def test_answers_with_a_label_are_looked_at_too():
    rows = [
        {"instruction": row["prompt"], "question_asked": row["question"], "response_1": row["rejected"],
         "response_2": row["chosen"], "preference": 2 - number % 2}
        for number, row in enumerate(judged_rows(asked=["question"]))
    ]  # fmt: skip
    assert "columns={'prompt': 'question_asked'}" in said(rows)
    assert load_pairs(rows, columns={"prompt": "question_asked"})[0].chosen == GOOD.format(0)


def test_a_column_that_the_prompt_does_not_quote_is_not_proposed():
    rows = [row | {"context": f"Background {n}"} for n, row in enumerate(judged_rows())]
    assert "'context'" not in said(rows)


@pytest.mark.parametrize(("judged", "asked", "is_refused"), [(4, 2, True), (3, 2, False), (1, 9, False)])
def test_only_a_clear_majority_refuses_the_file_and_fewer_are_counted(judged, asked, is_refused):
    """Two thirds: 4 of 6 are, 3 of 5 are not."""
    rows = judged_rows(judged) + asked_rows(asked)
    if is_refused:
        assert "a judge's prompts" in said(rows)
        return
    notes = " ".join(load_pairs(rows).report().notes)
    assert f"{judged} prompt" in notes
    assert "both answers whole" in notes


def test_questions_with_options_are_no_judges_prompts():
    """Short options are quoted in every row of such data, and are what is asked for."""
    rows = [
        {"prompt": f"Response A: yes\nResponse B: no\nIs {n} even?", "chosen": "yes", "rejected": "no"}
        for n in range(5)
    ]
    assert load_pairs(rows).report().notes == ()


def test_long_options_and_passages_are_counted_but_not_refused():
    """Nothing in them calls what they quote an answer."""
    options = judged_rows(announce="{}) ")
    passages = [
        {**row, "prompt": f"{row['chosen']} Then some say: {row['rejected']} Copy the first sentence."}
        for row in options
    ]
    for rows in (options, passages):
        pairs = load_pairs(rows)
        assert len(pairs) == 4
        assert any("4 prompts quote both answers whole" in note for note in pairs.report().notes)


def test_a_shortened_text_is_no_second_answer():
    text = BAD.format(1)
    rows = [{"prompt": f"Model output:\n{text}\nShorten the response:\n{text}", "chosen": text[:50], "rejected": text}]
    assert load_pairs(rows).report().notes == ()
