"""What a user would lose: processor time for panels that nobody sees any more, or a panel that stands still after a
reload.
"""

import time

from panels import until

from simpo_workbench.ui.parts.panel import Panel


def test_a_panel_in_no_page_rests_and_one_that_comes_back_goes_on():
    panel, looks = Panel(), []
    follower = panel.follow(lambda: looks.append(1), 0.01)
    until(lambda: looks)  # a panel that was never shown is followed: a cell may be about to show it
    panel._count_views(None, {"views": 1}, [])
    panel._count_views(None, {"views": 1}, [])  # the page was loaded anew before the first view was gone
    panel._count_views(None, {"views": -1}, [])
    assert not panel.forgotten
    panel._count_views(None, {"views": -1}, [])
    assert panel.forgotten
    time.sleep(0.1)  # a look that was under way
    before = len(looks)
    time.sleep(0.3)
    assert len(looks) == before
    panel._count_views(None, {"views": 1}, [])
    until(lambda: len(looks) > before)
    follower.stop()


def test_other_messages_count_nothing():
    panel = Panel()
    for message in (None, "views", {"views": 5}, {"views": "1"}, {}):
        panel._count_views(None, message, [])
    assert not panel.forgotten
