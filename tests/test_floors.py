"""The house: a notebook that waits for torch before it shows a button, or a panel that owns a model, begins with one
import on the wrong floor.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import simpo_workbench

PACKAGE = Path(simpo_workbench.__file__).parent
ROOT = PACKAGE.parent
LONGEST_FILE = 420

#: Floor of every file and wing of the package. A file imports only from its own floor and lower ones.
FLOORS = {
    4: ["cli.py", "run_commands.py", "settings_options.py", "terminal.py", "lab.py", "ui/"],
    3: ["engine/", "launch.py", "remote.py", "report.py"],
    2: [
        "presets.py",
        "pairs.py",
        "pair_files.py",
        "pair_hub.py",
        "data_sets.py",
        "runs.py",
        "device_queue.py",
        "doctor.py",
        "run_facts.py",
        "blind_votes.py",
    ],
    1: [
        *("redaction.py", "safe_names.py", "differences.py", "pair_filters.py"),
        *(
            "geometry.py",
            "geometry_figures.py",
            "loss_suggestion.py",
            "microscope.py",
            "microscope_figures.py",
            "history.py",
            "history_figures.py",
            "vote_statistics.py",
        ),
        *(
            "config.py",
            "settings.py",
            "yaml_text.py",
            "advice.py",
            "figures.py",
            "run_figures.py",
            "data_figures.py",
            "small_charts.py",
            "process.py",
            "errors.py",
            "bundled.py",
            "changes.py",
        ),
        *(
            "run_folder.py",
            "run_status.py",
            "files.py",
            "mailbox.py",
            "post_mortem.py",
            "scores.py",
            "pair_shapes.py",
            "pair_columns.py",
            "markup.py",
            "wording.py",
            "cost.py",
            "metrics_tail.py",
        ),
    ],
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
TORCH_FAMILY = {"torch", "transformers", "peft", "accelerate", "bitsandbytes"}


def package_files():
    return {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}


def complaints(files):
    """Sentences on every import that breaks the order of the house; files: {path below the package: source}."""
    found = []
    for path, source in files.items():
        if path == "__init__.py":  # its table of names is loaded lazily; the tests below hold it
            continue
        room = room_of(path)
        if room not in FLOOR_OF:
            found.append(
                f"{path} is on no floor: add it to FLOORS in tests/test_floors.py, and to docs where the house is"
                " drawn."
            )
            continue
        for module in imports(path, source, files):
            found += complaint(path, room, module)
    return found


def complaint(path, room, module):
    if module == "simpo_workbench":
        return [] if FLOOR_OF[room] == 4 else [f"{path} imports the whole package, which reaches every floor."]
    if not module.startswith("simpo_workbench."):
        without_torch = FLOOR_OF[room] <= 2 or room == "ui/"
        wrong = without_torch and module.split(".")[0] in TORCH_FAMILY
        return (
            [f"{path} imports {module}: neither ui/ nor the ground floors load torch or what loads it."]
            if wrong
            else []
        )
    target = room_of(module.removeprefix("simpo_workbench.").replace(".", "/") + ".py")
    if {room, target} == {"engine/", "ui/"}:
        return [f"{path} imports {module}: engine/ and ui/ never import each other."]
    if FLOOR_OF.get(target, 0) > FLOOR_OF[room]:
        return [f"{path} (floor {FLOOR_OF[room]}) imports {module} from floor {FLOOR_OF[target]} above it."]
    return []


def room_of(path):
    """What FLOORS calls a file: "config.py" itself, "engine/" for everything in that wing, its __init__.py included."""
    wing = path.split("/")[0].removesuffix(".py") + "/"
    return wing if wing in FLOOR_OF or "/" in path else path


def imports(path, source, files):
    """Absolute names of all modules that a file imports, inside functions too; a name that __init__ loads lazily counts
    as its home.
    """
    package = ["simpo_workbench", *path.split("/")[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield named(base, alias.name, files)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            yield from (
                argument.value
                for argument in node.args
                if isinstance(argument, ast.Constant) and not str(argument.value).startswith(".")
            )


def named(base, name, files):
    inside = f"{base}.{name}".removeprefix("simpo_workbench.").replace(".", "/")
    if base.startswith("simpo_workbench") and (
        f"{inside}.py" in files or f"{inside}/__init__.py" in files or f"{inside}/" in FLOOR_OF
    ):
        return f"{base}.{name}"
    if base == "simpo_workbench" and name in simpo_workbench._HOMES:
        return f"simpo_workbench.{simpo_workbench._HOMES[name]}"
    return base if base != "simpo_workbench" or name == "*" else f"simpo_workbench.{name}"


# --- the order of the house


def test_no_file_imports_from_a_floor_above_it():
    assert complaints(package_files()) == []


@pytest.mark.parametrize(
    ("path", "source", "said"),
    [
        ("config.py", "from .runs import Run", "config.py (floor 1) imports simpo_workbench.runs.run from floor 2"),
        (
            "config.py",
            "def f():\n    from . import runs",
            "config.py (floor 1) imports simpo_workbench.runs.run from floor 2",
        ),
        ("config.py", "from simpo_workbench import runs", "floor 2"),
        ("config.py", "import simpo_workbench.engine.losses", "floor 3"),
        ("config.py", "from . import preset", "imports simpo_workbench.config.presets from floor 2"),
        ("runs.py", "from .engine import losses", "floor 3"),
        ("runs.py", "from . import engine", "floor 3"),
        (
            "doctor.py",
            "if True:\n    import importlib\n    importlib.import_module('simpo_workbench.runs.launch')",
            "floor 3",
        ),
        ("engine/models.py", "from ..ui.html import escape", "never import each other"),
        ("ui/html.py", "from ..engine.losses import simpo_loss", "never import each other"),
        ("engine/models.py", "from .. import cli", "floor 4"),
        ("runs.py", "import simpo_workbench as wb", "imports the whole package"),
        ("scores.py", "import torch.nn.functional as F", "imports torch.nn.functional"),
        ("pairs.py", "def f():\n    from transformers import AutoTokenizer", "imports transformers"),
        ("ui/panel.py", "import peft", "imports peft"),
        ("utils.py", "", "utils.py is on no floor: add it to FLOORS"),
        ("drawer/x.py", "", "is on no floor"),
    ],
)
def test_a_step_on_the_wrong_floor_is_seen(path, source, said):
    files = {**package_files(), path: source}
    assert [text for text in complaints(files) if said in text and text.startswith(path)]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("config.py", "from .errors import WorkbenchError\nfrom .settings import Section"),
        ("runs.py", "from . import process\nfrom .figures import training_figure\nimport pandas"),
        (
            "engine/models.py",
            (
                "import torch\nfrom .. import __version__\nfrom ..config import RunConfig\nfrom . import losses\nfrom"
                " .losses import simpo_loss"
            ),
        ),
        ("report.py", "from .runs import Run\nfrom . import launch"),
        ("ui/panel.py", "from ..launch import start\nfrom .html import escape\nimport ipywidgets"),
        ("cli.py", "def f():\n    from .engine.training import train"),
    ],
)
def test_a_step_on_the_right_floor_is_not_complained_of(path, source):
    assert [text for text in complaints({**package_files(), path: source}) if text.startswith(path)] == []


@pytest.mark.parametrize("path", sorted(package_files()))
def test_no_file_is_too_long_to_read(path):
    lines = len((PACKAGE / path).read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{path} has {lines} lines: a file of more than about 400 is asking to be two."


# --- what an import loads


def in_fresh_interpreter(code):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_importing_the_package_loads_nothing_heavy_and_takes_no_time():
    seconds, *loaded = in_fresh_interpreter(
        "import sys, time\n"
        "before, start = set(sys.modules), time.process_time()\n"
        "import simpo_workbench\n"
        "print(time.process_time() - start, *{name.split('.')[0] for name in set(sys.modules) - before})\n"
    )
    assert "simpo_workbench" in loaded
    assert (
        set(loaded) & {*TORCH_FAMILY, "ipywidgets", "pandas", "plotly", "datasets", "pydantic", "numpy", "pyarrow"}
        == set()
    )
    assert float(seconds) < 0.5  # processor time beyond a bare interpreter's, whatever else the machine does


def test_importing_every_ground_floor_module_loads_no_torch():
    modules = [room.removesuffix(".py") for floor in (1, 2) for room in FLOORS[floor] if (PACKAGE / room).exists()]
    assert len(modules) > 15
    statements = [f"import simpo_workbench.{module}" for module in modules]
    loaded = in_fresh_interpreter(
        "\n".join([*statements, "import sys", "print(*{name.split('.')[0] for name in sys.modules})"])
    )
    assert "pydantic" in loaded
    assert set(loaded) & {*TORCH_FAMILY, "ipywidgets", "pandas", "datasets"} == set()


# --- the public names


def home_file(home):
    path = PACKAGE / home.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@pytest.mark.parametrize(("name", "home"), simpo_workbench._HOMES.items())
def test_every_public_name_has_a_home(name, home):
    assert home_file(home).is_file(), f"simpo_workbench.{name} is promised by {home}, which does not exist."
    defined = set()
    for node in ast.parse(home_file(home).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom):  # a wing's __init__ may pass a name on
            defined |= {alias.asname or alias.name for alias in node.names}
    assert name in defined


@pytest.mark.parametrize(
    "name", [name for name, home in simpo_workbench._HOMES.items() if FLOOR_OF.get(f"{home}.py", 9) <= 2]
)
def test_a_public_name_of_the_ground_floors_is_what_its_home_defines(name):
    value = getattr(simpo_workbench, name)
    assert value.__name__ == name
    assert value.__module__ == f"simpo_workbench.{simpo_workbench._HOMES[name]}"


def test_editors_are_told_the_same_names_as_users():
    """The imports under TYPE_CHECKING are never run, so nothing else would notice that one is missing or wrong."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(
        node for node in tree.body if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    )
    assert {alias.name: node.module for node in block.body for alias in node.names} == simpo_workbench._HOMES
    assert set(simpo_workbench._HOMES) <= set(dir(simpo_workbench))
    assert sorted(simpo_workbench._HOMES) == simpo_workbench.__all__


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = simpo_workbench.trian
