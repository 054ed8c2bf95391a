"""Bundled files: without them the demo stops with a traceback on a fresh machine."""

import pytest

from simpo_workbench.base import paths as module
from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.base.paths import bundled


@pytest.mark.parametrize("relative", ["data/plain_answers/train.jsonl", "data/plain_answers/eval.jsonl", "notebooks"])
def test_the_demo_finds_its_files(relative):
    assert bundled(relative).exists()


def test_a_wheels_own_copy_comes_before_what_lies_beside_the_package(tmp_path, monkeypatch):
    inside, beside = tmp_path / "package" / "bundled", tmp_path
    monkeypatch.setattr(module, "_BUNDLED_IN", (inside, beside))
    (beside / "data").mkdir()
    assert bundled("data") == beside / "data"
    (inside / "data").mkdir(parents=True)
    assert bundled("data") == inside / "data"


def test_a_missing_file_says_what_to_do():
    with pytest.raises(WorkbenchError, match=r"lacks 'data/none.jsonl': install simpo-workbench again"):
        bundled("data/none.jsonl")
