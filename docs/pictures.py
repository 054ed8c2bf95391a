"""Make the README's pictures from a finished run, by default the newest: `make pictures`. Needs chromium."""

import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import simpo_workbench as wb

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from lab_page import LabPage, LabServer  # noqa: E402

WIDTH, HEIGHT = 1400, 2400
DRAWN = (
    "() => [...document.querySelectorAll('.swb-figure')].filter(one => one.offsetParent).every(one =>"
    " one.querySelector('.js-plotly-plot')?._fullLayout?.width === one.clientWidth)"
)


def main(name):
    run = wb.attach(name)
    pair = run.compare().sort_values("lead_change")["pair_id"].iloc[-1]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        server = LabServer(Path(folder))
        try:
            with shown(browser, server, "Workbench(run=run)", run) as page:
                page.shows(".swb-notice")
                picture(page, "workbench", 1345)
            with shown(browser, server, "ui.LossGeometry(run=run)", run) as page:
                page.shows(".js-plotly-plot .point")
                picture(page, "geometry", 760)
            with shown(browser, server, f"ui.PairMicroscope(run, {pair!r})", run) as page:
                page.shows("button:has-text('Show every token'):enabled").click()
                page.shows(".swb-figure .js-plotly-plot", 300_000)
                picture(page, "microscope", 900)
            with shown(browser, server, "ui.LeadHistory(run)", run) as page:
                page.shows(".swb-figure .js-plotly-plot")
                picture(page, "steps", 800)
            with shown(browser, server, f"ui.BlindTest(run, path={str(Path(folder) / 'votes.jsonl')!r})", run) as page:
                page.shows("button:has-text('Begin'):enabled").click()
                page.shows(".swb-card")
                picture(page, "blind", 520)
        finally:
            server.close()
            browser.close()


@contextmanager
def shown(browser, server, panel, run):
    """Context of a page with one panel of the workbench."""
    server.write(
        "panel.ipynb", f"import simpo_workbench as wb\nrun = wb.attach({str(run.path.resolve())!r})\nwb.{panel}"
    )
    with LabPage(browser, server, "panel.ipynb", WIDTH, HEIGHT) as page:
        page.theme("Light")
        page.run_all()
        page.shows(".swb")
        yield page


def picture(page, name, height):
    """Save the upper part of the panel as a small PNG; 128 colours are enough for text and lines."""
    page.until(DRAWN)
    page.page.mouse.move(5, 5)
    page.page.wait_for_timeout(1000)
    box, path = page.shows(".swb").bounding_box(), Path(__file__).with_name(f"{name}.png")
    page.page.screenshot(path=path, clip={**box, "height": min(height, box["height"])})
    Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    runs = wb.list_runs()
    main(sys.argv[1] if len(sys.argv) > 1 else runs[runs["state"] == "finished"]["name"].iloc[0])
