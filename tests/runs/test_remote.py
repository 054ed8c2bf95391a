"""What a user would lose: a notebook whose kernel holds a model, or answers that differ from those in process."""

import sys
from subprocess import Popen

import pandas as pd
import pytest

import simpo_workbench as wb
from simpo_workbench.base import process
from simpo_workbench.base.files import read_json

DEADLINE_S = 120
PAIR = {"prompt": "What color is the sky?", "chosen": "Blue, mostly.", "rejected": "Green."}


@pytest.fixture
def trained(finished_run):
    return finished_run()


def test_an_opened_model_answers_as_the_functions_do_in_process(tiny_config, trained):
    loss, pairs = wb.LossConfig(beta=3.0), wb.load_pairs(tiny_config.data.eval)
    greedy = wb.GenerationConfig(max_new_tokens=5)
    with wb.load_model(tiny_config.model, adapter=trained.adapter) as here:
        expected = [
            wb.score(here, pairs, loss),
            wb.generate(here, ["Hi", "Who are you?"], greedy),
            wb.explain_pair(here, PAIR),
            wb.encode_pair(here, PAIR),
        ]
    with wb.open_model(tiny_config.model, adapter=trained.adapter) as there:
        answers = [
            wb.score(there, pairs, loss),
            wb.generate(there, ["Hi", "Who are you?"], greedy),
            wb.explain_pair(there, PAIR),
            wb.encode_pair(there, PAIR),
        ]
        identity = read_json(there.run.folder.status)["process"]
    for table, answer in zip(expected, answers, strict=True):
        pd.testing.assert_frame_equal(table, answer, check_dtype=False)
    assert not process.is_alive(identity)
    assert not there.run.path.exists()


def test_a_pair_token_by_token_adds_up_to_its_score(tiny_config, trained):
    with wb.load_model(tiny_config.model, adapter=trained.adapter) as model:
        scores, tokens = wb.score(model, [PAIR]).iloc[0], wb.explain_pair(model, PAIR)
        seen = wb.encode_pair(model, PAIR)
        for side in ("chosen", "rejected"):
            mine = tokens[tokens["side"] == side]
            assert mine["logp"].mean() == pytest.approx(scores[f"{side}_avg_logp"], abs=1e-5)
            assert len(mine) == scores[f"{side}_tokens"]
            assert mine["token_id"].tolist() == seen.loc[seen["side"] == side, "token_id"].tolist()
        assert not tokens["logp"].equals(tokens["base_logp"])
        assert seen.groupby("side")["scored"].all().to_dict() == {"chosen": True, "prompt": False, "rejected": True}
        with pytest.raises(wb.WorkbenchError, match="One pair is taken at a time; got 2"):
            wb.explain_pair(model, [PAIR, {**PAIR, "prompt": "And the sea?"}])


def test_a_request_that_fails_ends_nothing(tiny_config):
    with wb.open_model(tiny_config.model) as model:
        with pytest.raises(wb.WorkbenchError, match="A prompt is a text or a list of"):
            model.generate([{"no": "prompt"}])
        with pytest.raises(wb.WorkbenchError, match=r"beta"):
            model.ask("score", pairs=[PAIR], loss={"beta": -1}).result(DEADLINE_S)
        assert len(model.score([PAIR])) == 1
        reply = model.ask("generate", prompts=["Hi"])
        assert reply.result(DEADLINE_S) is reply.result()
        late = model.ask("generate", prompts=["Hi"])
        late.cancel()
        with pytest.raises(wb.WorkbenchError, match="was cancelled"):
            late.result(DEADLINE_S)
        with pytest.raises(wb.WorkbenchError, match="no training: it cannot pause"):
            model.run.pause().wait(DEADLINE_S)


def test_asking_needs_no_torch():
    names = "wb.open_model, wb.score, wb.generate, wb.explain_pair, wb.clone, wb.runs.list_queue"
    code = f"import simpo_workbench as wb, sys; {names}; assert 'torch' not in sys.modules"
    with Popen([sys.executable, "-c", code]) as child:
        assert child.wait() == 0


def test_a_closed_model_says_so_and_closes_twice(tiny_config):
    model = wb.open_model(tiny_config.model)
    model.close()
    model.close()
    assert "closed" in repr(model)
    with pytest.raises(wb.WorkbenchError, match="This model is closed"):
        model.generate("Hello?")
    with pytest.raises(wb.WorkbenchError, match=r"wb.attach\('tiny'\)"):
        wb.open_model("tiny")
