"""Panels behind one menu.

What a user would lose: a panel that is read before anyone asks for it, two panels at once, a run that reaches only the
one seen.
"""

import pytest
import traitlets
from fake_run import fake_run
from panels import visible

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.runs.run import Run
from simpo_workbench.ui.parts.html import html
from simpo_workbench.ui.parts.panel import Panel
from simpo_workbench.ui.parts.sections import RunSections


class Part(Panel):
    run = traitlets.Instance(Run, allow_none=True)

    def __init__(self, run=None, line=None):
        super().__init__(line)
        self.run, self.looks, self.closed = run, 0, False
        self.compose()

    def refresh(self):
        self.looks += 1

    def snapshot(self):
        return html("<p>{}</p>", self.run.name if self.run else "nothing")

    def close(self):
        self.closed = True
        super().close()


def seen(sections):
    return [name for name, panel in sections._panels.items() if visible(panel)]


def test_a_panel_is_made_when_it_is_turned_to_and_looks_again_when_it_is_turned_to_again():
    told = []
    sections = RunSections({"one": Part, "two": Part}, on_made=lambda name, panel: told.append(name))
    assert told == seen(sections) == ["one"]
    assert sections.made("one") is sections.panel
    assert sections.made("two") is None, "to ask for it makes nothing"
    sections.menu.value = "two"
    assert told == ["one", "two"]
    assert seen(sections) == ["two"]
    assert sections.panel.looks == 0
    assert sections.turn_to("one").looks == 1
    assert sections.menu.value == "one"
    assert seen(sections) == ["one"]
    assert all(panel.line is sections.line for panel in sections._panels.values())


def test_while_a_panel_is_made_it_says_so_instead_of_showing_the_old_one():
    seen_meanwhile = []

    def slow(run, line):
        seen_meanwhile.append((sections._opening.value, seen(sections)))
        return Part(run, line)

    sections = RunSections({"one": Part, "two": slow})
    sections.turn_to("two")
    assert seen_meanwhile == [('<p class="swb-muted" role="status">Opening two …</p>', [])]
    assert sections._opening.value == ""
    assert seen(sections) == ["two"]


def test_another_run_reaches_every_panel_that_was_made_and_those_made_later(tmp_path):
    sections = RunSections({"one": Part, "two": Part, "three": Part})
    sections.turn_to("two")
    sections.run = fake_run(tmp_path, total_steps=20)
    assert [panel.run for panel in sections._panels.values()] == [sections.run] * 2
    assert sections.turn_to("three").run is sections.run
    assert sections.run.name in sections.snapshot()
    sections.refresh()
    assert [panel.looks for panel in sections._panels.values()] == [0, 0, 1], "only what is seen is read again"
    sections.close()
    assert all(panel.closed for panel in sections._panels.values())


def test_a_panel_that_does_not_exist_is_refused_with_the_names_of_those_that_do():
    with pytest.raises(WorkbenchError, match="no panel 'four': choose one of one, two"):
        RunSections({"one": Part, "two": Part}).turn_to("four")
