"""What a user would lose: a tutorial that does not run.

The second notebook is run by tests/notebooks, which also checks its numbers.
"""

import json
import shutil

import pytest
from filelock import FileLock
from notebook_files import FOLDER, NOTEBOOKS, by_name, clone_in, code, run_in, run_without_download

import simpo_workbench as wb

#: Trains the run that others read.
QUICKSTART = FOLDER / "01_quickstart.ipynb"
BY_HAND = FOLDER / "02_the_loss_by_hand.ipynb"
#: Needs neither the demo model nor a run.
TO_A_GPU = FOLDER / "07_from_laptop_to_gpu.ipynb"
#: Trains a second run, on pairs that cost the model facts.
IS_IT_BETTER = FOLDER / "06_is_it_better.ipynb"
READS_THE_RUN = [path for path in NOTEBOOKS if "wb.find_run(" in code(path)]
OTHERS = [path for path in NOTEBOOKS if path not in (QUICKSTART, BY_HAND, TO_A_GPU, *READS_THE_RUN)]
#: Steps that a notebook may train beside the run it reads: they are most of its time.
MOST_STEPS = 18


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory, worker_id):
    """(what the quickstart showed, folder of its run): executed once for all notebooks that read its run, and once for
    all processes of a parallel test run.
    """
    base = tmp_path_factory.getbasetemp()  # of this process; its parent belongs to all of them
    shared = (base if worker_id == "master" else base.parent) / "quickstart"
    with FileLock(f"{shared}.lock"):
        if not (shared / "shown.json").is_file():
            notebook = run_in(clone_in(shared), QUICKSTART)
            outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
            (shared / "shown.json").write_text(json.dumps(outputs), encoding="utf-8")
    run = wb.find_run(wb.preset("tutorial").with_changes({"run.root": str(shared / "runs")}))
    assert run is not None, "the quickstart leaves no finished run behind"
    return (shared / "shown.json").read_text(encoding="utf-8"), run.path


@pytest.fixture
def place(tmp_path):
    return clone_in(tmp_path)


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
    """It finds the finished run in ../runs and does not train it again; what it trains beside it is short."""
    _, trained = quickstart
    shutil.copytree(trained, place[1] / trained.name)
    run_in(place, path)
    added = [run for run in place[1].iterdir() if run.name != trained.name]
    assert [run.name for run in added if same_settings(run, trained)] == []
    assert sum(wb.attach(run).status.total_steps for run in added) <= MOST_STEPS
    if path == IS_IT_BETTER:
        shows_what_accuracy_hides(added)


def shows_what_accuracy_hides(added):
    """The second run is what the notebook says: the leads grow, facts are lost, and the doctor sees it."""
    (run,) = map(wb.attach, added)
    first, *_, last = run.metrics.query("kind == 'eval'").to_dict("records")
    assert (first["step"], last["step"]) == (0, run.status.total_steps)
    assert last["eval/rewards/accuracies"] >= first["eval/rewards/accuracies"]
    assert last["eval/rewards/margins"] > first["eval/rewards/margins"]
    assert last["eval/answers/checked"] >= 20
    assert last["eval/answers/became_wrong"] > last["eval/answers/became_right"]
    verdicts = wb.analysis.diagnose(run.metrics, run.status.total_steps)
    assert "healthy" not in {verdict.severity for verdict in verdicts}


def same_settings(one, other):
    configs = [wb.RunConfig.from_yaml(folder / "config.yaml").model_dump(exclude={"run"}) for folder in (one, other)]
    return configs[0] == configs[1]


@pytest.mark.demo_model
@by_name(OTHERS)
def test_runs_from_top_to_bottom(path, place):
    run_in(place, path)


def test_the_way_to_a_gpu_needs_no_download(place, tmp_path, monkeypatch):
    run_without_download(place, TO_A_GPU, tmp_path / "cache", monkeypatch)
