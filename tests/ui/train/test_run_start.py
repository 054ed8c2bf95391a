"""What a user would lose: a run that begins unasked, twice or without its settings, and a notebook that waits for torch
before it shows a button.
"""

import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from fake_run import fake_run
from panels import until, visible

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.config.run_config import RunConfig
from simpo_workbench.runs.preflight_result import PreflightResult
from simpo_workbench.ui.train import run_start
from simpo_workbench.ui.train.run_start import RunStart, preflight_notice

HOSTILE = "<img src=x onerror=alert(1)>"
MEASURED = PreflightResult(
    steps=120,
    seconds_per_step=0.5,
    seconds_per_longest_step=0.9,
    seconds_per_evaluation=4.0,
    seconds_per_sampling=6.0,
    seconds_per_save=0.2,
    evaluations=7,
    samplings=7,
    saves=2,
    seconds_left=130.0,
    base_memory_bytes=1_000_000_000,
    peak_memory_bytes=2_000_000_000,
    free_memory_bytes=8_000_000_000,
    max_tokens_per_microbatch=4096,
    checkpointed_layers=0,
    train_pairs=200,
    held_out_pairs=24,
    final_pairs=0,
    final_share="24 held-out pairs are too few for a final share.",
    truncated=1,
    dropped={"too long": 2, "empty": 0},
    base_leads=(-0.5, 0.1, 0.7),
    target_lead=0.5,
    shortages=(),
    warnings=("training.learning_rate 0.001 is high.",),
)
TIGHT = dataclasses.replace(MEASURED, peak_memory_bytes=8_500_000_000)
TOO_LARGE = dataclasses.replace(
    MEASURED, peak_memory_bytes=9_900_000_000, shortages=("Memory ran out with 4,096 tokens.",)
)


class Measuring:
    """Stands for a preflight in another process: `found` is what `result` gives, or raises."""

    def __init__(self, config):
        self.config, self.found, self.cancelled = config, None, 0
        self.status = SimpleNamespace(message="Loading the model.")

    def result(self):
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def cancel(self):
        self.cancelled += 1


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A start panel whose processes are counted and never started."""
    found = SimpleNamespace(measurings=[], started=[], handed=[])
    monkeypatch.setattr(
        run_start, "start_preflight", lambda config: found.measurings.append(Measuring(config)) or found.measurings[-1]
    )
    monkeypatch.setattr(
        run_start,
        "start",
        lambda config: found.started.append(config) or fake_run(tmp_path, f"run-{len(found.started)}", total_steps=1),
    )
    found.panel = RunStart(RunConfig(), found.handed.append)
    yield found
    assert found.panel.trouble == ""


def measured(desk, result=MEASURED):
    desk.panel.start.click()
    desk.measurings[-1].found = result
    until(lambda: desk.panel._measuring is None)
    return desk.panel


def test_it_measures_first_then_asks_once_and_hands_the_run_over(desk):
    panel = desk.panel
    assert visible(panel.start)
    assert not visible(panel.confirm)
    panel.start.click()
    assert visible(panel.cancel)
    assert not visible(panel.start)
    until(lambda: "Loading the model." in panel.measured.value)
    desk.measurings[0].found = MEASURED
    until(lambda: visible(panel.confirm))
    assert not visible(panel.cancel)
    assert desk.started == []
    words = panel.measured.value.striptags()
    for part in (
        "Fits.",
        "Training takes 1 GB beside the model",
        "2 min 10 s for 120 steps",
        "2 dropped (2 too long)",
        "0.67 (n=3",
        "learning_rate 0.001 is high",
    ):
        assert part in words, part
    assert "It fits" in panel.line.value
    panel.confirm.click()
    assert desk.started == [panel.config]
    assert [run.name for run in desk.handed] == ["run-1"]
    assert "Started run-1" in panel.line.value
    assert visible(panel.start)
    assert not visible(panel.confirm)
    assert panel.measured.value == ""


@pytest.mark.parametrize(
    ("result", "tone", "words"),
    [(MEASURED, "fits", "Fits."), (TIGHT, "tight", "Tight."), (TOO_LARGE, "failed", "Does not fit.")],
)
def test_whether_it_fits_is_said_first_with_what_would_help(desk, result, tone, words):
    shown = measured(desk, result).measured.value
    assert f"swb-{tone}" in shown
    assert shown.striptags().startswith(words)
    assert ("lower training.max_tokens_per_microbatch" in shown) == (result is not MEASURED)
    assert all(shortage in shown for shortage in result.shortages)
    assert visible(desk.panel.confirm), "the decision is the user's"


def test_dpo_is_not_measured_by_a_gamma():
    assert "beyond" in preflight_notice(MEASURED)
    assert "beyond" not in preflight_notice(dataclasses.replace(MEASURED, target_lead=0.0))


def test_foreign_words_stay_words():
    hostile = dataclasses.replace(TOO_LARGE, shortages=(HOSTILE,), warnings=(HOSTILE,), dropped={HOSTILE: 1})
    shown = preflight_notice(hostile)
    assert "<img" not in shown
    assert shown.unescape().count(HOSTILE) == 3


@pytest.mark.parametrize(
    "error", [WorkbenchError(f"There is no model {HOSTILE}."), WorkbenchError("The preflight was cancelled.")]
)
def test_what_would_end_the_run_is_said_before_it_starts(desk, error):
    panel = measured(desk, error)
    assert "It does not start:" in panel.measured.value
    assert "<img" not in panel.measured.value + panel.line.value
    assert str(error) in panel.measured.value.unescape()
    assert visible(panel.start)
    assert not visible(panel.confirm)
    panel.start.click()
    assert len(desk.measurings) == 2, "it can be tried again"


def test_cancel_ends_the_measuring_and_starts_nothing(desk):
    panel = desk.panel
    panel.start.click()
    panel.cancel.click()
    panel.cancel.click()
    until(lambda: "cancelled" in panel.line.value)
    assert desk.measurings[0].cancelled == 1
    desk.measurings[0].found = MEASURED
    assert panel.measured.value == ""
    assert visible(panel.start)
    assert not visible(panel.confirm)
    assert desk.started == []


def test_other_settings_throw_an_old_measurement_away(desk):
    panel = measured(desk)
    panel.config = RunConfig(loss={"beta": 9})
    assert panel.measured.value == ""
    assert not visible(panel.confirm)
    assert "β 9" in panel.about.value
    panel.start.click()
    assert desk.measurings[1].config.loss.beta == 9
    panel.config = RunConfig(loss={"beta": 8})
    until(lambda: desk.measurings[1].cancelled == 1)
    assert visible(panel.start)
    assert panel.measured.value == ""


def test_not_now_keeps_everything_as_it_was(desk):
    panel = measured(desk)
    panel.decline.click()
    assert panel.measured.value == ""
    assert visible(panel.start)
    assert desk.started == []


def test_it_can_begin_without_measuring_also_while_it_measures(desk):
    panel = desk.panel
    panel.start.click()
    panel.skip.click()
    assert len(desk.started) == 1
    until(lambda: desk.measurings[0].cancelled == 1)
    assert visible(panel.start)


@pytest.mark.parametrize("name", ["skip", "confirm", "start"])
def test_a_double_click_is_one_click(desk, name):
    panel = measured(desk)
    if name == "start":
        panel.decline.click()
    before = len(desk.measurings)
    control = getattr(panel, name)
    control.click()
    control.click()
    assert (len(desk.started), len(desk.measurings) - before) == ((0, 1) if name == "start" else (1, 0))


def test_a_start_that_fails_is_a_sentence_and_can_be_tried_again(desk, monkeypatch):
    panel = measured(desk)
    working = run_start.start

    def refused(config):
        raise WorkbenchError("There is a run 'tiny' already.")

    monkeypatch.setattr(run_start, "start", refused)
    panel.confirm.click()
    assert "There is a run" in panel.line.value
    assert visible(panel.confirm)
    assert desk.handed == []
    monkeypatch.setattr(run_start, "start", working)
    panel.confirm.click()
    assert len(desk.handed) == 1


def test_a_measuring_that_cannot_begin_is_a_sentence(desk, monkeypatch):
    def refused(config):
        raise WorkbenchError("No space is left.")

    monkeypatch.setattr(run_start, "start_preflight", refused)
    desk.panel.start.click()
    assert "No space is left." in desk.panel.line.value
    assert visible(desk.panel.start)


def test_without_settings_it_says_where_they_come_from():
    panel = RunStart()
    assert panel.start.disabled
    assert panel.skip.disabled
    assert "1 Setup" in panel.start.tooltip
    assert "1 Setup" in panel.snapshot()
    panel.config = RunConfig(model={"name": HOSTILE})
    assert not panel.start.disabled
    assert "<img" not in panel.snapshot()


def test_a_settings_warning_is_no_warning_of_the_kernel(desk, recwarn, monkeypatch, tmp_path):
    from simpo_workbench.runs.folder import create_run
    from simpo_workbench.runs.run import Run

    monkeypatch.setattr(run_start, "start", lambda config: Run(create_run(config)))
    desk.panel.config = RunConfig(training={"learning_rate": 1e-2}, run={"root": str(tmp_path / "runs")})
    desk.panel.skip.click()
    assert len(desk.handed) == 1
    assert [str(one.message) for one in recwarn if "learning_rate" in str(one.message)] == []


def test_a_kernel_that_shows_the_workbench_loads_no_torch(tmp_path):
    fake_run(tmp_path, "one")
    program = (
        "import sys, json; from simpo_workbench.ui.workbench import Workbench, PANELS; early = set(sys.modules); made"
        f" = Workbench(root={str(tmp_path)!r}); made._repr_mimebundle_(); [made.turn_to(name) for name in PANELS];"
        " heavy = ('torch', 'transformers', 'peft', 'accelerate', 'bitsandbytes'); print(json.dumps([[name for name in"
        " heavy if name in sys.modules], [name for name in ('pandas', 'plotly') if name in early]]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [[], []]


@pytest.mark.parametrize(("name", "said"), [("taken", "There is a run 'taken'"), ("../x", "is not usable")])
def test_a_name_that_cannot_be_is_said_before_anything_is_measured(tmp_path, monkeypatch, name, said):
    fake_run(tmp_path, "taken", last_step=0)
    monkeypatch.setattr(run_start, "start_preflight", lambda config: pytest.fail("it was measured"))
    panel = RunStart(RunConfig(run={"name": name, "root": str(tmp_path)}))
    panel.start.click()
    assert said in panel.line.value.unescape()
    assert not panel.measuring


def test_what_would_start_and_what_is_known_to_ruin_it_stand_beside_the_button():
    panel = RunStart(RunConfig(training={"learning_rate": 1e-3, "max_steps": 6}, run={"name": "mine"}))
    assert "Next run:" in panel.about.value
    assert "6 steps, 8 pairs a step · learning rate 0.001, as mine" in panel.about.value
    assert "high enough to ruin the model" in panel.warned.value
    panel.config = RunConfig()
    assert panel.warned.value == ""
