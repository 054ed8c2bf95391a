"""What a user would lose: answers that look at each other, wrong distances, or a sampled text that differs from plain
transformers.
"""

import dataclasses
import random

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from simpo_workbench.engine.encode.tokens import EncodedPair
from simpo_workbench.engine.forward import attention, attention_blocked, attention_cuda, memory
from simpo_workbench.engine.forward.logprobs import PackedScorer
from simpo_workbench.engine.forward.packing import Layout, RowPolicy, Span, collate, dense_attention, visible

LENGTHS = [(1, 1, 1), (5, 1, 7), (20, 30, 12), (40, 25, 33), (3, 2, 60), (12, 12, 12)]
COMMON_BEGINNING = [(10, 1, 7), (20, 30, 12), (12, 2, 60), (40, 25, 33), (12, 12, 12)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Tiny pairs take every path of the CPU backend: some go side by side, some block by block."""
    monkeypatch.setattr(attention_blocked, "SHORT_PAIR_TOKENS", 40)
    monkeypatch.setattr(attention_blocked, "QUERIES_PER_BLOCK", 16)
    monkeypatch.setattr(attention_blocked, "KEPT_PAIR_TOKENS", 50)


def pairs(lengths=LENGTHS, seed=1):
    rng = random.Random(seed)
    made = [[[rng.randrange(10, 390) for _ in range(count)] for count in counts] for counts in lengths]
    made[3][2][:10] = made[3][1][:10]  # answers with a common beginning
    if lengths is COMMON_BEGINNING:
        for prompt, _, _ in made:
            prompt[:9] = made[0][0][:9]
    return [EncodedPair(str(index), *ids) for index, ids in enumerate(made)]


def with_lora(family, **shape):
    model = tiny.model(family, **shape)
    attention.install(model)
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lm_head" not in name and name.rsplit(".")[-1] != "gate"
    ]
    torch.manual_seed(3)
    wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False))
    return wrapped.train()


def outcome(model, policy, lengths=LENGTHS):
    """(average log-probabilities, gradient of every trained parameter by name)."""
    model.zero_grad()
    logps = PackedScorer(model)(collate(pairs(lengths), policy))
    (logps.chosen_avg - 2 * logps.rejected_avg).sum().backward()
    return torch.cat([logps.chosen_avg, logps.rejected_avg]).detach(), {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }


def plain_average(model, prompt, answer):
    """One sequence alone through the model as transformers runs it."""
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0]
    return (
        torch.log_softmax(logits.float(), -1)[range(len(prompt) - 1, len(prompt) + len(answer) - 1), answer]
        .mean()
        .item()
    )


@pytest.mark.parametrize("lengths", [LENGTHS, COMMON_BEGINNING], ids=["own prompts", "common beginning"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_packed_rows_equal_the_oracle_and_one_plain_pass_per_answer(family, lengths):
    """Log-probabilities and every LoRA gradient, on the backend in use, the dense-mask oracle and padded rows of whole
    sequences.

    fp32 sums over up to 80 keys in another order differ by a few 1e-7 of their size; 2e-5 holds that a hundred times
    over, and a token that looks at a wrong place changes log-probabilities by 1e-2 and more.
    """
    model = with_lora(family)
    policy = attention.row_policy(model)
    assert policy == RowPolicy(shared=True)
    assert collate(pairs(lengths), policy).blocks[0].layout.shared == (9 if lengths is COMMON_BEGINNING else 0)
    logps, gradients = outcome(model, policy, lengths)
    assert len(gradients) >= 2 * 3 * 4  # A and B of four layers or more in each of three blocks
    for other in (dataclasses.replace(policy, backend="dense"), RowPolicy(shared=False)):
        oracle_logps, oracle_gradients = outcome(model, other, lengths)
        assert torch.allclose(logps, oracle_logps, atol=2e-5, rtol=0)
        assert oracle_gradients.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert (gradient - oracle_gradients[name]).norm() <= 2e-5 * oracle_gradients[name].norm(), name
    with torch.no_grad():
        plain = [
            plain_average(model, one.prompt_ids, answer)
            for side in ("chosen_ids", "rejected_ids")
            for one, answer in ((one, getattr(one, side)) for one in pairs(lengths))
        ]
    assert logps.tolist() == pytest.approx(plain, abs=2e-5)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_checkpointing_changes_no_bit(family):
    model = with_lora(family)
    forwards = []
    memory.layers_of(model)[1].self_attn.register_forward_pre_hook(lambda *_: forwards.append(None))
    logps, gradients = outcome(model, attention.row_policy(model))
    assert len(forwards) == 1
    memory.checkpoint_layers(model, 3)
    again_logps, again = outcome(model, attention.row_policy(model))
    assert len(forwards) == 3  # once more in backward
    assert torch.equal(logps, again_logps)
    assert all(torch.equal(gradients[name], again[name]) for name in gradients)


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


@pytest.mark.parametrize("lengths", [LENGTHS, COMMON_BEGINNING], ids=["own prompts", "common beginning"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("changed", ["chosen of the same pair", "another pair"])
def test_isolation_to_the_last_bit(family, changed, lengths):
    model = tiny.model(family).eval()
    attention.install(model)
    policy, ours = attention.row_policy(model), pairs(lengths)
    theirs = [dataclasses.replace(one, chosen_ids=[11] * len(one.chosen_ids)) for one in ours]
    if changed == "another pair":
        theirs = [
            ours[0],
            *(
                dataclasses.replace(one, prompt_ids=[*one.prompt_ids[:9], *([12] * (len(one.prompt_ids) - 9))])
                for one in theirs[1:]
            ),
        ]
    first, second = (PackedScorer(model)(collate(group, policy)) for group in (ours, theirs))
    assert not torch.equal(first.chosen, second.chosen)
    if changed == "another pair":
        assert torch.equal(
            torch.stack([first.chosen[0], first.rejected[0]]), torch.stack([second.chosen[0], second.rejected[0]])
        )
    else:
        assert torch.equal(first.rejected, second.rejected)


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


@pytest.mark.parametrize("family", tiny.HYBRIDS)
def test_hybrid_models_are_refused_and_still_scored_right(family):
    model = tiny.model(family).eval()
    attention.install(model)
    policy = attention.row_policy(model)
    assert not policy.shared
    assert family in policy.reason
    logps = PackedScorer(model)(collate(pairs(), policy))
    with torch.no_grad():
        plain = [plain_average(model, one.prompt_ids, one.chosen_ids) for one in pairs()]
    assert logps.chosen_avg.tolist() == pytest.approx(plain, abs=2e-5)
    wrapped = with_lora(family)
    _, gradients = outcome(wrapped, policy)
    _, alone = outcome(wrapped, RowPolicy(shared=False, longest=0))  # every sequence in a row of its own
    assert gradients
    for name, gradient in alone.items():
        assert (gradients[name] - gradient).norm() <= 2e-5 * gradient.norm().clamp_min(1e-6), name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "something_new"}, "something_new"),
        ({"layer_types": ["full_attention", "linear_attention", "full_attention"]}, "linear_attention"),
        ({"attention_dropout": 0.1}, "attention_dropout"),
        ({"use_bidirectional_attention": True}, "not causal"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}}, "longest sequence"),
    ],
)
def test_models_that_cannot_share_say_why(changes, words):
    model = tiny.model()
    attention.install(model)
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
    attention.install(model)
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
    attention.install(model)
    prompts = [one.prompt_ids for one in pairs()]
    width = max(map(len, prompts))
    ids = torch.tensor([[2] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    ours, theirs = (
        one.generate(input_ids=ids, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=2)
        for one in (model, plain)
    )
    assert ours.tolist() == theirs.tolist()
