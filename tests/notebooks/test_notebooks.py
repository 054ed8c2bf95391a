"""What a user would lose: a tutorial that does not run, or that shows somebody else's results."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock
from nbclient import NotebookClient

import simpo_workbench as wb

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
#: The workbench itself, which teaches nothing and leaves nothing to try.
NO_LESSON = ("00_workbench",)
#: Notebooks that need neither the demo model nor a run.
WITHOUT_DOWNLOAD = ("02_the_loss_by_hand", "07_from_laptop_to_gpu")
#: Trains the run that others read.
QUICKSTART = "01_quickstart"
MOST_LINES = 15

#: Places on somebody's machine: from the root of a disk or of a home, not "../runs" and not the path of a web address.
ABSOLUTE = re.compile(
    r"""(?<![\w./~:<])(/(?:home|root|tmp|work|mnt|Users|usr|var|opt|data|content|workspace)\b|~/)|\b[A-Za-z]:\\\\?\w|file://"""
)
SECRET = re.compile(r"\bhf_[A-Za-z0-9]{10,}|\bsk-[A-Za-z0-9]{10,}|\bgh[pousr]_[A-Za-z0-9]{10,}")
#: What a cell must not leave behind for whoever reads on: warnings and tracebacks. A SettingWarning is our own advice
#: on a setting, and may be the lesson.
TROUBLE = re.compile(r"Traceback \(most recent call last\)|\b(?!SettingWarning)\w*Warning\b|\bWARNING\b|\bERROR\b")


def by_name(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def cells(path, kind):
    return [cell for cell in read(path).cells if cell.cell_type == kind]


def code(path):
    return "\n".join(cell.source for cell in cells(path, "code"))


# --- as they are stored


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


# --- as they run


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory, worker_id):
    """(what the quickstart showed, folder of its run): executed once for all notebooks that read its run, and once for
    all processes of a parallel test run.
    """
    base = tmp_path_factory.getbasetemp()  # of this process; its parent belongs to all of them
    shared = (base if worker_id == "master" else base.parent) / "quickstart"
    with FileLock(f"{shared}.lock"):
        if not (shared / "shown.json").is_file():
            done = shown(run_in(clone_in(shared), FOLDER / f"{QUICKSTART}.ipynb"))
            (shared / "shown.json").write_text(done, encoding="utf-8")
    run = wb.find_run(wb.preset("tutorial").with_changes({"run.root": str(shared / "runs")}))
    assert run is not None, "the quickstart leaves no finished run behind"
    return (shared / "shown.json").read_text(encoding="utf-8"), run.path


def clone_in(folder):
    """(notebooks, runs), laid out like a clone, so that "../runs" is where the notebooks expect it."""
    for name in ("notebooks", "runs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder / "notebooks", folder / "runs"


@pytest.fixture
def place(tmp_path):
    return clone_in(tmp_path)


def run_in(place, path):
    """The executed notebook; what it printed is looked at for trouble."""
    notebook = read(path)
    here = {"metadata": {"path": str(place[0])}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=here, store_widget_state=False).execute()
    for cell in notebook.cells:
        for output in cell.outputs if cell.cell_type == "code" else ():
            assert output.output_type != "error", cell.id
            if output.output_type == "stream":
                assert not TROUBLE.search(output.text), f"{cell.id} printed {output.text[:500]!r}"
    assert "widgets" not in notebook.metadata
    return notebook


def shown(notebook):
    return "".join(json.dumps(output) for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs)


READS_THE_RUN = [path for path in NOTEBOOKS if "wb.find_run(" in code(path)]
NEEDS_MODEL = [
    path for path in NOTEBOOKS if path not in READS_THE_RUN and path.stem not in (*WITHOUT_DOWNLOAD, QUICKSTART)
]


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


@by_name([path for path in NOTEBOOKS if path.stem in WITHOUT_DOWNLOAD])
def test_runs_without_any_download(path, place, monkeypatch, tmp_path):
    """The cache is empty and the package index out of reach, so a notebook that wanted the demo model would say so in
    an error.
    """
    monkeypatch.setenv("SIMPO_WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    run_in(place, path)


@pytest.mark.demo_model
@pytest.mark.timeout(1800)
@by_name(NEEDS_MODEL)
def test_runs_from_top_to_bottom(path, place):
    run_in(place, path)


@pytest.mark.demo_model
@pytest.mark.timeout(1800)
def test_the_quickstart_trains_a_run_in_a_process_of_its_own_and_shows_it(quickstart):
    done, run = quickstart
    assert "finished" in done
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    assert wb.attach(run).status.state == "finished"


@pytest.mark.demo_model
@pytest.mark.timeout(1800)
@by_name(READS_THE_RUN)
def test_reads_a_run_that_is_there(path, place, quickstart):
    """It finds the finished run in ../runs and does not train it again."""
    _, trained = quickstart
    shutil.copytree(trained, place[1] / trained.name)
    run_in(place, path)
    again = [run.name for run in place[1].iterdir() if run.name != trained.name and same_settings(run, trained)]
    assert again == []


def same_settings(one, other):
    configs = [wb.RunConfig.from_yaml(folder / "config.yaml").model_dump(exclude={"run"}) for folder in (one, other)]
    return configs[0] == configs[1]
