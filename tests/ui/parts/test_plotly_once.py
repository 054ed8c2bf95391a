"""What would be lost: five megabytes and a second of a page's time for every chart, until the charts of a slow page
give up.
"""

import plotly.graph_objects as go

from simpo_workbench.ui.parts import plotly_once
from simpo_workbench.ui.parts.plotly_once import figure_widget


def test_a_kernel_sends_plotlys_code_once_and_every_figure_names_where_it_is():
    one, other = figure_widget(), figure_widget()
    assert isinstance(one, go.FigureWidget)
    assert one.library is other.library
    assert one.library.code == str(go.FigureWidget._esm)
    sent = one.get_state()
    assert sent["library"] == f"IPY_MODEL_{one.library.model_id}"
    assert len(str(sent)) < 50_000
    assert "export default" in one._esm


def test_after_all_widgets_were_closed_new_figures_have_the_code_again():
    before = figure_widget().library
    before.close()
    after = figure_widget().library
    assert after is not before
    assert after.comm is not None
    assert plotly_once._Library.one() is after
