"""What a user would lose: checks of held-out pairs that are passed over in silence, or that end a run."""

import json
from types import SimpleNamespace

import pytest
import tiny
import torch

from simpo_workbench.config.checks import Check
from simpo_workbench.config.run_config import GenerationConfig
from simpo_workbench.engine.encode.tokens import ChatEncoder
from simpo_workbench.engine.generation import answer
from simpo_workbench.engine.sample_prompts import SamplePrompt, given_prompt, held_out_checks, held_out_prompt
from simpo_workbench.pairs.pairs import load_pairs

ROW = {"prompt": "Capital of France?", "chosen": "Paris.", "rejected": "Lyon."}


def pairs_with(**columns):
    """One pair for each item of the columns' lists."""
    count = len(next(iter(columns.values())))
    rows = [ROW | {"chosen": f"Paris {n}."} | {name: items[n] for name, items in columns.items()} for n in range(count)]
    return load_pairs(rows)


def test_a_given_prompt_is_a_user_turn_with_what_it_brings():
    turn = [{"role": "user", "content": "Capital?"}]
    assert given_prompt("Capital?") == SamplePrompt(turn)
    item = {"prompt": "Capital?", "expect": {"any": ["Paris"]}, "reference": "Paris."}
    assert given_prompt(item) == SamplePrompt(turn, Check(any=("Paris",)), "Paris.")


def test_checks_and_references_of_held_out_pairs_are_taken_from_their_columns():
    pairs = pairs_with(expect=[{"any": ["Paris"]}, None, '{"all": "Paris"}'], reference=["Paris.", " ", 7])
    checks, notes = held_out_checks(pairs)
    assert notes == []
    prompts = [held_out_prompt(pair, checks) for pair in pairs]
    assert [prompt.check for prompt in prompts] == [Check(any=("Paris",)), None, Check(all=("Paris",))]
    assert [prompt.reference for prompt in prompts] == ["Paris.", None, None]


def test_checks_that_cannot_be_used_are_counted_and_the_first_is_named():
    pairs = pairs_with(expect=[{"any": ["Paris"]}, {"any": ["/(/"]}, "Paris"])
    checks, notes = held_out_checks(pairs)
    assert list(checks) == [pairs[0].pair_id]
    (note,) = notes
    assert note.startswith("The checks of 2 held-out pairs (column expect) cannot be used")
    assert f"pair {pairs[1].pair_id}: The check '/(/' is no regular expression" in note


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_checks_are_read_from_every_kind_of_file(tmp_path, suffix):
    import pandas as pd

    expect = [{"any": ["Paris"]}, None]
    rows = [ROW | {"chosen": f"Paris {n}.", "expect": item} for n, item in enumerate(expect)]
    path = tmp_path / f"pairs.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == "parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        pd.DataFrame(rows).assign(expect=[json.dumps(expect[0]), ""]).to_csv(path, index=False)
    pairs = load_pairs(path)
    assert held_out_checks(pairs) == ({pairs[0].pair_id: Check(any=("Paris",))}, [])


def test_answers_of_step_0_are_judged_by_the_checks_of_today():
    """Otherwise a check that was made stricter on the way would turn right answers into wrong ones by itself."""
    from simpo_workbench.engine.evaluation import _checked_again

    answers = [
        {"prompt": "What is 2 + 2?", "answer": "It is 4.", "right": True},
        {"prompt": "And 1 + 1?", "answer": "It is 2."},  # of a run that began before there were checks
        {"prompt": "Who are you?", "answer": "A model.", "right": True},  # its check was taken away
    ]
    prompts = [
        given_prompt({"prompt": "What is 2 + 2?", "expect": {"all": ["four"]}}),
        given_prompt({"prompt": "And 1 + 1?", "expect": {"any": ["2"]}}),
        given_prompt("Who are you?"),
    ]
    assert [(answer["prompt"], answer["right"]) for answer in _checked_again(answers, prompts)] == [
        ("What is 2 + 2?", False),
        ("And 1 + 1?", True),
        ("Who are you?", None),  # its length and its end are still compared
    ]


def test_a_held_out_prompt_is_answered_with_its_tools():
    """Without them the answers would come from another prompt than the one that is trained."""
    tool = {"type": "function", "function": {"name": "find", "parameters": {}}}
    (pair,) = load_pairs([{**ROW, "tools": [tool]}])
    assert held_out_prompt(pair, {}).tools == (tool,)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{% if tools %}{{ tools[0]['function']['name'] }}{% endif %}" + tiny.CHATML
    seen = []

    class Encoder(ChatEncoder):
        def prompt_ids(self, messages, tools=()):
            seen.append(tokenizer.decode(super().prompt_ids(messages, tools)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer(SimpleNamespace(tokenizer=tokenizer, model=tiny.model("llama"), device=torch.device("cpu")),
               Encoder(tokenizer, None), [list(pair.prompt)], GenerationConfig(), 0, tools=[pair.tools])  # fmt: skip
    assert seen[0].startswith("find<|im_start|>user")
