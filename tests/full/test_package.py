"""What a user would lose: a package that works only beside its repository."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A fresh environment with the built wheel in it; the dependencies are those of the environment the tests run
    in.
    """
    folder = tmp_path_factory.mktemp("package")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (wheel,) = folder.glob("simpo_workbench-*.whl")
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    )
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    options = ["--quiet", "--no-deps", "--no-index", "--ignore-installed"]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", *options, wheel], check=True, timeout=300
    )
    empty = folder / "somewhere"
    empty.mkdir()
    return folder / "venv" / "bin", empty


def test_the_wheel_brings_demo_data_and_notebooks(installed):
    binaries, folder = installed
    code = """
import simpo_workbench as wb
from simpo_workbench.base.paths import bundled
from simpo_workbench.pairs.data_sets import load_data
train, held_out, *_ = load_data(wb.RunConfig().data, 0)
assert wb.Workbench()._frame._css, "the panels bring their style sheet and scripts"
print(wb.__file__, bundled("notebooks/01_quickstart.ipynb"), len(train), len(held_out))
"""
    options = {"check": True, "capture_output": True, "text": True, "cwd": folder, "env": CLEAN, "timeout": 300}
    words = subprocess.run([binaries / "python", "-c", code], **options).stdout.split()
    inside = str(binaries.parent)
    assert words[0].startswith(inside)
    assert words[1].startswith(inside)
    assert words[2:] == ["230", "60"]
    table = subprocess.run([binaries / "simpo-workbench", "presets", "--json"], **options).stdout
    assert json.loads(table)[0]["name"] == "demo"


def test_lab_serves_the_first_notebook_without_a_clone(installed, tmp_path):
    binaries, folder = installed
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "jupyter_server_config.py").write_text("c.ServerApp.open_browser = False\n")
    environment = CLEAN | {
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
    }
    with open(tmp_path / "log", "wb") as log:
        lab = subprocess.Popen(
            [binaries / "simpo-workbench", "lab"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 90
        while not (servers := list((tmp_path / "runtime").glob("jpserver-*.json"))):
            assert lab.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.2)
        server = json.loads(servers[0].read_text())
        url = f"{server['url']}api/contents/01_quickstart.ipynb?token={server['token']}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback only
        while True:
            try:
                notebook = json.load(opener.open(url, timeout=10))
                break
            except ConnectionError:
                assert time.monotonic() < end
                time.sleep(0.2)
    finally:
        os.killpg(lab.pid, signal.SIGKILL)
        lab.wait()
    assert notebook["type"] == "notebook"
    assert (folder / "simpo-notebooks" / "01_quickstart.ipynb").is_file()
