"""Tokenizers, configurations and adapters come from strangers: each is first read in a limited process of its own.

A regular expression can take longer than the universe has, and a number in a configuration asks for any memory: in the
process that trains, or in the user's kernel, neither could be stopped. What passed is remembered by its content.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
from pathlib import Path

from ...base.errors import WorkbenchError
from ...base.paths import cache_folder
from ..trial import limited_process, process_limits
from . import file_probe
from .weight_files import SETTINGS_FILES, json_object

PATIENCE_S = 90.0  # wall-clock time; `file_probe.LIMITS` counts processor time
#: Files of a tokenizer that has no tokenizer.json.
_WORD_LISTS = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
LARGEST_TOKENIZER = 256_000_000  # bytes; the largest in use have about 40 million
#: Numbers up to these build nothing large in any role; a configuration with others is tried in the limited process.
_ORDINARY_SIZE, _ORDINARY_LIST, _ORDINARY_MODULES = 2**20, 4096, 2**16
_LAYERS, _EXPERTS = re.compile(r"layer|block|depth|stage", re.IGNORECASE), re.compile("expert", re.IGNORECASE)
_COUNTS = {
    re.compile(r"position|ctx|embd|inner|vocab|size|dim", re.IGNORECASE): _ORDINARY_SIZE,
    _EXPERTS: 4096,
    _LAYERS: 1024,
    re.compile(r"head|group|num_|^n_", re.IGNORECASE): 4096,
}
_NO_SIZE = re.compile(r"(_ids?|_index|seed|theta|_token)$", re.IGNORECASE)
#: 4-bit weights hold two numbers in a stored one; what is beyond this is another model.
_MOST_PER_STORED, _MOST_IN_TABLES = 4, 2**31
_SPECIAL_IN_PATTERNS = set("*+?{(|\\[")


def require_bounded_tokenizer(folder: Path, name: str) -> None:
    """Raise WorkbenchError unless the tokenizer of a model folder encodes and decodes short texts within limits.

    One without tokenizer.json, made of word lists, is tried as transformers builds it.
    """
    path, what = folder / "tokenizer.json", f"The tokenizer of {name!r}"
    is_fast = path.is_file()
    files = [path] if is_fast else [file for file in map(folder.joinpath, _WORD_LISTS) if file.is_file()]
    if (size := sum(file.stat().st_size for file in files)) > LARGEST_TOKENIZER:
        raise WorkbenchError(
            f"{what} has {size / 1e6:,.0f} MB, expected at most {LARGEST_TOKENIZER / 1e6:.0f}: it is not read. Choose"
            " another model."
        )
    if is_fast:
        task, libraries = {"kind": "tokenizer", "path": str(path.absolute())}, ("tokenizers",)
    elif files:
        task, libraries = (
            {"kind": "word lists", "path": str(folder.absolute())},
            ("transformers", "tokenizers", "torch"),
        )
        files += [file for file in map(folder.joinpath, SETTINGS_FILES) if file.is_file()]
    else:
        return
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    _require(task, digest.hexdigest(), what, libraries, "for a short text")


def require_bounded_adapter(adapter: dict, folder: Path, names: list[str]) -> None:
    """Raise WorkbenchError unless the patterns in an adapter's configuration match `names` of layers within limits."""
    patterns = _patterns_of(adapter)
    if not any(_SPECIAL_IN_PATTERNS & set(pattern) for pattern in patterns):
        return
    task = {"kind": "patterns", "patterns": patterns, "names": names}
    digest = hashlib.sha256(json.dumps(task).encode()).hexdigest()
    what = f"The adapter_config.json in {str(folder)!r}"
    _require(task, digest, what, (), "to find the layers that it names (target_modules and other patterns)")


def require_bounded_config(folder: Path, name: str) -> dict | None:
    """The sizes of a model from `file_probe.model_sizes` where its config.json was tried in a process of its own; None
    where no number in it is large for what it names.

    Errors: WorkbenchError for a configuration that cannot be read, or not within limits.
    """
    path = folder / "config.json"
    if _is_ordinary(json_object(path, name)):
        return None
    libraries = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
    task = {"kind": "config", "path": str(folder.absolute())}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return _require(task, digest, f"The config.json of {name!r}", libraries, "to build an empty model")


def require_possible_size(folder: Path, name: str, model_config, stored_numbers: int) -> None:
    """Raise WorkbenchError unless a model of this configuration is about as large as the weights in its folder.

    stored_numbers: in all weights together.
    """
    sizes = require_bounded_config(folder, name) or file_probe.model_sizes(model_config)
    if sizes["parameters"] > _MOST_PER_STORED * stored_numbers or sizes["tables"] > _MOST_IN_TABLES + stored_numbers:
        raise WorkbenchError(
            f"The model {name!r} cannot be loaded: its config.json describes a model of {sizes['parameters']:.3g}"
            f" parameters (and {sizes['tables']:.3g} numbers in tables), and its files hold {stored_numbers:.3g}. They"
            " belong to different models, or one of them is damaged. Get the model again."
        )


def _is_ordinary(config):
    """Whether no number in a configuration is large for what its name says it is."""
    largest = dict.fromkeys(_COUNTS, 0)
    left = [("", config)]
    while left:
        key, value = left.pop()
        if isinstance(value, dict):
            left += [(str(name), part) for name, part in value.items()]
        elif isinstance(value, list):
            if len(value) > _ORDINARY_LIST:
                return False
            left += [(key, part) for part in value]
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and not _NO_SIZE.search(key):
            kind = next((kind for kind in _COUNTS if kind.search(key)), None)
            if not abs(value) <= _COUNTS.get(kind, _ORDINARY_SIZE):
                return False
            if kind is not None:
                largest[kind] = max(largest[kind], abs(value))
    return max(1, largest[_LAYERS]) * max(1, largest[_EXPERTS]) <= _ORDINARY_MODULES


def _patterns_of(adapter):
    """The regular expressions that PEFT makes of an adapter's configuration."""
    whole = [adapter.get(name) for name in ("target_modules", "exclude_modules")]
    parts = [*(adapter.get("rank_pattern") or {}), *(adapter.get("alpha_pattern") or {})]
    layers = adapter.get("layers_pattern") or []
    return [
        *(pattern for pattern in whole if isinstance(pattern, str)),
        *(rf"(.*\.)?({part})$" for part in parts),
        *(rf".*\.[^.]*{part}\.(\d+)\." for part in ([layers] if isinstance(layers, str) else layers)),
    ]


def _require(task, digest, what, libraries, doing):
    """The probe's verdict on a task, from the cache where it passed before. digest: over the content that it reads.

    Errors: WorkbenchError when it is refused, or the limits end the process.
    """
    versions = [importlib.metadata.version(library) for library in libraries]
    source = b"".join(Path(script.__file__).read_bytes() for script in (file_probe, process_limits))
    key = hashlib.sha256(json.dumps([task["kind"], digest, versions]).encode() + source).hexdigest()
    kept = cache_folder() / "read" / f"{key}.json"
    # a file of another user is not believed
    with contextlib.suppress(OSError, ValueError):
        if kept.stat().st_uid == os.getuid():
            return json.loads(kept.read_text())
    limits = file_probe.LIMITS[task["kind"]]
    verdict = limited_process.verdict(file_probe.__file__, task, libraries, limits, PATIENCE_S, what, doing)
    if verdict.get("refused"):
        raise WorkbenchError(f"{what} {verdict['refused']}: it is not used. Choose another, or get it again.")
    with contextlib.suppress(OSError):  # without a cache it is tried again next time
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside = kept.with_name(f".{kept.name}.{os.getpid()}")
        beside.write_text(json.dumps(verdict))
        beside.replace(kept)
    return verdict
