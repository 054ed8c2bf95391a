"""What a user would lose: the same numbers tomorrow, where a chat template writes today's date (as Llama 3 does)."""

import os

import pandas as pd
import pytest
import tiny

import simpo_workbench as wb
from simpo_workbench.report.report import report_html
from simpo_workbench.runs.manifest import Manifest
from simpo_workbench.ui.parts.model_requests import OPEN_MODELS

DATED = "{{ '<|im_start|>system\nToday is ' + strftime_now('%d %B %Y') + '<|im_end|>\n' }}" + tiny.CHATML
#: Python runs this file before anything else: what chat templates take for today is then DAYS ahead. Only that module's
#: clock is changed, because torch does not survive another datetime.
CLOCK = """
import datetime, importlib.machinery, os, sys

class Later(datetime.datetime):
    @classmethod
    def now(cls, zone=None):
        return super().now(zone) + datetime.timedelta(days=int(os.environ["DAYS"]))

class Clock:
    def find_spec(self, name, path=None, target=None):
        if name != "simpo_workbench.engine.encode.chat_template":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def changed(module):
            execute(module)
            module.datetime = Later
        spec.loader.exec_module = changed
        return spec

sys.meta_path.insert(0, Clock())
"""


@pytest.fixture
def days(tmp_path, monkeypatch):
    """A function that sets the day, counted from today, for processes that begin after it."""
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(CLOCK)
    path = f"{tmp_path / 'clock'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    monkeypatch.setenv("PYTHONPATH", path)

    def set_day(number):
        monkeypatch.setenv("DAYS", str(number))

    return set_day


def stopped_after_one(run):
    run.pause()
    while run.status.state != "paused":
        assert run.status.alive, run.status
    run.stop().wait(60)
    assert run.wait(60).state == "stopped"


def test_a_run_keeps_the_day_it_began_on_and_all_that_read_it_do(tiny_config, tmp_path, days):
    days(400)
    (tmp_path / "dated.jinja").write_text(DATED)
    config = tiny_config.with_changes({"data.chat_template": str(tmp_path / "dated.jinja"), "training.max_steps": 40})
    run = wb.start(config)
    stopped_after_one(run)
    before = Manifest.read(run.path).identity
    began = pd.Timestamp(before["frozen"]["template_time"])
    assert began > pd.Timestamp.now() + pd.Timedelta(days=399), "the worker believed in the day it was given"

    days(500)
    assert wb.resume("tiny", config.run.root).wait(240).state == "finished", run.status.message
    after = Manifest.read(run.path).identity
    assert after == before
    assert run.environment["frozen"] == before["frozen"]
    assert set(wb.verify(run)["state"]) == {"whole"}
    assert f"{run.status.step} of {run.status.total_steps}" in report_html(run) or run.status.step == 40

    # today, in this process and in others, and where only the manifest still tells the day
    days(0)
    pairs = wb.load_pairs(config.data.eval)
    expected = run.scores_at(40).set_index("pair_id")["chosen_avg_logp"]
    text = f"Today is {began:%d %B %Y}"
    for missing in ((), (run.folder.environment,)):
        for path in missing:
            path.unlink()
        with wb.load_model(config.model, adapter=run.adapter, data=config.data) as model:
            assert_same(wb.score(model, pairs, data=config.data), expected)
            assert text in shown(wb.encode_pair(model, tiny.rows(1)[0], config.data))
            here = wb.generate(model, ["Say red"], config.generation, config.data)
        with wb.open_model(run) as model:
            assert_same(model.score(pairs), expected)
            assert list(model.generate(["Say red"], config.generation)["tuned"]) == list(here["tuned"])
        with OPEN_MODELS.of_run(run, 0) as base:
            first = run.scores_at(0).set_index("pair_id")["chosen_avg_logp"]
            assert_same(base.score(pairs), first)
        with wb.open_model(config.model, data=config.data, tokens_only=True, run=run) as tokens:
            assert text in shown(tokens.encode_pair(tiny.rows(1)[0]))

    run.folder.manifest.unlink()
    with pytest.raises(wb.WorkbenchError, match="environment.json of the run 'tiny' .* the day that the run's chat"):
        wb.load_model(config.model, adapter=run.adapter, data=config.data)


def assert_same(scores, expected):
    found = scores.set_index("pair_id")["chosen_avg_logp"]
    pd.testing.assert_series_equal(found.sort_index(), expected.sort_index(), rtol=1e-4)


def shown(table):
    """The text of the first answer's conversation, from its tokens."""
    return "".join(table[table["side"] == table["side"].iloc[0]]["token"]).replace("Ġ", " ")
