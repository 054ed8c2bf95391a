"""Names and folders that a run must not have, though they are well written: what another system reserves, and links
that lead out of the root.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..base.errors import WorkbenchError

_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]|clock\$|conin\$|conout\$)(\..*)?", re.IGNORECASE)
#: Files of a run that grow by appending: through a link they would write into somebody else's file.
_OWN_FILES = ("config.yaml", "status.json", "metrics.jsonl", "log.txt")


def is_reserved(name: str) -> bool:
    """Whether a plain name stands for a device on Windows, or loses its end there."""
    return _DEVICE.fullmatch(name) is not None or name.endswith(".")


def leads_elsewhere(path: Path) -> bool:
    """Whether a run's folder is a link to a folder that lies in another one than the link itself."""
    try:
        return path.is_symlink() and path.resolve().parent != path.parent.resolve()
    except (OSError, ValueError, RuntimeError):  # such as links in a circle
        return True


def require_own_folder(path: Path):
    """Nothing, when a run's folder and the files it grows are what they seem.

    Errors: WorkbenchError when one is a link to somewhere else.
    """
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
