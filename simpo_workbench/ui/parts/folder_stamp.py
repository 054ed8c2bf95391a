"""Whether anything changed in a folder since the last look, without reading its files."""

from __future__ import annotations

import os
from pathlib import Path


def folder_stamp(folder: Path) -> tuple | None:
    """The folder's time of change in nanoseconds and the names in it; None if there is no folder.

    Equal stamps: no file was added, removed or replaced. The names are needed because two changes may have one time.
    """
    try:
        return folder.stat().st_mtime_ns, tuple(sorted(os.listdir(folder)))
    except OSError:
        return None
