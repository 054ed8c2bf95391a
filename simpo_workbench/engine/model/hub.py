"""Models from the Hugging Face hub or ModelScope; only configuration, tokenizer and safetensors are downloaded."""

from pathlib import Path

from ...base.errors import WorkbenchError, first_line
from ...config.run_config import ModelConfig
from .weight_files import require_safetensors

_WEIGHTS = "*.safetensors"
_PATTERNS = ["*.json", _WEIGHTS, "*.jinja", "*.model", "*.txt"]
_IGNORED = ["original/*", "*/*.safetensors", "onnx/*"]


def download(config: ModelConfig, weights: bool = True) -> Path:
    """The local folder of a hub model, downloaded if it is not in the cache yet.

    weights: False downloads only the other files. Errors: WorkbenchError with what to do.
    """
    patterns = _PATTERNS if weights else [pattern for pattern in _PATTERNS if pattern != _WEIGHTS]
    source = _from_modelscope if config.source == "modelscope" else _from_hugging_face
    folder = source(config, patterns)
    if weights:
        require_safetensors(folder, config.name)
    return folder


def _from_hugging_face(config, patterns):
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(
            snapshot_download(config.name, revision=config.revision, allow_patterns=patterns, ignore_patterns=_IGNORED)
        )
    except GatedRepoError:
        raise WorkbenchError(
            f"The model {config.name!r} is gated: accept its terms on its page, then log in once with `hf auth login`"
            " or set HF_TOKEN."
        ) from None
    except RevisionNotFoundError:
        raise WorkbenchError(
            f"The model {config.name!r} has no revision {config.revision!r}: check model.revision."
        ) from None
    except RepositoryNotFoundError:
        raise WorkbenchError(
            f"There is no model {config.name!r}: no local folder of that name, and the hub does not know it or keeps it"
            " private. Check the spelling; for a private model log in with `hf auth login` or set HF_TOKEN."
        ) from None
    except HFValidationError:
        raise WorkbenchError(
            f"{config.name!r} is neither a local folder nor a hub id such as Qwen/Qwen3-0.6B."
        ) from None
    except LocalEntryNotFoundError:
        raise WorkbenchError(
            f"The model {config.name!r} is not in the local cache and the hub cannot be reached: check the network, or"
            " give a local folder."
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise WorkbenchError(
            f"The model {config.name!r} could not be downloaded: {first_line(error)} Run it again to go on where it"
            " stopped."
        ) from None


def _from_modelscope(config, patterns):
    try:
        from modelscope import snapshot_download
    except ImportError:
        raise WorkbenchError(
            "model.source modelscope needs the package of that name: pip install modelscope."
        ) from None
    try:
        return Path(
            snapshot_download(config.name, revision=config.revision, allow_patterns=patterns, ignore_patterns=_IGNORED)
        )
    except Exception as error:  # the package raises many types of its own, and plain requests errors
        raise WorkbenchError(
            f"The model {config.name!r} could not be downloaded from ModelScope: {first_line(error)}"
        ) from None
