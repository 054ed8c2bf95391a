"""What a user would lose: the machine's memory and time, to a tokenizer, configuration or adapter from a stranger."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import simpo_workbench as wb
from simpo_workbench.config.run_config import ModelConfig
from simpo_workbench.engine.model import file_check
from simpo_workbench.engine.model.tokenizer import load_tokenizer
from simpo_workbench.engine.trial import limited_process, process_limits

pytestmark = pytest.mark.timeout(120)  # so that what hangs fails


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path_factory):
    """Nothing has passed before."""
    monkeypatch.setenv("SIMPO_WORKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def folder(tiny_model, tmp_path):
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def edit(folder, name, **changes):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(call, *args, **kwargs):
    with pytest.raises(wb.WorkbenchError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def split(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


HOSTILE_TOKENIZERS = {
    "nested repetition": ({"pre_tokenizer": split(r"(a+)+$")}, "goes back and forth without bounds"),
    "alternatives that overlap": ({"pre_tokenizer": split(r"(x|xx)+y$")}, "goes back and forth without bounds"),
    "repeated words": ({"pre_tokenizer": split(r"^(([a-z])+.)+[A-Z]([a-z])+$")}, "goes back and forth without bounds"),
    "much for little": (
        {"normalizer": {"type": "Replace", "pattern": {"String": "e"}, "content": "x" * 5000}},
        "makes",
    ),
    "bytes on the way back": (
        {"decoder": {"type": "Replace", "pattern": {"Regex": "."}, "content": "y" * 100_000}},
        "",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE_TOKENIZERS)
def test_a_tokenizer_that_eats_the_machine_is_refused(kind, folder):
    changes, said = HOSTILE_TOKENIZERS[kind]
    edit(folder, "tokenizer.json", **changes)
    text = refusal(load_tokenizer, ModelConfig(name=str(folder)))
    assert text.startswith(f"The tokenizer of {str(folder)!r}")
    assert said in text


def test_a_tokenizer_that_splits_at_random_is_refused(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    edit(folder, "tokenizer.json", model={**content["model"], "dropout": 0.1})
    assert "splits texts at random (dropout" in refusal(load_tokenizer, ModelConfig(name=str(folder)))


PATTERNS_IN_USE = {
    "GPT-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "Llama 3, Qwen": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    ),
    "GPT-4o": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}


@pytest.mark.parametrize("name", PATTERNS_IN_USE)
def test_the_patterns_of_real_tokenizers_pass_at_once(name, folder):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    edit(
        folder,
        "tokenizer.json",
        pre_tokenizer={"type": "Sequence", "pretokenizers": [split(PATTERNS_IN_USE[name]), byte_level]},
    )
    started = time.monotonic()
    file_check.require_bounded_tokenizer(folder, name)
    assert time.monotonic() - started < 20


def test_what_passed_is_not_tried_again_until_it_changes(folder, monkeypatch):
    started, run = [], limited_process.subprocess.run
    monkeypatch.setattr(limited_process.subprocess, "run", lambda *a, **k: started.append(k) or run(*a, **k))
    monkeypatch.setenv("HF_TOKEN", "secret")
    for _ in range(2):
        file_check.require_bounded_tokenizer(folder, "m")
    assert len(started) == 1
    assert "HF_TOKEN" not in started[0]["env"]
    edit(folder, "tokenizer.json", normalizer={"type": "NFC"})
    file_check.require_bounded_tokenizer(folder, "m")
    assert len(started) == 2


IMPOSSIBLE_SIZES = [{"hidden_size": 2**19}, {"vocab_size": 2**20}, {"intermediate_size": 2**20}]


@pytest.mark.parametrize("sizes", IMPOSSIBLE_SIZES, ids=str)
def test_sizes_far_beyond_the_weights_end_in_a_sentence(sizes, folder):
    """transformers would take memory for the model that is described, and fill it with random numbers."""
    edit(folder, "config.json", **sizes)
    text = refusal(wb.load_model, ModelConfig(name=str(folder), load_in="fp32"))
    assert "its config.json describes a model of" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": r"(.*)*(.*)*(.*)*x"},
        {"target_modules": "(unclosed"},
    ],
    ids=["without end", "none"],
)
def test_patterns_of_an_adapter_that_never_end_are_refused(changes, tiny_model):
    names = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(30)]
    said = refusal(file_check.require_bounded_adapter, changes, Path("a"), names)
    assert "adapter_config.json" in said
    assert "regular expression" in said or "to find the layers" in said


def test_ordinary_patterns_of_adapters_pass(monkeypatch):
    pattern = r".*(?:language_model|model\.layers\.\d+)\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"
    file_check.require_bounded_adapter({"target_modules": pattern}, Path("a"), ["model.layers.0.mlp.up_proj"])
    monkeypatch.setattr(limited_process.subprocess, "run", None)  # names alone need no process
    plain = {"target_modules": ["q_proj"], "rank_pattern": {}, "exclude_modules": None}
    file_check.require_bounded_adapter(plain, Path("a"), ["q_proj"])


def test_the_process_that_reads_a_file_has_bounds(tmp_path):
    """It writes no file and gets no more memory than its task may take."""
    code = (
        "import runpy, sys\nrunpy.run_path(sys.argv[1])['limit_this_process'](5, 10**8)\ndef tried(do):\n    try:\n"
        "        do()\n    except (OSError, MemoryError) as error:\n        return type(error).__name__\n"
        "    return 'done'\n"
        f"def write():\n    with open({str(tmp_path / 'x')!r}, 'w') as file:\n        file.write('x')\n"
        "print(tried(write), tried(lambda: bytes(10**9)))"
    )
    command = [sys.executable, "-I", "-S", "-c", code, process_limits.__file__]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["OSError", "MemoryError"], done.stderr
