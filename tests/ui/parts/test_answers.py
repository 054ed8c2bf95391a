"""What would be lost: an answer whose markup runs, a fact that is made up, a mark on the wrong side."""

from simpo_workbench.ui.parts.answers import Answer, answer_card, answer_cards


def test_each_side_marks_only_what_it_alone_says():
    cards = answer_cards(Answer("base", "The cat sat on the mat."), Answer("tuned", "The dog sat on the mat."))
    left, right = cards.split("</section>")[:2]
    assert "<del> cat</del>" in left
    assert "<ins> dog</ins>" in right
    assert "dog" not in left
    assert "cat" not in right
    assert cards.count("<ins>") == cards.count("<del>") == 1


def test_facts_stand_under_each_answer_and_unknown_ones_are_left_out():
    cards = answer_cards(
        Answer("base", "a", tokens=36, ended=True, repeated_4grams=0.031), Answer("tuned", "b", tokens=1, ended=False)
    )
    left, right = cards.split("</section>")[:2]
    assert "36 tokens · repeated 4-grams 0.03 · ends properly" in left
    assert "1 token · cut off" in right
    assert "repeated" not in right


def test_a_checked_answer_is_marked_in_words_and_its_reference_stands_below():
    right = Answer("base", "Paris.", right=True, reference="Paris <b>")
    cards = answer_cards(right, Answer("tuned", "Lyon.", right=False, reference="Paris <b>"))
    left, right, below = cards.split("</section>")
    assert '<span class="swb-tone-answers" title="The answer passes the check of its prompt.">✓ right</span>' in left
    assert "does not pass the check" in right
    assert "✗ wrong" in right
    assert "Reference: Paris &lt;b&gt;" in below
    unchecked = answer_cards(Answer("base", "a"), Answer("tuned", "b"))
    assert not any(word in unchecked for word in ("✓", "✗", "Reference"))


def test_markup_in_an_answer_its_title_and_its_facts_is_text():
    bad = "<img src=x onerror=alert(1)>"
    for cards in (
        answer_cards(Answer(bad, bad, more=(bad,)), Answer(bad, f"{bad} and more")),
        answer_card(Answer(bad, bad)),
    ):
        assert "<img" not in cards
        assert "&lt;img src=x" in cards


def test_equal_and_empty_answers_are_said_in_words():
    assert "the same, word for word" in answer_cards(Answer("base", "Paris."), Answer("tuned", "Paris."))
    assert "(an empty answer)" in answer_cards(Answer("base", " "), Answer("tuned", "Paris."))


def test_without_marks_the_texts_stand_as_they_are():
    cards = answer_cards(
        Answer("chosen", "Paris.", tone="chosen"), Answer("rejected", "Lyon.", tone="rejected"), mark=False
    )
    assert "<del>" not in cards
    assert "<ins>" not in cards
    assert 'class="swb-chosen"' in cards
    assert 'class="swb-rejected"' in cards
