"""What a user would lose: a tutorial that shows somebody else's results, or that names what does not exist.

That they run is tested in tests/full/notebooks, and for the second one beside this file.
"""

import re

import nbformat
import pytest
from notebook_files import FOLDER, NOTEBOOKS, TROUBLE, by_name, cells, read

import simpo_workbench as wb

#: The workbench itself, which teaches nothing and leaves nothing to try.
NO_LESSON = ("00_workbench",)
MOST_LINES = 15

#: Places on somebody's machine: from the root of a disk or of a home, not "../runs" and not the path of a web address.
ABSOLUTE = re.compile(
    r"""(?<![\w./~:<])(/(?:home|root|tmp|work|mnt|Users|usr|var|opt|data|content|workspace)\b|~/)|\b[A-Za-z]:\\\\?\w|file://"""
)
SECRET = re.compile(r"\bhf_[A-Za-z0-9]{10,}|\bsk-[A-Za-z0-9]{10,}|\bgh[pousr]_[A-Za-z0-9]{10,}")


@by_name(NOTEBOOKS)
def test_stored_clean(path):
    """No results, counts or widgets of whoever ran it last, and ids that a change leaves as they are."""
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)  # cells have ids
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert notebook.metadata.get("language_info", {}).get("version") is None
    for cell in notebook.cells:
        assert re.fullmatch(r"[a-z][a-z0-9_-]{1,30}", cell.id), f"{cell.id}: an id is a short word that stays"
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@by_name(NOTEBOOKS)
def test_it_names_no_place_on_anybodys_machine_and_no_secret(path):
    for cell in read(path).cells:
        assert not ABSOLUTE.search(cell.source), cell.id
        assert not SECRET.search(cell.source), cell.id


@pytest.mark.parametrize(
    "text",
    [
        "open('/tmp/x')",
        '"/home/me/runs"',
        "cd ~/work",
        "path = r'C:\\runs'",
        'wb.attach("/work/runs/demo")',
        "file:///x",
        "/Users/me/x",
        "`/root/.cache`",
        "=/mnt/data",
    ],
)
def test_places_on_a_machine_are_recognized(text):
    assert ABSOLUTE.search(text)


@pytest.mark.parametrize(
    "text",
    [
        'root="../runs"',
        "https://example.org/home/x",
        "pairs/data",
        "a / b",
        "γ/β",
        "data/plain_answers",
        "and/or",
        "[x](../data/README.md)",
        "eval/rewards/margins",
    ],
)
def test_what_is_no_place_on_a_machine_is_let_through(text):
    assert not ABSOLUTE.search(text)


@by_name(NOTEBOOKS)
def test_it_can_be_read(path):
    """It begins with its title, no cell is longer than one looks at, and code does not follow on code without end."""
    all_cells = read(path).cells
    first = all_cells[0]
    assert first.cell_type == "markdown"
    assert re.match(r"# \S", first.source)
    assert sum(cell.source.count("\n# ") for cell in all_cells if cell.cell_type == "markdown") == 0, "one title"
    for cell in cells(path, "code"):
        assert 0 < len(cell.source.splitlines()) <= MOST_LINES, f"{cell.id} has {len(cell.source.splitlines())} lines"
    kinds = "".join(cell.cell_type[0] for cell in all_cells)
    assert "cccc" not in kinds, "a word between the cells"


@by_name([path for path in NOTEBOOKS if path.stem not in NO_LESSON])
def test_it_ends_with_something_to_try(path):
    last = read(path).cells[-1]
    assert last.cell_type == "markdown"
    assert last.source.startswith("**To try")


@by_name(NOTEBOOKS)
def test_formulas_are_closed_and_links_lead_somewhere(path):
    for cell in cells(path, "markdown"):
        prose = re.sub(r"```.*?```|`[^`]*`", "", cell.source, flags=re.DOTALL)
        assert prose.count("$$") % 2 == 0, cell.id
        assert prose.replace("$$", "").count("$") % 2 == 0, cell.id
        for target in re.findall(r"\]\(([^)\s]+)\)", prose):
            assert target.startswith("https://") or (FOLDER / target.split("#")[0]).exists(), target


@by_name(NOTEBOOKS)
def test_it_uses_only_names_that_exist(path):
    """Of the package, its settings and its presets; a cell may catch what a run would raise, but the reader reads the
    name.
    """
    text = "\n".join(cell.source for cell in read(path).cells)
    assert set(re.findall(r"\bwb\.([A-Za-z_]\w*)", text)) <= set(wb.__all__)
    paths = {f"{section}.{name}" for section, values in wb.RunConfig().model_dump().items() for name in values} | {
        "loss.gamma"
    }
    assert set(re.findall(r'"((?:model|data|loss|lora|training|generation|run)\.[a-z_]+)":', text)) <= paths
    assert set(re.findall(r'wb\.preset\("([^"]+)"\)', text)) <= set(wb.list_presets().index)


@by_name(NOTEBOOKS)
def test_no_overlap_of_two_single_intervals_decides_anything(path):
    """Before and after are the same pairs: a share is compared by the interval of its paired change."""
    text = "\n".join(cell.source for cell in read(path).cells)
    assert not re.search(r"overlap", text, re.IGNORECASE)
    if re.search(r"\bshare\(", text) and "compare" in text:
        assert "share_change(" in text


@pytest.mark.parametrize(
    ("text", "troubled"),
    [
        ("Traceback (most recent call last):", True),
        ("x.py:3: FutureWarning: old", True),
        ("UserWarning", True),
        ("x.py:3: SettingWarning: rate", False),
        ("One warning: fine", False),
    ],
)
def test_trouble_in_what_a_cell_prints_is_recognized(text, troubled):
    assert bool(TROUBLE.search(text)) is troubled
