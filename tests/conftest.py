"""Fixtures that many tests share: a tiny model on disk, a tiny data set, a short configuration."""

import gc
import json
import os
import shutil
import signal
import sys
import tempfile

import pytest

pytest.register_assert_rewrite("packed_families")
# tiny models gain nothing from threads, and processes with several threads on few cores wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")
# runs that are started by tests wait for each other, not for what the user trains meanwhile
os.environ["SIMPO_WORKBENCH_DEVICES"] = tempfile.mkdtemp(prefix="devices-")


@pytest.fixture(autouse=True)
def light_page():
    """A test that turned its page dark leaves the next one a light page."""
    yield
    if panel := sys.modules.get("simpo_workbench.ui.parts.panel"):
        panel.Panel._page_theme = "light"


def pytest_collection_modifyitems(items):
    """Begin with the notebooks that share one long run, and go on with tests/full: the short tests fill the end up, so
    that no process waits for another.
    """
    items.sort(key=lambda item: ("quickstart" not in item.fixturenames, "full" not in item.path.parts))


def pytest_collection_finish():
    """Spare the garbage collector the libraries: a training run collects twice, and would search all of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium that requests nothing on its own. Without one the browser tests skip; in CI that fails."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        message = "No chromium on this machine: nothing was tested in a browser. Debian: apt-get install chromium."
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A JupyterLab for all browser tests of this process."""
    from lab_page import LabServer

    server = LabServer(tmp_path_factory.mktemp("lab"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Folder of a tiny random Llama with a ChatML tokenizer."""
    import tiny

    return tiny.save(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_pairs(tmp_path_factory):
    """(training file, held-out file) of meaningless pairs."""
    import tiny

    folder = tmp_path_factory.mktemp("pairs")
    for name, rows in (("train", tiny.rows(24)), ("eval", tiny.rows(8, start=100))):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "train.jsonl"), str(folder / "eval.jsonl")


@pytest.fixture(scope="session")
def tiny_settings(tiny_model, tiny_pairs):
    """Six steps of four pairs on the tiny model in fp32, for RunConfig.from_dict."""
    return {
        "model": {"name": tiny_model, "load_in": "fp32"},
        "data": {"train": tiny_pairs[0], "eval": tiny_pairs[1]},
        "lora": {"r": 4, "alpha": 8},
        "training": {"learning_rate": 1e-2, "pairs_per_step": 4, "max_steps": 6, "eval_every": 3, "save_every": 2},
        "generation": {
            "prompts": ["What is the capital of France?"],
            "held_out_prompts": 2,
            "max_new_tokens": 8,
            "every": 3,
        },
    }


@pytest.fixture
def tiny_config(tiny_settings, tmp_path):
    """The tiny settings, with runs in a temporary folder; what still trains there at the end is killed."""
    from simpo_workbench.config.run_config import RunConfig

    yield RunConfig.from_dict(tiny_settings, {"run.name": "tiny", "run.root": str(tmp_path / "runs")})
    for status in tmp_path.rglob("status.json"):
        end_worker(status)


@pytest.fixture(scope="session")
def finished_run(tiny_settings, tmp_path_factory):
    """A function from changes of the tiny settings to the finished run, which is trained once and must only be read."""
    from simpo_workbench.config.run_config import RunConfig
    from simpo_workbench.engine.training import train

    runs = {}

    def run_with(changes=None):
        key = json.dumps(changes, sort_keys=True)
        if key not in runs:
            place = {"run.name": "finished", "run.root": str(tmp_path_factory.mktemp("runs"))}
            runs[key] = train(RunConfig.from_dict(tiny_settings, {**(changes or {}), **place}))
        return runs[key]

    return run_with


def end_worker(status):
    """A test that failed must not leave a run of thousands of steps behind."""
    from simpo_workbench.base import process
    from simpo_workbench.base.files import read_json

    values = read_json(status) or {}
    if values.get("owner") == "worker":
        process.signal_group(values.get("process"), signal.SIGKILL)
