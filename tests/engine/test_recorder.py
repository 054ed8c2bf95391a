"""What a user would lose: the knowledge of what a run does now, and a disk that is not written to without need."""

import json

import pytest

import simpo_workbench as wb
from simpo_workbench.base.patience import Patience
from simpo_workbench.engine import recorder as recorder_module
from simpo_workbench.engine.recorder import Recorder


class Presence:
    """The status of a run in memory, with everything that was written."""

    def __init__(self):
        self.status, self.written = {"step": 0, "total_steps": 6}, []
        self.patience = Patience(0.5)

    def write(self, **changes):
        self.status |= changes
        self.written.append(changes)


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(recorder_module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def recorder(tmp_path):
    from simpo_workbench.runs.folder import RunFolder

    return Recorder(RunFolder(tmp_path), wb.RunConfig(), Presence())


def test_progress_is_written_at_most_twice_a_second_with_the_time_left_by_its_pace(recorder, clock):
    words, told = "answering {} of {} prompts", []
    recorder.on_record = told.append
    for seconds, done in ((0, 0), (0.1, 1), (0.3, 2), (0.5, 3), (2.5, 4), (2.6, 5), (5.0, 12), (6.0, 24)):
        clock[0] = 1000.0 + seconds
        recorder.progress(words, done, 24)
    expected = [
        "answering 0 of 24 prompts",
        "answering 3 of 24 prompts",
        "answering 4 of 24 prompts",
        "answering 12 of 24 prompts, 5 s left",  # 5 s for one half
        "answering 24 of 24 prompts",
    ]
    assert [change["doing"] for change in recorder.presence.written] == expected
    assert told == [{"kind": "progress", "step": 0, "text": text} for text in expected]


def test_another_activity_and_the_same_one_anew_are_written_at_once_and_have_their_own_pace(recorder, clock):
    for words, done in (("scoring {} of {} pairs", 0), ("scoring {} of {} pairs", 1)):
        recorder.progress(words, done, 4)
    clock[0] += 100
    recorder.progress("answering {} of {} prompts", 0, 4)
    recorder.progress("scoring {} of {} pairs", 3, 4)
    recorder.progress("scoring {} of {} pairs", 1, 4)  # DPO scores all pairs a second time
    clock[0] += 4
    recorder.progress("scoring {} of {} pairs", 2, 4)
    recorder.doing("")
    assert [change["doing"] for change in recorder.presence.written] == [
        "scoring 0 of 4 pairs",
        "answering 0 of 4 prompts",
        "scoring 3 of 4 pairs",
        "scoring 1 of 4 pairs",
        "scoring 2 of 4 pairs, 4 s left",
        "",
    ]


def test_a_run_says_what_it_does_from_its_start_on_and_records_none_of_it(tiny_config, monkeypatch):
    monkeypatch.setattr(recorder_module, "PROGRESS_EVERY_S", 0.0)
    told, shown = [], set()

    def listen(record):
        told.append(record)
        if record["kind"] == "progress":
            status = wb.attach("tiny", tiny_config.run.root).status
            assert status.doing == record["text"], "what the panel and `show` read"
            shown.add(status.state)

    run = wb.train(tiny_config, on_record=listen)
    kinds = [record["kind"] for record in told]
    texts = [record["text"] for record in told if record["kind"] == "progress"]
    before_scoring = [text for text in texts[: texts.index("scoring 0 of 8 pairs")] if text]
    assert before_scoring == [
        *("reading the pairs", "loading the model", "encoding the pairs", "measuring the memory that a step takes"),
        "evaluating",
    ]
    for text in ("scoring 8 of 8 pairs", "answering 0 of 3 prompts", "answering 3 of 3 prompts"):
        assert texts.count(text) == 3, "at steps 0, 3 and 6"
    assert texts.count("scoring 8 of 8 pairs again, for the noise of scoring") == 1
    assert texts[-1] == ""
    assert shown == {"loading", "scoring", "training"}
    assert run.status.doing == ""
    first = [kinds.index(kind) for kind in ("scores", "eval")]
    between = [record.get("text", "") for record in told[first[0] : first[1]]]
    assert "answering 0 of 3 prompts" in between, "the scores are told before the answers are sampled"
    evaluation = told[first[1]]
    assert {**told[first[0]], "kind": "eval"}.items() <= evaluation.items()
    recorded = [json.loads(line)["kind"] for line in run.folder.metrics.read_text().splitlines()]
    assert set(recorded) <= {"train", "eval", "event"}


def test_a_listener_that_stops_a_run_while_it_answers_stops_it(tiny_config):
    def listen(record):
        if record["kind"] == "progress" and record["text"].startswith("answering"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wb.train(tiny_config, on_record=listen)
    status = wb.attach("tiny", tiny_config.run.root).status
    assert (status.state, status.doing) == ("stopped", "")
