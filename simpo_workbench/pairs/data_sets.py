"""The training and the held-out pairs that a DataConfig names, and pairs from whatever an argument holds."""

from __future__ import annotations

from typing import NamedTuple

from ..base.format import counted
from ..base.paths import bundled
from ..config.run_config import DEMO, DataConfig
from .final_share import final_share
from .pairs import Pairs, load_pairs, prompt_text
from .sources import local_path

#: Data of so many bytes is read in about a second.
QUICKLY_READ_BYTES = 20_000_000


class DataSets(NamedTuple):
    """The pairs of a configuration: `train`, those that choose a step (`held_out`), and those that only report on it
    (`final`, often none).

    notes: sentences on refused rows, on the final pairs, and on prompts that are in both of the user's own sets.
    final_note: that on the final pairs.
    """

    train: Pairs
    held_out: Pairs
    final: Pairs
    notes: list[str]
    final_note: str


def load_data(data: DataConfig, seed: int) -> DataSets:
    """The DataSets of a configuration; training and held-out pairs are split by prompt where no held-out set is named.

    data.eval_limit limits held-out and final pairs together, so that no more are scored; the final share is one of what
    is left. Errors: WorkbenchError as in `load_pairs`, `Pairs.split` and `final_share`.
    """
    train = load_source(data.train, "train", data)
    notes = [f"Training pairs: {train.report()}"]
    if data.eval or data.train == DEMO:
        held_out = load_source(data.eval or DEMO, "eval", data)
        notes.append(f"Held-out pairs: {held_out.report()}")
        shared = {prompt_text(pair.prompt) for pair in train} & {prompt_text(pair.prompt) for pair in held_out}
        if shared:
            are = "is" if len(shared) == 1 else "are"
            notes.append(
                f"{counted(len(shared), 'prompt')} {are} among both the training and the held-out pairs, so held-out"
                f" results flatter the model; such as {min(shared)[:80]!r}."
            )
    else:
        train, held_out = train.split(data.eval_fraction, seed)
    train = _limited(train, "Training", "limit", data, notes)
    held_out = _limited(held_out, "Held-out", "eval_limit", data, notes)
    held_out, final, final_note = final_share(held_out, data.final_fraction)
    return DataSets(train, held_out, final, [*notes, final_note], final_note)


def require_data(data: DataConfig, seed: int) -> None:
    """Raise WorkbenchError where the data that a configuration names is not there or cannot be used.

    Local data of QUICKLY_READ_BYTES is read as by `load_data`; of more only the path is looked for.
    """
    sources = [source for source in (data.train, data.eval) if source and source != DEMO]
    paths = [local_path(source) for source in sources]
    if sources and all(path is not None and _size_of(path) <= QUICKLY_READ_BYTES for path in paths):
        load_data(data, seed)


def _size_of(path):
    """The bytes of a file, or of all files in a folder."""
    return sum(part.stat().st_size for part in (path.rglob("*") if path.is_dir() else [path]) if part.is_file())


def _limited(pairs, side, name, data, notes):
    """The pairs that a limit leaves; where it leaves some out, a sentence is added to the notes."""
    count = getattr(data, name)
    taken = pairs.limit(count) if data.limit_takes == "first" else pairs.sample(count)
    if len(taken) < len(pairs):
        how = "the first ones" if data.limit_takes == "first" else "a sample by hash"
        notes.append(f"{side} pairs: data.{name} takes {len(taken)} of {len(pairs)}, {how}.")
    return taken


def load_source(source: str, side: str, data: DataConfig) -> Pairs:
    """The pairs of one source with the configuration's columns.

    side: "train" or "eval", the bundled file to read when the source is "demo".
    """
    path = bundled(f"data/plain_answers/{side}.jsonl") if source == DEMO else source
    return load_pairs(
        path,
        columns=data.columns or None,
        framed_prompts=data.framed_prompts,
        pairs_from_ranking=data.pairs_from_ranking,
    )


def as_pairs(source) -> Pairs:
    """Pairs as they are, or loaded from one row or any source of `load_pairs`."""
    if isinstance(source, Pairs):
        return source
    return load_pairs([source] if isinstance(source, dict) else source)
