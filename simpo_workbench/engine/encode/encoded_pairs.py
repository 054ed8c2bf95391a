"""Encoded pairs as one file that is mapped into memory, made once for the same pairs, tokenizer and settings and found
again by their content.

A file holds all token ids in a row, the places where prompts and answers end, which prompts were cut, the pairs' ids,
the encoding report as JSON, and a SHA-256 over all of it at the end: a file that is torn, damaged or foreign is made
anew.
"""

import array
import contextlib
import functools
import gc
import hashlib
import importlib.metadata
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...base.paths import cache_folder
from . import chat_rendering, tokens
from .tokens import ChatEncoder, EncodedPair, EncodingReport

LAYOUT = b"SWpairs1"  # the last 8 bytes of a file; a change of what lies before them takes another number
KEPT_FILES = 32  # a run uses two: training and held-out pairs
KEPT_BYTES = 8 * 1024**3
LEAST_PAIRS, LEAST_CHARACTERS = (
    1000,
    1_000_000,
)  # fewer pairs with less text are tokenized in half a second, which is not worth a file
_ABANDONED_S = 24 * 3600  # a half-written file this old belongs to a process that died
_PROBE = [{"role": "user", "content": "Zebra quartz"}]


class EncodedPairs(Sequence):
    """Encoded pairs in order: `[i]` is an EncodedPair, a slice a list of them. What lies in a file is read when it is
    asked for.

    ids: (tokens,) int32, prompt, chosen and rejected answer of every pair in turn. ends: (3 * pairs,) int64, where each
    of them ends in `ids`.
    cut: (pairs,) bool, prompts cut from the left. names: (pairs,) bytes, the pair ids.
    """

    def __init__(self, ids, ends, cut, names):
        self._ids, self._ends, self._cut, self._names = ids, ends, cut, names

    @property
    def lengths(self):
        """Tokens of prompt, chosen and rejected answer, (pairs, 3) int64: enough to plan with, no ids are read."""
        return np.diff(self._ends, prepend=0).reshape(-1, 3)

    @property
    def pair_ids(self) -> list[str]:
        """The ids of all pairs, in order."""
        return [name.decode() for name in self._names.tolist()]

    def __len__(self):
        return len(self._cut)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        index = range(len(self))[index]  # negative ones count from the end, others outside are an IndexError
        start = int(self._ends[3 * index - 1]) if index else 0
        first, second, end = self._ends[3 * index : 3 * index + 3].tolist()
        ids = self._ids[start:end].tolist()
        return EncodedPair(
            self._names[index].decode(),
            ids[: first - start],
            ids[first - start : second - start],
            ids[second - start :],
            bool(self._cut[index]),
        )

    def __repr__(self):
        return f"<EncodedPairs: {len(self)} pairs, {len(self._ids)} tokens>"


def encode_once(encoder: ChatEncoder, pairs) -> tuple[EncodedPairs, EncodingReport]:
    """The pairs that fit, and the report of those that do not; read from the cache where the same was encoded before.

    The same means the same texts in the same order, tokenizer, chat template, lengths and versions. The cache is the
    folder "tokens" beside the demo model; the files used last are kept, at most KEPT_FILES and KEPT_BYTES. Where it
    cannot be read or written the pairs are encoded in memory and a note in the report says so; nothing fails because of
    it. Memory: one chunk of pairs and 41 bytes a pair, whatever their number.
    """
    if len(pairs) < LEAST_PAIRS and sum(tokens.characters(pair) for pair in pairs) < LEAST_CHARACTERS:
        return _in_memory(encoder, pairs)
    try:
        folder = cache_folder() / "tokens"
        path = folder / f"{content_key(encoder, pairs)}.pairs"
        found = _read(path)
        if found is None:
            folder.mkdir(parents=True, exist_ok=True)
            _write(path, encoder, pairs)
            _prune(folder, path)
            found = _read(path)
        else:
            with contextlib.suppress(OSError):  # a folder of somebody else's, which can be read
                os.utime(path)
    except (OSError, RuntimeError) as error:  # a user without a home folder is a RuntimeError
        encoded, report = _in_memory(encoder, pairs)
        report.notes.append(
            f"The token ids could not be kept for the next start ({getattr(error, 'strerror', None) or error}): point"
            " SIMPO_WORKBENCH_CACHE to a folder with room."
        )
        return encoded, report
    return found or _in_memory(encoder, pairs)  # written and gone again: another process pruned it


def content_key(encoder: ChatEncoder, pairs) -> str:
    """64 hex digits over everything that decides the ids: the texts in order, the tokenizer, the template and its
    options, lengths, versions.
    """
    digest = hashlib.sha256(_encoder_key(encoder).encode())
    for pair in pairs:
        turns = [[turn["role"], turn["content"]] for turn in pair.prompt]
        digest.update(json.dumps([pair.pair_id, turns, pair.chosen, pair.rejected]).encode())
    return digest.hexdigest()


def _encoder_key(encoder):
    data, tokenizer = encoder.data, encoder.tokenizer
    return json.dumps(
        {
            "layout": LAYOUT.decode(),
            "encoder": _source_hash(),
            "versions": [importlib.metadata.version(name) for name in ("tokenizers", "transformers", "jinja2")],
            "tokenizer": _tokenizer_hash(tokenizer),
            "special": {name: str(value) for name, value in tokenizer.special_tokens_map.items()},
            "template": tokenizer.chat_template,
            # a template may write today's date, so it is asked what it writes today
            "rendered": [
                encoder.prompt_text(_PROBE),
                encoder.render([*_PROBE, {"role": "assistant", "content": "x"}], add_generation_prompt=False),
            ],
            "settings": data.model_dump(
                include={"chat_template", "template_options", "max_tokens", "overlong", "system_prompt"}
            ),
        },
        sort_keys=True,
    )


@functools.cache
def _source_hash():
    """Of the code itself: whoever changes how pairs become ids must not have to remember to raise a number."""
    return hashlib.sha256(
        b"".join(Path(module.__file__).read_bytes() for module in (tokens, chat_rendering))
    ).hexdigest()


def _tokenizer_hash(tokenizer):
    kind = f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}:{getattr(tokenizer, 'split_special_tokens', False)}:"
    backend = tokens.plain_backend(tokenizer)
    if backend is not None:
        return hashlib.sha256((kind + backend.to_str()).encode()).hexdigest()
    digest = hashlib.sha256(kind.encode())
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(Path(name) for name in tokenizer.save_pretrained(folder)):
            if path.is_file():
                digest.update(f"{path.name}:{path.stat().st_size}:".encode() + path.read_bytes())
    return digest.hexdigest()


class _Index:
    """Where pairs end, which were cut and what they are called, gathered chunk by chunk."""

    def __init__(self):
        self.tokens, self.ends, self.cut, self.names = 0, array.array("q"), bytearray(), []

    def take(self, chunk):
        """The chunk's ids in a row, int32; the index grows by it."""
        ids = []
        for pair in chunk:
            for part in (pair.prompt_ids, pair.chosen_ids, pair.rejected_ids):
                ids += part
                self.ends.append(self.tokens + len(ids))
            self.cut.append(pair.truncated)
            self.names.append(pair.pair_id.encode())
        self.tokens += len(ids)
        return np.array(ids, dtype=np.int32)

    def arrays(self):
        names = np.array(self.names, dtype=f"S{max(map(len, self.names), default=1)}")
        return np.array(self.ends, dtype=np.int64), np.array(self.cut, dtype=bool), names


@contextlib.contextmanager
def _without_collecting():
    """Garbage collection off: it would walk through all pairs again and again and find nothing.

    Lists of ids go by their reference counts.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _in_memory(encoder, pairs):
    index, report = _Index(), EncodingReport()
    with _without_collecting():
        ids = [index.take(chunk) for chunk in encoder.encode_chunks(pairs, report)]
    return EncodedPairs(np.concatenate([np.empty(0, dtype=np.int32), *ids]), *index.arrays()), report


def _write(path, encoder, pairs):
    """Encode into a file beside `path` and publish it by one rename.

    Two processes may do so at once: both files are whole and the same.
    """
    descriptor, beside = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            index, report, digest = _Index(), EncodingReport(), hashlib.sha256()

            def put(block):
                digest.update(block)
                file.write(block)

            with _without_collecting():
                for chunk in encoder.encode_chunks(pairs, report):
                    put(index.take(chunk).data)
            put(bytes(-4 * index.tokens % 8))
            ends, cut, names = index.arrays()
            header = json.dumps(
                {"tokens": index.tokens, "pairs": len(cut), "name_bytes": names.itemsize, "report": vars(report)}
            ).encode()
            for block in (ends.tobytes(), cut.tobytes(), names.tobytes(), header, len(header).to_bytes(8, "little")):
                put(block)
            file.write(digest.digest() + LAYOUT)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def _read(path):
    """(EncodedPairs, EncodingReport) of a whole file; None where there is none or it is not what was once written."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            # what another user put into a shared cache is not ours to train on
            if size < 48 or os.fstat(file.fileno()).st_uid != os.getuid() or not _whole(file, size - 40):
                return None
            file.seek(size - 48)
            length = int.from_bytes(file.read(8), "little")
            if length > size - 48:
                return None
            file.seek(size - 48 - length)
            header = json.loads(file.read(length))
            pairs, count, width = header["pairs"], header["tokens"], header["name_bytes"]
            blocks, at = [], 0
            for dtype, number in (
                (np.dtype(np.int32), count + count % 2),
                (np.dtype(np.int64), 3 * pairs),
                (np.dtype(bool), pairs),
                (np.dtype(f"S{width}"), pairs),
            ):
                # an empty block cannot be mapped
                blocks.append(
                    np.memmap(file, dtype, "r", at, (number,)).view(np.ndarray) if number else np.empty(0, dtype)
                )
                at += number * dtype.itemsize
            report = header["report"]
            return EncodedPairs(blocks[0][:count], *blocks[1:]), EncodingReport(
                **{**report, "dropped": Counter(report["dropped"])}
            )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):  # of another time, with a true checksum: made anew as well
        return None


def _whole(file, size):
    """Whether the first `size` bytes have the checksum that follows them."""
    digest, left = hashlib.sha256(), size
    while left:
        block = file.read(min(left, 1 << 20))
        if not block:
            return False
        digest.update(block)
        left -= len(block)
    return file.read(40) == digest.digest() + LAYOUT


def _prune(folder, newest):
    """Remove the files used longest ago, beyond what is kept, and what dead processes left; a file that is mapped
    somewhere stays readable there.
    """
    files = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process prunes as well
            status = path.stat()
            if path.suffix == ".pairs" and path != newest:
                files.append((status.st_mtime, status.st_size, path))
            elif path.suffix == ".part" and time.time() - status.st_mtime > _ABANDONED_S:
                path.unlink()
    try:
        room = KEPT_BYTES - newest.stat().st_size
    except FileNotFoundError:  # pruned by another process in the meantime
        return
    for place, (_, size, path) in enumerate(sorted(files, reverse=True), start=2):
        room -= size
        if place > KEPT_FILES or room < 0:
            with contextlib.suppress(OSError):
                path.unlink()
