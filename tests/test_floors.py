"""What a contributor would lose: rooms that can be read one at a time, and a notebook that starts without torch.

A file imports only from its own room and from the rooms above it in ROOMS; rooms on one line do not import each other.
docs/architecture.md says what lives in each.
"""

import ast
import graphlib
from pathlib import Path

import pytest

import simpo_workbench

PACKAGE = Path(simpo_workbench.__file__).parent
BENCHMARKS = PACKAGE.parent / "benchmarks"
LONGEST_FILE = 420

ROOMS = """
    _version
    base
    config
    pairs
    analysis
    charts
    runs
    report
    engine/trial
    engine/encode
    engine/forward
    engine/model
    engine
    inference
    ui/parts
    ui/setup ui/data ui/train ui/answers
    ui/pairs ui/runs
    ui
    cli
"""
LEVELS = {room: level for level, line in enumerate(ROOMS.split("\n")) for room in line.split()}
TORCH_FAMILY = {"torch", "transformers", "peft", "accelerate", "bitsandbytes"}


def source_files():
    """{path: source} of the package's files, below the package, and of the benchmarks'."""
    files = {str(path.relative_to(PACKAGE)): path for path in PACKAGE.rglob("*.py")}
    files |= {f"benchmarks/{path.name}": path for path in BENCHMARKS.glob("*.py")}
    return {name: path.read_text(encoding="utf-8") for name, path in files.items()}


def complaints(files):
    """Sentences on files that are too long, in no room, or import what they must not; files: {path: source}."""
    sentences, graph = [], {}
    for path, source in files.items():
        lines = source.count("\n")
        if lines > LONGEST_FILE:
            sentences.append(f"{path} has {lines} lines: divide a file of more than about 400.")
        if path == "__init__.py":  # loads its names lazily, from every room
            continue
        modules = list(imported_modules(path, source))
        graph[path] = {file for module in modules if (file := file_of(module, files)) not in (None, path)}
        if path.startswith("benchmarks/"):
            continue
        if room_of(path) not in LEVELS:
            sentences.append(f"{path} is in no room: put it into one, or add one to ROOMS and docs/architecture.md.")
            continue
        sentences += [text for module in modules if (text := import_complaint(path, module, files))]
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        sentences.append(f"Import circle: {' -> '.join(error.args[1])}.")
    return sentences


def import_complaint(path, module, files):
    room = room_of(path)
    if module.split(".")[0] in TORCH_FAMILY and room.split("/")[0] != "engine":
        return f"{path} imports {module}: only engine/ loads torch and what loads it."
    if module.split(".")[0] != "simpo_workbench":
        return None
    file = file_of(module, files)
    if file in (None, "__init__.py"):
        return f"{path} imports {module}: import from the module that defines a name, not from the whole package."
    other = room_of(file)
    if room.startswith("ui") and other.startswith("engine"):
        return f"{path} imports {file}: ui/ reads run folders and asks other processes; it never imports engine/."
    if other != room and LEVELS.get(other, 0) >= LEVELS[room]:
        return f"{path} imports {file}: {room} may not import from {other}."
    return None


def room_of(path):
    """The folder of a file of the package, or the name of a file at its root."""
    return path.rpartition("/")[0] or path.removesuffix(".py")


def imported_modules(path, source):
    """Absolute names of all modules and names that a file imports, inside functions too."""
    package = ["simpo_workbench", *path.split("/")[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("import_module", "importlib.import_module"):
            yield from (str(one.value) for one in node.args if isinstance(one, ast.Constant))


def file_of(module, files):
    """The file that defines an imported module or name; None when it is not one of ours."""
    if module.split(".")[0] != "simpo_workbench":
        name = f"benchmarks/{module.split('.')[0]}.py"
        return name if name in files else None
    inside = "/".join(module.split(".")[1:])
    above = inside.rpartition("/")[0]
    candidates = [f"{inside}.py", f"{inside}/__init__.py", f"{above}.py", f"{above}/__init__.py", "__init__.py"]
    return next((name.lstrip("/") for name in candidates if name.lstrip("/") in files), None)


def test_every_file_keeps_to_its_room():
    if sentences := complaints(source_files()):
        pytest.fail("\n".join(sentences), pytrace=False)


def test_files_that_do_not_are_noticed():
    planted = [
        ("config/presets.py", "from ..runs.run import Run", "config may not import from runs"),
        ("config/presets.py", "def f():\n    from ..runs import run", "config may not import from runs"),
        ("config/presets.py", "import simpo_workbench.runs.run", "config may not import from runs"),
        ("base/files.py", "from ..config import run_config", "base may not import from config"),
        ("engine/forward/memory.py", "from ..step import optimizer_step", "engine/forward may not import from engine"),
        ("ui/setup/config_form.py", "from ..data import data_view", "ui/setup may not import from ui/data"),
        ("runs/run.py", "import_module('simpo_workbench.engine.step')", "runs may not import from engine"),
        ("ui/parts/html.py", "from ...engine.losses import simpo_loss", "never imports engine/"),
        ("engine/step.py", "from ..ui.parts.html import escape", "engine may not import from ui/parts"),
        ("runs/run.py", "import simpo_workbench as wb", "not from the whole package"),
        ("runs/run.py", "from .. import attach", "not from the whole package"),
        ("analysis/scores.py", "import torch.nn.functional as F", "only engine/ loads torch"),
        ("ui/parts/panel.py", "def f():\n    from transformers import AutoTokenizer", "only engine/ loads torch"),
        ("utils.py", "", "utils.py is in no room"),
        ("drawer/x.py", "", "drawer/x.py is in no room"),
        ("base/long.py", "x = 1\n" * 421, "base/long.py has 421 lines"),
        ("base/a.py", "from . import a_too\n", "Import circle: base/a"),
        ("benchmarks/a.py", "import a_too\n", "Import circle: benchmarks/a"),
    ]
    fine = [
        ("runs/run.py", "from ..base import process\nfrom .folder import RunFolder\nimport pandas"),
        ("engine/step.py", "import torch\nfrom .._version import __version__\nfrom .forward.memory import choose"),
        ("ui/workbench.py", "from ..inference import score\nfrom .parts.html import escape\nimport ipywidgets"),
    ]
    files = dict.fromkeys(source_files(), "")
    files |= {
        "base/a.py": "",
        "base/a_too.py": "from .a import x",
        "benchmarks/a.py": "",
        "benchmarks/a_too.py": "import a",
    }
    unseen = [
        (path, expected)
        for path, source, expected in planted
        if not any(expected in text for text in complaints({**files, path: source}))
    ]
    assert unseen == []
    assert [complaints({**files, path: source}) for path, source in fine] == [[], [], []]
