"""What a user would lose: answers that look at each other, or a fast path refused to a model that could have it."""

import dataclasses
import json

import pytest
import tiny
import torch
from transformers import AutoConfig

from simpo_workbench.engine.forward import attention, packing, proof, response_head, small_model
from simpo_workbench.engine.forward.packing import dense_attention, visible

#: One family for each mechanism, as the tests of the equivalence have.
FAMILIES = ("llama", "mistral", "gemma2", "mixtral")


def prove(family):
    return proof.prove_structure(tiny.model(family).config)


@pytest.mark.parametrize("family", FAMILIES)
def test_models_that_attend_over_tokens_may_share(family):
    proved = prove(family)
    assert (proved.shared, proved.padded, proved.reason) == (True, True, "")
    assert proved.head == response_head.HeadTransform(softcap=5.0 if family == "gemma2" else None)
    assert proved.logp_difference <= proof.LOGP_DIFFERENCE
    assert proved.gradient_difference <= proof.GRADIENT_DIFFERENCE


@pytest.mark.parametrize("family", tiny.HYBRIDS)
def test_hybrid_layers_are_caught(family):
    proved = prove(family)
    assert not proved.shared
    assert proved.padded
    assert "nats" in proved.reason


def leaking(query, key, value, layout, scaling, window, softcap):
    """Every token sees all that stand before it in the row."""
    causal = torch.ones(layout.tokens, layout.tokens, dtype=torch.bool).tril()
    return dense_attention(query, key, value, causal, scaling, softcap)


def one_too_wide(query, key, value, layout, scaling, window, softcap):
    return dense_attention(query, key, value, visible(layout, window and window + 1), scaling, softcap)


def without_softcap(query, key, value, layout, scaling, window, softcap):
    return dense_attention(query, key, value, visible(layout, window), scaling, None)


def zeros_for_the_rejected(query, key, value, layout, scaling, window, softcap):
    output = dense_attention(query, key, value, visible(layout, window), scaling, softcap)
    return output * (layout.places()[1] != 2)[None, :, None, None]


def gradient_lost(query, key, value, layout, scaling, window, softcap):
    """Right values, but what one answer asks of the prompt's keys is not differentiated."""
    branch = layout.places()[1][None, None, :, None]
    key = torch.where(branch == 0, key.detach(), key)
    return dense_attention(query, key, value, visible(layout, window), scaling, softcap)


@pytest.mark.parametrize(
    ("family", "fault", "words"),
    [
        ("llama", leaking, "nats off"),
        ("mistral", one_too_wide, "nats off"),
        ("gemma2", without_softcap, "nats off"),
        ("mixtral", zeros_for_the_rejected, "nats off"),
        ("llama", gradient_lost, "the gradient of"),
    ],
)
def test_a_planted_fault_of_the_attention_is_caught(monkeypatch, family, fault, words):
    monkeypatch.setitem(attention._BACKENDS, "blocked", fault)
    proved = prove(family)
    assert not proved.shared
    assert words in proved.reason


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_that_run_on_are_caught(monkeypatch, family):
    def run_on(pairs, policy):
        batch = packing.collate(pairs, policy)
        blocks = [
            dataclasses.replace(block, position_ids=torch.arange(block.input_ids.shape[1])[None])
            for block in batch.blocks
        ]
        return dataclasses.replace(batch, blocks=blocks if policy.shared else batch.blocks)

    monkeypatch.setattr(proof, "collate", run_on)
    assert "nats off" in prove(family).reason


def test_a_leak_too_small_for_the_values_is_caught_by_isolation(monkeypatch):
    def faint(query, key, value, layout, scaling, window, softcap):
        return dense_attention(query, key, value, visible(layout, window), scaling, softcap) + 1e-9 * leaking(
            query, key, value, layout, scaling, window, softcap
        )

    monkeypatch.setitem(attention._BACKENDS, "blocked", faint)
    monkeypatch.setattr(proof, "LOGP_DIFFERENCE", 1.0)
    monkeypatch.setattr(proof, "GRADIENT_DIFFERENCE", 1.0)
    assert "moves by" in prove("llama").reason


@pytest.mark.parametrize("family", ["gemma2", "cohere"])
def test_a_transform_that_is_left_out_is_caught(monkeypatch, family):
    """The model then makes its logits itself, and its prompts are shared all the same."""
    monkeypatch.setattr(response_head.HeadTransform, "named_by", classmethod(lambda cls, config: cls()))
    proved = prove(family)
    assert proved.head is None
    assert proved.shared


def test_a_row_that_minds_its_padding_goes_through_alone(monkeypatch):
    def one_row(self, *args, input_ids, **kwargs):
        if len(input_ids) > 1:
            raise ValueError("one row at a time")
        return plain(self, *args, input_ids=input_ids, **kwargs)

    kind = type(tiny.model("llama"))
    plain = kind.forward
    monkeypatch.setattr(kind, "forward", one_row)
    proved = prove("llama")
    assert (proved.shared, proved.padded) == (True, False)


def test_long_rope_is_tried_up_to_its_original_length():
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0, 3.0, 2.0, 1.5]}
    model = tiny.model("phi3", rope_parameters=rope, original_max_position_embeddings=64)
    assert proof.prove_structure(model.config).shared


def test_the_tiny_model_keeps_what_decides_how_tokens_meet():
    config = AutoConfig.for_model(
        "gemma3_text", num_hidden_layers=34, hidden_size=2560, num_attention_heads=8, num_key_value_heads=4
    )
    small = small_model.shrunk(config)
    assert small.layer_types == ["sliding_attention"] * 5 + ["full_attention"]
    assert small.sliding_window < min(sum(lengths) for lengths in proof.LENGTHS[3:])
    assert small.num_attention_heads // small.num_key_value_heads == 2
    assert small.rope_parameters == config.rope_parameters
    assert config.num_hidden_layers == 34
    mixture = small_model.shrunk(AutoConfig.for_model("qwen3_moe"))
    assert (mixture.num_experts, mixture.num_experts_per_tok) == (8, 2)


def test_a_configuration_without_a_tiny_model_is_not_shared():
    proved = proof.proof_of(AutoConfig.for_model("nemotron_h"))
    assert (proved.shared, proved.padded, proved.head) == (False, False, None)
    assert "how many layers" in proved.reason


def test_the_random_state_is_left_as_it_was():
    config = tiny.model("llama").config
    before = torch.random.get_rng_state()
    proof.prove_structure(config)
    assert torch.equal(torch.random.get_rng_state(), before)


class TestKept:
    @pytest.fixture(autouse=True)
    def cache(self, monkeypatch, tmp_path):
        monkeypatch.setenv("SIMPO_WORKBENCH_CACHE", str(tmp_path))
        monkeypatch.setattr(proof, "_KNOWN", {})
        return tmp_path / "proofs"

    def proved_once(self, monkeypatch, config):
        made = []
        monkeypatch.setattr(proof, "prove_structure", lambda config: made.append(config) or example())
        proof.proof_of(config)
        proof._KNOWN.clear()
        return made

    def test_one_proof_serves_all_sizes_of_a_structure_and_later_processes(self, monkeypatch, cache):
        made = self.proved_once(monkeypatch, AutoConfig.for_model("llama"))
        wider = AutoConfig.for_model("llama", hidden_size=8192, num_attention_heads=64, num_hidden_layers=80)
        assert proof.proof_of(wider) == example()
        assert len(made) == len(list(cache.iterdir())) == 1

    @pytest.mark.parametrize("damage", ["{", json.dumps({"shared": True})])
    def test_a_damaged_file_is_proved_again(self, monkeypatch, cache, damage):
        made = self.proved_once(monkeypatch, AutoConfig.for_model("llama"))
        next(cache.iterdir()).write_text(damage)
        assert proof.proof_of(AutoConfig.for_model("llama")) == example()
        assert len(made) == 2

    def test_another_version_or_another_window_is_proved_again(self, monkeypatch):
        made = self.proved_once(monkeypatch, AutoConfig.for_model("mistral"))
        proof.proof_of(AutoConfig.for_model("mistral", sliding_window=None))
        assert len(made) == 2
        monkeypatch.setattr(proof, "_made_of", lambda: "other versions")
        proof.proof_of(AutoConfig.for_model("mistral"))
        assert len(made) == 3


def example():
    return proof.StructureProof(True, True, response_head.HeadTransform(0.5, 30.0), "", 1e-6, 2e-6)
