"""Load the base model (NF4, 8-bit, 16-bit, fp32), add or switch LoRA adapters, give the memory back."""

import contextlib
import gc
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from ...base.errors import WorkbenchError, first_line
from ...config.run_config import DataConfig, LoraConfig, ModelConfig
from ...runs.run import Run
from ...runs.verified import read_kept
from ..encode.template_values import kept_beside
from ..forward import proof
from ..forward.decoder_layers import linear_layers
from ..forward.dropout import dropout_note, turn_off_dropout
from ..forward.memory import is_out_of_memory
from . import lora_linear, vocabulary
from .adapters import attach
from .file_check import require_possible_size
from .finite_weights import require_finite_model, watching_quantization
from .loading_checks import (
    quiet_loading,
    require_decoder,
    require_float_weights,
    require_loaded_whole,
    require_token_ids,
    stored_weights,
)
from .quantization import QUANTIZED, quantization, stored_form
from .tokenizer import model_folder, tokenizer_in, why_not

#: Adapter names: the one that is trained or compared, and a frozen copy of model.adapter.
TUNED, START = "default", "start"
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

# peft 0.21 asks transformers for gradient checkpointing by its old name; users can do nothing about it
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)


class LoadedModel:
    """A model in this process: `.model`, `.tokenizer`, `.device`; `close()` or `with` gives the memory back.

    vocabulary: ids that it can read and predict. positions: the longest sequence it is made for in tokens, None without
    a limit. folder: where its files are. notes: sentences on what is not as the configuration or the tokenizer says.
    frozen: what the run that its adapter is from has kept of the chat template; see encode/template_values.py.
    """

    def __init__(
        self,
        model,
        tokenizer,
        config: ModelConfig,
        device: torch.device,
        compute_dtype: torch.dtype,
        folder: Path,
    ):
        self._model, self.tokenizer, self.config, self.folder = model, tokenizer, config, folder
        self.device, self.compute_dtype = device, compute_dtype
        self.vocabulary = vocabulary.vocabulary_of(model)
        self.positions = vocabulary.positions_of(model.config)
        self.notes: list[str] = []
        self.frozen: dict = {}

    @property
    def model(self) -> torch.nn.Module:
        """The transformers model, wrapped by PEFT if there is an adapter. Errors: WorkbenchError once it is closed."""
        if self._model is None:
            raise WorkbenchError("This model is closed: load it again with wb.load_model.")
        return self._model

    @model.setter
    def model(self, model) -> None:
        self._model = model

    @property
    def has_adapter(self) -> bool:
        """Whether there is a tuned adapter, so that base and tuned model differ."""
        return isinstance(self.model, PeftModel) and TUNED in self.model.peft_config

    @contextlib.contextmanager
    def base(self) -> Iterator[None]:
        """Within this block the model is the base model: with model.adapter if that is set, else without adapter."""
        if not self.has_adapter:
            yield
        elif START in self.model.peft_config:
            trainable = {parameter for parameter in self.model.parameters() if parameter.requires_grad}
            self.model.set_adapter(START, inference_mode=True)
            try:
                yield
            finally:
                self.model.set_adapter(TUNED)
                for parameter in self.model.parameters():
                    parameter.requires_grad_(parameter in trainable)
        else:
            with self.model.disable_adapter():
                yield

    def close(self) -> None:
        """Drop the model and return its memory to the device."""
        self._model = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def load_model(
    config: ModelConfig | None = None,
    adapter: str | Path | None = None,
    data: DataConfig | None = None,
    run: Run | None = None,
) -> LoadedModel:
    """The model of a ModelConfig, ready to score and answer.

    adapter: a PEFT folder; the model is then the tuned one, and `base()` switches to its base.
    data: its chat_template is used instead of the model's own. run: whose day and thinking the chat template takes; by
    default that of the run that the adapter is inside of.
    Errors: WorkbenchError for a model or adapter that cannot be found, is refused by the hub, has only pickled weights,
    or for an adapter of another model.
    """
    loaded = load_base(config or ModelConfig(), data)
    if loaded.config.adapter:
        attach(loaded, Path(loaded.config.adapter).expanduser(), START, trainable=False)
    if adapter:
        attach(loaded, Path(adapter), TUNED, trainable=False)
        loaded.model.set_adapter(TUNED, inference_mode=True)
        loaded.frozen = kept_beside(adapter)
    if run is not None:
        loaded.frozen = read_kept(run.folder)
    loaded.model.eval()
    return loaded


def load_base(config: ModelConfig, data: DataConfig | None = None) -> LoadedModel:
    """The frozen base model without any adapter, on the GPU when there is one."""
    folder = model_folder(config)
    tokenizer = tokenizer_in(folder, config, data)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    compute = _compute_dtype(config, device)
    disable_progress_bar()  # in a worker it would fill the log
    try:
        model_config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        require_decoder(model_config, config.name)
        quantized, note = quantization(config, model_config, compute)
        stored = list(stored_weights(folder))
        if stored_form(model_config) is None:
            require_float_weights(stored, config.name)
        numbers = sum(math.prod(shape) for _, _, shape in stored)
        require_possible_size(folder, config.name, model_config, numbers)
        with quiet_loading(), watching_quantization() as found:
            model, loading_info = AutoModelForCausalLM.from_pretrained(
                folder,
                config=model_config,
                dtype=compute,
                quantization_config=quantized,
                attn_implementation=_stock_attention(model_config) if config.attention == "auto" else config.attention,
                device_map={"": device},
                use_safetensors=True,
                trust_remote_code=False,  # without it, transformers asks on a terminal
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they end the load below, with their shapes
            )
    except NotImplementedError:  # transformers has no random values of the quantized type for a weight that is missing
        raise WorkbenchError(
            f"The model {config.name!r} cannot be loaded: its files lack some of its quantized weights. Get the model"
            " again, or choose another version."
        ) from None
    except WorkbenchError:
        raise
    except Exception as error:  # transformers raises any type for a value of a wrong kind in a stranger's file
        if is_out_of_memory(error):
            where = torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine"
            raise WorkbenchError(
                f"The model {config.name!r} does not fit into the memory of {where} as {config.load_in}: try nf4 or a"
                " smaller model, or free some memory."
            ) from None
        raise WorkbenchError(f"The model {config.name!r} cannot be loaded: {why_not(folder, error)}") from None
    require_loaded_whole(model, loading_info, config.name)
    require_finite_model(model, found, config.name, compute)
    require_token_ids(model.generation_config, config.name)
    tokens_note = vocabulary.require_known_tokens(tokenizer, vocabulary.vocabulary_of(model), config.name)
    notes = [note, _precision_note(compute, device), tokens_note]
    model.config._name_or_path = model.name_or_path = tokenizer.name_or_path
    model.requires_grad_(False)
    _keep_4bit_weights_differentiable(model)
    if rates := turn_off_dropout(model):
        notes.append(dropout_note(rates))
    proof.install(model, keep_attention=config.attention != "auto")
    loaded = LoadedModel(model, tokenizer, config, device, compute, folder)
    loaded.notes = [note for note in notes if note]
    return loaded


def add_lora(loaded: LoadedModel, lora: LoraConfig, seed: int) -> None:
    """Add the adapter that will be trained (fp32 parameters): a new one, or a trainable copy of model.adapter."""
    if loaded.config.adapter:
        folder = Path(loaded.config.adapter).expanduser()
        attach(loaded, folder, TUNED, trainable=True)
        attach(loaded, folder, START, trainable=False)
        loaded.model.set_adapter(TUNED)
        for name, parameter in loaded.model.named_parameters():
            parameter.requires_grad_(f".{TUNED}." in name)
        return
    peft_config = PeftLoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora_targets(loaded.model, lora),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        task_type="CAUSAL_LM",
        revision=loaded.config.revision,
    )
    torch.manual_seed(seed)
    try:
        loaded.model = get_peft_model(loaded.model, peft_config)
        lora_linear.install(loaded.model)
    except ValueError as error:
        raise WorkbenchError(
            f"lora.target_modules = {lora.target_modules!r} does not fit this model: {first_line(error)}"
        ) from None


def lora_targets(model, lora: LoraConfig) -> list[str]:
    """Names of the layers that get an adapter; all-linear means every one of `linear_layers`, by its full name."""
    if lora.target_modules != "all-linear":
        return lora.target_modules
    names = linear_layers(model)
    if not names:
        raise WorkbenchError(
            "This model has no plain linear layer that an adapter fits: name its layers in lora.target_modules."
        )
    return names


@contextlib.contextmanager
def weights_unpacked(loaded: LoadedModel) -> Iterator[None]:
    """Within this block, 4-bit layers on a CPU use weights that were dequantized once instead of in every pass.

    The numbers are the same. It takes 4 bytes per parameter, and is skipped where less than twice that memory is free.
    """
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    layers = []
    if loaded.device.type == "cpu":
        layers = [m for m in loaded.model.modules() if isinstance(m, Linear4bit) and "forward" not in vars(m)]
    bytes_needed = 4 * sum(layer.in_features * layer.out_features for layer in layers)
    if layers and 2 * bytes_needed > psutil.virtual_memory().available:
        layers = []
    for layer in layers:
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(loaded.compute_dtype)
        layer.unpacked_weight, layer.forward = weight, _plain_forward(weight, layer.bias)
    try:
        yield
    finally:
        for layer in layers:
            del layer.unpacked_weight, layer.forward  # the forward method of the class is used again


def _plain_forward(weight, bias):
    return lambda x: torch.nn.functional.linear(x.to(weight.dtype), weight, bias).to(x.dtype)


def _stock_attention(model_config):
    """transformers' own attention for this model: SDPA cannot soft-cap scores, and some models do without it."""
    if getattr(model_config.get_text_config(), "attn_logit_softcapping", None):
        return "eager"
    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(model_config), None)
    return "sdpa" if getattr(kind, "_supports_sdpa", True) else "eager"


def _compute_dtype(config, device):
    if config.load_in not in QUANTIZED:
        if config.compute_dtype not in ("auto", config.load_in):
            raise WorkbenchError(
                f"model.compute_dtype {config.compute_dtype} with model.load_in {config.load_in}: unquantized weights"
                " compute in their own precision; set both alike."
            )
        return _DTYPES[config.load_in]
    if config.compute_dtype != "auto":
        return _DTYPES[config.compute_dtype]
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def _precision_note(compute, device):
    """A sentence where the arithmetic is not precise enough to train with, else None."""
    if compute != torch.float16 or device.type != "cpu":
        return None
    return (
        "It computes in fp16 on a CPU, without loss scaling: small gradients become 0, so that it trains less than it"
        " should. Set model.compute_dtype (or model.load_in of unquantized weights) to bf16 or fp32."
    )


def _keep_4bit_weights_differentiable(model):
    """Stop bitsandbytes from repacking 4-bit weights into a layout without backward pass (CPUs with AVX512-BF16)."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
