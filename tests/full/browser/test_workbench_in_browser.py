"""The Workbench as a user has it, in JupyterLab: from settings through a real short run of the demo to the pair table.

Screenshots stay in screenshots/.
"""

import contextlib
import json

import pytest
from fake_run import fake_run
from lab_page import LabPage

import simpo_workbench as wb
from simpo_workbench.base.files import read_jsonl

pytestmark = [pytest.mark.browser]
#: A run of the demo that is long enough to be followed and short enough to be waited for. fp32 is quicker than NF4 here.
SHORT = {
    "model.load_in": "fp32",
    "training.max_steps": 400,
    "training.pairs_per_step": 2,
    "training.eval_every": 3,
    "training.save_every": 3,
    "data.limit": 40,
    "data.eval_limit": 6,
    "generation.held_out_prompts": 1,
    "generation.max_new_tokens": 8,
    "generation.every": 3,
    "run.name": "in-the-browser",
}
OPEN = (
    "import simpo_workbench as wb\nworkbench = wb.Workbench(config=wb.RunConfig().with_changes({changes}),"
    " root={root!r})\nworkbench"
)
#: How many points each trace of the followed figure has, by name.
POINTS = """() => Object.fromEntries([...document.querySelectorAll(".swb-figure .js-plotly-plot")].filter(gd => gd.offsetParent).flatMap(gd =>
    gd._fullData.map(trace => [trace.name, trace.x.filter(x => x !== null).length])))"""
ROWS = "[...document.querySelectorAll('tr[data-id]')].filter(row => row.offsetParent)"


def opened(chromium, lab, name, root, changes=None, width=1500, theme="Light"):
    lab.write(name, OPEN.format(changes=json.dumps(changes or {}), root=str(root)))
    page = LabPage(chromium, lab, name, width, theme=theme)
    page.run_all()
    page.shows(".swb-menu")
    return page


@pytest.mark.demo_model
def test_from_settings_to_a_run_that_survives_its_kernel(chromium, lab, tmp_path):
    with contextlib.ExitStack() as ending, opened(chromium, lab, "work.ipynb", tmp_path / "runs", SHORT) as page:
        set_up(page)
        look_at_a_pair(page)
        start(page)
        run = wb.attach("in-the-browser", tmp_path / "runs")
        ending.callback(lambda: run.status.alive and run.stop(patience_s=20))
        follow_and_steer(page, run)
        come_back(page, run)
        page.page.click("button:has-text('Stop and save')")
        page.shows(".swb-head .swb-badge:has-text('stopped')")
        page.picture("10-stopped")
        assert run.wait(60).state == "stopped"
        read_answers(page)
        assert page.tracebacks() == []
        assert page.foreign == []


def set_up(page):
    page.shows("h2:has-text('SimPO Workbench')")
    page.picture("01-setup")
    beta = page.shows("[data-path='loss.beta'] input:not([type='range'])")
    beta.fill("3")
    beta.press("Tab")
    page.page.click("button:has-text('as YAML')")
    page.shows("pre:has-text('beta: 3')")
    assert "γ = β · γ/β = 3 · 0.5 = 1.5" in page.page.inner_text("[data-path='loss.gamma_beta_ratio']")
    page.picture("02-changed-yaml")


def look_at_a_pair(page):
    page.turn_to("2 Data")
    page.shows("tr[data-id]").click()
    page.picture("03-data")
    page.page.click("button:has-text('Tokens')")
    page.shows(".swb-token-answer.swb-side-chosen")
    kinds = page.page.evaluate(
        """() => ["template", "prompt", "answer", "end"].map(kind => document.querySelectorAll(`.swb-card .swb-token-${kind}`).length)"""
    )
    assert all(kinds), kinds
    page.shows(".swb-tokenview").scroll_into_view_if_needed()
    page.picture("04-tokens")


def start(page):
    page.turn_to("3 Train")
    page.page.click("button:has-text('Start …')")
    page.shows("text=Measuring before the start")
    page.picture("05-preflight")
    page.shows("td:has-text('whole run')")
    assert "Before training the chosen answer is ahead in" in page.page.inner_text(
        ".swb-notice.swb-fits, .swb-notice.swb-tight"
    )
    page.picture("06-measured")
    page.page.click("button:has-text('Start training')")
    page.shows(".swb-head .swb-badge:has-text('training')")


def follow_and_steer(page, run):
    page.until(
        "expected => expected.every(name => (" + POINTS + ")()[name] >= 2)",
        ["chosen", "sampled answers", "answers end properly", "lead, held-out", "loss, held-out", "chosen ahead"],
    )
    points = page.page.evaluate(POINTS)
    assert all(points.values()), points
    width = page.page.evaluate(
        "() => parseFloat(document.querySelector('.swb-progress:not(.swb-thin) > div').style.width)"
    )
    page.until(
        "width => parseFloat(document.querySelector('.swb-progress:not(.swb-thin) > div').style.width) > width", width
    )
    page.picture("07-training")
    page.page.click("button:has-text('Pause')")
    page.shows(".swb-head .swb-badge:has-text('paused')")
    page.page.click("button:has-text('Go on')")
    page.shows(".swb-head .swb-badge:has-text('training')")
    page.page.click("button:has-text('Change while training')")
    page.page.get_by_label("learning rate ×").fill("0.5")
    page.page.get_by_label("learning rate ×").press("Tab")
    page.page.click("button:has-text('Apply')")
    page.shows(".annotation-text:has-text('learning rate × 0.5')")
    page.picture("08-changed-while-training")
    (event,) = [record for record in read_jsonl(run.folder.metrics) if record.get("event") == "set"]
    assert "0.5" in event["text"]


def come_back(page, run):
    page.save()
    page.load()
    page.shows(".swb-head .swb-badge:has-text('training')")
    page.until("() => Object.values((" + POINTS + ")()).every(count => count >= 2)")
    page.restart_kernel()
    page.run_all()
    page.shows(".swb-said:has-text('was found again')")
    steps = run.status.step
    page.until("steps => (" + POINTS + ")()['learning rate'] >= steps", steps)
    page.picture("09-after-a-restart")


def read_answers(page):
    """Two prompts, typed in, answered by the base model and by a kept step."""
    page.turn_to("4 Answers")
    page.page.locator("select:visible").nth(4).select_option(index=1)
    for prompt in ("Name a fruit.", "What is two plus two?"):
        page.page.get_by_label("Your prompt").fill(prompt)
        page.page.get_by_label("Your prompt").press("Tab")
        page.page.click("button.swb-button:has-text('Answer')")
        page.shows("text=/(Loading the model|Answering)/")
        page.until(
            "prompt => { const cards = [...document.querySelectorAll('.swb-cards')].find(one => one.offsetParent);"
            " return cards?.parentElement.parentElement.textContent.includes(prompt); }",
            prompt,
        )
        page.shows(".swb-said.swb-good")
    page.picture("11-answers")
    assert page.page.locator("select:visible option:has-text('Name a fruit.')").count() == 1, (
        "earlier prompts can be opened again"
    )


@pytest.mark.parametrize(("theme", "width"), [("Light", 1500), ("Light", 1000), ("Dark", 1500), ("Dark", 1000)])
def test_every_panel_of_a_finished_run(chromium, lab, tmp_path, theme, width):
    root = tmp_path / "runs"
    fake_run(root, "healthy", checked=True)
    fake_run(root, "ruined", ruined=True, checked=True, changes={"training.learning_rate": 1e-3})
    with opened(chromium, lab, f"panels-{theme}-{width}.ipynb", root, width=width, theme=theme) as page:
        page.turn_to("Runs")
        for name in ("ruined", "healthy"):
            page.page.click(f"tr[data-id]:has-text('{name}')", modifiers=["Control"])
        page.shows("text=7e-5")  # what differs between the two
        page.until("() => document.querySelectorAll('.swb-figure .js-plotly-plot .scatterlayer .trace').length > 4")
        page.picture(f"runs-{theme}-{width}")
        page.page.click("tr[data-id]:has-text('ruined')")
        page.page.click("button:has-text('Open')")
        page.shows("text=The model is collapsing")
        page.shows("button:has-text('Clone from the start with a third of the rate')")
        page.until("() => Object.values((" + POINTS + ")()).every(count => count > 0)")
        assert_inside(page)
        page.picture(f"train-{theme}-{width}")
        page.turn_to("4 Answers")
        page.shows(".swb-card ins, .swb-card del")
        page.picture(f"answers-{theme}-{width}")
        assert_inside(page)
        page.turn_to("5 Pairs")
        choose_pairs(page)
        page.picture(f"pairs-{theme}-{width}")
        assert_inside(page)
        for name in ("1 Setup", "2 Data"):
            page.turn_to(name)
            page.shows("tr[data-id]" if name == "2 Data" else "[data-path='loss.beta']")
            assert_inside(page)
            page.picture(f"{name[2:].lower()}-{theme}-{width}")
        assert page.tracebacks() == []
        assert page.foreign == []


def choose_pairs(page):
    """Sort, filter, and open a pair from its point."""
    page.page.click("button.swb-sort[data-key='lead_after']")
    page.shows("th[aria-sort='descending']")
    first = page.shows("tr[data-id]:visible").get_attribute("data-id")
    page.page.click("button.swb-sort[data-key='lead_after']")
    page.until("first => VISIBLE[0].dataset.id !== first".replace("VISIBLE", ROWS), first)
    page.page.click(".widget-toggle-button:has-text('flipped to right')")
    page.until("() => VISIBLE.length === 11".replace("VISIBLE", ROWS))
    points = (
        "[...document.querySelectorAll('.scatterlayer .point')].filter(one => one.getBoundingClientRect().width &&"
        " one.closest('.swb-figure').offsetParent)"
    )
    page.until(f"() => {points}.length === 11")
    x, y = page.page.evaluate(
        f"() => {{ const box = {points}[0].getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height /"
        " 2]; }"
    )
    page.page.mouse.move(x, y)
    page.shows(".hoverlayer .hovertext")
    page.page.mouse.click(x, y)
    page.shows(".swb-card:has-text('Short answer')")


def assert_inside(page):
    """No part of the panel is wider than the panel, and every chart is as wide as its place."""
    page.until(
        "() => [...document.querySelectorAll('.js-plotly-plot')].every(gd => !gd.offsetParent ||"
        " Math.abs(gd._fullLayout.width - gd.closest('.swb-figure').clientWidth) < 3)"
    )
    wide = page.page.evaluate(
        """() => [...document.querySelectorAll(".swb")].filter(panel => panel.offsetParent && !panel.parentElement.closest(".swb")).map(panel => [panel.scrollWidth, panel.clientWidth])"""
    )
    assert all(scroll <= client + 2 for scroll, client in wide), wide
