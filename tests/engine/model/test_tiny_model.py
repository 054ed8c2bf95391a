"""What a user would lose: something to try a pipeline on without a download, that behaves like a model."""

import math
from pathlib import Path

import pytest
import torch

import simpo_workbench as wb


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return wb.make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def loaded(folder, load_in="fp32"):
    return wb.load_model(wb.ModelConfig(name=folder, load_in=load_in))


def test_it_is_tiny_and_always_the_same(folder, tmp_path):
    torch.manual_seed(1)
    other = wb.make_tiny_model(str(tmp_path / "other"))
    assert isinstance(other, str)
    assert sum(file.stat().st_size for file in Path(folder).iterdir()) < 2_000_000
    with loaded(folder) as first, loaded(other) as second:
        assert 100_000 < sum(parameter.numel() for parameter in first.model.parameters()) < 500_000
        for name, weights in first.model.state_dict().items():
            assert torch.equal(weights, second.model.state_dict()[name]), name


def test_the_callers_random_numbers_go_on_as_if_nothing_had_happened(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    wb.make_tiny_model(tmp_path / "model")
    assert torch.equal(torch.rand(3), expected)


def test_every_text_survives_its_tokens_and_no_token_is_unknown(folder):
    text = "Zoë said:\n\t“naïve” 🌱 " + "".join(chr(code) for code in range(32, 127))
    with loaded(folder) as model:
        ids = model.tokenizer(text)["input_ids"]
        assert len(ids) == len(text.encode())  # one a byte
        assert model.tokenizer.decode(ids) == text


def test_turns_are_chatml_and_end_with_the_token_that_ends_an_answer(folder):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    with loaded(folder) as model:
        assert (
            model.tokenizer.apply_chat_template(turns, tokenize=False)
            == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
        )
        pair = wb.encode_pair(model, {"prompt": "Hi", "chosen": "Yes", "rejected": "No"})
        assert model.tokenizer.eos_token == "<|im_end|>"
    scored = pair[pair["scored"]]
    assert {side: "".join(rows["token"]) for side, rows in scored.groupby("side")} == {
        "chosen": "Yes<|im_end|>",
        "rejected": "No<|im_end|>",
    }


@pytest.mark.parametrize("load_in", ["fp32", "nf4", "int8"])
def test_it_loads_in_any_precision_and_knows_nothing(folder, load_in):
    """Log-probabilities near those of a blind guess among its tokens, but different from token to token."""
    with loaded(folder, load_in) as model:
        tokens = wb.explain_pair(
            model,
            {
                "prompt": "What is the capital of France?",
                "chosen": "The capital of France is Paris.",
                "rejected": "I do not know.",
            },
        )
        blind = -math.log(len(model.tokenizer))
    assert tokens["logp"].mean() == pytest.approx(blind, abs=0.7)
    assert tokens["logp"].std() > 0.2


def test_its_loss_falls_when_it_is_trained(folder, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        "".join(
            f'{{"prompt": "Say {word}", "chosen": "{word}", "rejected": "I will not say {word}."}}\n'
            for word in ("sun", "moon", "star", "sea", "wind", "rain")
        )
    )
    changes = {
        "model.name": folder,
        "model.load_in": "fp32",
        "data.train": str(pairs),
        "data.eval": str(pairs),
        "training.pairs_per_step": 6,
        "training.max_steps": 6,
    }
    config = wb.RunConfig().with_changes({**changes, "training.learning_rate": 2e-3, "training.scheduler": "constant"})
    losses = [step.record["loss"] for step in wb.steps(config)]
    assert losses[-1] < 0.7 * losses[0]


def test_a_folder_that_was_made_before_is_taken_as_it_is(folder):
    config = Path(folder, "config.json")
    written = config.stat().st_mtime_ns
    assert wb.make_tiny_model(folder) == folder
    assert config.stat().st_mtime_ns == written


def test_an_empty_folder_is_filled(tmp_path):
    assert wb.make_tiny_model(tmp_path) == str(tmp_path)
    assert (tmp_path / "config.json").is_file()


@pytest.mark.parametrize("other", ["notes.txt", "config.json"])
def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, other):
    (tmp_path / other).write_text("[1, 2]")
    with pytest.raises(
        wb.WorkbenchError,
        match=r"holds something else: expected an empty or a new one for the tiny model\. Choose another name",
    ):
        wb.make_tiny_model(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [other]
    assert (tmp_path / other).read_text() == "[1, 2]"


def test_a_place_that_cannot_be_written_is_said_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(wb.WorkbenchError, match="The tiny model cannot be written to"):
        wb.make_tiny_model(tmp_path / "file" / "model")
