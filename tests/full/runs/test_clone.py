"""What a user would lose: the way back from a run that went wrong."""

import shutil

import pytest
import torch

import simpo_workbench as wb
from simpo_workbench.runs.folder import RunFolder


def test_what_a_clone_changes_really_changes(tiny_config):
    """The checkpoint's optimizer, its memory plan and earlier changes on the way all hold older values."""
    box = RunFolder(f"{tiny_config.run.root}/tiny").mailbox

    def ask(record):
        if record["kind"] == "train" and record["step"] == 1:
            box.ask("set", beta=4.0, learning_rate_scale=0.5)

    wb.train(
        tiny_config.with_changes(
            {"training.keep_checkpoints": 5, "training.scheduler": "constant", "training.warmup_ratio": 0.0}
        ),
        on_record=ask,
    )
    changes = {"training.weight_decay": 0.3, "loss.beta": 6.0, "training.max_tokens_per_microbatch": 64}
    clone = wb.clone("tiny", tiny_config.run.root, step=4, changes=changes, new_name="changed")
    assert clone.wait(120).state == "finished", clone.status
    last = [record for record in clone.records if record["kind"] == "train"][-1]
    assert last["beta"] == 6.0
    assert last["learning_rate"] == pytest.approx(
        0.5 * tiny_config.training.learning_rate
    )  # not changed by the clone: it stays
    assert clone.environment["max_tokens_per_microbatch"] == 64
    state = torch.load(clone.folder.checkpoint(6) / "training_state.pt", weights_only=True)
    assert {group["weight_decay"] for group in state["optimizer"]["param_groups"]} == {0.3}


def test_a_clone_goes_on_with_the_same_pairs_or_not_at_all(tiny_config, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    shutil.copy(tiny_config.data.train, pairs)
    wb.train(tiny_config.with_changes({"data.train": str(pairs), "training.keep_checkpoints": 5}))
    pairs.write_text(pairs.read_text().replace("Say", "Tell"))
    clone = wb.clone("tiny", tiny_config.run.root, step=4)
    assert "cannot go on: the training pairs changed" in clone.wait(120).message
