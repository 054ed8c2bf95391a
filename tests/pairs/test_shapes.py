"""What one raw row means: a wrong reading here trains on the wrong text without any sign of it."""

import json

import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.pairs.pairs import load_pairs
from simpo_workbench.pairs.reading import read_row
from simpo_workbench.pairs.refused import RowRefused
from simpo_workbench.pairs.shapes import shape_of


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


ONE_TURN = {
    "texts": {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green."},
    "prompt as messages": {"prompt": [user("Sky?")], "chosen": [assistant("Blue.")], "rejected": [assistant("Green.")]},
    "answers as single messages": {
        "prompt": [user("Sky?")],
        "chosen": assistant("Blue."),
        "rejected": assistant("Green."),
    },
    "implicit prompt": {"chosen": [user("Sky?"), assistant("Blue.")], "rejected": [user("Sky?"), assistant("Green.")]},
    "UltraFeedback": {
        "prompt": "Sky?",
        "chosen": [user("Sky?"), assistant("Blue.")],
        "rejected": [user("Sky?"), assistant("Green.")],
    },
    "HH": {"chosen": "\n\nHuman: Sky?\n\nAssistant: Blue.", "rejected": "\n\nHuman: Sky?\n\nAssistant: Green."},
    "HH with the prompt cut off": {
        "prompt": "\n\nHuman: Sky?\n\nAssistant:",
        "chosen": " Blue.",
        "rejected": " Green.",
    },
    "Alpaca": {"instruction": "Sky?", "input": "", "chosen": "Blue.", "rejected": "Green."},
    "Alpaca with two outputs": {"instruction": "Sky?", "output": ["Blue.", "Green."]},
    "ShareGPT": {
        "conversations": [{"from": "human", "value": "Sky?"}],
        "chosen": {"from": "gpt", "value": "Blue."},
        "rejected": {"from": "gpt", "value": "Green."},
    },
    "ShareGPT, answers as text": {
        "conversations": [{"from": "human", "value": "Sky?"}],
        "chosen": "Blue.",
        "rejected": "Green.",
    },
    "ShareGPT, answers as lists": {
        "conversations": [{"from": "human", "value": "Sky?"}],
        "chosen": [{"from": "gpt", "value": "Blue."}],
        "rejected": [assistant("Green.")],
    },
    "LLaMA-Factory v1": {
        f"{side}_messages": [
            {"role": "user", "content": [{"type": "text", "value": "Sky?"}], "loss_weight": 0.0},
            {"role": "assistant", "content": [{"type": "text", "value": answer}], "loss_weight": 1.0},
        ]
        for side, answer in (("chosen", "Blue."), ("rejected", "Green."))
    },
    "content in text parts": {
        "prompt": [{"role": "user", "content": [{"type": "text", "text": "Sk"}, {"type": "text", "text": "y?"}]}],
        "chosen": "Blue.",
        "rejected": "Green.",
    },
    "turbo-alignment": {
        "context": [{"role": "user", "content": "Sky?"}],
        "answer_w": {"role": "bot", "content": "Blue."},
        "answer_l": {"role": "bot", "content": "Green."},
    },
    "torchtune": {"question": "Sky?", "response_j": "Blue.", "response_k": "Green."},
    "LLMBar, first better": {"input": "Sky?", "output_1": "Blue.", "output_2": "Green.", "label": 1},
    "LLMBar, second better": {"input": "Sky?", "output_1": "Green.", "output_2": "Blue.", "label": 2},
    "LLMBar out of a CSV": {"input": "Sky?", "output_1": "Green.", "output_2": "Blue.", "label": "2"},
}


@pytest.mark.parametrize("row", ONE_TURN.values(), ids=ONE_TURN)
def test_every_shape_of_one_pair_is_read_as_that_pair(row):
    pair = read_row(row)
    assert (pair.prompt, pair.chosen, pair.rejected) == ([user("Sky?")], "Blue.", "Green.")
    assert pair.used == row.keys()


HISTORY = [user("Sky?"), assistant("Blue."), user("At night?")]
MANY_TURNS = {
    "explicit": {"prompt": HISTORY, "chosen": "Black.", "rejected": "Pink."},
    "implicit": {"chosen": [*HISTORY, assistant("Black.")], "rejected": [*HISTORY, assistant("Pink.")]},
    "both": {"prompt": HISTORY, "chosen": [*HISTORY, assistant("Black.")], "rejected": [*HISTORY, assistant("Pink.")]},
    "last user turn as prompt": {
        "prompt": "At night?",
        "chosen": [*HISTORY, assistant("Black.")],
        "rejected": [*HISTORY, assistant("Pink.")],
    },
    "first user turn as prompt": {
        "prompt": "Sky?",
        "chosen": [*HISTORY, assistant("Black.")],
        "rejected": [*HISTORY, assistant("Pink.")],
    },
    "answers go on after the prompt": {
        "prompt": "Sky?",
        "chosen": [*HISTORY[1:], assistant("Black.")],
        "rejected": [*HISTORY[1:], assistant("Pink.")],
    },
    "HH": {
        "chosen": "\n\nHuman: Sky?\n\nAssistant: Blue.\n\nHuman: At night?\n\nAssistant: Black.",
        "rejected": "\n\nHuman: Sky?\n\nAssistant: Blue.\n\nHuman: At night?\n\nAssistant: Pink.",
    },
    "Alpaca history": {
        "instruction": "At night?",
        "history": [["Sky?", "Blue."]],
        "chosen": "Black.",
        "rejected": "Pink.",
    },
}


@pytest.mark.parametrize("row", MANY_TURNS.values(), ids=MANY_TURNS)
def test_only_the_final_assistant_turn_is_the_answer(row):
    pair = read_row(row)
    assert (pair.prompt, pair.chosen, pair.rejected) == (HISTORY, "Black.", "Pink.")


def test_white_space_inside_contents_stays():
    pair = read_row(
        {
            "chosen": "\n\nHuman:  two spaces \n\nAssistant:  so\n\n far\n",
            "rejected": "\n\nHuman:  two spaces \n\nAssistant:no",
        }
    )
    assert pair.prompt == [user(" two spaces ")]
    assert (pair.chosen, pair.rejected) == (" so\n\n far\n", "no")
    pair = read_row({"prompt": " p\n", "chosen": " c\n", "rejected": "\tr "})
    assert (pair.prompt, pair.chosen, pair.rejected) == ([user(" p\n")], " c\n", "\tr ")


def test_alpaca_input_stands_on_a_line_of_its_own():
    assert read_row({"instruction": "Shorten:", "input": "a b", "chosen": "a", "rejected": "b"}).prompt == [
        user("Shorten:\na b")
    ]


def test_a_system_column_becomes_the_first_turn():
    row = {"question": "Sky?", "response_j": "Blue.", "response_k": "Green.", "system": "Be short."}
    assert read_row(row).prompt == [system("Be short."), user("Sky?")]
    said_twice = {
        "prompt": [system("Be short."), user("Sky?")],
        "chosen": "Blue.",
        "rejected": "Green.",
        "system": "Be short.",
    }
    assert read_row(said_twice).prompt == [system("Be short."), user("Sky?")]
    assert read_row({**ONE_TURN["texts"], "system": ""}).prompt == [user("Sky?")]


@pytest.mark.parametrize("name", ["user", "human", "Human", "prompter"])
def test_role_names_of_other_tools_mean_the_user(name):
    assert read_row({"prompt": [{"role": name, "content": "Sky?"}], "chosen": "a", "rejected": "b"}).prompt == [
        user("Sky?")
    ]


REFUSED = {
    "missing prompt": ({"prompt": None, "chosen": "a", "rejected": "b"}, "missing", "no prompt"),
    "missing answer": ({"prompt": "p", "chosen": "a", "rejected": None}, "missing", "no rejected"),
    "missing column": ({"prompt": "p", "chosen": "a"}, "missing", "no 'rejected'"),
    "NaN answer": ({"prompt": "p", "chosen": float("nan"), "rejected": "b"}, "missing", "no chosen"),
    "answers without a prompt": ({"chosen": [assistant("a")], "rejected": [assistant("b")]}, "missing", "no prompt"),
    "ends with the user": (
        {"chosen": [user("p")], "rejected": [user("p"), assistant("b")]},
        "missing",
        "ends with a user turn",
    ),
    "no user turn": ({"prompt": [system("s")], "chosen": "a", "rejected": "b"}, "missing", "no user turn"),
    "turn without content": ({"prompt": [{"role": "user"}], "chosen": "a", "rejected": "b"}, "missing", "no content"),
    "empty prompt": ({"prompt": " ", "chosen": "a", "rejected": "b"}, "empty", "prompt"),
    "no turns": ({"prompt": [], "chosen": "a", "rejected": "b"}, "empty", "prompt"),
    "white space": ({"prompt": "p", "chosen": " \n\t", "rejected": "b"}, "empty", r"' \n\t'"),
    "empty list": ({"prompt": "p", "chosen": [], "rejected": "b"}, "empty", "chosen"),
    "identical": ({"prompt": "p", "chosen": "a", "rejected": "a"}, "identical", "'a'"),
    "number": ({"prompt": 42, "chosen": "a", "rejected": "b"}, "wrong type", "a number"),
    "number as answer": ({"prompt": "p", "chosen": 1, "rejected": 2}, "wrong type", "a number"),
    "turns of text": ({"prompt": ["p"], "chosen": "a", "rejected": "b"}, "wrong type", "'p'"),
    "three outputs": ({"instruction": "p", "output": ["a", "b", "c"]}, "wrong type", "3"),
    "label 0": ({"input": "p", "output_1": "a", "output_2": "b", "label": 0}, "wrong type", "1 or 2"),
    "label true": ({"input": "p", "output_1": "a", "output_2": "b", "label": True}, "wrong type", "1 or 2"),
    "unknown role": (
        {"prompt": [user("p"), {"role": "narrator", "content": "x"}], "chosen": "a", "rejected": "b"},
        "unknown role",
        "'narrator'",
    ),
    "histories": (
        {
            "chosen": [user("p"), assistant("x"), user("q"), assistant("a")],
            "rejected": [user("p"), assistant("y"), user("q"), assistant("b")],
        },
        "different histories",
        "turn 2 is 'x' here and 'y' there",
    ),
    "HH histories": (
        {"chosen": "\n\nHuman: p\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        "different histories",
        "'p' here and 'q' there",
    ),
    "prompt and history": (
        {"prompt": [user("other")], "chosen": [user("p"), assistant("a")], "rejected": [user("p"), assistant("b")]},
        "different histories",
        "'other'",
    ),
    "one side goes on": (
        {"prompt": "p", "chosen": [assistant("x"), user("q"), assistant("a")], "rejected": "b"},
        "different histories",
        "turn 1",
    ),
    "two answers": (
        {"prompt": "p", "chosen": [assistant("a"), assistant("b")], "rejected": "c"},
        "more than one answer turn",
        "chosen",
    ),
    "prompt ends in an answer": (
        {"prompt": [user("p"), assistant("x")], "chosen": "a", "rejected": "b"},
        "more than one answer turn",
        "prompt",
    ),
    "image part": (
        {
            "prompt": [{"role": "user", "content": [{"type": "image_url", "value": "x.png"}]}],
            "chosen": "a",
            "rejected": "b",
        },
        "image or other non-text part",
        "image_url",
    ),
    "image column": ({**ONE_TURN["texts"], "images": ["1.jpg"]}, "image or other non-text part", "1.jpg"),
    "tool calls that are none": (
        {"prompt": "p", "chosen": {"role": "assistant", "content": "", "tool_calls": "search"}, "rejected": "b"},
        "wrong type",
        "tool_calls",
    ),
    "half a character": ({"prompt": "p", "chosen": "a\ud800", "rejected": "b"}, "unreadable", "surrogate"),
    "two system texts": (
        {"prompt": [system("Be long."), user("p")], "system": "Be short.", "chosen": "a", "rejected": "b"},
        "two system texts",
        "Be short.",
    ),
    "supervised": ({"instruction": "p", "output": "a"}, "no known shape", "not a list of two"),
    "unpaired": ({"messages": [user("p"), assistant("a")], "label": True}, "one answer and a label", "a row alone"),
}


@pytest.mark.parametrize(("row", "reason", "seen"), REFUSED.values(), ids=REFUSED)
def test_a_row_that_is_no_pair_is_refused_with_its_reason(row, reason, seen):
    with pytest.raises(RowRefused) as refused:
        read_row(row)
    assert refused.value.reason == reason
    assert seen in refused.value.seen


def test_plain_texts_without_a_prompt_are_no_shape():
    assert shape_of({"chosen": "Blue.", "rejected": "Green."}) is None
    with pytest.raises(RowRefused, match="neither conversations nor"):
        read_row({"chosen": "Blue.", "rejected": "Green."})


def test_reasoning_and_calls_under_their_older_names_are_kept():
    call = {"role": "assistant", "content": None, "function_call": {"name": "find", "arguments": "{}"}}
    row = {"prompt": "Where?", "chosen": [call], "rejected": [{"role": "assistant", "content": "x", "reasoning": "hm"}]}
    (pair,) = load_pairs([row])
    assert pair.chosen_turn["tool_calls"] == [{"type": "function", "function": {"name": "find", "arguments": "{}"}}]
    assert pair.rejected_turn["reasoning"] == "hm"


@pytest.mark.parametrize("missing", [float("nan"), None, ""])
def test_an_input_or_history_that_is_missing_adds_nothing(missing):
    row = {"instruction": "Do it", "input": missing, "history": missing, "chosen": "yes", "rejected": "no"}
    (pair,) = load_pairs([row])
    assert [turn["content"] for turn in pair.prompt] == ["Do it"]


@pytest.mark.parametrize("function", ["f", {"name": None}, {}])
def test_a_call_of_no_function_is_a_refused_row(function):
    turn = {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
    with pytest.raises(WorkbenchError, match="tool_calls in chosen is .*, expected a list of calls"):
        load_pairs([{"prompt": "Where?", "chosen": [turn], "rejected": "no"}])


TURN = '{"role": "assistant", "content": "Hi"}'


@pytest.mark.parametrize(
    "other", ['{"role": "user", "content": "Hi"}', "Hello", '[{"role": "user", "content": "Hi"}]', '{"name": "Hi"}']
)
@pytest.mark.parametrize("shape", ["pair", "sides", "list"])
def test_one_answer_is_not_unwrapped_from_json_when_the_other_is_not(other, shape):
    """Else the model would learn to prefer, or to avoid, the form and not the answer."""
    row = {
        "pair": {"prompt": "Write a turn", "chosen": other, "rejected": TURN},
        "sides": {"prompt": "Write a turn", "response_a": TURN, "response_b": other, "winner": "a"},
        "list": {"prompt": "Write a turn", "responses": [other, TURN], "ratings": [5, 1]},
    }[shape]
    with pytest.raises(RowRefused, match="spells a turn as text") as refused:
        read_row(row)
    assert refused.value.reason == "wrong type"


def test_answers_of_one_form_are_read_as_before():
    both = read_row({"prompt": "q", "chosen": TURN, "rejected": TURN.replace("Hi", "Go")})
    assert (both.chosen, both.rejected) == ("Hi", "Go")
    listed = read_row({"prompt": "q", "chosen": [{"role": "assistant", "content": "Hi"}], "rejected": "Go"})
    assert (listed.chosen, listed.rejected) == ("Hi", "Go")
    users = TURN.replace("assistant", "user")
    texts = read_row({"prompt": "q", "chosen": users, "rejected": users.replace("Hi", "Go")})
    assert texts.chosen == users
    written = json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "Hi"}])
    swift = read_row({"messages": written, "rejected_response": "Go"})
    assert (swift.chosen, swift.rejected) == ("Hi", "Go")
