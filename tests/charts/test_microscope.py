"""What would be lost: a chart whose ends are other numbers than the loss sees, or one that a token can write markup
into.
"""

import numpy as np
import pytest
from token_tables import by_hand, of_length, with_tokens

import simpo_workbench as wb
from simpo_workbench.charts.microscope import token_figure, won_figure
from simpo_workbench.charts.subplots import COLORS, MOST_POINTS


def trace(figure, name):
    return next(one for one in figure.data if one.name == name)


def words(figure):
    return [one.text for one in figure.layout.annotations]


def test_the_log_probabilities_stand_at_their_places_with_the_base_model_pale_beside_them():
    figure = token_figure(wb.analysis.token_leads(by_hand()))
    assert list(trace(figure, "chosen").y) == [-1.0, -0.5, -2.0, -0.1]
    assert list(trace(figure, "rejected, base").y) == [-1.0, -1.0, -1.0, -1.0, -0.5]
    chosen, rejected = trace(figure, "chosen"), trace(figure, "rejected")
    assert (chosen.line.dash, chosen.marker.symbol, rejected.line.dash, rejected.marker.symbol) == (
        "solid",
        "circle",
        "dash",
        "diamond",
    )
    assert trace(figure, "chosen, base").line.color.startswith("rgba")
    assert figure.layout.yaxis.range == figure.layout.yaxis2.range, "else one answer would look surer than the other"
    assert "nats" in figure.layout.title.text
    assert {
        "average −0.90",
        "base −0.88",
        "average −1.30",
        "base −0.90",
        "chosen, 4 tokens",
        "rejected, 5 tokens",
    } <= set(words(figure))
    assert "Green" in rejected.text[0]


def test_without_a_base_model_there_is_one_line_for_each_answer():
    figure = token_figure(wb.analysis.token_leads(by_hand(base=False)))
    assert [one.name for one in figure.data] == ["chosen", "rejected"]
    assert not any("base" in text for text in [*words(figure), figure.layout.title.text])


@pytest.mark.parametrize(("base", "end"), [(True, 0.375), (False, 0.4)])
def test_the_path_of_the_lead_starts_at_nothing_and_ends_at_the_whole(base, end):
    tokens = wb.analysis.token_leads(by_hand(base))
    figure = won_figure(tokens)
    lead, chosen, rejected = (trace(figure, name) for name in ("lead", "chosen", "rejected"))
    for line in (lead, chosen, rejected):
        assert (line.x[0], line.y[0], line.x[-1]) == pytest.approx((0.0, 0.0, 100.0))
    assert lead.y[-1] == pytest.approx(end)
    assert lead.y == pytest.approx(np.interp(lead.x, chosen.x, chosen.y) + np.interp(lead.x, rejected.x, rejected.y))
    assert chosen.y == pytest.approx(
        [0, *tokens.loc[tokens["side"] == "chosen", "change_share" if base else "lead_share"].cumsum()]
    )
    assert f"{'change of lead' if base else 'lead'} +{end:.2f}" in words(figure)


def test_the_rows_may_come_in_any_order():
    tokens = wb.analysis.token_leads(by_hand())
    mixed = tokens.sample(frac=1, random_state=3)
    assert trace(won_figure(mixed), "lead").y == pytest.approx(trace(won_figure(tokens), "lead").y)
    assert list(trace(token_figure(mixed), "chosen").y) == list(trace(token_figure(tokens), "chosen").y)


def test_markup_in_a_token_is_text_in_the_chart():
    tokens = wb.analysis.token_leads(
        with_tokens(["<b>bold</b>", "\u202ebackwards", "$x$"], ["<a href='javascript:1'>"])
    )
    for text in trace(token_figure(tokens), "chosen").text + trace(token_figure(tokens), "rejected").text:
        assert "<b>" not in text
        assert "<a" not in text
        assert "\u202e" not in text


def test_five_thousand_tokens_send_a_bounded_chart_that_says_so():
    tokens = wb.analysis.token_leads(of_length(5000, 4000))
    figures = [token_figure(tokens), won_figure(tokens)]
    assert max(len(one.x) for figure in figures for one in figure.data) <= MOST_POINTS
    assert "chosen, 5,000 tokens, 2,000 drawn" in words(figures[0])
    assert trace(figures[1], "lead").y[-1] == pytest.approx(tokens["change_share"].sum())


@pytest.mark.parametrize("lengths", [(1, 1), (1, 300), (2, 2)])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pairs_of_any_length_are_drawn_in_both_themes(theme, lengths):
    tokens = wb.analysis.token_leads(of_length(*lengths))
    for figure in (token_figure(tokens, theme), won_figure(tokens, theme)):
        assert figure.layout.paper_bgcolor == COLORS[theme]["ground"]
        heights = [
            one.y for one in figure.layout.annotations if one.xref == "paper" and one.yref in ("y", "y2") and one.x == 1
        ]
        assert len(set(heights)) == len(heights), "no name covers another"
