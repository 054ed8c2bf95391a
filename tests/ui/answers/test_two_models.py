"""What a user would lose: which model of a run that goes on training gave an answer."""

import pandas as pd
from fake_run import fake_run

import simpo_workbench as wb
from simpo_workbench.ui.answers.two_models import Round, Side


def test_an_answer_names_the_step_after_which_it_was_given_and_not_where_the_run_is_by_now(tmp_path):
    run = fake_run(tmp_path, total_steps=120, last_step=40, state="training")
    asked = Round(["Hi"], Side(run, 0, "base model"), Side(run, None, "as it is now"), wb.GenerationConfig(), 0)
    row = {
        f"{side}{of}": value
        for side in ("base", "tuned")
        for of, value in {"": "Hello.", "_tokens": 2, "_ended": True, "_repeated_4grams": 0.0}.items()
    }
    table = pd.DataFrame([row])
    table.attrs["step"] = 23
    asked._tables = {(run, None): table}
    assert asked.titles == ("base model", "as it is now (step 23)")
    assert asked._answer(asked.right, 0).title == "as it is now (step 23)"
    assert asked._answer(asked.left, 0).title == "base model", "the base model is the same after every step"
