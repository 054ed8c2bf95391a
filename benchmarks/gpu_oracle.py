"""Check every CUDA path against an oracle on the same numbers.

The paths: attention backends, the head, LoRA layers, a whole model, and a real out-of-memory error.
"""

import dataclasses
import random

import torch

from simpo_workbench.engine.encode.tokens import EncodedPair
from simpo_workbench.engine.forward import attention, attention_cuda, memory, proof, response_head
from simpo_workbench.engine.forward.logprobs import PackedScorer
from simpo_workbench.engine.forward.packing import Layout, RowPolicy, Span, collate
from simpo_workbench.engine.model import lora_linear

#: Largest relative norm of a difference; 16-bit weights and sums leave about 1e-2.
TOLERANCE = {torch.bfloat16: 2e-2, torch.float32: 1e-4}


def check_paths(device="cuda") -> dict[str, str]:
    """Verdict by name of path: "agrees, …", "skipped: …" or "WRONG, …".

    On a CPU only its own paths are checked, so that tests can run this file.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    verdicts = {}
    for name, check in _checks(device):
        try:
            verdicts[name] = check()
        except Exception as error:  # a path that raises is wrong too, and the other paths should still be checked
            verdicts[name] = f"WRONG, {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return verdicts


def _checks(device):
    for window in (None, 37):
        yield (
            f"varlen bf16, window {window}",
            lambda window=window: _attention(device, "varlen", torch.bfloat16, window, None),
        )
        yield (
            f"flex fp32, window {window}",
            lambda window=window: _attention(device, "flex", torch.float32, window, None),
        )
        yield (
            f"flex bf16, window {window}, soft-capped",
            lambda window=window: _attention(device, "flex", torch.bfloat16, window, 20.0),
        )
        yield (
            f"pairwise fp32, window {window}",
            lambda window=window: _attention(device, "pairwise", torch.float32, window, None),
        )
    yield "pairwise bf16, soft-capped", lambda: _attention(device, "pairwise", torch.bfloat16, None, 20.0)
    yield "flex bf16, another length", lambda: _attention(device, "flex", torch.bfloat16, None, 20.0, pairs=4)
    yield "dense bf16", lambda: _attention(device, "dense", torch.bfloat16, None, 20.0)
    yield "frozen head bf16", lambda: _head(device)
    yield "LoRA over bf16 weights", lambda: _lora(device, quantized=False)
    yield "LoRA over NF4 weights", lambda: _lora(device, quantized=True)
    yield "whole model, packed against padded", lambda: _model(device)
    yield "checkpointed layers", lambda: _checkpointed(device)
    yield "fp16 under autocast, a model that ends in LayerNorm", lambda: _half(device)
    yield "out of memory is recognized", lambda: _out_of_memory(device)


def _verdict(pairs, dtype):
    """ "agrees" or "WRONG" with the relative differences of (ours, oracle) tensors."""
    differences = [
        ((ours.float() - oracle.float()).norm() / oracle.float().norm().clamp_min(1e-12)).item()
        for ours, oracle in pairs
    ]
    agrees = all(difference <= TOLERANCE[dtype] for difference in differences)  # max() would let a NaN pass
    listed = ", ".join(f"{difference:.1e}" for difference in differences)
    return f"{'agrees' if agrees else 'WRONG'}, relative differences {listed}"


def _attention(device, backend, dtype, window, softcap, pairs=7):
    if device == "cpu" and backend not in ("dense", "pairwise"):
        return "skipped: no CUDA device"
    best = "pairwise" if device == "cpu" else _best(dtype, softcap)
    if backend == "flex" and device != "cpu" and _best(dtype, True) != "flex":
        return "skipped: FlexAttention's tiles do not fit this card, which uses the pairwise backend"
    if backend == "varlen" and best != "varlen":
        return f"skipped: this card uses {best}"
    shared = 40  # tokens of a system turn that all prompts begin with
    rng, spans, start = random.Random(0), [], shared
    for _ in range(pairs):
        span = Span(start, rng.randint(1, 300), rng.randint(1, 200), rng.randint(1, 200))
        spans.append(span)
        start += span.tokens
    layout = Layout(tuple(spans), shared, backend)
    torch.manual_seed(0)
    rows = [
        torch.randn(1, start, heads, 64, device=device, dtype=dtype).transpose(1, 2).requires_grad_()
        for heads in (8, 2, 2)
    ]
    downstream = torch.randn(1, start, 8, 64, device=device, dtype=dtype)
    output, _ = attention.packed_attention(
        None, *rows, None, scaling=0.125, sliding_window=window, softcap=softcap, layout=layout
    )
    wide = [row.detach().float().requires_grad_() for row in rows]
    oracle, _ = attention.packed_attention(
        None,
        *wide,
        None,
        scaling=0.125,
        sliding_window=window,
        softcap=softcap,
        layout=dataclasses.replace(layout, backend="dense", prepared={}),
    )
    gradients = zip(
        torch.autograd.grad(output, rows, downstream),
        torch.autograd.grad(oracle, wide, downstream.float()),
        strict=True,
    )
    return _verdict([(output, oracle), *gradients], dtype)


def _best(dtype, softcap):
    card = torch.cuda.get_device_properties(0)
    return attention_cuda.backend_for(
        dtype, 64, bool(softcap), (card.major, card.minor), getattr(card, "shared_memory_per_block_optin", 0)
    )


def _head(device):
    torch.manual_seed(0)
    head = torch.nn.Linear(256, 32_000, bias=False, device=device, dtype=torch.bfloat16).requires_grad_(False)
    hidden = torch.randn(3000, 256, device=device, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.randint(0, 32_000, (3000,), device=device)
    ours = response_head.token_logps(head, hidden, targets, response_head.HeadTransform(scale=2.0, softcap=10.0))
    wide = hidden.detach().float().requires_grad_()
    logits = 10.0 * torch.tanh(wide @ head.weight.float().T * 2.0 / 10.0)
    oracle = response_head.log_softmax_at(logits, targets)
    return _verdict(
        [(ours, oracle), (torch.autograd.grad(ours.sum(), hidden)[0], torch.autograd.grad(oracle.sum(), wide)[0])],
        torch.bfloat16,
    )


def _lora(device, quantized):
    from peft import LoraConfig, get_peft_model

    if quantized:
        try:
            from bitsandbytes.nn import Linear4bit
        except ImportError:
            return "skipped: bitsandbytes is not installed"
        linear = Linear4bit(256, 512, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    else:
        linear = torch.nn.Linear(256, 512, bias=False, dtype=torch.bfloat16)
    torch.manual_seed(0)
    model = get_peft_model(
        torch.nn.Sequential(linear), LoraConfig(r=8, lora_alpha=16, target_modules=["0"], init_lora_weights=False)
    ).to(device)
    x, results = torch.randn(50, 256, device=device, dtype=torch.bfloat16, requires_grad=True), []
    for fast in (False, True):
        if fast:
            lora_linear.install(model)
        output = model(x)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        results.append((output, *torch.autograd.grad(output.float().square().sum(), [x, *trained])))
    return _verdict(list(zip(*reversed(results), strict=True)), torch.bfloat16)


def _tiny(device, dtype=torch.bfloat16, family="llama"):
    """(model, pairs): a small model with a frozen base and LoRA, as in a run, and six encoded pairs."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    shape = {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 1000,
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape), dtype=dtype).to(device)
    proof.install(model)
    model = get_peft_model(
        model, LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "o_proj"], init_lora_weights=False)
    )
    lora_linear.install(model)
    rng = random.Random(0)
    pairs = [
        EncodedPair(str(index), *([rng.randrange(1000) for _ in range(rng.randint(1, 150))] for _ in range(3)))
        for index in range(6)
    ]
    return model, pairs


def _gradients(device, model, pairs, policy):
    model.zero_grad()
    logps = PackedScorer(model)(collate(pairs, policy).to(device))
    (logps.chosen_avg - 2 * logps.rejected_avg).sum().backward()
    return torch.cat([logps.chosen_avg, logps.rejected_avg]).detach(), torch.cat(
        [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    )


def _model(device):
    model, pairs = _tiny(device)
    packed = _gradients(device, model, pairs, attention.row_policy(model))
    padded = _gradients(device, model, pairs, RowPolicy(shared=False))
    return _verdict(list(zip(packed, padded, strict=True)), torch.bfloat16)


def _checkpointed(device):
    model, pairs = _tiny(device)
    model.train()
    plain = _gradients(device, model, pairs, attention.row_policy(model))
    memory.checkpoint_layers(model, 3)
    checkpointed = _gradients(device, model, pairs, attention.row_policy(model))
    return _verdict(list(zip(checkpointed, plain, strict=True)), torch.bfloat16)


def _half(device):
    """Verdict on what runs on cards without bf16: fp16 weights, autocast, and an fp32 input of the head."""
    if device == "cpu":
        return "skipped: no CUDA device"
    model, pairs = _tiny(device, torch.float16, "starcoder2")
    wide, _ = _tiny(device, torch.float32, "starcoder2")
    wide.load_state_dict(model.state_dict())
    with torch.autocast("cuda", torch.float16):
        ours = _gradients(device, model, pairs, attention.row_policy(model))
    oracle = _gradients(device, wide, pairs, RowPolicy(shared=False))
    return _verdict(list(zip(ours, oracle, strict=True)), torch.bfloat16)


def _out_of_memory(device):
    try:
        torch.empty(1 << 50, dtype=torch.uint8, device=device)
    except Exception as error:
        return "agrees" if memory.is_out_of_memory(error) else f"WRONG, not recognized: {error}"
    return "WRONG, a pebibyte was allocated"
