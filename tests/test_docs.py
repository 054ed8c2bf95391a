"""A map that names rooms, files or fields which are gone is worse than none."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

import simpo_workbench as wb
from simpo_workbench.runs.folder import RunFolder

ROOT = Path(__file__).parents[1]
PACKAGE, DOCS = ROOT / "simpo_workbench", ROOT / "docs"
ARCHITECTURE = (DOCS / "architecture.md").read_text(encoding="utf-8")
#: log.md tells of files that are gone.
PAGES = [path for folder in (ROOT, DOCS, ROOT / "benchmarks", ROOT / "data") for path in folder.glob("*.md")]
PAGES = [path for path in PAGES if path.name not in ("log.md", "CHANGELOG.md")]
#: Files of a run and of an adapter.
OF_RUNS = {"log.txt", "README.md"}


def test_pages_made_from_code_are_current():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for name, page in generate.PAGES.items():
        assert (DOCS / name).read_text(encoding="utf-8") == page(), f"docs/{name} is out of date: run `make docs`"


def test_the_map_describes_every_room_in_its_own_words():
    captions = re.findall(r"── (\S+) +(.+)", ARCHITECTURE.split("```")[1])
    rooms = [path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE]
    described = [(f"{path.parent.name}/", first_paragraph(path)) for path in rooms]
    described += [(name, first_paragraph(PACKAGE / name)) for name in ("inference.py",)]
    assert sorted(captions) == sorted(described)


def first_paragraph(path):
    """The first paragraph of a module's docstring, in one line."""
    return " ".join(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).partition("\n\n")[0].split())


def test_the_map_states_the_order_that_is_held():
    floors = (ROOT / "tests/test_floors.py").read_text(encoding="utf-8")
    rooms = re.search(r'^ROOMS = """(.*?)"""', floors, re.MULTILINE | re.DOTALL)[1].split()
    section = ARCHITECTURE.partition("## Who may import whom")[2].partition("\n## ")[0]
    listed = re.findall(r"^\d+\. `(\w+)", section, re.MULTILINE)
    assert listed == [room for room in dict.fromkeys(room.partition("/")[0] for room in rooms) if room != "_version"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_page_mentions_exist(page):
    text = page.read_text(encoding="utf-8")
    mentioned = set(re.findall(r"`([\w./-]+\.(?:py|md|sh|css|js|ipynb|toml|txt))`", text)) - OF_RUNS
    bases = (ROOT, PACKAGE, ROOT / "tests", page.parent)
    missing = [path for path in mentioned if not any((base / path).exists() for base in bases)]
    missing += [path for path in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) if not (page.parent / path).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_that_a_page_mentions_exist(page):
    mentioned = set(re.findall(r"\bwb\.(?:(analysis|charts|runs|ui)\.)?(\w+)", page.read_text(encoding="utf-8")))
    assert [name for room, name in mentioned if name not in (getattr(wb, room) if room else wb).__all__] == []


def test_the_run_folder_page_names_every_path():
    folder = RunFolder("run")
    paths = [path for path in vars(folder).values() if isinstance(path, Path) and path != folder.path]
    page = (DOCS / "run-folder.md").read_text(encoding="utf-8")
    paths += [folder.scores(20), folder.generations(20), folder.checkpoint(20)]
    assert [path.name for path in paths if path.name not in page] == []
