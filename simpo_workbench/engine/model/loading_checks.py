"""Checks that a loaded model has exactly the weights in its folder, in the shapes that its configuration says.

transformers gives a weight that the files lack random values, differently at every load, and only logs it.
"""

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open

from ...base.errors import WorkbenchError
from ...base.format import counted

#: Stored weights that a model may do without, by name; transformers itself excepts more for some models.
OPTIONAL_WEIGHTS = {
    r"(^|\.)rotary_emb\.\w+$": "tables of rotary embeddings, which are computed",
    r"\.(attn|attention)\.(bias|masked_bias)$": "causal masks of GPT-2 and its kin, which are computed",
    r"(^|\.)position_ids$": "the numbers of positions, which are computed",
    r"(^|\.)mtp(_layers)?\.": "heads that predict several tokens at once",
    r"^(model\.)?(visual|vision_\w+|multi_modal_projector|audio_\w+|embed_vision|embed_audio)\.": (
        "the parts for images and sound of a model whose text part is loaded"
    ),
}
OPTIONAL = re.compile("|".join(f"({pattern})" for pattern in OPTIONAL_WEIGHTS))
_FLOATS = ("F16", "BF16", "F32", "F64")
_REMEDY = "Get the model again, or choose another version."


def require_loaded_whole(model, loading_info: dict, name: str) -> None:
    """Raise WorkbenchError unless all weights of a model were read from its files, and all that the files hold is used.

    loading_info: that of transformers' `from_pretrained`, which leaves tied weights out. name: model.name.
    """
    missing = sorted(loading_info["missing_keys"])
    unexpected = sorted(key for key in loading_info["unexpected_keys"] if not OPTIONAL.search(key))
    shapes = [
        f"{key} has the shape {_shape(stored)}, expected {_shape(expected)}"
        for key, stored, expected in sorted(loading_info["mismatched_keys"])
    ] or _misshapen(model)
    if missing:
        head = model.get_output_embeddings()
        hint = _REMEDY
        if missing == ["lm_head.weight"] and head is not None:
            hint = "If it shares the embedding's weights, tie_word_embeddings in config.json must be true."
        raise WorkbenchError(
            f"The model {name!r} cannot be loaded: {counted_weights(missing)} missing from its files, which would"
            f" have random values. {hint}"
        )
    if shapes:
        more = f" (and {len(shapes) - 1} more)" if len(shapes) > 1 else ""
        raise WorkbenchError(
            f"The model {name!r} cannot be loaded: the weight {shapes[0]} by config.json{more}. The weights and"
            f" config.json belong to different models. {_REMEDY}"
        )
    if unexpected:
        raise WorkbenchError(
            f"The model {name!r} cannot be loaded: its files hold {counted(len(unexpected), 'weight')} that a"
            f" {type(model).__name__} has no use for, such as {unexpected[0]!r}: it would be another model than the"
            " one that was trained. config.json does not belong to these weights, or the model is not made to write"
            f" text. {_REMEDY}"
        )


def require_float_weights(stored: list, name: str) -> None:
    """Raise WorkbenchError if a model without quantization settings has integers or 8-bit floats as weights.

    Tables of token ids are stored as 64-bit integers, which no quantization uses. stored: as from `stored_weights`.
    """
    for key, dtype, shape in stored:
        if dtype not in _FLOATS and dtype != "I64" and len(shape) > 1 and not OPTIONAL.search(key):
            raise WorkbenchError(
                f"The model {name!r} cannot be loaded: the weight {key!r} is stored as {dtype}, and config.json has no"
                " quantization_config that says what the numbers mean. Choose its unquantized version."
            )


def require_decoder(model_config, name: str) -> None:
    """Raise WorkbenchError for a model that reads a text with one part and writes with another."""
    if getattr(model_config, "is_encoder_decoder", False):
        raise WorkbenchError(
            f"The model {name!r} cannot be loaded: it is an encoder with a decoder (is_encoder_decoder in config.json),"
            " and only models that go on with their text are trained here."
        )


def require_token_ids(generation_config, name: str) -> None:
    """Raise WorkbenchError unless the token ids in a model's generation configuration are whole numbers."""
    for setting in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(generation_config, setting, None)
        numbers = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
            raise WorkbenchError(
                f"The model {name!r} cannot be loaded: {setting} in its generation_config.json (or config.json) is"
                f" {str(value)[:60]!r}, expected a token id or a list of them. Get the file again."
            )


def stored_weights(folder: Path) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name, type such as "BF16", shape) of every tensor in a folder's safetensors files; only headers are read."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (no dictionary)
                part = file.get_slice(key)
                yield key, part.get_dtype(), tuple(part.get_shape())


def counted_weights(names: list[str]) -> str:
    """Such as "3 weights ('model.norm.weight' and others) are", for a sentence."""
    if len(names) == 1:
        return f"the weight {names[0]!r} is"
    return f"{len(names)} weights ({names[0]!r} and others) are"


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Within this block transformers logs no table of keys: what is wrong with them becomes a sentence.

    Its loggers are switched off, not set to a level: where the level is high, transformers compares the layers with a
    plan for several devices, which there is none of, and prints those that are not in it.
    """
    loggers = [logging.getLogger(f"transformers.{module}") for module in ("modeling_utils", "core_model_loading")]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _misshapen(model):
    """Sentences on quantized layers whose weights have another shape than the layer: transformers compares none."""
    found = []
    for key, module in model.named_modules():
        if not hasattr(module, "in_features") or not hasattr(module, "out_features"):
            continue
        weight, expected = getattr(module, "weight", None), (module.out_features, module.in_features)
        if not isinstance(weight, torch.Tensor):
            continue
        if type(module).__name__ == "Linear4bit":
            state = getattr(weight, "quant_state", None)
            if state is None or state.absmax is None:
                found.append(f"{key}.weight lacks its scales (absmax) for the shape {_shape(expected)}")
            elif tuple(state.shape) != expected:
                found.append(f"{key}.weight has the shape {_shape(state.shape)}, expected {_shape(expected)}")
        elif tuple(weight.shape) != expected:
            found.append(f"{key}.weight has the shape {_shape(weight.shape)}, expected {_shape(expected)}")
    return found


def _shape(sizes):
    return " × ".join(map(str, sizes))
