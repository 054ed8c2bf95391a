"""Runs as users hold them: texts beside the wrong numbers would mislead for hours."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from bare_run import make_run, set_state

from simpo_workbench.base import process
from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.base.files import write_json, write_jsonl
from simpo_workbench.config.run_config import RunConfig
from simpo_workbench.pairs.pairs import load_pairs
from simpo_workbench.runs import run as run_module
from simpo_workbench.runs.mailbox import Inbox
from simpo_workbench.runs.run import attach

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

    with ThreadPoolExecutor(1) as elsewhere:  # a browser test leaves this thread with a running event loop
        assert elsewhere.submit(asyncio.run, cell()).result().state == "finished"


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
    run.folder.write_pairs(pairs, run.folder.pairs)
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
    columns = ["step", "prompt", "answer", "tokens", "ended", "repeated_4grams", "right", "reference"]
    assert list(run.generations.columns) == columns
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


def test_a_run_is_attached_by_name_and_by_path(tmp_path):
    run = make_run(tmp_path / "runs", state="finished")
    assert attach("one", tmp_path / "runs").path == run.path
    assert attach(run.path).status.state == "finished"
    with pytest.raises(WorkbenchError, match=r"There is no run 'two' in .* \(there: one\)"):
        attach("two", tmp_path / "runs")
