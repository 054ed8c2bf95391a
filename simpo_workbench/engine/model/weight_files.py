"""Checks that weights are safetensors, by their names and first bytes, before a library reads them.

Reading a pickle runs the code in it. The checks here read names, JSON and a few bytes of a file only.
"""

import json
from pathlib import Path

from ...base.errors import WorkbenchError

PICKLED = ("*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_LONGEST_HEADER = 100_000_000  # the safetensors format's own bound
_LARGEST_JSON = 100_000_000
#: Files with settings of a model and its tokenizer.
SETTINGS_FILES = (
    *("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
_MAGIC = {
    b"PK\x03\x04": "a ZIP archive as torch.save writes it, whose pickle can run code",
    b"\x1f\x8b": "a gzip file",
    b"GGUF": "a GGUF file",
}


def require_safetensors(folder: Path, name: str) -> None:
    """Raise WorkbenchError unless a model folder's weights are safetensors by name and by content.

    Pickled weights beside them are allowed, because nothing reads them.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
        what = f"only pickled weights ({pickled[0]}), which can run code" if pickled else "no weights"
        raise WorkbenchError(
            f"The model {name!r} has {what}; safetensors are needed. Choose a version that has them, or convert it"
            " where you trust it."
        )
    # transformers would load that adapter, pickled or not, into the base model
    if (folder / "adapter_config.json").exists():
        raise WorkbenchError(
            f"The folder of the model {name!r} holds a PEFT adapter as well (adapter_config.json): move it to a folder"
            " of its own and give that as model.adapter."
        )
    for path in weights:
        require_safetensors_file(path, f"The model {name!r} cannot be loaded")
    for index in sorted(folder.glob("*.safetensors.index.json")):
        shards = json_object(index, name).get("weight_map")
        _require_names(folder, set(shards.values()) if isinstance(shards, dict) else {None}, index.name, name)
    if "transformers_weights" in (config := json_object(folder / "config.json", name)):
        _require_names(folder, {config["transformers_weights"]}, "config.json", name)


def require_safetensors_file(path: Path, what_fails: str) -> None:
    """Raise WorkbenchError unless the file has a safetensors header; the message begins with `what_fails`."""
    try:
        with open(path, "rb") as file:
            head = file.read(9)
        size = path.stat().st_size
    except OSError as error:
        raise WorkbenchError(f"{what_fails}: {path.name} cannot be read ({error.strerror}).") from None
    kind = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        kind = "a pickle, which can run code"
    if kind is None and (
        len(head) < 9 or head[8:] != b"{" or int.from_bytes(head[:8], "little") > min(_LONGEST_HEADER, size - 8)
    ):
        kind = "something else, or damaged"
    if kind:
        raise WorkbenchError(
            f"{what_fails}: {path.name} is no safetensors file but {kind}. Get the weights again as safetensors."
        )


def require_adapter(folder: Path) -> None:
    """Raise WorkbenchError unless a PEFT adapter folder holds a LoRA adapter as safetensors."""
    name = str(folder)
    if not (folder / "adapter_model.safetensors").is_file():
        raise WorkbenchError(
            f"The adapter in {name!r} has no adapter_model.safetensors; pickled weights (adapter_model.bin) are not"
            " loaded."
        )
    require_safetensors_file(folder / "adapter_model.safetensors", f"The adapter in {name!r} cannot be loaded")
    config = json_object(folder / "adapter_config.json", name)
    # other kinds of adapters name files to unpickle and modules to import in their configuration
    if str(config.get("peft_type", "LORA")).upper() != "LORA" or config.get("megatron_config"):
        raise WorkbenchError(
            f"The adapter in {name!r} is of the kind {str(config.get('peft_type'))[:40]!r}: only plain LoRA adapters"
            " (also with DoRA or rsLoRA) are loaded."
        )


def own_code(folder: Path) -> str | None:
    """The class in a model folder's own code that its configuration needs, as "file.Class in config.json", or None."""
    for name in ("config.json", "tokenizer_config.json"):
        try:
            auto_map = json_object(folder / name, "").get("auto_map")
        except WorkbenchError:
            continue
        for entry in auto_map.values() if isinstance(auto_map, dict) else [auto_map]:
            for class_name in entry if isinstance(entry, list) else [entry]:
                if class_name and isinstance(class_name, str):
                    return f"{class_name[:100]} in {name}"
    return None


def _require_names(folder, names, where, model):
    """Raise WorkbenchError unless every name is that of a safetensors file or index in the folder itself."""
    for name in names:
        valid = isinstance(name, str) and name.endswith((".safetensors", ".safetensors.index.json"))
        if not valid or set(name) & set("/\\\0") or not (folder / name).is_file():
            raise WorkbenchError(
                f"The model {model!r} cannot be loaded: {where} asks for the weights {str(name)[:80]!r}, which are no"
                " safetensors file in its folder."
            )


def require_json_files(folder: Path, name: str) -> None:
    """Raise WorkbenchError unless the small files of a model folder that libraries read hold JSON objects."""
    for file in SETTINGS_FILES:
        json_object(folder / file, name)


def json_object(path: Path, model: str) -> dict:
    """The JSON object in a file, {} where there is no file. Errors: WorkbenchError for a damaged one."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_JSON + 1)
        value = json.loads(data) if len(data) <= _LARGEST_JSON else None
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise WorkbenchError(f"{model!r} cannot be loaded: {path.name} is damaged, expected a JSON object.")
    return value
