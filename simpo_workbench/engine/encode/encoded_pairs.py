"""The token cache: encoded pairs as a memory-mapped file, made once for the same pairs, tokenizer and settings.

A file holds all token ids in one array, the indices where prompts and answers end, which prompts were cut, the pair
ids, the encoding report as JSON, and a SHA-256 over all of it; an incomplete, damaged or foreign file is made anew.
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
from . import tokens
from .encoding_report import EncodingReport
from .tokens import ChatEncoder, EncodedPair

LAYOUT = b"SWpairs1"  # the last 8 bytes of a file; a change of the layout takes another number
KEPT_FILES = 32  # a run uses two: training and held-out pairs
KEPT_BYTES = 8 * 1024**3
#: Fewer pairs with less text are tokenized in half a second, which is not worth a file.
LEAST_PAIRS, LEAST_CHARACTERS = 1000, 1_000_000
_ABANDONED_S = 24 * 3600  # a half-written file this old was left by a process that died
_PROBE = [{"role": "user", "content": "Zebra quartz"}]


class EncodedPairs(Sequence):
    """Encoded pairs in order: `[i]` is an EncodedPair, a slice a list of them. A file is read on access.

    ids: (tokens,) int32, prompt, chosen and rejected answer of every pair in turn.
    ends: (3 * pairs,) int64, where each of them ends in `ids`.
    cut: (pairs,) bool, prompts cut from the left. names: (pairs,) bytes, the pair ids.
    """

    def __init__(self, ids, ends, cut, names):
        self._ids, self._ends, self._cut, self._names = ids, ends, cut, names

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of prompt, chosen and rejected answer, (pairs, 3) int64: enough for a plan, without reading ids."""
        return np.diff(self._ends, prepend=0).reshape(-1, 3)

    @property
    def largest_id(self) -> int:
        """The largest token id of all pairs; 0 without pairs."""
        return int(self._ids.max(initial=0))

    @property
    def pair_ids(self) -> list[str]:
        """The ids of all pairs, in order."""
        return [name.decode() for name in self._names.tolist()]

    @property
    def content_hash(self) -> str:
        """SHA-256 of all token ids and of where prompts and answers end, in hex."""
        digest = hashlib.sha256()
        for array_of_bytes in (self._ids, self._ends, self._cut, self._names):
            digest.update(np.ascontiguousarray(array_of_bytes).view(np.uint8))
        return digest.hexdigest()

    def __len__(self):
        return len(self._cut)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        index = range(len(self))[index]  # a negative index counts from the end, one out of range is an IndexError
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
    """The pairs that fit, and the report of those that do not; from the cache where they were encoded before.

    A file is used again for the same texts in the same order, tokenizer, chat template, lengths and versions. The cache
    is the folder "tokens" beside the demo model; the most recently used files are kept, at most KEPT_FILES and
    KEPT_BYTES. Where it cannot be read or written, the pairs are encoded in memory and a note in the report says so.
    Memory: one chunk of pairs and 41 bytes a pair.
    """
    if len(pairs) < LEAST_PAIRS and sum(tokens.characters(pair) for pair in pairs) < LEAST_CHARACTERS:
        return _in_memory(encoder, pairs)
    try:
        folder = cache_folder() / "tokens"
        path = folder / f"{content_key(encoder, pairs)}.pairs"
        cached = _read(path)
        if cached is None:
            folder.mkdir(parents=True, exist_ok=True)
            _write(path, encoder, pairs)
            _prune(folder, path)
            cached = _read(path)
        else:
            with contextlib.suppress(OSError):  # a folder that this user may only read
                os.utime(path)
    except (OSError, RuntimeError) as error:  # a user without a home folder is a RuntimeError
        encoded, report = _in_memory(encoder, pairs)
        report.notes.append(
            f"The token ids could not be kept for the next start ({getattr(error, 'strerror', None) or error}): point"
            " SIMPO_WORKBENCH_CACHE to a folder with room."
        )
        return encoded, report
    if cached is None:  # another process may have pruned the file at once
        return _in_memory(encoder, pairs)
    encoder.settle_thinking(cached[1])
    return cached


def content_key(encoder: ChatEncoder, pairs) -> str:
    """64 hex digits over all that decides the ids: texts in order, tokenizer, template, options, lengths, versions."""
    digest = hashlib.sha256(_encoder_key(encoder).encode())
    for pair in pairs:
        turns = [[turn["role"], turn["content"]] if len(turn) == 2 else turn for turn in pair.prompt]
        content = [pair.pair_id, turns, pair.chosen, pair.rejected, pair.where]
        if pair.tools or pair.chosen_turn or pair.rejected_turn:
            content += [pair.tools, pair.chosen_turn, pair.rejected_turn]
        digest.update(json.dumps(content, default=str).encode())
    return digest.hexdigest()


def _encoder_key(encoder):
    data, tokenizer = encoder.data, encoder.tokenizer
    return json.dumps(
        {
            "layout": LAYOUT.decode(),
            "encoder": _source_hash(),
            "versions": [importlib.metadata.version(name) for name in ("tokenizers", "transformers", "jinja2")],
            "tokenizer": tokenizer_hash(tokenizer),
            "special": {name: str(value) for name, value in tokenizer.special_tokens_map.items()},
            "template": tokenizer.chat_template,
            "end_of_turn": encoder.end_of_turn_id,
            # a template may write today's date
            "rendered": [
                encoder.template.prompt_text(_PROBE),
                encoder.template.render([*_PROBE, {"role": "assistant", "content": "x"}], add_generation_prompt=False),
            ],
            "settings": data.model_dump(
                include={
                    *("chat_template", "template_options", "max_tokens", "overlong", "system_prompt"),
                    *("on_template_mismatch", "special_tokens_in_text"),
                }
            ),
        },
        sort_keys=True,
    )


@functools.cache
def _source_hash():
    """SHA-256 of the code that turns pairs into ids, so that a change of it needs no version number to be raised."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def tokenizer_hash(tokenizer) -> str:
    """SHA-256 of everything in a tokenizer that decides the ids, in hex."""
    splits = getattr(tokenizer, "split_special_tokens", False)
    kind = f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}:{splits}:"
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
    """Ends, cut marks and ids of pairs, gathered chunk by chunk."""

    def __init__(self):
        self.tokens, self.ends, self.cut, self.names = 0, array.array("q"), bytearray(), []

    def take(self, chunk):
        """The chunk's token ids as one int32 array; its pairs are added to the index."""
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
    """Garbage collection off within the block: it would walk through all pairs again and again and free nothing."""
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
    """Encode into a temporary file and rename it to `path`; two processes may do so at once, with the same result."""
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
    """(EncodedPairs, EncodingReport) of a complete file; None where there is none, or it is damaged or not ours."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            # never train on what another user put into a shared cache
            if size < 48 or os.fstat(file.fileno()).st_uid != os.getuid() or not _whole(file, size - 40):
                return None
            file.seek(size - 48)
            length = int.from_bytes(file.read(8), "little")
            if length > size - 48:
                return None
            file.seek(size - 48 - length)
            header = json.loads(file.read(length))
            pairs, count, width = header["pairs"], header["tokens"], header["name_bytes"]
            blocks, offset = [], 0
            for kind, number in (
                ("int32", count + count % 2),
                ("int64", 3 * pairs),
                ("bool", pairs),
                (f"S{width}", pairs),
            ):
                block = np.empty(0, kind)  # an empty block cannot be mapped
                if number:
                    block = np.memmap(file, kind, "r", offset, (number,)).view(np.ndarray)
                blocks.append(block)
                offset += block.nbytes
            report = EncodingReport(**header["report"])
            report.dropped, report.mismatches = Counter(report.dropped), Counter(report.mismatches)
            return EncodedPairs(blocks[0][:count], *blocks[1:]), report
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):  # a valid checksum over another version's header
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
    """Remove the least recently used files beyond KEPT_FILES and KEPT_BYTES, and what dead processes left.

    A process that has mapped a removed file can still read it.
    """
    files = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may prune at the same time
            status = path.stat()
            if path.suffix == ".pairs" and path != newest:
                files.append((status.st_mtime, status.st_size, path))
            elif path.suffix == ".part" and time.time() - status.st_mtime > _ABANDONED_S:
                path.unlink()
    try:
        room = KEPT_BYTES - newest.stat().st_size
    except FileNotFoundError:  # pruned by another process in the meantime
        return
    for rank, (_, size, path) in enumerate(sorted(files, reverse=True), start=2):
        room -= size
        if rank > KEPT_FILES or room < 0:
            with contextlib.suppress(OSError):
                path.unlink()
