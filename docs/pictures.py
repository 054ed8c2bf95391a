"""Make the README's picture from a real run: `make pictures` (needs chromium and a finished run; by default the newest demo run)."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

import simpo_workbench as wb

WIDTH, HEIGHT = 1200, 1180  # the verdict, the numbers and the six charts


def main(name):
    report = wb.write_report(wb.attach(name))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        page.wait_for_selector(".main-svg")
        page.wait_for_timeout(1000)  # the charts draw one after the other
        page.screenshot(path=Path(__file__).with_name("report.png"))
        browser.close()


if __name__ == "__main__":
    runs = wb.list_runs()
    main(sys.argv[1] if len(sys.argv) > 1 else runs[runs["state"] == "finished"]["name"].iloc[0])
