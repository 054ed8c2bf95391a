"""The process that a run lives in: `python -m simpo_workbench.engine.worker RUN_FOLDER [--resume]`."""

import sys

from ..errors import WorkbenchError
from ..run_folder import RunFolder
from .training import run_training


def main(arguments: list[str]) -> int:
    """Exit status: 0 for a run that ended in order, 1 for one that failed; status.json says why."""
    try:
        run_training(RunFolder(arguments[0]), owner="worker", resume="--resume" in arguments)
    except (WorkbenchError, KeyboardInterrupt) as error:
        print(error or "Interrupted.", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
