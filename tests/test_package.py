"""What a user would lose: a package that imports at once, whose names exist, and which says where it does not run."""

import ast
import os
import subprocess
import sys
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


# --- the public names


def home_file(home):
    path = PACKAGE / home.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def defined_names(path):
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def test_every_public_name_has_a_home():
    homeless = [
        f"simpo_workbench.{name} is promised by {home}."
        for name, home in simpo_workbench._HOMES.items()
        if not home_file(home).is_file() or name not in defined_names(home_file(home))
    ]
    assert homeless == []


def test_a_public_name_is_what_its_home_defines():
    homes = {name: home for name, home in simpo_workbench._HOMES.items() if home.split(".")[0] in LIGHT}
    for name, home in homes.items():
        value = getattr(simpo_workbench, name)
        assert (value.__name__, value.__module__) == (name, f"simpo_workbench.{home}")


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
