"""What a user would lose: half of the pairs turned the wrong way round, without a word."""

import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.pairs.pairs import load_pairs
from simpo_workbench.pairs.verdicts import sides_of


def rows(label, values, first="response_a", second="response_b", **more):
    """One row per label; the first answer is "F<n>", the second "S<n>"."""
    return [
        {"prompt": f"p{n}", first: f"F{n}", second: f"S{n}", label: value, **more} for n, value in enumerate(values)
    ]


def read(data, **options):
    """For every row the side that was chosen: "F", "S", or the reason of its refusal's first letter group."""
    pairs = load_pairs(data, **options)
    assert all(pair.chosen[1:] == pair.rejected[1:] for pair in pairs)
    return "".join(pair.chosen[0] for pair in pairs), pairs.report().refused


ONE_TWO = {"first": "output_1", "second": "output_2"}
ZERO_ONE = {"first": "response_0", "second": "response_1"}
READ = {
    "1 and 2": ("label", [1, 2, 2], {}, "FSS", {}),
    "1 and 2 as text": ("label", ["1", "2", "1.0"], {}, "FSF", {}),
    "1 beside numbered columns": ("label", [1, 1], ONE_TWO, "FF", {}),
    "letters": ("winner", ["a", "B", "A"], {}, "FSF", {}),
    "models": ("winner", ["model_a", "model_b", "tie", "tie (bothbad)"], {}, "FS", {"tie": 2}),
    "column names": ("preferred", ["response_a", "response_b"], {}, "FS", {}),
    "judge's brackets": ("verdict", ["[[A]]", "[[B]]", "[[C]]"], {}, "FS", {"tie": 1}),
    "comparisons": ("judgment", ["A>B", "B >> A", "A=B", "A<B"], {}, "FSS", {"tie": 1}),
    "words": ("choice", ["first", "second is better", "Draw", "neither"], {}, "FS", {"tie": 2}),
    "floats": ("preference", [1.0, 1.2, 1.5, 1.9], {}, "FFS", {"tie": 1}),
    "numbers name columns": ("label", [0, 1, 0.5], ZERO_ONE, "FS", {"tie": 1}),
    "counted from 0": ("better_index", [0, 1], {}, "FS", {}),
    "a column that names a side": ("a_is_better", [1, 0, True], {}, "FSF", {}),
    "the other side": ("is_response_b_better", [1, 0], {}, "SF", {}),
    "votes": ("votes", [["a", "a", "b"], ["b", "tie", "b"], ["a", "b"]], {}, "FS", {"tie": 1}),
    "votes by person": ("annotations", [{"x": 1, "y": 2, "z": 2}, {"x": 1, "y": 1, "z": 2}], {}, "SF", {}),
    "HelpSteer3": (
        "overall_preference",
        [-2, 3, 0],
        {"first": "response1", "second": "response2"},
        "FS",
        {"tie": 1},
    ),
    "SHP": ("labels", [1, 0], {"first": "human_ref_A", "second": "human_ref_B"}, "FS", {}),
}


@pytest.mark.parametrize(("label", "values", "names", "chosen", "refused"), READ.values(), ids=READ)
def test_a_label_chooses_the_side_that_it_names(label, values, names, chosen, refused):
    assert read(rows(label, values, **names)) == (chosen, refused)


UNCLEAR = {
    "0 and 1": ([0, 1, 1], {}),
    "true and false": ([True, False], {}),
    "0 and 1 beside columns 1 and 2": ([0, 1], ONE_TWO),
    "0, 1 and 2": ([0, 1, 2], {}),
    "always 1": ([1, 1], {}),
    "1 and 2 beside columns 0 and 1": ([1, 2], ZERO_ONE),
    "signed": ([-1, 1], {}),
    "shares": ([0.2, 0.9], {}),
}


@pytest.mark.parametrize(("values", "names"), UNCLEAR.values(), ids=UNCLEAR)
def test_a_label_with_two_meanings_is_refused_in_every_row(values, names):
    with pytest.raises(WorkbenchError, match=f"unclear label {len(values)} "):
        load_pairs(rows("label", values, **names))


@pytest.mark.parametrize(
    ("values", "expected"), [([0, 1], ("FS", "SF")), ([0, 1, 2], ("FS", "FS")), ([1, 1], ("FF", "SS"))]
)
def test_both_readings_that_the_refusal_names_can_be_chosen(values, expected):
    """Advice that was not tried would be a guess once more."""
    import ast
    import re

    data = rows("label", values)
    with pytest.raises(WorkbenchError) as error:
        load_pairs(data)
    mappings = [ast.literal_eval(text) for text in re.findall(r"columns=(\{.*?\})", str(error.value))]
    assert [read(data, columns=mapping)[0] for mapping in mappings] == list(expected)


def test_one_column_per_side_and_scores_per_side():
    onehot = [
        {"prompt": f"p{n}", "response_a": f"F{n}", "response_b": f"S{n}", "winner_model_a": a, "winner_model_b": b}
        | {"winner_tie": int(a == b)}
        for n, (a, b) in enumerate([(1, 0), (0, 1), (0, 0)])
    ]
    assert read(onehot) == ("FS", {"tie": 1})
    scores = [
        {"question": f"p{n}", "answer_0": f"F{n}", "answer_1": f"S{n}", "score_0": a, "score_1": b}
        for n, (a, b) in enumerate([(0.5, -0.5), (1, 4), (2, 2)])
    ]
    assert read(scores) == ("FS", {"tie": 1})
    assert load_pairs(scores)[1].extra["rating_margin"] == 3


def test_columns_of_annotators_are_counted():
    data = [
        {"prompt": f"p{n}", "response_a": f"F{n}", "response_b": f"S{n}"}
        | {f"annotator_{k}": vote for k, vote in enumerate(votes, 1)}
        for n, votes in enumerate(["aab", "bba", "bab"])
    ]
    assert read(data) == ("FSS", {})


def test_the_names_of_models_are_read():
    data = rows("winner", ["llama", "qwen"], model_a="llama", model_b="qwen")
    assert read(data) == ("FS", {})


def test_two_answers_without_a_label_get_no_mapping():
    with pytest.raises(WorkbenchError) as error:
        load_pairs([{"prompt": "p", "response_a": "F", "response_b": "S"}])
    assert "no column that says which one is better" in str(error.value)
    assert "Try columns" not in str(error.value)


def test_a_mapping_that_the_label_contradicts_is_refused_row_by_row():
    data = rows("winner", ["a", "b", "tie"])
    mapping = {"chosen": "response_a", "rejected": "response_b"}
    assert read(data, columns=mapping) == ("F", {"label disagrees": 1, "tie": 1})
    said = str(load_pairs(rows("label", [0, 1]), columns=mapping).report())
    assert "is the chosen answer because columns says so, whatever label says" in said


def test_three_answers_or_scores_alone_are_not_two_answers():
    assert sides_of(("prompt", "response_1", "response_2", "response_3")) is None
    assert sides_of(("prompt", "score_a", "score_b")) is None
    assert sides_of(("prompt", "model_a", "model_b", "winner")) is None
    assert sides_of(("prompt", "responseA", "responseB", "winner")).first == "responseA"


def test_instruction_and_input_stay_together_beside_two_outputs():
    row = {"instruction": "Shorten:", "input": "a b", "output_1": "a", "output_2": "b", "preference": 2}
    pair = load_pairs([row])[0]
    assert (pair.prompt_text, pair.chosen) == ("Shorten:\na b", "b")


@pytest.mark.parametrize(
    "columns",
    [
        {"annotator_id": [1, 2]},
        {"num_votes": [1, 2]},
        {"choice_id": [1, 2]},
        {"annotator": ["a", "b"]},
        {"preference_strength": [1, 2]},
        {"label_confidence": [1, 2]},
        {"toxicity_score_a": [0.9, 0.1], "toxicity_score_b": [0.1, 0.9]},
        {"length_score_a": [1, 2], "length_score_b": [2, 1]},
    ],
    ids=lambda columns: next(iter(columns)),
)
def test_columns_about_a_judgement_and_measures_without_merit_are_no_labels(columns):
    """Half of the pairs would be turned round."""
    rows = [
        {"prompt": f"p{n}", "response_a": f"F{n}", "response_b": f"S{n}"}
        | {name: column[n] for name, column in columns.items()}
        for n in range(2)
    ]
    with pytest.raises(WorkbenchError):
        load_pairs(rows)
    with_winner = load_pairs([row | {"winner": "b"} for row in rows])
    assert [pair.chosen for pair in with_winner] == ["S0", "S1"]


def test_two_labels_that_disagree_refuse_the_row():
    rows = [
        {"prompt": f"p{n}", "response_a": f"F{n}", "response_b": f"S{n}", "winner": "a", "preferred": preferred}
        for n, preferred in enumerate(["a", "b", "tie"])
    ]
    pairs = load_pairs(rows)
    assert [pair.prompt_text for pair in pairs] == ["p0", "p2"]
    assert dict(pairs.report().refused) == {"labels disagree": 1}
