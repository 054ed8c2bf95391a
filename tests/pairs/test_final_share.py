"""What a user would lose: a result on pairs that had no part in choosing the step, the same ones in every run."""

import json

import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.config.run_config import DataConfig, RunConfig
from simpo_workbench.pairs.data_sets import load_data
from simpo_workbench.pairs.final_share import final_share
from simpo_workbench.pairs.pairs import load_pairs


def rows(prompts, answers=1):
    return [
        {"prompt": f"Question {n}?", "chosen": f"Good {m}.", "rejected": f"Bad {m}."}
        for n in range(prompts)
        for m in range(answers)
    ]


def prompts(pairs):
    return {pair.prompt_text for pair in pairs}


def test_a_share_is_one_of_prompts_in_every_order_and_a_larger_one_holds_a_smaller_one():
    """10 prompts with 3 pairs each: a fifth are 2 prompts with all their 6 pairs."""
    choosing, final, sentence = final_share(load_pairs(rows(10, 3)), 0.2)
    assert (len(choosing), len(final), len(prompts(final))) == (24, 6, 2)
    assert not prompts(choosing) & prompts(final)
    assert sentence == (
        "6 of 30 held-out pairs (2 of 10 prompts) are final pairs, on which no step is chosen; the other 24 choose it."
    )
    turned = final_share(load_pairs(rows(10, 3)[::-1]), 0.2)
    assert turned[1].content_hash == final.content_hash
    assert [pair.pair_id for pair in turned[0]] == [pair.pair_id for pair in choosing][::-1], "in the rows' order"
    assert prompts(final) < prompts(final_share(load_pairs(rows(10, 3)), 0.5)[1])
    other_answers = [{**row, "chosen": "Something else."} for row in rows(10)]
    assert prompts(final_share(load_pairs(other_answers), 0.2)[1]) == prompts(final), "answers decide nothing"


@pytest.mark.parametrize(("count", "final_pairs"), [(60, 0), (147, 0), (148, 30), (1000, 200)])
def test_auto_takes_a_fifth_from_thirty_pairs_on(count, final_pairs):
    """A fifth of 147 is 29, of 148 it is 30."""
    choosing, final, sentence = final_share(load_pairs(rows(count)), "auto")
    assert (len(choosing), len(final)) == (count - final_pairs, final_pairs)
    if not final_pairs:
        assert sentence == (
            f"{count} held-out pairs are too few for a final share: the step is chosen and reported on the same pairs."
        )


def test_auto_leaves_at_least_as_many_to_choose_on():
    """One prompt of five has nearly all pairs: if it were final, few would be left to choose on."""
    (drawn,) = prompts(final_share(load_pairs(rows(5)), 0.2)[1])
    many = [{**rows(5)[0], "prompt": drawn, "chosen": f"Good {n}."} for n in range(1, 101)]
    held_out = load_pairs([*rows(5), *many])
    assert len(final_share(held_out, 0.2)[1]) == 101
    choosing, final, sentence = final_share(held_out, "auto")
    assert (len(choosing), len(final)) == (105, 0)
    assert "105 held-out pairs are too few for a final share" in sentence


def test_a_number_is_taken_as_it_is_or_refused():
    choosing, final, _ = final_share(load_pairs(rows(4)), 0.5)
    assert (len(choosing), len(final)) == (2, 2)
    nothing = final_share(load_pairs(rows(1000)), 0.0)
    assert (len(nothing[0]), len(nothing[1])) == (1000, 0)
    assert nothing[2].startswith("No final share is kept (data.final_fraction 0)")
    with pytest.raises(
        WorkbenchError, match=r"final_fraction 0.1 of 4 held-out prompts leaves none in the final share"
    ):
        final_share(load_pairs(rows(4)), 0.1)
    with pytest.raises(WorkbenchError, match=r"final_fraction 0.9 of 4 held-out prompts leaves none to choose a step"):
        final_share(load_pairs(rows(4)), 0.9)
    for wrong in (1, -0.1, "most", True):
        with pytest.raises(WorkbenchError, match=r"data.final_fraction = "):
            RunConfig.from_dict({"data": {"final_fraction": wrong}})


def test_the_limit_of_held_out_pairs_comes_first_and_the_seed_decides_nothing(tmp_path):
    for name, some in (("train", rows(4)), ("eval", rows(200))):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    both = {"train": str(tmp_path / "train.jsonl"), "eval": str(tmp_path / "eval.jsonl")}
    data = load_data(DataConfig(**both, eval_limit=150), seed=0)
    assert (len(data.held_out), len(data.final)) == (120, 30)
    assert data.final_note in data.notes
    assert load_data(DataConfig(**both, eval_limit=150), seed=7).final.content_hash == data.final.content_hash


def test_the_demo_keeps_all_its_held_out_pairs_to_choose_on():
    """Its numbers in README and notebooks would change."""
    data = load_data(DataConfig(), seed=0)
    assert (len(data.held_out), len(data.final)) == (60, 0)
    assert data.final_note.startswith("60 held-out pairs are too few for a final share")
