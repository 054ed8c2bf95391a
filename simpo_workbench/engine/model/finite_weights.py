"""Checks that weights are finite numbers: one NaN among them makes every log-probability NaN.

Quantization may hide both behind an ordinary number, so that they are looked for in what goes into it.
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest import mock

import torch

from ...base.errors import WorkbenchError
from .loading_checks import OPTIONAL, counted_weights


def not_finite(tensor: torch.Tensor) -> int:
    """How many values of a tensor are NaN or infinite.

    Their sum tells whether there are any: on a CPU it takes a twentieth of the time of `isfinite`, and no memory.
    """
    if not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
        return 0
    tensor = tensor.detach()
    with _one_thread():
        if tensor.sum().isfinite():
            return 0
    return int(tensor.numel() - tensor.isfinite().sum())  # 0 where only the sum is beyond the type's range


@contextlib.contextmanager
def watching_quantization() -> Iterator[dict[str, tuple[int, int]]]:
    """{name of a weight: (values that are not finite, all values)} of what is quantized while a model loads in this
    block; only weights with such values.
    """
    from transformers.integrations.bitsandbytes import Bnb4bitQuantize, Bnb8bitQuantize

    found = {}

    def watched(convert):
        def watching(self, input_dict, *args, **kwargs):
            for name, value in input_dict.items():
                for tensor in value if isinstance(value, list) else [value]:
                    if count := not_finite(tensor):
                        found[name] = count, tensor.numel()
            return convert(self, input_dict, *args, **kwargs)

        return watching

    with contextlib.ExitStack() as patches:
        for operation in (Bnb4bitQuantize, Bnb8bitQuantize):
            patches.enter_context(mock.patch.object(operation, "convert", watched(operation.convert)))
        yield found


def require_finite_model(model, found: dict[str, tuple[int, int]], name: str, compute: torch.dtype) -> None:
    """Raise WorkbenchError if weights of a loaded model are NaN or infinite.

    found: of those that were quantized on the way. name: model.name. compute: the type that the others were read as.
    """
    scaled = tuple(f"{weight}." for weight in found)  # their scales are damaged with them, and named already
    found = found | _found(item for item in _stored_values(model) if not scaled or not item[0].startswith(scaled))
    if found:
        narrow = compute == torch.float16
        remedy = " or the values are beyond what fp16 holds: try model.load_in bf16" if narrow else ""
        raise WorkbenchError(
            f"The model {name!r} cannot be loaded: {_counted(found)}. Its files are damaged{remedy}. Get the model"
            " again, or choose another version."
        )


def require_finite_adapter(weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Raise WorkbenchError if weights of an adapter are NaN or infinite. weights: by name."""
    if found := _found(weights.items()):
        raise WorkbenchError(
            f"The adapter in {str(folder)!r} cannot be used: {_counted(found)}. It is damaged, or its training failed."
            " Take an adapter from an earlier step, or get it again."
        )


@contextlib.contextmanager
def _one_thread():
    """Within this block torch computes in one thread: memory is the limit, and on a busy machine each meeting of
    several threads takes ten milliseconds.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _stored_values(model) -> Iterable[tuple[str, torch.Tensor]]:
    """(name, tensor) of all that a model keeps in its files; of 4-bit weights their scales."""
    for name, tensor in (*model.named_parameters(), *_stored_buffers(model)):
        yield name, tensor
        state = getattr(tensor, "quant_state", None)
        while state is not None:  # scales may be quantized as well, with scales of their own
            parts = {"absmax": state.absmax, "offset": getattr(state, "offset", None), "code": state.code}
            yield from ((f"{name}.{part}", value) for part, value in parts.items() if isinstance(value, torch.Tensor))
            state = getattr(state, "state2", None)


def _stored_buffers(model):
    for path, module in model.named_modules():
        for name, buffer in module.named_buffers(path, recurse=False):
            if name.rpartition(".")[2] not in module._non_persistent_buffers_set and not OPTIONAL.search(name):
                yield name, buffer


def _found(tensors):
    return {name: (count, tensor.numel()) for name, tensor in tensors if (count := not_finite(tensor))}


def _counted(found):
    name, (count, size) = next(iter(sorted(found.items())))
    verb = "holds" if len(found) == 1 else "hold"
    which = counted_weights(sorted(found)).rpartition(" ")[0]
    return f"{which} {verb} numbers that are NaN or infinite ({count:,} of {size:,} in {name!r})"
