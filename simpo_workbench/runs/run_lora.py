"""The settings of the adapter that a run trains, as its folder says them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..base.errors import WorkbenchError
from ..base.files import require_json
from ..config.held_lora import lora_in, lora_label
from .verified import published_steps, read_environment, require_adapter_files

if TYPE_CHECKING:
    from ..config.run_config import RunConfig
    from .folder import RunFolder


def read_lora(folder: RunFolder, config: RunConfig) -> dict[str, Any] | None:
    """{setting: value} of the adapter that a run trains: with model.adapter that adapter's own, not those of `lora`.

    None where they are not known any more. Errors: WorkbenchError where the file that says them is damaged.
    """
    if not config.model.adapter:
        return config.lora.model_dump()
    recorded = read_environment(folder).get("lora")
    if isinstance(recorded, dict) and recorded.keys() >= set(type(config.lora).model_fields):
        return recorded
    # a run from before they were recorded: each adapter that it has kept has them too
    kept = [(folder.adapter, "")]
    kept += [(folder.checkpoint(step), "adapter/") for step in reversed(published_steps(folder))]
    for path, below in kept:
        if (path / below / "adapter_config.json").is_file():
            if own := require_json(path / "manifest.json"):
                require_adapter_files(folder, path, own, f"{below}adapter_config.json")
            return lora_in(path / below)
    return lora_in(config.model.adapter)


def label_of(folder: RunFolder, config: RunConfig) -> str:
    """The adapter of a run in a few words, as `lora_label`; without its rank where a file of the run is damaged."""
    try:
        lora = read_lora(folder, config)
    except WorkbenchError:  # whoever reads the damaged file itself says so
        lora = None
    return lora_label(config, lora)
