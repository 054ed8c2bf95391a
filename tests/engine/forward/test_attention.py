"""What a user would lose: answers that look at each other, wrong distances, or a sampled text that differs from plain
transformers.
"""

import shutil

import pytest
import tiny
import torch
from packed_families import LENGTHS, outcome, pairs, plain_average, small_blocks, with_lora  # noqa: F401 (a fixture)
from transformers import AutoConfig, AutoModelForCausalLM

from simpo_workbench.engine.forward import attention, attention_cuda, proof
from simpo_workbench.engine.forward.logprobs import PackedScorer
from simpo_workbench.engine.forward.packing import Layout, RowPolicy, Span, collate, dense_attention, visible


@pytest.mark.parametrize("family", ["starcoder2", "phi"])
def test_in_fp64_they_agree_to_the_last_digits(family):
    """These two normalize in the weights' own precision; most others compute their norms in fp32 whatever the weights
    are.
    """
    model = with_lora(family).double()
    logps, gradients = outcome(model, attention.row_policy(model))
    oracle_logps, oracle_gradients = outcome(model, RowPolicy(shared=False))
    assert torch.allclose(logps, oracle_logps, atol=1e-11, rtol=0)
    difference = torch.cat([(gradients[name] - oracle_gradients[name]).flatten() for name in gradients]).norm()
    assert difference <= 1e-10 * torch.cat([gradient.flatten() for gradient in oracle_gradients.values()]).norm()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 7, 50])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("backend", ["blocked", "pairwise"])
@pytest.mark.parametrize("shared", [0, 6, 30])
def test_attention_equals_the_dense_oracle(backend, dtype, window, softcap, shared):
    """Values and gradients, with grouped heads, a scale of its own, windows in logical positions and soft-capping."""
    torch.manual_seed(0)
    spans, start = [], shared
    for prompt, chosen, rejected in [*LENGTHS, (90, 3, 40)]:
        spans.append(Span(start, prompt, chosen, rejected))
        start += prompt + chosen + rejected
    layout = Layout(tuple(spans), shared)
    query, key, value = (
        torch.randn(1, layout.tokens, heads, 8, dtype=dtype).transpose(1, 2).requires_grad_() for heads in (6, 2, 2)
    )
    downstream = torch.randn(1, layout.tokens, 6, 8, dtype=dtype)
    results = []
    for name in (backend, "dense"):
        output = attention._BACKENDS[name](query, key, value, layout, 0.3, window, softcap)
        results.append((output, *torch.autograd.grad(output, (query, key, value), downstream)))
    tolerance = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    for ours, oracle in zip(*results, strict=True):
        assert (ours - oracle).norm() <= tolerance * oracle.norm()


def test_a_window_counts_positions_of_the_sequence_not_places_in_the_row():
    """The first rejected token stands far behind the prompt in the row, yet directly behind it in its sequence."""
    layout = Layout((Span(0, 4, 50, 3),))
    assert visible(layout, window=3)[54].nonzero()[:, 0].tolist() == [2, 3, 54]


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("shared", [0, 7])
def test_flex_and_varlen_describe_the_same_visibility(window, shared):
    """What the CUDA backends are given, read back token by token; the kernels themselves are compared on a GPU by
    benchmarks/gpu.sh.
    """
    layout = Layout((Span(shared, 4, 3, 6), Span(shared + 13, 1, 2, 1), Span(shared + 17, 9, 1, 4)), shared)
    mask = attention_cuda.flex_mask(layout, window, "cpu")
    row = torch.arange(layout.tokens)
    assert torch.equal(mask.mask_mod(0, 0, row[:, None], row[None, :]), visible(layout, window))
    keys, query_ends, key_ends, most_queries, most_keys = attention_cuda.varlen_sequences(layout)
    seen = torch.zeros(layout.tokens, layout.tokens, dtype=torch.bool)
    for index in range(len(query_ends) - 1):
        queries = range(query_ends[index], query_ends[index + 1])
        sequence = keys[key_ends[index] : key_ends[index + 1]]
        assert len(queries) <= most_queries
        assert len(sequence) <= most_keys
        for place, query in enumerate(queries):
            last = len(sequence) - len(queries) + place  # causal from the end, as flash attention counts
            first = max(0, last - window + 1) if window else 0
            seen[query, sequence[first : last + 1]] = True
    assert torch.equal(seen, visible(layout, window))


def test_flex_attention_forward_on_the_cpu_equals_the_oracle():
    torch.manual_seed(0)
    layout = Layout((Span(0, 4, 3, 6), Span(13, 5, 2, 8)))
    query, key, value = (torch.randn(1, heads, layout.tokens, 16) for heads in (4, 2, 2))
    from torch.nn.attention.flex_attention import flex_attention

    mask = attention_cuda.flex_mask(layout, 4, "cpu")
    ours = flex_attention(
        query, key, value, score_mod=attention_cuda._softcapping(2.0), block_mask=mask, scale=0.3, enable_gqa=True
    ).transpose(1, 2)
    oracle = dense_attention(query, key, value, visible(layout, 4), 0.3, 2.0)
    assert torch.allclose(ours, oracle, atol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_flex_attention_takes_a_soft_cap(monkeypatch):
    """With dynamic shapes every number is dynamic, and a dynamic soft cap does not compile.

    A plain causal mask, because torch's code for CPUs cannot compile ours; backward needs a GPU.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    layout = Layout((Span(0, 200, 20, 0),))
    causal = create_block_mask(lambda row, head, q, k: q >= k, None, None, 220, 220, device="cpu")
    monkeypatch.setattr(attention_cuda, "flex_mask", lambda *_: causal)
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, layout.tokens, 16) for heads in (4, 2, 2))
    ours = attention_cuda.flex(query, key, value, layout, 0.3, None, 2.0)
    oracle = dense_attention(query, key, value, torch.ones(220, 220, dtype=torch.bool).tril(), 0.3, 2.0)
    assert torch.allclose(ours, oracle, atol=1e-5)


@pytest.mark.parametrize(
    ("known", "window", "expected"),
    [
        ({"is_causal"}, None, {"is_causal": True}),  # torch 2.10
        ({"is_causal"}, 200, {"is_causal": True}),  # a window that no sequence fills
        ({"is_causal"}, 37, None),
        ({"window_size"}, None, {"window_size": (-1, 0)}),  # 2.11
        ({"window_size"}, 37, {"window_size": (36, 0)}),
        ({"window_size", "enable_gqa"}, 37, {"window_size": (36, 0), "enable_gqa": True}),  # 2.13
    ],
)
def test_varlen_is_asked_in_the_words_of_this_torch(monkeypatch, known, window, expected):
    monkeypatch.setattr(attention_cuda, "_varlen_parameters", lambda: frozenset(known))
    assert attention_cuda._varlen_options(window, most_keys=100) == expected


@pytest.mark.parametrize("known", [{"is_causal"}, {"window_size"}, {"window_size", "enable_gqa"}])
def test_varlen_repeats_keys_and_values_where_torch_does_not_group_heads(monkeypatch, known):
    """The flash kernel is replaced by a plain loop over its sequences, so that values are compared without a GPU."""
    import torch.nn.attention.varlen

    def flash(query, key, value, query_ends, key_ends, most_queries, most_keys, *, scale, enable_gqa=False, **causal):
        assert causal in ({"is_causal": True}, {"window_size": (-1, 0)})
        assert enable_gqa or query.shape[1] == key.shape[1]
        outputs = []
        for index in range(len(query_ends) - 1):
            queries = query[query_ends[index] : query_ends[index + 1]]
            keys, values = (side[key_ends[index] : key_ends[index + 1]] for side in (key, value))
            allowed = torch.ones(len(queries), len(keys), dtype=torch.bool).tril(len(keys) - len(queries))
            sides = (side.transpose(0, 1)[None] for side in (queries, keys, values))
            outputs.append(dense_attention(*sides, allowed, scale)[0])
        return torch.cat(outputs)

    monkeypatch.setattr(attention_cuda, "_varlen_parameters", lambda: frozenset(known))
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", flash)
    torch.manual_seed(0)
    layout = Layout((Span(7, 4, 3, 6), Span(20, 5, 2, 8)), shared=7)
    sides = [torch.randn(1, heads, layout.tokens, 16).requires_grad_() for heads in (4, 2, 2)]
    results = []
    for output in (
        attention_cuda.varlen(*sides, layout, 0.3, None, None),
        dense_attention(*sides, visible(layout), 0.3),
    ):
        results.append((output, *torch.autograd.grad(output.square().sum(), sides)))
    for ours, oracle in zip(*results, strict=True):
        assert torch.allclose(ours, oracle, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "head_dim", "softcapped", "capability", "shared_memory", "expected"),
    [
        (torch.bfloat16, 128, False, (9, 0), 232448, "varlen"),  # H100, H200
        (torch.bfloat16, 128, False, (8, 9), 101376, "varlen"),  # RTX 40
        (torch.float16, 128, False, (7, 5), 65536, "pairwise"),  # T4: no flash attention
        (torch.bfloat16, 256, True, (8, 0), 166912, "flex"),  # A100 and a soft-capped Gemma 2
        (torch.bfloat16, 256, True, (8, 6), 101376, "pairwise"),  # RTX 30: FlexAttention's tiles do not fit
        (torch.float32, 64, False, (9, 0), 232448, "pairwise"),
        (torch.bfloat16, 100, False, (9, 0), 232448, "pairwise"),  # flash attention takes widths in eights
    ],
)
def test_a_card_gets_the_backend_that_fits_it(dtype, head_dim, softcapped, capability, shared_memory, expected):
    assert attention_cuda.backend_for(dtype, head_dim, softcapped, capability, shared_memory) == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attention_dropout": 0.1}, "attention_dropout"),
        ({"use_bidirectional_attention": True}, "not causal"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}}, "longest sequence"),
    ],
)
def test_models_that_cannot_share_say_why(changes, words):
    model = tiny.model()
    proof.install(model)
    for name, value in changes.items():
        setattr(model.config, name, value)
    policy = attention.row_policy(model)
    assert not policy.shared
    assert words in policy.reason


def test_a_user_who_chose_an_attention_keeps_it():
    model = tiny.model()
    assert attention.row_policy(model).reason == "model.attention is sdpa"


def longrope():
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0, 3.0, 2.0, 1.5],
    }
    return tiny.model(
        "phi3", rope_parameters=rope, max_position_embeddings=512, original_max_position_embeddings=64
    ).eval()


def test_long_rope_pairs_are_not_rotated_by_their_neighbours():
    """Phi-3 chooses its rotary factors by the longest position in the batch: a pair beyond the original length must not
    change the others, nor they it.
    """
    model = longrope()
    proof.install(model)
    policy = attention.row_policy(model)
    assert (policy.shared, policy.longest) == (True, 64)
    logps = PackedScorer(model)(collate(pairs([*LENGTHS, (50, 30, 5), (70, 20, 60)]), policy))
    with torch.no_grad():
        ours = pairs([*LENGTHS, (50, 30, 5), (70, 20, 60)])
        assert logps.chosen_avg.tolist() == pytest.approx(
            [plain_average(model, one.prompt_ids, one.chosen_ids) for one in ours], abs=2e-5
        )
        assert logps.rejected_avg.tolist() == pytest.approx(
            [plain_average(model, one.prompt_ids, one.rejected_ids) for one in ours], abs=2e-5
        )


@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral"])
def test_batched_generation_gives_the_text_of_plain_transformers(family):
    """Left-padded prompts of different lengths; a custom attention without a mask function would attend to the padding,
    without a word.
    """
    model = tiny.model(family).eval()
    plain = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**model.config.to_dict()), attn_implementation="eager"
    ).eval()
    plain.load_state_dict(model.state_dict())
    proof.install(model)
    prompts = [one.prompt_ids for one in pairs()]
    width = max(map(len, prompts))
    ids = torch.tensor([[2] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    ours, theirs = (
        one.generate(input_ids=ids, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=2)
        for one in (model, plain)
    )
    assert ours.tolist() == theirs.tolist()
