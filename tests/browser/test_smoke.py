"""What a user would lose: everything at once, when the Workbench does not open in JupyterLab.

The other browser tests are in tests/full/browser.
"""

import pytest
from fake_run import fake_run
from lab_page import LabPage

pytestmark = pytest.mark.browser
OPEN = """import simpo_workbench as wb
workbench = wb.Workbench(root={root!r}, run=wb.attach("healthy", {root!r}))
workbench"""
#: The number of points of every trace of the visible figures.
POINTS = """() => [...document.querySelectorAll(".swb-figure .js-plotly-plot")].filter(chart => chart.offsetParent)
    .flatMap(chart => chart._fullData.map(trace => trace.x.filter(x => x !== null).length))"""


def test_the_workbench_opens_and_its_charts_show_points(chromium, lab, tmp_path):
    fake_run(tmp_path / "runs", "healthy", checked=True)
    lab.write("smoke.ipynb", OPEN.format(root=str(tmp_path / "runs")))
    with LabPage(chromium, lab, "smoke.ipynb") as page:
        page.run_all()
        page.turn_to("3 Train")
        page.until(f"() => {{ const points = ({POINTS})(); return points.length > 4 && Math.min(...points) > 0; }}")
        assert page.tracebacks() == []
        assert (page.faults, page.foreign) == ([], [])
