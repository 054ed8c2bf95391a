"""How a base model's weights are kept: quantized while they load, or as they are stored."""

import torch
from transformers import BitsAndBytesConfig

from ...base.errors import WorkbenchError
from ...config.run_config import ModelConfig

#: Values of model.load_in for which bitsandbytes quantizes while it loads.
QUANTIZED = ("nf4", "fp4", "int8")


def stored_form(model_config) -> dict | None:
    """The quantization settings in a model's configuration as a dictionary, also those of its text part; None for
    unquantized weights.
    """
    for config in (model_config, model_config.get_text_config()):
        settings = getattr(config, "quantization_config", None) or getattr(config, "compression_config", None)
        if settings:
            return settings if isinstance(settings, dict) else settings.to_dict()
    return None


def quantization(
    config: ModelConfig, model_config, compute: torch.dtype
) -> tuple[BitsAndBytesConfig | None, str | None]:
    """(what `from_pretrained` is given, a sentence where the weights are not kept as model.load_in says).

    Weights stored as bitsandbytes 4-bit are used as they are, whatever load_in says; `model_config` is then changed to
    compute in `compute`. Errors: WorkbenchError for weights that are stored quantized in another form.
    """
    stored = stored_form(model_config)
    if stored is None:
        return _while_loading(config, compute), None
    method = str(stored.get("quant_method") or ("bitsandbytes" if stored.get("load_in_4bit") else "unknown"))[:40]
    if method.startswith("bitsandbytes") and (stored.get("load_in_4bit") or stored.get("_load_in_4bit")):
        kind = str(stored.get("bnb_4bit_quant_type") or "fp4")[:20]  # bitsandbytes' own default
        settings = {**stored, "bnb_4bit_compute_dtype": str(compute).removeprefix("torch.")}
        model_config.quantization_config = settings
        if kind == config.load_in:
            return None, f"The model is stored as {kind} already and used as it is, without quantizing it again."
        return None, (
            f"The model is stored as {kind} (bitsandbytes, 4 bits) and used as it is: model.load_in {config.load_in}"
            f" does not change its weights, which compute in {settings['bnb_4bit_compute_dtype']}."
        )
    bits = stored.get("bits") or (8 if stored.get("load_in_8bit") or stored.get("_load_in_8bit") else None)
    raise WorkbenchError(
        f"The model {config.name!r} is stored quantized as {method}{f', {bits} bits' if bits else ''}: only"
        " unquantized weights and bitsandbytes 4-bit ones can be trained on. Choose its unquantized version (often the"
        " same name without the ending, such as -GPTQ, -AWQ, -FP8); model.load_in nf4 then keeps it in 4 bits."
    )


def _while_loading(config, compute):
    if config.load_in not in QUANTIZED:
        return None
    if config.load_in == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=config.load_in,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
