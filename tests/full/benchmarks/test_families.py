"""What a user would lose: a page on models that says what is no longer so."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def families(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("families")


# shared, hybrid, attention with sinks, adapters that peft would move to the experts
@pytest.mark.parametrize("kind", ["llama", "qwen3_next", "gpt_oss", "deepseek_v3"])
def test_the_page_on_models_says_what_becomes_of_a_kind(families, tmp_path, kind):
    row = families.page({kind: families.tried(kind, tmp_path)}).splitlines()[-1].split(" | ")
    lines = (ROOT / "docs/models.md").read_text().splitlines()
    assert [line.split(" | ")[:4] for line in lines if line.startswith(f"| {kind} ")] == [row[:4]]


def test_the_page_has_every_kind(families):
    lines = (ROOT / "docs/models.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == families.families()
    assert {row[1] for row in rows} == {"shared", "twice", "refused", "fails"}
