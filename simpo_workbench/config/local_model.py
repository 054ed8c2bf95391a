"""The local files that a model's name means, found by their paths alone: nothing is loaded or downloaded."""

from __future__ import annotations

import os
from pathlib import Path

from ..base.errors import WorkbenchError
from .run_config import DEMO, ModelConfig


def local_model(config: ModelConfig) -> Path | None:
    """The local model folder or .gguf file that a model's name means; None for the demo model and for a hub id.

    Errors: WorkbenchError where the name is a path at which there is no model.
    """
    if config.source not in ("auto", "local") or config.name == DEMO:
        return None
    local = Path(config.name).expanduser()
    if local.is_file() and local.suffix == ".gguf":
        return local
    if local.is_dir():
        if (local / "config.json").is_file():
            return local
        hint = "it has no config.json."
        if (local / "adapter_config.json").is_file():
            hint = "it is a PEFT adapter: give it as model.adapter and its base as model.name."
        raise WorkbenchError(f"The folder {config.name!r} holds no model: {hint}")
    if local.is_file():
        raise WorkbenchError(
            f"{config.name!r} is a file: expected a model folder, a .gguf file or a hub id. Weights are read from"
            " safetensors in a folder with config.json, pickled ones never."
        )
    if config.source == "local" or config.name.startswith((".", "/", "~")) or config.name.count("/") > 1:
        raise WorkbenchError(
            f"There is no model folder {config.name!r}. Check the path (seen from {os.getcwd()!r}), or give a hub id"
            " such as Qwen/Qwen3-0.6B."
        )
    return None


def require_adapter_folder(folder: Path) -> None:
    """Raise WorkbenchError unless a folder is that of a PEFT adapter, by the names of its files."""
    if not (folder / "adapter_config.json").is_file():
        raise WorkbenchError(
            f"There is no adapter in {str(folder)!r}: a PEFT adapter folder holds adapter_config.json and"
            " adapter_model.safetensors."
        )
