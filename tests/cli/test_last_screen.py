"""What a newcomer would lose who sees only the last screen: what got better, what got worse, and what is not known."""

import sys
from pathlib import Path

import pytest
from fake_run import fake_run
from rich.console import Console

from simpo_workbench.analysis.paired_changes import PairedChange
from simpo_workbench.base.files import read_json, read_jsonl, write_json, write_jsonl
from simpo_workbench.cli import last_screen, terminal

ANSWERED = {  # prompt: right before, right after
    "still right": (True, True),
    "unchecked": (None, None),
    "became right": (False, True),
    "lost": (True, False),
    "lost too": (True, False),
}


@pytest.fixture
def screen(monkeypatch, tmp_path):
    """A function from a run to what is printed of it, at a width of 100 or 140 columns."""

    def printed(run, width=140, **more):
        console = Console(width=width, record=True, file=open(tmp_path / "out.txt", "w"))  # noqa: SIM115
        monkeypatch.setattr(last_screen, "output", lambda: console)
        last_screen.print_summary(run, Path("runs/one/report.html"), **more)
        console.file.close()
        return console.export_text()

    return printed


def answered(root, outcomes, **more):
    """A run whose answers are marked: {prompt: (right before, right after)}; None for a prompt without a check."""
    run = fake_run(root, prompts=list(outcomes), **more)
    for step in run.folder.sampled_steps():
        rows = read_jsonl(run.folder.generations(step))
        for row in rows:
            right = outcomes[row["prompt"]][step > 0]
            if right is not None:
                row |= {"right": right, "reference": "Paris, [bold]France[/bold]."}
        write_jsonl(run.folder.generations(step), rows)
    return run


def sentence(text, title):
    return next((line.split(": ", 1)[1] for line in text.splitlines() if line.startswith(f"{title}: ")), None)


def test_a_healthy_run_says_what_got_better_and_what_was_not_measured(tmp_path, screen):
    text = screen(fake_run(tmp_path))
    assert "11 came ahead, 0 fell behind, of 24: better" in text
    assert "0.29 (0.13 to 0.51)" in text
    assert "after step 120 of 120" in text
    assert sentence(text, "Better") == "chosen answers are ahead in more pairs; more pairs are beyond γ"
    assert "no sample prompt says what a right answer has" in sentence(text, "Not measured")
    assert sentence(text, "Doctor").startswith("Healthy")
    assert sentence(text, "Recommended").startswith("step 120")
    assert sentence(text, "Report") == "runs/one/report.html"
    assert "Next" not in text


def test_a_collapse_is_one_however_few_the_prompts_for_every_pair_shows_it(tmp_path, screen):
    text = screen(fake_run(tmp_path, ruined=True))
    assert sentence(text, "Worse") == "chosen answers became less likely"
    assert "fewer answers come to an end" in sentence(text, "Too few cases to tell whether"), "of three prompts"
    assert sentence(text, "Doctor").startswith("The model is collapsing")
    assert sentence(text, "Recommended").startswith("step 0")
    assert "more characters)" in " ".join(text.replace("│", " ").split()), "a loop is cut"


def test_answers_that_became_wrong_are_counted_and_one_is_shown_first(tmp_path, screen):
    text = screen(answered(tmp_path, ANSWERED))
    assert (
        "Still right? Of 4 answers that can be checked 1 became right and 2 became wrong (✓ right: the answer" in text
    )
    assert "answers are right" not in text, "2 against 1 points nowhere"
    title = "3 of 5 prompts: one whose answer became wrong, one whose answer became right and the first of the others."
    assert title in text
    below = text[text.index("3 of 5 prompts") :]
    assert below.index("lost") < below.index("became right", 80) < below.index("still right")
    assert "lost too" not in below
    assert "unchecked" not in below
    assert below.count("✗ wrong") == 2
    assert below.count("✓ right") == 4
    assert below.count("a right answer: Paris, [bold]France[/bold].") == 2, "below each wrong answer, as text"


@pytest.mark.parametrize(
    ("outcomes", "prompts", "title"),
    [
        ({"a": (None, None), "b": (None, None)}, ["a", "b"], "2 of 2 prompts: the first 2."),
        (dict.fromkeys("abcd", (True, True)), ["a", "b", "c"], "3 of 4 prompts: the first 3."),
        (
            {**dict.fromkeys("abc", (True, True)), "d": (False, True)},
            ["d", "a", "b"],
            "3 of 4 prompts: one whose answer became right and the first 2 of the others.",
        ),
        (
            {**dict.fromkeys("abc", (True, True)), "d": (True, False)},
            ["d", "a", "b"],
            "3 of 4 prompts: one whose answer became wrong and the first 2 of the others.",
        ),
        ({"a": (True, None), "b": (None, False)}, ["a", "b"], "2 of 2 prompts: the first 2."),
    ],
)
def test_the_prompts_that_are_shown_are_telling(tmp_path, outcomes, prompts, title):
    answers, _ = last_screen._answers(answered(tmp_path, outcomes))
    chosen, said = last_screen.telling_prompts(answers)
    assert (list(chosen["prompt"]), said) == (prompts, title)


def test_a_right_answer_that_ends_and_does_not_repeat_itself_is_preferred(tmp_path):
    answers, _ = last_screen._answers(answered(tmp_path, dict.fromkeys("abcd", (False, True))))
    answers["ended_tuned"] = [False, True, True, True]
    answers["repeated_4grams_base"], answers["repeated_4grams_tuned"] = 0.3, [0.1, 0.7, 0.3, 0.0]
    assert list(last_screen.telling_prompts(answers)[0]["prompt"]) == ["c", "a", "b"]
    answers["ended_tuned"] = False
    assert list(last_screen.telling_prompts(answers)[0]["prompt"]) == ["a", "b", "c"], "there is no other"


def test_what_chance_might_do_is_not_called_worse(tmp_path, screen):
    text = screen(answered(tmp_path, {"a": (True, False), "b": (True, False), "c": (True, True)}))
    assert sentence(text, "Too few cases to tell whether").startswith("fewer answers are right")
    assert "not whether they differ" in " ".join(text.split())


def test_mixed_changes_and_nothing_compared_are_said():
    loops = PairedChange("answers/repeated_4grams", 3, 20, 63, 0.14, 0.05, 0.23)
    likelier = PairedChange("logps/chosen", 34, 26, 60, -0.2, -0.3, -0.1)
    said = dict(last_screen._in_words({loops.key: loops, likelier.key: likelier}, 63, False))
    assert said["Mixed"] == (
        "chosen answers became likelier in 34 pairs and less likely in 26, but the average did not rise; "
        "20 answers repeat themselves less and 3 repeat themselves more, but the average did not fall"
    )
    rose = PairedChange("logps/chosen", 34, 26, 60, 0.06, 0.005, 0.114)
    assert dict(last_screen._in_words({rose.key: rose}, 63, False))["Mixed"] == (
        "chosen answers became likelier in 34 pairs and less likely in 26, which may be chance, but the average rose"
    )
    fewer = PairedChange("answers/repeated_4grams", 20, 3, 63, -0.14, -0.2, -0.1)
    assert dict(last_screen._in_words({fewer.key: fewer}, 63, False))["Mixed"].endswith("the average did not rise")
    assert (
        dict(last_screen._in_words({fewer.key: fewer}, 63, False))["Worse"] == "nothing that chance would not explain"
    )
    assert dict(last_screen._in_words({}, 0, False)) == {
        "Nothing could be compared": "no pair and no prompt was measured both before and after"
    }


def test_a_recommended_step_that_is_in_no_column_has_its_own_numbers(tmp_path, screen):
    run = fake_run(tmp_path)
    recommend(run, 100)
    own = sentence(screen(run), "Step 100 itself")
    assert own.startswith("chosen ahead 0.")
    assert "beyond γ 0." in own
    assert "nats/token" in own
    recommend(run, 120)
    assert "itself" not in screen(run)


def recommend(run, step):
    write_json(run.folder.status, {**read_json(run.folder.status), "recommended_step": step})


def test_what_was_never_measured_is_not_called_better(tmp_path, screen):
    text = screen(fake_run(tmp_path, "early", last_step=0, state="stopped"))
    assert "Nothing is known yet of what training did: nothing was measured after step 0." in text
    assert "Better" not in text
    text = screen(fake_run(tmp_path, "silent", prompts=[]))
    assert "no answers were sampled after step 0" in sentence(text, "Not measured")
    assert "ends properly" not in text
    text = screen(fake_run(tmp_path, "stopped", last_step=50, state="stopped"))
    assert "after step 40 of 120" in text


def test_an_evaluation_without_answers_shows_those_of_the_step_before_it(tmp_path, screen):
    run = fake_run(tmp_path)
    records = [
        {name: value for name, value in record.items() if record["step"] < 120 or "answers" not in name}
        for record in run.records
    ]
    write_jsonl(run.folder.metrics, records)
    run.folder.generations(120).unlink()
    text = screen(run)
    assert "after step 120 of 120" in text
    assert "1.00 (0.29 to 1.00), step 100" in text
    assert "after step 100 " in text


@pytest.mark.parametrize("width", [100, 140])
def test_it_fits_and_no_text_of_a_model_moves_the_cursor(tmp_path, screen, width):
    run = answered(tmp_path, {"How\x1b[2J long?" + "word" * 50: (True, False)})
    rows = read_jsonl(run.folder.generations(120))
    rows[0]["answer"] = "\x1b[31mred\x07 \u202etxt " + "x" * 400
    write_jsonl(run.folder.generations(120), rows)
    text = screen(run, width)
    table = [line for line in text.splitlines() if line and line[0] in "┏┃┡│├└"]
    assert len(table) > 10
    assert max(map(len, table)) <= width
    assert not set("\x1b\x07\u202e") & set(text)


def test_the_next_commands_are_those_that_work_from_here(tmp_path, screen, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pytest"])
    text = screen(fake_run(tmp_path), after_demo=True)
    assert sentence(text, "Next").startswith("simpo-workbench lab ")
    assert sentence(text, "Your own pairs").startswith("simpo-workbench train --data.train yours.jsonl ")
    assert "(one JSON object per line with prompt, chosen and rejected)" in text
    program = tmp_path / "env" / "bin" / "simpo-workbench"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    monkeypatch.setattr(sys, "argv", ["env/bin/simpo-workbench", "demo"])
    assert last_screen.next_commands()[0] == "env/bin/simpo-workbench lab"
    monkeypatch.setenv("PATH", str(program.parent))
    assert last_screen.next_commands()[0] == "simpo-workbench lab"
    monkeypatch.chdir(Path(last_screen.__file__).parents[2])
    assert last_screen.next_commands()[0] == "make lab"


# --- while it trains


def lines(capsys):
    return [line.split("] ", 1)[1] for line in capsys.readouterr().err.splitlines()]


def test_without_a_terminal_a_line_says_every_ten_seconds_what_is_done(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[0])
    progress = terminal.Progress()
    progress.show({"kind": "state", "state": "loading", "message": "Loading.", "step": 0, "total_steps": 0})
    progress.show({"kind": "progress", "step": 0, "text": "loading the model"})
    clock[0] += 9
    progress.say_progress()
    assert lines(capsys) == ["Loading."]
    clock[0] += 2
    progress.say_progress()
    clock[0] += 11
    progress.say_progress()
    progress.show({"kind": "progress", "step": 0, "text": "scoring 4 of 60 pairs"})
    clock[0] += 11
    progress.show({"kind": "progress", "step": 0, "text": "scoring 40 of 60 pairs"})
    progress.show({"kind": "progress", "step": 0, "text": ""})
    clock[0] += 60
    progress.say_progress()
    assert lines(capsys) == ["loading the model", "still loading the model", "scoring 40 of 60 pairs"]


def test_scores_are_shown_before_the_answers_are_sampled_and_once(capsys, tmp_path):
    record = next(record for record in fake_run(tmp_path).records if record["kind"] == "eval")
    progress = terminal.Progress()
    progress.show({**record, "kind": "scores"})
    progress.show({**record, "eval/answers/right": 0.5, "eval/answers/checked": 4})
    progress.show({**record, "step": 20})
    first, second, third = lines(capsys)
    assert first.startswith("step 0: chosen ahead 0.29")
    assert second.startswith("step 0: 3 answers: 63 tokens on average")
    assert second.endswith("2 of the 4 checkable ones are right")
    assert third.startswith("step 20: chosen ahead 0.29")
    assert "3 answers" in third


def test_an_end_is_said_once_and_a_time_left_only_once_it_is_known(monkeypatch, capsys, tmp_path):
    progress = terminal.Progress()
    progress.show({"kind": "state", "state": "finished", "message": "Finished.", "step": 9, "total_steps": 9})
    progress.show({"kind": "event", "text": "Finished."})
    progress.show({"kind": "event", "text": "Another."})
    assert lines(capsys) == ["Finished.", "Another."]
    record = next(record for record in fake_run(tmp_path).records if record["kind"] == "train")
    for seconds_left, told in ((None, "step 1 of 120 · 2.1 pairs/s"), (70, "step 1 of 120 · 1 min 10 s left · 2.1")):
        progress.show({**record, "seconds_left": seconds_left, "total_steps": 120})
        assert progress.step_line.startswith(told)


def test_the_ticker_ends_with_the_block(monkeypatch):
    monkeypatch.setattr(terminal, "_TICK_S", 0.01)
    import threading

    with terminal.Progress():
        assert any(thread.name == "progress" for thread in threading.enumerate())
    for thread in threading.enumerate():
        if thread.name == "progress":
            thread.join(5)
            assert not thread.is_alive()


def test_the_final_pairs_have_a_table_and_a_sentence_of_their_own(tmp_path, screen):
    """The result on pairs that chose the step would flatter it."""
    run = fake_run(tmp_path, final=30)
    text = screen(run)
    assert "Final pairs, on which no step was chosen (n=30)" in text
    assert "step 120, the recommended one" in text
    assert sentence(text, "Final pairs") == str(run.final)
    facts = last_screen.summary(run)["final"]
    assert (facts["step"], facts["pairs"]) == (120, 30)
    assert facts["after"]["eval/pairs"] == 30
    few = screen(fake_run(tmp_path, "few"))
    assert sentence(few, "Final pairs") == "24 held-out pairs are too few."
    assert "on which no step was chosen" not in few
