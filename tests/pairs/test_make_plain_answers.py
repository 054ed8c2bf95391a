"""The rule by which the demo's pairs are made: what a user would lose are right answers taught as wrong ones."""

import importlib.util
from pathlib import Path

import pytest

PROMPT = {
    "prompt": "What is the capital of Italy?",
    "reference": "The capital of Italy is Rome.",
    "category": "facts",
    "expect": {"any": ["Rome"]},
}
GOOD, LONGER = "Rome is the capital of Italy.", "Well, as everybody knows, it is Rome."
BEGINNING = f"{GOOD} It has many old and beautiful buildings which people from all over the world visit."
RAMBLE = f"{GOOD} {'It has many old and beautiful buildings which people from all over the world visit. ' * 4}".strip()


@pytest.fixture(scope="module")
def maker():
    path = Path(__file__).parents[2] / "data" / "make_plain_answers.py"
    spec = importlib.util.spec_from_file_location("make_plain_answers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MILAN = ("It is Milan.", True)


def sides(pairs):
    return [(pair["chosen"], pair["rejected"]) for pair in pairs]


def test_the_usual_answer_is_chosen_as_far_as_it_is_good(maker):
    """It is right and should have stopped there; it is rejected as a whole, and a wrong answer beside it."""
    pairs = maker.pairs_of(PROMPT, (RAMBLE, False), [(LONGER, True), (GOOD, True), MILAN])
    assert sides(pairs) == [(BEGINNING, "It is Milan."), (BEGINNING, RAMBLE)]
    assert [pair["rejected_because"] for pair in pairs] == ["wrong", "does not end"]
    for pair in pairs:
        assert {name: pair[name] for name in PROMPT} == PROMPT


def test_where_the_usual_answer_is_bad_the_sample_nearest_to_the_written_answer_is_chosen(maker):
    usual, samples = ("It is Florence.", True), [(LONGER, True), (GOOD, True), MILAN, (LONGER, True), (GOOD, True)]
    pairs = maker.pairs_of(PROMPT, usual, samples)
    assert sides(pairs) == [(GOOD, "It is Florence.")]  # the longer good one shares fewer words
    # with only two right samples the good answer may be chance
    assert maker.pairs_of(PROMPT, usual, [(LONGER, True), (GOOD, True), MILAN]) == "no good answer"


def test_a_wrong_answer_is_as_long_as_the_chosen_one_or_shorter_where_there_is_one(maker):
    longer = ("Milan, with its cathedral and its fashion.", True)
    samples = [(GOOD, True), (GOOD, True), longer]
    assert sides(maker.pairs_of(PROMPT, (GOOD, True), [*samples, MILAN])) == [
        (GOOD, MILAN[0])
    ]  # three words, not seven
    assert sides(maker.pairs_of(PROMPT, (GOOD, True), samples)) == [(GOOD, longer[0])]


@pytest.mark.parametrize(
    ("usual", "samples", "reason"),
    [
        ((GOOD, True), [("It is Milan.", True), (GOOD, True)], "rarely right"),  # one right sample may be chance
        ((f"Rome {'and so on ' * 20}", False), [(f"Rome {'and so on ' * 20}", False)] * 2, "no good answer"),
        ((GOOD, True), [(GOOD, True), (LONGER, True)], "all answers are good"),
    ],
)
def test_prompts_without_a_clear_pair_are_dropped_with_a_reason(maker, usual, samples, reason):
    assert maker.pairs_of(PROMPT, usual, samples) == reason


@pytest.mark.parametrize(
    ("text", "ended", "fault"),
    [
        (GOOD, True, ""),
        (GOOD, False, "does not end"),
        ("It is Milan.", True, "wrong"),
        ("Rome, Rome, Rome, Rome, Rome, Rome, Rome.", True, "repeats itself"),
        (RAMBLE.replace("beautiful ", ""), True, "repeats itself"),
        ("Rome is a city " + " ".join(f"with {number} things" for number in range(9)), True, "rambles"),
    ],
)
def test_faults_of_answers(maker, text, ended, fault):
    from simpo_workbench.config.checks import Check

    assert maker.Answer(text, ended).fault(Check.of(PROMPT["expect"])) == fault


@pytest.mark.parametrize(
    ("text", "beginnings"),
    [
        ("It is 3.5 metres wide. Yes. No", ["It is 3.5 metres wide.", "It is 3.5 metres wide. Yes."]),
        ('He said "Stop!" and left. Then', ['He said "Stop!" and left.']),
        ("1. First point\n2. Second", []),
        ("One. Two. Three. Four.", ["One.", "One. Two."]),
        ("No end at all", []),
    ],
)
def test_beginnings_end_where_sentences_end(maker, text, beginnings):
    assert [answer.text for answer in maker.with_beginnings((text, False))] == [*beginnings, text]
