"""Secrets in the texts that a run folder holds, which are the user's own data: counted before anything is shared."""

from __future__ import annotations

from functools import lru_cache

from ..base.files import file_stamp
from ..base.format import counted
from ..base.redaction import holds_known_secret
from .folder import RunFolder
from .manifest import Manifest
from .verified import read_answers, read_texts


def secrets_sentence(folder: RunFolder) -> str:
    """What to know before a run is shared: how many held-out pairs, in any of their columns, and sampled answers hold
    what looks like a token, key or password; "" where none does.

    Files that a run writes about itself, and its report, have such texts redacted; pairs and answers stay as they are.
    Texts are looked through once, until one of these files changes. Errors: WorkbenchError where one is damaged.
    """
    files = [folder.pairs, folder.final_pairs, *map(folder.generations, folder.sampled_steps())]
    return _sentence(folder.path, tuple(map(file_stamp, files)))


@lru_cache(maxsize=16)
def _sentence(path, stamps):
    folder = RunFolder(path)
    held_out = _in_pairs(folder) + _in_pairs(folder, final=True)
    counts = [(held_out, "held-out pair"), (_in_answers(folder), "sampled answer")]
    counts = [(count, what) for count, what in counts if count]
    if not counts:
        return ""
    return (
        f"{' and '.join(counted(count, what) for count, what in counts)} of this run"
        f" {'holds' if sum(count for count, _ in counts) == 1 else 'hold'} what looks like a token, key or password. In"
        " the report it is replaced; pairs.parquet, generations and perhaps the model itself have it: do not share them"
        " as they are."
    )


def _in_pairs(folder, final=False):
    path = folder.final_pairs if final else folder.pairs
    if not path.is_file() and not Manifest.read(folder.path).sealed_bytes(path):
        return 0
    rows = read_texts(folder, final=final).drop(columns="pair_id")
    return sum(holds_known_secret("\n".join(map(str, row))) for row in rows.itertuples(index=False, name=None))


def _in_answers(folder):
    answers = {
        (answer.get("prompt"), answer.get("answer"))
        for step in folder.sampled_steps()
        for answer in read_answers(folder, step)
    }
    return sum(holds_known_secret(f"{prompt}\n{answer}") for prompt, answer in answers)
