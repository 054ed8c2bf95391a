"""What would be lost: log-probabilities of single tokens that are not those of the model, or not those that the pair
was scored with.
"""

import pytest
import tiny
import torch

import simpo_workbench as wb
from simpo_workbench.engine.encode.tokens import ChatEncoder

TURNS = [
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "And of Spain?"},
]
PAIRS = {
    "one turn": {
        "prompt": "What color is the sky?",
        "chosen": "Blue, mostly.",
        "rejected": "Green, I think, or so they say.",
    },
    "several turns": {"prompt": TURNS, "chosen": "Madrid.", "rejected": "The quick brown fox jumps over Spain."},
    "a system turn": {
        "prompt": [{"role": "system", "content": "Be brief."}, *TURNS],
        "chosen": "Madrid, of course.",
        "rejected": "Paris.",
    },
}


@pytest.fixture(scope="module")
def adapted(tiny_model, tiny_pairs, tmp_path_factory):
    """A tiny model with an adapter that two large steps have moved."""
    sections = {
        "model": {"name": tiny_model, "load_in": "fp32"},
        "data": {"train": tiny_pairs[0], "eval": tiny_pairs[1]},
        "training": {"learning_rate": 1e-3, "pairs_per_step": 4, "max_steps": 2, "eval_every": 0},
        "generation": {"prompts": [], "held_out_prompts": 0},
        "run": {"name": "tiny", "root": str(tmp_path_factory.mktemp("runs"))},
    }
    run = wb.train(wb.RunConfig.from_dict(sections))
    with wb.load_model(run.config.model, adapter=run.adapter) as model:
        yield model


@torch.no_grad()
def plain_logps(model, pair, data=None):
    """By one plain forward pass of transformers per answer, fp64: [log-probability of each of its tokens], chosen
    first.
    """
    (encoded,), _ = ChatEncoder(model.tokenizer, data).encode_pairs([wb.load_pairs([pair])[0]])
    found = []
    for answer in (encoded.chosen_ids, encoded.rejected_ids):
        logits = model.model(input_ids=torch.tensor([encoded.prompt_ids + answer])).logits[0].double()
        logps = torch.log_softmax(logits, -1)
        found += [logps[len(encoded.prompt_ids) - 1 + place, token].item() for place, token in enumerate(answer)]
    return found


@pytest.mark.parametrize("kind", PAIRS)
def test_tokens_equal_a_plain_forward_pass_and_average_to_the_score(adapted, kind):
    pair = PAIRS[kind]
    tokens, score = wb.explain_pair(adapted, pair), wb.score(adapted, [pair]).iloc[0]
    assert tokens["logp"].tolist() == pytest.approx(plain_logps(adapted, pair), abs=2e-5)
    with adapted.base():
        assert tokens["base_logp"].tolist() == pytest.approx(plain_logps(adapted, pair), abs=2e-5)
    means = tokens.groupby("side")["logp"].mean()
    for side in ("chosen", "rejected"):
        assert means[side] == pytest.approx(score[f"{side}_avg_logp"], abs=1e-6)
    lead = means["chosen"] - means["rejected"]
    assert wb.analysis.token_leads(tokens)["lead_share"].sum() == pytest.approx(lead, abs=1e-12)
    assert abs(tokens["logp"] - tokens["base_logp"]).max() > 0.01
    assert tokens.attrs["report"] == ""


def test_a_system_prompt_of_the_configuration_is_read_as_it_is_scored(adapted):
    data = wb.DataConfig(system_prompt="You only ever speak of foxes.")
    pair = PAIRS["several turns"]
    tokens = wb.explain_pair(adapted, pair, data)
    assert tokens["logp"].tolist() == pytest.approx(plain_logps(adapted, pair, data), abs=2e-5)
    assert tokens["logp"].tolist() != pytest.approx(wb.explain_pair(adapted, pair)["logp"].tolist(), abs=1e-3)
    assert tokens.groupby("side")["logp"].mean()["chosen"] == pytest.approx(
        wb.score(adapted, [pair], data=data)["chosen_avg_logp"][0], abs=1e-6
    )


def test_a_prompt_that_was_cut_is_said(adapted):
    data = wb.DataConfig(max_tokens=100, overlong="keep_end")
    tokens = wb.explain_pair(adapted, {**PAIRS["one turn"], "prompt": "very long words " * 40}, data)
    assert tokens.attrs["report"] == "The prompt was cut from the left."


def test_a_conversation_from_a_scores_table_is_said_to_be_another_pair(adapted):
    """Its prompt is one readable text there: read as one user turn, it is other tokens than those that were scored."""
    row = wb.score(adapted, [PAIRS["several turns"]]).iloc[0].to_dict()
    tokens = wb.explain_pair(adapted, row)
    assert f"These texts are not those of the pair {row['pair_id']}" in tokens.attrs["report"]
    assert tokens.groupby("side")["logp"].mean()["chosen"] != pytest.approx(row["chosen_avg_logp"], abs=1e-3)
    single = wb.score(adapted, tiny.rows(1)).iloc[0].to_dict()
    assert wb.explain_pair(adapted, single).attrs["report"] == ""
    assert wb.explain_pair(adapted, {**PAIRS["one turn"], "pair_id": "my own name"}).attrs["report"] == ""
