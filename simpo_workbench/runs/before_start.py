"""What is checked of a configuration before a run folder is made, also for a run that will wait in the queue."""

from __future__ import annotations

from pathlib import Path

from ..config.local_model import local_model, require_adapter_folder
from ..config.run_config import RunConfig
from ..pairs.data_sets import require_data
from .folder import require_free_name


def require_startable(config: RunConfig) -> None:
    """Raise WorkbenchError where a run of this configuration could not begin: its name is taken or unusable, its data
    is not there or holds no pairs, its model or adapter folder is not there.

    What this cannot see, the run's own process finds: data of the hub and large data, and whatever needs the model.
    """
    require_free_name(config.run.root, config.run.name)
    require_data(config.data, config.training.seed)
    local_model(config.model)
    if config.model.adapter:
        require_adapter_folder(Path(config.model.adapter).expanduser())
