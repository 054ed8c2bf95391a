"""The notebooks of this repository: read, and executed as a user does."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
#: Text that no cell may print. A SettingWarning is our own advice on a setting, and may be the lesson.
TROUBLE = re.compile(r"Traceback \(most recent call last\)|\b(?!SettingWarning)\w*Warning\b|\bWARNING\b|\bERROR\b")


def by_name(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def cells(path, kind):
    return [cell for cell in read(path).cells if cell.cell_type == kind]


def code(path):
    return "\n".join(cell.source for cell in cells(path, "code"))


def clone_in(folder):
    """(notebooks, runs), laid out like a clone, so that "../runs" is where the notebooks expect it."""
    for name in ("notebooks", "runs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder / "notebooks", folder / "runs"


def run_in(place, path):
    """The executed notebook, whose cells printed neither warnings nor errors; place: as from `clone_in`."""
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


def run_without_download(place, path, cache, monkeypatch):
    """The same with an empty cache and no network, where a notebook that needs the demo model ends in an error."""
    monkeypatch.setenv("SIMPO_WORKBENCH_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return run_in(place, path)
