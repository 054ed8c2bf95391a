"""What a user would lose: the result of the recommended step on pairs that had no part in choosing it, or the truth
about it after a stop, a kill or damage.
"""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import simpo_workbench as wb
from simpo_workbench.base.files import read_json, read_jsonl
from simpo_workbench.base.patience import ONCE
from simpo_workbench.config.run_config import LossConfig
from simpo_workbench.engine import final_pairs, recorder, training
from simpo_workbench.engine.setup import prepare
from simpo_workbench.pairs.data_sets import load_data
from simpo_workbench.runs.final_result import final_result
from simpo_workbench.runs.folder import RunFolder
from simpo_workbench.runs.launch import make_clone

HALF = {"data.final_fraction": 0.5, "loss.gamma_beta_ratio": 0.05}
LOGPS = ["chosen_avg_logp", "rejected_avg_logp"]


@pytest.fixture
def half(finished_run):
    """A finished run that chose its step on 4 of its 8 held-out pairs, for reading."""
    return finished_run(HALF)


@pytest.fixture
def own_copy(half, tmp_path):
    """A copy of it that the test may change."""
    return wb.attach(shutil.copytree(half.path, tmp_path / "copy" / "half"))


def recommends(monkeypatch, *steps):
    """Let the doctor recommend these steps, one after each evaluation and at each end."""
    waiting = list(steps)
    monkeypatch.setattr(
        recorder.recommendation, "recommend", lambda records: waiting.pop(0) if len(waiting) > 1 else waiting[0]
    )


def at(scores, step):
    return scores[scores["step"] == step].set_index("pair_id")


def logged(run):
    return [record["text"] for record in run.records if record.get("event") == "final"]


def test_final_scores_are_those_of_the_recommended_adapter_and_of_the_base_model(tiny_config, monkeypatch):
    recommends(monkeypatch, 3)
    run = wb.train(tiny_config.with_changes(HALF))
    pairs = load_data(run.config.data, 0).final
    final = run.final
    assert (final.step, final.pairs, final.looks) == (3, 4, (("tiny", 3),))
    assert {pair.pair_id for pair in pairs} == set(final.scores["pair_id"])
    for step, adapter in ((0, None), (3, run.adapter_at(3))):
        with wb.load_model(run.config.model, adapter=adapter) as model:
            scored = wb.score(model, pairs, run.config.loss, run.config.data).set_index("pair_id")
        stored = at(final.scores, step).loc[scored.index]
        assert abs(stored[LOGPS] - scored[LOGPS]).to_numpy().max() < 1e-5
        assert list(stored["prompt"]) == list(scored["prompt"])
    assert abs(at(final.scores, 3)[LOGPS] - at(final.scores, 0)[LOGPS]).to_numpy().max() > 1e-3
    assert logged(run) == ["Scored 4 final pairs with the adapter of step 3."]
    assert str(final).startswith("On 4 final pairs, which had no part in choosing step 3: chosen ahead ")


def test_no_evaluation_sees_a_final_pair_and_training_is_as_without_them(half, finished_run):
    whole = finished_run({**HALF, "data.final_fraction": 0.0})
    own = [record["eval/pairs"] for record in half.records if record["kind"] == "eval"]
    assert own == [4, 4, 4]
    final = set(half.final.scores["pair_id"])
    assert len(final) == 4
    assert not final & set(half.scores["pair_id"])
    assert final | set(half.scores["pair_id"]) == set(whole.scores["pair_id"])
    assert not set(half.generations["prompt"]) & set(half.final.scores["prompt"])
    losses = [[r["loss"] for r in run.records if r["kind"] == "train"] for run in (half, whole)]
    assert losses[0] == losses[1]
    assert not (whole.path / "final").exists()
    assert str(whole.final).startswith("No final share is kept")


def test_all_of_it_is_sealed(half):
    files = wb.verify(half).set_index("file")["state"]
    last = half.final.step
    names = ["final/pairs.parquet", "final/looks.json", "final/step-000000.parquet", f"final/step-{last:06d}.parquet"]
    assert files[names].tolist() == ["whole"] * 4
    identity = read_json(half.folder.manifest)["identity"]
    assert identity["final_pairs_sha256"] == half.environment["final_pairs_sha256"]
    assert identity["final_ids_sha256"] != identity["held_out_ids_sha256"]


def test_the_models_own_adapter_comes_back_bit_for_bit(own_copy):
    setup = prepare(own_copy.config)
    try:
        own = [parameter.detach().clone() for parameter in setup.parameters]
        with final_pairs._adapter(setup, own_copy.adapter_at(3), 3):
            assert not all(map(torch.equal, own, setup.parameters))
        assert all(map(torch.equal, own, setup.parameters))
    finally:
        setup.close()


def stopped_after_four(config):
    def stop(record):
        if record["kind"] == "train" and record["step"] == 4:
            RunFolder(f"{config.run.root}/{config.run.name}").mailbox.ask("stop")

    return wb.train(config, on_record=stop)


def test_a_run_that_goes_on_scores_its_new_step_and_says_how_often_it_looked(tiny_config, monkeypatch, half):
    recommends(monkeypatch, 0, 3, 3, 6)  # at steps 0 and 3, at the stop, then at step 6 and at the end
    run = stopped_after_four(tiny_config.with_changes(HALF))
    assert run.status.state == "stopped"
    assert run.final.step == 3
    assert "trained steps by now" not in str(run.final)
    training.train_in_process(run.folder, resume=True)
    assert run.final.step == 6
    assert run.final.looks == (("tiny", 3), ("tiny", 6))
    assert "scored for 2 trained steps by now (3, 6)" in str(run.final)
    assert at(run.final.scores, 6)[LOGPS].equals(at(half.final.scores, 6)[LOGPS]), "as without the stop"


def test_a_run_that_dies_while_it_scores_them_ends_as_one_that_did_not(tiny_config, monkeypatch, half):
    config = tiny_config.with_changes(HALF)
    written = recorder.write_atomically

    def dies(path, *arguments, **more):
        if path.name == "step-000006.parquet" and path.parent.name == "final":
            raise RuntimeError("killed")
        written(path, *arguments, **more)

    monkeypatch.setattr(recorder, "write_atomically", dies)
    with pytest.raises(RuntimeError, match="killed"):
        wb.train(config)
    run = wb.attach("tiny", config.run.root)
    assert run.final.step is None
    assert str(run.final) == "Step 6 is not scored on the final pairs: that happens when a run ends in order."
    monkeypatch.setattr(recorder, "write_atomically", written)
    training.train_in_process(run.folder, resume=True)
    assert (run.status.state, run.final.looks) == ("finished", (("tiny", 6),))
    assert run.final.scores.equals(half.final.scores)
    assert set(wb.verify(run)["state"]) == {"whole"}


def test_a_run_that_begins_again_earlier_forgets_scores_but_no_look(own_copy):
    presence = SimpleNamespace(status={"step": 6}, patience=ONCE)
    recorder.Recorder(own_copy.folder, own_copy.config, presence).rewind(3)
    assert own_copy.folder.final_steps() == [0]
    assert read_json(own_copy.folder.final_looks)["looks"] == [{"run": "finished", "step": 6}]


def test_a_step_whose_adapter_is_damaged_is_not_scored_and_that_is_said(tiny_config, monkeypatch):
    recommends(monkeypatch, 3)

    def damage(record):
        if record["kind"] == "train" and record["step"] == 5:
            path = RunFolder(f"{tiny_config.run.root}/tiny").checkpoint(3) / "adapter" / "adapter_model.safetensors"
            path.write_bytes(path.read_bytes()[:-4] + b"abcd")

    run = wb.train(tiny_config.with_changes(HALF), on_record=damage)
    assert run.status.state == "finished"
    assert str(run.final).startswith("The final pairs are not scored for step 3: ")
    assert "adapter_model.safetensors" in str(run.final)
    assert run.folder.final_steps() == [0]


def test_a_clone_keeps_the_split_and_all_looks(own_copy):
    folder = make_clone(own_copy.folder, 4, {}, "later")
    assert read_json(folder.final_looks) == read_json(own_copy.folder.final_looks)
    assert folder.final_steps() == [0], "step 6 comes after the checkpoint"
    training.train_in_process(folder, resume=True)
    later = wb.attach(folder.path)
    assert set(later.final.scores["pair_id"]) == set(own_copy.final.scores["pair_id"])
    assert later.final.looks == (("finished", 6), ("later", 6))
    assert "(6 of finished, 6 of later)" in str(later.final)


def test_a_run_whose_final_pairs_changed_is_not_resumed(tiny_config, tmp_path, monkeypatch):
    lines = read_jsonl(Path(tiny_config.data.eval))
    held_out = tmp_path / "eval.jsonl"
    held_out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = tiny_config.with_changes({**HALF, "data.eval": str(held_out)})
    run = stopped_after_four(config)
    final = set(run.final.scores["prompt"]) if run.final.step else set()
    final = final or {pair.prompt_text for pair in load_data(config.data, 0).final}
    changed = [{**line, "chosen": line["chosen"] + "!"} if line["prompt"] in final else line for line in lines]
    held_out.write_text("".join(json.dumps(line) + "\n" for line in changed))
    with pytest.raises(wb.WorkbenchError, match=r"cannot go on: the final pairs changed since it was stopped"):
        training.train_in_process(run.folder, resume=True)


def test_final_numbers_are_at_the_objective_that_is_asked_for(half):
    """γ/β 5 is beyond what any pair reaches here; the stored log-probabilities stay."""
    status, records = half.status, half.records
    other = LossConfig(beta=1.0, gamma_beta_ratio=5.0)
    moved = final_result(half.folder, records, other, status, 0.0)
    assert moved.after["eval/rewards/beyond_gamma"] == 0.0
    lead = moved.scores["chosen_avg_logp"] - moved.scores["rejected_avg_logp"]
    assert abs(moved.scores["margin"] - lead).max() < 1e-9
    assert moved.scores[LOGPS].equals(half.final.scores[LOGPS])


def test_a_damaged_file_is_a_sentence(own_copy):
    path = own_copy.folder.final_scores(own_copy.final.step)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(wb.WorkbenchError, match=r"final/step-000006.parquet of the run 'half' is damaged"):
        _ = own_copy.final
    own_copy.folder.status.unlink()
    with pytest.raises(wb.WorkbenchError, match=r"final/step-000006.parquet"):
        _ = own_copy.final
