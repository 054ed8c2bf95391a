"""The report as a reader opens it: everything drawn, nothing asked for, nothing run that was only quoted, no name cut
or covered.
"""

from pathlib import Path

import pytest
from fake_run import fake_run

from simpo_workbench.report.report import write_report

pytestmark = pytest.mark.browser
SCREENSHOTS = Path(__file__).with_name("screenshots")
HOSTILE = (
    '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1"><a'
    ' href="javascript:window.hacked=1">x</a>'
)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """name -> path of a written report."""
    root = tmp_path_factory.mktemp("runs")
    hostile = {
        "texts": (HOSTILE, HOSTILE, HOSTILE),
        "prompts": [HOSTILE],
        "changes": {"model.name": HOSTILE},
        "message": HOSTILE,
    }
    made = {
        "finished": fake_run(root, "finished"),
        "live": fake_run(root, "live", last_step=64, state="training", message=""),
        "ruined": fake_run(root, "ruined", ruined=True),
        "step-0": fake_run(root, "step-0", last_step=0, state="scoring", message=""),
        "hostile": fake_run(root, "hostile", state="failed", **hostile),
    }
    made["hostile"].folder.append_metrics({"kind": "event", "step": 90, "event": HOSTILE, "text": HOSTILE})
    return {name: write_report(run) for name, run in made.items()}


class Opened:
    """A page with all that went wrong in it."""

    def __init__(self, chromium, path, scheme="light", width=1500):
        self.page = chromium.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)
        self.errors, self.requests = [], []
        self.page.on(
            "console",
            lambda message: self.errors.append(message.text) if message.type in ("error", "warning") else None,
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(
            ".chart:not(:has(.main-svg))", state="detached", timeout=60_000
        )  # the page's policy forbids evaluated waiting
        self.path = path

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.page.close()


@pytest.mark.parametrize("name", ["finished", "live", "ruined", "step-0", "hostile"])
def test_a_report_draws_every_chart_and_asks_for_nothing(chromium, reports, name):
    with Opened(chromium, reports[name]) as opened:
        assert opened.errors == []
        assert opened.requests == [opened.path.as_uri()]
        charts = opened.page.evaluate(
            """() => Object.fromEntries([...document.querySelectorAll(".chart")].map(chart => [chart.id, {
                wanted: figures[chart.id].light.data.filter(trace => (trace.x.bdata ?? trace.x).length).length,
                drawn: chart.querySelectorAll(".scatterlayer .trace").length + chart.querySelectorAll(".barlayer .trace").length,
            }]))"""
        )
        expected = {"chart-training", "chart-rewards", "chart-histogram"} | (
            set() if name == "step-0" else {"chart-scatter"}
        )
        assert set(charts) == expected
        assert all(chart["drawn"] == chart["wanted"] > 0 for chart in charts.values()), charts
        assert opened.page.evaluate("window.hacked") is None
        assert opened.page.evaluate("document.images.length") == 0


def test_quoted_markup_is_shown_as_it_was_written(chromium, reports):
    with Opened(chromium, reports["hostile"]) as opened:
        assert HOSTILE in opened.page.inner_text("header")
        assert HOSTILE in opened.page.inner_text(".verdict-failed")
        texts = opened.page.eval_on_selector_all(".annotation-text", "texts => texts.map(text => text.textContent)")
        assert any(text.startswith("</script><script>window") for text in texts), "an event's name in a chart"
        assert opened.page.eval_on_selector_all("svg a", "links => links.length") == 0


@pytest.mark.parametrize(
    ("name", "scheme", "width"),
    [(name, scheme, width) for name in ("finished", "ruined") for scheme in ("light", "dark") for width in (1500, 1000)]
    + [(name, *look) for name in ("live", "step-0") for look in (("light", 1000), ("dark", 1500))],
)
def test_no_label_covers_another_or_is_cut(chromium, reports, name, scheme, width):
    """Pictures of the pages are left in screenshots/ for whoever reviews a change."""
    SCREENSHOTS.mkdir(exist_ok=True)
    with Opened(chromium, reports[name], scheme, width) as opened:
        opened.page.screenshot(path=SCREENSHOTS / f"report-{name}-{scheme}-{width}.png", full_page=True)
        wrong = opened.page.evaluate("""() => {
                const wrong = [];
                for (const chart of document.querySelectorAll(".chart")) {
                    const frame = chart.getBoundingClientRect();
                    const nodes = [...chart.querySelectorAll(".annotation-text-g, .xtick text, .ytick text, .g-gtitle text, .xtitle, .ytitle")];
                    const boxes = nodes.filter(node => node.textContent.trim()).map(node => ({text: node.textContent, box: node.getBoundingClientRect()}));
                    for (const [index, {text, box}] of boxes.entries()) {
                        if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1) wrong.push(`${text} is cut`);
                        for (const other of boxes.slice(index + 1)) {
                            const across = Math.min(box.right, other.box.right) - Math.max(box.left, other.box.left);
                            const down = Math.min(box.bottom, other.box.bottom) - Math.max(box.top, other.box.top);
                            if (across > 1 && down > 2.5) wrong.push(`${text} and ${other.text} overlap by ${across.toFixed(1)} x ${down.toFixed(1)}`);
                        }
                    }
                    if (!boxes.length) wrong.push(`${chart.id} has no text`);
                }
                return wrong;
            }""")
        assert wrong == []
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width, (
            "the page itself must not scroll sideways"
        )


def test_charts_follow_the_theme_of_the_reader(chromium, reports):
    ground = "document.querySelector('#chart-training .main-svg').style.background"
    with Opened(chromium, reports["finished"]) as opened:
        assert opened.page.evaluate(ground) == "rgb(255, 255, 255)"
        opened.page.emulate_media(color_scheme="dark")
        opened.page.wait_for_selector("#chart-training .main-svg[style*='rgb(17, 17, 17)']", timeout=30_000)
        assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 17, 17)"
