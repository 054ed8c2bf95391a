"""A tiny model with random weights, to try a pipeline or to step through a training without a download."""

import json
import tempfile
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from ...base.errors import WorkbenchError

#: A key of config.json by which a folder made here is recognized; its value is the version.
_MARK = "simpo_workbench_tiny_model"
_VERSION = 1
_SEED = 0
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}{% if"
    " add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
#: Widths are multiples of 64, the block of 4-bit quantization.
_SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
_SPREAD = 0.1  # standard deviation of the weights; with transformers' 0.02 all tokens would be about equally likely


def make_tiny_model(folder: str | Path) -> str:
    """Path of a folder with a tiny model: a Llama with random weights and a ChatML tokenizer, made if it is not there.

    It has 0.2 million parameters, always the same, and one token per byte. Its answers are noise, but it loads at once
    in every precision, needs no download, and its loss falls like that of any other model: for stepping through a
    training, and for trying a pipeline before a real model takes its place.
    Errors: WorkbenchError when the folder holds something else, or cannot be written.
    """
    folder = Path(folder).expanduser()
    disable_progress_bar()
    try:
        if folder.is_dir() and any(folder.iterdir()):
            if not _made_here(folder):
                raise WorkbenchError(
                    f"The folder {str(folder)!r} holds something else: expected an empty or a new one for the tiny"
                    " model. Choose another name."
                )
            return str(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tiny-model-", dir=folder.parent) as work:
            complete = Path(work, "model")
            _tokenizer().save_pretrained(complete)
            _model().save_pretrained(complete)
            complete.rename(folder)  # all of it or nothing; it replaces an empty folder
    except OSError as error:
        raise WorkbenchError(
            f"The tiny model cannot be written to {str(folder)!r}: {error.strerror or error}. Choose another folder."
        ) from None
    return str(folder)


def _made_here(folder):
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get(_MARK) == _VERSION
    except (OSError, ValueError, AttributeError):
        return False


def _tokenizer():
    """A tokenizer of one token per byte of UTF-8 and three special ones, so that no text is unknown to it."""
    symbols = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[]))
    inner.add_special_tokens([AddedToken(symbol, special=True) for symbol in _SPECIAL])
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        chat_template=_CHATML,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=_SHAPE["max_position_embeddings"],
    )


def _model():
    tokenizer = _tokenizer()
    config = LlamaConfig(
        **_SHAPE,
        vocab_size=len(tokenizer),
        initializer_range=_SPREAD,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **{_MARK: _VERSION},
    )
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it was
        torch.manual_seed(_SEED)
        return LlamaForCausalLM(config).float()
