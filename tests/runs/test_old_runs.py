"""What a user would lose: runs that an earlier version wrote, to read or to resume.

tests/old_runs holds two runs of the tiny model, with replies in `answers/` and a scheduler's state in the checkpoint:
`suspended` was suspended after step 4 of 8, with half the learning rate from step 4 on; `finished` is the same run,
resumed to its end.
"""

import shutil
from pathlib import Path

import pytest
import torch

import simpo_workbench as wb
from simpo_workbench.base.files import read_json
from simpo_workbench.engine.training import train_in_process
from simpo_workbench.report.report import write_report

OLD_RUNS = Path(__file__).parents[1] / "old_runs"
LAST_STEP = {"suspended": 4, "finished": 8}
#: Keys of a step's record that do not depend on the machine's speed.
TRAINED = ("loss", "learning_rate", "grad_norm", "rewards/margins", "logps/chosen", "logps/rejected")


@pytest.fixture
def old_run(tmp_path, monkeypatch):
    """Opens an old run, in a copy whose relative paths hold."""
    shutil.copytree(OLD_RUNS, tmp_path / "runs")
    for name in ("train.jsonl", "eval.jsonl"):
        (tmp_path / "runs" / name).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return wb.attach


@pytest.mark.parametrize("name", LAST_STEP)
def test_it_opens_with_all_its_tables_and_a_report(old_run, tmp_path, name):
    run, last = old_run(name), LAST_STEP[name]
    assert (run.status.state, run.status.step, run.status.total_steps) == (name, last, 8)
    train = run.metrics.query("kind == 'train'")
    assert train["step"].tolist() == list(range(1, last + 1))
    assert train["learning_rate"].iloc[3] == pytest.approx(0.5 * 0.00933013, rel=1e-5)
    evaluated = list(range(0, last + 1, 2))
    assert sorted(set(run.scores["step"])) == evaluated
    assert run.scores.groupby("step").size().tolist() == [8] * len(evaluated)
    assert sorted(set(run.generations["step"])) == list(range(0, last + 1, 4))
    assert run.generations["right"].isna().all()
    assert run.generations["reference"].tolist() == [None] * len(run.generations)
    assert run.scoring_noise > 0
    assert len(run.compare()) == 8
    assert name in set(wb.list_runs("runs")["name"])
    report = write_report(run, tmp_path / "report.html")
    assert name in report.read_text(encoding="utf-8")


def test_a_reply_of_an_earlier_version_is_read(old_run):
    mailbox = old_run("suspended").folder.mailbox
    replies = [mailbox.reply(path.stem) for path in Path("runs/suspended/answers").glob("*.json")]
    assert {"state": "done", "text": "Evaluated after step 4.", "step": 4} in replies


def test_a_suspended_run_goes_on_as_its_own_version_did(old_run):
    wb.make_tiny_model("tiny-model")
    suspended, finished = old_run("suspended"), old_run("finished")
    train_in_process(suspended.folder, resume=True)
    assert suspended.status.state == "finished"
    for key in TRAINED:
        resumed, expected = (run.metrics.query("kind == 'train'")[key].tolist() for run in (suspended, finished))
        assert resumed == pytest.approx(expected, rel=1e-5), key
    (resumed,), (expected,) = (
        [record for record in run.records if record["kind"] == "eval" and record["step"] == 8]
        for run in (suspended, finished)
    )
    # that version's intervals of shares were others
    numbers = [key for key in expected if key.startswith("eval/") and not key.endswith(("_low", "_high"))]
    assert [resumed[key] for key in numbers] == pytest.approx([expected[key] for key in numbers], rel=1e-5, abs=1e-8)
    answers = [run.generations.query("step == 8")["answer"].tolist() for run in (suspended, finished)]
    assert answers[0] == answers[1]
    state = torch.load(suspended.folder.checkpoint(8) / "training_state.pt", weights_only=True)
    assert state["applied_updates"] == 8
    assert "scheduler" not in state
    assert read_json(suspended.folder.status)["step"] == 8


def test_its_limits_take_the_first_rows_as_they_did(old_run):
    """The configuration of a run from before has no data.limit_takes; that of a run of today names it."""
    assert old_run("suspended").config.data.limit_takes == "first"
    assert wb.RunConfig().data.limit_takes == "sample"
