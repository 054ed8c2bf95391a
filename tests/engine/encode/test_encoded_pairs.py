"""What a user would lose: a run that trains on yesterday's tokens, or one that does not start because a cache is torn,
full or somebody else's.
"""

import errno
import gc
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tiny

from simpo_workbench.config.run_config import DataConfig
from simpo_workbench.engine.encode import encoded_pairs
from simpo_workbench.engine.encode.encoded_pairs import content_key, encode_once
from simpo_workbench.engine.encode.tokens import ChatEncoder
from simpo_workbench.pairs.pairs import Pairs, load_pairs


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder that also keeps small sets."""
    monkeypatch.setenv("SIMPO_WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(encoded_pairs, "LEAST_PAIRS", 0)
    return tmp_path / "cache" / "tokens"


def chat_encoder(template="chatml", **data):
    return ChatEncoder(tiny.tokenizer(template), DataConfig(**data))


def pairs(count=12, start=0):
    return load_pairs(tiny.rows(count, start))


def refuse_to_encode(monkeypatch):
    """From here on, whoever encodes instead of reading the cache fails."""

    def encode_chunks(self, pairs, report):
        raise AssertionError("encoded again")

    monkeypatch.setattr(ChatEncoder, "encode_chunks", encode_chunks)


def test_a_file_gives_the_pairs_that_were_encoded():
    plain, plain_report = chat_encoder().encode_pairs(pairs())
    encoded, report = encode_once(chat_encoder(), pairs())
    assert list(encoded) == plain
    assert report == plain_report
    assert (len(encoded), encoded[-1], encoded[2:5], encoded[::-4]) == (12, plain[-1], plain[2:5], plain[::-4])
    assert encoded.pair_ids == [pair.pair_id for pair in plain]
    assert encoded.lengths.tolist() == [
        [len(pair.prompt_ids), len(pair.chosen_ids), len(pair.rejected_ids)] for pair in plain
    ]
    with pytest.raises(IndexError):
        encoded[12]
    with pytest.raises(IndexError):
        encoded[-13]


def test_a_second_start_reads_and_reports_the_same(monkeypatch):
    """With pairs dropped for two reasons, a prompt cut and a note of the template's."""
    rows = [
        {"prompt": "word " * 60, "chosen": "yes", "rejected": "no"},
        {"prompt": "a", "chosen": "b " * 90, "rejected": "c"},
        {"prompt": "a", "chosen": " yes", "rejected": "no"},
    ]
    mixed = load_pairs([*tiny.rows(5), *rows, {"prompt": "d", "chosen": "e<|eot|>f", "rejected": "g"}])
    encoder = chat_encoder("llama3", max_tokens=100, overlong="keep_end", special_tokens_in_text="as_tokens")
    first, first_report = encode_once(encoder, mixed)
    refuse_to_encode(monkeypatch)
    second, second_report = encode_once(encoder, mixed)
    assert list(second) == list(first)
    assert second_report == first_report
    assert second_report.dropped["never seen"] == 0  # a Counter, also when it came out of a file
    assert str(second_report) == str(first_report)
    assert (first_report.truncated, sum(first_report.dropped.values()), first_report.rewritten) == (1, 2, 1)
    assert [pair.truncated for pair in second].count(True) == 1


def test_ids_are_mapped_and_no_object_holds_them_all(cache):
    encode_once(chat_encoder(), pairs())
    encoded, _ = encode_once(chat_encoder(), pairs())
    owner = encoded._ids
    while not isinstance(owner, np.memmap) and owner is not None:
        owner = owner.base
    assert isinstance(owner, np.memmap)
    (file,) = cache.iterdir()
    assert file.stat().st_size >= 4 * encoded.lengths.sum()


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 100},
        {"overlong": "keep_end"},
        {"system_prompt": "Be brief."},
        {"template_options": {"enable_thinking": False}},
    ],
)
def test_another_setting_is_another_file(change):
    assert content_key(chat_encoder(), pairs()) != content_key(chat_encoder(**change), pairs())


def test_what_does_not_decide_the_ids_does_not_encode_again():
    assert content_key(chat_encoder(), pairs()) == content_key(
        chat_encoder(train="other.jsonl", eval_fraction=0.3, limit=12), pairs()
    )


def test_another_tokenizer_template_or_special_token_is_another_file():
    other_vocabulary = tiny.tokenizer()
    other_vocabulary.add_tokens(["capital"])
    other_template = tiny.tokenizer()
    other_template.chat_template = tiny.CHATML.replace("assistant\n", "assistant \n")
    other_end = tiny.tokenizer()
    other_end.eos_token = "</s>"
    tokenizers = [tiny.tokenizer(), tiny.tokenizer(metaspace=True), other_vocabulary, other_template, other_end]
    assert len({content_key(ChatEncoder(tokenizer), pairs()) for tokenizer in tokenizers}) == len(tokenizers)


def test_padding_left_by_an_earlier_call_changes_neither_ids_nor_key():
    """As sampling leaves it: padded ids in training data would be scored."""
    encoder = chat_encoder()
    key, plain = content_key(encoder, pairs()), encoder.encode_pairs(pairs())[0]
    encoder.tokenizer.pad_token = "</s>"
    before = content_key(encoder, pairs())
    encoder.tokenizer(["a", "a much longer text"], padding=True, truncation=True, max_length=4)
    assert encoder.encode_pairs(pairs())[0] == plain
    assert content_key(encoder, pairs()) == before != key


def test_the_order_the_texts_and_the_ids_of_the_pairs_count():
    """The pairs' own content hash is the same for every order, and an id may be kept by hand while its text changes."""
    some = list(pairs())
    variants = [
        some,
        some[::-1],
        some[:-1],
        [replace(some[0], chosen="other"), *some[1:]],
        [replace(some[0], pair_id="x"), *some[1:]],
    ]
    moved = replace(some[0], chosen=some[0].rejected, rejected=some[0].chosen)
    keys = {content_key(chat_encoder(), Pairs(variant, None)) for variant in [*variants, [moved, *some[1:]]]}
    assert len(keys) == 6


def test_a_template_that_writes_the_date_is_encoded_anew_when_that_changes(monkeypatch):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%H:%M:%S.%f') }}" + tiny.CHATML
    assert content_key(ChatEncoder(tokenizer), pairs()) != content_key(ChatEncoder(tokenizer), pairs())


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped id", "flipped report", "foreign", "one byte more"])
def test_a_damaged_file_is_made_anew(cache, damage):
    first, report = encode_once(chat_encoder(), pairs())
    first = list(first)
    (file,) = cache.iterdir()
    whole = bytearray(file.read_bytes())
    if damage.startswith("flipped"):
        whole[5 if damage == "flipped id" else -80] ^= 1
    changed = {"empty": b"", "cut": whole[:-30], "foreign": b"x" * 4000, "one byte more": whole + b"\0"}.get(
        damage, whole
    )
    file.unlink()  # a file that is mapped must not be written into
    file.write_bytes(changed)
    again, second_report = encode_once(chat_encoder(), pairs())
    assert list(again) == first
    assert second_report == report
    assert len(file.read_bytes()) == len(whole)
    assert list(cache.iterdir()) == [file]


def test_a_folder_that_cannot_be_made_costs_a_note_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("SIMPO_WORKBENCH_CACHE", str(tmp_path / "file"))
    encoded, report = encode_once(chat_encoder(), pairs())
    assert list(encoded) == chat_encoder().encode_pairs(pairs())[0]
    assert "could not be kept" in str(report)
    assert "SIMPO_WORKBENCH_CACHE" in str(report)


def test_a_disk_that_fills_up_half_way_leaves_no_rest(cache, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    encoded, report = encode_once(chat_encoder(), pairs())
    assert list(encoded) == chat_encoder().encode_pairs(pairs())[0]
    assert report.pairs == 12
    assert "No space left on device" in str(report)
    assert list(cache.iterdir()) == []


def test_rows_that_the_template_refuses_are_refused_again_from_the_cache(cache):
    encoder = chat_encoder()
    encoder.tokenizer.chat_template = (
        tiny.CHATML + "{% if messages[0]['content'] == 'bad' %}{{ raise_exception('no bad words') }}{% endif %}"
    )
    rows = load_pairs([*tiny.rows(3), {"prompt": "bad", "chosen": "a ", "rejected": "b"}])
    encoded, report = encode_once(encoder, rows)
    again, report_again = encode_once(encoder, rows)
    assert len(encoded) == len(again) == 3
    assert report_again == report
    assert "no bad words (first: row 4, pair" in str(report)


def test_no_pair_left_is_an_empty_sequence_with_its_reasons():
    encoded, report = encode_once(chat_encoder(max_tokens=8), pairs(3))
    again, _ = encode_once(chat_encoder(max_tokens=8), pairs(3))
    assert (len(encoded), list(again), encoded.lengths.shape, again.pair_ids) == (0, [], (0, 3), [])
    assert sum(report.dropped.values()) == 3


def test_the_files_used_last_are_kept(cache, monkeypatch):
    monkeypatch.setattr(encoded_pairs, "KEPT_FILES", 3)
    names = []
    for number in range(3):
        encode_once(chat_encoder(), pairs(4, start=10 * number))
        (new,) = {path.name for path in cache.iterdir()} - set(names)
        names.append(new)
        os.utime(cache / new, (1000 + number, 1000 + number))
    encode_once(chat_encoder(), pairs(4, start=0))  # used again, so the second is now the oldest
    (cache / ".dead.part").write_bytes(b"half")
    os.utime(cache / ".dead.part", (1000, 1000))
    (cache / ".alive.part").write_bytes(b"half")
    encoded, _ = encode_once(chat_encoder(), pairs(4, start=30))
    left = {path.name for path in cache.iterdir()}
    assert names[1] not in left
    assert {names[0], names[2], ".alive.part"} <= left
    assert len(left) == 4
    monkeypatch.setattr(encoded_pairs, "KEPT_BYTES", 1)
    encode_once(chat_encoder(), pairs(4, start=40))
    assert len(list(cache.glob("*.pairs"))) == 1
    assert len(list(encoded)) == 4  # its file is gone from the folder, not from under it


def test_a_small_set_leaves_no_file(cache, monkeypatch):
    monkeypatch.setattr(encoded_pairs, "LEAST_PAIRS", 1000)
    encoded, report = encode_once(chat_encoder(), pairs())
    assert list(encoded) == chat_encoder().encode_pairs(pairs())[0]
    assert report.notes == []
    assert not cache.exists()


def test_a_slow_tokenizer_is_known_by_its_files(monkeypatch):
    first, _ = encode_once(ChatEncoder(tiny.slow_tokenizer()), pairs())
    assert content_key(ChatEncoder(tiny.slow_tokenizer()), pairs()) == content_key(
        ChatEncoder(tiny.slow_tokenizer()), pairs()
    )
    assert content_key(ChatEncoder(tiny.slow_tokenizer(more="é")), pairs()) != content_key(
        ChatEncoder(tiny.slow_tokenizer()), pairs()
    )
    refuse_to_encode(monkeypatch)
    assert list(encode_once(ChatEncoder(tiny.slow_tokenizer()), pairs())[0]) == list(first)


def test_two_processes_at_once_both_get_all_pairs(cache, tmp_path):
    folder = str(tmp_path / "tokenizer")
    tiny.tokenizer().save_pretrained(folder)
    (tmp_path / "rows.json").write_text(json.dumps(tiny.rows(40)))
    code = (
        "import sys, time, hashlib, pathlib\n"
        "from transformers import AutoTokenizer\n"
        "from simpo_workbench.engine.encode import encoded_pairs\n"
        "from simpo_workbench.engine.encode.tokens import ChatEncoder\n"
        "from simpo_workbench.pairs.pairs import load_pairs\n"
        "encoded_pairs.LEAST_PAIRS = 0\n"
        "pairs, encoder = load_pairs(sys.argv[1]), ChatEncoder(AutoTokenizer.from_pretrained(sys.argv[2]))\n"
        "here, other = (pathlib.Path(name) for name in sys.argv[3:])\n"
        "here.touch()\n"
        "while not other.exists(): time.sleep(0.001)\n"
        "for _ in range(5):\n"
        "    kept, report = encoded_pairs.encode_once(encoder, pairs)\n"
        "    assert not report.notes, report.notes\n"
        "print(hashlib.sha256(repr(list(kept)).encode()).hexdigest())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", code, str(tmp_path / "rows.json"), folder]
    ready = [str(tmp_path / "one"), str(tmp_path / "two")]
    running = [
        subprocess.Popen(
            [*arguments, *order], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for order in (ready, ready[::-1])
    ]
    outputs = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert len(list(cache.iterdir())) == 1


def test_garbage_collection_is_on_again_after_an_encoding_that_failed():
    class Broken(list):
        def __iter__(self):
            raise ValueError("no pairs")

    with pytest.raises(ValueError, match="no pairs"):
        encoded_pairs._in_memory(chat_encoder(), Broken())
    assert gc.isenabled()
