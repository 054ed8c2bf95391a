"""The linear layers of a text decoder that may get an adapter."""

import re

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import LoraConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from transformers.pytorch_utils import Conv1D

#: Exactly these: a router or a layer with a result of its own is often a subclass, and peft's layer would not fit it.
_LINEAR = (torch.nn.Linear, Conv1D, Linear4bit, Linear8bitLt)
#: A part of a layer's name that says that it chooses experts or weighs branches.
_ROUTER = re.compile(r"(^|\.)(router|gate|shared_expert_gate|wg|weights_proj|classifier)(\.|$)")
#: Inside a state-space mixer: its kernels read these weights beside the layer, so an adapter would do nothing.
_READ_BESIDE = ("out_proj", "dt_proj")


def linear_layers(model) -> list[str]:
    """Full names of the linear layers that adapters are for: those of the text decoder, without head and routers.

    Towers for images and sound are no part of the decoder. model: a causal or image-text model of transformers.
    """
    decoder, head = _decoder(model), model.get_output_embeddings()
    inside = {id(module) for module in decoder.modules()}
    parents = dict(model.named_modules())
    names = [
        name
        for name, module in parents.items()
        if type(module) in _LINEAR
        and id(module) in inside
        and module is not head
        and not _ROUTER.search(name)
        and not _is_read_beside(name, parents)
    ]
    return _left_by_peft(model, names)


def _left_by_peft(model, names):
    """The names that peft takes for layers.

    In some mixtures it takes gate_proj, up_proj and down_proj of a dense layer for the stacked experts, which it would
    then train through a copy of all of them in every pass, while the dense layers got nothing.
    """
    trial = LoraConfig(target_modules=names)
    convert_peft_config_for_transformers(trial, model, None)
    return [name for name in names if name in trial.target_modules]


def _decoder(model):
    """The text part of a model with other parts, or the model."""
    own = getattr(model, "get_decoder", lambda: None)()
    # where the head is called "decoder", it is taken for one
    return model if own is None or type(own) in _LINEAR else own


def _is_read_beside(name, modules):
    parent, _, last = name.rpartition(".")
    return last in _READ_BESIDE and hasattr(modules[parent], "ssm_state_size")
