"""Paths of files that belong to no run: those bundled with the package, and the user's cache."""

import os
from pathlib import Path

from .errors import WorkbenchError

#: Bundled files lie inside the package in a wheel, and beside it in a clone.
_BUNDLED_IN = (Path(__file__).parents[1] / "bundled", Path(__file__).parents[2])


def bundled(relative: str) -> Path:
    """Path of a bundled file or folder such as "data/plain_answers/train.jsonl".

    Errors: WorkbenchError when the installation lacks it.
    """
    for root in _BUNDLED_IN:
        if (root / relative).exists():
            return root / relative
    raise WorkbenchError(f"The installed package lacks {relative!r}: install simpo-workbench again.")


def cache_folder() -> Path:
    """The folder of converted models, token files and device queues.

    It is $SIMPO_WORKBENCH_CACHE, else simpo-workbench in the user's cache folder.
    """
    named = os.environ.get("SIMPO_WORKBENCH_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simpo-workbench"
