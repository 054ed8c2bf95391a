"""The Workbench without a mouse: Tab reaches every control, each says its name and shows the focus, and each does its
work by keys alone.
"""

import json

import pytest
from fake_run import fake_run
from lab_page import LabPage

pytestmark = pytest.mark.browser
OPEN = """import simpo_workbench as wb
workbench = wb.Workbench(root={root!r}, run=wb.attach("healthy", {root!r}))
workbench"""
PANELS = ("1 Setup", "2 Data", "3 Train", "4 Answers", "5 Pairs", "Runs")
#: Marks every visible control and remembers how it looks without the focus. Rows of a table are one stop; arrow keys go
#: from row to row.
COLLECT = """() => {
    const look = one => {
        const { outlineStyle, outlineWidth, boxShadow, borderColor } = getComputedStyle(one);
        return [outlineStyle === "none" ? "" : outlineStyle + outlineWidth, boxShadow, borderColor].join("|");
    };
    const root = document.querySelector(".swb-menu").closest(".swb");
    document.activeElement.blur();
    const there = [...root.querySelectorAll("button, input, select, textarea, summary, a[href], [tabindex='0'], .noUi-handle, .jupyter-widget-Collapse-header")];
    window.look = look;
    window.root = root;
    window.controls = there.filter(one => !one.disabled && one.getClientRects().length && !one.closest(".jupyter-widgets-disconnected, [disabled]") && getComputedStyle(one).visibility !== "hidden");
    for (const one of window.controls) one.lookBefore = look(one);
    window.controls[0].focus();
    return window.controls.length;
}"""
#: What stands under the focus: its number among the controls, its name, and whether the focus shows. null: the focus
#: has left.
FOCUSED = """() => {
    const one = document.activeElement;
    if (!root.contains(one)) return null;
    const texts = ids => (ids ?? "").split(" ").filter(Boolean).map(id => document.getElementById(id)?.textContent ?? "").join(" ");
    const typed = one.matches("input, select, textarea");
    const labels = [...(one.labels ?? [])].map(label => label.textContent).join(" ");
    const name = one.getAttribute("aria-label") || texts(one.getAttribute("aria-labelledby")) || labels || one.title || (typed ? "" : one.textContent);
    return { number: controls.indexOf(one), what: one.outerHTML.slice(0, 160), name: name.trim().slice(0, 80), shows: look(one) !== one.lookBefore };
}"""
#: What reacts to the mouse (its pointer is a hand) and is no control, nor in one.
MOUSE_ONLY = """() => [...root.querySelectorAll("*")].filter(one => one.getClientRects().length && getComputedStyle(one).cursor === "pointer" && !one.closest(".js-plotly-plot, label, .noUi-target")
    && !one.closest("button, input, select, textarea, summary, a[href], [tabindex]") && !one.querySelector("button, input, select")).map(one => one.outerHTML.slice(0, 160))"""
#: Opens the sections of rare settings.
OPEN_ALL = "() => document.querySelectorAll('details.swb-rare').forEach(one => { one.open = true; })"
HELD = "() => root.contains(document.activeElement)"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("keyboard") / "runs"
    for name in ("doomed", "ruined", "healthy"):
        fake_run(root, name, ruined=name == "ruined")
    return root.parent


@pytest.fixture(scope="module")
def page(chromium, lab, place):
    lab.write("keyboard.ipynb", OPEN.format(root=str(place / "runs")), "'a cell below'")
    with LabPage(chromium, lab, "keyboard.ipynb", width=1300) as opened:
        opened.run_cell(0)
        opened.shows(".swb-menu")
        opened.page.evaluate(COLLECT)  # names the panel for the other scripts
        yield opened


def focus(page, selector):
    """Focus a control that the first tests have shown to be reachable; what it does is then asked for by keys."""
    found = page.shows(selector)
    found.focus()
    return found


def press(page, *keys):
    for key in keys:
        page.page.keyboard.press(key)


def turn(page, name):
    focus(page, f".swb-menu button:has-text('{name}')")
    press(page, "Enter")
    page.shows(f".swb-menu button.mod-active:has-text('{name}')")
    assert page.page.evaluate("() => document.activeElement.textContent") == name


def ready(page, name):
    page.shows(
        {
            "1 Setup": "[data-path='loss.beta'] input",
            "2 Data": "tr[data-id]",
            "3 Train": ".swb-card",
            "4 Answers": ".swb-card",
            "5 Pairs": "tr[data-id]",
            "Runs": "tr[data-id]",
        }[name]
    )


def settled(page):
    """The number of visible controls, once it stays: those of the last panel go and those of this one come in pieces."""
    before, now = None, page.page.evaluate(COLLECT)
    while now != before:
        page.page.wait_for_timeout(700)
        before, now = now, page.page.evaluate(COLLECT)
    return now


@pytest.mark.parametrize("name", PANELS)
def test_tab_reaches_every_control(page, name):
    turn(page, name)
    ready(page, name)
    if name == "1 Setup":
        page.page.evaluate(OPEN_ALL)
    if name == "Runs":
        focus(page, "tr[data-id='doomed']")
        press(page, "Enter")
        page.shows("button:has-text('Delete …')")
    expected = settled(page)
    reached, nameless, unseen = set(), [], []
    for _ in range(expected + 20):
        found = page.page.evaluate(FOCUSED)
        if found is None:
            break
        reached.add(found["number"])
        if not found["name"]:
            nameless.append(found["what"])
        if not found["shows"] and found["number"]:  # the first was not reached by a key
            unseen.append(found["what"])
        press(page, "Tab")
    else:
        raise AssertionError("The focus does not leave the panel.")
    missed = page.page.evaluate(
        "reached => controls.filter((one, number) => !reached.includes(number)).map(one => one.outerHTML.slice(0,"
        " 160))",
        list(reached),
    )
    assert (missed, nameless, unseen, page.page.evaluate(MOUSE_ONLY)) == ([], [], [], [])
    assert len(reached) > 8


def test_the_form(page):
    turn(page, "1 Setup")
    slider = focus(page, "[data-path='loss.beta'] input[type='range']")
    press(page, "ArrowRight", "ArrowRight", "ArrowRight")
    beta = page.page.input_value("[data-path='loss.beta'] input:not([type='range'])")
    assert beta == "2.8"
    page.shows(".swb-code:has-text('\"loss.beta\": 2.8')")
    page.shows("[data-path='loss.gamma_beta_ratio']:has-text('γ = β · γ/β = 2.8 · 0.5 = 1.4')")
    assert slider.evaluate("one => one === document.activeElement")
    focus(page, "button:has-text('as YAML')")
    press(page, " ")
    page.shows("pre:has-text('beta: 2.8')")
    focus(page, "button:has-text('Back to the preset')")
    press(page, "Enter")
    page.shows("button:has-text('Back to the preset'):disabled")
    page.until("() => document.activeElement.textContent.includes('Undo')")  # the next that can be used
    press(page, "Enter")
    page.shows("pre:has-text('beta: 2.8')")
    summary = focus(page, "details.swb-rare > summary")
    was_open = summary.evaluate("one => one.parentElement.open")
    press(page, "Enter")
    assert summary.evaluate("one => one.parentElement.open") != was_open
    menu = focus(page, ".widget-dropdown:has-text('Preset') select")
    before = menu.input_value()
    press(page, "ArrowDown")
    page.until("before => document.activeElement.value !== before", before)
    page.shows(".swb-said:has-text('all settings are as it has them')")
    press(page, "ArrowUp")
    page.until("before => document.activeElement.value === before", before)


def test_the_data(page, place):
    file = place / "pairs.jsonl"
    file.write_text(
        "".join(
            json.dumps({"prompt": f"Question {n}?", "chosen": f"Yes, {n}.", "rejected": f"Well, perhaps {n}."}) + "\n"
            for n in range(30)
        )
    )
    turn(page, "2 Data")
    focus(page, "input[placeholder^='demo, a file']")
    press(page, "Control+a")
    page.page.keyboard.type(str(file))
    press(page, "Enter")
    page.shows(".swb-said:has-text('27 training pairs')")
    assert page.page.evaluate("() => document.activeElement.value") == str(file)
    focus(page, "tr[data-id]")
    press(page, "ArrowDown", "ArrowDown", "Enter")
    page.until(
        "() => document.activeElement.matches('tr.swb-selected') && document.activeElement.sectionRowIndex === 2"
    )
    prompt = page.page.evaluate("() => document.activeElement.cells[0].textContent")
    page.shows(f".swb-pair .swb-text:text-is('{prompt}')")
    focus(page, "button.swb-sort[data-key='prompt']")
    press(page, "Enter")
    page.until(
        "() => document.activeElement.dataset.key === 'prompt' && document.activeElement.parentElement.ariaSort ==="
        " 'descending'"
    )
    focus(page, ".widget-toggle-button:has-text('Held-out')")
    press(page, "Enter")
    page.until("() => [...document.querySelectorAll('tr[data-id]')].filter(one => one.offsetParent).length === 3")
    assert page.page.evaluate(HELD)


def test_a_run(page):
    turn(page, "3 Train")
    handle = focus(page, ".widget-hslider:has-text('At step') .noUi-handle")
    page.shows("h4:has-text('Tuned · step 120')")
    press(page, "ArrowLeft")
    page.shows("h4:has-text('Tuned · step 100')")
    assert handle.evaluate("one => one === document.activeElement && one.ariaLabel === 'At step'")
    focus(page, "button[title='Next sample prompt']")
    press(page, "Enter")
    page.shows("text=Sample prompt 2 of 3")
    focus(page, ".widget-toggle-button:has-text('reward units')")
    press(page, "Enter")
    page.shows(".annotation-text:has-text('Margin (reward units)')")
    assert page.page.evaluate("() => document.activeElement.ariaPressed") == "true"
    focus(page, ".widget-hslider:has-text('Smoothing') .noUi-handle")
    press(page, "ArrowRight")
    page.shows("text=mean of 3 steps")
    change = page.shows("button:has-text('Change while training …')")
    assert change.is_disabled()
    assert change.get_attribute("title") == "The run is finished: it has no process that could do this."
    focus(page, ".jupyter-widget-Collapse-header")
    press(page, "Enter")
    page.shows("pre:has-text('The log is empty.')")
    press(page, " ")
    page.until("() => document.activeElement.ariaExpanded === 'false'")


def test_answers(page):
    turn(page, "4 Answers")
    menu = focus(page, ".widget-dropdown:has-text('Prompt') select")
    press(page, "ArrowDown")
    page.shows(".swb-text:text-is('Make up a new word by combining two words, and say what it means.')")
    assert menu.evaluate("one => one === document.activeElement")
    focus(page, "textarea")
    page.page.keyboard.type("Why")
    press(page, "Enter")
    page.page.keyboard.type("not?")
    page.shows("button:has-text('Answer'):enabled")
    assert page.page.evaluate("() => document.activeElement.value") == "Why\nnot?"


def test_the_pairs(page, place):
    turn(page, "5 Pairs")
    focus(page, ".widget-toggle-button:has-text('flipped to right')")
    press(page, "Enter")
    page.until("() => [...document.querySelectorAll('tr[data-id]')].filter(one => one.offsetParent).length === 11")
    assert page.page.evaluate("() => document.activeElement.textContent").startswith("flipped to right")
    focus(page, "tr[data-id]")
    press(page, "ArrowDown", "Enter")
    page.shows("button:has-text('Export 1 chosen pair')")
    press(page, "ArrowDown", "Control+Enter")
    page.shows("button:has-text('Export 2 chosen pairs')")
    focus(page, ".widget-text:has-text('File') input")
    press(page, "Control+a")
    page.page.keyboard.type(str(place / "chosen.csv"))
    press(page, "Tab")
    assert "Export 2" in page.page.evaluate("() => document.activeElement.textContent")
    press(page, "Enter")
    page.shows(".swb-said:has-text('2 pairs written')")
    assert len((place / "chosen.csv").read_text().splitlines()) == 3
    focus(page, "button:has-text('Choose none')")
    press(page, "Enter")
    page.shows("button:has-text('Choose none'):disabled")
    page.until(HELD)
    focus(page, "input[placeholder^='words in prompt']")
    page.page.keyboard.type("Question 7?")
    press(page, "Enter")
    page.until("() => [...document.querySelectorAll('tr[data-id]')].filter(one => one.offsetParent).length === 1")
    assert page.page.evaluate("() => document.activeElement.value") == "Question 7?"


def test_the_runs(page, place):
    turn(page, "Runs")
    focus(page, "tr[data-id='healthy']")
    press(page, "Enter")
    page.shows("tr.swb-selected[data-id='healthy']")
    focus(page, "tr[data-id='ruined']")
    press(page, "Control+Enter")
    page.shows("text=2 runs compared")
    focus(page, "tr[data-id='doomed']")
    press(page, "Enter")
    focus(page, "button:has-text('Delete …')")
    press(page, "Enter")
    page.shows("button:has-text(\"Delete 'doomed' for good\")")
    press(page, "Tab")
    assert "for good" in page.page.evaluate("() => document.activeElement.textContent")
    press(page, "Enter")
    page.shows(".swb-said:has-text(\"The run 'doomed' is deleted.\")")
    page.until("() => !document.querySelector(\"tr[data-id='doomed']\")")
    assert not (place / "runs" / "doomed").exists()
    page.until("() => root.contains(document.activeElement) && document.activeElement.getClientRects().length > 0")
    focus(page, "tr[data-id='ruined']")
    press(page, "Enter")
    focus(page, "button:has-text('Open')")
    press(page, "Enter")
    page.shows(".swb-menu button.mod-active:has-text('3 Train')")
    page.until("() => document.activeElement.textContent === '3 Train'")


def test_keys_of_jupyterlab_stay_out(page):
    """In command mode these delete, insert, cut, paste and convert cells, undo that, and restart the kernel."""
    cells = (
        "() => [...document.querySelectorAll('.jp-Notebook .jp-Cell')].map(one =>"
        " one.className.replace(/jp-mod-\\S+|jp-CodeCell-\\S+/g, '').trim() +"
        " one.querySelector('.cm-content')?.textContent)"
    )
    before = page.page.evaluate(cells)
    for name, selector in (
        ("Runs", "tr[data-id]"),
        ("Runs", "button.swb-sort"),
        ("Runs", ".swb-menu button.mod-active"),
        ("5 Pairs", ".swb-chips button"),
        ("5 Pairs", "input[placeholder^='words in prompt']"),
        ("3 Train", ".noUi-handle"),
        ("3 Train", ".jupyter-widget-Collapse-header"),
        ("1 Setup", "summary"),
        ("1 Setup", "input[type='checkbox']"),
        ("1 Setup", "input[type='range']"),
        ("1 Setup", ".swb-code pre"),
    ):
        turn(page, name)
        page.page.evaluate(OPEN_ALL)
        focus(page, selector)
        press(page, *"ddabxcvmyrz00", "Shift+M", "Delete")
        assert page.page.evaluate(cells) == before, selector
        assert page.page.locator(".jp-Dialog").count() == 0, selector
    assert page.tracebacks() == []
    assert page.faults == []
    page.picture("keyboard")
