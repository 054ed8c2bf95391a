"""What sections and settings are made of: their facts for forms, YAML and options, and errors that say what to do."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from ..base.errors import WorkbenchError
from ..base.redaction import holds_secret, redact

#: Keys of other tools (TRL, LLaMA-Factory, ms-swift) and what the same is called here.
FOREIGN_KEYS = {
    "simpo_gamma": "loss.gamma (or loss.gamma_beta_ratio = γ/β)",
    "gamma_beta": "loss.gamma_beta_ratio",
    "simpo_beta": "loss.beta",
    "pref_beta": "loss.beta",
    "pref_loss": "loss.kind",
    "loss_type": "loss.kind",
    "rlhf_type": "loss.kind",
    "cpo_alpha": "loss.sft_weight (0 is pure SimPO; TRL's own default of 1 is not)",
    "pref_ftx": "loss.sft_weight",
    "rpo_alpha": "loss.sft_weight",
    "model_name_or_path": "model.name",
    "model_id": "model.name",
    "adapter_name_or_path": "model.adapter",
    "adapters": "model.adapter",
    "quantization_bit": "model.load_in",
    "quant_bits": "model.load_in",
    "load_in_4bit": "model.load_in: nf4",
    "load_in_8bit": "model.load_in: int8",
    "attn_implementation": "model.attention",
    "attn_impl": "model.attention",
    "flash_attn": "model.attention",
    "dataset_name": "data.train",
    "val_dataset": "data.eval",
    "eval_dataset": "data.eval",
    "split_dataset_ratio": "data.eval_fraction",
    "system": "data.system_prompt",
    "cutoff_len": "data.max_tokens",
    "max_length": "data.max_tokens",
    "max_seq_length": "data.max_tokens",
    "truncation_strategy": "data.overlong",
    "max_samples": "data.limit",
    "lora_r": "lora.r",
    "lora_rank": "lora.r",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "lora_target": "lora.target_modules",
    "lora_target_modules": "lora.target_modules",
    "num_train_epochs": "training.epochs",
    "lr": "training.learning_rate",
    "lr_scheduler_type": "training.scheduler",
    "optim": "training.optimizer",
    "eval_steps": "training.eval_every",
    "save_steps": "training.save_every",
    "output_dir": "run.root and run.name",
    "run_name": "run.name",
}
#: Keys of other tools for which there is no setting with the same meaning: what to do instead.
FOREIGN_MEANINGS = {
    "template": "the model's own chat template is used, whatever its name; data.chat_template takes the text of a Jinja"
    " template, or a file with one, for models that bring none.",
    "dataset": "data.train takes a file, a folder or a hub id; names that another tool keeps in a list of its own are"
    " not known.",
    "per_device_train_batch_size": "training.pairs_per_step is the number of pairs behind one update: pairs per device"
    " times accumulation steps times devices. Memory is a matter of training.max_tokens_per_microbatch.",
    "gradient_accumulation_steps": "accumulation follows from training.pairs_per_step, the number of pairs behind one"
    " update: pairs per device times accumulation steps times devices.",
    "max_prompt_length": "prompt and answer have one limit together, data.max_tokens.",
    "max_completion_length": "prompt and answer have one limit together, data.max_tokens.",
    "val_size": "data.eval_fraction is the share of the prompts that is held out; data.eval_limit a number of pairs.",
    "save_total_limit": "training.keep_checkpoints is how many checkpoints can be resumed; the adapters of all"
    " evaluations are kept.",
    "torch_dtype": "model.load_in says how the weights are kept, model.compute_dtype the precision of the arithmetic.",
    "alpha": "LoRA's is lora.alpha; the weight of a likelihood term, α of CPO-SimPO, is loss.sft_weight.",
    "trust_remote_code": "code from a model repository is never run; choose a model that transformers supports itself.",
}
FOREIGN_MEANINGS |= dict.fromkeys(("bf16", "fp16"), FOREIGN_MEANINGS["torch_dtype"])


_WITHOUT_SECRETS = "Log in with `hf auth login` or set HF_TOKEN; download what needs a password, and give its path."


def setting(default, help, unit="", rare=False, gt=None, ge=None, lt=None, le=None) -> Any:
    """A pydantic field with its default, help, unit and bounds, which are written nowhere else.

    rare: forms fold the setting away.
    """
    factory = {"default_factory": default} if callable(default) else {"default": default}
    extra = {"unit": unit, "rare": rare}
    return Field(**factory, description=help, gt=gt, ge=ge, lt=lt, le=le, json_schema_extra=extra)


@dataclass(frozen=True)
class SettingInfo:
    """What forms, YAML comments and command-line options show of one setting."""

    section: str
    name: str
    default: Any
    help: str
    unit: str
    bounds: str
    choices: tuple[str, ...]
    optional: bool
    structured: bool
    rare: bool

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def sentence(self) -> str:
        """Help, unit, choices and bounds in one line."""
        facts = [fact for fact in (self.unit, " | ".join(self.choices), self.bounds) if fact]
        return f"{self.help} [{'; '.join(facts)}]" if facts else self.help


def describe(section_name: str, section: type[BaseModel]) -> list[SettingInfo]:
    """The settings of one section, in the order of its fields."""
    return [_describe_one(section_name, name, field) for name, field in section.model_fields.items()]


def _describe_one(section_name: str, name: str, field: FieldInfo) -> SettingInfo:
    kinds = _flatten(field.annotation)
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    limits = {
        key: getattr(item, key) for item in field.metadata for key in signs if getattr(item, key, None) is not None
    }
    return SettingInfo(
        section=section_name,
        name=name,
        default=field.get_default(call_default_factory=True),
        help=field.description or "",
        unit=field.json_schema_extra["unit"],
        bounds=", ".join(f"{signs[key]} {limit}" for key, limit in limits.items()),
        choices=tuple(choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)),
        optional=type(None) in kinds,
        structured=any(get_origin(kind) in (list, tuple, dict) for kind in kinds),
        rare=field.json_schema_extra["rare"],
    )


def _flatten(annotation) -> list:
    if get_origin(annotation) in (Union, UnionType):
        return [inner for part in get_args(annotation) for inner in _flatten(part)]
    return [annotation]


class Section(BaseModel):
    """Base of all sections: frozen, without unknown keys, NaN or infinity; what is wrong raises a WorkbenchError."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="wrap")
    @classmethod
    def _raise_workbench_errors(cls, value, handler):
        for name, field in cls.model_fields.items() if isinstance(value, dict) else ():
            # Pydantic takes true for 1: "gradient_checkpointing: true", as other tools write it, would mean one layer.
            if isinstance(value.get(name), bool) and any(kind in (int, float) for kind in _flatten(field.annotation)):
                raise WorkbenchError(
                    _sentence(cls, {"type": "switch", "loc": (name,), "input": value[name], "msg": "input is a switch"})
                )
        try:
            section = handler(value)
        except ValidationError as error:
            # without repetitions: a union reports each of its arms
            sentences = dict.fromkeys(_sentence(cls, problem) for problem in error.errors())
            raise WorkbenchError("\n".join(sentences)) from None
        for name in cls.model_fields:
            if holds_secret(getattr(section, name)):
                raise WorkbenchError(
                    f"{cls.title()}.{name} holds what looks like a token, key or password, and a run's configuration is"
                    f" kept in files that are shared: take it out. {_WITHOUT_SECRETS}"
                )
        return section

    @classmethod
    def title(cls):
        return cls.__name__.removesuffix("Config").lower()

    @classmethod
    def valid_keys(cls):
        return list(cls.model_fields)


def _sentence(section: type[Section], problem: dict) -> str:
    """One pydantic problem as: what was given, what was expected, what to do."""
    key = str(problem["loc"][0]) if problem["loc"] else ""
    where = ".".join(part for part in (section.title() if section.title() != "run configuration" else "", key) if part)
    if problem["type"] == "extra_forbidden":
        return unknown_key(key, section.title(), section.valid_keys())
    given = shown(problem["input"])
    field = section.model_fields.get(key)
    if field is None:
        return f"{where}: expected settings such as {', '.join(list(section.model_fields)[:3])}, got {given}."
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        examples = ", ".join(list(field.annotation.model_fields)[:3])
        return f"section {key}: expected settings such as {examples}, got {given}."
    info = _describe_one(section.title(), key, field)
    whole = "a whole number" if int in _flatten(field.annotation) else ""
    listing = "a list" if info.choices and info.structured else ""
    parts = (" | ".join(info.choices), listing, f"{whole} {info.bounds}".strip())
    expected = " or ".join(part for part in parts if part)
    if problem["type"] == "dict_type":
        expected = "names and values in braces, {name: value}"
    reason = f"expected {expected}" if expected else problem["msg"][0].lower() + problem["msg"][1:]
    return f"{where} = {given} is not possible: {reason}. {info.help}"


def shown(value) -> str:
    """A value as errors show it: redacted, at most 80 characters."""
    try:
        text = repr(value)
    except ValueError:  # Python writes out no whole number of more than 4300 digits
        return "a number with thousands of digits"
    text = redact(text)
    return text if len(text) <= 80 else text[:77] + "…"


def unknown_key(key: str, section: str, valid: list[str], elsewhere: dict[str, str] | None = None) -> str:
    """The sentence for an unknown key, with the nearest valid key or our name for another tool's key."""
    where = f"in section {section}" if section != "run configuration" else "at the top level"
    if key not in valid and key in FOREIGN_MEANINGS:
        return f"Unknown key {key!r} {where}: {FOREIGN_MEANINGS[key]}"
    if key not in valid and key in FOREIGN_KEYS:
        return f"Unknown key {key!r} {where}: this is called {FOREIGN_KEYS[key]} here."
    if elsewhere and key in elsewhere:
        return f"Unknown key {key!r} {where}: it belongs to a section; write {elsewhere[key]}."
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    if near:
        return f"Unknown key {key!r} {where}: did you mean {near[0]!r}?"
    listed = valid if len(valid) <= 20 else [*valid[:20], "…"]
    return f"Unknown key {key!r} {where}: valid keys: {', '.join(listed)}."
