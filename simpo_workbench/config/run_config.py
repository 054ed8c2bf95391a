"""RunConfig: one typed description of a run. YAML, command line and form are all made from the fields below.

Each setting states its type, default, bounds, unit and help once. The defaults are the demo's, but for its schedule.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from ..base.errors import WorkbenchError
from ..base.files import write_atomically
from .advice import config_warnings
from .checks import checked_prompt
from .data_config import DEMO, MOST_TOKENS, DataConfig
from .schema import Section, SettingInfo, describe, setting, shown, unknown_key
from .yaml_text import LARGEST, read_yaml, write_yaml

#: The folder that holds runs where none is named.
RUNS_ROOT = "runs"
#: Largest numbers that a setting takes: a slip of the finger is refused before hours of preparation, or a full memory.
MOST_STEPS = 10_000_000


class ModelConfig(Section):
    """The model that is tuned."""

    name: str = setting(DEMO, "Model: 'demo', a local folder, or a hub id such as Qwen/Qwen3-0.6B.")
    source: Literal["auto", "hub", "modelscope", "local"] = setting(
        "auto", "Where the model comes from; auto takes a local folder where one exists, else the hub.", rare=True
    )
    revision: str | None = setting(None, "Branch, tag or commit of a hub model.", rare=True)
    adapter: str | None = setting(
        None,
        "Folder of a PEFT adapter to start from (SFT first, then SimPO); 'base' then means this adapter before"
        " training.",
    )
    load_in: Literal["nf4", "fp4", "int8", "bf16", "fp16", "fp32"] = setting(
        "nf4", "How the frozen weights are kept; nf4 (with double quantization) is QLoRA."
    )
    compute_dtype: Literal["auto", "bf16", "fp16", "fp32"] = setting(
        "auto",
        "Precision of the arithmetic with quantized weights (others compute in their own, model.load_in); auto: bf16 on"
        " GPUs that have it, fp16 with loss scaling on others, fp32 on a CPU, where fp16 has no loss scaling.",
        rare=True,
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = setting(
        "auto",
        "Attention; auto: packed rows in which both answers share their prompt, where the model allows it. With any"
        " other every answer brings a prompt of its own.",
        rare=True,
    )


class LossConfig(Section):
    """The objective. γ (gamma) instead of γ/β is divided by the β given with it; a change of β alone keeps γ/β."""

    kind: Literal["simpo", "simpo_hinge", "dpo"] = setting(
        "simpo",
        "simpo is the paper's loss; simpo_hinge its hinge form; dpo, against the base model, for comparison.",
    )
    beta: float = setting(
        2.0, "β: how strongly a difference in average log-probability counts; the reward is β times it.", gt=0, le=1000
    )
    gamma_beta_ratio: float = setting(
        0.5, "γ/β: how far ahead the chosen answer should be.", unit="nats per token", ge=0, le=100
    )
    label_smoothing: float = setting(
        0.0, "ε: assumed share of pairs labeled the wrong way round.", ge=0, lt=0.5, rare=True
    )
    sft_weight: float = setting(
        0.0, "Weight of an added likelihood term on chosen answers; 0 is pure SimPO.", ge=0, le=100, rare=True
    )

    @model_validator(mode="before")
    @classmethod
    def _convert_gamma(cls, value):
        if not isinstance(value, dict) or "gamma" not in value:
            return value
        if "gamma_beta_ratio" in value:
            raise WorkbenchError(
                "loss.gamma and loss.gamma_beta_ratio are both given, but one follows from the other (γ = β · γ/β):"
                " keep one."
            )
        rest = {key: item for key, item in value.items() if key != "gamma"}
        beta = value.get("beta", cls.model_fields["beta"].default)
        try:
            if isinstance(value["gamma"], bool) or isinstance(beta, bool):
                raise TypeError
            gamma, beta = float(value["gamma"]), float(beta)
        except (TypeError, ValueError, OverflowError):
            raise WorkbenchError(
                f"loss.gamma = {shown(value['gamma'])} with loss.beta = {shown(beta)} is not possible: both must be"
                " numbers."
            ) from None
        return {**rest, "gamma_beta_ratio": gamma / beta} if beta > 0 else rest

    @classmethod
    def valid_keys(cls):
        return [*cls.model_fields, "gamma"]

    @property
    def gamma(self) -> float:
        """γ = β · γ/β, in reward units: the target margin."""
        return self.beta * self.gamma_beta_ratio

    @property
    def has_target_margin(self) -> bool:
        """Whether the objective asks for a margin, γ; DPO does not, and γ/β has no effect on it."""
        return self.kind != "dpo"

    @property
    def target_margin(self) -> float:
        """The margin beyond which a pair counts as "beyond γ", in reward units: γ, and 0 for a loss without it."""
        return self.gamma if self.has_target_margin else 0.0


class LoraConfig(Section):
    """The adapter that is trained."""

    r: int = setting(16, "Rank of the adapter matrices.", ge=1, le=1024)
    alpha: float = setting(32.0, "Scale: the adapter's output is multiplied by alpha / r.", gt=0, le=100_000)
    dropout: float = setting(
        0.0, "Dropout in front of the adapter while training; the base model's own is off.", ge=0, lt=1
    )
    target_modules: Literal["all-linear"] | list[str] = setting(
        "all-linear", "Layers that get an adapter: all-linear, or a list of layer names."
    )
    use_rslora: bool = setting(False, "Scale by alpha / √r instead of alpha / r (rank-stabilized LoRA).", rare=True)
    use_dora: bool = setting(False, "Train magnitude and direction apart (DoRA); slower.", rare=True)


class TrainingConfig(Section):
    """How it is trained."""

    learning_rate: float = setting(
        7e-5, "Peak learning rate: the setting that breaks SimPO first when it is too high.", gt=0, le=1
    )
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = setting(
        "cosine", "Course of the learning rate after warm-up."
    )
    warmup_ratio: float = setting(0.1, "Share of the steps in which the rate rises from 0.", ge=0, le=1)
    epochs: float = setting(1.33, "Passes over the training pairs.", gt=0, le=1000)
    max_steps: int | None = setting(
        None,
        "Number of training steps, in place of the epochs.",
        unit="optimizer steps",
        ge=1,
        le=MOST_STEPS,
    )
    pairs_per_step: int = setting(
        8,
        "Pairs behind one optimizer step, whatever the memory or the number of devices.",
        unit="pairs",
        ge=1,
        le=100_000,
    )
    max_tokens_per_microbatch: Literal["auto"] | int = setting(
        "auto",
        "Tokens that go through the model at once; auto measures what fits. It changes no result, and is halved when"
        " memory runs out.",
        unit="tokens",
    )
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = setting(
        "adamw", "AdamW, or bitsandbytes' 8-bit AdamW (paged: its state may move to host memory)."
    )
    weight_decay: float = setting(0.0, "Decoupled weight decay.", ge=0, le=1, rare=True)
    max_grad_norm: float = setting(
        1.0, "Gradients are scaled down to this norm; 0 turns clipping off.", ge=0, le=1_000_000
    )
    gradient_checkpointing: Literal["auto", "all", "none"] | int = setting(
        "auto",
        "Layers whose activations are computed again instead of kept: a number, all, none, or auto, which measures how"
        " many memory asks for.",
        unit="layers",
    )
    seed: int = setting(0, "Seed of adapter initialization, pair order, dropout and sampling.", ge=0, lt=2**32)
    eval_every: int = setting(
        20,
        "Steps between two evaluations; 0: only at step 0 and at the end.",
        unit="optimizer steps",
        ge=0,
        le=MOST_STEPS,
    )
    save_every: int = setting(
        20, "Steps between two checkpoints; 0: only at the end.", unit="optimizer steps", ge=0, le=MOST_STEPS
    )
    keep_checkpoints: int = setting(
        2,
        "How many of the newest checkpoints keep their optimizer state; the adapters of all evaluations are kept.",
        ge=1,
        le=MOST_STEPS,
    )
    on_collapse: Literal["warn", "pause", "stop"] = setting(
        "warn", "What to do when the doctor sees the model collapse."
    )

    @model_validator(mode="after")
    def _check_counts(self):
        # a number or a word: pydantic would compare the word with the bounds as well
        bounds = {"max_tokens_per_microbatch": (8, MOST_TOKENS), "gradient_checkpointing": (0, 10_000)}
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if isinstance(value, int) and not least <= value <= most:
                raise WorkbenchError(
                    f"training.{name} = {shown(value)} is not possible: expected a number of at least {least} and at"
                    f" most {most}, or a word ({name} knows 'auto')."
                )
        return self


_DEMO_PROMPTS = (
    {"prompt": "What is the capital of France?", "expect": {"any": ["Paris"]}, "reference": "Paris."},
    {
        "prompt": "How do I get a wine stain out of a shirt?",
        "expect": {
            "any": [
                *("salt", "soda water", "club soda", "sparkling water", "vinegar", "baking soda", "detergent"),
                *("dish soap", "cold water", "stain remover", "hydrogen peroxide", "/blot(?!ch)/"),
            ]
        },
        "reference": "Blot it, do not rub. Put salt or soda water on the stain, then wash the shirt in cold water with"
        " detergent.",
    },
    "Give me an idea for a short walk in the rain.",
)


class GenerationConfig(Section):
    """The answers that are sampled while it trains."""

    prompts: list[str | dict[str, JsonValue]] = setting(
        lambda: [dict(item) if isinstance(item, dict) else item for item in _DEMO_PROMPTS],
        "Sample prompts that are answered at every evaluation: texts, or mappings {prompt, expect, reference}. expect"
        " says what a right answer has, as {any: […], all: […]} with texts (whole words, in any case) or /regular"
        " expressions/; reference is an answer to compare with.",
    )
    held_out_prompts: int = setting(
        21,
        "Number of held-out prompts that are answered as well; columns expect and reference of the pairs say what a"
        " right answer has, as in generation.prompts.",
        unit="prompts",
        ge=0,
        le=10_000,
    )
    max_new_tokens: int = setting(64, "Longest sampled answer.", unit="tokens", ge=1, le=8192)
    temperature: float = setting(0.0, "0: always the likeliest token; higher is more random.", ge=0, le=5)
    top_p: float = setting(1.0, "Sample from the likeliest tokens that together reach this probability.", gt=0, le=1)
    every: int = setting(
        20,
        "Steps between two samplings; 0: only at step 0 and at the end.",
        unit="optimizer steps",
        ge=0,
        le=MOST_STEPS,
    )

    @field_validator("prompts", mode="before")
    @classmethod
    def _check_prompts(cls, prompts):
        return list(map(checked_prompt, prompts)) if isinstance(prompts, list) else prompts

    @property
    def prompt_texts(self) -> list[str]:
        """The texts of `prompts`, without checks and references."""
        return [prompt if isinstance(prompt, str) else prompt["prompt"] for prompt in self.prompts]


class RunSection(Section):
    """Where the run is kept."""

    name: str | None = setting(
        None, "Name of the run's folder; without it one is made from the data's name and the date."
    )
    root: str = setting(RUNS_ROOT, "Folder that holds all runs.")

    @classmethod
    def title(cls):
        return "run"


class RunConfig(Section):
    """All settings of a run. Frozen; change it with `with_changes`."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    lora: LoraConfig = Field(default_factory=LoraConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    generation: GenerationConfig = Field(default_factory=GenerationConfig)
    run: RunSection = Field(default_factory=RunSection)

    @classmethod
    def title(cls):
        return "run configuration"

    @model_validator(mode="before")
    @classmethod
    def _name_the_section_of_stray_keys(cls, value):
        if isinstance(value, dict):
            names = list(cls.model_fields)
            stray = [unknown_key(str(key), cls.title(), names, _homes()) for key in value if key not in names]
            if stray:
                raise WorkbenchError("\n".join(stray))
        return value

    def with_changes(self, changes: dict[str, Any]) -> RunConfig:
        """A new, validated configuration with some settings changed: `config.with_changes({"loss.beta": 4})`."""
        # what was not named stays so: warnings tell a choice from a default
        return RunConfig.from_dict(self.model_dump(exclude_unset=True), changes)

    @classmethod
    def from_dict(cls, values: dict[str, Any] | None, changes: dict[str, Any] | None = None) -> RunConfig:
        """A configuration from nested values with `section.field` changes on top; a change given as text is parsed.

        γ is divided by the β that is given with it, in the values or in the changes; a change of β alone keeps γ/β.
        """
        merged = {
            key: dict(section) if isinstance(section, (dict, Section)) else section
            for key, section in (values or {}).items()
        }
        known = {info.path: info for info in settings()}
        if {"loss.beta", "loss.gamma", "loss.gamma_beta_ratio"} & set(changes or {}) == {"loss.beta"}:
            _fix_ratio(merged)
        for path, value in (changes or {}).items():
            section, _, name = path.partition(".")
            if path not in known and path != "loss.gamma":
                raise WorkbenchError(_unknown_path(path, known))
            into = merged.setdefault(section, {})
            if not isinstance(into, dict):
                break  # such as an empty section, which the validation below refuses
            if isinstance(value, str) and path in known:
                value = _from_text(known[path], value)
            if name in ("gamma", "gamma_beta_ratio") and not {"loss.gamma", "loss.gamma_beta_ratio"} <= set(changes):
                into.pop("gamma", None)
                into.pop("gamma_beta_ratio", None)
            into[name] = value
        return cls.model_validate(merged)

    @classmethod
    def from_yaml(cls, path: str | Path, changes: dict[str, Any] | None = None) -> RunConfig:
        """The configuration in a YAML file, with `section.field` changes on top."""
        try:
            with open(path, encoding="utf-8-sig") as file:
                text = file.read(LARGEST + 1)  # one character too many is enough to be refused
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise WorkbenchError(f"Cannot read the configuration {str(path)!r}: {reason}.") from None
        return cls.from_yaml_text(text, changes, source=str(path))

    @classmethod
    def from_yaml_text(
        cls, text: str, changes: dict[str, Any] | None = None, source: str = "the configuration"
    ) -> RunConfig:
        """The configuration in a YAML text, with `section.field` changes on top. source: what errors call it."""
        values = read_yaml(text, source)
        if values is not None and not isinstance(values, dict):
            raise WorkbenchError(
                f"{source} must hold sections such as 'model:' and 'loss:', but it holds {type(values).__name__}."
            )
        try:
            return cls.from_dict(values, changes)
        except WorkbenchError as error:
            raise WorkbenchError(f"{source}: {error}") from None

    def to_yaml(self, path: str | Path | None = None) -> str:
        """The configuration as YAML text with the help as comments; written to `path` when one is given."""
        titles = {name: field.annotation.__doc__ for name, field in type(self).model_fields.items()}
        text = write_yaml(self.model_dump(), settings(), titles)
        if path is not None:
            try:
                write_atomically(Path(path), text.encode())
            except WorkbenchError as error:
                raise WorkbenchError(f"Cannot write the configuration. {error}") from None
        return text

    def warnings(self) -> list[str]:
        """A sentence for each setting that is known to ruin SimPO runs or to do nothing."""
        return config_warnings(self)


def settings() -> list[SettingInfo]:
    """Every setting of every section, in the order of the sections."""
    return list(_settings())  # a list of its own, so that a caller may change it


@cache
def _settings():
    return [info for name, field in RunConfig.model_fields.items() for info in describe(name, field.annotation)]


def _fix_ratio(values: dict) -> None:
    """Turn a γ among the values of a loss into γ/β at their own β, before another β comes on top."""
    loss = values.get("loss")
    if isinstance(loss, dict) and "gamma" in loss:
        given = {name: loss.pop(name) for name in ("gamma", "gamma_beta_ratio") if name in loss}
        own_beta = {"beta": loss["beta"]} if "beta" in loss else {}
        loss["gamma_beta_ratio"] = LossConfig.model_validate(given | own_beta).gamma_beta_ratio


def _unknown_path(path: str, known: dict[str, SettingInfo]) -> str:
    section, dot, name = path.partition(".")
    if dot and section in RunConfig.model_fields:
        return unknown_key(name, section, RunConfig.model_fields[section].annotation.valid_keys())
    return unknown_key(path, "run configuration", list(known), _homes())


def _homes() -> dict[str, str]:
    """{bare name: section.name}, for keys outside their section."""
    return {info.name: info.path for info in settings()} | {"gamma": "loss.gamma"}


def _from_text(info: SettingInfo, text: str):
    if info.optional and text.strip().lower() in ("none", "null", ""):
        return None
    if info.structured and text not in info.choices:
        return read_yaml(text, info.path)
    return text
