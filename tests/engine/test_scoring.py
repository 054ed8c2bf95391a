"""What a user would lose: a table of scores that belongs to other texts, other tokens or other settings than it
says.
"""

import math

import pytest
import tiny

import simpo_workbench as wb
from simpo_workbench.config.run_config import DataConfig, LossConfig, ModelConfig
from simpo_workbench.engine.encode.tokens import ChatEncoder
from simpo_workbench.engine.forward.logprobs import PackedScorer
from simpo_workbench.engine.scoring import response_logps

COLUMNS = [
    "pair_id", "prompt", "chosen", "rejected", "chosen_tokens", "rejected_tokens", "chosen_avg_logp",
    "rejected_avg_logp", "chosen_reward", "rejected_reward", "margin", "correct", "beyond_gamma", "loss",
    "gradient_weight", "truncated", "beta", "gamma_beta_ratio",
]  # fmt: skip


@pytest.fixture(scope="module")
def loaded(tiny_model):
    with wb.load_model(ModelConfig(name=tiny_model, load_in="fp32")) as model:
        yield model


def test_every_column_follows_from_the_log_probabilities(loaded):
    pairs = wb.load_pairs(tiny.rows(7))
    loss = LossConfig(beta=2.5, gamma_beta_ratio=0.2)
    table = wb.score(loaded, pairs, loss=loss)
    assert list(table.columns) == [*COLUMNS, "topic"]
    assert list(table["pair_id"]) == [pair.pair_id for pair in pairs]
    for row, pair in zip(table.to_dict("records"), pairs, strict=True):
        assert (row["prompt"], row["chosen"], row["rejected"], row["topic"]) == (
            pair.prompt_text,
            pair.chosen,
            pair.rejected,
            pair.extra["topic"],
        )
        margin = 2.5 * (row["chosen_avg_logp"] - row["rejected_avg_logp"])
        assert row["margin"] == pytest.approx(margin, abs=1e-6)
        assert row["chosen_reward"] == pytest.approx(2.5 * row["chosen_avg_logp"], abs=1e-6)
        assert row["correct"] == (margin > 0)
        assert row["beyond_gamma"] == (margin > 0.5)
        assert row["loss"] == pytest.approx(math.log(1 + math.exp(0.5 - margin)), abs=1e-6)
        assert row["gradient_weight"] == pytest.approx(2.5 / (1 + math.exp(margin - 0.5)), abs=1e-6)
        assert (row["beta"], row["gamma_beta_ratio"]) == (2.5, 0.2)


def test_the_micro_batch_changes_no_score(loaded):
    pairs = wb.load_pairs(tiny.rows(9))
    whole, single = (
        wb.score(loaded, pairs, max_tokens_per_microbatch=100000),
        wb.score(loaded, pairs, max_tokens_per_microbatch=8),
    )
    assert whole["chosen_avg_logp"].to_numpy() == pytest.approx(single["chosen_avg_logp"].to_numpy(), abs=1e-5)


def test_dropped_pairs_are_counted_and_cut_ones_marked(loaded):
    rows = [*tiny.rows(2), {"prompt": "very long words " * 30, "chosen": "yes", "rejected": "no"}]
    dropped = wb.score(loaded, wb.load_pairs(rows), data=DataConfig(max_tokens=100))
    assert len(dropped) == 2
    assert "Dropped 1: longer than data.max_tokens 100" in dropped.attrs["report"]
    cut = wb.score(loaded, wb.load_pairs(rows), data=DataConfig(max_tokens=100, overlong="keep_end"))
    assert list(cut["truncated"]) == [False, False, True]
    with pytest.raises(wb.WorkbenchError, match="No pair can be scored.*Dropped 3"):
        wb.score(loaded, wb.load_pairs(rows), data=DataConfig(max_tokens=10))


def test_a_users_column_that_is_named_like_ours_is_kept_beside_it(loaded):
    rows = [{**row, "margin": "wide", "loss": 7} for row in tiny.rows(3)]
    table = wb.score(loaded, wb.load_pairs(rows))
    assert list(table["margin_data"]) == ["wide"] * 3
    assert list(table["loss_data"]) == [7] * 3
    assert table["margin"].dtype.kind == "f"


def test_a_dataframe_is_taken_as_pairs(loaded):
    import pandas as pd

    table = wb.score(loaded, pd.DataFrame(tiny.rows(3)))
    assert len(table) == 3


def test_progress_counts_the_pairs_after_every_micro_batch(loaded):
    encoded, _ = ChatEncoder(loaded.tokenizer).encode_pairs(list(wb.load_pairs(tiny.rows(7))))
    told = []
    response_logps(PackedScorer(loaded.model), encoded, loaded, 1, lambda *numbers: told.append(numbers))
    assert told == [(done, 7) for done in range(1, 8)]
    told.clear()
    response_logps(PackedScorer(loaded.model), encoded, loaded, 100_000, lambda *numbers: told.append(numbers))
    assert told == [(7, 7)]


def test_progress_of_a_micro_batch_that_does_not_fit_counts_its_halves(loaded):
    encoded, _ = ChatEncoder(loaded.tokenizer).encode_pairs(list(wb.load_pairs(tiny.rows(4))))
    scorer, told = PackedScorer(loaded.model), []

    def small(batch):
        if len(batch.pair_ids) > 2:
            raise MemoryError
        return scorer(batch)

    whole = response_logps(scorer, encoded, loaded, 100_000)
    halved = response_logps(small, encoded, loaded, 100_000, lambda *numbers: told.append(numbers))
    assert told == [(2, 4), (4, 4)]
    assert halved.chosen.tolist() == pytest.approx(whole.chosen.tolist(), abs=1e-4)
