"""Where files lie that belong to no run: those that come with the package (in a clone beside it, in a wheel inside it),
and the user's cache.
"""

import os
from pathlib import Path

from .errors import WorkbenchError

_INSIDE = Path(__file__).parents[1] / "bundled"
_BESIDE = Path(__file__).parents[2]


def bundled(relative: str) -> Path:
    """Path of a bundled file or folder such as "data/plain_answers/train.jsonl"."""
    for root in (_INSIDE, _BESIDE):
        if (root / relative).exists():
            return root / relative
    raise WorkbenchError(f"The installed package lacks {relative!r}: install simpo-workbench again.")


def cache_folder() -> Path:
    """Where converted models, token files and the queues of devices are kept: $SIMPO_WORKBENCH_CACHE, else
    simpo-workbench in the user's cache folder.
    """
    named = os.environ.get("SIMPO_WORKBENCH_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simpo-workbench"
