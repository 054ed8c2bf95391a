"""Files that come with the package: the demo data and the notebooks, in a clone beside it and in a wheel inside it."""

from pathlib import Path

from .errors import WorkbenchError

_INSIDE = Path(__file__).parent / "bundled"
_BESIDE = Path(__file__).parents[1]


def bundled(relative: str) -> Path:
    """Path of a bundled file or folder such as "data/plain_answers/train.jsonl"."""
    for root in (_INSIDE, _BESIDE):
        if (root / relative).exists():
            return root / relative
    raise WorkbenchError(f"The installed package lacks {relative!r}: install simpo-workbench again.")
