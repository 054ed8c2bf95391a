"""What a user would lose: a check that calls right answers wrong, or a prompt whose check is lost on the way."""

import time

import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.config.checks import Check, checked_prompt
from simpo_workbench.config.live_changes import checked_changes
from simpo_workbench.config.run_config import RunConfig
from simpo_workbench.engine.setup import config_hash

CAPITAL = {"prompt": "Capital?", "expect": {"any": ["Paris"]}, "reference": "Paris."}


@pytest.mark.parametrize(
    ("check", "answer", "right"),
    [
        ({"any": ["Paris"]}, "It is PARIS, of course.", True),
        ({"any": ["Paris"]}, "The Parisian way.", False),
        ({"any": ["Paris"]}, "", False),
        ({"any": ["salt", "soda water"]}, "Use soda water.", True),
        ({"any": ["salt", "soda water"]}, "Use water.", False),
        ({"all": ["red", "blue"]}, "Blue and red.", True),
        ({"all": ["red", "blue"]}, "Only red.", False),
        ({"any": ["leaf", "tree"], "all": ["green"]}, "A green tree.", True),
        ({"any": ["leaf", "tree"], "all": ["green"]}, "A tree.", False),
        ({"any": ["leaf", "tree"], "all": ["green"]}, "Green.", False),
        ({"any": ["/leaf|leaves/"]}, "The Leaves fall.", True),
        ({"any": ["/^yes/"]}, "Oh yes", False),
        ({"any": "3.5"}, "It is 3.5 km.", True),
        ({"any": "3.5"}, "It is 345 km.", False),  # the point is no pattern
        ({"any": "C++"}, "Use C++!", True),
        ({"any": "/"}, "Write a / b.", True),
        ({"any": "né"}, "Il est né en 1900.", True),
        ({"any": "n"}, "né", False),
        ({"any": "5"}, "It is 3.5 or 5,000.", False),  # a part of a number is another number
        ({"any": "5"}, "It is 5, or 6.", True),
        ({"any": "北京"}, "中国的首都是北京。", True),  # no spaces between words
        ({"any": "I'm here"}, "I\u2019m here for you.", True),
    ],
)
def test_an_answer_is_right_when_it_has_the_expected_texts_as_whole_words(check, answer, right):
    assert Check.of(check).passes(answer) is right


def test_one_text_stands_for_a_list_of_one_and_missing_keys_for_none():
    assert Check.of({"any": "Paris", "all": None}) == Check(any=("Paris",))
    assert Check.of('{"all": ["a", "b"]}') == Check(all=("a", "b")), "as a CSV file holds it"
    assert Check.of(Check(any=("x",)).as_dict()) == Check(any=("x",))
    assert Check(any=("x",)).as_dict() == {"any": ["x"]}


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ({}, "checks nothing"),
        ({"any": []}, "checks nothing"),
        ({"any": None}, "checks nothing"),
        ({"any": ["Paris", " "]}, "an empty text"),
        ({"anny": ["Paris"]}, "did you mean 'any'"),
        ({"any": [7]}, "put numbers in quotes"),
        ({"all": {"a": 1}}, "'all' of a check is {'a': 1}"),
        ({"any": ["/(/"]}, "'/(/' is no regular expression (missing ) at position 1)"),
        ("Paris", "A check is a mapping"),
        (["Paris"], "got ['Paris']"),
        (5, "got 5"),
    ],
)
def test_a_check_that_cannot_work_is_refused_with_its_reason(check, words):
    with pytest.raises(WorkbenchError) as caught:
        Check.of(check)
    assert words in str(caught.value)


def test_a_pattern_without_end_is_given_up():
    began = time.monotonic()
    assert not Check.of({"any": "/^(a|aa)+$/"}).passes("a" * 100 + "b")
    assert time.monotonic() - began < 5


def test_a_prompt_is_kept_as_a_text_unless_it_has_more():
    assert checked_prompt("Hello?") == "Hello?"
    assert checked_prompt({"prompt": "Hello?", "expect": None, "reference": None}) == "Hello?"
    assert checked_prompt({"reference": "Paris.", "prompt": "Capital?", "expect": {"any": "Paris"}}) == CAPITAL


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (5, "generation.prompts holds 5: expected texts, or mappings"),
        ({"expect": {"any": ["x"]}}, "whose prompt is no text"),
        ({"prompt": "  "}, "whose prompt is no text"),
        ({"prompt": "a", "expct": 1}, "did you mean 'expect'"),
        ({"prompt": "a", "reference": 7}, "the reference 7 for 'a'"),
        ({"prompt": "a", "expect": {"any": ["/(/"]}}, "a check for 'a' that cannot be used: The check '/(/'"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_refused_by_configurations_and_by_running_runs(prompt, words):
    for refused in (
        lambda: RunConfig(generation={"prompts": [prompt]}),
        lambda: RunConfig().with_changes({"generation.prompts": [prompt]}),
    ):
        with pytest.raises(WorkbenchError) as caught:
            refused()
        assert str(caught.value).startswith("generation.prompts")
        assert words in str(caught.value)
    with pytest.raises(WorkbenchError, match=r"generation\.prompts"):
        checked_changes(RunConfig(), {"prompts": [prompt]})


def test_checks_survive_files_changes_and_options():
    config = RunConfig(generation={"prompts": ["Hello?", CAPITAL]})
    assert config.generation.prompts == ["Hello?", CAPITAL]
    assert config.generation.prompt_texts == ["Hello?", "Capital?"]
    assert RunConfig.from_yaml_text(config.to_yaml()) == config
    assert config.with_changes({"loss.beta": 3}).generation == config.generation
    option = "[Hello?, {prompt: Capital?, expect: {any: Paris}, reference: Paris.}]"
    assert RunConfig().with_changes({"generation.prompts": option}).generation.prompts == ["Hello?", CAPITAL]
    assert checked_changes(RunConfig(), {"prompts": [CAPITAL]}).generation.prompts == [CAPITAL]


def test_a_check_is_part_of_what_decides_a_result_and_plain_texts_hash_as_before():
    plain, checked = (RunConfig(generation={"prompts": [item]}) for item in ("Capital?", CAPITAL))
    assert config_hash(plain) != config_hash(checked)
    assert plain.model_dump()["generation"]["prompts"] == ["Capital?"]


def test_a_secret_in_a_check_is_refused():
    secret = {"prompt": "Key?", "expect": {"any": ["hf_abcdefghijklmnopqrstuvwxyz123456"]}}
    with pytest.raises(WorkbenchError, match="looks like a token"):
        RunConfig(generation={"prompts": [secret]})


def test_two_of_the_demo_prompts_have_checks_that_tell_right_from_wrong():
    france, stain, walk = RunConfig().generation.prompts
    assert isinstance(walk, str), "there is no wrong idea for a walk"
    for prompt, wrong in ((france, "Lyon"), (stain, "Put on a light.")):
        check = Check.of(prompt["expect"])
        assert check.passes(prompt["reference"])
        assert not check.passes(wrong)
    assert Check.of(stain["expect"]).passes("Blot the area with a clean cloth.")


def test_each_configuration_has_demo_prompts_of_its_own():
    RunConfig().generation.prompts[0]["reference"] = "Lyon."
    assert RunConfig().generation.prompts[0]["reference"] == "Paris."
