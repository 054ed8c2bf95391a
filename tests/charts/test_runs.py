"""What a user would lose: runs that cannot be told apart where they are laid over each other, or a name that becomes
markup.
"""

import pandas as pd
import pytest
from fake_run import fake_run

from simpo_workbench.charts import runs as runs_charts
from simpo_workbench.charts.runs import MOST_RUNS, RUN_COLORS, last_values, line_labels, runs_figure


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return {
        run.name: run.metrics
        for run in (fake_run(root, "plain-0412"), fake_run(root, "plain-0413", total_steps=60, ruined=True))
    }


def drawn(figure):
    """{axis: [traces]} of what has points."""
    found = {}
    for trace in figure.data:
        if trace.x is not None and len(trace.x) and trace.x[0] is not None:
            found.setdefault(trace.xaxis, []).append(trace)
    return found


def test_every_chart_shows_every_run_at_its_evaluations(metrics):
    charts = drawn(runs_figure(metrics))
    assert len(charts) == 6
    for traces in charts.values():
        assert [trace.name for trace in traces] == list(metrics)
        assert [trace.x[-1] for trace in traces] == [120, 60]
    chosen = charts["x"][1]
    evaluations = metrics["plain-0413"].query("kind == 'eval'")
    assert list(chosen.y) == list(evaluations["eval/logps/chosen_drift"])
    margins = charts["x4"][0]
    last = metrics["plain-0412"].query("kind == 'eval'").iloc[-1]
    assert margins.y[-1] == pytest.approx(last["eval/logps/chosen"] - last["eval/logps/rejected"])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_run_looks_the_same_in_all_charts_and_like_no_other(metrics, theme):
    table = next(iter(metrics.values()))
    many = {f"run-{number}": table for number in range(MOST_RUNS)}
    figure = runs_figure(many, theme=theme)
    for name in many:
        assert (
            len(
                {
                    (trace.line.color, trace.line.dash, trace.marker.symbol)
                    for trace in figure.data
                    if trace.name == name
                }
            )
            == 1
        )
    looks = {(trace.line.color, trace.marker.symbol) for trace in figure.data}
    assert len(looks) == MOST_RUNS
    assert len({trace.marker.symbol for trace in figure.data}) == MOST_RUNS, "told apart without colours as well"
    assert len(set(RUN_COLORS[theme])) == MOST_RUNS


def test_one_metric_more_gets_its_place(metrics, monkeypatch):
    monkeypatch.setattr(runs_charts, "SHOWN", (*runs_charts.SHOWN, "loss"))
    figure = runs_figure(metrics)
    domains = [axis.domain for axis in figure.select_yaxes()]
    assert len(domains) == 7
    assert all(0 <= low < high <= 1 for low, high in domains)
    assert figure.layout.height > runs_charts.HEIGHT


def test_names_stand_at_the_line_ends_in_the_runs_own_colour(metrics):
    figure = runs_figure(metrics)
    for short, color in zip(("…0412", "…0413"), RUN_COLORS["light"], strict=False):
        assert [note.font.color for note in figure.layout.annotations if note.text == short] == [color] * 6


def test_gamma_is_drawn_only_where_it_is_the_same_and_the_axis_reaches_the_plan(metrics):
    def texts(figure):
        return [note.text for note in figure.layout.annotations]

    assert "γ/β" in texts(runs_figure(metrics, gamma_beta_ratio=0.5))
    assert "γ/β" not in texts(runs_figure(metrics))
    assert runs_figure(metrics, total_steps=500).layout.xaxis.range == (0, 500)


def test_runs_without_evaluations_keep_their_place(metrics):
    figure = runs_figure({"new": pd.DataFrame(columns=["kind", "step"]), **metrics})
    assert [len(traces) for traces in drawn(figure).values()] == [2] * 6
    colors = {trace.name: trace.line.color for traces in drawn(figure).values() for trace in traces}
    assert colors["plain-0412"] == RUN_COLORS["light"][1], (
        "a run's colour does not change when another one gets its first points"
    )
    empty = runs_figure({"new": pd.DataFrame(columns=["kind", "step"])})
    assert sum("comes with the first" in note.text for note in empty.layout.annotations) == 6


def test_a_name_is_text_and_no_markup(metrics):
    name = "<img src=x onerror=alert(1)>"
    words = str(runs_figure({name: next(iter(metrics.values()))}).to_json())
    assert "<img" not in words
    assert "\\u003cimg" not in words


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["plain-answers-0412", "plain-answers-0412-2"], ["…0412", "…0412-2"]),
        (["a", "b"], ["a", "b"]),
        (["run", "run-2"], ["run", "run-2"]),
        (["only-one-of-them"], ["A"]),
        (["a-long-name-of-one", "another-long-name"], ["A", "B"]),
        ([], []),
    ],
)
def test_labels_tell_names_apart_in_little_room(names, labels):
    assert line_labels(names) == dict(zip(names, labels, strict=True))


def test_the_table_for_screen_readers_says_what_the_charts_show(metrics):
    columns, rows = last_values({**metrics, "new": pd.DataFrame(columns=["kind", "step"])})
    assert columns[:2] == ["run", "chosen drift (nats/token)"]
    assert columns[4] == "lead (nats/token)"
    assert [row[0] for row in rows] == ["plain-0412", "plain-0413", "new"]
    assert rows[1][1] == "−2.00"
    assert rows[2][1:] == ["–"] * 6


def test_right_answers_are_in_the_table_where_a_run_has_them(metrics, tmp_path):
    columns, rows = last_values({**metrics, "checked": fake_run(tmp_path, checked=True).metrics})
    assert columns[-1] == "right answers"
    assert [row[-1] for row in rows] == ["–", "–", "0.50"]
