"""Make the README's picture from a real run: `make pictures` (needs chromium and a finished run; by default the newest one)."""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import simpo_workbench as wb

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))

from lab_page import LabPage, LabServer  # noqa: E402

WIDTH, HEIGHT, SHOWN = 1400, 2000, 1345  # of the panel so much is shown: the verdict, the numbers, the nine charts


def main(name):
    run = wb.attach(name)
    code = f"import simpo_workbench as wb\nwb.Workbench(run=wb.attach({str(run.path.resolve())!r}))"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        server = LabServer(Path(folder))
        try:
            server.write("workbench.ipynb", code)
            with LabPage(browser, server, "workbench.ipynb", WIDTH, HEIGHT) as page:
                page.theme("Light")
                page.run_all()
                page.shows(".swb-notice")
                page.until("() => document.querySelector('.js-plotly-plot')?._fullLayout?.width === document.querySelector('.swb-figure').clientWidth")
                box = page.shows(".swb").bounding_box()
                page.page.screenshot(path=Path(__file__).with_name("workbench.png"), clip={**box, "height": SHOWN})
        finally:
            server.close()
            browser.close()


if __name__ == "__main__":
    runs = wb.list_runs()
    main(sys.argv[1] if len(sys.argv) > 1 else runs[runs["state"] == "finished"]["name"].iloc[0])
