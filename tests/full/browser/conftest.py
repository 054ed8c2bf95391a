"""A headless Chromium for the browser tests. Without one they skip and say so; in CI that is a failure."""

import os
import shutil

import pytest


@pytest.fixture(scope="module")
def chromium():
    """A started Chromium that asks for nothing on its own."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        message = (
            "There is no chromium on this machine, so nothing was looked at in a browser. Debian and Ubuntu: apt-get"
            " install chromium."
        )
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"],
        )
        yield browser
        browser.close()
