"""JupyterLab on the workbench's notebooks, with this environment as its kernel, also for a browser elsewhere."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from ..base.errors import WorkbenchError
from ..base.paths import bundled

_FIRST_NOTEBOOK, _COPIES = "00_workbench.ipynb", "simpo-notebooks"
_FIRST_PORT, _PORTS = 8888, 100


def open_lab(folder: Path | None = None, remote: bool = False) -> int:
    """The exit status of JupyterLab, which runs on the first notebook until it is closed.

    folder: where the notebooks are, or are copied to. remote: open no browser, and print the SSH tunnel to it.
    """
    first = _notebooks(folder) / _FIRST_NOTEBOOK
    if not first.is_file():
        raise WorkbenchError(
            f"There is no {_FIRST_NOTEBOOK} in {str(first.parent)!r}: name another folder, `simpo-workbench lab"
            " FOLDER`, to get the notebooks anew."
        )
    port = free_port()
    # the port is in the printed line, so JupyterLab must not choose another one
    options = [
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--LabApp.default_url=/lab/tree/{_FIRST_NOTEBOOK}",
    ]
    print(f"Notebooks: {first.parent.resolve()}", flush=True)
    if folder is None and (first.parent.parent / ".git").exists():
        print(
            "JupyterLab writes the version of Python into every notebook that it opens, so git shows it as changed:"
            f" `git checkout notebooks` before `git pull`, or work on copies, `simpo-workbench lab {_COPIES}`.",
            flush=True,
        )
    if os.geteuid() == 0:
        options.append("--allow-root")  # in a container there is often no other user
    if remote or is_remote(os.environ):
        options.append("--no-browser")
        print(
            "The browser is on another computer? There, in a terminal that stays open:\n\n   "
            f" {tunnel(os.environ, port)}\n\nthen open the address below that begins with http://127.0.0.1:{port}.\n",
            flush=True,
        )
    with tempfile.TemporaryDirectory(prefix="simpo-workbench-lab-") as own:
        return _wait([sys.executable, "-m", "jupyterlab", str(first), *options], kernel_environment(Path(own)))


def kernel_environment(folder: Path) -> dict:
    """Environment variables that make this interpreter Jupyter's "python3", whatever kernel is registered by that name.

    folder: where the kernel's description is written to.
    """
    from ipykernel.kernelspec import write_kernel_spec

    write_kernel_spec(folder / "kernels" / "python3")
    # Jupyter searches the folders in JUPYTER_PATH first
    return {**os.environ, "JUPYTER_PATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("JUPYTER_PATH")]))}


def is_remote(environment: dict) -> bool:
    """Whether the browser is on another computer: in an SSH session, or on Linux without a screen other than WSL."""
    if environment.get("SSH_CONNECTION"):
        return True
    screen = environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY") or environment.get("WSL_DISTRO_NAME")
    return sys.platform == "linux" and not screen


def tunnel(environment: dict, port: int) -> str:
    """The SSH command that forwards a port of this machine to the user's computer, by the address of their session."""
    _, _, host, ssh_port = (environment.get("SSH_CONNECTION", "").split() + [""] * 4)[:4]
    where = f" -p {ssh_port}" if ssh_port not in ("", "22") else ""
    return f"ssh -N -L {port}:127.0.0.1:{port}{where} {getpass.getuser()}@{host or socket.gethostname()}"


def free_port() -> int:
    """The first free port from 8888 on. Errors: WorkbenchError when a hundred are taken."""
    for port in range(_FIRST_PORT, _FIRST_PORT + _PORTS):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise WorkbenchError(
        f"The ports {_FIRST_PORT} to {_FIRST_PORT + _PORTS - 1} are all taken: close a JupyterLab that is not needed"
        " (`jupyter server list` names them)."
    )


def _notebooks(folder):
    """A folder of notebooks that may be changed: `folder`, made if it does not exist; by default the clone's."""
    notebooks = bundled("notebooks")
    if folder is None and os.access(notebooks, os.W_OK) and "site-packages" not in notebooks.parts:
        return notebooks
    folder = folder or Path(_COPIES)
    if not folder.exists():
        shutil.copytree(notebooks, folder)
        print(f"The notebooks were copied to {folder}: they are yours to change.")
    return folder


def _wait(command, environment):
    with subprocess.Popen(command, env=environment) as jupyter:
        # JupyterLab ends its kernels at SIGTERM; at Ctrl-C, which it gets as well, it asks first
        signal.signal(signal.SIGTERM, lambda number, frame: jupyter.terminate())
        while True:
            try:
                return jupyter.wait()
            except KeyboardInterrupt:
                continue
