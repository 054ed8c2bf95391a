"""What would be lost: differences that change the texts, that read like confetti, or that take minutes for a model that
repeats itself.
"""

import random

import pytest

from simpo_workbench.analysis.text_diff import differences


def sides(parts):
    return "".join(text for kind, text in parts if kind != "right"), "".join(
        text for kind, text in parts if kind != "left"
    )


def test_a_word_that_was_exchanged_is_all_that_is_marked():
    assert differences("The cat sat on the mat.", "The dog sat on the mat.") == [
        ("same", "The"),
        ("left", " cat"),
        ("right", " dog"),
        ("same", " sat on the mat."),
    ]


def test_what_was_added_at_the_end():
    assert differences("It was happy.", "It was happy. So was I.") == [
        ("same", "It was happy."),
        ("right", " So was I."),
    ]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("", ""),
        ("a", ""),
        ("", "a"),
        (" \n", "\n "),
        ("Paris", "Paris"),
        ("İ", "i"),
        ("\U0001f1eb\U0001f1f7 <b>", "\u202e<b>"),
    ],
)
def test_odd_texts_stay_what_they_are(left, right):
    assert sides(differences(left, right)) == (left, right)


def test_the_parts_give_both_texts_back_whatever_they_are():
    chance = random.Random(0)
    for _ in range(500):
        left, right = (
            " ".join(chance.choices(["a", "b", "c", "longer", ".", "x\n", ""], k=chance.randint(0, 14)))
            for _ in range(2)
        )
        assert sides(differences(left, right)) == (left, right)


def test_neighbours_are_joined_and_no_kind_follows_itself():
    parts = differences("one two three four five six", "one 2 3 four five 6 six")
    assert [kind for kind, _ in parts] == ["same", "left", "right", "same", "right", "same"]
    assert parts[1:3] == [("left", " two three"), ("right", " 2 3")]


def test_a_full_stop_between_two_changes_is_no_island():
    parts = differences("We met in Paris yesterday evening. Come.", "We met in Paris yesterday morning. Go.")
    assert parts == [
        ("same", "We met in Paris yesterday"),
        ("left", " evening. Come"),
        ("right", " morning. Go"),
        ("same", "."),
    ]


def test_texts_with_almost_nothing_in_common_are_not_cut_to_confetti():
    left, right = (
        "Combining two words is a classic problem in linguistics and language.",
        "A snaccident: eating a whole bag of crisps without meaning to.",
    )
    assert differences(left, right) == [("left", left), ("right", right)]


def test_scripts_without_spaces_are_compared_by_character():
    parts = differences("法国的首都是巴黎，人口很多。", "法国的首都是里昂，人口很多。")
    assert parts == [("same", "法国的首都是"), ("left", "巴黎"), ("right", "里昂"), ("same", "，人口很多。")]


def test_very_different_long_texts_are_compared_by_sentence():
    kept = [f"Sentence number {n} stays as it is. " for n in range(600)]
    changed = [line if n % 2 else f"Other words stand here {n} {n} {n}. " for n, line in enumerate(kept)]
    parts = differences("".join(kept), "".join(changed))
    assert sides(parts) == ("".join(kept), "".join(changed))
    assert [text for kind, text in parts if kind == "same"] == kept[1::2]


def test_a_long_text_with_few_changes_is_compared_by_word():
    chance, words = random.Random(0), range(1, 5001)
    frequencies = [1 / rank for rank in words]  # as in natural texts (Zipf's law)
    left = [f"w{rank}" for rank in chance.choices(words, frequencies, k=2000)]
    right = left.copy()
    for place in chance.sample(range(2000), 20):
        right[place] = f"new{place}"
    parts = differences(" ".join(left), " ".join(right))
    assert sides(parts) == (" ".join(left), " ".join(right))
    assert sum(len(text) for kind, text in parts if kind != "same") < 400


def test_a_text_that_takes_most_time_is_compared_by_sentence():
    """Every other word changed: difflib looks at all that remains once for every word that stayed."""
    same = "one and the same " * 4000 + "end. "
    left = " ".join(f"a{n} x{n}" for n in range(3000))
    right = " ".join(f"a{n} y{n}" for n in range(3000))
    assert differences(same + left, same + right) == [("same", same), ("left", left), ("right", right)]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("strengthing " * 20_000, "strengthing " * 15_000),
        ("a b " * 9_000, "b a " * 8_990),
        ("x" * 500_000, "y" * 500_000),
        (" " * 300_000 + "x", " " * 299_999 + "y "),
        ("a. " * 100_000, "b. " * 100_000),
    ],
    ids=["a loop", "shifted", "one word", "blanks", "sentences"],
)
def test_a_model_that_repeats_itself_does_not_stop_the_kernel(left, right):
    assert sides(differences(left, right)) == (left, right)
