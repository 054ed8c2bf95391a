"""Adapters of a loaded model: a stored one is attached under a name after it was checked."""

from pathlib import Path

from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model_state_dict
from peft.peft_model import PeftModelForCausalLM
from safetensors import SafetensorError

from ...base.errors import WorkbenchError, first_line
from ...config.local_model import require_adapter_folder
from . import adapter_checks, lora_linear
from .file_check import require_bounded_adapter
from .finite_weights import require_finite_adapter
from .tokenizer import model_identity
from .weight_files import require_adapter


def attach(loaded, folder: Path, name: str, trainable: bool) -> None:
    """Load a PEFT adapter under a name. loaded: a LoadedModel, whose notes get what cannot be compared.

    Errors: WorkbenchError for an adapter that was made for another model, revision or vocabulary, or is damaged.
    """
    require_adapter_folder(folder)
    require_adapter(folder)
    model_name = loaded.config.name
    try:
        settings, stored = adapter_checks.read_adapter(folder)
        note = adapter_checks.require_same_base(
            settings, folder, model_identity(loaded.config), loaded.config.revision, loaded.folder
        )
        if note and note not in loaded.notes:
            loaded.notes.append(note)
        copies = adapter_checks.require_own_vocabulary(
            stored, settings, folder, loaded.model, loaded.tokenizer, loaded.vocabulary
        )
        require_bounded_adapter(settings, folder, [layer for layer, _ in loaded.model.named_modules()])
        config = PeftLoraConfig.from_pretrained(str(folder))
        config.inference_mode, config.task_type = not trainable, "CAUSAL_LM"
        config.init_lora_weights = True  # all values are read below; how they began is past
        if isinstance(loaded.model, PeftModel):
            loaded.model.add_adapter(name, config)
        else:
            loaded.model = PeftModelForCausalLM(loaded.model, config, adapter_name=name)
        weights = get_peft_model_state_dict(loaded.model, adapter_name=name, save_embedding_layers=False)
        expected = {key: tuple(weight.shape) for key, weight in weights.items()}
        lora = {key: shape for key, shape in stored.items() if key not in copies}
        adapter_checks.require_same_weights(lora, expected, folder, model_name)
        result = loaded.model.load_adapter(str(folder), name, is_trainable=trainable)
    except (ValueError, RuntimeError, KeyError, OSError, TypeError, SafetensorError) as error:
        raise WorkbenchError(
            f"The adapter in {str(folder)!r} was made for another model than {model_name!r}, or is damaged:"
            f" {first_line(error)}."
        ) from None
    if result.missing_keys or result.unexpected_keys:
        unused = (result.missing_keys + result.unexpected_keys)[0]
        raise WorkbenchError(
            f"The adapter in {str(folder)!r} was made for another model than {model_name!r}: {unused} was not read."
        )
    weights = get_peft_model_state_dict(loaded.model, adapter_name=name, save_embedding_layers=False)
    require_finite_adapter(weights, folder)
    lora_linear.install(loaded.model)
