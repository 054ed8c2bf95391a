"""What all panels stand on.

What a user would lose: a page that runs foreign markup, a panel that stops in silence, a table or chart that shows
something else.
"""

import logging
import threading
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import traitlets
from fake_run import fake_run
from hypothesis import given
from hypothesis import strategies as st
from panels import until

from simpo_workbench import ui
from simpo_workbench.analysis import doctor
from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.base.format import counted, duration, in_one_line, memory, signed, significant
from simpo_workbench.charts import training as training_charts
from simpo_workbench.charts.subplots import COLORS, Line, Subplot, Threshold, chart_spec
from simpo_workbench.ui.parts import following
from simpo_workbench.ui.parts.data_table import Column, DataTable
from simpo_workbench.ui.parts.following import LOCK, follow, in_background
from simpo_workbench.ui.parts.html import Html, Markup, escape, facts, html, joined, table
from simpo_workbench.ui.parts.live_figure import LiveFigure
from simpo_workbench.ui.parts.panel import Frame, Panel, button, enable, show

HOSTILE = '<img src=x onerror="alert(1)">{0.__class__}\'&'


# --- text and markup


@given(st.text())
def test_text_comes_through_as_the_text_that_it_is(text):
    for made in (
        html("<b>{}</b>", text),
        html("<b>{name}</b>", name=text),
        joined([Markup("<b></b>"), text]),
        Markup("<b>") + escape(text),
    ):
        inside = made.replace("<b>", "").replace("</b>", "")
        assert "<" not in inside
        assert Markup(inside).unescape() == text


def test_fragments_stay_fragments_and_attributes_cannot_be_left():
    inner = html("<b>{}</b>", "a & b")
    assert html("<p>{}</p>", inner) == "<p><b>a &amp; b</b></p>"
    assert '"' not in html('<p title="{}">', HOSTILE).removeprefix('<p title="').removesuffix('">')
    assert joined(["a", inner], "<br>") == "a&lt;br&gt;<b>a &amp; b</b>"
    assert facts("a", "", "<c>").striptags() == "a · <c>"
    assert "<c>" not in facts("a", "", "<c>")
    made = table(["<c>"], [[HOSTILE], [inner]], "<caption>")
    assert made.count("<b>") == 1
    assert "<c>" not in made
    assert "<img" not in made


def test_a_widget_shows_plain_text_as_text_however_it_comes():
    shown = Html("<b>bold</b>")
    assert shown.value == "&lt;b&gt;bold&lt;/b&gt;"
    shown.value = HOSTILE
    assert "<" not in shown.value
    shown.set_state({"value": "<script>alert(1)</script>"})  # as a page would
    assert "<script" not in shown.value
    shown.value = html("<b>{}</b>", "x")
    assert shown.value == "<b>x</b>"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (signed(-0.42), "−0.42"),
        (signed(0.044), "+0.04"),
        (signed(-0.004), "+0.00"),
        (signed(0.0), "+0.00"),
        (signed(float("-inf")), "−inf"),
        (significant(9.96), "10"),
        (significant(0.0421), "0.042"),
        (significant(12345.6), "12,346"),
        (duration(64), "1 min 04 s"),
        (duration(59.7), "1 min 00 s"),
        (duration(3599.6), "1 h 00 min"),
        (duration(None), "?"),
        (memory(1_900_000_000), "1.9 GB"),
        (counted(1, "pair"), "1 pair"),
        (counted(12000, "pair"), "12,000 pairs"),
        (in_one_line(" What is\n\nthis? "), "What is this?"),
        (in_one_line("12345678", 8), "12345678"),
        (in_one_line("123456789", 8), "1234567…"),
    ],
)
def test_numbers_read_as_people_say_them(said, words):
    assert said == words


# --- what moves by itself


def test_a_follower_that_fails_stops_alone_and_that_is_logged(caplog):
    seen, fails = [], follow(lambda: 1 / 0, 0.01)
    lives = follow(lambda: seen.append(1), 0.01)
    with caplog.at_level(logging.ERROR):
        until(lambda: not fails.active and len(seen) > 2)
    lives.stop()
    assert isinstance(fails.trouble, ZeroDivisionError)
    assert "can no longer be kept up to date" in caplog.text
    until(lambda: fails not in following._followers and lives not in following._followers)


def test_who_was_stopped_looks_no_more_even_if_it_was_about_to():
    """A click that holds the lock takes a panel's run away; the look that waits for the lock must not happen any
    more.
    """
    seen = []
    with LOCK:
        follower = follow(lambda: seen.append(1), 0.01)
        time.sleep(0.1)  # the thread stands before the lock by now
        follower.stop()
    until(lambda: follower not in following._followers)
    assert seen == []


def test_a_follower_is_looked_at_as_often_as_it_asks_for():
    seen = []
    follower = follow(lambda: seen.append(time.monotonic()), 0.05)
    until(lambda: len(seen) >= 8)
    follower.stop()
    assert np.median(np.diff(seen)) < 0.25


def test_background_work_ends_under_the_lock_and_its_error_is_handed_over():
    found, threads = [], []
    threads.append(in_background(lambda: 7, found.append, found.append))
    threads.append(in_background(lambda: 1 / 0, found.append, lambda error: found.append(type(error))))
    until(lambda: len(found) == 2)
    assert set(found) == {7, ZeroDivisionError}
    with LOCK:
        waits = in_background(lambda: 8, found.append, found.append)
        waits.join(0.1)
        assert found[2:] == []
    until(lambda: found[2:] == [8])
    assert all(one is not threading.current_thread() for one in threads)


# --- panels


def test_errors_are_words_and_only_a_fault_keeps_its_traceback():
    panel = Panel()
    panel.guard(lambda: (_ for _ in ()).throw(WorkbenchError(f"There is no {HOSTILE}.")))()
    assert "<b>Error:</b>" in panel.line.value
    assert "<img" not in panel.line.value
    assert "There is no &lt;img" in panel.line.value
    assert panel.trouble == ""
    panel.guard(lambda: {}["beta"])()
    assert "KeyError" in panel.line.value
    assert "fault of the workbench" in panel.line.value
    assert "Traceback" not in panel.line.value
    assert "Traceback" in panel.trouble
    assert panel.guard(lambda: 3)() == 3


def test_a_look_that_fails_is_said_once_and_goes_on():
    panel, looks, said, broken = Panel(), [], [], [True]
    panel.line.observe(lambda change: said.append(change["new"]), "value")

    def look():
        looks.append(1)
        if broken[0]:
            raise WorkbenchError("The disk is away.")

    follower = panel.follow(look, 0.01)
    until(lambda: looks)
    panel.say("Something else.")
    until(lambda: len(looks) > 4)
    assert "Something else." in panel.line.value
    assert len(said) == 2
    broken[0] = False
    until(lambda: len(looks) > 10)
    broken[0] = True
    until(lambda: "The disk is away." in panel.line.value)
    assert follower.active
    follower.stop()


def test_work_in_the_background_says_its_error_after_the_panel_has_put_itself_in_order():
    panel, order = Panel(), []
    panel.later(lambda: 1, lambda found: order.append(found))
    until(lambda: order == [1])
    panel.line.observe(lambda change: order.append("said"), "value")
    panel.later(lambda: 1 / 0, print, lambda error: order.append(type(error)))
    until(lambda: len(order) == 3)
    assert order == [1, ZeroDivisionError, "said"]
    panel.later(lambda: 1, lambda found: 1 / 0)
    until(lambda: "ZeroDivisionError" in panel.line.value)


def test_what_an_earlier_call_with_the_same_key_brings_late_is_dropped():
    panel, results, failures, may_end = Panel(), [], [], threading.Event()

    def slow(result):
        assert may_end.wait(120)
        return 1 / 0 if result is None else result

    def slowly(result, latest):
        return panel.later(lambda: slow(result), results.append, failures.append, latest)

    earlier = [slowly("first", "pair"), slowly(None, "pair"), slowly("dropped", "run"), slowly(None, "run")]
    panel.drop("run")
    panel.drop("never used")
    kept = [slowly("other", "model"), slowly("no key", None), slowly("no key either", None)]
    panel.later(lambda: "last", results.append, latest="pair").join(20)
    assert results == ["last"], "the last call does not wait for the earlier ones"
    may_end.set()
    for thread in [*earlier, *kept]:
        thread.join(20)
    assert sorted(results) == ["last", "no key", "no key either", "other"]
    assert (failures, panel.line.value) == ([], ""), "errors are dropped too"
    slowly(None, "pair").join(20)
    assert [type(error) for error in failures] == [ZeroDivisionError]
    assert "ZeroDivisionError" in panel.line.value


def test_a_picture_without_a_kernel_has_words_and_no_foreign_markup():
    class Named(Panel):
        title = HOSTILE

        def snapshot(self):
            return html("<p>{}</p>", HOSTILE)

    bundle = Named()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "<img" not in bundle["text/html"]
    assert bundle["text/plain"].count(HOSTILE) == 2, "plain text is the text itself"
    assert "still picture" in bundle["text/html"]
    assert "running kernel" in Panel()._repr_mimebundle_()["text/html"]


def test_a_picture_that_fails_is_an_error_in_words():
    class Broken(Panel):
        def snapshot(self):
            raise WorkbenchError("The folder is away.")

    assert "The folder is away." in Broken()._repr_mimebundle_()["text/html"]


def test_the_theme_of_the_page_redraws_the_panel_and_new_ones_begin_with_it(monkeypatch):
    monkeypatch.setattr(Panel, "_page_theme", "light")

    class Drawn(Panel):
        def redraw(self):
            drawn.append(self.theme)

    drawn = []
    Drawn()._frame.theme = "dark"
    assert drawn == ["dark"]
    assert Panel().theme == "dark"


def test_disabled_controls_say_why_and_hidden_ones_come_back():
    clicks = []
    made = button("Go", lambda: clicks.append(1), tooltip="Begin")
    enable(made, "It is paused.", "Begin")
    assert (made.disabled, made.tooltip) == (True, "It is paused.")
    enable(made, "", "Begin")
    made.click()
    assert (made.disabled, made.tooltip, clicks) == (False, "Begin", [1])
    show(made, False)
    assert made.layout.display == "none"
    show(made, True)
    assert made.layout.display is None


def test_no_method_is_called_by_traitlets_behind_the_panels_back():
    """traitlets calls `_<trait>_changed` and `_<trait>_default` by their names alone."""
    package = Path(ui.__file__).parent
    files = [path.relative_to(package) for path in package.rglob("*.py") if path.name != "__init__.py"]
    modules = [import_module(".".join(["simpo_workbench.ui", *path.with_suffix("").parts])) for path in files]
    own = {
        one
        for module in modules
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, traitlets.HasTraits) and one.__module__.startswith("simpo")
    }
    assert len(own) > 25
    for one in own | {Panel, Frame, Html}:
        names = {name for kind in one.__mro__ if kind.__module__.startswith("simpo") for name in vars(kind)}
        assert (
            not {f"_{trait}_{what}" for trait in one.class_trait_names() for what in ("changed", "default")} & names
        ), one


# --- tables


def rows_of(made):
    return [row["id"] for row in made.rows]


@pytest.fixture
def made():
    columns = [
        Column("name", "Name"),
        Column(
            "value",
            "Value",
            lambda value: f"{value:.1f}",
            numeric=True,
            tone=lambda value: "good" if value == value and value > 100 else "",
        ),
    ]
    shown = DataTable([*columns, Column("absent", "Absent")], "name", "Things", several=True, noun="thing")
    values = [float(number % 60) for number in range(118)] + [float("nan"), 200.0]
    shown.show(
        pd.DataFrame({"name": [f"n{number:03d}" for number in range(120)], "value": values, "secret": [[1]] * 120})
    )
    return shown


def test_a_page_at_a_time_is_sent(made):
    assert (made.page, made.pages, len(made.rows), made.count_text) == (1, 3, 50, "120 things")
    assert [column["title"] for column in made.columns] == ["Name", "Value"]
    made._heard(None, {"page": 3}, [])
    assert (made.page, rows_of(made)[0], len(made.rows)) == (3, "n100", 20)
    assert made.rows[-2]["cells"] == ["n118", "–"]
    assert made.rows[-1] == {"id": "n119", "cells": ["n119", "200.0"], "tones": ["", "good"]}
    made._heard(None, {"page": 99}, [])
    assert made.page == 3
    made._heard(None, {"page": -5}, [])
    assert made.page == 1


def test_a_header_sorts_down_then_up_and_what_is_missing_comes_last(made):
    made._heard(None, {"page": 2}, [])
    made._heard(None, {"sort": "value"}, [])
    assert (made.page, made.descending, rows_of(made)[:2]) == (1, True, ["n119", "n059"])
    made._heard(None, {"sort": "value"}, [])
    assert (made.descending, rows_of(made)[:3]) == (False, ["n000", "n060", "n001"])
    made._heard(None, {"page": 3}, [])
    assert rows_of(made)[-1] == "n118"


def test_rows_are_chosen_added_taken_away_and_kept_while_they_are_there(made):
    made._heard(None, {"choose": "n003"}, [])
    made._heard(None, {"choose": "n001", "more": True}, [])
    assert made.chosen == ["n003", "n001"]
    assert sorted(made.selected) == ["n001", "n003"]
    assert made.count_text == "120 things, 2 chosen"
    made._heard(None, {"choose": "n003", "more": True}, [])
    assert made.chosen == ["n001"]
    made.show(made._frame.iloc[10:])
    assert made.chosen == []
    made.choose(["n115"])
    assert (made.page, made.selected) == (3, ["n115"])


@pytest.mark.parametrize(
    "message",
    [
        None,
        "choose",
        [],
        {},
        {"page": "two"},
        {"page": None},
        {"page": float("inf")},
        {"sort": "secret"},
        {"sort": None},
        {"sort": ["value"]},
        {"choose": "nobody"},
        {"open": "n001"},
    ],
    ids=str,
)
def test_what_no_page_of_ours_sends_changes_nothing(made, message):
    before = (made.page, made.sort_by, made.chosen, rows_of(made))
    made._heard(None, message, [])
    assert (made.page, made.sort_by, made.chosen, rows_of(made)) == before
    DataTable([Column("name", "Name")], "name", "Empty")._heard(None, message, [])


class Unsortable:
    """A value without an order."""


def test_what_goes_wrong_in_a_table_is_said_and_the_order_stays(caplog):
    said = []
    for on_error in (said.append, None):
        broken = DataTable([Column("name", "Name"), Column("value", "Value")], "name", "Things", on_error=on_error)
        broken.show(pd.DataFrame({"name": ["a", "b"], "value": [Unsortable(), Unsortable()]}))
        broken._heard(None, {"sort": "name"}, [])
        broken._heard(None, {"sort": "value"}, [])
        assert (broken.sort_by, broken.descending, rows_of(broken)) == ("name", True, ["b", "a"])
        broken.show(broken._frame)  # the next look at the same rows
    assert [type(error) for error in said] == [TypeError]
    assert "A table cannot show what was asked for" in caplog.text


# --- figures


def sent(figure):
    """Collects what goes to the page with every change."""
    found = []
    figure.widget._send_update_msg = lambda restyle_data, relayout_data, trace_indexes: found.append(
        (restyle_data, relayout_data, trace_indexes)
    )
    figure.widget._send_addTraces_msg = lambda *_: found.append("all traces")
    return found


def test_only_what_is_new_is_sent_and_the_traces_stay():
    figure = LiveFigure(100)
    x, flat = np.arange(4.0), np.zeros(4)

    def spec(y, title):
        lines = [{"type": "scatter", "name": name, "x": x, "y": values} for name, values in (("a", y), ("b", flat))]
        return {"data": lines, "layout": {"title": {"text": title}, "height": 100}}

    figure.show(spec(x, "first"))
    traces, messages = figure.widget.data, sent(figure)
    figure.show(spec(x.copy(), "first"))
    assert messages == []
    figure.show(spec(x * 2, "first"))
    ((restyle, relayout, places),) = messages
    assert list(restyle) == ["y"]
    assert (relayout, list(places)) == ({}, [0])
    figure.show(spec(x * 2, "second"))
    restyle, relayout, _ = messages[1]
    assert restyle == {}
    assert set(relayout) == {"title"}
    assert all(now is then for now, then in zip(figure.widget.data, traces, strict=True))


def test_what_a_trace_loses_is_taken_from_it():
    """A line that had no points yet is not to be hovered over; as soon as it has some it is."""
    figure, name = LiveFigure(100), {"type": "scatter", "name": "a"}
    figure.show(
        {"data": [{**name, "x": [None], "y": [None], "hoverinfo": "skip"}], "layout": {"shapes": [{"type": "line"}]}}
    )
    figure.show({"data": [{**name, "x": np.arange(2), "y": np.arange(2)}], "layout": {}})
    assert figure.widget.data[0].hoverinfo is None
    assert figure.widget.layout.shapes == ()


def test_a_live_figure_has_the_same_traces_at_every_moment(tmp_path):
    metrics = fake_run(tmp_path, total_steps=40).metrics
    moments = [metrics.iloc[:0], metrics[metrics["step"] <= 0], metrics[metrics["step"] <= 1], metrics]
    specs = [training_charts.live_figure(part, 0.5, 40, "light", doctor.CHOSEN_DRIFT_ATTENTION) for part in moments]
    assert len({tuple((one["name"], one["xaxis"]) for one in spec["data"]) for spec in specs}) == 1
    assert len({one["xaxis"] for one in specs[0]["data"]}) == 9
    figure = LiveFigure(training_charts.live_height())
    for spec in specs:
        figure.show(spec)
    assert figure._chart.drawn == 1, "later moments change the first drawing"
    live = {trace.name: trace for trace in figure.widget.data}
    assert len(live["chosen ahead"].y) == 3
    assert live["chosen ahead"].hoverinfo is None
    figure.describe(HOSTILE, table(["step"], [[1]]))
    assert "<img" not in figure.words.value
    assert "<table" in figure.words.value


def test_a_small_chart_has_its_points_names_and_thresholds():
    points = pd.DataFrame({"step": [0.0, 10.0], "value": [0.2, 0.4]})
    empty = points.iloc[:0]
    panels = [
        Subplot(
            "One",
            [Line("a", points, "#112233", "a at end"), Line("none", empty, "#112233", "none")],
            "later",
            [Threshold(0.5, "goal", "#112233")],
        ),
        Subplot(
            "Two", [Line("b", empty, "#112233")], "comes later", [Threshold(0.5, "goal", "#112233")], span=(0.0, 1.0)
        ),
    ]
    spec = chart_spec(panels, 2, 10.0, [], COLORS["light"])
    texts = [note["text"] for note in spec["layout"]["annotations"]]
    assert texts == ["goal", "a at end", "One", "comes later", "Two"]
    assert [(one["xaxis"], list(one["x"])) for one in spec["data"]] == [("x", [0, 10]), ("x", [None]), ("x2", [None])]
    assert len(spec["layout"]["shapes"]) == 1, "no goal in an empty chart"
    low, high = spec["layout"]["yaxis"]["range"]
    assert low < 0.2 < 0.5 < high
    assert spec["layout"]["xaxis2"]["matches"] == "x"
    assert spec["layout"]["xaxis"]["range"] == [0, 10]
