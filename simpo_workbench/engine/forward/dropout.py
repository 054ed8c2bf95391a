"""Dropout of the base model is off in training: SimPO compares two answers, and a mask of its own for each is noise."""

from torch import nn


def turn_off_dropout(model: nn.Module) -> dict[str, float]:
    """The rates above 0 that a model's configuration names, {name: rate}; every dropout in the model is 0 afterwards.

    To be called before an adapter is added, whose own dropout (lora.dropout) stays. TRL does the same
    (disable_dropout). Modes stay as they are, because transformers checkpoints layers in training mode alone.
    """
    rates = {}
    config = model.config.get_text_config()
    for name, rate in config.to_dict().items():
        if _is_rate(name, rate):
            rates[name] = float(rate)
            setattr(config, name, 0.0)
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        # attention and layers that call torch.nn.functional.dropout keep their rate as a number
        for name, rate in list(vars(module).items()):
            if _is_rate(name, rate):
                setattr(module, name, 0.0)
    return rates


def dropout_note(rates: dict[str, float]) -> str:
    """The sentence on rates that were turned off."""
    named = ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
    return f"The base model's own dropout ({named}) is off; lora.dropout is the adapter's."


def _is_rate(name, value):
    return "drop" in name and isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
