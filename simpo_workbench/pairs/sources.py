"""The raw rows behind whatever a user gives: a file, a folder, a hub id, a DataFrame, a data set or a list of dicts."""

import os
import re
from pathlib import Path

from ..base.errors import WorkbenchError, first_line
from ..base.paths import bundled
from ..config.run_config import DEMO
from . import files as pair_files
from .refused import excerpt


def open_source(source) -> pair_files.Source:
    """The raw rows of whatever `load_pairs` takes. Errors: WorkbenchError when it is not found or of another kind."""
    if isinstance(source, list | tuple):
        return pair_files.read_list(source, "list")
    library = type(source).__module__.partition(".")[0]
    if library == "pandas" and hasattr(source, "columns"):
        return pair_files.read_frame(source, "DataFrame")
    if library == "datasets":
        return pair_files.read_dataset(source, "Dataset")
    if not isinstance(source, str | os.PathLike):
        raise WorkbenchError(
            f"Pairs cannot be loaded from a {type(source).__name__}. Give a file, a folder, a hub id, a DataFrame, a"
            " datasets.Dataset or a list of dicts."
        )
    return _open_named(source)


def local_path(source: str | os.PathLike) -> Path | None:
    """The file or folder that a source's name means; None for a hub id.

    Errors: WorkbenchError where it is the path of nothing, or neither a path nor a hub id.
    """
    text = os.fsdecode(source)
    if not text.strip():
        raise WorkbenchError("The source of the pairs is an empty text. Give a file, a folder or a hub id.")
    if re.match(r"[a-z]+://", text):
        raise WorkbenchError(
            f"{text} is a web address. Download the file and give its path, or give a hub id such as 'owner/name'."
        )
    try:
        path = Path(text).expanduser()
        exists = path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise WorkbenchError(f"{excerpt(text)} cannot be a path here: {first_line(error)}.") from error
    if text == DEMO and not exists:
        return bundled("data/plain_answers/train.jsonl")
    if exists:
        return path
    from .hub import is_hub_id

    looks_like_a_file = path.suffix.lower() in (*pair_files.SUFFIXES, *pair_files.PACKED, ".txt")
    if isinstance(source, os.PathLike) or looks_like_a_file or not is_hub_id(text):
        raise pair_files.missing_path_error(path)
    # "my_pairs" beside "my_pairs.jsonl" is no data set of the hub
    forgotten = "/" not in text and any(name.startswith(f"{text}.") for name in pair_files.near_names(path))
    if forgotten or pair_files.names_without_ending(path):
        raise pair_files.missing_path_error(path)
    return None


def _open_named(source):
    if (path := local_path(source)) is not None:
        return pair_files.read_path(path)
    from .hub import read_hub

    text = os.fsdecode(source)
    try:
        return read_hub(text)
    except WorkbenchError as error:
        path = Path(text).expanduser()
        if near := pair_files.near_names(path):
            raise WorkbenchError(f"{error} Nearest names in {path.parent}: {', '.join(near)}.") from error
        raise
