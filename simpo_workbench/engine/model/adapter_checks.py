"""Checks that a PEFT adapter belongs to a base model: its settings, its base, its vocabulary, its weights' shapes.

They read the adapter's configuration and the headers of its weights; nothing is loaded yet.
"""

from pathlib import Path

import torch
from safetensors import safe_open

from ...base.errors import WorkbenchError
from .weight_files import json_object

#: Ways to begin an adapter that change the base model's weights as well: their adapters do not fit the base as it is.
_CHANGES_THE_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")
_MERGE = (
    "Merge it where it was made (merge_and_unload), save that model with its tokenizer, and give the new folder as"
    " model.name."
)
_EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out", "word_embeddings", "tok_embeddings")
_LARGEST_RANK = 16_384


def read_adapter(folder: Path) -> tuple[dict, dict[str, tuple[int, ...]]]:
    """(adapter_config.json, {name of a stored weight: its shape}) of an adapter whose settings can be used.

    Errors: WorkbenchError for settings that would change the base model, or are beyond all measure.
    """
    config = json_object(folder / "adapter_config.json", str(folder))
    what = f"The adapter in {str(folder)!r}"
    initial = str(config.get("init_lora_weights", True)).lower()
    if initial.startswith(_CHANGES_THE_BASE):
        raise WorkbenchError(
            f"{what} was begun with init_lora_weights {initial[:40]!r}, which changed its base model: on the base as it"
            " is, it is another model. Save it again as plain LoRA (PEFT: save_pretrained with"
            " path_initial_model_for_weight_conversion), or merge it and give the merged model as model.name."
        )
    for setting, effect in (
        ("layer_replication", "repeats layers of its base model"),
        ("trainable_token_indices", "changes single rows of its base model's embedding"),
        ("target_parameters", "changes stacked weights of its base model"),
        ("alora_invocation_tokens", "works only after certain tokens"),
        ("use_bdlora", "splits its matrices into blocks"),
        ("arrow_config", "chooses among other adapters"),
        ("use_qalora", "pools the inputs of its layers"),
    ):
        if config.get(setting):
            raise WorkbenchError(f"{what} {effect} ({setting}), which is not done here. {_MERGE}")
    if config.get("bias", "none") != "none":
        raise WorkbenchError(
            f"{what} changes the biases of its base model (bias {str(config['bias'])[:20]!r}). {_MERGE}"
        )
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise WorkbenchError(f"{what} is made for {str(config['task_type'])[:40]}, expected one for CAUSAL_LM.")
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        stored = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (no dictionary)
    for key, rank in [("r", config.get("r", 8)), *_items(config.get("rank_pattern"))]:
        if not isinstance(rank, int) or not 1 <= rank <= _LARGEST_RANK:
            raise WorkbenchError(
                f"{what} has the rank {str(rank)[:40]} ({str(key)[:40]} in adapter_config.json), expected a number from"
                f" 1 to {_LARGEST_RANK}: the file is damaged."
            )
    return config, stored


def require_same_base(adapter: dict, folder: Path, name: str, revision: str | None, base_folder: Path) -> str | None:
    """A sentence where an adapter's base cannot be compared with the model, None where it is the same.

    adapter: its configuration. name, revision: of the model in `base_folder`. Names of hub models are compared without
    their owner and without endings that only say how the weights are stored; folders by what is in them.
    Errors: WorkbenchError where the adapter names another base, or another revision of it.
    """
    theirs, their_revision = adapter.get("base_model_name_or_path"), adapter.get("revision")
    if not isinstance(theirs, str) or not theirs.strip():
        return f"The adapter in {str(folder)!r} does not say for which model it was made."
    if revision and their_revision and revision != their_revision:
        raise WorkbenchError(
            f"The adapter in {str(folder)!r} was made for another revision of its base: {str(their_revision)[:80]!r},"
            f" and model.revision is {revision!r}. Set model.revision to the adapter's, or take another adapter."
        )
    local = Path(theirs).expanduser()
    if (local / "config.json").is_file():
        if local.samefile(base_folder) or weight_sample(local) == weight_sample(base_folder):
            return None
    elif plain_name(theirs) == plain_name(name):
        return None
    elif _is_path(theirs) or _is_path(name):
        return (
            f"The adapter in {str(folder)!r} names {theirs[:120]!r} as its base, which cannot be compared with"
            f" {name!r}: its weights fit, but whether it was trained on this model is not known."
        )
    raise WorkbenchError(
        f"The adapter in {str(folder)!r} was made for another model: it was trained on {theirs[:120]!r}, and model.name"
        f" is {name!r}. Set model.name to its base; if both are the same model, correct base_model_name_or_path in its"
        " adapter_config.json."
    )


def plain_name(name: str) -> str:
    """The name of a model without owner or folder, case, and endings that say how its weights are stored."""
    last = name.rstrip("/").replace("\\", "/").rpartition("/")[2].lower()
    for ending in ("-bnb-4bit", "-unsloth", "-gguf", "-bf16", "-fp16", "-4bit"):
        last = last.removesuffix(ending)
    return last


def weight_sample(folder: Path) -> list:
    """Name, type, shape and first values of the tensors in a model folder: equal for copies of a model."""
    sample = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for key in sorted(file.keys()):
                part = file.get_slice(key)
                shape = part.get_shape()
                first = part[:1].flatten()[:8].float().tolist() if shape and all(shape) else []
                sample.append((key, part.get_dtype(), tuple(shape), str(first)))
    return sample


def require_own_vocabulary(
    stored: dict[str, tuple[int, ...]], adapter: dict, folder: Path, model, tokenizer, vocabulary: int
) -> set[str]:
    """Names of the embeddings that an adapter brings along and that are those of its base, value by value.

    Errors: WorkbenchError where they have another number of rows than the model, or other values than its base.
    """
    brought = {
        key: shape
        for key, shape in stored.items()
        if ".lora_" not in key and any(f".{part}." in f".{key}" for part in _EMBEDDINGS)
    }
    own = {part for part in _EMBEDDINGS if part in str(adapter.get("modules_to_save") or "")}
    for key, shape in brought.items():
        rows = _base_weight(model, key).shape[0] if _base_weight(model, key) is not None else vocabulary
        if shape and shape[0] != rows:
            raise WorkbenchError(
                f"The adapter in {str(folder)!r} brings embeddings of its own for a vocabulary of {shape[0]:,} tokens;"
                f" the model has {rows:,}. Its vocabulary was changed before it was trained. {_MERGE}"
            )
    copies = {key for key in brought if not any(part in key for part in own)}
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        for key in sorted(copies):
            base = _base_weight(model, key)
            if base is None or not _same_values(file.get_tensor(key), base):
                raise WorkbenchError(
                    f"The adapter in {str(folder)!r} brings embeddings of its own ({key}) that differ from those of the"
                    f" model: they were trained with it, or it was made for another model. {_MERGE}"
                )
    beyond = _tokens_beyond(folder, tokenizer, vocabulary)
    if beyond:
        raise WorkbenchError(
            f"The adapter in {str(folder)!r} was made for a larger vocabulary: its tokenizer has {beyond[0][1][:40]!r}"
            f" with the id {beyond[0][0]}, and the model's embedding has {vocabulary:,} rows. {_MERGE}"
        )
    return copies


def require_same_weights(stored: dict, expected: dict, folder: Path, name: str) -> None:
    """Raise WorkbenchError unless an adapter stores exactly the weights that it has on this model.

    stored, expected: {name: shape}.
    """
    missing, extra = sorted(expected.keys() - stored.keys()), sorted(stored.keys() - expected.keys())
    what = f"The adapter in {str(folder)!r} was made for another model than {name!r}"
    if missing or extra:
        raise WorkbenchError(
            f"{what}: it has {len(extra)} unknown and lacks {len(missing)} weights, such as {(extra + missing)[0]}. Set"
            " model.name to the model that it was trained on, or get the adapter again."
        )
    differing = sorted(key for key in stored if stored[key] != expected[key])
    if differing:
        shapes = [" × ".join(map(str, sizes[differing[0]])) for sizes in (stored, expected)]
        raise WorkbenchError(
            f"{what}: {len(differing)} of its weights have other shapes, such as {differing[0]} with {shapes[0]},"
            f" expected {shapes[1]}. Set model.name to the model that it was trained on."
        )


def _items(pattern):
    return pattern.items() if isinstance(pattern, dict) else []


def _is_path(name):
    """Whether a name is that of a folder on some machine, and not a hub id."""
    return name.startswith((".", "/", "~")) or name.count("/") != 1 or Path(name).is_dir()


def _base_weight(model, key):
    """The base model's weight that a stored name stands for, or None."""
    name = key.removeprefix("base_model.model.").replace(".base_layer.", ".")
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    last = name.rpartition(".")[0].rpartition(".")[2]
    for module_name, module in model.named_modules():
        if module is embedding or module is head:
            parts = module_name.split(".")
            if last in parts:
                module = getattr(module, "original_module", getattr(module, "base_layer", module))
                return module.weight
    return None


def _same_values(stored, base):
    """Whether two tensors hold the same numbers, up to the rounding of the coarser type."""
    stored, base = stored.cpu(), base.detach().cpu()
    return stored.shape == base.shape and (
        torch.equal(stored.to(base.dtype), base) or torch.equal(stored, base.to(stored.dtype))
    )


def _tokens_beyond(folder, tokenizer, vocabulary):
    """(id, token) of the tokens in an adapter folder's tokenizer that the model has no row for.

    A padding token is left out, because padding is masked, and so is what the model's own tokenizer has as well.
    """
    added = json_object(folder / "tokenizer.json", str(folder)).get("added_tokens")
    padding = json_object(folder / "tokenizer_config.json", str(folder)).get("pad_token")
    padding = padding.get("content") if isinstance(padding, dict) else padding
    tokens = [
        (token["id"], str(token.get("content")))
        for token in (added if isinstance(added, list) else [])
        if isinstance(token, dict) and isinstance(token.get("id"), int) and token["id"] >= vocabulary
    ]
    known = tokenizer.get_vocab() if tokens else {}
    return sorted((number, token) for number, token in tokens if token != padding and known.get(token) != number)
