"""What a user would lose: a run that goes on with another model, other pairs or another day under its old name."""

import datetime
import json
import shutil
import time
from pathlib import Path

import pytest
import tiny
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import simpo_workbench as wb
from simpo_workbench.base import hashes
from simpo_workbench.base.files import read_json, write_json
from simpo_workbench.engine import training
from simpo_workbench.engine.encode import chat_template
from simpo_workbench.runs.folder import RunFolder, create_run
from simpo_workbench.runs.manifest import Manifest

DATED = "{{ '<|im_start|>system\nToday is ' + strftime_now('%d %B %Y') + '<|im_end|>\n' }}" + tiny.CHATML
#: Files that tell how a process fared, and nothing of the run's results.
OF_THE_PROCESS = ("status.json", "log.txt", "heartbeat.json", "lock")


def stopped_after_two(config):
    def stop(record):
        if record["kind"] == "train" and record["step"] == 2:
            RunFolder(f"{config.run.root}/{config.run.name}").mailbox.ask("stop")

    return wb.train(config, on_record=stop)


class Place:
    """Runs stopped after two of six steps, with all that they were trained on; `put_back` makes all of it anew."""

    def __init__(self, folder, settings):
        self.whole, self.folder = folder / "whole", folder / "place"
        self.folder.mkdir()
        model, adapter, pairs = self.folder / "model", self.folder / "adapter", self.folder / "pairs.jsonl"
        tiny.save(model)
        pairs.write_text(Path(settings["data"]["train"]).read_text())
        (self.folder / "held-out.jsonl").write_text(Path(settings["data"]["eval"]).read_text())
        (self.folder / "dated.jinja").write_text(DATED)
        data = {"data.train": str(pairs), "data.eval": str(self.folder / "held-out.jsonl")}
        config = wb.RunConfig.from_dict(settings, {"run.root": str(self.folder / "runs"), "model.name": str(model)})
        first = wb.train(config.with_changes({"run.name": "first", "training.max_steps": 1, **data}))
        shutil.copytree(first.adapter, adapter)
        shutil.rmtree(first.path)
        stopped_after_two(config.with_changes({"run.name": "plain", **data}))
        more = {"model.adapter": str(adapter), "data.chat_template": str(self.folder / "dated.jinja")}
        stopped_after_two(config.with_changes({"run.name": "dated", **data, **more}))
        shutil.copytree(self.folder, self.whole)

    def put_back(self):
        shutil.rmtree(self.folder)
        shutil.copytree(self.whole, self.folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_settings):
    return Place(tmp_path_factory.mktemp("resume"), tiny_settings)


def edit_json(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def drop_merges(values):
    values["model"]["merges"] = values["model"]["merges"][:20]


def swap_ids(values):
    vocab = values["model"]["vocab"]
    vocab["e"], vocab["o"] = vocab["o"], vocab["e"]


def change_text(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def longer_header(path):
    """The same tensors behind a header with more white space: another size, the same numbers."""
    content = path.read_bytes()
    count = int.from_bytes(content[:8], "little")
    path.write_bytes((count + 8).to_bytes(8, "little") + content[8 : 8 + count] + b" " * 8 + content[8 + count :])


def other_order(path):
    """Another header of the same size: the names of two tensors of one shape change places."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    one, other = (f"model.layers.0.self_attn.{name}_proj.weight" for name in ("k", "v"))
    size = path.stat().st_size
    save_file(tensors | {one: tensors[other], other: tensors[one]}, path, metadata)
    assert path.stat().st_size == size


#: name -> (run, change of what lies in the place, what the refusal names)
CHANGES = {
    "merges": (
        "plain",
        lambda at: edit_json(at / "model/tokenizer.json", drop_merges),
        "token ids of the training pairs",
    ),
    "vocabulary": (
        "plain",
        lambda at: edit_json(at / "model/tokenizer.json", swap_ids),
        "token ids of the held-out pairs",
    ),
    "the model's template": (
        "plain",
        lambda at: change_text(at / "model/chat_template.jinja", "{% for m", "{# a comment #}{% for m"),
        "the chat template",
    ),
    "a template's file": (
        "dated",
        lambda at: change_text(at / "dated.jinja", "Today is", "It is"),
        "the chat template",
    ),
    "starting adapter": (
        "dated",
        lambda at: flip(at / "adapter/adapter_model.safetensors", -4),
        "adapter that it began with",
    ),
    "weights' header": ("plain", lambda at: other_order(at / "model/model.safetensors"), "weights of the base model"),
    "weights' size": ("plain", lambda at: longer_header(at / "model/model.safetensors"), "weights of the base model"),
    "weights' last page": ("plain", lambda at: flip(at / "model/model.safetensors", -4), "weights of the base model"),
    "training pairs": (
        "plain",
        lambda at: change_text(at / "pairs.jsonl", "seven", "eleven"),
        "the training pairs changed",
    ),
    "held-out pairs": (
        "plain",
        lambda at: change_text(at / "held-out.jsonl", "seven", "eleven"),
        "the held-out pairs changed",
    ),
    "configuration": (
        "plain",
        lambda at: change_text(at / "runs/plain/config.yaml", "learning_rate: 0.01", "learning_rate: 0.02"),
        "its configuration changed",
    ),
}
MISSING = {
    "nothing": (),
    "environment.json": ("environment.json",),
    "pairs.parquet": ("pairs.parquet",),
    "scores and answers": ("scores", "generations"),
    "all of these": ("environment.json", "pairs.parquet", "scores", "generations", "heartbeat.json", "status.json"),
}


def remove(folder, names):
    for name in names:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in OF_THE_PROCESS and path.parent.name != "replies"
    }


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("change", CHANGES)
def test_a_resume_with_something_else_is_refused_in_words_and_harms_nothing(place, change, missing):
    place.put_back()
    name, do, words = CHANGES[change]
    run = wb.attach(name, place.folder / "runs")
    remove(run.path, MISSING[missing])
    do(place.folder)
    before, files = run.status, contents(run.path)
    with pytest.raises(wb.WorkbenchError, match=f"The run '{name}' cannot go on: .*{words}.* since it was stopped"):
        training.train_in_process(run.folder, resume=True)
    assert contents(run.path) == files
    after = run.status
    assert (after.state, after.step, after.total_steps) == (before.state, before.step, before.total_steps)
    assert words in after.message
    assert after.recommended_step == before.recommended_step


@pytest.mark.parametrize("change", ["merges", "starting adapter", "weights' header", "training pairs"])
def test_without_its_records_a_run_does_not_go_on_at_all(place, change):
    place.put_back()
    name, do, _ = CHANGES[change]
    run = wb.attach(name, place.folder / "runs")
    do(place.folder)
    remove(run.path, ["metrics.jsonl"])
    state, files = run.status.state, contents(run.path)
    with pytest.raises(wb.WorkbenchError, match=f"metrics.jsonl of the run '{name}' is lost"):
        training.train_in_process(run.folder, resume=True)
    assert contents(run.path) == files
    assert (run.status.state, "is lost" in run.status.message) == (state, True)


@pytest.mark.parametrize("change", ["training pairs", "weights' header"])
def test_a_worker_that_is_refused_leaves_the_run_as_it_was(place, change):
    place.put_back()
    name, do, words = CHANGES[change]
    run = wb.attach(name, place.folder / "runs")
    state, files = run.status.state, contents(run.path)
    do(place.folder)
    status = wb.resume(name, place.folder / "runs").wait(120)
    assert (status.state, status.step) == (state, 2)
    assert words in status.message
    assert contents(run.path) == files
    place_of = {path.relative_to(place.whole): path for path in (place.whole / "model").iterdir()}
    for relative, path in place_of.items():
        shutil.copy2(path, place.folder / relative)
    shutil.copy2(place.whole / "pairs.jsonl", place.folder / "pairs.jsonl")
    assert wb.resume(name, place.folder / "runs").wait(120).state == "finished", "put back, it goes on"
    while run.folder.is_held():  # its process still ends
        time.sleep(0.05)


def test_a_changed_page_of_large_weights_is_noticed_and_all_of_them_by_a_full_check(
    tiny_settings, tmp_path, monkeypatch
):
    """A fingerprint of large weights reads their header and some pages; what lies between is seen by `full`."""
    for name, value in {"WHOLE_BYTES": 1000, "_PAGES": 3, "_PAGE_BYTES": 16}.items():
        monkeypatch.setattr(hashes, name, value)
    model = Path(tiny.save(tmp_path / "model"))
    config = wb.RunConfig.from_dict(tiny_settings, {"run.root": str(tmp_path), "model.name": str(model)})
    run = stopped_after_two(config.with_changes({"run.name": "large"}))
    assert set(wb.verify(run, full=True)["state"]) == {"whole"}
    weights = model / "model.safetensors"
    flip(weights, -4)
    with pytest.raises(wb.WorkbenchError, match="the weights of the base model changed since it was stopped"):
        training.train_in_process(run.folder, resume=True)
    flip(weights, -4)
    flip(weights, weights.stat().st_size * 3 // 4)
    states = wb.verify(run, full=True).set_index("file")["state"]
    assert states[f"base model: {weights}"] == "damaged"


def test_a_frozen_value_is_the_manifests_own_and_another_one_is_refused(place):
    """environment.json holds a copy for readers; a manifest that says another day makes other ids."""
    place.put_back()
    run = wb.attach("dated", place.folder / "runs")
    kept = Manifest.read(run.path).identity["frozen"]
    environment = read_json(run.folder.environment)
    write_json(run.folder.environment, environment | {"frozen": kept | {"template_time": "2020-01-01T00:00:00"}})
    training.train_in_process(run.folder, resume=True)
    assert run.environment["frozen"] == kept
    assert run.status.state == "finished"

    for changed in ({"template_time": "2020-01-01T00:00:00", "thinking": None}, {}, None):
        place.put_back()
        Manifest.to_write(run.path).seal(frozen=changed)
        files = contents(run.path)
        with pytest.raises(wb.WorkbenchError, match="cannot go on: .*the values that its template is given"):
            training.train_in_process(run.folder, resume=True)
        assert contents(run.path) == files


def test_a_run_whose_manifest_is_lost_says_what_could_not_be_compared(place):
    place.put_back()
    run = wb.attach("plain", place.folder / "runs")
    run.folder.manifest.unlink()
    training.train_in_process(run.folder, resume=True)
    resumed = next(record["text"] for record in run.records if record.get("event") == "resumed")
    assert "Its manifest is lost: only the hashes of settings and pairs in environment.json were compared" in resumed


def test_a_run_that_never_stepped_keeps_what_it_was_sealed_with(place, monkeypatch):
    """Its process died before the first scores: what it would train on is sealed already."""
    place.put_back()
    config = wb.attach("plain", place.folder / "runs").config.with_changes({"run.name": "early"})
    monkeypatch.setattr(training, "_evaluate", lambda *_: (_ for _ in ()).throw(wb.WorkbenchError("No memory.")))
    with pytest.raises(wb.WorkbenchError, match="No memory"):
        training.train_in_process(create_run(config))  # as in a worker, whose folder stays
    monkeypatch.undo()
    CHANGES["training pairs"][1](place.folder)
    run = wb.attach("early", place.folder / "runs")
    with pytest.raises(wb.WorkbenchError, match="'early' cannot go on: the training pairs changed"):
        training.train_in_process(run.folder, resume=True)


class Tomorrow(datetime.datetime):
    """A clock that is a day ahead."""

    @classmethod
    def now(cls, zone=None):
        return super().now(zone) + datetime.timedelta(days=1)


def test_a_run_resumed_on_another_day_keeps_its_day(place, monkeypatch):
    place.put_back()
    run = wb.attach("dated", place.folder / "runs")
    before = Manifest.read(run.path).identity
    assert before["frozen"]["template_time"]
    monkeypatch.setattr(chat_template, "datetime", Tomorrow)
    training.train_in_process(run.folder, resume=True)
    after = Manifest.read(run.path).identity
    assert after == before
    assert run.status.state == "finished"
