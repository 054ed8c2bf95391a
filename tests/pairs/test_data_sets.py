"""What a user would lose: held-out results that were never held out."""

import json

import pytest
import tiny

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.config.checks import Check
from simpo_workbench.config.run_config import DataConfig
from simpo_workbench.pairs.data_sets import load_data


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_demo_set_is_what_its_readme_says():
    """230 and 60 pairs, none refused, no prompt in both, hashes as written down, checks that fit their answers."""
    import hashlib

    from simpo_workbench.base.paths import bundled

    train, held_out, _, notes, _ = load_data(DataConfig(), seed=0)
    assert (len(train), len(held_out)) == (230, 60)
    assert not {pair.prompt_text for pair in train} & {pair.prompt_text for pair in held_out}
    assert not any("among both" in note for note in notes)
    readme = bundled("data/README.md").read_text()
    for side in ("train", "eval"):
        assert (
            f"{hashlib.sha256(bundled(f'data/plain_answers/{side}.jsonl').read_bytes()).hexdigest()}  {side}.jsonl"
            in readme
        )
    for pair in [*train, *held_out]:
        check = Check.of(pair.extra["expect"])
        assert check.passes(pair.chosen)
        assert check.passes(pair.extra["reference"])
        assert check.passes(pair.rejected) != (pair.extra["rejected_because"] == "wrong")
    lines = bundled("data/plain_answers/prompts.jsonl").read_text().splitlines()
    prompts = {json.loads(line)["prompt"].lower() for line in lines}
    assert len(prompts) == len(lines) == 396
    assert {pair.prompt_text.lower() for pair in [*train, *held_out]} <= prompts
    assert f"in {_shorter([*train, *held_out])} % of the pairs" in readme


def _shorter(pairs):
    """In what percentage of the pairs the chosen answer has fewer words."""
    return round(100 * sum(len(pair.chosen.split()) < len(pair.rejected.split()) for pair in pairs) / len(pairs))


def test_without_an_eval_set_a_share_of_the_prompts_is_held_out(tmp_path):
    rows = tiny.rows(20)
    rows += [{**row, "rejected": row["rejected"] + " again"} for row in rows]  # every prompt twice
    train, held_out, *_ = load_data(DataConfig(train=write(tmp_path / "all.jsonl", rows), eval_fraction=0.25), seed=3)
    assert len(train) + len(held_out) == 40
    assert len({pair.prompt_text for pair in held_out}) == 5
    assert not {pair.prompt_text for pair in train} & {pair.prompt_text for pair in held_out}


def test_a_leak_between_files_of_the_user_is_said(tmp_path):
    data = DataConfig(
        train=write(tmp_path / "train.jsonl", tiny.rows(6)), eval=write(tmp_path / "eval.jsonl", tiny.rows(2))
    )
    notes = load_data(data, seed=0).notes
    assert any(note.startswith("2 prompts are among both") for note in notes)


def test_one_shared_prompt_is_said_as_one(tmp_path):
    data = DataConfig(
        train=write(tmp_path / "train.jsonl", tiny.rows(6)), eval=write(tmp_path / "eval.jsonl", tiny.rows(1))
    )
    notes = load_data(data, seed=0).notes
    assert any(note.startswith("1 prompt is among both") for note in notes)


def test_limits_and_columns(tmp_path):
    rows = [{"q": row["prompt"], "good": row["chosen"], "bad": row["rejected"]} for row in tiny.rows(10)]
    source = write(tmp_path / "named.jsonl", rows)
    columns = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    train, held_out, *_ = load_data(
        DataConfig(train=source, columns=columns, limit=3, eval_limit=1, eval_fraction=0.4), seed=0
    )
    assert (len(train), len(held_out)) == (3, 1)
    data = DataConfig(train=source, columns=columns, limit=3, eval_limit=1, eval_fraction=0.4)
    notes = " ".join(load_data(data, seed=0).notes)
    assert "Training pairs: data.limit takes 3 of 6, a sample by hash." in notes
    assert "Held-out pairs: data.eval_limit takes 1 of 4, a sample by hash." in notes
    notes = " ".join(load_data(data.model_copy(update={"limit_takes": "first", "eval_limit": 4}), seed=0).notes)
    assert "takes 3 of 6, the first ones." in notes
    assert "eval_limit" not in notes
    with pytest.raises(WorkbenchError, match="qq"):
        load_data(DataConfig(train=source, columns={**columns, "prompt": "qq"}), seed=0)


def test_limits_of_a_sorted_file_take_from_all_of_it(tmp_path):
    """100 pairs of one kind, then 100 of another: the first 40 are of one kind alone, a sample is of both."""
    rows = [{"prompt": f"{kind} {n}?", "chosen": "Yes.", "rejected": "No."} for kind in "ab" for n in range(100)]
    both = {"train": write(tmp_path / "sorted.jsonl", rows), "eval": write(tmp_path / "other.jsonl", rows)}
    drawn = load_data(DataConfig(**both, limit=40, eval_limit=20), seed=0)
    for pairs, count in zip(drawn[:2], (40, 20), strict=True):
        kinds = [pair.prompt_text[0] for pair in pairs]
        assert len(kinds) == count
        assert 0.25 <= kinds.count("a") / count <= 0.75
        assert kinds == sorted(kinds)  # in the order of the file
    both["train"] = write(tmp_path / "turned.jsonl", rows[::-1])
    assert load_data(DataConfig(**both, limit=40), seed=5)[0].content_hash == drawn[0].content_hash
    assert {pair.pair_id for pair in drawn[1]} < {pair.pair_id for pair in drawn[0]}
    first = load_data(DataConfig(**both, limit=40, limit_takes="first"), seed=0)[0]
    assert {pair.prompt_text[0] for pair in first} == {"b"}
