"""Texts that are written to be taken for markup, in every place where data, models, files and logs bring text: they
stay text, and nothing moves.
"""

import json
import shutil

import pandas as pd
import pytest
import tiny
from fake_run import fake_run
from hostile_texts import LAYOUT, NAME, SHORT, TEXTS, TOGETHER, readable
from lab_page import SCREENSHOTS, LabPage

from simpo_workbench.base.escape import one_way
from simpo_workbench.base.files import read_json, read_jsonl, write_json, write_jsonl
from simpo_workbench.config.run_config import RunConfig

pytestmark = pytest.mark.browser
OPEN = """import simpo_workbench as wb
workbench = wb.Workbench(config=wb.RunConfig.from_yaml({config!r}), root={root!r})
workbench"""
PICTURES = """import time
from IPython.display import display
workbench.run = wb.attach("hostile", {root!r})
workbench.config = workbench.config.with_changes({{"data.train": {train!r}}})
for _ in range(200):
    if workbench.pairs is None:
        time.sleep(0.05)
for name in ("1 Setup", "2 Data", "3 Train", "4 Answers", "5 Pairs", "Runs"):
    workbench.turn_to(name)
    display({{"text/html": workbench._repr_mimebundle_()["text/html"]}}, raw=True)"""
READABLE = r"""const readable = text => text.replace(/[\u0000-\u0008\u000e-\u001f\u007f-\u0084\u0086-\u009f\ufffd]/g, "").replace(/[\s\u001c-\u001f\u0085]+/g, " ").trim();
const shown = selector => [...document.querySelectorAll(selector)].filter(one => one.offsetParent);
const until = async look => { for (let n = 0; n < 400; n += 1) { if (look()) return true; await new Promise(done => setTimeout(done, 25)); } return false; };"""
#: Chooses row after row and waits until its text stands in a card; returns the texts that do not.
EACH_ROW = (
    "async ([card, texts]) => {"
    + READABLE
    + """
    const missing = [];
    for (let row = 0; row < texts.length; row += 1) {
        shown("tr[data-id]")[row].click();
        if (!await until(() => shown(card).map(one => readable(one.textContent)).join(" ").includes(texts[row]))) missing.push(texts[row]);
    }
    return missing;
}"""
)
#: Chooses option after option of the menu with this label, and waits in the same way.
EACH_OPTION = (
    "async ([label, card, texts]) => {"
    + READABLE
    + """
    const missing = [];
    const menu = shown("select").find(one => one.labels[0]?.textContent === label);
    for (let option = 0; option < texts.length; option += 1) {
        menu.selectedIndex = option;
        menu.dispatchEvent(new Event("change", { bubbles: true }));
        if (!await until(() => shown(card).map(one => readable(one.textContent)).join(" ").includes(texts[option]))) missing.push(texts[option]);
    }
    return missing;
}"""
)
#: Presses a button again and again, and waits in the same way.
EACH_PRESS = (
    "async ([title, card, texts]) => {"
    + READABLE
    + """
    const missing = [];
    for (const text of texts) {
        if (!await until(() => shown(card).map(one => readable(one.textContent)).join(" ").includes(text))) missing.push(text);
        shown("button").find(one => one.title === title).click();
    }
    return missing;
}"""
)
#: What must never be in a panel: things that run, that ask, and that are not ours.
WRONG = """given => {
    const wrong = window.hacked === undefined ? [] : [`script ${window.hacked} ran`];
    const strange = new Set(["script", "iframe", "object", "embed", "form", "base", "meta", "link", "img", "style", "video", "audio", "math", "plaintext", "template", "animate", "frame"]);
    const panels = [...document.querySelectorAll(given)].filter(one => one.offsetParent && !one.parentElement.closest(given));
    if (!panels.length) wrong.push("nothing is shown");
    for (const panel of panels) {
        const place = panel.closest(".jp-OutputArea, body");
        if (panel.getBoundingClientRect().right > place.getBoundingClientRect().right + 2) wrong.push(`${panel.clientWidth} wide in a place of ${place.clientWidth}`);
        if (panel.scrollWidth > panel.clientWidth + 2 && getComputedStyle(panel).overflowX === "visible") wrong.push(`${panel.scrollWidth} wide in ${panel.clientWidth}`);
        for (const one of panel.querySelectorAll("*")) {
            if (strange.has(one.localName)) wrong.push(`<${one.localName}>`);
            for (const { name, value } of one.attributes) {
                if (/^on/i.test(name)) wrong.push(`${one.localName} ${name}=${value}`);
                if (/^(href|src|srcset|srcdoc|action|formaction|data|xlink:href)$/.test(name)) wrong.push(`${one.localName} ${name}=${value}`);
                if (name === "style" && /url\\(["']?http/.test(value)) wrong.push(`${one.localName} ${value}`);
            }
        }
    }
    return wrong;
}"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with hostile data, a tiny model under a hostile name, hostile runs, and a configuration that names
    them.
    """
    place = tmp_path_factory.mktemp("hostile")
    model = tiny.save(place / NAME)
    rows = [
        {"prompt": text, "chosen": f"{text} A", "rejected": f"{text} B", SHORT[2]: text, "topic": text[:50]}
        for text in TEXTS
    ]
    rows.append(
        {"prompt": TOGETHER, "chosen": f"{TOGETHER} A", "rejected": f"{TOGETHER} B", "__proto__": {"a": SHORT[0]}}
    )
    half = '{"prompt": "half a character \\ud800 <script>window.hacked=1</script>", "chosen": "a", "rejected": "b"}\n'
    (place / f"{NAME}.jsonl").write_text(half + "".join(json.dumps(row) + "\n" for row in rows))
    strange = [
        {SHORT[0]: text, SHORT[6]: f"{text} A", LAYOUT[7][:300]: f"{text} B", "__proto__": 1, "": 2} for text in TEXTS
    ]
    (place / "held-out.jsonl").write_text(json.dumps({"prompt": "held out", "chosen": SHORT[0], "rejected": SHORT[1]}))
    (place / "columns.jsonl").write_text("".join(json.dumps(row) + "\n" for row in strange))
    root = place / "runs"
    hostile_run(root, "hostile")
    hostile_run(root, "other", {"model.name": NAME, "data.train": SHORT[4], "training.learning_rate": 1e-3})
    shutil.copytree(root / "other", root / NAME)
    changes = {
        "model.name": model,
        "data.train": str(place / f"{NAME}.jsonl"),
        "data.eval": str(place / "held-out.jsonl"),
        "data.system_prompt": TOGETHER,
        "data.template_options": {SHORT[2]: SHORT[0]},
        "model.load_in": "fp32",
        "data.max_tokens": 16_000,
    }
    config = RunConfig.from_dict({"generation": {"prompts": TEXTS}, "lora": {"target_modules": SHORT[:6]}}, changes)
    config.to_yaml(place / "config.yaml")
    return place


def hostile_run(root, name, changes=None):
    """A failed run whose every text is hostile."""
    changes = {
        "model.name": TOGETHER,
        "model.revision": LAYOUT[7],
        "data.train": SHORT[0],
        "data.system_prompt": TOGETHER,
        **(changes or {}),
    }
    run = fake_run(
        root, name, total_steps=60, pairs=len(TEXTS), state="failed", prompts=TEXTS, changes=changes, message=TOGETHER
    )
    for path in (run.path / "generations").glob("*.jsonl"):
        write_jsonl(
            path, [{**record, "answer": f"{record['prompt']} at step {record['step']}"} for record in read_jsonl(path)]
        )
    pairs = pd.DataFrame(
        [
            {"pair_id": text, "prompt": text, "chosen": f"{text} A", "rejected": f"{text} B", SHORT[3]: text}
            for text in TEXTS
        ]
    )
    pairs.to_parquet(run.folder.pairs, index=False)
    for path in (run.path / "scores").glob("*.parquet"):
        pd.read_parquet(path).assign(pair_id=TEXTS).to_parquet(path, index=False)
    for step, text in enumerate(TEXTS, 2):
        run.folder.append_metrics({"kind": "event", "step": step, "event": text, "text": text})
    write_json(run.folder.status, {**read_json(run.folder.status), "verdict": TOGETHER, "severity": SHORT[6]})
    write_json(run.folder.environment, {text: text for text in TEXTS})
    run.folder.log.write_text("\n".join(TEXTS[:-1]) + "\n" + TOGETHER)
    return run


@pytest.fixture(scope="module")
def page(chromium, lab, place):
    lab.write(
        "hostile.ipynb",
        OPEN.format(config=str(place / "config.yaml"), root=str(place / "runs")),
        PICTURES.format(train=str(place / f"{NAME}.jsonl"), root=str(place / "runs")),
    )
    with LabPage(chromium, lab, "hostile.ipynb", width=1200) as opened:
        opened.opened_by_itself = []
        opened.page.on("dialog", lambda dialog: (opened.opened_by_itself.append(dialog.message), dialog.dismiss()))
        opened.page.context.on("page", lambda other: opened.opened_by_itself.append(other.url))
        opened.run_cell(0)
        opened.shows(".swb-menu")
        yield opened


def assert_harmless(page, name, selector=".swb"):
    page.picture(f"hostile-{name}")
    assert page.page.evaluate(WRONG, selector) == []
    assert page.foreign == []
    assert page.opened_by_itself == []
    assert page.faults == []
    assert page.tracebacks() == []


def assert_reads(page, selector, *texts):
    """Each text stands in some element, as it was written."""
    missing = """async ([selector, texts]) => {
        READABLE
        let left = texts;
        const look = () => {
            const there = shown(selector).map(one => readable(one.textContent)).join("\\n");
            left = texts.filter(text => !there.includes(text));
            return !left.length;
        };
        await until(look);
        return left;
    }"""
    assert (
        page.page.evaluate(missing.replace("READABLE", READABLE), [selector, [readable(text) for text in texts]]) == []
    )


def test_setup(page, place):
    assert_reads(page, ".swb-head", f"{one_way(NAME)} · FP32")
    values = page.page.evaluate(
        "() => Object.fromEntries([...document.querySelectorAll('.swb-field[data-path]')].map(box => [box.dataset.path,"
        " box.querySelector('textarea, select, input').value]))"
    )
    assert values["model.name"].endswith(NAME)
    assert values["data.system_prompt"] == TOGETHER
    for view, words in (
        ("as Python", "import simpo_workbench"),
        ("as YAML", "gamma_beta_ratio:"),
        ("as command", "simpo-workbench train"),
    ):
        page.page.click(f"button:has-text('{view}')")
        assert_reads(page, ".swb-code", words, "<meta http-equiv=refresh content=")
        assert_harmless(page, f"setup-{view.split()[-1]}")


def test_data(page):
    page.turn_to("2 Data")
    page.shows("tr[data-id]")
    assert_reads(page, ".swb-report", "half of a character (a lone surrogate)", "<script>window.hacked=1</script>")
    assert_reads(page, "tr[data-id]", *SHORT[:20])
    texts = [*TEXTS, TOGETHER]
    assert page.page.evaluate(EACH_ROW, [".swb-pair", [readable(text) for text in texts[:50]]]) == []
    assert_harmless(page, "data")
    page.page.locator("button[title='Next page']").locator("visible=true").click()
    page.until("() => [...document.querySelectorAll('tr[data-id]')].filter(row => row.offsetParent).length < 50")
    assert page.page.evaluate(EACH_ROW, [".swb-pair", [readable(text) for text in texts[50:]]]) == []
    page.page.click("button:has-text('Tokens')")
    page.shows(".swb-token-answer.swb-side-chosen")
    assert_reads(
        page, ".swb-tokens", TOGETHER.replace("\x1b", "").replace("\x07", "")[:40], SHORT[3], SHORT[12], SHORT[24]
    )
    assert_harmless(page, "data-tokens")


def test_columns_that_are_not_known(page, place):
    page.turn_to("2 Data")
    page.page.get_by_label("Training pairs").fill(str(place / "columns.jsonl"))
    page.page.keyboard.press("Enter")
    page.shows("text=in a known shape")
    assert_reads(page, ".swb-table", SHORT[0], SHORT[6], *SHORT[:5])
    assert_harmless(page, "columns")


def test_train(page):
    page.turn_to("Runs")
    page.page.click("tr[data-id='hostile']")
    page.page.click("button:has-text('Open')")
    page.shows(".swb-head .swb-badge:has-text('failed')")
    assert_reads(page, ".swb-notice", TOGETHER)
    assert_reads(page, ".swb-text", SHORT[0])
    page.until("() => document.querySelectorAll('.annotation-text').length > 10")
    assert (
        page.page.evaluate(
            EACH_PRESS, ["Next sample prompt", ".swb", [readable(f"{text} at step 60") for text in TEXTS]]
        )
        == []
    )
    page.page.click("text=Log of the run")
    assert_reads(page, "pre", TOGETHER)
    for mark in page.page.locator(".annotation-text-g:has-text('window.hacked')").filter(visible=True).all()[:3]:
        mark.hover(force=True)
    assert_harmless(page, "train")


def test_answers(page):
    page.turn_to("4 Answers")
    page.until(
        "() => [...document.querySelectorAll('select')].some(menu => menu.offsetParent && menu.options.length ==="
        f" {len(TEXTS)})"
    )
    assert (
        page.page.evaluate(EACH_OPTION, ["Prompt", ".swb-card", [readable(f"{text} at step 60") for text in TEXTS]])
        == []
    )
    assert_harmless(page, "answers")


def test_pairs(page):
    page.turn_to("5 Pairs")
    page.shows("tr[data-id]")
    assert page.page.evaluate(EACH_ROW, [".swb-cards", [readable(f"{text} A") for text in TEXTS[:50]]]) == []
    points = page.page.locator(".js-plotly-plot:visible .scatterlayer .point")
    seen = set()
    for n in range(0, points.count(), 3):
        box = points.nth(n).bounding_box()
        page.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=2)
        page.until("() => document.querySelector('.hovertext')")
        seen.add(page.page.locator(".hovertext").first.text_content())
        assert page.page.locator(".hovertext a, .hovertext image").count() == 0
    assert sum(any(text in one for one in seen) for text in SHORT) >= 3, seen
    assert_harmless(page, "pairs")


def test_what_explains_the_pairs(page):
    page.turn_to("5 Pairs")
    page.shows("tr[data-id]").click()
    page.page.click(".swb-parts button:has-text('Loss geometry')")
    page.shows("text=Suggested: β")
    page.page.locator(".js-plotly-plot:visible .scatterlayer .point").last.click(
        force=True
    )  # plotly's own layer lies above its points
    assert_harmless(page, "geometry")
    page.page.click(".swb-parts button:has-text('Lead history')")
    page.shows("text=Answers to the sample prompts at this step")
    assert (
        page.page.evaluate(EACH_OPTION, ["Prompt", ".swb-card", [readable(f"{text} at step 60") for text in TEXTS]])
        == []
    )
    assert_harmless(page, "steps")
    page.page.click(".swb-parts button:has-text('Pair microscope')")
    page.shows("button:has-text('Show every token')")
    assert_harmless(page, "microscope")


def test_the_blind_test(page):
    page.turn_to("4 Answers")
    page.page.click(".swb-parts button:has-text('Blind test')")
    page.shows("button:has-text('Begin'):enabled").click()
    texts = {readable(text) for text in TEXTS}
    for _ in range(6):
        shown = readable(page.shows(".swb-blind-prompt").inner_text())
        assert any(text[:40] in shown for text in texts)
        assert_harmless(page, "blind")
        page.page.locator("button:has-text('tie')").filter(visible=True).first.click()
        page.page.wait_for_timeout(400)
    page.page.click(".swb-parts button:has-text('Side by side')")


def test_runs(page):
    page.turn_to("Runs")
    page.until(
        "name => [...document.querySelectorAll('tr[data-id]')].some(row => row.offsetParent && row.dataset.id ==="
        " name)",
        NAME,
    )
    for name in ("hostile", NAME):
        page.page.evaluate(
            "name => [...document.querySelectorAll('tr[data-id]')].find(row => row.offsetParent && row.dataset.id ==="
            " name).click()",
            name,
        )
        assert_reads(page, "h3", name)
        assert_reads(page, ".swb-text", TOGETHER)
        assert_harmless(page, f"runs-{'one' if name == 'hostile' else 'named'}")
    page.page.click("tr[data-id='hostile']", modifiers=["Control"])
    page.shows("text=Settings that differ")
    page.until(
        "() => [...document.querySelectorAll('.js-plotly-plot')].some(one => one.offsetParent &&"
        " one.querySelectorAll('.scatterlayer .trace').length > 4)"
    )
    assert_reads(page, ".swb-table", NAME)
    assert_harmless(page, "runs-compared")


def test_pictures_that_are_saved(page, chromium):
    """What GitHub, or JupyterLab without a kernel, makes of the saved notebook, with a browser that would run whatever
    is in it.
    """
    page.run_cell(1)
    page.until("() => document.querySelectorAll('.swb-still').length >= 6")
    assert_harmless(page, "still-in-lab", ".swb-still")
    page.page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); }")
    saved = json.loads((page.server.notebooks / "hostile.ipynb").read_text())
    outputs = [
        output["data"]["text/html"]
        for cell in saved["cells"]
        for output in cell.get("outputs", [])
        if "text/html" in output.get("data", {})
    ]
    pictures = ["".join(output) for output in outputs]
    assert len(pictures) == 7
    expected = (
        "<b>Preset demo",
        "Changed settings",
        "The first of 52 pairs",
        "Held-out evaluations",
        "Sampled by the run hostile",
        "The first 10 of 51 pairs",
    )
    assert [text for text in expected if not any(text in one for one in pictures)] == []
    assert sum("&lt;script&gt;window.hacked=101" in one for one in pictures) >= 5
    blank = chromium.new_page(viewport={"width": 1200, "height": 1000})
    asked, failed = [], []
    blank.on("request", lambda request: asked.append(request.url))
    blank.on("pageerror", lambda error: failed.append(str(error)))
    for number, picture in enumerate(pictures):
        blank.set_content(f"<!doctype html><body>{picture}</body>")
        blank.screenshot(path=SCREENSHOTS / f"hostile-still-{number}.png")
        assert blank.evaluate(WRONG, ".swb-still") == []
        assert asked == failed == []
    blank.close()
