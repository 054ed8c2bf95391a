"""SHA-256 of files: remembered while a file is unchanged, and a quick fingerprint of large weights."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

#: Hashes that are kept in this process.
_KEPT = 4096
#: A file that was changed so short a time ago may change again without a new time of change (seconds).
RECENT_S = 2.0
_BLOCK_BYTES = 1 << 20
#: Of a larger file, the fingerprint reads the beginning (a safetensors file's header) and pages spread evenly.
WHOLE_BYTES = 1024**3
_PAGES, _PAGE_BYTES = 256, 4096
_LONGEST_HEADER = 64 * 1024**2
#: What decides a model's numbers, among the files of its folder.
_MODEL_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "adapter_config.json")
#: The hub's cache names a large file by its SHA-256.
_BLOB = re.compile(r"[0-9a-f]{64}")

_known: dict[tuple, str] = {}
_lock = threading.Lock()


def sha256_of(path: Path, count: int | None = None, fresh: bool = False) -> str:
    """SHA-256 of a file, or of its first `count` bytes, in hex; remembered by size, times and inode.

    fresh: read it even where the hash is remembered. Errors: OSError.
    """
    with open(path, "rb") as file:
        facts = os.fstat(file.fileno())
        key = facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, count
        with _lock:
            digest = None if fresh else _known.get(key)
        if digest is None:
            digest = _hash(file, facts.st_size if count is None else count)
            if abs(time.time() - max(facts.st_mtime, facts.st_ctime)) > RECENT_S:
                with _lock:
                    _known[key] = digest
                    while len(_known) > _KEPT:
                        del _known[next(iter(_known))]
        return digest


def _hash(file, left):
    digest = hashlib.sha256()
    while left and (block := file.read(min(left, _BLOCK_BYTES))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()


def fingerprint(folder: Path) -> dict[str, dict]:
    """{file: {"bytes", "sampled", "sha256"}} of the files in a model's folder that decide its numbers.

    sampled: SHA-256 over the size, the header and pages spread evenly over the file. sha256: of the whole file where it
    is small, or where the hub's cache names it by its hash; else left out. Errors: OSError.
    """
    return {path.name: file_fingerprint(path) for path in model_files(folder)}


def model_files(folder: Path) -> list[Path]:
    """The files of a model's folder that decide its numbers, by name."""
    return sorted(path for path in folder.iterdir() if decides_numbers(path.name) and path.is_file())


def decides_numbers(name: str) -> bool:
    """Whether a file of this name in a model's folder decides its numbers. Pickled weights do not: none is read."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _MODEL_FILES)


def file_fingerprint(path: Path, whole: bool = False) -> dict:
    """{"bytes", "sampled", "sha256"} of one file, as in `fingerprint`. whole: read all of it, whatever its size."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}:".encode())
    with open(path, "rb") as file:
        for start, count in _sampled(file, size):
            file.seek(start)
            digest.update(file.read(count))
    facts = {"bytes": size, "sampled": digest.hexdigest()}
    name = path.resolve().name
    if whole or size <= WHOLE_BYTES:
        facts["sha256"] = sha256_of(path, fresh=whole)
    elif _BLOB.fullmatch(name):
        facts["sha256"] = name
    return facts


def _sampled(file, size) -> Iterator[tuple[int, int]]:
    """(start, bytes) of the parts that a fingerprint reads."""
    if size <= _PAGES * _PAGE_BYTES:
        yield 0, size
        return
    header = int.from_bytes(file.read(8), "little")  # of a safetensors file; of another one only pages are read
    if file.name.endswith(".safetensors") and header <= min(size - 8, _LONGEST_HEADER):
        yield 0, 8 + header
    for page in range(_PAGES):
        yield (size - _PAGE_BYTES) * page // (_PAGES - 1), _PAGE_BYTES
