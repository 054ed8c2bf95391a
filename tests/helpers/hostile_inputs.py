"""What tests of hostile inputs share: a check of refusals, a process with little memory, JSON values of any kind."""

import os
import subprocess
import sys
from pathlib import Path

from hypothesis import strategies as st

from simpo_workbench.base.errors import WorkbenchError

ROOT = Path(__file__).parents[2]


def sentence(error):
    """The text of our own error, which must be one line without a library's traceback in it."""
    text = str(error.value)
    assert isinstance(error.value, WorkbenchError)
    assert "\n" not in text
    assert len(text) < 700
    return text


def within_memory(megabytes, code, *arguments):
    """What a small program prints that may use so much address space; it has no torch, so that the limit is about the
    input.
    """
    limit = f"import resource, sys\nresource.setrlimit(resource.RLIMIT_AS, ({megabytes} * 1024**2,) * 2)\n"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(
        [sys.executable, "-c", limit + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


LOAD = (
    "from simpo_workbench.base.errors import WorkbenchError\nfrom simpo_workbench.pairs.pairs import load_pairs\n"
    "try:\n    print(load_pairs(sys.argv[1]).report())\nexcept WorkbenchError as error:\n    print('refused:', error)\n"
)


JSON_KEYS = [
    "prompt",
    "chosen",
    "rejected",
    "role",
    "content",
    "from",
    "value",
    "messages",
    "system",
    "input",
    "output",
    "history",
    "label",
]
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["user", "assistant", "system", "\n\nHuman: a\n\nAssistant: b"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(JSON_KEYS) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=12,
)
