"""The folder of a model, and the tokenizer in it.

It imports no torch itself, so that a process without weights starts in a few seconds.
"""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ...base.errors import WorkbenchError, first_line
from ...config.local_model import local_model
from ...config.run_config import DEMO, DataConfig, ModelConfig
from ..encode.template_check import LONGEST_TEMPLATE
from . import demo_model, hub
from .file_check import require_bounded_config, require_bounded_tokenizer
from .weight_files import own_code, require_json_files, require_safetensors

_LONGEST_REASON = 300


def load_tokenizer(config: ModelConfig, data: DataConfig | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a ModelConfig; weights are neither read nor, for a hub model, downloaded.

    data: its chat_template replaces the model's own. Errors: WorkbenchError for a model that cannot be found or read.
    """
    return tokenizer_in(model_folder(config, weights=False), config, data)


def tokenizer_in(folder: Path, config: ModelConfig, data: DataConfig | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer in a model's folder, with the model's name as its own."""
    require_json_files(folder, config.name)
    require_bounded_config(folder, config.name)  # transformers reads it to choose the tokenizer's class
    require_bounded_tokenizer(folder, config.name)
    try:
        # without trust_remote_code, transformers asks on a terminal
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the libraries raise any type for a value of a wrong kind in a stranger's file
        raise WorkbenchError(f"The model {config.name!r} cannot be loaded: {why_not(folder, error)}") from None
    if not isinstance(tokenizer.model_max_length, (int, float)):
        raise WorkbenchError(
            f"The model {config.name!r} cannot be loaded: model_max_length in its tokenizer_config.json is"
            f" {str(tokenizer.model_max_length)[:60]!r}, expected a number. Get the file again."
        )
    tokenizer.name_or_path = model_identity(config)
    if data and data.chat_template:
        tokenizer.chat_template = _template_text(data.chat_template)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # padding is always masked, or to the right of all that counts
    return tokenizer


def model_identity(config: ModelConfig) -> str:
    """The name of the model that adapters store as their base."""
    return demo_model.IDENTITY if config.name == DEMO else config.name


def model_folder(config: ModelConfig, weights: bool = True) -> Path:
    """The local folder of a model, downloaded first if needed.

    weights: False for a folder that may lack the weights. Errors: WorkbenchError when there is no such model.
    """
    if (local := local_model(config)) is not None:
        if local.is_file():
            return demo_model.gguf_folder(local)
        if weights:
            require_safetensors(local, config.name)
        return local
    if config.source in ("auto", "local") and config.name == DEMO:
        return demo_model.demo_model_folder()
    return hub.download(config, weights)


def why_not(folder: Path, error: BaseException) -> str:
    """Why transformers could not load what is in a folder, as one sentence."""
    if "automatic conversion of the weights" in str(error):  # its details are in a log with a traceback
        return "some of its weights are incomplete, or have other shapes than config.json says. Get the model again"
    if "trust_remote_code" not in str(error):
        if isinstance(error, (MemoryError, OSError, ImportError)):
            return first_line(error)
        words = " ".join(str(error).split())  # some libraries say in the second line what is wrong
        words = words if len(words) <= _LONGEST_REASON else f"{words[:_LONGEST_REASON]}…"
        named = isinstance(error, (ValueError, RuntimeError)) and words
        return words if named else f"a value in its files is of a wrong kind ({type(error).__name__}: {words})"
    return (
        f"it needs code of its own ({own_code(folder) or 'named in its configuration'}), and code from a model is never"
        " run here. Choose a model that transformers supports itself."
    )


def _template_text(template):
    path = Path(template)
    try:
        if len(template) >= 1024 or "{" in template or not path.is_file():
            return template
        with open(path, encoding="utf-8") as file:
            return file.read(LONGEST_TEMPLATE + 1)  # one character too many is refused with the template itself
    except (OSError, UnicodeDecodeError) as error:
        raise WorkbenchError(f"data.chat_template {template!r} cannot be read: {error}") from None
