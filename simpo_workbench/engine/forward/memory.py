"""How much goes through the model at once: micro-batch tokens and checkpointed layers, chosen from a measured step."""

import contextlib
import ctypes
import errno
import gc
import math
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from safetensors import SafetensorError
from transformers.modeling_layers import GradientCheckpointingLayer

from .packing import collate

#: More tokens at once make no step faster: matrix products reach full speed well before.
ENOUGH_TOKENS = {"cpu": 1024, "cuda": 16384}
#: Share of the free memory that a step may take; the rest is for the allocator's gaps and other programs.
SHARE_OF_FREE_MEMORY = 0.8
_STATUS = Path("/proc/self/status")


@dataclass
class MemoryPlan:
    """Tokens of one micro-batch and number of checkpointed layers; changed during a run only when memory runs out."""

    max_tokens_per_microbatch: int
    checkpointed_layers: int

    def shrink(self, largest_pair: int, layers: list) -> str | None:
        """Reduce the memory of the steps to come; returns what changed, or None when nothing is left to reduce.

        largest_pair: tokens of the step's largest pair.
        """
        if self.max_tokens_per_microbatch > largest_pair:
            self.max_tokens_per_microbatch = max(largest_pair, self.max_tokens_per_microbatch // 2)
            return f"at most {self.max_tokens_per_microbatch} tokens at once"
        if self.checkpointed_layers < len(layers):
            self.checkpointed_layers = len(layers)
            return f"all {len(layers)} layers checkpointed"
        return None


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory since `reset_peak_memory`, bytes: of tensors on the GPU, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB, macOS in bytes


def reset_peak_memory(device: torch.device) -> bool:
    """Start counting the peak from what is in use now; returns whether the system can do that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    # memory that was freed but is still held would hide part of the next peak
    with contextlib.suppress(AttributeError):  # a C library without malloc_trim
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def memory_in_use(device: torch.device) -> int:
    """Bytes in use now, counted as `peak_memory_bytes` does."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


def free_memory(device: torch.device) -> int:
    """Bytes free on the device, or for a CPU in the machine."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(psutil.virtual_memory().available, _left_in_container())


def _left_in_container() -> float:
    """Bytes left under a container's limit; infinite without one."""
    try:
        limit, used = (Path("/sys/fs/cgroup", name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return math.inf
    return math.inf if limit == "max" else max(0, int(limit) - int(used))


def release_memory(device: torch.device) -> None:
    """Free unreachable objects and return cached memory to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's or the machine's memory is full."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    # the messages of cuBLAS, the driver, the CPU's allocator and the thread pools
    messages = (
        "out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "can't allocate memory",
        "not enough memory",
        "Cannot allocate memory",
        "bad_alloc",
        "can't start new thread",
    )
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, (RuntimeError, SafetensorError)) and any(message in str(error) for message in messages)


def shortage(training) -> str:
    """The error message for a step that does not fit even pair by pair: what was tried and what to change."""
    return (
        "Memory is full, even with as little at once as can be (training.max_tokens_per_microbatch"
        f" {training.max_tokens_per_microbatch}, training.gradient_checkpointing {training.gradient_checkpointing}):"
        " lower data.max_tokens, load the model as nf4, or choose a smaller one."
    )


def choose(training, bytes_per_token, layers: int, largest_pair: int, free: int, device_type: str) -> MemoryPlan:
    """The plan for a training configuration; what it sets itself is not changed.

    bytes_per_token: function of the number of checkpointed layers; None where the measured pair does not fit.
    layers: of the model. largest_pair: its tokens; every pair must fit. free: bytes.
    """
    budget = None if training.max_tokens_per_microbatch == "auto" else training.max_tokens_per_microbatch
    checkpointed = {"all": layers, "none": 0, "auto": None}.get(
        training.gradient_checkpointing, training.gradient_checkpointing
    )
    if checkpointed is not None:
        checkpointed = min(checkpointed, layers)
    if budget is not None and checkpointed is not None:
        return MemoryPlan(budget, checkpointed)
    usable = SHARE_OF_FREE_MEMORY * free
    if checkpointed is None:
        checkpointed, per_token = _layers_to_checkpoint(bytes_per_token, layers, max(largest_pair, budget or 0), usable)
    else:
        per_token = bytes_per_token(checkpointed)
    if budget is None and per_token is None:
        budget = largest_pair  # not even the measured pair fits: one pair at a time is the best that can be tried
    elif budget is None:
        budget = min(ENOUGH_TOKENS[device_type], largest_pair * training.pairs_per_step)
        if per_token > 0:
            budget = min(budget, int(usable / per_token))
    return MemoryPlan(max(budget, 8), checkpointed)


def _layers_to_checkpoint(bytes_per_token, layers, tokens, usable):
    """(number of layers to checkpoint so that `tokens` fit into `usable` bytes, bytes per token then, or None)."""
    whole = bytes_per_token(0)
    if whole is not None and tokens * whole <= usable:
        return 0, whole
    least = bytes_per_token(layers)
    checkpointed = _layers_needed(whole, least, tokens, usable, layers)
    if whole is None or least is None:
        return checkpointed, least
    return checkpointed, whole + (least - whole) * checkpointed / max(layers, 1)


def _layers_needed(whole, least, tokens, usable, layers):
    """The fewest checkpointed layers with which `tokens` fit, if every layer saves the same; all where nothing fits."""
    if whole is None or least is None or least >= whole:
        return layers
    return min(layers, max(0, math.ceil(layers * (whole - usable / tokens) / (whole - least))))


def checkpoint_layers(model, count: int) -> None:
    """Turn gradient checkpointing on for the first `count` of the model's layers and off for the others."""
    if count:
        # transformers 5.2 renamed it
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    for index, layer in enumerate(layers_of(model)):
        layer.gradient_checkpointing = index < count


def layers_of(model) -> list:
    """The layers of a model that can be checkpointed."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def bytes_per_token_of(
    scorer, model, pair, policy, device, autocast=contextlib.nullcontext
) -> Callable[[int], float | None]:
    """The function for `choose`: it measures a forward and backward pass of `pair` with some layers checkpointed.

    It returns bytes per token, None where the pair does not fit, 0 where the system cannot measure. Adapters, gradients
    and random numbers are left as they were.
    scorer: not one prepared for several processes, which would wait for each other.
    """

    def measure(count):
        checkpoint_layers(model, count)
        model.train()
        if not reset_peak_memory(device):
            return 0.0
        before = memory_in_use(device)
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), autocast():
                logps = scorer(collate([pair], policy).to(device))
                (logps.chosen_avg - logps.rejected_avg).sum().backward()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None
        finally:
            model.zero_grad()
        return max(0, peak_memory_bytes(device) - before) / policy.tokens(pair)

    return measure
