"""Named configurations: the demo, the tutorials', the seed article's, one for a 24 GB card, and the paper's six."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..base.errors import WorkbenchError
from .run_config import RunConfig

if TYPE_CHECKING:
    import pandas as pd

_ULTRAFEEDBACK = "princeton-nlp/{}-ultrafeedback"


@dataclass(frozen=True)
class Preset:
    """A named configuration: one sentence about it, and what differs from the defaults."""

    name: str
    note: str
    changes: dict


def _paper(name, model, data, beta, ratio, rate):
    """A preset from the paper's table (arXiv 2405.14734, appendix; the repository's training_configs)."""
    changes = {
        "model.name": model,
        "model.load_in": "bf16",
        "data.train": data,
        "data.max_tokens": 2048,
        "loss.beta": beta,
        "loss.gamma_beta_ratio": ratio,
        "training.learning_rate": rate,
        "training.epochs": 1,
        "training.pairs_per_step": 128,
    }
    note = (
        f"The paper's setting for {model}: β {beta:g}, γ/β {ratio:g}, rate {rate:g} for full fine-tuning; with LoRA"
        " this rate does little, try 5e-6 to 2e-5."
    )
    return Preset(name, note, changes)


#: Chosen by runs (docs/log.md, 2026-11-27). Answers to all held-out prompts show whether the model is still right.
_DEMO = {
    "training.max_steps": 50,
    "training.eval_every": 25,
    "generation.every": 25,
    "generation.held_out_prompts": 60,
}
#: The rate is above the demo's, so that few steps show an effect.
_TUTORIAL = {
    "training.max_steps": 18,
    "training.learning_rate": 1.5e-4,
    "training.eval_every": 3,
    "data.eval_limit": 24,
    "generation.held_out_prompts": 5,
    "generation.max_new_tokens": 48,
    "generation.every": 9,
}

_PRESETS = [
    Preset(
        "demo",
        "SmolLM2-135M-Instruct, NF4 and LoRA, 230 short pairs: four to five minutes on two CPU cores that do nothing"
        " else.",
        _DEMO,
    ),
    Preset(
        "tutorial",
        "What the tutorial notebooks train: the demo cut short, two minutes on two CPU cores, evaluated every three"
        " steps.",
        _TUTORIAL,
    ),
    Preset(
        "seed-article",
        "The article this project started from: β 2, γ 0, LoRA r 8. Its Qwen-7B-Chat needs code from the model"
        " repository, so Qwen2.5-7B-Instruct stands in.",
        {
            "model.name": "Qwen/Qwen2.5-7B-Instruct",
            "data.max_tokens": 2048,
            "loss.beta": 2.0,
            "loss.gamma_beta_ratio": 0.0,
            "lora.r": 8,
            "lora.alpha": 32,
            "training.learning_rate": 5e-5,
            "training.epochs": 3,
            "training.pairs_per_step": 16,
            "training.optimizer": "paged_adamw_8bit",
        },
    ),
    Preset(
        "qlora-8b-24gb",
        "Llama-3.1-8B-Instruct in NF4 on a 24 GB card, 2048 tokens, 1 epoch. The learning rate is a starting point, not"
        " yet measured.",
        {
            "model.name": "meta-llama/Llama-3.1-8B-Instruct",
            "data.train": _ULTRAFEEDBACK.format("llama3"),
            "data.max_tokens": 2048,
            "loss.beta": 2.5,
            "loss.gamma_beta_ratio": 0.55,
            "training.learning_rate": 1e-5,
            "training.epochs": 1,
            "training.pairs_per_step": 32,
            "training.optimizer": "paged_adamw_8bit",
            "training.gradient_checkpointing": "all",
        },
    ),
    _paper(
        "paper-mistral-base",
        "alignment-handbook/zephyr-7b-sft-full",
        "HuggingFaceH4/ultrafeedback_binarized:train_prefs",
        2.0,
        0.8,
        3e-7,
    ),
    _paper(
        "paper-mistral-instruct",
        "mistralai/Mistral-7B-Instruct-v0.2",
        _ULTRAFEEDBACK.format("mistral-instruct"),
        2.5,
        0.1,
        5e-7,
    ),
    _paper(
        "paper-llama3-base",
        "princeton-nlp/Llama-3-Base-8B-SFT",
        "HuggingFaceH4/ultrafeedback_binarized:train_prefs",
        2.0,
        0.5,
        6e-7,
    ),
    _paper(
        "paper-llama3-instruct", "meta-llama/Meta-Llama-3-8B-Instruct", _ULTRAFEEDBACK.format("llama3"), 2.5, 0.55, 1e-6
    ),
    _paper(
        "paper-llama3-instruct-v0.2",
        "meta-llama/Meta-Llama-3-8B-Instruct",
        _ULTRAFEEDBACK.format("llama3") + "-armorm",
        10.0,
        0.3,
        1e-6,
    ),
    _paper("paper-gemma2-9b-it", "google/gemma-2-9b-it", _ULTRAFEEDBACK.format("gemma2") + "-armorm", 10.0, 0.5, 8e-7),
]


def preset(name: str) -> RunConfig:
    """The configuration of a preset. Errors: WorkbenchError with the nearest name when there is none."""
    return RunConfig().with_changes(_find(name).changes)


def preset_notes() -> dict[str, str]:
    """{name: sentence} of all presets, without importing pandas."""
    return {item.name: item.note for item in _PRESETS}


def list_presets() -> pd.DataFrame:
    """One row per preset: name (the index), model, load_in, beta, gamma_beta_ratio, learning_rate, note."""
    import pandas as pd

    rows = []
    for item in _PRESETS:
        config = preset(item.name)
        rows.append(
            {
                "name": item.name,
                "model": config.model.name,
                "load_in": config.model.load_in,
                "beta": config.loss.beta,
                "gamma_beta_ratio": config.loss.gamma_beta_ratio,
                "learning_rate": config.training.learning_rate,
                "note": item.note,
            }
        )
    return pd.DataFrame(rows).set_index("name")


def _find(name: str) -> Preset:
    for item in _PRESETS:
        if item.name == name:
            return item
    near = difflib.get_close_matches(name, [item.name for item in _PRESETS], n=1)
    hint = f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(item.name for item in _PRESETS) + "."
    raise WorkbenchError(f"There is no preset {name!r}: {hint}")
