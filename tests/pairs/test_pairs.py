"""Loading preference pairs: a silent loss, a swapped side or a leaking split here spoils every number after it."""

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
import stub_hub
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.pairs import hub as pair_hub
from simpo_workbench.pairs.pairs import load_pairs
from simpo_workbench.pairs.shapes import PROMPTS, SHAPES

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
ROOT = Path(__file__).parents[2]
ROWS = [
    {"prompt": "Sky?", "chosen": 'Blue,\r\n"mostly".', "rejected": "Green.", "score": 0.5, "tag": "007"},
    {"prompt": "Grass?", "chosen": "Grün – ja.", "rejected": "Blau\u2028nein.", "score": 2, "tag": "x"},
    {"prompt": "Null?", "chosen": "NA", "rejected": "null", "score": 1, "tag": "y"},
]


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(source, **options):
    """The sentence with which a source is refused."""
    with pytest.raises(WorkbenchError) as error:
        load_pairs(source, **options)
    text = str(error.value)
    assert "Traceback" not in text
    assert "\n" not in text
    return text


@pytest.fixture
def every_format(tmp_path):
    frame = pandas.DataFrame(ROWS)
    csv, parquet = tmp_path / "a.csv", tmp_path / "a.parquet"
    frame.to_csv(csv, index=False)
    frame.to_parquet(parquet)
    files = {
        "jsonl": write(tmp_path / "a.jsonl", jsonl(ROWS)),
        "json": write(tmp_path / "a.json", json.dumps(ROWS, indent=1)),
        "json object": write(tmp_path / "b.json", json.dumps({"version": 1, "data": ROWS})),
        "json lines in .json": write(tmp_path / "c.json", jsonl(ROWS)),
        "json in .jsonl": write(tmp_path / "d.jsonl", json.dumps(ROWS, indent=1)),
        "no extension": write(tmp_path / "rows", jsonl(ROWS)),
        "BOM": write(tmp_path / "bom.jsonl", "\ufeff" + jsonl(ROWS)),
        "CRLF": write(tmp_path / "crlf.jsonl", jsonl(ROWS).replace("\n", "\r\n")),
        "csv": csv,
        "parquet": parquet,
        "misnamed parquet": write(tmp_path / "p.json", parquet.read_bytes()),
    }
    for kind in ("jsonl", "json", "csv"):
        files[f"{kind}.gz"] = write(tmp_path / f"z.{kind}.gz", gzip.compress(files[kind].read_bytes()))
    return files | {"DataFrame": frame, "list": ROWS}


def test_one_pair_has_one_id_in_every_format(every_format):
    expected = load_pairs(ROWS)
    for kind, source in every_format.items():
        pairs = load_pairs(source)
        assert list(pairs.df.pair_id) == list(expected.df.pair_id), kind
        assert pairs.content_hash == expected.content_hash
        assert pairs[0].chosen == ROWS[0]["chosen"], kind
        assert pairs[2].rejected == "null", kind
        assert list(pairs.df.columns) == ["pair_id", "prompt", "chosen", "rejected", "score", "tag"], kind
        assert list(pairs.df.score) == [0.5, 2, 1], kind
        assert list(pairs.df.tag) == ["007", "x", "y"], kind


def test_turns_survive_csv_as_json_and_as_python_prints_them(tmp_path):
    turns = [{"role": "user", "content": 'it\'s "x"'}]
    expected = load_pairs([{"prompt": turns, "chosen": "a", "rejected": "b"}])
    frame = pandas.DataFrame([{"prompt": turns, "chosen": "a", "rejected": "b"}])
    frame.to_csv(tmp_path / "python.csv", index=False)
    frame.assign(prompt=json.dumps(turns)).to_csv(tmp_path / "json.csv", index=False)
    for name in ("python.csv", "json.csv"):
        assert load_pairs(tmp_path / name).content_hash == expected.content_hash
    write(
        tmp_path / "numpy.csv",
        "prompt,chosen,rejected\n\"[{'role': 'user', 'content': 'p'}\n {'role': 'user', 'content':"
        " 'q'}]\",a,b\nSky?,c,d\n",
    )
    report = load_pairs(tmp_path / "numpy.csv").report()
    assert report.refused == {"unreadable": 1}
    assert report.first["unreadable"].where == "line 2"


def test_every_row_is_kept_or_counted_with_its_place(tmp_path):
    lines = [
        json.dumps(ROWS[0]),
        "",
        '{"prompt": "p", "chosen": "a"',
        json.dumps({"prompt": "p", "chosen": " ", "rejected": "b"}),
        json.dumps({"prompt": "p", "chosen": "a", "rejected": "a"}),
        json.dumps({"prompt": "p", "chosen": "a"}),
        json.dumps({"prompt": 1, "chosen": "a", "rejected": "b"}),
        json.dumps({**ROWS[0], "score": 9}),
        json.dumps({"prompt": "p", "chosen": "", "rejected": "b"}),
        "17",
        '{"prompt": "cut o',
    ]
    report = load_pairs(write(tmp_path / "mixed.jsonl", "\n".join(lines))).report()
    assert (report.rows_read, report.kept) == (10, 1)
    assert report.refused == {
        "unreadable": 2,
        "empty": 2,
        "identical": 1,
        "missing": 1,
        "wrong type": 2,
        "duplicate": 1,
    }
    assert report.rows_read == report.kept + sum(report.refused.values())
    assert {reason: first.where for reason, first in report.first.items()} == {
        "unreadable": "line 3",
        "empty": "line 4",
        "identical": "line 5",
        "missing": "line 6",
        "wrong type": "line 7",
        "duplicate": "line 8",
    }
    assert report.first["duplicate"].seen == "the same pair as line 1"
    assert "10 rows read, 1 kept, 9 refused: unreadable 2 (first: line 3" in str(report)


def test_a_torn_last_line_is_told_as_one(tmp_path):
    report = load_pairs(write(tmp_path / "torn.jsonl", jsonl(ROWS) + '{"prompt": "cut o')).report()
    assert (report.kept, report.refused) == (3, {"unreadable": 1})
    assert "the last line; the file may be cut off" in report.first["unreadable"].seen


def test_csv_rows_that_do_not_fit_the_header_are_counted(tmp_path):
    text = 'prompt;chosen;rejected\np;a;b\np;a;b;c\np;a\n"q\nq";c;d\n"never closed;e;f\n'
    report = load_pairs(write(tmp_path / "a.csv", text)).report()
    assert (report.rows_read, report.kept, report.refused) == (5, 2, {"unreadable": 2, "missing": 1})
    assert report.first["unreadable"].where == "line 3"
    assert report.first["missing"].where == "line 4"


def test_an_answer_longer_than_the_csv_readers_default_is_read_whole(tmp_path):
    pandas.DataFrame([{"prompt": "p", "chosen": "x" * 200_000, "rejected": "b"}]).to_csv(
        tmp_path / "long.csv", index=False
    )
    assert len(load_pairs(tmp_path / "long.csv")[0].chosen) == 200_000


def test_columns_are_mapped_and_a_clash_steps_aside(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        jsonl(
            [
                {
                    "q": "Sky?",
                    "good": "Blue.",
                    "bad": "Green.",
                    "sys": "Be short.",
                    "prompt": "template 3",
                    "pair_id": "mine",
                }
            ]
        ),
    )
    pairs = load_pairs(path, columns={"prompt": "q", "chosen": "good", "rejected": "bad", "system": "sys"})
    assert pairs[0].prompt == ({"role": "system", "content": "Be short."}, {"role": "user", "content": "Sky?"})
    assert pairs[0].extra == {"prompt_in_file": "template 3", "pair_id_in_file": "mine"}
    assert list(pairs.df.columns) == ["pair_id", "prompt", "chosen", "rejected", "prompt_in_file", "pair_id_in_file"]


def test_mapping_can_turn_a_known_shape_round():
    row = {"question": "Sky?", "response_j": "Blue.", "response_k": "Green."}
    pair = load_pairs([row], columns={"prompt": "question", "chosen": "response_k", "rejected": "response_j"})[0]
    assert (pair.chosen, pair.rejected) == ("Green.", "Blue.")


def test_wrong_mappings_name_what_is_there():
    rows = [{"question": "Sky?", "good": "Blue.", "bad": "Green."}]
    text = refusal(rows, columns={"prompt": "qestion", "chosen": "good", "rejected": "bad"})
    assert "'qestion'" in text
    assert "question, good, bad" in text
    assert "Nearest: 'question'" in text
    assert "Did you mean 'prompt'?" in refusal(rows, columns={"promt": "question"})
    assert "twice" in refusal(rows, columns={"prompt": "good", "chosen": "good"})
    assert "mapping" in refusal(rows, columns=["question"])


def test_unknown_columns_are_refused_with_a_mapping_to_try():
    rows = [{"question": "Sky?", "good_answer": "Blue.", "bad_answer": "Green."}]
    text = refusal(rows)
    mapping = {"prompt": "question", "chosen": "good_answer", "rejected": "bad_answer"}
    assert f"Try columns={mapping}" in text
    assert "question, good_answer, bad_answer" in text
    assert load_pairs(rows, columns=mapping)[0].chosen == "Blue."
    assert "Try columns={'prompt': 'riddle', 'chosen': 'chosen'" in refusal(
        [{"riddle": "Sky?", "chosen": "a", "rejected": "b"}]
    )


def test_data_without_pairs_is_refused_as_a_whole(tmp_path):
    turns = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}]
    text = refusal([{"messages": turns, "label": True}])
    assert "messages, label" in text
    assert "unpaired feedback" in text
    assert "docs/data-shapes.md" in text
    assert "supervised answers" in refusal([{"messages": turns, "images": ["1.jpg"]}])
    assert "no 'rejected'" in refusal([{"prompt": "p", "chosen": "a", "topic": "x"}])
    headless = refusal(write(tmp_path / "headless.csv", "Sky?,Blue.,Green.\nGrass?,Green.,Blue.\n"))
    assert "Sky?, Blue., Green." in headless
    assert "Is its first line a header?" in headless


BAD_FILES = {
    "empty.jsonl": (b"", "empty.jsonl is empty"),
    "blank.json": (b" \n\n", "blank.json is empty"),
    "image.jsonl": (b"\x89PNG\r\n\x1a\n\0\0", "a PNG image"),
    "model.gguf": (b"GGUF\x03\0\0\0", "a GGUF model"),
    "nul.csv": (b"prompt,chosen\0", "a NUL byte at position 13"),
    "latin.csv": ("prompt,chosen,rejected\nGrün,a,b\n".encode("latin-1"), "byte 0xfc at position 25"),
    "wide.jsonl": ('{"a": 1}'.encode("utf-16"), "UTF-16"),
    "notes.txt": (b"Dear diary", "no known extension"),
    "broken.json": (b'[{"prompt": "p",\n "chosen" "a"}]', "(line 2, column 11)"),
    "lines.jsonl": (b"hello\nworld\n", "first: line 1"),
    "number.json": (b"42", "expected a list of rows"),
    "list.json": (b"[]", "empty list"),
    "numbers.json": (b"[1, 2]", "wrong type 2"),
    "config.json": (b'{"lr": 1, "beta": 2}', "Columns found: lr, beta"),
    "two.json": (b'{"a": [{"x": 1}], "b": [{"x": 1}]}', "several lists of rows (a, b)"),
    "deep.json": (b"[" * 100_000, "nested too deeply"),
    "deep.jsonl": (
        b'{"prompt": "p", "chosen": "a", "rejected": "b", "x": ' + b"[" * 300 + b"]" * 300 + b"}",
        "nested deeper than 100",
    ),
    "header.csv": (b"prompt,chosen,rejected\n", "holds no rows"),
    "twice.csv": (b"prompt,prompt,chosen\na,b,c\n", "two columns called 'prompt'"),
    "rows.parquet": (b"PAR1 and then nothing of the kind", "no readable Parquet file"),
    "rows.jsonl.gz": (gzip.compress(b'{"prompt": "p"}' * 50)[:-12], "damaged gzip"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_one_clear_sentence(tmp_path, name):
    content, said = BAD_FILES[name]
    text = refusal(write(tmp_path / name, content))
    assert said in text
    assert name in text


def test_a_damaged_parquet_page_is_said(tmp_path):
    pandas.DataFrame([{"prompt": f"p{n}", "chosen": "a", "rejected": "b"} for n in range(500)]).to_parquet(
        tmp_path / "a.parquet"
    )
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[40:400] = b"\xff" * 360
    assert "damaged.parquet" in refusal(write(tmp_path / "damaged.parquet", bytes(data)))


def test_a_missing_file_names_the_nearest(tmp_path):
    write(tmp_path / "preferences.jsonl", jsonl(ROWS))
    assert "Nearest in" in refusal(tmp_path / "preference.jsonl")
    assert "preferences.jsonl" in refusal(str(tmp_path / "preference.jsonl"))
    assert "does not exist either" in refusal(tmp_path / "nowhere" / "a.jsonl")
    (tmp_path / "empty").mkdir()
    assert "no data file" in refusal(tmp_path / "empty")


@pytest.mark.parametrize(
    "source",
    [
        None,
        7,
        {"prompt": "p"},
        "",
        "x" * 5000 + ".jsonl",
        "a\0b",
        "https://example.org/a.jsonl",
        [],
        pandas.DataFrame(),
    ],
)
def test_a_source_of_the_wrong_kind_is_refused(source):
    assert len(refusal(source)) < 400


def test_odd_values_in_extra_columns_do_no_harm(tmp_path):
    extra = [
        "NaN",
        "Infinity",
        "1" * 5000,
        "12345678901234567890123",
        '"half \\ud800"',
        "[[1], {}]",
        "{}",
        "null",
        "true",
    ]
    lines = [
        f'{{"prompt": "p{n}", "chosen": "a", "rejected": "b", "odd": {value}, "\\ud800": 1}}'
        for n, value in enumerate(extra)
    ]
    pairs = load_pairs(write(tmp_path / "odd.jsonl", "\n".join(lines)))
    assert len(pairs) == len(extra)
    assert pairs.df.odd[3] == "12345678901234567890123"
    pairs.to_frame().to_parquet(tmp_path / "odd.parquet")
    again = load_pairs(tmp_path / "odd.parquet")
    assert again.content_hash == pairs.content_hash
    assert list(again.df.columns) == list(pairs.df.columns)


def test_a_saved_frame_loads_as_the_same_pairs(tmp_path):
    pairs = load_pairs([{**row, "system": "Be short."} for row in ROWS])
    pairs.to_frame().to_parquet(tmp_path / "saved.parquet")
    for again in (load_pairs(tmp_path / "saved.parquet"), load_pairs(pairs.df)):
        assert again.content_hash == pairs.content_hash
        assert list(again.df.columns) == list(pairs.df.columns)
        assert [pair.prompt for pair in again] == [pair.prompt for pair in pairs]
    assert len(load_pairs(pairs.df[pairs.df.score > 0.6])) == 2


def test_missing_values_of_a_frame_are_missing():
    frame = pandas.DataFrame(
        {
            "prompt": ["p", "q", None],
            "chosen": ["a", float("nan"), "c"],
            "rejected": ["b", "b", "b"],
            "score": [1, None, 2],
        }
    )
    report = load_pairs(frame).report()
    assert (report.kept, report.refused) == (1, {"missing": 2})
    assert report.first["missing"].where == "row 2"


def test_a_folder_is_read_file_by_file_and_leaves_evaluation_files_out(tmp_path):
    (tmp_path / "more").mkdir()
    write(tmp_path / "train-1.jsonl", jsonl(ROWS[:1]))
    write(tmp_path / "more" / "b.json", json.dumps(ROWS[1:2]))
    write(tmp_path / "test-1.jsonl", jsonl(ROWS[2:]))
    write(tmp_path / ".hidden.jsonl", "broken")
    write(tmp_path / "README.md", "# rows")
    pairs = load_pairs(tmp_path)
    assert [pair.prompt_text for pair in pairs] == ["Grass?", "Sky?"]
    assert "test-1.jsonl" in str(pairs.report())
    (tmp_path / "train-1.jsonl").unlink()
    assert len(load_pairs(tmp_path)) == 2


def test_split_folders_do_not_leak(tmp_path):
    for split, row in (("train", ROWS[0]), ("validation", ROWS[1])):
        (tmp_path / split).mkdir()
        write(tmp_path / split / "rows.jsonl", jsonl([row]))
    assert [pair.prompt_text for pair in load_pairs(tmp_path)] == ["Sky?"]
    assert [pair.prompt_text for pair in load_pairs(tmp_path / "validation")] == ["Grass?"]


def test_a_folder_counts_rows_of_files_without_pairs(tmp_path):
    write(tmp_path / "a.jsonl", jsonl(ROWS))
    write(tmp_path / "kto.json", json.dumps([{"messages": [], "label": True}] * 4))
    report = load_pairs(tmp_path).report()
    assert (report.rows_read, report.kept, report.refused) == (7, 3, {"no known shape": 4})
    assert report.first["no known shape"].where == "kto.json row 1"


def test_a_broken_file_in_a_folder_is_named(tmp_path):
    write(tmp_path / "a.jsonl", jsonl(ROWS))
    write(tmp_path / "b.json", "[1,")
    assert "b.json is broken JSON" in refusal(tmp_path)


def test_limit_counts_kept_pairs_and_says_so():
    rows = [{"prompt": "p", "chosen": "a", "rejected": "a"}, *ROWS]
    pairs = load_pairs(rows, limit=2)
    assert (len(pairs), pairs.report().rows_read) == (2, 3)
    assert "limit=2" in str(pairs.report())
    assert "limit is 0" in refusal(rows, limit=0)


def many_pairs():
    return [{"prompt": f"prompt {n % 40}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(100)]


def test_no_prompt_is_on_both_sides_of_a_split():
    train, evaluation = load_pairs(many_pairs()).split(0.25, seed=0)
    sides = [{pair.prompt_text for pair in side} for side in (train, evaluation)]
    assert len(train) + len(evaluation) == 100
    assert [len(side) for side in sides] == [30, 10]
    assert not sides[0] & sides[1]


def test_a_split_depends_on_contents_and_seed_only():
    rows = many_pairs()
    shuffled = random.Random(1).sample(rows, len(rows))
    hashes = [side.content_hash for side in load_pairs(rows).split(0.1, seed=7)]
    assert hashes == [side.content_hash for side in load_pairs(shuffled).split(0.1, seed=7)]
    assert hashes != [side.content_hash for side in load_pairs(rows).split(0.1, seed=8)]


def test_a_split_leaves_a_prompt_on_each_side_or_says_why_not():
    two = load_pairs(ROWS[:2])
    assert [len(side) for side in two.split(0.01, seed=0)] == [1, 1]
    assert [len(side) for side in two.split(0.99, seed=0)] == [1, 1]
    with pytest.raises(WorkbenchError, match="1 prompt: a split by prompt needs two"):
        load_pairs(ROWS[:1]).split(0.1, seed=0)
    with pytest.raises(WorkbenchError, match="between 0 and 1"):
        two.split(1.0, seed=0)


def test_the_content_hash_is_of_the_set_of_pairs():
    assert load_pairs(ROWS).content_hash == load_pairs(ROWS[::-1]).content_hash
    assert load_pairs(ROWS).content_hash == load_pairs([{**row, "score": 3} for row in ROWS]).content_hash
    assert load_pairs(ROWS).content_hash != load_pairs(ROWS[:2]).content_hash


def test_pairs_read_like_a_sequence_and_print_what_they_are():
    pairs = load_pairs(ROWS, name="colours")
    assert [pair.prompt_text for pair in pairs[:2]] == ["Sky?", "Grass?"]
    assert len(pairs.limit(None)) == 3
    assert pairs[1].extra == {"score": 2, "tag": "x"}
    text = str(pairs)
    assert "colours: 3 pairs on 3 prompts" in text
    assert "'Sky?'" in text
    assert "score, tag" in text
    copy = pairs.to_frame()
    copy.loc[0, "chosen"] = "changed"
    assert pairs.df.chosen[0] == ROWS[0]["chosen"]
    assert load_pairs(pairs, limit=1)[0] == pairs[0]


def test_importing_pairs_loads_no_heavy_library():
    code = (
        "import sys, simpo_workbench.pairs.pairs; print(sorted({'torch', 'pandas', 'pyarrow', 'datasets', 'numpy'} &"
        " set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.parquet", "a.bin", "a.json.gz"]),
    content=st.one_of(
        st.binary(max_size=200),
        st.text(alphabet="{}[]\",:\n\r;'\\ 0aé\ud800promtchsnejd", max_size=120).map(
            lambda text: text.encode("utf-8", "surrogatepass")
        ),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["prompt", "chosen", "rejected", "role", "content", "from", "value", "type", "text"]
                    ),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps(value).encode()),
    ),
)
def test_no_bytes_bring_out_another_error(tmp_path, name, content):
    try:
        pairs = load_pairs(write(tmp_path / name, content))
    except WorkbenchError as error:
        assert str(error)
    else:
        assert len(pairs.df) == pairs.report().kept > 0


ROW_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "type", "text"]),
            inner | st.sampled_from(["user", "gpt"]),
            max_size=4,
        )
    ),
    max_leaves=8,
)
OPTIONAL_COLUMNS = {"system", "tools", "input", "history"}
PAIR_COLUMNS = sorted({column for shape in SHAPES for column in shape.columns} | OPTIONAL_COLUMNS | set(PROMPTS))
PAIR_COLUMNS += ["response_a", "response_b", "winner", "completions", "ratings", "ranks", "completion", "label"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from([*PAIR_COLUMNS, "images", "x"]), ROW_VALUES, max_size=6), max_size=4))
def test_rows_of_any_values_are_kept_or_counted(rows):
    try:
        pairs = load_pairs(rows)
    except WorkbenchError as error:
        assert str(error)
    else:
        report = pairs.report()
        assert report.rows_read == len(rows) == len(pairs.to_frame()) + sum(report.refused.values())


def test_datasets_are_read_with_their_order_and_splits(tmp_path):
    import datasets

    dataset = datasets.Dataset.from_list(ROWS)
    assert load_pairs(dataset).content_hash == load_pairs(ROWS).content_hash
    assert [pair.prompt_text for pair in load_pairs(dataset.select([2, 0]))] == ["Null?", "Sky?"]
    assert len(load_pairs(dataset.to_iterable_dataset())) == 3
    torn = dataset.to_iterable_dataset().map(lambda row: {"score": 1 / row["no such column"]})
    assert "Dataset stopped after row 0" in refusal(torn)
    both = datasets.DatasetDict({"train": dataset, "test": dataset.select([0])})
    assert len(load_pairs(both)) == 3
    assert "splits a, b" in refusal(datasets.DatasetDict({"a": dataset, "b": dataset}))
    both.save_to_disk(tmp_path / "saved")
    assert load_pairs(tmp_path / "saved").content_hash == load_pairs(ROWS).content_hash


HUB_FILES = {"train.jsonl": jsonl(ROWS).encode(), "test.jsonl": jsonl(ROWS[:1]).encode()}


def load_through_hub(ids, folder, **environment):
    """What load_pairs makes of each id, in a process of its own: the pairs' content hash or the error's sentence."""
    code = (
        "import sys, json\nfrom simpo_workbench.base.errors import WorkbenchError\nfrom simpo_workbench.pairs.pairs"
        " import load_pairs\ndef outcome(source):\n    try:\n        return load_pairs(source).content_hash\n    except"
        " WorkbenchError as error:\n        return str(error)\nprint(json.dumps([outcome(source) for source in"
        " sys.argv[1:]]))"
    )
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.lower().endswith("_proxy") and not key.startswith("HF_")
    }
    environment = clean | {"HF_HOME": str(folder / "hub"), "PYTHONPATH": str(ROOT), "NO_PROXY": "*"} | environment
    command = [sys.executable, "-c", code, *ids]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=folder, timeout=120)
    return json.loads(done.stdout.splitlines()[-1])


def test_hub_ids_load_and_hub_failures_say_what_to_do(tmp_path):
    ids = ["me/pairs", "me/pairs:test", "me/pairs:prefs", "me/gated", "me/nothing"]
    with stub_hub.serve("datasets", "me/pairs", HUB_FILES) as (endpoint, _):
        whole, first, no_split, gated, nothing = load_through_hub(ids, tmp_path, HF_ENDPOINT=endpoint)
    assert whole == load_pairs(ROWS).content_hash
    assert first == load_pairs(ROWS[:1]).content_hash
    assert "no split 'prefs'" in no_split
    assert "train" in no_split
    assert "is gated" in gated
    assert "hf auth login" in gated
    assert "'me/nothing' is neither a file here nor a dataset" in nothing


def test_without_a_network_the_hub_is_said_to_be_out_of_reach(tmp_path):
    write(tmp_path / "pairs-of-mine", jsonl(ROWS))
    answers = load_through_hub(["me/elsewhere", "pairs-of-min"], tmp_path, HF_HUB_OFFLINE="1")
    assert "the hub cannot be reached" in answers[0]
    assert "pairs-of-mine" in answers[1]


def test_a_forgotten_ending_is_named_at_once_and_no_hub_is_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my_pairs.jsonl.gz", "")
    write(tmp_path / "my_pairs.txt", "")
    monkeypatch.setattr(pair_hub, "read_hub", lambda source: pytest.fail("the hub was asked"))
    with pytest.raises(WorkbenchError, match=r"There is no file or folder my_pairs. Nearest in .: my_pairs.jsonl.gz."):
        load_pairs("my_pairs")


def test_a_hub_whose_name_nobody_knows_is_not_tried_again_and_again(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr(pair_hub.urllib.request, "getproxies", dict)
    seen = []
    monkeypatch.setattr(
        "datasets.load_dataset", lambda *names, **more: seen.append(huggingface_hub.constants.HF_HUB_OFFLINE)
    )
    monkeypatch.setattr(pair_hub, "read_dataset", lambda dataset, source: "rows")
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    assert pair_hub.read_hub("me/pairs") == "rows"
    assert seen == [True], "from the cache or not at all"
    assert huggingface_hub.constants.HF_HUB_OFFLINE is before


SHARED_COUNTS = {
    "llamafactory/kto_en_demo.json": (300, {"no partner": 298}),
    "llamafactory/dpo_en_demo.json": (300, {"duplicate": 5}),
    "llamafactory/dpo_zh_demo.json": (300, {"duplicate": 11}),
    "llamafactory/v1_dpo_demo.jsonl": (10, {}),
    "llmbar": (885, {"duplicate": 5, "identical": 1, "empty": 1}),
    "torchtune/stack_exchange_paired_tiny.json": (25, {}),
    "turbo_alignment/dpo_chat.jsonl": (16, {"duplicate": 15}),
    "turbo_alignment/train_preferences.jsonl": (16, {"duplicate": 15}),
}
SHARED_REFUSED = {
    "llamafactory/mllm_demo.json": "messages, images",
    "turbo_alignment/train_kto.jsonl": "the only answer to its prompt",
    "fine_grained_rlhf/dev_feedback.json": "prediction 1",
    "models/stories260K.gguf": "a GGUF model",
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real preference data is not here")
@pytest.mark.parametrize("name", SHARED_COUNTS)
def test_real_files_load_with_every_row_accounted_for(name):
    report = load_pairs(SHARED / name).report()
    assert (report.rows_read, report.refused) == SHARED_COUNTS[name]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real preference data is not here")
@pytest.mark.parametrize("name", SHARED_REFUSED)
def test_real_files_without_pairs_are_refused_in_words(name):
    assert SHARED_REFUSED[name] in refusal(SHARED / name)


def test_demo_is_the_bundled_set_and_asks_no_hub():
    assert len(load_pairs("demo")) == 230
