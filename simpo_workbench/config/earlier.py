"""Settings that came later: what they are for a run whose config.yaml does not name them."""

from __future__ import annotations

import hashlib
import json

from .run_config import RunConfig

#: A run's config.yaml names every setting that there was when the run was made. One that it lacks came later, and has
#: for this run the value that does what was done then: {section: {setting: value}}.
BEFORE = {"data": {"limit_takes": "first", "final_fraction": 0.0}}


def as_it_was(config: RunConfig) -> RunConfig:
    """The configuration of a run, read from its folder, with later settings at what they were before they came."""
    for section, settings in BEFORE.items():
        own = getattr(config, section)
        later = {name: value for name, value in settings.items() if name not in own.model_fields_set}
        if later:
            config = config.model_copy(update={section: own.model_copy(update=later)})
    return config


def config_hash(config: RunConfig) -> str:
    """SHA-256 of everything in a configuration that decides a run's result: all but its name and folder.

    Only settings that it names count. A run's config.yaml names all that there were when it was made, so a setting that
    came later does not change the hash of a run from before.
    """
    return hashlib.sha256(json.dumps(named_settings(config), sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def named_settings(config: RunConfig) -> dict:
    """{section: {setting: value}} of the settings that a configuration names, without name and folder of the run.

    Later settings that are as before them count as not named, so that a run from before keeps its hash.
    """
    values = config.model_dump(exclude={"run"}, exclude_unset=True)
    for section, settings in BEFORE.items():
        if section in values:
            named = values[section].items()
            values[section] = {name: value for name, value in named if settings.get(name, ...) != value}
    return values
