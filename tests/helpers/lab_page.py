"""JupyterLab as a user has it, for the browser tests: a server of its own, a notebook, a page, and everything that went
wrong in it.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat

SCREENSHOTS = Path(__file__).parents[1] / "full" / "browser" / "screenshots"
WAIT_MS = 120_000


class LabServer:
    """A JupyterLab on a folder, with settings of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.notebooks = folder / "notebooks"
        self.notebooks.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
        own = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        }
        environment = {**os.environ, **{name: str(folder / place) for name, place in own.items()}}
        options = [
            f"--ServerApp.port={self.port}",
            "--ServerApp.port_retries=0",
            "--IdentityProvider.token=",
            "--ServerApp.disable_check_xsrf=True",
            "--LabApp.expose_app_in_browser=True",
        ]
        with open(folder / "lab.log", "wb") as log:
            command = [
                sys.executable,
                "-m",
                "jupyterlab",
                "--no-browser",
                "--allow-root",
                f"--notebook-dir={self.notebooks}",
                *options,
            ]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        self._wait()

    def _wait(self):
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api", timeout=5):
                return
            time.sleep(0.3)
        raise AssertionError((self.folder / "lab.log").read_text()[-2000:])

    def write(self, name, *cells):
        """A notebook with these code cells."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.notebooks / name)

    def end_kernels(self, notebook):
        """Shut down the kernels of a notebook, so that they take no memory from the tests that follow."""
        api = f"http://127.0.0.1:{self.port}/api/sessions"
        with urllib.request.urlopen(api, timeout=30) as reply:
            sessions = json.load(reply)
        for session in sessions:
            if session["path"] == notebook:
                request = urllib.request.Request(f"{api}/{session['id']}", method="DELETE")
                urllib.request.urlopen(request, timeout=30).close()

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


class LabPage:
    """A notebook in a page.

    `errors`: what the page's console called an error; `faults`: errors of scripts; `foreign`: requests to anywhere but
    the server.
    """

    def __init__(self, chromium, server, notebook, width=1500, height=1400, theme="Light"):
        self.server, self.notebook, self.errors, self.faults, self.foreign = server, notebook, [], [], []
        self.page = chromium.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(WAIT_MS)
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", self._failed)
        self.page.on("request", self._asked)
        self.load()
        self.theme(theme)

    def _asked(self, request):
        if not request.url.startswith((f"http://127.0.0.1:{self.server.port}/", "data:", "blob:")):
            self.foreign.append(request.url)

    def _failed(self, error):
        self.errors.append(str(error))
        self.faults.append(str(error))

    def load(self):
        """Open the notebook, or reload the page as a user does."""
        self.page.goto(f"http://127.0.0.1:{self.server.port}/lab/tree/{self.notebook}?reset")
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=WAIT_MS)
        self.page.wait_for_function("window.jupyterapp !== undefined", timeout=WAIT_MS)
        self.page.evaluate("window.jupyterapp.shell.collapseLeft()")
        self.page.evaluate("window.jupyterapp.shell.collapseRight()")

    def command(self, name, arguments=None):
        """A command of JupyterLab, not waited for."""
        self.page.evaluate(
            "([name, given]) => { window.jupyterapp.commands.execute(name, given ?? {}); }", [name, arguments]
        )

    def save(self):
        """Save the notebook, as JupyterLab does by itself every two minutes."""
        self.command("docmanager:save")
        self.until("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")

    def theme(self, name):
        """Light or Dark."""
        self.command("apputils:change-theme", {"theme": f"JupyterLab {name}"})
        self.page.wait_for_selector(
            f'body[data-jp-theme-light="{"true" if name == "Light" else "false"}"]', state="attached"
        )

    def run_all(self):
        """Run all cells, once the kernel is there."""
        self._kernel_is_there()
        self.command("notebook:run-all-cells")
        self.until("() => /\\[(\\d+|\\*)\\]/.test(document.querySelector('.jp-CodeCell .jp-InputPrompt').textContent)")

    def run_cell(self, index):
        """Run one cell, once the kernel is there, and not wait for it."""
        self._kernel_is_there()
        self.page.evaluate("index => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = index; }", index)
        self.command("notebook:run-cell")

    def _kernel_is_there(self):
        self.until(
            "() => { const context = window.jupyterapp.shell.currentWidget?.sessionContext; return context?.isReady &&"
            " context.session?.kernel?.status === 'idle'; }"
        )

    def restart_kernel(self):
        """Restart the kernel and say yes."""
        self.command("kernelmenu:restart")
        self.page.click(".jp-Dialog .jp-mod-accept", timeout=WAIT_MS)
        self.page.wait_for_selector(".jp-Dialog", state="detached")

    def shows(self, selector, timeout=WAIT_MS):
        """The first element for a selector, once it is visible."""
        found = self.page.locator(selector).filter(visible=True).first
        try:
            found.wait_for(state="visible", timeout=timeout)
        except Exception:
            self.picture(f"failed-{self.notebook.removesuffix('.ipynb')}")
            raise
        return found

    def turn_to(self, panel):
        """Open a panel of the Workbench by its name in the menu."""
        self.page.click(f".swb-menu button:has-text('{panel}')")
        self.shows(f".swb-menu button.mod-active:has-text('{panel}')")

    def until(self, expression, argument=None, timeout=WAIT_MS):
        """Wait until a JavaScript expression is true."""
        self.page.wait_for_function(expression, arg=argument, timeout=timeout)

    def picture(self, name):
        """A screenshot for whoever reviews a change."""
        SCREENSHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")

    def tracebacks(self):
        """Texts of cells that ended in an error."""
        return self.page.locator(
            ".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr'],"
            " .jp-OutputArea-output:has-text('Traceback')"
        ).all_inner_texts()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.page.close()
        self.server.end_kernels(self.notebook)
