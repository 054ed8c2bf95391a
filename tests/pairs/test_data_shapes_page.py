"""What a user would lose: a page of examples that the program no longer reads as the page says."""

import re
from pathlib import Path

import pytest

from simpo_workbench.pairs.pairs import load_pairs

PAGE = (Path(__file__).parents[2] / "docs" / "data-shapes.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"### ([^\n]+)\n.*?```json\n(.*?)```\n\n((?:→ [^\n]+\n\n)+)", PAGE, re.DOTALL)


@pytest.mark.parametrize(("rows", "expected"), [example[1:] for example in EXAMPLES], ids=[one[0] for one in EXAMPLES])
def test_every_example_of_the_page_is_read_as_the_page_says(rows, expected, tmp_path):
    (tmp_path / "a.jsonl").write_text(rows, encoding="utf-8")
    read = [(pair.prompt_text, pair.chosen, pair.rejected) for pair in load_pairs(tmp_path / "a.jsonl")]
    lines = [re.findall(r"`(.*?)`", line) for line in expected.strip().split("\n\n")]
    assert read == [tuple(text.replace(r"\n", "\n") for text in line) for line in lines]


def test_no_example_of_the_page_is_left_out():
    assert len(EXAMPLES) == PAGE.count("```json") == PAGE.count("\n### ") > 30
