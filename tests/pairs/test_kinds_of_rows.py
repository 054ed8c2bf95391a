"""What a user would lose: turns, tools and inputs that vanish, pictures trained as text, advice that does not work."""

import base64
import json

import pandas
import pyarrow
import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.pairs.media import is_media
from simpo_workbench.pairs.pairs import load_pairs

TOOL = {"type": "function", "function": {"name": "rain", "parameters": {"type": "object", "properties": {}}}}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c", "function": {"name": "rain", "arguments": "{}"}}],
}
USER, YES, NO = (
    {"role": role, "content": text} for role, text in (("user", "Rain?"), ("assistant", "Y"), ("assistant", "N"))
)
RESULT = {"role": "tool", "tool_call_id": "c", "content": "no"}


def pairs_of(*rows, **options):
    return [(pair.prompt_text, pair.chosen, pair.rejected) for pair in load_pairs(list(rows), **options)]


def refusal(*rows, **options):
    with pytest.raises(WorkbenchError) as error:
        load_pairs(list(rows), **options)
    return str(error.value)


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL])], ids=["list", "text"])
def test_tools_calls_and_results_stay_with_the_pair(tools):
    pair = load_pairs([{"tools": tools, "messages": [USER, CALL, RESULT], "chosen": YES, "rejected": CALL}])[0]
    assert pair.tools == (TOOL,)
    assert pair.prompt[1] == {"role": "assistant", "content": "", "tool_calls": CALL["tool_calls"]}
    assert pair.prompt[2] == {"role": "tool", "content": "no", "tool_call_id": "c"}
    assert (pair.chosen, pair.chosen_turn, pair.rejected) == ("Y", None, "")
    assert pair.rejected_turn == {"role": "assistant", "content": "", "tool_calls": CALL["tool_calls"]}
    assert "tools" not in pair.extra


def test_a_pair_with_tools_is_the_same_pair_after_it_was_saved(tmp_path):
    other = {
        "type": "function",
        "function": {"name": "sun", "parameters": {"properties": {"town": {"type": "string"}}}},
    }
    pairs = load_pairs(
        [
            {"tools": [TOOL], "prompt": [USER, CALL, RESULT], "chosen": CALL, "rejected": NO},
            {"tools": [other], "prompt": [USER], "chosen": {**YES, "reasoning_content": "Clouds."}, "rejected": NO},
            {"prompt": "p", "chosen": "a", "rejected": "b"},
        ]
    )
    pairs.to_frame().to_parquet(tmp_path / "a.parquet")
    for again in (load_pairs(pairs.df), load_pairs(tmp_path / "a.parquet")):
        assert list(again) == list(pairs)
    assert pairs[1].chosen_turn["reasoning_content"] == "Clouds."


def test_a_sharegpt_call_is_a_call():
    call = {"from": "function_call", "value": '{"name": "rain", "arguments": {"town": "Oslo"}}'}
    turns = [{"from": "human", "value": "Rain?"}, call, {"from": "observation", "value": "no"}]
    prompt = load_pairs([{"conversations": turns, "chosen": "a", "rejected": "b"}])[0].prompt
    assert prompt[1]["tool_calls"][0]["function"] == {"name": "rain", "arguments": {"town": "Oslo"}}
    assert prompt[2]["role"] == "tool"


@pytest.mark.parametrize("write", [json.dumps, str], ids=["JSON", "Python"])
def test_turns_as_text_are_turns_and_json_answers_are_answers(write, tmp_path):
    row = {"prompt": "Rain?", "chosen": write([USER, YES]), "rejected": write([USER, NO])}
    nurse = {
        "prompt": "Who?",
        "chosen": write({"role": "nurse", "content": "P"}),
        "rejected": write({"role": "x", "content": "P"}),
    }
    expected = [("Rain?", "Y", "N"), ("Who?", nurse["chosen"], nurse["rejected"])]
    assert pairs_of(row, nurse) == expected
    pandas.DataFrame([row, nurse]).to_csv(tmp_path / "a.csv", index=False)
    assert [(pair.prompt_text, pair.chosen, pair.rejected) for pair in load_pairs(tmp_path / "a.csv")] == expected


def test_what_numpy_prints_is_never_read_as_one_text():
    row = {"prompt": "p", "completions": "['a' 'b']", "ratings": "[1, 2]"}
    assert "known shape" in refusal(row)
    assert pairs_of({**row, "completions": "['a', 'b']"}) == [("p", "b", "a")]


RANKED = {"prompt": "p", "completions": ["a", "b", "c", "d"], "ratings": [1, 9, 5, 5]}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("best_worst", ["ba"]), ("adjacent", ["bc", "ca"]), ("all", ["bc", "bd", "ba", "ca", "da"])],
)
def test_a_ranking_becomes_pairs_by_the_named_policy(policy, expected):
    pairs = load_pairs([RANKED], pairs_from_ranking=policy)
    assert [pair.chosen + pair.rejected for pair in pairs] == expected
    assert [pair.extra["rating_margin"] for pair in pairs] == [
        {"a": 1, "b": 9, "c": 5, "d": 5}[one] - {"a": 1, "b": 9, "c": 5, "d": 5}[two] for one, two in expected
    ]
    assert f"data.pairs_from_ranking is {policy}" in str(pairs.report())
    assert (pairs.report().kept, pairs.report().pairs) == (1, len(expected))


@pytest.mark.parametrize(
    ("answer", "label", "good", "bad", "words"),
    [
        ("completion", "label", True, False, "'label', where True counts as good, as KTO has it"),
        ("completion", "label", 1, 0, "'label', where 1 counts as good, as KTO has it"),
        ("response", "label", "true", "false", "'label', where 'true' counts as good, as KTO has it"),
        ("response", "is_desirable", 1, 0, "'is_desirable', where 1 counts as good, as its name says"),
        ("answer", "thumbs_up", "1", "-1", "'thumbs_up', where '1' counts as good, as its name says"),
    ],
)
def test_the_report_says_which_label_of_one_answer_counts_as_good_and_why(answer, label, good, bad, words):
    rows = [{"prompt": "p", answer: text, label: value} for text, value in (("b", bad), ("g", good))]
    pairs = load_pairs(rows)
    assert (pairs[0].chosen, pairs[0].rejected) == ("g", "b")
    assert words in str(pairs.report())


@pytest.mark.parametrize(
    ("answer", "label"), [("response", "label"), ("output", "feedback"), ("answer", "binary_label")]
)
def test_numbers_that_no_name_settles_are_refused_with_what_to_do(answer, label):
    """A 1 may be a good answer, a toxic one, or a class."""
    rows = [{"prompt": "p", answer: text, label: value} for text, value in (("a", 0), ("b", 1))]
    with pytest.raises(WorkbenchError, match=f"unclear label 2 .*{label} is 0, .*call the column is_desirable"):
        load_pairs(rows)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"answers": ["a", "b"], "ranks": [1, 2]},
            "Which of 'answers' is better was read from 'ranks', where the lowest is",
        ),
        ({"completions": ["a", "b"], "ratings": [2, 1]}, "from 'ratings', where the highest is the best"),
        ({"completions": [{"text": "a", "score": 2}, {"text": "b", "score": 1}]}, "from 'score', where the highest"),
    ],
)
def test_it_is_said_what_graded_the_answers_and_in_which_direction(row, words):
    assert words in str(load_pairs([{"prompt": "p", **row}]).report())


def test_it_is_said_what_graded_rows_of_one_answer():
    rows = [{"prompt": "p", "completion": text, "rating": grade} for text, grade in (("a", 1), ("b", 3))]
    assert "better and worse by 'rating', where the highest is the best" in str(load_pairs(rows).report())
    rows = [{"prompt": "p", "completion": text, "label": grade} for text, grade in (("a", False), ("b", True))]
    assert "better and worse by 'label', where True counts as good" in str(load_pairs(rows).report())


@pytest.mark.parametrize("grade", [float("inf"), "-inf", "1e999"])
def test_an_infinite_grade_is_refused(grade):
    assert "finite number" in refusal({"prompt": "p", "answers": ["a", "b"], "ratings": [1, grade]})
    rows = [{"prompt": "p", "completion": text, "rating": value} for text, value in (("a", 1), ("b", grade))]
    assert "finite number" in refusal(*rows)
    scores = {"prompt": "p", "response_a": "a", "response_b": "b", "score_a": 1, "score_b": grade}
    assert "no number in score_b" in refusal(scores)


@pytest.mark.parametrize("written", [True, False], ids=["text", "lists"])
def test_lists_of_turns_are_read_as_the_conversations_that_they_are(written):
    """Chatbot Arena has all turns of a side in one column; '["A"]' was trained literally."""

    def row(prompt, first, second):
        values = {"prompt": prompt, "response_a": first, "response_b": second}
        return {key: json.dumps(value) if written else value for key, value in values.items()} | {"winner": "model_b"}

    assert pairs_of(row(["q"], ["A"], ["B"])) == [("q", "B", "A")]
    (pair,) = load_pairs([row(["q", "r"], ["A", "B"], ["A", "C"])])
    assert [turn["content"] for turn in pair.prompt] == ["q", "A", "r"]
    assert (pair.chosen, pair.rejected) == ("C", "B")
    assert "different histories" in refusal(row(["q", "r"], ["A", "B"], ["X", "C"]))


def test_a_list_of_one_text_is_that_text_beside_a_label_too():
    row = {"prompt": "q", "response_a": ["A"], "response_b": ["B"], "winner": "model_a"}
    assert pairs_of(row) == [("q", "A", "B")]
    # an answer in JSON to a question in words stays as it is
    row = {"prompt": "List it.", "response_a": '["A"]', "response_b": '["B"]', "winner": "model_a"}
    assert pairs_of(row) == [("List it.", '["A"]', '["B"]')]


@pytest.mark.parametrize("names", [("query", "response", "rejected_response"), ("instruction", "chosen", "rejected")])
@pytest.mark.parametrize(
    "history", ['[["a", "b"]]', '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]']
)
def test_a_history_written_as_text_is_a_history(names, history):
    row = dict(zip(names, ("q", "y", "n"), strict=True)) | {"history": history}
    (pair,) = load_pairs([row])
    assert [turn["content"] for turn in pair.prompt] == ["a", "b", "q"]
    assert load_pairs([row | {"history": "[]"}])[0].prompt_text == "q"


def test_ranks_are_better_when_lower_and_ratings_when_higher():
    assert pairs_of({"prompt": "p", "answers": ["a", "b"], "ranks": [1, 2]}) == [("p", "a", "b")]
    assert pairs_of({"prompt": "p", "answers": ["a", "b"], "ratings": [1, 2]}) == [("p", "b", "a")]
    assert "tie 1" in refusal({"prompt": "p", "answers": ["a", "b"], "ratings": [2, 2]})
    assert "2 answers and 3 ratings" in refusal({"prompt": "p", "answers": ["a", "b"], "ratings": [2, 1, 3]})
    assert "without ranks or ratings" in refusal({"prompt": "p", "completions": ["a", "b", "c"]})
    assert pairs_of({"prompt": "p", "answers": ["a", "b", "c"], "ratings": [2, "N/A", 1]}) == [("p", "a", "c")]


def test_several_rejected_answers_are_one_pair_or_all():
    row = {"messages": [USER, YES], "rejected_response": ["N", "M"]}
    assert pairs_of(row) == [("Rain?", "Y", "N")]
    assert "1 row with more than two answers" in str(load_pairs([row]).report())
    assert pairs_of(row, pairs_from_ranking="all") == [("Rain?", "Y", "N"), ("Rain?", "Y", "M")]


def test_rows_of_one_answer_are_paired_by_prompt():
    def rows(*answers):
        return [{"prompt": prompt, "completion": text, "label": good, "id": text} for prompt, text, good in answers]

    pairs = load_pairs(rows(("p", "a", True), ("q", "b", False), ("p", "c", False), ("p", "d", False)))
    assert [(pair.prompt_text, pair.chosen, pair.rejected) for pair in pairs] == [("p", "a", "c")]
    assert pairs[0].extra == {"id_chosen": "a", "id_rejected": "c"}
    assert pairs.report().refused == {"no partner": 1, "left over": 1}
    assert pairs.report().rows_read == pairs.report().kept + 2
    assert len(load_pairs(rows(("p", "a", 1), ("p", "c", 0), ("p", "d", -1)), pairs_from_ranking="all")) == 2
    assert "expected true or false" in refusal(*rows(("p", "a", "sports"), ("p", "b", "news")))


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(60)).decode()
MP4 = base64.b64encode(b"\0\0\0\x20ftypisom" + bytes(60)).decode()


@pytest.mark.parametrize(
    "value",
    ["shots/a 1.png".replace(" ", "_"), "https://a.org/b.mp4?x=1", PNG, MP4, f"data:image/png;base64,{PNG}",
     base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(60)).decode(), b"\x89PNG\r\n", ["a.jpg", "b.jpg"],
     {"bytes": b"GIF89a", "path": None}, {"bytes": None, "path": "a.webm"}],
    ids=range(10),
)  # fmt: skip
def test_media_are_recognised_by_value_under_any_name(value):
    assert is_media(value)
    assert "image or other non-text part 1" in refusal({"prompt": "p", "chosen": "a", "rejected": "b", "visual": value})


@pytest.mark.parametrize(
    "value", ["see a.png", "notes.txt", "iVBORw0KGgo", "", "AAAA" * 30, 7, None, ["a.png", "x"], {"path": "a"}]
)
def test_ordinary_values_are_no_media(value):
    assert not is_media(value)
    assert len(load_pairs([{"prompt": "p", "chosen": "logo.png", "rejected": "a logo", "visual": value}])) == 1


def test_media_in_a_turn_and_as_answers_are_refused():
    turn = {"role": "user", "content": "<image>What?", "files": ["a.png"]}
    for row in (
        {"prompt": [turn], "chosen": "a", "rejected": "b"},
        {"prompt": "a cat", "chosen": "c/1.png", "rejected": "c/2.png"},
        {"prompt": "a cat", "chosen": PNG, "rejected": "none"},
    ):
        assert "image or other non-text part 1" in refusal(row)


def test_columns_that_are_not_shown_to_the_model_are_named():
    rows = [
        {"frage": f"p{n}", "chosen": "a", "rejected": "b", "history": "He: x", "system_prompt": "Be."} for n in range(2)
    ]
    said = str(load_pairs(rows, columns={"prompt": "frage"}).report())
    assert "'history' (2 pairs), 'system_prompt' (2 pairs)" in said
    repeated = {"prompt": "p", "chosen": "a", "rejected": "b", "messages": [{"role": "user", "content": "p"}]}
    assert "Not shown" not in str(load_pairs([repeated]).report())


def test_input_and_history_are_kept_under_a_mapping():
    row = {"instruction": "Shorten:", "input": "a b", "good": "a", "bad": "b"}
    mapping = {"prompt": "instruction", "chosen": "good", "rejected": "bad"}
    assert pairs_of(row, columns=mapping) == [("Shorten:\na b", "a", "b")]
    swift = {"query": "q", "response": "a", "no": "b", "history": [["x", "y"]]}
    assert pairs_of(swift, columns={"prompt": "query", "chosen": "response", "rejected": "no"}) == [
        ("User: x\n\nAssistant: y\n\nUser: q", "a", "b")
    ]


def test_contradicting_pairs_are_counted():
    rows = [{"prompt": "p", "chosen": a, "rejected": b} for a, b in ("xy", "yx", "xz")]
    rows.append({"prompt": "q", "chosen": "y", "rejected": "x"})
    said = str(load_pairs(rows).report())
    assert "1 pair contradicts another one" in said
    assert "first row 1 and row 2" in said


def test_advice_is_tried_before_it_is_given():
    good = {"riddle": "p", "best_text": "a", "worst_text": "b"}
    mapping = {"prompt": "riddle", "chosen": "best_text", "rejected": "worst_text"}
    assert f"Try columns={mapping}" in refusal(good)
    assert pairs_of(good, columns=mapping) == [("p", "a", "b")]
    assert "Try columns" not in refusal({"riddle": {"x": 1}, "best_text": 3, "worst_text": 4})


def test_a_zstandard_file_is_read_and_a_bomb_is_refused(tmp_path):
    rows = "".join(json.dumps({"prompt": f"p{n}", "chosen": "a", "rejected": "b"}) + "\n" for n in range(3)).encode()
    packed = pyarrow.compress(rows, codec="zstd", asbytes=True)
    (tmp_path / "a.jsonl.zst").write_bytes(packed)
    assert len(load_pairs(tmp_path / "a.jsonl.zst")) == 3
    (tmp_path / "cut.jsonl.zst").write_bytes(packed[:-9])
    (tmp_path / "bomb.jsonl.zst").write_bytes(pyarrow.compress(b" " * 10_000_000, codec="zstd", asbytes=True) * 12)
    for name, said in (("cut", "damaged Zstandard file"), ("bomb", "unfolds to more than 100,000,000 bytes")):
        with pytest.raises(WorkbenchError, match=said):
            load_pairs(tmp_path / f"{name}.jsonl.zst")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv"])
def test_a_git_lfs_pointer_is_named_as_one(name, tmp_path):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0a1b\nsize 12345\n")
    with pytest.raises(WorkbenchError, match="Git LFS pointer, not the file of 12,345 bytes.*git lfs pull"):
        load_pairs(tmp_path / name)


@pytest.mark.parametrize(
    "value",
    [
        {"frames": ["a/1.png", "a/2.png"]},
        {"clip": {"place": "film.mp4"}},
        [{"still": {"path": "a.jpg", "bytes": None}}],
        [{"type": "text", "text": "Look:"}, {"type": "picture", "where": "https://x.org/a.webp?w=2"}],
        [{"any": {"bytes": b"\x89PNG\r\n\x1a\n0000"}}],
        {"parts": [{"url": "data:audio/wav;base64,UklGRg=="}]},
    ],
    ids=["frames", "a clip", "stills", "parts", "bytes", "a data address"],
)
def test_media_below_keys_of_any_name_are_recognised_by_their_value(value):
    row = {"prompt": "What is this?", "chosen": "A cat.", "rejected": "A dog.", "shown": value}
    with pytest.raises(WorkbenchError, match="'shown' holds"):
        load_pairs([row])


def test_nested_columns_without_media_are_kept():
    shown = {"frames": [], "scores": [1, 2], "model": {"name": "x", "note": "It ends in a.png"}, "more": None}
    row = {"prompt": "What is this?", "chosen": "A cat.", "rejected": "A dog.", "shown": shown}
    tool = {"name": "draw", "parameters": {"type": "object", "properties": {"to": {"default": "out.png"}}}}
    (pair,) = load_pairs([{**row, "tools": [tool]}])
    assert (pair.extra, pair.tools) == ({"shown": shown}, (tool,))


def test_prompts_that_spell_a_list_as_text_are_said():
    """Beside lists of turns they are a sign that a column was written as text, and the model would see its brackets."""
    turns = [{"prompt": [{"role": "user", "content": str(n)}], "chosen": "a", "rejected": "b"} for n in range(2)]
    report = str(load_pairs([*turns, {"prompt": "['What is it?']", "chosen": "a", "rejected": "b"}]).report())
    assert "1 prompt is a text that spells a list: the model is shown its brackets (first: row 3," in report
    assert "spells a list" not in str(
        load_pairs([*turns, {"prompt": "[sic]", "chosen": "a", "rejected": "b"}]).report()
    )
