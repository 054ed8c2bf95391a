"""What a user would lose: processor time for panels that nobody sees any more, or a panel that stands still after a
reload.
"""

import math

from simpo_workbench.ui.parts.following import Follower
from simpo_workbench.ui.parts.panel import Panel


def test_a_panel_in_no_page_rests_and_one_that_comes_back_goes_on(monkeypatch):
    monkeypatch.setattr("simpo_workbench.ui.parts.panel.follow", Follower)  # followed by this test, not by the thread
    panel, looks = Panel(), []
    follower = panel.follow(lambda: looks.append(1))

    def looks_in_a_tick():
        before = len(looks)
        follower._tick(math.inf)
        return len(looks) - before

    assert looks_in_a_tick() == 1  # a panel that was never shown is followed: a cell may be about to show it
    panel._count_views(None, {"views": 1}, [])
    panel._count_views(None, {"views": 1}, [])  # the page was loaded anew before the first view was gone
    panel._count_views(None, {"views": -1}, [])
    assert not panel.forgotten
    assert looks_in_a_tick() == 1
    panel._count_views(None, {"views": -1}, [])
    assert panel.forgotten
    assert looks_in_a_tick() == 0
    panel._count_views(None, {"views": 1}, [])
    assert looks_in_a_tick() == 1


def test_other_messages_count_nothing():
    panel = Panel()
    for message in (None, "views", {"views": 5}, {"views": "1"}, {}):
        panel._count_views(None, message, [])
    assert not panel.forgotten
