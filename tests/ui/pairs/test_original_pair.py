"""What would be lost: the messages behind a readable prompt, so that a model explains another pair than was scored."""

import json

import pytest
from fake_run import fake_run

import simpo_workbench as wb
from simpo_workbench.ui.pairs.original_pair import original_pair

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "And of Spain?"},
]
ROWS = [
    {"prompt": TURNS, "chosen": "Madrid.", "rejected": "I cannot say."},
    {"prompt": "Why is the sky blue?", "chosen": "It scatters.", "rejected": "Who knows?"},
]
OTHERS = [{"prompt": f"Number {n}?", "chosen": f"{n}", "rejected": "none"} for n in range(12)]


def run_on(tmp_path, held_out, **data):
    """A run whose held-out pairs were written as training writes them."""
    run = fake_run(tmp_path, total_steps=20, changes={f"data.{name}": value for name, value in data.items()})
    run.folder.write_pairs(held_out, run.folder.pairs)
    return run


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def run(tmp_path):
    source = write(tmp_path / "eval.jsonl", ROWS)
    return run_on(tmp_path, wb.load_pairs(source), train=write(tmp_path / "train.jsonl", OTHERS), eval=source)


@pytest.mark.parametrize("number", [0, 1])
def test_a_pair_of_the_runs_tables_comes_back_with_its_messages(run, number):
    pair = wb.load_pairs(ROWS)[number]
    expected = {"prompt": list(pair.prompt), "chosen": pair.chosen, "rejected": pair.rejected}
    row = {
        "pair_id": pair.pair_id,
        "prompt": pair.prompt_text,
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "lead_before": 0.2,
    }
    assert original_pair(run, row) == expected
    assert original_pair(run, pair.pair_id) == expected
    assert wb.load_pairs([original_pair(run, row)])[0].pair_id == pair.pair_id


def test_a_prompt_of_one_turn_needs_no_data_at_all(run, tmp_path):
    (tmp_path / "eval.jsonl").unlink()
    assert original_pair(run, wb.load_pairs(ROWS)[1].pair_id)["prompt"] == [
        {"role": "user", "content": "Why is the sky blue?"}
    ]


def test_a_pair_held_out_of_the_training_file_is_found_there(tmp_path):
    source = write(tmp_path / "all.jsonl", [*OTHERS, *ROWS])
    run = run_on(tmp_path, wb.load_pairs(ROWS), train=source, eval_fraction=0.2)
    assert original_pair(run, wb.load_pairs(ROWS)[0].pair_id)["prompt"] == TURNS


def test_messages_and_names_that_are_not_ours_are_taken_as_they_are(run):
    assert original_pair(run, ROWS[0]) == ROWS[0]
    own = {"pair_id": "question-7", "prompt": "Hi", "chosen": "Hello", "rejected": "No"}
    assert original_pair(run, own)["prompt"] == [{"role": "user", "content": "Hi"}]
    assert original_pair(run, {key: value for key, value in own.items() if key != "pair_id"})["prompt"] == [
        {"role": "user", "content": "Hi"}
    ]


@pytest.mark.parametrize("gone", [True, False])
def test_messages_that_are_lost_are_said_to_be_lost(run, tmp_path, gone):
    if gone:
        (tmp_path / "eval.jsonl").unlink()
    else:
        write(tmp_path / "eval.jsonl", OTHERS)
    with pytest.raises(
        wb.WorkbenchError,
        match=(
            r"has a prompt of several turns.*(cannot be read|no longer holds it).*Give the pair with its"
            r" messages"
        ),
    ):
        original_pair(run, wb.load_pairs(ROWS)[0].pair_id)


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("0123456789abcdef", "has no held-out pair '0123456789abcdef'"),
        (7, "A pair is a pair_id"),
        ({"prompt": "Hi"}, "A pair is a pair_id"),
    ],
)
def test_what_is_no_pair_is_refused_in_words(run, pair, said):
    with pytest.raises(wb.WorkbenchError, match=said):
        original_pair(run, pair)
