"""A tiny random model of the same configuration class and kinds of layers as a given one, to try its structure on.

What decides how tokens meet (kinds of layers and their order, windows, rotary scaling, grouped heads, experts and how
they are chosen) stays; widths and counts shrink. Windows, chunks and top-k shrink below the length of the rows that
are tried, so that these reach beyond them.
"""

import copy
import itertools
import math

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from .dropout import turn_off_dropout

#: Sizes of the tiny model. HEAD_WIDTH is even, as rotary positions need.
WIDTH, HEAD_WIDTH, VOCABULARY, WINDOW = 64, 16, 320, 12
_FEW_HEADS = WIDTH // HEAD_WIDTH
_MOST_LAYERS = 12
#: Of weights, times the square root of their inputs: attention then looks at few tokens, and logits differ by nats.
_SPREAD = 1.0
#: Settings by name, and the most that the tiny model has of each. A setting that is None, 0 or smaller stays.
_AT_MOST = {
    **dict.fromkeys(
        (
            *("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "moe_intermediate_size"),
            *("shared_expert_intermediate_size", "shared_intermediate_size", "intermediate_size_mlp"),
            *("moe_shared_expert_intermediate_size", "expert_ffn_hidden_size", "expert_intermediate_size"),
            *("prefix_dense_intermediate_size", "dense_intermediate_size", "block_ff_dim", "mlp_hidden_size"),
        ),
        2 * WIDTH,
    ),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank"), 32),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "index_head_dim"), HEAD_WIDTH),
    **dict.fromkeys(
        (
            *("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts"),
            "moe_num_primary_experts",
        ),
        8,
    ),
    **dict.fromkeys(
        (
            *("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "moe_k", "top_k_experts"),
            *("num_selected_experts", "num_experts_per_layer", "zero_expert_num"),
        ),
        2,
    ),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "num_shared_experts", "moe_num_shared_experts"), 1),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "window_size", "sliding_window_size"), WINDOW),
    **dict.fromkeys(("index_topk", "index_n_heads"), 8),
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": HEAD_WIDTH,
    "laurel_rank": 8,
    **dict.fromkeys(("first_k_dense_replace", "num_kv_shared_layers"), 1),
    "rotary_dim": HEAD_WIDTH // 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": HEAD_WIDTH,
    "linear_value_head_dim": HEAD_WIDTH,
}
_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim", "model_dim")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "multi_query_group_num")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_VOCABULARIES = ("vocab_size", "padded_vocab_size")


class NoSmallModel(Exception):
    """No tiny model of a configuration could be built; the text says why."""


def small_model(config: PreTrainedConfig, seed: int = 0) -> torch.nn.Module:
    """A tiny fp32 model on the CPU with the structure of a model's text configuration, in evaluation mode.

    Its weights are random and large enough that every token's log-probability depends on the others. The caller's
    random state is not touched. Errors: NoSmallModel.
    """
    small = shrunk(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = AutoModelForCausalLM.from_config(small, dtype=torch.float32, attn_implementation="eager")
        except Exception as error:  # whatever a model class raises for sizes that it was not made for
            raise NoSmallModel(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from error
        _spread(model)
    turn_off_dropout(model)
    return model.float().eval()


def shrunk(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of the tiny model. config: of a text model; it is not changed. Errors: NoSmallModel."""
    values = copy.deepcopy(config.to_dict())
    for name in ("quantization_config", "compression_config", "dtype", "torch_dtype", "_name_or_path", "architectures"):
        values.pop(name, None)
    layers = _kept_layers(values)
    for name, value in values.items():
        if isinstance(value, list) and len(value) == layers.of:
            values[name] = value[: layers.count]
    values |= dict.fromkeys(filter(values.__contains__, _LAYERS), layers.count)
    if values.get("per_layer_config"):
        kept = {key: value for key, value in values["per_layer_config"].items() if int(key) < layers.count}
        values["per_layer_config"] = kept
    values |= _heads(values)
    values |= {name: _at_most(most, values[name]) for name, most in _AT_MOST.items() if name in values}
    values |= dict.fromkeys(filter(values.__contains__, _VOCABULARIES), VOCABULARY)
    for name in [name for name in values if name.endswith("_token_id")]:
        values[name] = None if values[name] is None else 0
    _fit_rotary_lists(values)
    try:
        return type(config)(**values)
    except Exception as error:  # a configuration class checks its values in its own way
        raise NoSmallModel(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from error


def _at_most(most, value):
    if isinstance(value, list):
        return [_at_most(most, one) for one in value]
    return min(most, value) if isinstance(value, int) and not isinstance(value, bool) else value


def _heads(values):
    """Widths and numbers of heads: four query heads, with one key head, two, or as many, as the model has it.

    Heads together are as wide as the model, or wider, as it is in the model.
    """
    name_of_heads = next((name for name in _HEADS if isinstance(values.get(name), int)), None)
    if name_of_heads is None:
        return {}
    heads = values[name_of_heads]
    key_heads = next((values[name] for name in _KEY_HEADS if isinstance(values.get(name), int)), heads)
    few_keys = _FEW_HEADS if key_heads == heads else min(key_heads, 2)
    hidden = next((values[name] for name in _HIDDEN if isinstance(values.get(name), int)), WIDTH)
    as_wide = (values.get("head_dim") or hidden // heads) * heads == hidden
    latent = "qk_rope_head_dim" in values  # its heads have widths of their own, see _AT_MOST
    head_width = HEAD_WIDTH if as_wide or latent else 2 * HEAD_WIDTH
    small = {name_of_heads: _FEW_HEADS}
    small |= {name: few_keys for name in _KEY_HEADS if name in values}
    small |= {name: WIDTH for name in _HIDDEN if isinstance(values.get(name), int)}
    small |= {name: head_width for name in ("head_dim", "swa_head_dim") if name in values}
    small |= {name: 2 * head_width for name in ("global_head_dim",) if values.get(name)}
    if "qk_head_dim" in values:
        small["qk_head_dim"] = 2 * HEAD_WIDTH
    own = values.get("per_layer_config") or {}
    if own:
        widths = {key: {"head_dim": 2 * head_width} if "head_dim" in more else more for key, more in own.items()}
        small["per_layer_config"] = widths
    return small


class _Layers:
    """How many of a model's layers the tiny one has: enough for one of every kind, and two at least."""

    def __init__(self, of: int, count: int):
        self.of, self.count = of, count


def _kept_layers(values):
    of = next((values[name] for name in _LAYERS if isinstance(values.get(name), int)), None)
    if not of:
        raise NoSmallModel("its configuration does not say how many layers it has")
    lists = [value for value in values.values() if isinstance(value, list) and len(value) == of]
    kinds = [tuple(map(repr, place)) for place in zip(*lists, strict=True)] or [()] * of
    firsts = [kinds.index(kind) for kind in set(kinds)]
    # kinds that come at intervals, such as one layer of attention in eight from the fifth on
    firsts += [value for name, value in values.items() if name.endswith("_layer_offset") and isinstance(value, int)]
    # a list of continuous values, such as one width per layer, has a kind for every layer
    return _Layers(of, min(of, max(2, min(_MOST_LAYERS, max(firsts) + 1))))


def _fit_rotary_lists(values):
    """Shorten lists with one entry per rotary frequency (long-rope's factors) to the tiny heads."""
    for rope in [values.get("rope_parameters"), *(values.get("rope_parameters") or {}).values()]:
        if isinstance(rope, dict):
            for name in ("short_factor", "long_factor"):
                if isinstance(rope.get(name), list):
                    count = int(HEAD_WIDTH * rope.get("partial_rotary_factor", 1.0)) // 2
                    rope[name] = [*itertools.islice(itertools.cycle(rope[name]), count)]
            if isinstance(rope.get("mrope_section"), list):
                rope["mrope_section"] = [HEAD_WIDTH // 2 - 2 * (len(rope["mrope_section"]) - 1)] + [2] * (
                    len(rope["mrope_section"]) - 1
                )


@torch.no_grad()
def _spread(model):
    """Draw all weights at one spread, whatever a model class begins with, and biases that are not zero."""
    for parameter in model.parameters():
        if not parameter.is_floating_point():
            continue
        if parameter.ndim > 1:
            parameter.normal_(0, _SPREAD / math.sqrt(parameter.shape[-1]))
        elif parameter.std(unbiased=False) == 0 and float(parameter.flatten()[0]) == 0:
            parameter.normal_(0, 0.1)  # biases
