"""The blind test by keys alone in real JupyterLab, with a kernel that is killed in the middle: no vote is lost, and
none is cast on what was not seen.
"""

import os

import pytest
from fake_run import fake_run
from lab_page import LabPage

from simpo_workbench import load_pairs
from simpo_workbench.analysis import BlindVotes

pytestmark = pytest.mark.browser
PROMPTS = [f"What would you say about the number {n}?" for n in range(12)]
OPEN = """import simpo_workbench as wb
test = wb.ui.BlindTest(wb.attach("judged", {root!r}))
test"""
WORKBENCH = """import simpo_workbench as wb
bench = wb.Workbench(root={root!r}, run=wb.attach("judged", {root!r}))
bench"""
KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
SEEN_MS = 350  # what is pressed sooner after something new came is let go
CELLS = (
    "() => [...document.querySelectorAll('.jp-Notebook .jp-Cell')].map(one =>"
    " one.querySelector('.cm-content')?.textContent)"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = tmp_path_factory.mktemp("blind") / "runs"
    fake_run(made, "judged", total_steps=40, prompts=PROMPTS)
    return made


def test_twelve_prompts_are_judged_by_keys(chromium, lab, root):
    """One session from the first vote to the result, through a kernel that dies."""
    lab.write("blind.ipynb", OPEN.format(root=str(root)), KILL, "'a cell below'")
    with LabPage(chromium, lab, "blind.ipynb") as page:
        votes_by_keys_outlive_a_killed_kernel(page, root)
        a_burst_of_keys_votes_on_nothing_that_was_not_seen(page, root)
        keys_outside_of_the_panel_and_with_ctrl_are_no_votes(page, root)
        the_result_comes_at_the_end_in_both_themes(page, root)


def saved(page, count):
    return page.shows(f"[role='status']:has-text('· {count} saved')")


def vote(page, key, count):
    """Press a key once the prompt has been there for a moment; then so many votes are saved."""
    page.page.wait_for_timeout(SEEN_MS)
    page.page.keyboard.press(key)
    saved(page, count)


def tab_to(page, words):
    """Reach a button by the Tab key, from where the focus is."""
    for _ in range(60):
        if words in page.page.evaluate("() => document.activeElement.textContent"):
            return
        page.page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {words!r}.")


def begin_by_keys(page, words):
    page.run_cell(0)
    page.shows(f"button:has-text('{words}'):enabled")
    page.shows(".swb-chips button").focus()  # the first control of the panel; from here on only keys
    tab_to(page, words)
    page.page.keyboard.press("Enter")
    page.shows(".swb-blind .swb-card")


def votes_on_disk(root):
    (path,) = (root / "judged" / "blind").glob("*.jsonl")
    return BlindVotes.resume(path)


def votes_by_keys_outlive_a_killed_kernel(page, root):
    begin_by_keys(page, "Begin")
    cells = page.page.evaluate(CELLS)
    page.shows(".swb-keys-hint:has-text('The keys work now.')")
    for count, key in enumerate(("1", "2", "t", "b", "s"), 1):
        vote(page, key, count)
    page.picture("blind-vote-light")
    vote(page, "u", 4)
    vote(page, "3", 5)
    assert list(votes_on_disk(root).votes["choice"]) == ["left", "right", "tie", "both bad", "tie"]
    assert page.page.evaluate(CELLS) == cells, "JupyterLab took none of the keys"

    page.run_cell(1)  # kills the kernel
    page.shows(".jp-Dialog:has-text('appears to have died')")
    page.page.keyboard.press("Enter")
    page.page.wait_for_selector(".jp-Dialog", state="detached")
    begin_by_keys(page, "Open")
    saved(page, 5)
    page.shows("[role='status']:has-text('Prompt 6 of 12')")
    vote(page, "1", 6)
    assert list(votes_on_disk(root).votes["choice"]) == ["left", "right", "tie", "both bad", "tie", "left"]


def a_burst_of_keys_votes_on_nothing_that_was_not_seen(page, root):
    page.page.wait_for_timeout(SEEN_MS)
    for _ in range(6):
        page.page.keyboard.press("2")
    saved(page, 7)
    page.page.wait_for_timeout(2 * SEEN_MS)
    assert votes_on_disk(root).voted == 7
    page.page.keyboard.down("2")  # held down
    for _ in range(20):
        page.page.keyboard.down("2")
    page.page.keyboard.up("2")
    saved(page, 8)
    page.page.wait_for_timeout(2 * SEEN_MS)
    assert votes_on_disk(root).voted == 8
    page.page.dblclick(".swb-keys button:has-text('Tie')")
    saved(page, 9)
    page.page.wait_for_timeout(2 * SEEN_MS)
    assert votes_on_disk(root).voted == 9


def keys_outside_of_the_panel_and_with_ctrl_are_no_votes(page, root):
    page.page.click(".jp-Cell:last-child .cm-content")
    page.shows(".swb-keys-hint:has-text('Click into this panel')")
    page.page.keyboard.type("1 2 t")
    assert votes_on_disk(root).voted == 9
    page.page.click(".swb-blind .swb-card h4")  # on words, no control
    page.shows(".swb-keys-hint:has-text('The keys work now.')")
    page.page.wait_for_timeout(SEEN_MS)
    page.page.keyboard.press("Control+b")
    page.page.wait_for_timeout(SEEN_MS)
    assert votes_on_disk(root).voted == 9
    vote(page, "4", 10)


def the_result_comes_at_the_end_in_both_themes(page, root):
    page.theme("Dark")
    page.page.wait_for_timeout(1500)  # JupyterLab's own splash
    page.picture("blind-vote-dark")
    for count, key in ((11, "1"), (12, "2")):
        vote(page, key, count)
    page.shows(".swb-blind-done")
    page.page.wait_for_timeout(SEEN_MS)
    page.page.keyboard.press("r")
    page.shows(
        ".swb-notice:has-text('of 12 prompts')"
    )  # the sides are drawn: the same keys may or may not make a difference
    page.shows(".swb-rate-line[aria-label^='Win rate of tuned · step 40']")
    page.picture("blind-result-dark")
    page.theme("Light")
    page.page.wait_for_timeout(1500)  # JupyterLab's own splash
    page.picture("blind-result-light")
    file = root / "pairs.jsonl"
    page.shows(".widget-text:has-text('File') input").focus()
    page.page.keyboard.press("Control+a")
    page.page.keyboard.type(str(file))
    page.page.wait_for_timeout(1500)  # what was typed goes to the kernel in pieces, and a click does not wait for them
    page.page.keyboard.press("Shift+Tab")
    page.page.keyboard.press("Enter")
    page.shows(".swb-said:has-text('pairs written')")
    assert len(load_pairs(file)) == len(votes_on_disk(root).pairs())
    page.shows("tr[data-id]").focus()
    page.page.keyboard.press("Enter")
    page.shows(".swb-card h4:has-text('· tuned · step 40')")
    assert os.path.getsize(file) > 0
    assert page.tracebacks() == []
    assert (page.faults, page.foreign) == ([], [])


def test_in_the_workbench_the_keys_work_as_soon_as_the_test_begins(chromium, lab, root):
    lab.write("workbench.ipynb", WORKBENCH.format(root=str(root)))
    with LabPage(chromium, lab, "workbench.ipynb") as bench:
        bench.run_cell(0)
        bench.shows(".swb-menu button:has-text('4 Answers')").click()
        bench.shows(".swb-parts button:has-text('Blind test')").click()
        bench.shows("button:has-text('Begin'):enabled").focus()
        bench.page.keyboard.press("Enter")
        saved(bench, 0)
        bench.until("() => document.activeElement.closest('.swb-keys')")
        vote(bench, "2", 1)
        assert bench.tracebacks() == []
