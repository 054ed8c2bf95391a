"""How much goes through the model at once: micro-batch tokens and checkpointed layers, chosen from a measured step
where they are "auto".
"""

import contextlib
import ctypes
import errno
import gc
import math
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from safetensors import SafetensorError
from transformers.modeling_layers import GradientCheckpointingLayer

from .packing import collate

#: More tokens at once than this make no step faster: matrix products are at full speed well before it.
ENOUGH_TOKENS = {"cpu": 1024, "cuda": 16384}
#: Share of the free memory that a step may take; what is left is for the allocator's gaps and other programs.
SHARE_OF_FREE_MEMORY = 0.8
_STATUS = Path("/proc/self/status")


@dataclass
class MemoryPlan:
    """Tokens of one micro-batch and how many layers are checkpointed.

    It changes in the middle of a run only when memory runs out.
    """

    max_tokens_per_microbatch: int
    checkpointed_layers: int

    def shrink(self, largest_pair: int, layers: list) -> str | None:
        """Take less memory from now on, and say how; None where nothing is left to give up. largest_pair: tokens of the
        step's largest pair.
        """
        if self.max_tokens_per_microbatch > largest_pair:
            self.max_tokens_per_microbatch = max(largest_pair, self.max_tokens_per_microbatch // 2)
            return f"at most {self.max_tokens_per_microbatch} tokens at once"
        if self.checkpointed_layers < len(layers):
            self.checkpointed_layers = len(layers)
            return f"all {len(layers)} layers checkpointed"
        return None


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory in use at once since `reset_peak_memory`: by tensors on the GPU, or by this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB, macOS in bytes


def reset_peak_memory(device: torch.device) -> bool:
    """Count the peak anew from what is in use now; returns whether the system can do that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    with contextlib.suppress(AttributeError):  # a C library without it
        ctypes.CDLL(None).malloc_trim(0)  # memory that was freed and is still held would hide part of the next peak
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def memory_in_use(device: torch.device) -> int:
    """Bytes in use now, counted as `peak_memory_bytes` does."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


def free_memory(device: torch.device) -> int:
    """Bytes that a step may take: free on the device, or free in the machine."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(psutil.virtual_memory().available, _left_in_container())


def _left_in_container() -> float:
    """Bytes that a container's own limit leaves; infinite without one."""
    try:
        limit, used = (Path("/sys/fs/cgroup", name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return math.inf
    return math.inf if limit == "max" else max(0, int(limit) - int(used))


def release_memory(device: torch.device):
    """Give what nobody holds any more back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's or the machine's memory is full."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    # cuBLAS, the driver and the CPU's allocator each say it in their own way
    words = (
        "out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "can't allocate memory",
        "not enough memory",
        "Cannot allocate memory",
        "bad_alloc",
        "can't start new thread",
    )
    return (isinstance(error, OSError) and error.errno == errno.ENOMEM) or (
        isinstance(error, (RuntimeError, SafetensorError)) and any(one in str(error) for one in words)
    )


def shortage(training) -> str:
    """What to do when not even one pair fits."""
    return (
        "Memory is full, even with as little at once as can be (training.max_tokens_per_microbatch"
        f" {training.max_tokens_per_microbatch}, training.gradient_checkpointing {training.gradient_checkpointing}):"
        " lower data.max_tokens, load the model as nf4, or choose a smaller one."
    )


def choose(training, bytes_per_token, layers: int, largest_pair: int, free: int, device_type: str) -> MemoryPlan:
    """The plan for a training configuration; numbers that the user gave stay as they are.

    bytes_per_token: function of the number of checkpointed layers that measures a micro-batch, None where it does not
    fit. layers: of the model. largest_pair: its tokens; every pair must fit. free: bytes.
    """
    most = min(ENOUGH_TOKENS[device_type], largest_pair * training.pairs_per_step)
    budget = None if training.max_tokens_per_microbatch == "auto" else training.max_tokens_per_microbatch
    checkpointed = {"all": layers, "none": 0, "auto": None}.get(
        training.gradient_checkpointing, training.gradient_checkpointing
    )
    if budget is not None and checkpointed is not None:
        return MemoryPlan(budget, min(checkpointed, layers))
    usable = SHARE_OF_FREE_MEMORY * free
    if checkpointed is None:
        wanted, whole = max(largest_pair, budget or 0), bytes_per_token(0)
        if whole is not None and wanted * whole <= usable:
            checkpointed, per_token = 0, whole
        else:
            least = bytes_per_token(layers)
            checkpointed = _layers_needed(whole, least, wanted, usable, layers)
            per_token = (
                least if whole is None or least is None else whole + (least - whole) * checkpointed / max(layers, 1)
            )
    else:
        checkpointed = min(checkpointed, layers)
        per_token = bytes_per_token(checkpointed)
    if budget is None and per_token is None:
        budget = largest_pair  # not even the measured pair fits: one pair at a time is the best that can be tried
    elif budget is None:
        budget = most if per_token == 0 else min(most, int(usable / per_token))
    return MemoryPlan(max(budget, 8), checkpointed)


def _layers_needed(whole, least, tokens, usable, layers):
    """The fewest checkpointed layers with which so many tokens fit, taking each layer's saving as equal; all of them
    where nothing fits.
    """
    if whole is None or least is None or least >= whole:
        return layers
    return min(layers, max(0, math.ceil(layers * (whole - usable / tokens) / (whole - least))))


def checkpoint_layers(model, count: int):
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


def bytes_per_token_of(scorer, model, pair, policy, device, autocast=contextlib.nullcontext):
    """A function of the number of checkpointed layers: bytes that a real forward and backward pass of one pair takes
    per token, None where it does not fit.

    scorer: not the one of several processes, which would wait for each other. Adapters, gradients and random numbers
    are left as they were.
    """

    def measure(count):
        checkpoint_layers(model, count)
        model.train()
        if not reset_peak_memory(device):
            return 0.0  # this system cannot say; the plan then goes by what is enough
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
