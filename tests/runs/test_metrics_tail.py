"""What a user would lose: points that a panel leaves out, draws twice, or keeps from a past that was taken back."""

import io
import json
import math

import pandas as pd
import pytest
from fake_run import evaluation_record, fake_run, scores, train_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simpo_workbench.base.files import write_jsonl
from simpo_workbench.runs import metrics_tail
from simpo_workbench.runs.metrics_tail import MetricsTail


def line(record):
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()


def as_kinds(frame):
    """The rows of a frame, the kinds one after the other as a tail has them, without columns that hold nothing."""
    order = frame["kind"].map({"train": 0, "eval": 1, "event": 2})
    found = (
        frame.assign(_order=order).sort_values("_order", kind="stable").drop(columns="_order").reset_index(drop=True)
    )
    return found.dropna(axis=1, how="all")


def assert_same(tail, run):
    pd.testing.assert_frame_equal(as_kinds(tail.frame()), as_kinds(run.metrics), check_dtype=False, check_like=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return fake_run(tmp_path_factory.mktemp("runs"), total_steps=60)


def test_a_whole_file_is_what_run_metrics_says(finished):
    tail = MetricsTail(finished.folder.metrics)
    new = tail.read()
    assert new == finished.records
    assert tail.steps == 60
    assert tail.last_measured["step"] == 60
    assert tail.column("loss") == [record["loss"] for record in new if record["kind"] == "train"]
    assert [record["step"] for record in tail.evaluations] == [0, 20, 40, 60]
    assert tail.events[0]["event"] == "paused"
    assert_same(tail, finished)
    assert tail.read() == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 10**6), max_size=12))
def test_however_the_file_grows_between_two_looks_the_content_is_the_same(finished, tmp_path, cuts):
    """Reads end anywhere: within a line, within a letter of two bytes, at the end of a line."""
    content = finished.folder.metrics.read_bytes()
    path = tmp_path / "metrics.jsonl"
    path.unlink(missing_ok=True)
    tail, read = MetricsTail(path), []
    with open(path, "ab", buffering=0) as file:
        for start, end in zip(
            [0, *(places := sorted(cut % len(content) for cut in cuts))], [*places, len(content)], strict=True
        ):
            file.write(content[start:end])
            read += tail.read()
    assert read == finished.records
    assert tail.damaged_lines == 0
    assert_same(tail, finished)


metric = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**9), 10**9)
records = st.lists(
    st.one_of(
        st.dictionaries(st.sampled_from(["loss", "grad_norm", "beta", "é/ü"]), metric).map(
            lambda values: {"kind": "train", **values}
        ),
        st.dictionaries(st.sampled_from(["eval/loss", "eval/pairs"]), metric).map(
            lambda values: {"kind": "eval", **values}
        ),
        st.text(max_size=20).map(lambda text: {"kind": "event", "event": "note", "text": text}),
    ),
    max_size=25,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=records, every=st.integers(1, 5))
def test_records_that_lack_metrics_or_bring_new_ones_fall_into_the_right_rows(tmp_path, records, every):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"")
    tail, numbered = MetricsTail(path), [{**record, "step": step} for step, record in enumerate(records)]
    for start in range(0, len(numbered), every):
        with open(path, "ab") as file:
            file.writelines(line(record) for record in numbered[start : start + every])
        assert tail.read() == numbered[start : start + every]
    frame = tail.frame()
    assert len(frame) == len(numbered)
    for row in frame.to_dict("records"):
        record = numbered[int(row["step"])]
        assert {name: value for name, value in row.items() if value == value} == record


def test_a_line_that_is_only_half_there_waits(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole = line(train_record(1, 10)) + line(train_record(2, 10))
    path.write_bytes(whole[:-1])
    tail = MetricsTail(path)
    assert [record["step"] for record in tail.read()] == [1]
    path.write_bytes(whole)
    assert [record["step"] for record in tail.read()] == [2]
    assert tail.damaged_lines == 0


def test_no_file_yet_is_no_record_yet(tmp_path):
    tail = MetricsTail(tmp_path / "metrics.jsonl")
    assert tail.read() == []
    assert tail.frame().empty
    assert list(tail.frame().columns) == ["kind", "step"]
    tail.path.write_bytes(line(train_record(1, 10)))
    assert len(tail.read()) == 1


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path):
    run = fake_run(tmp_path, total_steps=60)
    tail = MetricsTail(run.folder.metrics)
    tail.read()
    kept = [record for record in run.records if record["step"] <= 30]
    write_jsonl(run.folder.metrics, kept)
    assert tail.read() == kept
    assert (tail.steps, tail.last_measured["step"], len(tail.evaluations)) == (30, 30, 2)
    assert_same(tail, run)


def test_a_file_that_was_rewritten_in_its_place_is_read_again(tmp_path):
    """Also one that is no shorter than what was read, as an editor leaves it: the same file to the system, other
    records.
    """
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(line({"kind": "train", "step": step, "loss": 0.5}) for step in range(1, 4)))
    tail = MetricsTail(path)
    tail.read()
    path.write_bytes(b"".join(line({"kind": "train", "step": step, "loss": 0.25}) for step in range(1, 6)))
    assert len(tail.read()) == 5
    assert tail.column("loss") == [0.25] * 5
    path.write_bytes(line({"kind": "train", "step": 1, "loss": 1.0}))
    assert len(tail.read()) == 1
    assert tail.column("loss") == [1.0]


def test_damaged_lines_are_counted_and_the_rest_is_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    good = [line(train_record(step, 10)) for step in (1, 2, 3)]
    deep = b"[" * 100_000 + b"\n"
    path.write_bytes(
        good[0]
        + b'{"kind": "train", "ste\x00\xff\n'
        + good[1]
        + deep
        + b"7\n"
        + b'{"kind": "train", "step": "two"}\n'
        + b'{"kind": "eval"}\n'
        + good[2]
    )
    tail = MetricsTail(path)
    assert [record["step"] for record in tail.read()] == [1, 2, 3]
    assert tail.damaged_lines == 5
    assert tail.frame()["step"].tolist() == [1, 2, 3]


def test_a_value_that_is_no_number_leaves_a_gap_and_moves_nothing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    values = [0.5, True, "high", None, [1], {"a": 1}, math.inf, 10**400, 0.25]
    path.write_bytes(
        b"".join(line({"kind": "train", "step": step, "loss": value}) for step, value in enumerate(values))
    )
    tail = MetricsTail(path)
    assert len(tail.read()) == len(values)
    assert tail.points("loss") == [(0, 0.5), (8, 0.25)]
    frame = tail.frame()
    assert frame["loss"].dtype == float
    assert frame.loc[frame["loss"].notna(), "step"].tolist() == [0, 8]


def test_a_metric_that_nobody_recorded_is_an_empty_column(finished):
    tail = MetricsTail(finished.folder.metrics)
    tail.read()
    assert tail.column("no such") == []
    assert tail.points("no such") == []


def test_ten_thousand_steps_are_read_once_and_then_only_what_is_new(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    evaluation = line(evaluation_record(0, scores(0, 1, 8), [], None))
    path.write_bytes(evaluation + b"".join(line(train_record(step, 10_000)) for step in range(1, 10_001)))
    lengths = []

    class CountedFile(io.FileIO):
        def read(self, size=-1):
            content = super().read(size)
            lengths.append(len(content))
            return content

    monkeypatch.setattr(metrics_tail, "open", CountedFile, raising=False)
    tail = MetricsTail(path)
    tail.read()
    assert sum(lengths) == path.stat().st_size
    assert tail.steps == 10_000
    assert len(tail.frame()) == 10_001
    with open(path, "ab") as file:
        file.write(line(train_record(10_001, 10_001)))
    lengths.clear()
    assert len(tail.read()) == 1
    assert sum(lengths) == len(line(train_record(10_000, 10_000))) + len(line(train_record(10_001, 10_001)))
    assert tail.column("loss")[-1] == train_record(10_001, 10_001)["loss"]
