"""Whether a model may be given packed rows with shared prompts: shown on a tiny model of its structure, not looked up.

The tiny model (`small_model`) scores the same pairs in three ways: each answer alone by a plain forward pass, in padded
rows, and in packed rows. Values and the gradients of temporary adapters must agree, and no answer may move when another
answer or another pair changes. Base weights, adapters and random states of the user's model take no part in it.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import random
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from ...base.errors import WorkbenchError
from ...base.files import read_json, write_json
from ...base.paths import cache_folder
from ..encode.tokens import EncodedPair
from . import attention
from .decoder_layers import linear_layers
from .logprobs import PackedScorer
from .packing import RowPolicy, collate
from .response_head import HeadTransform, log_softmax_at
from .small_model import VOCABULARY, NoSmallModel, shrunk, small_model

#: Differences that fp32 sums in another order may make: nats of an answer's average log-probability, and the norm of a
#: parameter's gradient relative to its size. Seen: up to 3e-6 and 5e-6; a token that looks at a wrong place changes
#: log-probabilities by 1e-2 and more.
LOGP_DIFFERENCE, GRADIENT_DIFFERENCE = 1e-5, 2e-5
#: Nats by which an answer may move when others change: nothing, or in a mixture of experts the order in which an expert
#: adds its tokens.
MOVED_IN_A_MIXTURE = 1e-6
#: (prompt, chosen, rejected) tokens of the pairs: answers of one token, rows beyond every window, one pair that the
#: attention for CPUs takes block by block. All prompts of three tokens or more begin alike.
LENGTHS = ((1, 1, 2), (14, 1, 9), (20, 30, 12), (9, 2, 60), (40, 25, 33), (150, 90, 70))
_COMMON_BEGINNING = 7
_RANK = 4


@dataclasses.dataclass(frozen=True)
class StructureProof:
    """What is right for a structure. shared: packed rows with shared prompts. padded: several sequences at a time, one
    per padded row; otherwise each sequence goes through alone. head: the transform after the head; None where it is not
    known, and the model computes the logits itself. reason: why prompts are not shared, with figures, or empty.
    logp_difference, gradient_difference: the largest between packed rows and plain passes; None where prompts
    are not shared.
    """

    shared: bool
    padded: bool
    head: HeadTransform | None
    reason: str = ""
    logp_difference: float | None = None
    gradient_difference: float | None = None


class _Differs(Exception):
    """Two ways differ; the text says in what and by how much."""


def install(model: torch.nn.Module, keep_attention: bool = False) -> None:
    """Give a model its proof as `model.proof`, and packed attention where that is right.

    Generation and padded rows go to transformers' own attention, as before. The model keeps packed attention during
    backward as well, because checkpointed layers run again there. keep_attention: the user chose another one.
    """
    config = model.config.get_text_config()
    model.proof = proof_of(config)
    if model.proof.shared and not attention.refusal(config) and not keep_attention:
        attention.register()
        model.set_attn_implementation(attention.NAME)


def proof_of(config) -> StructureProof:
    """The proof for a model's text configuration, made once per structure and kept in the user's cache."""
    try:
        small = shrunk(config)
    except NoSmallModel as error:
        return _unproved(f"no tiny model of its kind could be tried ({error})")
    structure = json.dumps(small.to_dict(), sort_keys=True, default=repr)
    key = hashlib.sha256(f"{type(config).__name__} {structure} {_made_of()}".encode()).hexdigest()
    if key not in _KNOWN:
        path = cache_folder() / "proofs" / f"{key[:40]}.json"
        _KNOWN[key] = _stored(path) or _proved_and_kept(config, path)
    return _KNOWN[key]


_KNOWN: dict[str, StructureProof] = {}


def _proved_and_kept(config, path):
    proof = prove_structure(config)
    with contextlib.suppress(OSError, WorkbenchError):  # without a cache it is proved again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, dataclasses.asdict(proof), durable=False)
    return proof


def _stored(path):
    """The proof in a file, or None where there is none that is whole."""
    values = read_json(path)
    if not values or values.keys() != {field.name for field in dataclasses.fields(StructureProof)}:
        return None
    head = values.pop("head")
    return StructureProof(**values, head=None if head is None else HeadTransform(**head))


@functools.cache
def _made_of():
    """What a proof depends on beside the structure: versions, and the sources that score packed rows."""
    versions = [importlib.metadata.version(name) for name in ("torch", "transformers", "peft")]
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return f"{versions} {hashlib.sha256(sources).hexdigest()}"


def prove_structure(config) -> StructureProof:
    """The ways in which models of this structure may be given pairs, tried with fp32 on the CPU in about a second.

    config: of the text model.
    """
    try:
        model = small_model(config)
        model = _with_adapters(model, linear_layers(model))
        pairs = _pairs()
        plain = _plain(model, pairs)
    except NoSmallModel as error:
        return _unproved(f"no tiny model of its kind could be tried ({error})")
    except Exception as error:  # whatever a model class raises on rows that it was not made for
        return _unproved(f"its tiny model could not be tried ({_words(error)})")
    head = _head(model, pairs, plain)
    model.proof = StructureProof(True, True, head)  # what is tried now
    padded = not _fault(lambda: _require_equal(_scored(model, pairs, RowPolicy(shared=False)), plain))
    try:
        attention.register()
        model.set_attn_implementation(attention.NAME)
        policy = RowPolicy(shared=True, longest=attention.longest_together(model.config.get_text_config()))
        differences = _require_equal(_scored(model, pairs, policy), plain)
        _require_isolated(model, pairs, policy, _is_mixture(model))
    except _Differs as error:
        return StructureProof(False, padded, head, f"in packed rows of a tiny model of its kind, {error}")
    except Exception as error:
        return StructureProof(False, padded, head, f"a tiny model of its kind takes no packed rows ({_words(error)})")
    return StructureProof(True, padded, head, "", *differences)


def _unproved(reason):
    return StructureProof(False, False, None, reason)


def _with_adapters(model, names):
    """The model with LoRA whose B is not zero, because a new adapter's B = 0 would hide every gradient of A."""
    if not names:
        raise NoSmallModel("it has no linear layer for an adapter")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        lora = LoraConfig(r=_RANK, lora_alpha=2 * _RANK, target_modules=names, init_lora_weights=False)
        # without dropout anywhere, training mode is only what switches checkpointing on
        return get_peft_model(model, lora).train()


def _pairs():
    draw = random.Random(2)
    common = [draw.randrange(3, VOCABULARY) for _ in range(_COMMON_BEGINNING)]
    pairs = []
    for index, lengths in enumerate(LENGTHS):
        prompt, chosen, rejected = ([draw.randrange(3, VOCABULARY) for _ in range(count)] for count in lengths)
        if len(prompt) > _COMMON_BEGINNING:
            prompt[:_COMMON_BEGINNING] = common
        pairs.append(EncodedPair(str(index), prompt, chosen, rejected))
    rejected = [*pairs[2].chosen_ids[:5], *pairs[2].rejected_ids[5:]]  # two answers that begin alike
    pairs[2] = dataclasses.replace(pairs[2], rejected_ids=rejected)
    return pairs


def _plain(model, pairs):
    """As `_scored`, by the model's own forward pass and logits for each answer alone."""
    averages = []
    for side in ("chosen_ids", "rejected_ids"):
        for pair in pairs:
            answer = getattr(pair, side)
            ids = torch.tensor([pair.prompt_ids + answer])
            logits = model(input_ids=ids, use_cache=False).logits[0, len(pair.prompt_ids) - 1 : -1]
            averages.append(log_softmax_at(logits, torch.tensor(answer)).mean())
    return _with_gradients(model, torch.stack(averages))


def _scored(model, pairs, policy):
    """(average log-probabilities (2 × pairs,), gradient of every adapter parameter by name)."""
    logps = PackedScorer(model)(collate(pairs, policy))
    return _with_gradients(model, torch.cat([logps.chosen_avg, logps.rejected_avg]))


def _with_gradients(model, averages):
    # every answer counts differently, so that no two faults cancel
    (averages * torch.linspace(1, -2, len(averages))).sum().backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad(set_to_none=True)
    return averages.detach(), gradients


def _require_equal(ours, plain):
    """(largest difference of log-probabilities, of gradients). Errors: _Differs beyond what rounding explains."""
    (logps, gradients), (plain_logps, plain_gradients) = ours, plain
    apart = float((logps - plain_logps).abs().max())
    if not apart <= LOGP_DIFFERENCE:
        raise _Differs(f"an answer's average log-probability is {apart:.2g} nats off")
    if gradients.keys() != plain_gradients.keys():
        name = next(iter(gradients.keys() ^ plain_gradients.keys()))
        raise _Differs(f"the gradient of {name} is missing in one of the ways")
    size = sum(float(gradient.square().sum()) for gradient in plain_gradients.values()) ** 0.5
    worst = 0.0
    for name, gradient in plain_gradients.items():
        # a parameter that hardly takes part has a gradient of rounding errors
        off = float((gradients[name] - gradient).norm()) / max(float(gradient.norm()), 1e-3 * size)
        if not off <= GRADIENT_DIFFERENCE:
            raise _Differs(f"the gradient of {name} is {off:.2g} of its size off")
        worst = max(worst, off)
    return apart, worst


def _require_isolated(model, pairs, policy, mixture):
    """Errors: _Differs when an answer moves with the other answer of its pair, or with another pair."""
    most, draw = MOVED_IN_A_MIXTURE if mixture else 0.0, random.Random(3)

    def again(ids):
        return [draw.randrange(3, VOCABULARY) for _ in ids]

    first = _logps(model, pairs, policy)
    changed = [dataclasses.replace(pair, chosen_ids=again(pair.chosen_ids)) for pair in pairs]
    _require_still(first.rejected, _logps(model, changed, policy).rejected, most, "the other answer of its pair")
    for kept in range(len(pairs)):
        changed = [
            pair
            if index == kept
            else EncodedPair(
                pair.pair_id,
                pair.prompt_ids[:_COMMON_BEGINNING] + again(pair.prompt_ids[_COMMON_BEGINNING:]),
                again(pair.chosen_ids),
                again(pair.rejected_ids),
            )
            for index, pair in enumerate(pairs)
        ]
        moved = _logps(model, changed, policy)
        for side in ("chosen", "rejected"):
            _require_still(getattr(first, side)[kept], getattr(moved, side)[kept], most, "another pair")


@torch.no_grad()
def _logps(model, pairs, policy):
    return PackedScorer(model)(collate(pairs, policy))


def _require_still(before, after, most, what):
    moved = float((before - after).abs().max())
    if not moved <= most:
        raise _Differs(f"an answer's log-probability moves by {moved:.2g} nats with the tokens of {what}")


def _head(model, pairs, plain):
    """The transform after the head that gives the model's own log-probabilities; None where none of ours does."""
    head = HeadTransform.named_by(model.config.get_text_config())
    model.proof = StructureProof(True, True, head)
    alone = RowPolicy(shared=False, longest=0)
    return None if _fault(lambda: _require_equal(_scored(model, pairs, alone), plain)) else head


def _fault(trial):
    """What is wrong in a trial, or None."""
    try:
        trial()
    except Exception as error:
        return error
    return None


def _is_mixture(model):
    return any("expert" in name for name, _ in model.named_modules())


def _words(error):
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
