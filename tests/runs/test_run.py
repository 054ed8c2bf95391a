"""Runs as users hold them: a dead run that is shown as running, or texts beside the wrong numbers, would mislead for
hours.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading

import pandas as pd
import pytest

from simpo_workbench.base import process
from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.base.files import read_json, write_json, write_jsonl
from simpo_workbench.config.run_config import RunConfig
from simpo_workbench.pairs.pairs import load_pairs
from simpo_workbench.runs import root as root_module
from simpo_workbench.runs import run as run_module
from simpo_workbench.runs.folder import END_STATES, LIVE_STATES, new_run_folder
from simpo_workbench.runs.mailbox import Inbox
from simpo_workbench.runs.root import delete_run, find_run, list_runs
from simpo_workbench.runs.run import Run, attach


def make_run(root, name="one", state="training", identity=None, config=None, **more):
    folder = new_run_folder(root, name, "stem")
    (config or RunConfig()).to_yaml(folder.config)
    write_json(
        folder.status,
        {"state": state, "step": 3, "total_steps": 10, "message": "", "owner": "worker", "process": identity, **more},
    )
    return Run(folder)


@pytest.fixture
def worker():
    """A process that stands for a worker: it lives until it is killed or its input is closed."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        yield child
        child.kill()


def set_state(run, state, **more):
    write_json(run.folder.status, {**read_json(run.folder.status), "state": state, **more})


# --- alive or dead


@pytest.mark.parametrize("state", LIVE_STATES)
def test_a_run_whose_process_lives_is_what_it_says(tmp_path, worker, state):
    run = make_run(
        tmp_path,
        state=state,
        identity=process.identify(worker.pid),
        seconds_left=64.0,
        verdict="Healthy: …",
        recommended_step=2,
    )
    status = run.status
    assert (status.state, status.alive, status.ended) == (state, True, False)
    assert (status.step, status.total_steps, status.owner) == (3, 10, "worker")
    assert (status.seconds_left, status.verdict, status.recommended_step) == (64.0, "Healthy: …", 2)
    assert repr(run) == f"Run('one', {state}, step 3 of 10)"


@pytest.mark.parametrize("state", LIVE_STATES)
def test_a_dead_process_is_never_shown_as_running(tmp_path, worker, state):
    run = make_run(tmp_path, state=state, identity=process.identify(worker.pid))
    run.folder.log.write_text("Loading the model.\nKilled: out of memory\n\n  \n")
    worker.kill()
    worker.wait()
    status = run.status
    assert (status.state, status.alive, status.ended) == ("failed", False, True)
    assert status.message.startswith(
        f"The process of this run died while it was {state}. It was killed from outside (SIGKILL)."
    )
    assert status.message.endswith("Last lines of its log: Loading the model. / Killed: out of memory")
    assert status.step == 3, "how far it came is still told"


def test_a_zombie_is_dead(tmp_path, worker):
    """A worker started by a notebook stays a zombie until the kernel asks for its exit status, which it never does."""
    run = make_run(tmp_path, identity=process.identify(worker.pid))
    assert run.status.alive
    worker.stdin.close()
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    assert (run.status.state, run.status.alive) == ("failed", False)


def test_a_stranger_with_the_same_pid_is_not_the_run(tmp_path, worker):
    identity = process.identify(worker.pid)
    run = make_run(tmp_path, identity={**identity, "start_ticks": identity["start_ticks"] - 1})
    assert run.status.state == "failed"
    assert "It left no log." in run.status.message


@pytest.mark.parametrize("state", END_STATES)
def test_an_ended_run_is_what_it_says_whether_its_process_lives_or_not(tmp_path, state):
    run = make_run(tmp_path, state=state, identity=process.identify(), message="Said at the end.")
    assert (run.status.state, run.status.alive, run.status.ended, run.status.message) == (
        state,
        False,
        True,
        "Said at the end.",
    )


def test_a_run_that_ends_between_two_looks_is_finished_and_not_failed(tmp_path, monkeypatch):
    """The status is read, then the process looked for: a run that writes "finished" and leaves in between has not
    died.
    """
    run = make_run(tmp_path, identity=process.identify())

    def ends_now(_):
        set_state(run, "finished", message="Finished.", step=10)
        return False

    monkeypatch.setattr(run_module.process, "is_alive", ends_now)
    assert (run.status.state, run.status.message, run.status.step) == ("finished", "Finished.", 10)


@pytest.mark.parametrize("content", [None, "", '{"state": "tra', "[]"])
def test_a_run_without_a_readable_status_has_failed_and_says_why(tmp_path, content):
    run = make_run(tmp_path)
    run.folder.status.unlink()
    if content is not None:
        run.folder.status.write_text(content)
    assert (run.status.state, run.status.step) == ("failed", 0)
    assert run.status.message.startswith("status.json is missing or damaged, and no process tends this run.")


@pytest.mark.parametrize("state", ["finished", "stopped", "failed", "suspended"])
def test_an_ended_run_without_a_status_is_still_what_it_was(tmp_path, state):
    run = make_run(tmp_path, state=state)
    run.folder.append_metrics({"kind": "train", "step": 7})
    run.folder.append_metrics({"kind": "event", "step": 7, "event": state, "text": "So it was."})
    run.folder.status.unlink()
    assert (run.status.state, run.status.step) == (state, 7)
    assert "So it was." in run.status.message


def test_a_copied_folder_is_not_the_run(tmp_path, worker):
    """Whoever stops the copy must not stop the original, and the copy is not shown as training."""
    run = make_run(tmp_path, identity=process.identify(worker.pid))
    write_json(run.folder.status, {**read_json(run.folder.status), "folder": run.folder.identity})
    assert run.status.alive
    shutil.copytree(run.path, tmp_path / "copy")
    status = attach("copy", tmp_path).status
    assert (status.state, status.alive) == ("failed", False)
    assert "This folder is a copy: the run's process belongs to another one." in status.message
    with pytest.raises(WorkbenchError, match="cannot be asked to stop"):
        attach("copy", tmp_path).stop(patience_s=0)
    assert worker.poll() is None


@pytest.mark.parametrize(
    ("usual_s", "silent_s", "doing", "expected"),
    [
        (1, 119, "", False),
        (1, 121, "", True),
        (60, 599, "", False),
        (60, 601, "", True),
        (1, 800, "evaluating", False),
        (1, 901, "evaluating", True),
    ],
)
def test_a_run_that_makes_no_progress_has_stalled(tmp_path, worker, usual_s, silent_s, doing, expected):
    since = process.awake_s() - silent_s
    run = make_run(
        tmp_path, identity=process.identify(worker.pid), median_step_s=usual_s, progress_awake_s=since, doing=doing
    )
    assert (run.status.stalled, run.status.alive) == (expected, True)
    assert ("Stalled: no progress for" in run.status.message) is expected


@pytest.mark.parametrize("identity", [None, "x", {}, {"pid": 1}])
def test_a_damaged_identity_is_a_dead_process(tmp_path, identity):
    assert make_run(tmp_path, identity=identity).status.state == "failed"


# --- requests and waiting


def test_requests_reach_whoever_trains(tmp_path, worker):
    run = make_run(tmp_path, identity=process.identify(worker.pid))
    run.pause()
    run.unpause()
    run.save()
    run.evaluate()
    run.stop()
    run.suspend()
    run.set(beta=4.0)
    requests = Inbox(run.path).take()
    assert [request.kind for request in requests] == ["pause", "unpause", "save", "evaluate", "stop", "suspend", "set"]
    assert requests[-1].values == {"beta": 4.0}


def test_a_request_says_how_far_it_is(tmp_path, worker):
    run, inbox = make_run(tmp_path, identity=process.identify(worker.pid)), Inbox(tmp_path / "one")
    first, second, third = run.save(), run.set(beta=3), run.pause()
    assert repr(first) == "Reply('save' of 'one': asked)"
    requests = inbox.take()
    assert first.state == "acknowledged"
    inbox.done(requests[0], "Saved the checkpoint of step 4.")
    inbox.refuse(requests[1], "loss.beta = 3 is not possible.")
    assert first.wait(1).text == "Saved the checkpoint of step 4."
    with pytest.raises(WorkbenchError, match=r"^loss.beta = 3 is not possible.$"):
        second.wait(1)
    with pytest.raises(TimeoutError, match="did not pause within 0.1 s: it is training"):
        third.wait(0.1)
    worker.kill()
    worker.wait()
    with pytest.raises(WorkbenchError, match="The run 'one' is failed and did not pause. The process of this run died"):
        third.wait(30)


def test_a_request_to_an_ended_run_is_refused(tmp_path):
    run = make_run(tmp_path, state="finished")
    with pytest.raises(WorkbenchError, match="The run 'one' is finished: it cannot be asked to stop"):
        run.stop()
    assert list(run.folder.requests.iterdir()) == []


def test_waiting_ends_with_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "_POLL_S", 0.01)
    run = make_run(tmp_path, identity=process.identify())
    timer = threading.Timer(0.1, set_state, (run, "stopped"))
    timer.start()
    assert run.wait(timeout_s=60).state == "stopped"
    timer.join()


def test_waiting_gives_up_after_its_time(tmp_path):
    run = make_run(tmp_path, identity=process.identify())
    with pytest.raises(TimeoutError, match=r"The run 'one' is still training after 0\.1 s"):
        run.wait(timeout_s=0.1)


def test_a_run_that_has_ended_is_not_waited_for(tmp_path):
    assert make_run(tmp_path, state="failed").wait(timeout_s=0).state == "failed"


def test_other_work_goes_on_while_a_cell_awaits_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "_POLL_S", 0.01)
    run = make_run(tmp_path, identity=process.identify())

    async def cell():
        async def click():
            await asyncio.sleep(0.05)
            set_state(run, "finished")  # only reached when the waiting lets others run

        status, _ = await asyncio.wait_for(asyncio.gather(run.finished(), click()), timeout=300)
        return status

    assert asyncio.run(cell()).state == "finished"


# --- tables


def test_metrics_are_one_table_of_all_records(tmp_path):
    run = make_run(tmp_path, state="finished")
    assert list(run.metrics.columns) == ["kind", "step", "time"]
    run.folder.metrics.write_text("")
    assert list(run.metrics.columns) == ["kind", "step", "time"], "a file that was just made is no reason to fail"
    run.folder.append_metrics({"kind": "eval", "step": 0, "eval/loss": 0.7})
    run.folder.append_metrics({"kind": "train", "step": 1, "loss": 0.6})
    with open(run.folder.metrics, "a") as file:
        file.write('{"kind": "tra')
    table = run.metrics
    assert list(table["kind"]) == ["eval", "train"]
    assert list(table["step"]) == [0, 1]
    assert list(table["loss"].isna()) == [True, False]
    assert [record["step"] for record in run.records] == [0, 1]


@pytest.fixture
def scored(tmp_path):
    """A run with two evaluated steps of three pairs, whose data has columns of its own."""
    run = make_run(tmp_path, state="finished")
    own = [
        {"topic": "air" if i else None, "tags": {"level": i}, "loss": f"label {i}", "mixed": i or "x"} for i in range(3)
    ]
    rows = [{"prompt": f"Question {i}?", "chosen": f"Good {i}.", "rejected": f"Bad {i}.", **own[i]} for i in range(3)]
    pairs = load_pairs(write_rows(tmp_path / "pairs.jsonl", rows))
    run.folder.write_pairs(pairs)
    for step, leads in ((0, (-0.5, 0.5, -0.1)), (10, (0.5, -0.5, 0.9))):
        numbers = pd.DataFrame(
            {"step": step, "pair_id": [pair.pair_id for pair in pairs], "chosen_avg_logp": [-1.0] * 3}
        )
        numbers["rejected_avg_logp"] = [-1.0 - lead for lead in leads]
        numbers["margin"] = [2 * lead for lead in leads]
        numbers["correct"], numbers["beyond_gamma"], numbers["loss"] = numbers["margin"] > 0, numbers["margin"] > 1, 0.5
        numbers.iloc[::-1].to_parquet(run.folder.scores(step), index=False)
    return run


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_scores_stand_beside_their_own_texts_and_the_users_columns(scored):
    table = scored.scores
    assert list(table.columns[:5]) == ["step", "pair_id", "prompt", "chosen", "rejected"]
    assert list(table["step"]) == [0, 0, 0, 10, 10, 10]
    assert list(table["prompt"]) == ["Question 2?", "Question 1?", "Question 0?"] * 2, (
        "the order of the scores, not of the texts"
    )
    assert list(table["chosen"]) == ["Good 2.", "Good 1.", "Good 0."] * 2
    assert list(table["margin"]) == pytest.approx([-0.2, 1.0, -1.0, 1.8, -1.0, 1.0])
    assert list(table["topic"][:2]) == ["air", "air"]
    assert pd.isna(table["topic"][2])
    assert list(table["tags"][:3]) == [{"level": 2}, {"level": 1}, {"level": 0}]
    assert list(table["mixed"][:3]) == ["2", "1", '"x"']
    assert list(table["loss"]) == [0.5] * 6
    assert list(table["loss_data"][:3]) == ["label 2", "label 1", "label 0"]


def test_the_scores_of_one_step_are_those_of_all_at_that_step(scored):
    whole = scored.scores
    pd.testing.assert_frame_equal(scored.scores_at(10), whole[whole["step"] == 10].reset_index(drop=True))
    with pytest.raises(WorkbenchError, match=r"The run 'one' was not evaluated at step 7; it was at \[0, 10\]"):
        scored.scores_at(7)


def test_a_run_compares_its_start_with_its_end(scored):
    joined = scored.compare().set_index("prompt")
    assert joined["flip"].to_dict() == {"Question 0?": "to right", "Question 1?": "to wrong", "Question 2?": "to right"}
    assert scored.compare(0, 0)["flip"].eq("").all()
    with pytest.raises(WorkbenchError, match=r"The run 'one' was not evaluated at step 7; it was at \[0, 10\]"):
        scored.compare(after=7)


def test_a_run_without_scores_says_when_they_come(tmp_path):
    with pytest.raises(WorkbenchError, match="The run 'one' has no scores yet: the first come before its first step"):
        _ = make_run(tmp_path).scores


def test_answers_of_all_steps_are_one_table(tmp_path):
    run = make_run(tmp_path, state="finished")
    assert list(run.generations.columns) == ["step", "prompt", "answer", "tokens", "ended", "repeated_4grams"]
    assert len(run.generations) == 0
    for step in (20, 0):
        answer = {
            "step": step,
            "prompt": "p",
            "answer": f"at {step}\u2028",
            "tokens": 3,
            "ended": True,
            "repeated_4grams": 0.0,
        }
        write_jsonl(run.folder.generations(step), [answer])
    assert list(run.generations["answer"]) == ["at 0\u2028", "at 20\u2028"]


def test_adapters_are_found_or_their_absence_is_explained(tmp_path):
    run = make_run(tmp_path, state="finished")
    with pytest.raises(WorkbenchError, match=r"has no final adapter yet \(it is finished\)"):
        _ = run.adapter
    with pytest.raises(WorkbenchError, match=r"kept no adapter at step 5; it has \[\]"):
        run.adapter_at(5)
    for step in (40, 5):
        (run.folder.checkpoint(step) / "adapter").mkdir(parents=True)
    (run.folder.checkpoints / ".step-000060.123.tmp" / "adapter").mkdir(parents=True)  # being written
    run.folder.adapter.mkdir()
    (run.folder.adapter / "adapter_config.json").write_text("{}")
    assert run.adapter == run.folder.adapter
    assert run.adapter_steps() == [5, 40]
    assert run.adapter_at(40) == run.folder.checkpoint(40) / "adapter"


def test_the_exact_configuration_comes_back(tmp_path):
    config = RunConfig().with_changes({"loss.beta": 2.5, "data.system_prompt": "Kurz, bitte."})
    run = make_run(tmp_path, config=config)
    assert run.config == config
    assert run.environment == {}
    write_json(run.folder.environment, {"torch": "2.13.0"})
    assert run.environment == {"torch": "2.13.0"}


# --- all runs


def test_a_run_is_attached_by_name_and_by_path(tmp_path):
    run = make_run(tmp_path / "runs", state="finished")
    assert attach("one", tmp_path / "runs").path == run.path
    assert attach(run.path).status.state == "finished"
    with pytest.raises(WorkbenchError, match=r"There is no run 'two' in .* \(there: one\)"):
        attach("two", tmp_path / "runs")


def test_the_list_of_runs_tells_them_apart(tmp_path):
    first = make_run(tmp_path, "first", state="finished", verdict="Healthy: …")
    first.folder.append_metrics(
        {"kind": "eval", "step": 0, "eval/rewards/accuracies": 0.4, "eval/logps/chosen_drift": 0.0}
    )
    first.folder.append_metrics(
        {"kind": "eval", "step": 10, "eval/rewards/accuracies": 0.7, "eval/logps/chosen_drift": -0.05}
    )
    second = make_run(
        tmp_path,
        "second",
        config=RunConfig().with_changes({"model.name": "x/y", "loss.beta": 10, "training.learning_rate": 1e-5}),
    )
    os.utime(first.folder.config, (1, 1))
    os.utime(second.folder.config, (2, 2))
    table = list_runs(tmp_path).set_index("name")
    assert list(table.index) == ["second", "first"], "the newest first"
    assert list(table["state"]) == ["failed", "finished"], "the process of the second is dead"
    assert list(table["model"]) == ["x/y", "demo"]
    assert list(table["beta"]) == [10, 2]
    assert list(table["learning_rate"]) == [1e-5, RunConfig().training.learning_rate]
    assert table.loc["first", ["accuracy", "chosen_drift", "verdict"]].to_list() == [0.7, -0.05, "Healthy: …"]
    assert pd.isna(table.loc["second", "accuracy"])


def test_a_finished_run_of_the_same_settings_is_found_whatever_its_name(tmp_path):
    config = RunConfig.from_dict({"run": {"root": str(tmp_path)}})
    assert find_run(config) is None
    make_run(tmp_path, "failed", "failed")
    make_run(tmp_path, "other", "finished", config=config.with_changes({"loss.beta": 4}))
    damaged = make_run(tmp_path, "damaged", "finished")
    damaged.folder.config.write_text("loss: [")
    assert find_run(config) is None
    for place, name in enumerate(("new", "old")):
        os.utime(make_run(tmp_path, name, "finished").folder.config, (10.0 - place, 10.0 - place))
    assert find_run(config.with_changes({"run.name": "anything"})).name == "new"


def test_one_damaged_run_does_not_hide_the_others(tmp_path):
    make_run(tmp_path, "good", state="finished")
    make_run(tmp_path, "edited", state="finished").folder.config.write_text("loss: {beta: [")
    make_run(tmp_path, "torn", state="finished").folder.metrics.write_text("{\n{}\n")
    make_run(tmp_path, "empty").folder.status.write_text("")
    table = list_runs(tmp_path).set_index("name")
    assert set(table.index) == {"good", "edited", "torn", "empty"}
    assert table.loc["edited", "model"] == "(configuration unreadable)"
    assert table.loc["good", "model"] == table.loc["torn", "model"] == "demo"


def test_no_runs_are_an_empty_table_with_its_columns(tmp_path):
    table = list_runs(tmp_path / "nowhere")
    assert len(table) == 0
    facts = ["name", "state", "step", "total_steps", "model", "data", "learning_rate", "beta"]
    assert list(table.columns) == [
        *facts,
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "pairs",
        "chosen_drift",
        "verdict",
        "started",
    ]


def test_the_list_tells_interval_data_and_start_and_follows_what_changes(tmp_path):
    run = make_run(tmp_path, state="finished")
    os.utime(run.folder.config, (1_000_000_000, 1_000_000_000))
    run.folder.append_metrics(
        {
            "kind": "eval",
            "step": 0,
            "eval/rewards/accuracies": 0.4,
            "eval/rewards/accuracies_low": 0.2,
            "eval/rewards/accuracies_high": 0.6,
            "eval/pairs": 24,
        }
    )
    row = list_runs(tmp_path).iloc[0]
    assert row[["accuracy", "accuracy_low", "accuracy_high", "pairs", "data"]].to_list() == [
        0.4,
        0.2,
        0.6,
        24,
        RunConfig().data.train,
    ]
    assert row["started"] == pd.Timestamp.fromtimestamp(1_000_000_000)
    run.folder.append_metrics({"kind": "train", "step": 1, "beta": 7.0})
    run.folder.append_metrics({"kind": "eval", "step": 2, "eval/rewards/accuracies": 0.9})
    row = list_runs(tmp_path).iloc[0]
    assert (row["accuracy"], row["beta"]) == (0.9, 7.0), "records that came since"


# --- deleting


def test_a_deleted_run_is_gone_with_everything_in_it_and_nothing_else_is(tmp_path):
    make_run(tmp_path / "runs", "other", state="finished")
    run = make_run(tmp_path / "runs", state="finished")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    (run.path / "checkpoints" / "elsewhere").symlink_to(precious)
    delete_run("one", tmp_path / "runs")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other"]
    assert (precious / "file").read_text() == "kept", "a link in the folder is removed, not what it leads to"


def test_a_live_run_is_not_deleted(tmp_path, worker):
    run = make_run(tmp_path, identity=process.identify(worker.pid))
    with pytest.raises(WorkbenchError, match="'one' is training and a process has it: stop it first"):
        delete_run("one", tmp_path)
    assert run.config == RunConfig()


def test_a_run_that_is_resumed_at_the_last_moment_is_not_deleted(tmp_path, worker, monkeypatch):
    run = make_run(tmp_path, state="stopped")
    rename = root_module.Path.rename

    def resumed_meanwhile(path, target):
        moved = rename(path, target)
        if target.name.startswith("."):
            set_state(Run(root_module.RunFolder(target)), "training", process=process.identify(worker.pid))
        return moved

    monkeypatch.setattr(root_module.Path, "rename", resumed_meanwhile)
    with pytest.raises(WorkbenchError, match="stop it first"):
        delete_run("one", tmp_path)
    assert run.status.state == "training"


@pytest.mark.parametrize("name", ["two", "notes", "", ".", "..", "inside/one", "../runs/one", "{root}/one"])
def test_only_a_runs_own_folder_in_the_root_is_deleted(tmp_path, name):
    root = tmp_path / "runs"
    for place, there in ((root, "one"), (root / "inside", "one"), (tmp_path, "runs-of-somebody")):
        make_run(place, there, state="finished")
    shutil.copytree(root / "one", tmp_path, dirs_exist_ok=True)  # so that ".." looks like a run
    (root / "notes").mkdir()
    (root / "notes" / "config.yaml").write_text("a: 1")  # somebody's own folder
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(WorkbenchError, match="names no run"):
        delete_run(name.format(root=root), root)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_deleted_through_a_link(tmp_path):
    run = make_run(tmp_path / "elsewhere", state="finished")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "one").symlink_to(run.path)
    with pytest.raises(WorkbenchError, match="is a link to"):
        delete_run("one", tmp_path / "runs")
    assert run.config == RunConfig()
