"""What a user would lose: a notebook that opens with somebody else's Python, or an address that leads nowhere."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from click.testing import CliRunner

from simpo_workbench.cli import lab
from simpo_workbench.cli.main import main

SSH = {"SSH_CONNECTION": "192.0.2.7 50022 198.51.100.4 22"}
FIND_KERNEL = (
    "from jupyter_client.kernelspec import KernelSpecManager as M; print(M().get_kernel_spec('python3').argv[0],"
    " M().get_all_specs()['python3']['spec']['argv'][0])"
)


@pytest.fixture
def decoys(tmp_path, monkeypatch):
    """Kernels named python3 wherever Jupyter looks, and a machine where the user's folder goes before the
    environment's.
    """
    for name, variable in (("user", "JUPYTER_DATA_DIR"), ("path", "JUPYTER_PATH")):
        spec = tmp_path / name / "kernels" / "python3"
        spec.mkdir(parents=True)
        (spec / "kernel.json").write_text(
            json.dumps(
                {
                    "argv": ["/nowhere/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                    "display_name": "Decoy",
                    "language": "python",
                }
            )
        )
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")


def found_kernels(environment):
    return subprocess.run(
        [sys.executable, "-c", FIND_KERNEL], capture_output=True, text=True, check=True, env=environment, timeout=60
    ).stdout.split()


def test_the_kernel_is_this_environment_whatever_else_is_registered(decoys, tmp_path):
    assert found_kernels(dict(os.environ)) == ["/nowhere/python"] * 2, "without help the decoy wins"
    assert found_kernels(lab.kernel_environment(tmp_path / "own")) == [sys.executable] * 2


class Started:
    """Stands for the JupyterLab process: remembers how it was started, and is interrupted once before it ends."""

    def __init__(self, command, env):
        Started.command, self.interrupts = command, 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def wait(self):
        if self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt
        return 3


@pytest.fixture
def started(monkeypatch):
    monkeypatch.setattr(lab.subprocess, "Popen", Started)
    for name in ("SSH_CONNECTION", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    return Started


def open_lab(*arguments):
    """What `simpo-workbench lab` printed; it ended as JupyterLab did, an interrupt in between notwithstanding."""
    result = CliRunner().invoke(main, ["lab", *arguments])
    assert result.exit_code == 3, result.output
    return result.output


def test_on_a_screen_the_browser_opens_and_no_tunnel_is_mentioned(started):
    assert "ssh" not in open_lab()
    assert started.command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert started.command[3].endswith("notebooks/00_workbench.ipynb")
    assert "--no-browser" not in started.command


def test_the_notebooks_of_a_clone_are_said_to_change_and_copies_are_not(started, monkeypatch, tmp_path):
    for place, folder in (("clone", ".git"), ("unpacked", "docs")):
        (tmp_path / place / folder).mkdir(parents=True)
        (tmp_path / place / "notebooks").mkdir()
        (tmp_path / place / "notebooks" / "00_workbench.ipynb").touch()
    monkeypatch.chdir(tmp_path)
    told = "`git checkout notebooks` before `git pull`"
    for place, is_told in (("clone", True), ("unpacked", False)):
        monkeypatch.setattr(lab, "bundled", lambda name, place=place: tmp_path / place / name)
        assert (told in open_lab()) is is_told
        assert told not in open_lab(f"copies-of-{place}")


@pytest.mark.parametrize("arguments", [(), ("--remote",), ("--no-browser",)])
def test_a_remote_machine_prints_the_tunnel_to_the_port_that_is_served(started, monkeypatch, arguments):
    monkeypatch.setenv("USER", "ada")
    monkeypatch.setenv("LOGNAME", "ada")
    if not arguments:
        monkeypatch.setenv("SSH_CONNECTION", SSH["SSH_CONNECTION"])
    printed = open_lab(*arguments)
    host = socket.gethostname() if arguments else "198.51.100.4"
    port = re.search(rf"ssh -N -L (\d+):127\.0\.0\.1:\1 ada@{re.escape(host)}\n", printed)[1]
    assert {"--no-browser", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"} <= set(started.command)


def test_a_taken_port_is_passed_over():
    first = lab.free_port()
    with socket.create_server(("127.0.0.1", first)):
        assert lab.free_port() > first


def test_the_tunnel_names_an_unusual_ssh_port():
    assert lab.tunnel({"SSH_CONNECTION": "192.0.2.7 50022 2001:db8::4 2222"}, 8890).startswith(
        "ssh -N -L 8890:127.0.0.1:8890 -p 2222 "
    )


@pytest.mark.parametrize(
    ("environment", "platform", "remote"),
    [
        (SSH, "darwin", True),
        ({**SSH, "DISPLAY": "localhost:10.0"}, "linux", True),
        ({}, "linux", True),
        ({"DISPLAY": ":0"}, "linux", False),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", False),
        ({"WSL_DISTRO_NAME": "Debian"}, "linux", False),
        ({}, "darwin", False),
    ],
)
def test_where_the_browser_is(monkeypatch, environment, platform, remote):
    monkeypatch.setattr(lab.sys, "platform", platform)
    assert lab.is_remote(environment) is remote


def test_a_folder_without_the_notebook_is_said_in_words(started, monkeypatch, tmp_path):
    monkeypatch.setattr(lab, "bundled", lambda name: tmp_path)
    result = CliRunner().invoke(main, ["lab"])
    assert result.exit_code == 1
    assert "There is no 00_workbench.ipynb" in result.output


def test_the_printed_address_is_served_and_its_kernel_is_ours(decoys, tmp_path):
    """The real JupyterLab: the port in the tunnel line answers, and says which Python it would start."""
    environment = os.environ | {
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_TOKEN": "secret",
        "TMPDIR": str(tmp_path),
    }
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "simpo_workbench.cli.main", "lab", "--remote"],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback only
    try:
        end = time.monotonic() + 90
        specs = None
        while specs is None:
            text = (tmp_path / "log").read_text()
            assert process.poll() is None, text
            assert time.monotonic() < end, text
            if port := re.search(r"ssh -N -L (\d+):", text):
                try:
                    specs = json.load(
                        opener.open(f"http://127.0.0.1:{port[1]}/api/kernelspecs?token=secret", timeout=10)
                    )
                except OSError:
                    time.sleep(0.2)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert specs["kernelspecs"]["python3"]["spec"]["argv"][0] == sys.executable
