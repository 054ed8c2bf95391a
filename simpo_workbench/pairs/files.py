"""Raw rows from files, folders, DataFrames and datasets, each with its place; `shapes` says what a row means.

Readers are generators of (where, row): `where` is "line 17" or "row 3" (counted from 1), in a folder after the file's
name; `row` is a dict, or a RowRefused where the text itself cannot be read. Only blank lines are skipped.

JSON lines are not read by base/files.py here: a user's bad line is refused and counted, and never ends the reading.
"""

import difflib
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..base.errors import WorkbenchError, first_line
from .csv_rows import csv_rows
from .parquet_rows import open_parquet, parquet_rows
from .refused import LONGEST_ROW, RowRefused, excerpt, too_long
from .shapes import shape_of
from .spanning_rows import first_object_end, spanning_rows

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_MAGIC = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GGUF": "a GGUF model",
    b"PK\x03\x04": "a ZIP archive or Excel sheet",
    b"%PDF": "a PDF",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3": "an SQLite database",
    b"<!DOCTYPE": "a web page (was the wrong address downloaded?)",
    b"<!doctype": "a web page (was the wrong address downloaded?)",
    b"<html": "a web page (was the wrong address downloaded?)",
}
_GIT_LFS = b"version https://git-lfs.github.com/spec/"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
#: Endings of packed files, below which another ending tells the format.
PACKED = (".gz", ".zst")
_SPLIT_WORDS = {"train": "train", "training": "train"} | dict.fromkeys(
    ("test", "validation", "valid", "val", "dev", "eval"), "eval"
)
#: Also of an unpacked compressed file; all of it is held in memory.
LARGEST_FILE_BYTES = 4_000_000_000
#: A compressed file that unpacks to more than UNSUSPICIOUS_BYTES may grow by this factor. Text of real pairs compresses
#: to a third or a tenth, the most repetitive to a fiftieth.
MOST_EXPANSION = 200
UNSUSPICIOUS_BYTES = 100_000_000


@dataclass
class Source:
    """Raw rows with their source's name and notes for the report. numbers_are_text: they come from a CSV."""

    name: str
    rows: Iterator
    notes: list[str] = field(default_factory=list)
    numbers_are_text: bool = False


def read_path(path) -> Source:
    """The rows of one file or folder. Errors: WorkbenchError when it cannot be read."""
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise WorkbenchError(f"{path} is neither a file nor a folder.")
    notes: list[str] = []
    return Source(path.name, _read_file(path, notes), notes, numbers_are_text=_is_csv(path))


def missing_path_error(path) -> WorkbenchError:
    """The error for a path that does not exist, with the nearest names in its folder."""
    if near := names_without_ending(path) or near_names(path):
        hint = f"Nearest in {path.parent}: {', '.join(near)}."
    elif path.parent.is_dir():
        hint = f"Its folder {path.parent.absolute()} exists."
    else:
        hint = f"Its folder {path.parent.absolute()} does not exist either."
    return WorkbenchError(f"There is no file or folder {path}. {hint}")


def names_without_ending(path) -> list[str]:
    """The names in the path's folder that are its name with the ending of a file of pairs; none without the folder."""
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return []
    packed = ("", *PACKED)
    wanted = {f"{path.name}{ending}{pack}".lower() for ending in SUFFIXES for pack in packed} - {path.name.lower()}
    return [name for name in names if name.lower() in wanted]


def near_names(path) -> list[str]:
    """Up to three names in the path's folder that resemble its name; none where the folder is missing."""
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return []
    return difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)


def _read_folder(folder):
    if (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    ):
        import datasets

        try:
            saved = datasets.load_from_disk(str(folder))
        except Exception as error:  # a damaged Arrow folder raises errors of many types
            raise WorkbenchError(
                f"{folder} looks saved by datasets.save_to_disk but cannot be read: {first_line(error)}"
            ) from error
        return read_dataset(saved, folder.name)
    try:
        paths = [path for pattern in ("*", "*/*") for path in folder.glob(pattern)]
        files = sorted(path for path in paths if _is_data_file(path.relative_to(folder)) and path.is_file())
    except OSError as error:
        raise WorkbenchError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    if not files:
        raise WorkbenchError(
            f"The folder {folder} holds no data file. Expected {', '.join(SUFFIXES)}, each also with .gz or .zst."
        )
    splits = {path: _split_word(path.relative_to(folder)) for path in files}
    with_train = {_split_home(path) for path in files if splits[path] == "train"}
    left_out = [path for path in files if splits[path] == "eval" and _split_home(path) in with_train]
    notes = []
    if left_out:
        notes = [f"Left out as evaluation files: {', '.join(str(path.relative_to(folder)) for path in left_out)}"]
    files = [path for path in files if path not in left_out]
    rows = ((f"{path.relative_to(folder)} {where}", row) for path in files for where, row in _read_file(path, notes))
    return Source(folder.name, rows, notes, numbers_are_text=any(_is_csv(path) for path in files))


def _is_data_file(relative):
    hidden = any(part.startswith((".", "_")) for part in relative.parts)
    about_the_data = relative.name in ("dataset_info.json", "dataset_infos.json")
    return not hidden and not about_the_data and _suffix(relative) in SUFFIXES


def _split_word(relative):
    """ "train", "eval" or None; the file's own name counts before its folder's."""
    words = [word for part in reversed(relative.parts) for word in re.split(r"[^a-z]+", part.lower())]
    return next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), None)


def _split_home(path):
    """The folder whose splits a file belongs to: its own, or the one above a folder called train or test."""
    return path.parent.parent if _split_word(Path(path.parent.name)) else path.parent


def _suffix(path):
    """The extension that tells the format, without .gz or .zst."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() in PACKED else path.suffix.lower()


def _is_csv(path):
    return _suffix(path) in (".csv", ".tsv")


def _read_file(path, notes):
    """The rows of a file; what of it is left out is added to `notes` of the report."""
    suffix = _suffix(path)
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE_BYTES:
            raise WorkbenchError(
                f"{path.name} has {size / 1e9:.1f} GB, at most {LARGEST_FILE_BYTES / 1e9:.0f} are read at once:"
                " split it."
            )
        data = path.read_bytes()
        if data.startswith((_GZIP, _ZSTD)):
            data = _unpacked(data, path.name)
    except OSError as error:
        raise WorkbenchError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not data or data.isspace():
        raise WorkbenchError(f"{path.name} is empty.")
    if data.startswith(_GIT_LFS):
        size = re.search(rb"^size (\d{1,18})\s*$", data[:1000], re.MULTILINE)
        of = f" of {int(size[1]):,} bytes" if size else ""
        raise WorkbenchError(
            f"{path.name} is a Git LFS pointer, not the file{of} that it stands for. Fetch it with `git lfs pull`, or"
            " download the file itself."
        )
    if data[:4] == b"PAR1" or suffix == ".parquet":
        return _parquet_rows(data, path.name)
    text = _decode(data, path.name)
    if _is_csv(path):
        return csv_rows(text, path.name)
    if suffix in (".jsonl", ".ndjson", ".json") or text.lstrip()[:1] in ("{", "["):
        return _json_rows(text, path.name, suffix in (".jsonl", ".ndjson"), notes)
    raise WorkbenchError(
        f"{path.name} has no known extension and is not JSON inside. Expected {', '.join(SUFFIXES)}, each also with"
        " .gz or .zst."
    )


def _unpacked(data, name):
    """The content of a gzip or Zstandard file, read piece by piece: a bomb is refused before memory is full."""
    pieces, size, most = [], 0, min(LARGEST_FILE_BYTES, max(UNSUSPICIOUS_BYTES, MOST_EXPANSION * len(data)))
    kind = "gzip" if data.startswith(_GZIP) else "Zstandard"
    try:
        with gzip.open(io.BytesIO(data)) if kind == "gzip" else _zstd_stream(data) as file:
            while piece := file.read(1_000_000):
                pieces.append(piece)
                size += len(piece)
                if size > most:
                    raise WorkbenchError(
                        f"{name} ({len(data):,} bytes) unfolds to more than {most:,} bytes: at most {MOST_EXPANSION}"
                        f" times its size and {LARGEST_FILE_BYTES / 1e9:.0f} GB are read. Where it is no decompression"
                        " bomb, unpack it yourself and give the unpacked file."
                    )
    except (EOFError, zlib.error, OSError) as error:
        raise WorkbenchError(f"{name} is a damaged {kind} file: {first_line(error)}.") from error
    return b"".join(pieces)


def _zstd_stream(data):
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.BufferReader(data), "zstd")


def _decode(data, name):
    kind = next((words for magic, words in _MAGIC.items() if data.startswith(magic)), None)
    if kind:
        raise WorkbenchError(f"{name} is {kind}, not preference pairs. Expected {', '.join(SUFFIXES)}.")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise WorkbenchError(f"{name} is UTF-16 text. Save it as UTF-8.")
    if (position := data.find(b"\0")) >= 0:
        raise WorkbenchError(
            f"{name} is a binary file (a NUL byte at position {position}), not text. Expected {', '.join(SUFFIXES)}."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = data[error.start] if error.start < len(data) else 0
        raise WorkbenchError(
            f"{name} is not UTF-8: byte 0x{byte:02x} at position {error.start}. Save it as UTF-8 (or it is no text file"
            " at all)."
        ) from error


def _json_rows(text, name, lines, notes):
    if lines and text[:1] == "{" and _first_line_length(text) > LONGEST_ROW:
        return _line_rows(text)  # reading it whole would hold the row a second time, only to refuse it
    try:
        return _rows_in(_loads(text), name, notes)
    except json.JSONDecodeError as error:
        # "Extra data" after a whole first value: one value per line, whatever the extension says
        if not lines and not (error.msg == "Extra data" and text.lstrip().startswith("{")):
            raise WorkbenchError(
                f"{name} is broken JSON: {error.msg} (line {error.lineno}, column {error.colno})."
            ) from error
        if (last_line := first_object_end(text, _decoder)) not in (None, 1):
            if not lines:
                return spanning_rows(text, _decoder)
            raise WorkbenchError(
                f"{name} is JSON Lines by its name, but its objects span several lines: the first has {last_line}."
                " Write one object per line, or give the file a name that ends in .json: there they are read."
            ) from error
    except RecursionError as error:
        if not lines:
            raise WorkbenchError(f"{name} is nested too deeply to be read as JSON.") from error
    return _line_rows(text)


def _first_line_length(text):
    end = text.find("\n")
    return len(text) if end < 0 else end


def _line_rows(text):
    # not splitlines(): that also breaks at U+2028 and U+0085, which JSON strings may hold as they are
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for number, line in numbered:
        if len(line) > LONGEST_ROW:
            yield f"line {number}", too_long(len(line))
            continue
        try:
            yield f"line {number}", _loads(line)
        except json.JSONDecodeError as error:
            is_torn = number == numbered[-1][0] and not text.endswith("\n")
            torn = " (the last line; the file may be cut off)" if is_torn else ""
            open_line = "" if torn or line.strip() not in ("{", "[") else " (an object must stand on one line)"
            yield f"line {number}", RowRefused("unreadable", f"{error.msg}, column {error.colno}{torn}{open_line}")
        except RecursionError:
            yield f"line {number}", RowRefused("unreadable", "nested too deeply")


def _whole_number(digits):
    # beyond 64 bits a number fits no column, and beyond 4300 digits int() itself refuses: keep the digits as text
    return number if len(digits) <= 20 and -(2**63) <= (number := int(digits)) < 2**63 else digits


_decoder = json.JSONDecoder(parse_int=_whole_number)  # made once, not for every line
_loads = _decoder.decode


def _rows_in(value, name, notes):
    """The rows of one JSON value: a list, one row, or an object that holds lists of rows, of which one is read."""
    if isinstance(value, dict) and _holds_columns(value):
        raise WorkbenchError(
            f"{name} holds one list for each column ({', '.join(list(value)[:6])}), expected one object for each row."
            " pandas writes it with df.to_json(path, orient='records', lines=True)."
        )
    if isinstance(value, dict) and shape_of(value) is None:
        lists = {
            key: rows
            for key, rows in value.items()
            if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)
        }
        if len(lists) == 1:
            value = next(iter(lists.values()))
        elif "train" in lists:
            value = lists["train"]
            notes.append(
                f"Only 'train' of {name} was read, not {', '.join(repr(key) for key in lists if key != 'train')}"
            )
        elif lists:
            raise WorkbenchError(
                f"{name} holds several lists of rows ({', '.join(lists)}) and none is called train. Save one of them"
                " alone."
            )
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise WorkbenchError(f"{name} holds {excerpt(value)}, expected a list of rows or one row per line.")
    if not value:
        raise WorkbenchError(f"{name} holds an empty list.")
    return ((f"row {number}", row) for number, row in enumerate(value, 1))


def _holds_columns(value):
    """Whether an object holds columns, as lists or as pandas' {"0": …, "1": …}, and not the fields of one row."""
    lists = [
        list(column.values())
        if isinstance(column, dict) and list(column) == [str(n) for n in range(len(column))]
        else column
        for column in value.values()
    ]
    if len(lists) < 2 or not all(isinstance(column, list) for column in lists):
        return False
    if len({len(column) for column in lists}) != 1 or not lists[0]:
        return False
    by_index = all(isinstance(column, dict) for column in value.values())
    return by_index or (len(lists[0]) > 1 and all(isinstance(cell, str) for column in lists for cell in column))


def _parquet_rows(data, name):
    import pyarrow

    try:
        file = open_parquet(data)
        columns = file.schema_arrow.names
        if twice := sorted({column for column in columns if columns.count(column) > 1}):
            raise WorkbenchError(f"{name} has two columns called {excerpt(twice[0])}.")
        if file.metadata.num_rows == 0:
            raise WorkbenchError(f"{name} has columns ({', '.join(columns)}) and no rows.")
        size = sum(file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups))
        if size > LARGEST_FILE_BYTES:
            raise WorkbenchError(
                f"{name} unfolds to {size / 1e9:.1f} GB, at most {LARGEST_FILE_BYTES / 1e9:.0f} are read at once: split"
                " it."
            )
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise WorkbenchError(f"{name} is no readable Parquet file: {first_line(error)}") from error
    most = min(LARGEST_FILE_BYTES, max(10 * UNSUSPICIOUS_BYTES, MOST_EXPANSION * len(data)))
    return parquet_rows(file, name, most, 8 * LONGEST_ROW)


def read_frame(frame, name) -> Source:
    """The rows of a pandas DataFrame; NaN, NaT and NA count as missing values."""
    names = [str(column) for column in frame.columns]
    if twice := sorted({column for column in names if names.count(column) > 1}):
        raise WorkbenchError(f"The DataFrame has two columns called {excerpt(twice[0])}.")
    values = frame.astype(object).where(frame.notna(), None)
    records = values.itertuples(index=False, name=None)
    return read_list((dict(zip(names, record, strict=True)) for record in records), name)


def read_list(rows, name) -> Source:
    """The rows of a list of dicts, or another iterable of them."""
    return Source(name, ((f"row {number}", row) for number, row in enumerate(rows, 1)))


def read_dataset(dataset, name) -> Source:
    """The rows of a datasets.Dataset (also a streamed one); of a DatasetDict its train split, or its only one."""
    if isinstance(dataset, dict):
        split = "train" if "train" in dataset else next(iter(dataset), None)
        if split != "train" and len(dataset) != 1:
            raise WorkbenchError(
                f"{name} has the splits {', '.join(map(str, dataset))} and none is called train. Pass one of them:"
                " dataset['…']."
            )
        notes = [f"Only the split '{split}' was read"] if len(dataset) > 1 else []
        return Source(name, _dataset_rows(dataset[split], name), notes)
    return Source(name, _dataset_rows(dataset, name))


def _dataset_rows(dataset, name):
    number = 0
    try:
        # as Arrow, so that an image column arrives as bytes and needs no image library
        for table in dataset.with_format("arrow").iter(batch_size=1000):
            for row in table.to_pylist():
                number += 1
                yield f"row {number}", row
    except Exception as error:  # a stream, a mapped function or a damaged cache each raise their own
        raise WorkbenchError(f"{name} stopped after row {number}: {first_line(error)}.") from error
