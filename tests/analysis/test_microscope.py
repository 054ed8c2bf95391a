"""What would be lost: the token that decides a pair, or a part of the lead that nobody can find in the tokens."""

import pandas as pd
import pytest
from token_tables import by_hand, of_length, with_tokens

import simpo_workbench as wb
from simpo_workbench.analysis.microscope import nats, pair_facts, thirds, token_name, where_won

# by hand: chosen −3.6 / 4 = −0.9 (base −3.5 / 4 = −0.875), rejected −6.5 / 5 = −1.3 (base −4.5 / 5 = −0.9)
LEAD, BASE_LEAD = 0.4, 0.025


# --- one row per token


def test_each_token_adds_its_log_probability_divided_by_its_answers_length():
    tokens = wb.analysis.token_leads(by_hand())
    assert list(tokens.columns) == [*by_hand().columns, "share", "lead_share", "change", "change_share", "place"]
    chosen, rejected = tokens.iloc[2], tokens.iloc[4]
    assert (
        chosen["share"],
        chosen["lead_share"],
        chosen["change"],
        chosen["change_share"],
        chosen["place"],
    ) == pytest.approx((-0.5, -0.5, -0.5, -0.125, 0.75))
    assert (
        rejected["share"],
        rejected["lead_share"],
        rejected["change"],
        rejected["change_share"],
        rejected["place"],
    ) == pytest.approx((-0.6, 0.6, -2.0, 0.4, 0.2))


def test_the_shares_add_up_to_the_lead_and_to_its_change():
    tokens = wb.analysis.token_leads(by_hand())
    assert tokens["lead_share"].sum() == pytest.approx(LEAD)
    assert tokens["change_share"].sum() == pytest.approx(LEAD - BASE_LEAD)
    for lengths in ((1, 1), (2, 900), (731, 13)):
        table = of_length(*lengths)
        tokens, means = wb.analysis.token_leads(table), table.groupby("side")[["logp", "base_logp"]].mean()
        lead = means.loc["chosen"] - means.loc["rejected"]
        assert tokens["lead_share"].sum() == pytest.approx(lead["logp"], abs=1e-12)
        assert tokens["change_share"].sum() == pytest.approx(lead["logp"] - lead["base_logp"], abs=1e-12)
        assert tokens.groupby("side")["share"].sum().to_dict() == pytest.approx(means["logp"].to_dict())


def test_columns_rows_and_order_of_the_table_are_kept_and_the_table_itself_is_left_alone():
    table = by_hand().sample(frac=1, random_state=1).assign(mine="x")
    before = table.copy()
    tokens = wb.analysis.token_leads(table)
    pd.testing.assert_frame_equal(table, before)
    pd.testing.assert_frame_equal(tokens[list(table.columns)], table.reset_index(drop=True))
    pd.testing.assert_frame_equal(wb.analysis.token_leads(tokens), tokens)


def test_without_a_base_model_there_is_no_change():
    tokens = wb.analysis.token_leads(by_hand(base=False))
    assert {"change", "change_share"}.isdisjoint(tokens.columns)
    assert tokens["lead_share"].sum() == pytest.approx(LEAD)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ([1, 2], "DataFrame from wb.explain_pair; got list"),
        (by_hand().drop(columns="logp"), "lacks the column 'logp'"),
        (pd.DataFrame({"pair_id": ["a"], "chosen_avg_logp": [-1.0]}), "lacks the column 'side'"),
        (by_hand().assign(side="prompt"), "has a side 'prompt'"),
        (by_hand().query("side == 'chosen'"), "no token of the rejected answer"),
        (by_hand().query("position > 1"), "a part of the chosen answer"),
        (pd.concat([by_hand(), by_hand()]), "or a token twice"),
        (by_hand().assign(logp=float("nan")), "'logp' holds what is no finite number"),
        (by_hand().assign(base_logp=float("-inf")), "'base_logp' holds what is no finite number"),
    ],
)
def test_what_is_no_table_of_a_pair_is_refused_in_words(table, said):
    for function in (wb.analysis.token_leads, pair_facts, where_won):
        with pytest.raises(wb.WorkbenchError, match=said):
            function(table)


# --- both answers in numbers


def test_the_facts_are_sums_and_averages_of_both_answers_and_their_difference():
    table = pair_facts(by_hand()).table.set_index("side")
    assert table["tokens"].to_dict() == {"chosen": 4, "rejected": 5, "lead": -1}
    assert table["sum_logp"].to_dict() == pytest.approx({"chosen": -3.6, "rejected": -6.5, "lead": 2.9})
    assert table["avg_logp"].to_dict() == pytest.approx({"chosen": -0.9, "rejected": -1.3, "lead": LEAD})
    assert table["base_avg_logp"].to_dict() == pytest.approx({"chosen": -0.875, "rejected": -0.9, "lead": BASE_LEAD})
    assert table["avg_change"].to_dict() == pytest.approx(
        {"chosen": -0.025, "rejected": -0.4, "lead": LEAD - BASE_LEAD}
    )
    assert table["sum_change"].to_dict() == pytest.approx({"chosen": -0.1, "rejected": -2.0, "lead": 1.9})
    facts = pair_facts(by_hand(base=False))
    assert list(facts.table.columns) == ["side", "tokens", "sum_logp", "avg_logp"]


def test_it_says_who_would_lead_without_dividing_by_length():
    assert "Without dividing by length the shorter answer, the chosen one, would lead as well" in str(
        pair_facts(by_hand())
    )
    longer_ahead = of_length(40, 10).assign(base_logp=-1.0)
    longer_ahead["logp"] = longer_ahead["side"].map({"chosen": -0.5, "rejected": -1.0})
    said = str(pair_facts(longer_ahead))
    assert "the chosen answer leads by 0.50 nats per token" in said
    assert (
        "Without dividing by length the shorter answer, the rejected one, would lead: the log-probabilities add up to"
        " −20.0 nats for the chosen answer (40 tokens) and −10.0" in said
    )


def test_answers_of_one_length_lead_alike_with_and_without_division():
    assert "Both are equally long" in str(pair_facts(of_length(8, 8)))
    assert "neither answer leads" in str(pair_facts(with_tokens(["a"], ["b"])))


# --- where it is won


def test_the_thirds_are_each_answers_own_and_add_up():
    # chosen: tokens 1 | 2 | 3, 4; rejected: 1 | 2, 3 | 4, 5
    assert thirds(wb.analysis.token_leads(by_hand())) == pytest.approx([0.05 + 0.4, 0.05, -0.125])
    assert thirds(wb.analysis.token_leads(by_hand(base=False))) == pytest.approx(
        [-0.25 + 0.6, -0.125 + 0.2 + 0.2, -0.5 - 0.025 + 0.2 + 0.1]
    )
    table = with_tokens(list("abcde"), list("ab")).assign(
        logp=[-1.0] * 2 + [-2.0] * 2 + [-3.0] * 2 + [-1.0, -2.0, -3.0], base_logp=0.0
    )
    assert thirds(wb.analysis.token_leads(table)) == pytest.approx([-1 / 3 + 1 / 3, -2 / 3 + 2 / 3, -1.0 + 1.0]), (
        "a third of six tokens is two, of three one"
    )


def test_it_says_where_by_whom_and_by_how_few_tokens_the_lead_was_won():
    said = where_won(by_hand())
    assert (
        said[0]
        == "The lead grew by 0.38 nats per token, all of it won in the first third of the answers. By thirds: first"
        " +0.45, middle +0.05, last −0.12."
    )
    assert said[1].startswith(
        "The chosen answer became less likely (−0.03 nats per token), the rejected one became less likely (−0.40)."
    )
    assert "only the difference counts" in said[1], "the question that everybody asks"
    assert said[2] == "1 of 9 tokens carries half of the change."
    assert (
        said[3]
        == "The end of turn, with which an answer stops, adds +0.000 nats per token to the change (chosen +0.00 nats,"
        " rejected +0.00 nats)."
    )
    assert said[4].startswith(
        "The tokens that moved most, in nats: “Green” (rejected, token 1) −2.00, “ mostly” (chosen, token 3) −0.50"
    )


def test_a_lead_that_shrank_or_stayed_is_told_as_such():
    worse = by_hand().rename(columns={"logp": "base_logp", "base_logp": "logp"})
    assert where_won(worse)[0].startswith("The lead shrank by 0.38 nats per token, all of it lost in the first third")
    same = by_hand().assign(base_logp=by_hand()["logp"])
    assert where_won(same)[0].startswith("The lead hardly changed (+0.000 nats per token)")
    assert not any("half of" in one for one in where_won(same)), "of nothing there is no half"


def test_without_a_base_model_the_lead_itself_is_told():
    said = where_won(by_hand(base=False))
    assert (
        said[0]
        == "The chosen answer leads by 0.40 nats per token, most of it in the first third of the answers. By thirds:"
        " first +0.35, middle +0.28, last −0.23."
    )
    assert said[-1].startswith("The least likely tokens, in nats: “Green” (rejected, token 1) −3.00, “ mostly”")
    assert "half of the lead" in " ".join(said)


def test_tokens_that_cancel_each_other_are_named():
    table = with_tokens(list("abcdefgh"), list("ij")).assign(base_logp=-3.0, logp=-3.0)
    table.loc[:7, "logp"] = [-1.0, -5.0] * 4
    table.loc[0, "logp"] = -0.5
    assert "Single tokens pull both ways" in " ".join(where_won(table))


@pytest.mark.parametrize(
    ("token", "name"),
    [
        (" Paris", "“ Paris”"),
        ("\n", "“↵”"),
        ("\u202eevil", "“[U+202E]evil”"),
        ("\x00", "“[U+0000]”"),
        ("x" * 60, "“" + "x" * 24 + "…”"),
    ],
)
def test_a_token_is_named_so_that_it_is_seen_and_turns_nothing_around(token, name):
    assert token_name(token) == name


def test_small_numbers_keep_a_third_decimal_and_nothing_has_no_sign_of_loss():
    assert [nats(0.034), nats(-0.42), nats(0.034, 0.5), nats(-0.0), nats(-0.0004)] == [
        "+0.034",
        "−0.42",
        "+0.03",
        "+0.000",
        "+0.000",
    ]
