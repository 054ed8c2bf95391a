"""What would be lost: a token that looks unmoved and moved, one that is read as markup, or a page that a long answer
freezes.
"""

import re

import pytest
from token_tables import by_hand, of_length, with_tokens

import simpo_workbench as wb
from simpo_workbench.ui.pairs.heat_text import BASE, CHANGE, MOST_SHOWN, TUNED, heat_text, strength


def tokens_of(markup, side):
    """[(classes, title, text)] of one answer's tokens."""
    card = str(markup).split("<section")[1 if side == "chosen" else 2]
    tokens = re.findall(
        r'<span class="(swb-token[^"]*)" title="([^"]*)">(.*?)</span>(?=<span class="swb-(?:token|muted)|</div>)', card
    )
    return [(classes, title, re.sub(r"<[^>]*>", "", text)) for classes, title, text in tokens]


def underlined(markup, side):
    return "".join(text for classes, _, text in tokens_of(markup, side) if "swb-only" in classes)


@pytest.mark.parametrize(
    ("change", "level"), [(0.0, 0), (0.09, 0), (0.1, 1), (-0.3, 2), (0.99, 2), (1.0, 3), (-3.0, 4), (40.0, 4)]
)
def test_the_ground_grows_with_the_change_in_steps_that_are_the_same_for_every_pair(change, level):
    assert strength(change, CHANGE) == level


def test_likelier_and_less_likely_tokens_have_other_grounds_and_their_numbers_in_words():
    markup = heat_text(wb.analysis.token_leads(by_hand()))
    chosen, rejected = tokens_of(markup, "chosen"), tokens_of(markup, "rejected")
    assert [re.findall(r"heat-(\w+)", classes) for classes, _, _ in chosen] == [["up1"], ["up1"], ["down2"], []]
    assert "swb-heat-down3" in rejected[0][0]
    assert chosen[2][1] == "chosen token 3: −1.500 → −2.000 nats (−0.500); adds −0.1250 to the change of the lead"
    assert "average −0.88 → −0.90 nats per token (−0.03)" in str(markup)
    assert "2 likelier, 1 less likely by 0.1 nats or more" in str(markup)


def test_the_log_probability_alone_darkens_what_the_model_did_not_expect():
    tokens = wb.analysis.token_leads(by_hand(base=False))
    markup = heat_text(tokens, CHANGE)
    assert [re.findall(r"heat-(\w+)", classes)[0] for classes, _, _ in tokens_of(markup, "chosen")] == [
        "low2",
        "low1",
        "low2",
        "low1",
    ]
    assert "less the model expected the token" in str(markup)
    assert "change" not in tokens_of(markup, "chosen")[0][1]
    both = wb.analysis.token_leads(by_hand())
    assert "less the base model expected" in str(heat_text(both, BASE))
    assert "less the tuned model expected" in str(heat_text(both, TUNED))


def test_what_only_one_answer_says_is_underlined_and_the_rest_is_not():
    tokens = wb.analysis.token_leads(
        with_tokens(
            ["The", " cat", " sat", " on", " the", " mat", "."], ["The", " dog", " s", "at", " on", " the", " mat", "."]
        )
    )
    markup = heat_text(tokens)
    assert underlined(markup, "chosen") == " cat"
    assert [title for classes, title, _ in tokens_of(markup, "chosen") if "only in this answer" in title] == [
        tokens_of(markup, "chosen")[1][1]
    ]
    assert underlined(markup, "rejected") == " dog", "other tokens for the same word make no difference of the answers"


def test_a_tokenizer_whose_tokens_have_no_spaces_is_compared_token_by_token():
    tokens = wb.analysis.token_leads(
        with_tokens(["The", "cat", "sat", "on", "the", "mat"], ["The", "dog", "sat", "on", "the", "mat"])
    )
    assert underlined(heat_text(tokens), "chosen") == "cat"


def test_answers_that_share_hardly_a_word_are_not_underlined_as_a_whole():
    markup = heat_text(
        wb.analysis.token_leads(
            with_tokens(["Yes", ",", " certainly"], ["Bananas", " grow", " in", " bunches", " up", " there"])
        )
    )
    assert underlined(markup, "chosen") == underlined(markup, "rejected") == ""
    assert "share too few words" in str(markup)


def test_hostile_tokens_are_text_and_what_cannot_be_seen_is_named():
    bad = ["<img src=x onerror=alert(1)>", '" onmouseover="x', "\u202eback", "\x1b[31m", "{0}", "\n", "a"]
    markup = str(heat_text(wb.analysis.token_leads(with_tokens(bad, bad[::-1]))))
    assert "<img" not in markup
    assert "&lt;img" in markup
    assert 'onmouseover="' not in markup
    assert "\u202e" not in markup
    assert "\x1b" not in markup
    assert "U+202E" in markup
    assert "U+001B" in markup
    assert "{0}" in markup


def test_five_thousand_tokens_make_a_page_of_bounded_size_that_says_what_is_missing():
    markup = heat_text(wb.analysis.token_leads(of_length(5000, 5000)))
    assert len(markup) < 1_500_000
    assert str(markup).count("… 4,000 tokens in the middle are not shown here …") == 2
    shown = tokens_of(markup, "chosen")
    assert len(shown) == MOST_SHOWN
    assert shown[499][1].startswith("chosen token 500:")
    assert shown[500][1].startswith("chosen token 4501:")
    assert "5,000 tokens" in str(markup)


def test_an_answer_just_short_enough_is_shown_whole():
    assert "not shown" not in str(heat_text(wb.analysis.token_leads(of_length(MOST_SHOWN, MOST_SHOWN))))
