"""What a user would lose: votes, when the kernel dies; the blindness, when the order can be guessed; and the truth,
when chance is called a difference.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

import simpo_workbench as wb
from simpo_workbench import WorkbenchError, win_rate
from simpo_workbench.analysis import BlindVotes
from simpo_workbench.analysis.blind_items import sampled_answers
from simpo_workbench.analysis.blind_votes import CHOICES
from simpo_workbench.base.files import append_jsonl


def answers(n=12, same=0):
    """n prompts that two models answer differently, and `same` that they answer alike."""
    rows = [
        {
            "prompt": f"Question {i}?",
            "first": f"Long answer {i}.",
            "second": f"Short {i}.",
            "first_tokens": 40 + i,
            "second_tokens": 10 + i,
        }
        for i in range(n)
    ]
    rows += [
        {"prompt": f"Known {i}?", "first": "Paris.", "second": "Paris. ", "first_tokens": 2, "second_tokens": 2}
        for i in range(same)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "blind.jsonl"


def prefer(test, side):
    """Vote for one side on the next item; what it would have looked like is for the item to say."""
    item = test.next_item()
    test.vote(item, "left" if item.left_is == side else "right")
    return item


# --- the order


def test_order_and_sides_are_random_recorded_and_the_same_for_the_same_seed(tmp_path):
    orders, sides = set(), set()
    for seed in range(20):
        test = BlindVotes.begin(tmp_path / f"{seed}.jsonl", answers(), seed=seed)
        again = BlindVotes.begin(tmp_path / f"{seed}-again.jsonl", answers(), seed=seed)
        assert test.items == again.items
        head = json.loads((tmp_path / f"{seed}.jsonl").read_text().split("\n")[0])
        assert [(one["prompt"], one["left_is"]) for one in head["items"]] == [
            (item.prompt, item.left_is) for item in test.items
        ]
        assert head["seed"] == seed
        orders.add(tuple(item.prompt for item in test.items))
        sides.add(tuple(item.left_is for item in sorted(test.items, key=lambda item: item.prompt)))
        assert [item.left_is for item in test.items].count("first") == 6
    assert (len(orders), len(sides)) == (20, 20)


def test_who_stands_left_cannot_be_told_from_who_stood_left_before(tmp_path):
    """Sides that alternated strictly would differ from seed to seed by prompt, and be known after one look in the order
    of asking.
    """
    patterns = {
        tuple(item.left_is for item in BlindVotes.begin(tmp_path / f"{seed}.jsonl", answers(), seed=seed).items)
        for seed in range(40)
    }
    assert len(patterns) > 30
    changes = [sum(one != other for one, other in pairwise(sides)) for sides in patterns]
    assert 5 < sum(changes) / len(changes) < 7, "of 11 neighbours 6 differ on average where 6 of 12 are drawn"


def test_a_seed_that_nobody_gave_is_drawn_afresh_and_kept(tmp_path):
    seeds = [BlindVotes.begin(tmp_path / f"{n}.jsonl", answers()).seed for n in range(5)]
    assert len(set(seeds)) == 5
    assert [BlindVotes.resume(tmp_path / f"{n}.jsonl").seed for n in range(5)] == seeds


def test_every_answer_stands_on_the_side_that_is_recorded(path):
    test = BlindVotes.begin(path, answers())
    for item in test.items:
        number = item.prompt.removeprefix("Question ").rstrip("?")
        first, second = (item.left, item.right) if item.left_is == "first" else (item.right, item.left)
        assert (first, second) == (f"Long answer {number}.", f"Short {number}.")
        assert (item.answer("first"), item.answer("second")) == (first, second)
        assert (item.first_tokens, item.second_tokens) == (40 + int(number), 10 + int(number))
    assert {item.left_is for item in test.items} == {"first", "second"}


def test_what_a_cell_shows_of_a_test_does_not_give_the_sides_away(path):
    test = BlindVotes.begin(path, answers(1), first="base model", second="step 50")
    shown = repr(test) + repr(test.next_item())
    assert not any(word in shown for word in ("first", "second", "base model", "step 50", "tokens"))
    assert "0 of 1 voted" in shown


def test_a_table_from_generate_is_taken_by_its_titles(path):
    table = pd.DataFrame(
        {
            "prompt": ["Why?"],
            "base": ["Long."],
            "tuned": ["Short."],
            "base_tokens": [9],
            "tuned_tokens": [3],
            "tuned_ended": [True],
        }
    )
    (item,) = BlindVotes.begin(path, table).items
    assert (item.answer("first"), item.answer("second"), item.first_tokens, item.second_tokens) == (
        "Long.",
        "Short.",
        9,
        3,
    )


@pytest.mark.parametrize(
    ("table", "titles", "said"),
    [
        (answers(2).drop(columns="second"), {}, "lack the column 'tuned'"),
        (answers(2).drop(columns="prompt"), {}, "lack the column 'prompt'"),
        (answers(0), {}, "lack the column 'prompt'"),
        (answers(2).iloc[:0], {}, "no rows"),
        (answers(2), {"first": "step 20", "second": "step 20"}, "Both models are called 'step 20'"),
        (
            answers(4).assign(second=["a", None, float("nan"), "d"]),
            {},
            r"2 answers of 4 are missing in the column 'second', first to the prompt 'Question 1\?'",
        ),
        (
            answers(2).rename(columns={"first": "base", "second": "tuned"}).assign(base=["a", None]),
            {},
            "1 answer of 2 is missing in the column 'base'",
        ),
        (answers(2).assign(prompt=["Why?", None]), {}, "1 prompt of 2 is missing"),
        (answers(1).assign(messages=[[{"content": "Why?"}]]), {}, "each turn needs a role and a content"),
        (answers(1).assign(messages=[["Why?"]]), {}, "each turn needs a role and a content"),
        (answers(1).assign(messages=[[{"role": "user", "content": None}]]), {}, "each turn needs a role and a content"),
        (answers(2), {"seed": "x"}, "The seed is 'x', expected a whole number"),
    ],
)
def test_a_table_that_is_no_blind_test_is_refused_in_words_and_leaves_no_file(path, table, titles, said):
    with pytest.raises(WorkbenchError, match=said):
        BlindVotes.begin(path, table, **titles)
    assert not path.exists()


def test_a_test_never_takes_the_place_of_another_file(path):
    path.write_text("mine\n")
    with pytest.raises(WorkbenchError, match=r"is there already.*BlindVotes\.resume"):
        BlindVotes.begin(path, answers())
    assert path.read_text() == "mine\n"
    with pytest.raises(WorkbenchError, match="holds no blind test"):
        BlindVotes.resume(path.rename(path.with_name("other.jsonl")))
    (path.parent / "file").write_text("")
    with pytest.raises(WorkbenchError, match="cannot be made"):
        BlindVotes.begin(path.parent / "file" / "x.jsonl", answers())
    with pytest.raises(WorkbenchError, match="cannot be read|holds no blind test"):
        BlindVotes.resume(path.parent / "nowhere.jsonl")


def test_of_several_that_begin_one_test_at_once_one_does_and_the_others_are_told(tmp_path):
    """Two with the same file and other sides would each vote for models that the file calls otherwise."""
    for number in range(10):
        path, ready, begun, refused = tmp_path / f"{number}.jsonl", threading.Barrier(6), [], []

        def begin(path=path, ready=ready, begun=begun, refused=refused):
            ready.wait()
            try:
                begun.append(BlindVotes.begin(path, answers(300)))
            except WorkbenchError as error:
                refused.append(str(error))

        threads = [threading.Thread(target=begin) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(begun), len(refused)) == (1, 5)
        assert all("is there already" in said for said in refused)
        assert BlindVotes.resume(path).items == begun[0].items


def test_a_test_that_finds_no_room_leaves_no_file_in_the_way(path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("simpo_workbench.base.files.os.fsync", full)
    with pytest.raises(WorkbenchError, match="cannot be written: No space left"):
        BlindVotes.begin(path, answers())
    monkeypatch.undo()
    assert BlindVotes.begin(path, answers()).asked == 12


# --- the votes


def test_every_vote_is_in_the_table_with_the_winner_that_its_side_means(path):
    test = BlindVotes.begin(path, answers(5, same=1))
    for choice in CHOICES:
        test.vote(test.next_item(), choice)
    assert test.next_item() is None
    assert (test.asked, test.voted) == (5, 5)
    table = test.votes
    assert list(table.columns) == [
        "item",
        "prompt",
        "left_is",
        "choice",
        "winner",
        "first_tokens",
        "second_tokens",
        "blind",
        "at",
    ]
    asked = table[table["choice"] != "same"].reset_index(drop=True)
    assert list(asked["choice"]) == list(CHOICES)
    left_is = list(asked["left_is"])
    assert list(asked["winner"]) == [
        left_is[0],
        {"first": "second", "second": "first"}[left_is[1]],
        "tie",
        "both bad",
        "skip",
    ]
    assert list(table.loc[table["choice"] == "same", "winner"]) == ["same"]
    assert table.attrs["titles"] == {"first": "base", "second": "tuned"}


def test_answers_that_are_the_same_are_never_asked(path):
    test = BlindVotes.begin(path, answers(3, same=4), seed=1)
    asked = [prefer(test, "second").prompt for _ in range(3)]
    assert test.next_item() is None
    assert all(prompt.startswith("Question") for prompt in asked)
    same = next(item for item in test.items if item.same)
    with pytest.raises(WorkbenchError, match="is not asked"):
        test.vote(same, "tie")


def test_a_new_mind_and_an_undone_vote_are_lines_too_and_the_last_one_counts(path):
    test = BlindVotes.begin(path, answers(3))
    item = test.next_item()
    test.vote(item, "tie")
    test.vote(2, "skip")
    test.vote(item, "left")
    assert list(test.votes["choice"]) == ["left", "skip"]
    assert test.undo() == item
    assert list(test.votes["choice"]) == ["skip"], "an earlier vote on the same item does not come back"
    assert test.next_item() == item
    assert BlindVotes.resume(path).next_item() == item
    assert test.undo().number == 2
    with pytest.raises(WorkbenchError, match="no vote to take back"):
        test.undo()
    test.vote(item, "both bad")
    assert len(path.read_text().splitlines()) == 7, "nothing was erased"
    assert list(BlindVotes.resume(path).votes["choice"]) == ["both bad"]


def test_two_kernels_that_take_back_the_same_vote_leave_a_file_that_can_be_read(path):
    one = BlindVotes.begin(path, answers(3))
    one.vote(1, "left")
    other = BlindVotes.resume(path)
    assert one.undo() == other.items[0]
    with pytest.raises(WorkbenchError, match="no vote to take back"):
        other.undo()
    one.vote(1, "tie")
    for _ in range(2):  # as from two that both looked before either wrote
        append_jsonl(path, {"undo": 1, "at": 1.0})
    one.vote(2, "right")
    for test in (one, BlindVotes.resume(path)):
        assert list(test.votes["choice"]) == ["right"]
        assert test.next_item().number == 1


def test_a_kernel_knows_what_another_voted_in_the_same_test_as_soon_as_it_votes(path):
    one = BlindVotes.begin(path, answers(5))
    other = BlindVotes.resume(path)
    one.vote(1, "left")
    one.vote(2, "left")
    one.reveal()
    other.vote(1, "tie")
    assert (other.voted, other.next_item().number) == (2, 3)
    other.reveal()
    assert path.read_text().count("revealed") == 1
    one.vote(3, "skip")
    assert one.votes.drop(columns="left_is").equals(BlindVotes.resume(path).votes.drop(columns="left_is"))
    assert list(one.votes["choice"]) == ["tie", "left", "skip"]
    assert list(one.votes["blind"]) == [False, True, False]
    other.vote(4, "right")
    assert one.undo().number == 4


def test_a_vote_makes_no_new_file_where_the_test_is_gone(path):
    test = BlindVotes.begin(path, answers(3))
    test.vote(1, "left")
    away = path.rename(path.with_name("away.jsonl"))
    for act in (lambda: test.vote(2, "left"), test.undo, test.reveal):
        with pytest.raises(WorkbenchError, match=r"It is not saved.*blind\.jsonl' is gone"):
            act()
    assert not path.exists()
    assert (test.voted, test.blind) == (1, True)
    away.rename(path)
    test.vote(2, "left")
    assert BlindVotes.resume(path).voted == 2


def test_a_test_that_goes_between_the_look_and_the_vote_is_not_made_anew_either(path, monkeypatch):
    test = BlindVotes.begin(path, answers(3))
    monkeypatch.setattr(
        "simpo_workbench.analysis.blind_votes.read_jsonl_from", lambda path, end: path.unlink() or ([], end)
    )
    with pytest.raises(WorkbenchError, match="is gone"):
        test.vote(1, "left")
    assert not path.exists()


def test_a_kernel_that_goes_to_another_folder_votes_in_the_same_file(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    test = BlindVotes.begin("blind.jsonl", answers(3))
    monkeypatch.chdir(tmp_path / "other")
    test.vote(1, "left")
    assert BlindVotes.resume(tmp_path / "blind.jsonl").voted == 1


def test_a_file_that_something_else_rewrote_takes_no_vote(path):
    test = BlindVotes.begin(path, answers(3))
    path.write_text(path.read_text().replace("Question", "Frage"))
    before = path.read_bytes()
    with pytest.raises(WorkbenchError, match="something other than appended lines"):
        test.vote(1, "left")
    assert path.read_bytes() == before


def test_a_mark_that_some_editors_put_at_the_head_of_a_file_is_passed_over(path):
    BlindVotes.begin(path, answers(3)).vote(1, "left")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    test = BlindVotes.resume(path)
    test.vote(2, "tie")
    assert list(BlindVotes.resume(path).votes["choice"]) == ["left", "tie"]


@pytest.mark.parametrize(
    ("item", "choice", "said"),
    [
        (1, "first", "The choice is 'first'"),
        (0, "left", "Item 0"),
        (4, "left", "Item 4"),
        ("one", "left", "Item 'one'"),
    ],
)
def test_what_is_no_vote_is_refused_and_not_written(path, item, choice, said):
    test = BlindVotes.begin(path, answers(3))
    before = path.read_bytes()
    with pytest.raises(WorkbenchError, match=said):
        test.vote(item, choice)
    assert path.read_bytes() == before


def test_a_vote_that_cannot_be_written_does_not_count(path, monkeypatch):
    test = BlindVotes.begin(path, answers(3))
    test.vote(1, "left")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("simpo_workbench.analysis.blind_votes.append_jsonl", full)
    with pytest.raises(WorkbenchError, match=r"not saved, so it does not count.*No space left"):
        test.vote(2, "left")
    assert test.voted == 1
    assert test.next_item().number == 2


def test_a_killed_process_loses_no_vote(path):
    """It votes, says each vote that is saved, and is killed without warning while it goes on."""
    code = f"""
import pandas as pd
from simpo_workbench.analysis import BlindVotes
table = pd.DataFrame({{"prompt": [f"Question {{i}}?" for i in range(5000)], "first": "a", "second": "b"}})
test = BlindVotes.begin({str(path)!r}, table)
for number in range(1, 5001):
    test.vote(number, "left" if number % 2 else "tie")
    print(number, flush=True)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(wb.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as process:
        said = [int(process.stdout.readline()) for _ in range(40)]
        os.kill(process.pid, signal.SIGKILL)
        said += [int(line) for line in process.stdout.read().splitlines() if line.strip()]
    test = BlindVotes.resume(path)
    assert test.voted in (len(said), len(said) + 1), "the last one may have been saved and not been said"
    assert list(test.votes["choice"])[: len(said)] == ["left" if number % 2 else "tie" for number in said]
    assert test.next_item().number == test.voted + 1


@pytest.mark.parametrize("torn", [b'{"item": 3, "cho', b'{"item": 3, "choice": "left", "at": 1.0}', b"\xff\xfe"])
def test_a_torn_last_line_is_ignored_and_the_next_vote_stands_on_a_line_of_its_own(path, torn):
    test = BlindVotes.begin(path, answers(4))
    test.vote(1, "left")
    test.vote(2, "tie")
    with open(path, "ab") as file:
        file.write(torn)
    again = BlindVotes.resume(path)
    assert again.voted == 2
    assert again.next_item().number == 3
    again.vote(3, "skip")
    assert list(BlindVotes.resume(path).votes["choice"]) == ["left", "tie", "skip"]


@pytest.mark.parametrize(
    "line",
    [
        '{"item": 99, "choice": "left", "at": 1.0}',
        '{"item": 1, "choice": "up", "at": 1.0}',
        '{"undo": 99, "at": 1.0}',
        '{"undo": "1", "at": 1.0}',
        '{"item": 1, "choice": "left"}',
        '{"item": 1, "choice": "left", "at": "noon"}',
        '{"item": 1, "choice": "left", "at": null}',
        '{"item": 1, "choice": "left", "at": 1e30}',
        "not JSON",
    ],
)
def test_a_file_that_somebody_damaged_is_an_error_in_words(path, line):
    BlindVotes.begin(path, answers(4)).vote(1, "left")
    with open(path, "a") as file:
        file.write(line + "\n" + '{"item": 2, "choice": "left", "at": 1.0}\n')
    with pytest.raises(WorkbenchError, match="damaged"):
        BlindVotes.resume(path)


def test_votes_after_the_titles_were_shown_are_not_called_blind(path):
    test = BlindVotes.begin(path, answers(3))
    test.vote(1, "left")
    test.reveal()
    test.reveal()
    test.vote(2, "left")
    for one in (test, BlindVotes.resume(path)):
        assert not one.blind
        assert list(one.votes["blind"]) == [True, False]
    assert path.read_text().count("revealed") == 1


# --- export


def test_decided_votes_become_pairs_that_the_reader_takes(path, tmp_path):
    test = BlindVotes.begin(path, answers(6, same=2), seed=3)
    second = prefer(test, "second")
    first = prefer(test, "first")
    for choice in ("tie", "both bad", "skip"):
        test.vote(test.next_item(), choice)
    assert test.export(tmp_path / "pairs.jsonl") == 2
    pairs = wb.load_pairs(tmp_path / "pairs.jsonl")
    assert [(pair.prompt_text, pair.chosen, pair.rejected) for pair in pairs] == [
        (second.prompt, second.answer("second"), second.answer("first")),
        (first.prompt, first.answer("first"), first.answer("second")),
    ]
    assert [pair.extra for pair in pairs] == [
        {"source": "blind test", "winner": "tuned"},
        {"source": "blind test", "winner": "base"},
    ]
    with pytest.raises(WorkbenchError, match="nothing is replaced"):
        test.export(tmp_path / "pairs.jsonl")


def test_conversations_and_prompts_that_look_like_one_come_back_turn_for_turn(path, tmp_path):
    turns = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Why?"},
    ]
    transcript = "\n\nHuman: Is this one turn?\n\nAssistant:"
    table = pd.DataFrame(
        {
            "prompt": ["(shown)", turns, transcript, "Plain?"],
            "messages": [turns, None, None, None],
            "first": list("abcd"),
            "second": [" e", "f", " g", "h"],
        }
    )
    test = BlindVotes.begin(path, table)
    assert {item.prompt for item in test.items} == {
        "User: Hi.\n\nAssistant: Hello.\n\nUser: Why?",
        transcript,
        "Plain?",
    }
    while test.next_item():
        prefer(test, "second")
    test.export(tmp_path / "pairs.jsonl")
    # a prompt that is a transcript is a framed one, which is read as it is only where this is asked for
    found = {pair.rejected: pair for pair in wb.load_pairs(tmp_path / "pairs.jsonl", framed_prompts="keep")}
    assert [list(found[name].prompt) for name in "abcd"] == [
        turns,
        turns,
        [{"role": "user", "content": transcript}],
        [{"role": "user", "content": "Plain?"}],
    ]
    assert [found[name].chosen for name in "abcd"] == [" e", "f", " g", "h"]
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert next(row for row in rows if row["rejected"] == "d")["prompt"] == "Plain?"


def test_a_pair_that_no_data_set_could_use_is_left_out(path, tmp_path):
    test = BlindVotes.begin(
        path,
        pd.DataFrame({"prompt": ["One?", "Two?"], "first": ["", "a"], "second": ["b", "\ud800 half"]}, dtype=object),
    )
    while test.next_item():
        prefer(test, "second")
    assert test.export(tmp_path / "pairs.jsonl") == 1
    assert wb.load_pairs(tmp_path / "pairs.jsonl")[0].chosen == "? half"
    with pytest.raises(WorkbenchError, match="no pairs to write"):
        BlindVotes.begin(tmp_path / "none.jsonl", answers(2)).export(tmp_path / "none-pairs.jsonl")


def test_answers_that_a_run_sampled_at_two_steps_are_a_table_to_begin_with(path):
    rows = [
        (0, "A?", "Long.", 9),
        (0, "B?", "Longer.", 12),
        (4, "B?", "Short.", 3),
        (4, "C?", "New.", 2),
        (4, "B?", "Again.", 1),
    ]
    generations = pd.DataFrame(rows, columns=["step", "prompt", "answer", "tokens"])
    table = sampled_answers(generations, 0, 4)
    assert table.to_dict("records") == [
        {"prompt": "B?", "first": "Longer.", "first_tokens": 12, "second": "Short.", "second_tokens": 3}
    ]
    assert BlindVotes.begin(path, table).asked == 1
    with pytest.raises(
        WorkbenchError, match=r"Steps 0 and 2 have no sampled prompt in common: answers were sampled at \[0, 4\]"
    ):
        sampled_answers(generations, 0, 2)


def test_the_votes_of_a_test_go_straight_into_the_rate(path):
    test = BlindVotes.begin(path, answers(14, same=1), first="step 0", second="step 50")
    while test.next_item():
        prefer(test, "second")
    rate = win_rate(BlindVotes.resume(path).votes)
    assert "step 50 is better than step 0" in str(rate)
    assert rate.length_difference.value == pytest.approx(-30 * 14 / 15)
