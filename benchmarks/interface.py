"""Measure the interface in a real browser: python benchmarks/interface.py [--json FILE]

Measured: first display, click to visible reaction, record on disk to point on screen, the kernel's processor time
while it follows a run, the page's memory after 10,000 steps, the pair table with 60,000 rows and the loss geometry of
60,000 pairs. Runs are synthetic, as in the tests; the browser, JupyterLab and the kernel are real.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
from playwright.sync_api import sync_playwright

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS / "helpers"))

from fake_run import evaluation_record, fake_run, sampled, scores, train_record  # noqa: E402
from lab_page import LabPage, LabServer  # noqa: E402

from simpo_workbench.base.files import append_jsonl  # noqa: E402

LONG, ROWS, FOLLOWED_S, POINTS = 10_000, 60_000, 60, 15
STEPS_SHOWN = """() => Math.max(0, ...[...document.querySelectorAll('.js-plotly-plot')].filter(gd => gd.offsetParent)
    .flatMap(gd => gd._fullData).filter(trace => trace.name === 'learning rate')
    .map(trace => trace.x[trace.x.length - 1] ?? 0))"""
TEXT = "a quick brown fox jumps over the lazy dog and runs away from it through fields of corn"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        folder = Path(folder)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-background-networking",
                "--enable-precise-memory-info",
            ],
        )
        server = LabServer(folder)
        try:
            for measure in (workbench, followed_run, long_run, pair_table, loss_geometry):
                measured = measure(browser, server, folder)
                figures |= measured
                for name, value in measured.items():
                    print(f"{name:<70} {value:10.3f}", flush=True)
        finally:
            server.close()
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


def opened(browser, server, name, *cells):
    server.write(name, *cells)
    page = LabPage(browser, server, name)
    page.theme("Light")
    return page


def seconds(page, act, expression, argument=None):
    """Seconds from the start of an action until an expression in the page is true."""
    began = time.perf_counter()
    act()
    page.page.wait_for_function(expression, arg=argument, polling=10)
    return time.perf_counter() - began


def text_shown(text):
    return (
        "() => [...document.querySelectorAll('.swb *')].some(one => one.offsetParent && one.childElementCount === 0 &&"
        f" one.textContent.includes({json.dumps(text)}))"
    )


def workbench(browser, server, folder):
    root = folder / "runs"
    fake_run(root, "healthy")
    code = (
        "import time; began = time.perf_counter()\nimport simpo_workbench as wb\nworkbench ="
        " wb.Workbench(root={!r})\ntook = time.perf_counter() - began\nworkbench"
    )
    with opened(browser, server, "workbench.ipynb", code.format(str(root)), "print('took', took)") as page:
        measured = {
            "import and first display, click to visible (s)": seconds(
                page, page.run_all, "() => document.querySelector('.swb-menu')?.offsetParent"
            )
        }
        page.page.wait_for_selector("text=/took \\d/")
        measured["  of it in the kernel (s)"] = float(page.page.inner_text("text=/took \\d/").split()[-1])
        turn = {
            "2 Data": "() => [...document.querySelectorAll('tr[data-id]')].some(row => row.offsetParent)",
            "Runs": text_shown("healthy"),
        }
        for name, shown in turn.items():
            measured[f"open {name} the first time (s)"] = seconds(
                page, lambda name=name: page.page.click(f".swb-menu button:has-text('{name}')"), shown
            )
        page.page.click("tr[data-id]:has-text('healthy')")
        drawn = (
            "() => [...document.querySelectorAll('.js-plotly-plot')].some(gd => gd.offsetParent &&"
            " gd.querySelectorAll('.scatterlayer .trace').length > 8)"
        )
        measured["open a run: verdict, tiles, nine charts (s)"] = seconds(
            page, lambda: page.page.click("button:has-text('Open')"), drawn
        )
        measured["reward units instead of nats (s)"] = seconds(
            page,
            lambda: page.page.click("button:has-text('reward units')"),
            "() => [...document.querySelectorAll('.annotation-text')].some(one => one.textContent === 'Margin (reward"
            " units)')",
        )
        measured["next sample prompt (s)"] = seconds(
            page, lambda: page.page.click("button[title='Next sample prompt']"), text_shown("Sample prompt 2 of 3")
        )
        for name, shown in (
            ("4 Answers", "() => [...document.querySelectorAll('.swb-card')].some(one => one.offsetParent)"),
            ("5 Pairs", drawn.replace("> 8", "> 0")),
        ):
            measured[f"open {name} the first time (s)"] = seconds(
                page, lambda name=name: page.page.click(f".swb-menu button:has-text('{name}')"), shown
            )
        page.turn_to("1 Setup")
        beta = page.page.locator("[data-path='loss.beta'] input:not([type='range'])")
        measured["β typed, code beside it changed (s)"] = seconds(
            page, lambda: (beta.fill("3"), beta.press("Tab")), text_shown("loss.beta")
        )
        return measured


def followed_run(browser, server, folder):
    root = folder / "followed"
    run = fake_run(root, "live", total_steps=400, last_step=20, state="training", message="")
    code = f"import simpo_workbench as wb\nmonitor = wb.RunMonitor(wb.attach('live', {str(root)!r}))\nmonitor"
    with opened(browser, server, "follow.ipynb", code, "import os; print('pid', os.getpid())") as page:
        page.run_all()
        page.page.wait_for_selector("text=/pid \\d/")
        kernel = psutil.Process(int(page.page.inner_text("text=/pid \\d/").split()[-1]))
        page.until(f"() => ({STEPS_SHOWN})() >= 20")
        time.sleep(3)
        waited = []
        for step in range(21, 21 + POINTS):
            append_jsonl(run.folder.metrics, train_record(step, 400))
            waited.append(seconds(page, lambda: None, f"step => ({STEPS_SHOWN})() >= step", step))
            time.sleep(1.3)
        before, began = sum(kernel.cpu_times()[:2]), time.monotonic()
        for step in range(21 + POINTS, 21 + POINTS + FOLLOWED_S):
            append_jsonl(run.folder.metrics, train_record(step, 400))
            if step % 20 == 0:
                numbers, answers = scores(step, 400, 24), sampled(step, 400, ["Hi"])
                append_jsonl(run.folder.metrics, evaluation_record(step, numbers, answers, None))
            time.sleep(max(0.0, began + step - 20 - POINTS - time.monotonic()))
        minutes = (time.monotonic() - began) / 60
        return {
            "record on disk to point on screen, median (s)": statistics.median(waited),
            "record on disk to point on screen, worst (s)": max(waited),
            "kernel's processor time per minute, a step a second (s)": (sum(kernel.cpu_times()[:2]) - before) / minutes,
        }


def long_run(browser, server, folder):
    root = folder / "long"
    run = fake_run(root, "long", total_steps=LONG, last_step=20, state="training", message="")
    lines = "".join(json.dumps(train_record(step, LONG)) + "\n" for step in range(21, LONG))
    with open(run.folder.metrics, "a", encoding="utf-8") as file:
        file.write(lines)
    code = f"import simpo_workbench as wb\nmonitor = wb.RunMonitor(wb.attach('long', {str(root)!r}))\nmonitor"
    with opened(browser, server, "long.ipynb", code) as page:
        page.run_all()
        page.until(f"() => ({STEPS_SHOWN})() >= {LONG - 1}")
        waited = []
        for step in range(LONG, LONG + 5):
            append_jsonl(run.folder.metrics, train_record(step, LONG + 10))
            waited.append(seconds(page, lambda: None, f"step => ({STEPS_SHOWN})() >= step", step))
            time.sleep(2)
        page.page.evaluate("() => window.gc?.()")
        return {
            "page's JavaScript memory after 10,000 steps (MB)": (
                page.page.evaluate("performance.memory.usedJSHeapSize") / 1e6
            ),
            "record on disk to point on screen after 10,000 steps, median (s)": statistics.median(waited),
        }


def pair_table(browser, server, folder):
    """Figures of the pair table on two synthetic scores tables, which the notebook reads before the clock starts."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(0)
    words = np.array(TEXT.split())
    texts = {
        name: [" ".join(words[random.integers(0, len(words), 40)]) for _ in range(ROWS)]
        for name in ("prompt", "chosen", "rejected")
    }
    for name, shift in (("before", 0.0), ("after", 0.4)):
        lead = random.normal(shift - 0.2, 0.6, ROWS)
        chosen = random.normal(-1.8, 0.2, ROWS)
        table = pd.DataFrame(
            {"pair_id": [f"pair-{n}" for n in range(ROWS)], **texts, "chosen_tokens": 40, "rejected_tokens": 45}
        )
        table = table.assign(
            chosen_avg_logp=chosen,
            rejected_avg_logp=chosen - lead,
            margin=2 * lead,
            correct=lead > 0,
            beyond_gamma=lead > 0.5,
        )
        table = table.assign(
            loss=np.log1p(np.exp(1 - 2 * lead)),
            gradient_weight=2 / (1 + np.exp(2 * lead - 1)),
            beta=2.0,
            gamma_beta_ratio=0.5,
        )
        table.to_parquet(folder / f"{name}.parquet")
    read = (
        f"import pandas as pd, simpo_workbench as wb\nbefore, after = (pd.read_parquet({str(folder)!r} +"
        " f'/{name}.parquet') for name in ('before', 'after'))\nwb.PairTable\nprint('read', 1)"
    )
    with opened(browser, server, "pairs.ipynb", read, "wb.PairTable(before=before, after=after)") as page:
        page.until(
            "() => { const context = window.jupyterapp.shell.currentWidget?.sessionContext; return context?.isReady &&"
            " context.session?.kernel?.status === 'idle'; }"
        )
        page.command("notebook:run-cell-and-select-next")
        page.page.wait_for_selector("text=read 1")
        rows = "[...document.querySelectorAll('tr[data-id]')].filter(row => row.offsetParent)"
        measured = {
            "60,000 pairs: first view (s)": seconds(
                page, lambda: page.command("notebook:run-cell-and-select-next"), f"() => {rows}.length === 50"
            )
        }
        first = page.page.evaluate(f"{rows}[0].dataset.id")
        measured["60,000 pairs: sort (s)"] = seconds(
            page,
            lambda: page.page.click("button.swb-sort[data-key='lead_after']"),
            f"first => {rows}[0].dataset.id !== first",
            first,
        )
        count = page.page.inner_text(".swb-pages [role='status']")
        chip = lambda: page.page.click(".widget-toggle-button:has-text('flipped to right')")  # noqa: E731
        measured["60,000 pairs: filter (s)"] = seconds(
            page, chip, "count => document.querySelector(\".swb-pages [role='status']\").textContent !== count", count
        )
        count = page.page.inner_text(".swb-pages [role='status']")
        search = page.page.get_by_placeholder("words in prompt or answers, then Enter")
        find = lambda: (search.fill("brown dog runs"), search.press("Enter"))  # noqa: E731
        measured["60,000 pairs: first search (s)"] = seconds(
            page, find, "count => document.querySelector(\".swb-pages [role='status']\").textContent !== count", count
        )
        return measured


def loss_geometry(browser, server, folder):
    """Time of a move of the β slider: the kernel's part, and from the key press to the redrawn chart."""
    made = f"""import time, numpy as np, pandas as pd, simpo_workbench as wb
random = np.random.default_rng(0)
lead, chosen = random.normal(-0.2, 0.6, {ROWS}), random.normal(-1.8, 0.2, {ROWS})
ids = [f"pair-{{n}}" for n in range({ROWS})]
scores = pd.DataFrame({{"pair_id": ids, "chosen_avg_logp": chosen, "rejected_avg_logp": chosen - lead}})
scores = scores.assign(beta=2.0, gamma_beta_ratio=0.5)
scores = scores.assign(chosen_tokens=random.integers(5, 90, {ROWS}), rejected_tokens=random.integers(5, 90, {ROWS}))
panel = wb.ui.LossGeometry(scores)
panel"""
    timed = """took = []
for beta in (0.5, 1, 3, 5, 8, 10, 3, 2):
    began = time.perf_counter()
    panel.beta = beta
    took.append(time.perf_counter() - began)
print("redraws", sorted(took)[len(took) // 2], max(took))"""
    with opened(browser, server, "geometry.ipynb", made, timed) as page:
        page.run_all()
        page.page.wait_for_selector("text=/redraws \\d/")
        median, worst = map(float, page.page.inner_text("text=/redraws \\d/").split()[-2:])
        named = (
            "beta => [...document.querySelectorAll('.xtitle')].some(one => one.textContent.includes(`margin: ${beta}"
            " times`))"
        )
        page.until(named, "2")
        handle = page.page.locator(".swb .noUi-handle").filter(visible=True).first
        handle.focus()
        waited = [
            seconds(page, lambda: handle.press("ArrowRight"), named, beta)
            for beta in ("2.2", "2.5", "2.8", "3", "3.5", "4", "4.5", "5")
        ]
        return {
            "60,000 pairs: loss geometry redrawn, the kernel's part, median (s)": median,
            "60,000 pairs: loss geometry redrawn, the kernel's part, worst (s)": worst,
            "60,000 pairs: slider moved, chart redrawn, median (s)": statistics.median(waited),
        }


if __name__ == "__main__":
    os.environ.setdefault("SIMPO_WORKBENCH_DEVICES", tempfile.mkdtemp(prefix="devices-"))
    main()
