"""Whether anything changed in a folder since the last look, told without reading what is in it."""

from __future__ import annotations

import os
from pathlib import Path


def folder_stamp(folder: Path) -> tuple | None:
    """The folder's time of change in nanoseconds and the names in it; None without it.

    Equal stamps: no file came, went or was replaced.
    """
    try:
        return folder.stat().st_mtime_ns, tuple(
            sorted(os.listdir(folder))
        )  # names too: two changes may have the same time
    except OSError:
        return None
