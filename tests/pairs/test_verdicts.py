"""What a user would lose: half of the pairs turned the wrong way round, without a word."""

import ast
import re

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
    said = str(load_pairs(rows("label", [1, 1]), columns=mapping).report())
    assert "is the chosen answer because columns says so, whatever label says" in said


def test_a_mapping_beside_a_label_that_changes_and_has_two_readings_is_refused():
    """Whichever of them is right, the mapping turns some of the pairs round."""
    for first, second in (("answer_1", "answer_2"), ("model_1_answer", "model_2_answer"), ("resp1", "resp2")):
        data = rows("winner", [0, 1, 1], first, second)
        for mapping in ({"chosen": first, "rejected": second}, None):
            with pytest.raises(WorkbenchError, match="unclear label 3 ") as error:
                load_pairs(data, columns=mapping)
            advice = [ast.literal_eval(text) for text in re.findall(r"columns=(\{.*?\})", str(error.value))]
            assert [read(data, columns=columns)[0] for columns in advice] == ["FSS", "SFF"]


TURNED = (
    "not_preferred", "less_preferred", "least_preferred", "non_preferred", "not_chosen", "unselected", "dispreferred",
    "worse", "loser", "rejected", "worst_choice", "bad_choice", "inferior_answer", "lost_vote", "weaker_response",
    "rejectedResponse", "losing_model", "disliked", "nonpreferred_response", "worse_label",
    "unfavourable_choice", "unfavored", "bottom_choice", "minority_vote",
)  # fmt: skip


@pytest.mark.parametrize("label", TURNED)
def test_a_label_that_names_the_worse_answer_is_read_turned(label):
    """Read as it stands, it would turn every pair round."""
    data = rows(label, ["a", "B", "response_a", "tie"])
    assert read(data) == ("SFS", {"tie": 1})
    assert f"was read from '{label}', which names the worse one" in str(load_pairs(data).report())
    assert read(rows(label, [1, 2, 2], **ONE_TWO)) == ("SFF", {})
    assert read(rows(label, [0, 1], **ZERO_ONE)) == ("SF", {})
    assert read(rows(label, ["a is better", "b"])) == ("F", {"wrong type": 1})  # the text contradicts the name


@pytest.mark.parametrize("label", ["a_is_not_better", "response_a_not_chosen", "is_a_worse", "a_lost"])
def test_a_column_that_says_no_of_one_side_is_read_turned(label):
    assert read(rows(label, [1, 0, True])) == ("SFS", {})
    assert read(rows(label, ["yes", "no"])) == ("SF", {})


def test_the_better_label_is_read_before_the_worse_one_and_must_agree_with_it():
    data = [row | {"winner": winner} for row, winner in zip(rows("loser", ["b", "b"]), "ab", strict=True)]
    assert read(data) == ("F", {"labels disagree": 1})


@pytest.mark.parametrize(
    "label",
    [
        *("not_worse", "least_bad_choice", "inverted_preference", "flipped_label", "second_best", "preference_inv"),
        *("loses_to", "better_than", "random_choice", "opponent_preferred"),
    ],
)
@pytest.mark.parametrize("values", [["a", "b"], [1, 2]])
def test_a_name_with_two_meanings_is_refused_with_both_readings(label, values):
    data = rows(label, values)
    with pytest.raises(WorkbenchError, match="names the better or the worse answer") as error:
        load_pairs(data)
    assert [read(data, columns=columns)[0] for columns in advised(error)] == ["FS", "SF"]


def advised(error):
    """The mappings that an error gives, for trying them."""
    return [ast.literal_eval(text) for text in re.findall(r"columns=(\{.*?\})", str(error.value))]


@pytest.mark.parametrize("values", [[0, 1], [True, False], [0, 1, 2], [1, 1]])
def test_the_advice_for_unclear_numbers_of_the_worse_answer_is_turned_too(values):
    with pytest.raises(WorkbenchError, match="unclear label") as error:
        load_pairs(rows("rejected", values))
    readings = [read(rows("rejected", values), columns=columns)[0] for columns in advised(error)]
    expected = {(0, 1): ["SF", "FS"], (0, 1, 2): ["SF", "SF"], (1, 1): ["SS", "FF"], (True, False): ["FS", "SF"]}
    assert readings == expected[tuple(values)]


def test_the_role_of_a_label_must_fit_its_name():
    data = rows("not_preferred", ["a", "b"])
    mapping = {"answer_1": "response_a", "answer_2": "response_b"}
    with pytest.raises(WorkbenchError, match="Call it worse_label"):
        load_pairs(data, columns=mapping | {"label": "not_preferred"})
    assert read(data, columns=mapping | {"worse_label": "not_preferred"}) == ("SF", {})


def scored(score, values=((1, 5), (4, 2))):
    return [
        {"prompt": f"p{n}", "response_a": f"F{n}", "response_b": f"S{n}", f"{score}_a": a, f"{score}_b": b}
        for n, (a, b) in enumerate(values)
    ]


@pytest.mark.parametrize(
    "score",
    [
        "penalty_score", "rank_score", "unhelpfulness_score", "badness_rating", "safety_violation_score", "spam_score",
        "refusal_score", "edit_distance_score", "down_votes", "downvotes", "negative_votes", "toxicity_rating",
    ],
)  # fmt: skip
def test_scores_of_which_less_may_be_better_are_refused_with_both_readings(score):
    with pytest.raises(WorkbenchError, match=f"whether more of '{score}_a' and '{score}_b' is better") as error:
        load_pairs(scored(score))
    assert [read(scored(score), columns=columns)[0] for columns in advised(error)] == ["SF", "FS"]


@pytest.mark.parametrize(
    ("score", "chosen", "words"),
    [
        ("score", "SF", "where the higher is the better"),
        ("gpt4_overall_rating", "SF", "where the higher is the better"),
        ("upvotes", "SF", "where the higher is the better"),
        ("rank", "FS", "where the lower is the better"),
    ],
)
def test_scores_and_ranks_are_read_and_their_direction_is_said(score, chosen, words):
    assert read(scored(score))[0] == chosen
    assert f"was read from '{score}_a and {score}_b', {words}" in str(load_pairs(scored(score)).report())


@pytest.mark.parametrize(
    ("mark", "chosen"), [("chosen", "FS"), ("is_better", "FS"), ("rejected", "SF"), ("worse", "SF")]
)
def test_a_mark_for_each_side_is_read_by_its_name(mark, chosen):
    assert read(scored(mark, [(1, 0), (0, 1), (1, 1)])) == (chosen, {"tie": 1})
    assert read(scored(mark, [("yes", "no"), (False, True)]))[0] == chosen
    with pytest.raises(WorkbenchError, match="expected 0 or 1 for each answer"):
        load_pairs(scored(mark, [(1, 2)]))


@pytest.mark.parametrize(
    "tie", ["both_bad", "both_good", "tie_both_bad", "Neutral", "similar", "equally good", "Tie (Both Bad)"]
)
def test_every_word_for_a_tie_is_a_tie(tie):
    assert read(rows("winner", ["a", tie])) == ("F", {"tie": 1})


def test_a_report_says_of_no_label_that_it_was_read_where_it_was_not():
    """And no refusal tells a user to write 1 or 2 where a name would do."""
    with pytest.raises(WorkbenchError) as error:
        load_pairs(rows("preference", [0, 1]))
    assert "was read from" not in str(error.value)
    with pytest.raises(WorkbenchError) as error:
        load_pairs(rows("winner", ["Alice", "Bob"]))
    assert "expected the name of an answer ('response_a' or 'response_b', 'a'), 1 or 2, or a tie" in str(error.value)
    assert "was read from" not in str(error.value)


def test_the_report_names_the_columns_of_the_file():
    data = [{"frage": f"p{n}", "x": f"F{n}", "y": f"S{n}", "besser": value} for n, value in enumerate([1, 2])]
    mapping = {"prompt": "frage", "answer_1": "x", "answer_2": "y", "label": "besser"}
    said = str(load_pairs(data, columns=mapping).report())
    assert "Which of 'x' and 'y' is better was read from 'besser'" in said
    data[1]["besser"] = "z"
    assert "besser is 'z', expected the name of an answer ('x' or 'y')" in str(
        load_pairs(data, columns=mapping).report()
    )


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
