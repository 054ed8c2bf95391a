"""Run names that Windows reserves, and run folders that are links to somewhere else."""

from __future__ import annotations

import re
from pathlib import Path

from ..base.errors import WorkbenchError

_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]|clock\$|conin\$|conout\$)(\..*)?", re.IGNORECASE)
#: Files that a run writes to: through a link it would write into another file.
_OWN_FILES = ("config.yaml", "status.json", "metrics.jsonl", "log.txt")


def is_reserved(name: str) -> bool:
    """Whether Windows takes the name for a device, or drops its last character."""
    return _DEVICE.fullmatch(name) is not None or name.endswith(".")


def leads_elsewhere(path: Path) -> bool:
    """Whether a run's folder is a link to a folder outside the root that the link lies in."""
    try:
        return path.is_symlink() and path.resolve().parent != path.parent.resolve()
    except (OSError, ValueError, RuntimeError):  # such as links in a circle
        return True


def require_own_folder(path: Path) -> None:
    """Raise WorkbenchError if a run's folder, or a file that it writes to, is a link to somewhere else."""
    if leads_elsewhere(path):
        raise WorkbenchError(
            f"{str(path)!r} is a link to {str(path.resolve())!r}, and nothing is written through links: attach to that"
            " folder itself."
        )
    linked = next((name for name in _OWN_FILES if (path / name).is_symlink()), None)
    if linked:
        raise WorkbenchError(
            f"{linked} in the run folder {str(path)!r} is a link, and nothing is written through links: put the file"
            " itself there."
        )
