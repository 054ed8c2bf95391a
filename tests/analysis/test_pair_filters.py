"""What would be lost: a pair in the wrong drawer, a user's own column, a search that misses what is there."""

import pandas as pd
import pytest

from simpo_workbench.analysis.pair_filters import filters, noise_sentence, pair_table, searchable
from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.charts.scores import lead_scatter
from simpo_workbench.ui.pairs.pair_card import outcome_words


def scores(leads, chosen=-1.0, tokens=(10, 20), **more):
    rows = []
    for n, lead in enumerate(leads):
        at = chosen[n] if isinstance(chosen, list) else chosen
        rows.append(
            {
                "pair_id": f"p{n}",
                "prompt": f"Prompt {n}",
                "chosen": "Yes.",
                "rejected": "No.",
                "chosen_tokens": tokens[0],
                "rejected_tokens": tokens[1],
            }
        )
        rows[-1] |= {
            "chosen_avg_logp": at,
            "rejected_avg_logp": at - lead,
            "margin": 2 * lead,
            "correct": lead > 0,
            "beyond_gamma": lead > 0.5,
            "loss": 0.3,
            "gradient_weight": 0.7,
            **more,
        }
    return pd.DataFrame(rows)


def members(table, name):
    mask = next(one.mask for one in filters(table) if one.name == name)
    return table.loc[mask, "pair_id"].tolist()


def test_every_pair_is_in_its_drawer():
    table = pair_table(scores([-1, 1, 1, -1]), scores([1, -1, 2, -2], chosen=[-1.0, -1.05, -1.2, -0.5]))
    assert members(table, "all") == ["p0", "p1", "p2", "p3"]
    assert members(table, "flipped to right") == ["p0"]
    assert members(table, "flipped to wrong") == ["p1"]
    assert members(table, "still right") == ["p2"]
    assert members(table, "still wrong") == ["p3"]
    assert members(table, "lost log-probability") == ["p2"], "0.05 nats per token is no loss, 0.2 is"
    assert members(table, "longer rejected ahead") == ["p1", "p3"]


def test_drawers_speak_of_the_lead_where_the_margin_says_something_else():
    """DPO: the margin counts from the base model, and is 0 before training."""
    before = scores([-1, 1, 1, -1]).assign(margin=0.0, correct=False)
    after = scores([1, -1, 2, -0.5]).assign(correct=[True, False, True, True])
    table = pair_table(before, after)
    assert [
        members(table, name) for name in ("flipped to right", "flipped to wrong", "still right", "still wrong")
    ] == [["p0"], ["p1"], ["p2"], ["p3"]]
    assert members(table, "longer rejected ahead") == ["p1", "p3"]
    alone = pair_table(before)
    assert (members(alone, "chosen ahead"), members(alone, "chosen behind")) == (["p1", "p2"], ["p0", "p3"])
    assert [outcome_words(pair) for pair in table.to_dict("records")] == [
        "flipped to right",
        "flipped to wrong",
        "still right",
        "still wrong",
    ]
    assert [outcome_words(pair) for pair in alone.to_dict("records")] == [
        "chosen behind",
        "chosen ahead",
        "chosen ahead",
        "chosen behind",
    ]


def test_one_table_alone_has_leads_and_no_changes():
    table = pair_table(scores([-1, 1], tokens=(30, 20)))
    assert table["lead"].tolist() == [-1, 1]
    assert members(table, "chosen ahead") == ["p1"]
    assert members(table, "chosen behind") == ["p0"]
    assert members(table, "longer rejected ahead") == []
    assert not [name for name in table if name.endswith(("_before", "_after", "_change"))]


def test_losses_weights_tokens_and_own_columns_come_along():
    table = pair_table(
        scores([1], topic="cooking", step=0), scores([1], loss=0.1, gradient_weight=0.2, topic="cooking", step=20)
    )
    row = table.iloc[0]
    assert (row["loss_before"], row["loss_after"], row["gradient_weight_before"], row["gradient_weight_after"]) == (
        0.3,
        0.1,
        0.7,
        0.2,
    )
    assert (row["chosen_tokens"], row["rejected_tokens"], row["topic"]) == (10, 20, "cooking")
    assert "step" not in table


def test_own_columns_with_a_taken_name_are_renamed():
    own = {"became": "mine", "flip": "mine", "lead": "mine", "loss_after": "mine", "topic": "mine"}
    row = pair_table(scores([-1], **own), scores([1], **own)).iloc[0]
    renamed = ["became_data", "flip_data", "lead", "loss_after_data", "topic"]
    assert row[renamed].tolist() == ["mine"] * 5
    assert row[["became", "flip", "loss_after"]].tolist() == ["to right", "to right", 0.3]
    row = pair_table(scores([-1], **own)).iloc[0]
    assert row[["became", "flip", "lead_data", "topic"]].tolist() == ["mine"] * 4
    assert row["lead"] == -1


def test_tables_that_cannot_be_shown_are_refused_in_words():
    with pytest.raises(WorkbenchError, match="lacks the column 'chosen_avg_logp'"):
        pair_table(pd.DataFrame({"pair_id": ["a"]}))
    with pytest.raises(WorkbenchError, match="holds a pair twice"):
        pair_table(pd.concat([scores([1]), scores([1])]))


def test_search_looks_into_prompt_and_both_answers_whatever_their_case():
    (text,) = searchable(pair_table(scores([1])))
    assert all(word in text for word in ("prompt 0", "yes.", "no."))
    assert searchable(pd.DataFrame({"pair_id": ["a", "b"]})) == ["", ""]


def test_a_change_of_sides_within_the_noise_has_a_drawer_of_its_own():
    before, after = scores([-1, 0.01, -0.01, 1]), scores([1, -1, 0.02, 1])
    table = pair_table(before, after, noise=0.05)
    names = ("flipped to right", "flipped to wrong", "still right", "still wrong", "within the noise")
    assert [members(table, name) for name in names] == [["p0"], [], ["p3"], [], ["p1", "p2"]]
    assert "within the noise" not in [one.name for one in filters(pair_table(before, after))], (
        "without a noise there is nothing to put into it"
    )


def test_the_sentence_on_the_noise_says_what_does_not_count():
    assert (
        noise_sentence(0.004, 2)
        == "2 flips lie within the noise of scoring (±0.004 nats per token) and are not counted."
    )
    assert (
        noise_sentence(0.0113, 1)
        == "1 flip lies within the noise of scoring (±0.011 nats per token) and is not counted."
    )
    assert noise_sentence(4.8e-7, 0) == "No flip lies within the noise of scoring (under ±0.0001 nats per token)."
    assert noise_sentence(None, 0) == "The noise of scoring was not measured in this run, so that every flip counts."


def test_a_side_changed_within_the_noise_is_called_that_and_stands_in_no_corner_of_flips():
    table = pair_table(scores([0.003, -0.5]), scores([-0.004, 0.5]), noise=0.01)
    assert [outcome_words(pair) for pair in table.to_dict("records")] == [
        "changed sides within the noise of scoring",
        "flipped to right",
    ]
    corners = {trace.name: list(trace.customdata) for trace in lead_scatter(table).data}
    assert corners == {
        "still right": [],
        "still wrong": [],
        "to right": ["p1"],
        "to wrong": [],
        "within the noise": ["p0"],
    }
