"""What a user would lose: pairs whose lengths give the answer away, and nobody who says so."""

import pandas as pd
import pytest

from simpo_workbench.charts.pairs import chosen_longer, length_bias, length_figure, length_table, matches, pair_lengths
from simpo_workbench.pairs.pairs import load_pairs


def lengths(*rows):
    return pair_lengths(
        load_pairs([{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in rows])
    )


def test_few_pairs_say_nothing_of_length():
    lengths = pd.DataFrame({"prompt_length": [3, 3], "chosen_length": [9, 8], "rejected_length": [2, 3]})
    assert length_bias(lengths)[1].endswith("2 pairs are too few to tell whether length decides.")


def test_lengths_are_counted_in_words_and_the_unit_is_said():
    table = lengths(("What is it?", "A b c", "one"), ("And then?", "x", "y z"))
    assert table["prompt_length"].tolist() == [3, 2]
    assert table["chosen_length"].tolist() == [3, 1]
    assert table["rejected_length"].tolist() == [1, 2]
    assert table.attrs["unit"] == "words"


def test_a_language_without_spaces_is_counted_in_characters():
    table = lengths(
        (
            "日本の首都はどこにありますか、教えてくださいませんか。",
            "東京です。日本の首都は東京であり、関東地方にあります。",
            "京都です。昔は京都が日本の首都でしたが、今は違います。",
        )
    )
    assert table.attrs["unit"] == "characters"
    assert table["chosen_length"].tolist() == [len("東京です。日本の首都は東京であり、関東地方にあります。")]
    assert "characters" in length_figure(table).layout.title.text


def test_the_share_of_longer_chosen_answers_by_hand():
    """Two of four are longer, one is shorter, one alike: 2 / 4, exact 0.07 to 0.93."""
    table = lengths(("p1", "a b c", "a"), ("p2", "a b", "c"), ("p3", "a", "b c"), ("p4", "a", "b"))
    longer = chosen_longer(table)
    assert (longer.value, longer.n) == (0.5, 4)
    assert (round(longer.low, 2), round(longer.high, 2)) == (0.07, 0.93)
    assert "50% of the pairs: 0.50 (n=4, 95 % 0.07 to 0.93); in 1 pair both are equally long" in length_bias(table)[0]
    many = lengths(
        *(
            (f"p{index}", *texts)
            for index in range(5)
            for texts in (("a b c", "a"), ("a b", "c"), ("a", "b c"), ("a", "b"))
        )
    )
    assert "little of it to learn" in length_bias(many)[1]


@pytest.mark.parametrize(
    ("chosen", "rejected", "said"), [("a b c d", "a", "learn to write more"), ("a", "a b c d", "more briefly")]
)
def test_one_sided_lengths_are_a_warning(chosen, rejected, said):
    assert (
        said
        in length_bias(lengths(*((f"p{index}", f"{chosen} {index}", f"{rejected} {index}") for index in range(40))))[1]
    )


def test_search_finds_any_text_whatever_its_case():
    table = lengths(("Where is Ägypten?", "In Africa.", "Nowhere."), ("1+1?", "2 (two)", "3"), ("x", "y", "Z.*"))
    assert matches(table, "ägypten").tolist() == [True, False, False]
    assert matches(table, " AFRICA ").tolist() == [True, False, False]
    assert matches(table, "(two)").tolist() == [False, True, False]
    assert matches(table, ".*").tolist() == [False, False, True]  # what is typed is text, not a pattern
    assert matches(table, "  ").tolist() == [True, True, True]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_is_in_the_figure_and_medians_are_named(theme):
    table = lengths(
        *(
            (f"p {index}", "a " * (1 + index % 7) + str(index), "b " * (1 + index % 11) + str(index))
            for index in range(50)
        )
    )
    figure = length_figure(table, theme)
    for side in ("prompt", "chosen", "rejected"):
        bars = next(trace for trace in figure.data if trace.name == f"{side}, per bin")
        assert sum(bars.y) == 50
    texts = [annotation.text for annotation in figure.layout.annotations]
    assert [text for text in texts if text.startswith("chosen: median 5")]
    assert not [text for text in texts if "longer text" in text]


def test_a_long_tail_is_cut_counted_and_said():
    table = lengths(
        *((f"p {index}", f"a b {index}", f"b c d {index}") for index in range(200)), ("long", "w " * 5000, "short")
    )
    figure = length_figure(table)
    assert figure.layout.xaxis.range[1] < 100
    assert any(
        "1 longer text, up to 5,000 words, in the last bin" in annotation.text
        for annotation in figure.layout.annotations
    )
    assert sum(next(trace for trace in figure.data if trace.name == "chosen, per bin").y) == 201


def test_the_same_numbers_as_a_table():
    assert length_table(lengths(("one two", "a b c", "d"), ("one two three four", "a b c d e", "d e")))[1] == [
        "chosen",
        "4",
        "4.8",
        "5",
    ]


def test_no_pairs_are_an_empty_figure():
    table = lengths(("p", "a b", "c")).iloc[:0]
    table.attrs["unit"] = "words"
    assert length_figure(table).layout.annotations[0].text == "comes with the pairs"
