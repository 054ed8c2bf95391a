"""What a user would lose: a command that works only as its author typed it, or an error that says nothing."""

import json

import pytest
from click.testing import CliRunner
from fake_run import fake_run

import simpo_workbench as wb
from simpo_workbench.cli.main import main
from simpo_workbench.config.run_config import settings
from simpo_workbench.runs.run import Run


def call(*arguments, status=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result.output if status else result.stdout


@pytest.fixture(scope="module")
def trained(tiny_model, tiny_pairs, tmp_path_factory):
    """(root, output) of a run trained by the command line alone, from a YAML file with changes on top."""
    root = tmp_path_factory.mktemp("cli")
    config = root / "config.yaml"
    config.write_text(
        f"model:\n  name: {tiny_model}\n  load_in: fp32\ndata:\n  train: {tiny_pairs[0]}\n  eval:"
        f" {tiny_pairs[1]}\ntraining:\n  learning_rate: 5e-3\n  pairs_per_step: 4\n  max_steps: 9\ngeneration:\n "
        " held_out_prompts: 2\n  max_new_tokens: 6\n"
    )
    output = call(
        "train",
        config,
        "--training.max_steps",
        3,
        "--loss.gamma",
        1.5,
        "--run.name",
        "one",
        "--run.root",
        root / "runs",
    )
    return root / "runs", output


def test_train_shows_progress_results_and_the_report(trained):
    root, output = trained
    for part in ("chosen ahead (95 %)", "repeated 4-grams", "Doctor: ", "What is the capital of France?", "Report: "):
        assert part in output
    run = wb.attach("one", root)
    assert (run.config.training.max_steps, run.config.loss.gamma, run.config.training.learning_rate) == (3, 1.5, 5e-3)
    assert (run.path / "report.html").stat().st_size > 100_000


def test_reading_commands_in_text_and_json(trained):
    root, _ = trained
    assert "one" in call("runs", "--root", root)
    assert json.loads(call("runs", "--root", root, "--json"))[0]["state"] == "finished"
    assert "step 3 of 3" in call("show", "one", "--root", root)
    shown = json.loads(call("show", "one", "--root", root, "--json"))
    assert (
        shown["after"]["eval/rewards/accuracies"]
        == [record for record in wb.attach("one", root).records if record["kind"] == "eval"][-1][
            "eval/rewards/accuracies"
        ]
    )
    assert json.loads(call("presets", "--json"))[0]["name"] == "demo"
    reported = call("report", "one", "--root", root)
    assert "report.html" in reported
    assert "after step 3 of 3" in reported
    assert "train --data.train" not in reported, "that is for newcomers"


def test_score_and_generate_with_a_run(trained, tiny_pairs, tmp_path):
    root, _ = trained
    table = tmp_path / "scores.csv"
    assert "chosen ahead" in call("score", tiny_pairs[1], "--run", "one", "--root", root, "--output", table)
    assert table.read_text().startswith("pair_id,prompt,chosen,rejected")
    rows = json.loads(call("score", tiny_pairs[1], "--run", "one", "--step", 0, "--root", root, "--json"))
    base = wb.attach("one", root).scores.query("step == 0").set_index("pair_id")["margin"]
    assert rows[0]["margin"] == pytest.approx(base[rows[0]["pair_id"]], abs=1e-5)
    answers = json.loads(
        call(
            "generate",
            "What is the capital of France?",
            "--run",
            "one",
            "--root",
            root,
            "--max-new-tokens",
            6,
            "--json",
        )
    )
    assert {"prompt", "base", "tuned"} <= answers[0].keys()


def test_a_command_line_yaml_and_python_give_equal_objects(tmp_path):
    yaml = call(
        "train",
        "--preset",
        "demo",
        "--loss.beta",
        4,
        "--training.learning_rate",
        "5e-7",
        "--data.limit",
        10,
        "--lora.target_modules",
        "[q_proj]",
        "--show-config",
    )
    changes = {"loss.beta": 4, "training.learning_rate": 5e-7, "data.limit": 10, "lora.target_modules": ["q_proj"]}
    assert wb.RunConfig.from_yaml_text(yaml) == wb.preset("demo").with_changes(changes)


def test_help_names_every_setting_with_its_sentence():
    words = " ".join(call("train", "--help").split())
    for info in settings():
        assert f"--{info.path} " in words
    assert "--loss.gamma " in words


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["train", "nowhere.yaml"], 2, "Cannot read the configuration 'nowhere.yaml'"),
        (["train", "--loss.beta", "0"], 2, "loss.beta = '0' is not possible: expected > 0"),
        (["train", "--loss.gamma", "1", "--loss.gamma_beta_ratio", "1"], 2, "keep one"),
        (["train", "--loss.bta", "1"], 2, "--loss.beta"),
        (["train", "--preset", "dmo"], 2, "did you mean 'demo'?"),
        (["train", "a.yaml", "--preset", "demo"], 2, "not both"),
        (["show", "nothing"], 1, "There is no run 'nothing'"),
        (["resume", "nothing"], 1, "There is no run 'nothing'"),
        (["stop", "nothing"], 1, "There is no run 'nothing'"),
        (["score", "demo"], 2, "Say which model"),
        (["generate"], 2, "Missing argument"),
        (
            ["score", "nowhere.jsonl", "--model", "./nowhere"],
            1,
            "There is no file or folder nowhere.jsonl",
        ),  # before any model is loaded
        (["score", "demo", "--model", "./nowhere"], 1, "There is no model folder './nowhere'"),
        (["no-such-command"], 2, "No such command"),
    ],
)
def test_errors_are_one_sentence_with_the_right_exit_status(arguments, status, sentence, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    output = call(*arguments, status=status)
    assert sentence in " ".join(output.split())
    assert "Traceback" not in output


def test_empty_list_teaches(tmp_path):
    assert "simpo-workbench demo" in call("runs", "--root", tmp_path / "none")


def test_data_says_what_became_of_every_row(tmp_path):
    rows = [{"frage": f"Question {n}", "gut": f"right {n}", "schlecht": f"wrong {n}"} for n in range(3)]
    rows.append({"frage": "Empty", "gut": "", "schlecht": "wrong"})
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    columns = "{prompt: frage, chosen: gut, rejected: schlecht}"
    text = call("data", path, "--columns", columns)
    assert "3 pairs on 3 prompts" in text
    assert "4 rows read, 3 kept, 1 refused: empty 1 (first: line 4" in text
    facts = json.loads(call("data", path, "--columns", columns, "--json"))
    assert (facts["rows_read"], facts["pairs"], facts["refused"]) == (4, 3, {"empty": 1})
    assert "such as {prompt: frage, chosen: gut}" in " ".join(call("train", "--help").split())


def test_a_refusal_is_printed_once(tiny_model, tmp_path):
    path = tmp_path / "odd.jsonl"
    path.write_text('{"one": "a", "two": "b"}\n')
    options = ["--data.train", path, "--model.name", tiny_model, "--run.root", tmp_path / "runs"]
    output = call("train", *options, status=1)
    assert output.count("odd.jsonl holds no") == 1


def test_set_takes_what_run_set_takes(tmp_path, monkeypatch):
    run, asked = fake_run(tmp_path, name="one", state="training"), []
    monkeypatch.setattr(Run, "_ask", lambda self, kind, **values: asked.append(values) or Answered())
    call("set", "one", "--root", tmp_path, "--learning-rate", run.config.training.learning_rate / 4, "--gamma", 1.5)
    assert asked == [{"learning_rate_scale": 0.25, "gamma": 1.5}]
    told = call("set", "one", "--root", tmp_path, "--learning-rate", 1.0, status=1)
    assert "expected 0 to 100 times the configured" in told
    told = call("set", "one", "--root", tmp_path, "--learning-rate", 1e-5, "--learning-rate-scale", 1, status=1)
    assert "not both" in told


class Answered:
    def first_word(self, timeout_s):
        return "Done."


def test_the_name_of_a_run_stays_in_one_line(capsys):
    import pandas as pd

    from simpo_workbench.cli.terminal import print_table

    name = "a-name-that-is-forty-characters-long-now"
    facts = {f"fact {number}": ["a value of some length"] for number in range(8)}
    print_table(pd.DataFrame({"name": [name], **facts}))
    assert name in capsys.readouterr().out
