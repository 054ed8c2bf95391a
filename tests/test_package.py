"""What a user would lose: a package that imports at once, whose names exist, and which says where it does not run."""

import ast
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import simpo_workbench

PACKAGE = Path(simpo_workbench.__file__).parent
HEAVY = {"torch", "transformers", "peft", "accelerate", "bitsandbytes", "ipywidgets", "pandas", "datasets"}
#: Rooms without torch.
LIGHT = ("base", "config", "pairs", "analysis", "charts", "runs", "report")


def in_fresh_interpreter(code):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


LOADED = "\nprint(*{name.split('.')[0] for name in sys.modules})"


def test_importing_the_package_loads_nothing_heavy():
    loaded = set(in_fresh_interpreter("import sys, simpo_workbench" + LOADED).split())
    assert "simpo_workbench" in loaded
    assert loaded & {*HEAVY, "plotly", "pydantic", "numpy", "pyarrow"} == set()


def test_importing_every_module_of_a_light_room_loads_no_torch():
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for room in LIGHT
        for path in sorted((PACKAGE / room).glob("*.py"))
    ]
    assert len(modules) > 40
    loaded = set(in_fresh_interpreter(f"import sys, {', '.join(modules)}" + LOADED).split())
    assert "pydantic" in loaded
    assert loaded & HEAVY == set()


def test_native_windows_is_refused_in_one_sentence():
    printed = in_fresh_interpreter("""
import sys
sys.platform = "win32"
try:
    import simpo_workbench
except ImportError as error:
    print(error)
""")
    assert "WSL2" in printed
    assert printed.count("\n") == 1


# --- the public names: those of the package, and those of the rooms that have some

OPEN_ROOMS = (simpo_workbench.analysis, simpo_workbench.charts, simpo_workbench.runs, simpo_workbench.ui)
PACKAGES = pytest.mark.parametrize("package", [simpo_workbench, *OPEN_ROOMS], ids=lambda package: package.__name__)


def homes_of(package):
    """{public name: absolute name of the module that defines it}, without the rooms themselves."""
    return {name: f"{package.__name__}.{home}" for name, home in package._HOMES.items() if home}


@PACKAGES
def test_a_public_name_is_what_its_home_defines(package):
    for name, home in homes_of(package).items():
        value = getattr(package, name)
        assert value is getattr(import_module(home), name)
        if hasattr(value, "__module__"):  # tables have none
            assert (value.__name__, value.__module__) == (name, home)


@PACKAGES
def test_no_module_hides_a_public_name(package):
    """Once imported, a sub-module is an attribute of its package, and would stand in the place of the name."""
    modules = {path.stem for path in Path(package.__file__).parent.iterdir()}
    assert modules & set(homes_of(package)) == set()


@PACKAGES
def test_editors_are_told_the_same_names_as_users(package):
    """The imports under TYPE_CHECKING are never run, so nothing else would notice that one is missing or wrong."""
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    block = next(
        node for node in tree.body if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    )
    told = {alias.name: node.module or "" for node in block.body for alias in node.names}
    assert told == package._HOMES
    assert set(told) <= set(dir(package))
    assert sorted(told) == package.__all__


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = simpo_workbench.trian
    with pytest.raises(AttributeError, match="module 'simpo_workbench.analysis' has no attribute 'diagnoze'"):
        _ = simpo_workbench.analysis.diagnoze
