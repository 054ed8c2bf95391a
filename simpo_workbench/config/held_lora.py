"""The LoRA settings that hold: the configuration's, or where a run goes on with an adapter, the adapter's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: A setting of the section `lora` -> its name and default in PEFT's adapter_config.json.
_OF_PEFT = {
    "r": ("r", 8),
    "alpha": ("lora_alpha", 8),
    "dropout": ("lora_dropout", 0.0),
    "target_modules": ("target_modules", []),
    "use_rslora": ("use_rslora", False),
    "use_dora": ("use_dora", False),
}
#: Settings of an adapter that the section `lora` does not have: ranks and scales of single layers.
PATTERNS = ("rank_pattern", "alpha_pattern")
_LARGEST_FILE = 1_000_000  # bytes
_LONGEST_TEXT = 120


def lora_of_adapter(peft: Mapping[str, Any]) -> dict[str, Any]:
    """{setting of the section `lora`: value} of an adapter, with rank_pattern and alpha_pattern where it has them.

    peft: the values of its adapter_config.json. target_modules is a sorted list, or the text of a pattern.
    """
    values = {name: peft.get(theirs, default) for name, (theirs, default) in _OF_PEFT.items()}
    targets = values["target_modules"]
    if isinstance(targets, (list, set, tuple)):
        values["target_modules"] = sorted(map(str, targets))
    return values | {name: dict(peft[name]) for name in PATTERNS if isinstance(peft.get(name), dict) and peft[name]}


def lora_in(folder: str | Path) -> dict[str, Any] | None:
    """As `lora_of_adapter`, of the adapter in a folder; None where there is none, or its settings are damaged.

    What is damaged ends the load in a sentence; until then these settings are not known.
    """
    try:
        with open(Path(folder).expanduser() / "adapter_config.json", "rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        values = json.loads(data) if len(data) <= _LARGEST_FILE else None
    except (OSError, ValueError, RecursionError):
        return None
    return lora_of_adapter(values) if isinstance(values, dict) else None


def held_lora(config) -> dict[str, Any] | None:
    """{setting: value} that hold when a RunConfig is trained now: `lora`, or the own ones of model.adapter.

    None where that adapter's settings cannot be read.
    """
    return lora_in(config.model.adapter) if config.model.adapter else config.lora.model_dump()


def same_setting(value: Any, own: Any) -> bool:
    """Whether a setting of the section `lora` is what an adapter has; the order of layers does not count."""
    return sorted(value) == sorted(own) if isinstance(value, list) and isinstance(own, list) else value == own


def contradictions(config, held: dict[str, Any] | None) -> list[str]:
    """A sentence for each setting of `lora` that was named and is not what its adapter has, with both values.

    held: the adapter's own. Where a file or a form names all settings, those that have their default were not chosen,
    and are no contradiction.
    """
    if not config.model.adapter or held is None:
        return []
    names, chosen = list(type(config.lora).model_fields), config.lora.model_fields_set
    if chosen >= set(names):
        default = type(config.lora)()
        chosen = {name for name in names if getattr(config.lora, name) != getattr(default, name)}
    return [
        f"lora.{name} {value_text(getattr(config.lora, name))} is not used: the adapter has {name}"
        f" {value_text(held[name])} (model.adapter), and goes on with its own settings."
        for name in names
        if name in chosen and name in held and not same_setting(getattr(config.lora, name), held[name])
    ]


def adapter_note(config, held: dict[str, Any] | None) -> str:
    """A sentence on whose LoRA settings hold and what they are; "" for a run that begins a new adapter."""
    if not config.model.adapter:
        return ""
    if held is None:
        return "The LoRA settings are those of model.adapter, which cannot be read; the section lora is not used."
    return (
        f"The LoRA settings are those of model.adapter ({lora_text(held)}); the section lora of the configuration is"
        " not used."
    )


def lora_label(config, held: dict[str, Any] | None) -> str:
    """The rank of an adapter, "r16", and with model.adapter whose it is, "r8 of sft"; held: None for unknown."""
    if not config.model.adapter:
        return rank_text(held or config.lora.model_dump())
    name = config.model.adapter.rstrip("/").rpartition("/")[2]
    return f"{rank_text(held)} of {name}" if held else f"of {name}"


def rank_text(held: dict[str, Any]) -> str:
    """The ranks of an adapter, "r8", or "r4 to r16" where its layers differ."""
    ranks = [held["r"], *held.get("rank_pattern", {}).values()]
    whole = [rank for rank in ranks if isinstance(rank, int)]
    if len(set(whole)) > 1:
        return f"r{min(whole)} to r{max(whole)}"
    return f"r{value_text(held['r'])}"


def lora_text(held: dict[str, Any]) -> str:
    """All settings of an adapter in one line: "r 8, alpha 16, dropout 0, target_modules q_proj and v_proj, …"."""
    return ", ".join(f"{name} {value_text(value)}" for name, value in held.items())


def value_text(value: Any) -> str:
    """A setting as sentences show it: at most 120 characters, without line breaks."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        value = [f"{name}: {part}" for name, part in value.items()]
    text = " + ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
