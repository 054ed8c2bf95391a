"""Measuring tools of all benchmarks: peak memory, matrix-product rate, least arithmetic, alternating child processes.

`python benchmarks/measure.py --threads 2 --dtype fp32` prints the rate of a large matrix product, in floating-point
operations per second.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_SAMPLE_INTERVAL_S = 0.01
_BUSY_CORES = 0.25  # warn when other processes use more than this


@dataclass(frozen=True)
class ModelShape:
    """The sizes that decide how much arithmetic a step needs.

    linear_parameters: without head, adapters and embeddings.
    """

    linear_parameters: int
    vocabulary: int
    hidden: int
    layers: int
    attention_width: int  # heads · size of one head

    @classmethod
    def of(cls, model):
        """Shape of a dense transformers model, with or without adapters.

        The experts of a mixture are no linear layers and are not counted.
        """
        import torch

        head = model.get_output_embeddings()
        linear = (
            module
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head and "lora_" not in name
        )
        config = model.config.get_text_config()
        head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            linear_parameters=sum(layer.in_features * layer.out_features for layer in linear),
            vocabulary=head.out_features,
            hidden=head.in_features,
            layers=config.num_hidden_layers,
            attention_width=config.num_attention_heads * head_width,
        )


def step_flops(lengths: list[tuple[int, int, int]], shape: ModelShape, checkpointed_share: float = 0.0) -> float:
    """F*: the fewest floating-point operations for a forward and backward pass, with a frozen base and each prompt
    read once.

    lengths: (prompt, chosen, rejected) tokens of every pair. checkpointed_share: share of the layers whose forward pass
    runs twice, 0 to 1.
    """
    through_layers = sum(prompt + chosen + rejected for prompt, chosen, rejected in lengths)
    scored = sum(chosen + rejected for _, chosen, rejected in lengths)
    looks = sum(p * p / 2 + p * (c + r) + c * c / 2 + r * r / 2 for p, c, r in lengths)
    return (
        (4 + 2 * checkpointed_share) * shape.linear_parameters * through_layers
        + 4 * shape.vocabulary * shape.hidden * scored
        + 14 * shape.layers * shape.attention_width * looks
    )


class PeakMemory:
    """Memory in use at `start()` and its peak since then, in bytes: tensors on a GPU, the resident process on a CPU.

    On Linux the kernel records the peak and a process can reset its own; elsewhere a thread samples every 10 ms.
    """

    def __init__(self, device_type: str):
        self.on_gpu = device_type == "cuda"

    def start(self):
        gc.collect()
        if self.on_gpu:
            import torch

            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.method, self.loaded_bytes = "allocated by torch on the GPU", torch.cuda.memory_allocated()
            return
        if sys.platform == "linux":
            # Freed memory that the allocator still holds would hide part of the peak.
            with contextlib.suppress(AttributeError):  # not every C library has malloc_trim
                ctypes.CDLL(None).malloc_trim(0)
        self.loaded_bytes = psutil.Process().memory_info().rss
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.method = "VmHWM of the process, reset before"
        except OSError:
            self.method = "resident size of the process, every 10 ms"
            self._sampled, self._stop = self.loaded_bytes, threading.Event()
            threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self):
        process = psutil.Process()
        while not self._stop.wait(_SAMPLE_INTERVAL_S):
            self._sampled = max(self._sampled, process.memory_info().rss)

    def peak_bytes(self) -> int:
        """The peak so far. Ends the sampling."""
        if self.on_gpu:
            import torch

            return torch.cuda.max_memory_allocated()
        if self.method.startswith("VmHWM"):
            status = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
        self._stop.set()
        return max(self._sampled, psutil.Process().memory_info().rss)


class Stopwatch:
    """Wall time of laps, and the processor time of this process and of all others meanwhile.

    On a GPU a lap ends when the queued work is done.
    """

    def __init__(self, device_type: str):
        self.on_gpu = device_type == "cuda"
        self.lap_seconds: list[float] = []

    def start(self):
        self._own_before, self._all_before = time.process_time(), _processor_seconds()
        self._began = self._last = self._now()

    def lap(self):
        now = self._now()
        self.lap_seconds.append(now - self._last)
        self._last = now

    def totals(self) -> dict:
        """Totals: seconds, lap_seconds, and the mean number of cores that this process and all others kept busy."""
        seconds = self._last - self._began
        own, total = time.process_time() - self._own_before, _processor_seconds() - self._all_before
        return {
            "seconds": seconds,
            "lap_seconds": self.lap_seconds,
            "own_cores": own / seconds,
            "others_cores": max(0.0, total - own) / seconds,
        }

    def _now(self):
        if self.on_gpu:
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()


def _processor_seconds():
    times = psutil.cpu_times()
    # `user` already includes `guest`.
    return sum(times) - times.idle - sum(getattr(times, name, 0.0) for name in ("iowait", "guest", "guest_nice"))


def matmul_flops_per_second(dtype: str = "fp32") -> float:
    """Rate of a large square matrix product in this process, the median of several; on the GPU when there is one."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size, repeats = (8192, 20) if device == "cuda" else (3072, 5)
    left, right = (torch.randn(size, size, device=device).to(getattr(torch, DTYPES[dtype])) for _ in range(2))
    watch = Stopwatch(device)
    for number in range(repeats + 1):
        if number == 1:  # the first is the warm-up
            watch.start()
        left @ right
        if number >= 1:
            watch.lap()
    return 2 * size**3 / statistics.median(watch.lap_seconds)


def measured_matmul(threads: int, dtype: str) -> float:
    """`matmul_flops_per_second` of a child process, so that this one stays small and holds no GPU."""
    return float(run_child([__file__, "--threads", str(threads), "--dtype", dtype], threads))


class OutOfMemory(RuntimeError):
    """A child process ran out of memory."""


def run_child(arguments: list[str], threads: int, seconds: float | None = None) -> str:
    """Standard output of a Python script that runs with `threads` threads.

    Errors: OutOfMemory; RuntimeError with the end of its output, or when it takes longer than `seconds`.
    """
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    environment |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    try:
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not finished within {seconds:.0f} s") from None
    printed = (done.stdout + done.stderr)[-3000:]
    messages = ("OutOfMemoryError", "not enough memory", "can't allocate memory", "out of memory")
    if done.returncode == -9 or (done.returncode and any(message in printed for message in messages)):
        raise OutOfMemory(f"{' '.join(arguments)} ran out of memory:\n{printed}")
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{printed}")
    return done.stdout


def alternating(contenders: list, rounds: int) -> Iterator[tuple[int, object]]:
    """(round, contender) for every contender in every round, counted from 1.

    Every second round runs backwards, so that a drift of the machine favours no contender.
    """
    for number in range(1, rounds + 1):
        for contender in contenders if number % 2 else contenders[::-1]:
            yield number, contender


def default_threads() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def machine() -> dict:
    """The machine: platform, Python, processors, load, and cores kept busy during the last second."""
    busy_cores = psutil.cpu_percent(interval=1.0) / 100 * psutil.cpu_count()
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "processors": psutil.cpu_count(),
        "load_average": list(psutil.getloadavg()),
        "busy_cores": busy_cores,
    }


def busy_warning(cores: float, when: str) -> str | None:
    """Warning when other processes kept so many cores busy that times cannot be trusted, else None."""
    if cores <= _BUSY_CORES:
        return None
    return f"WARNING: other processes kept {cores:.1f} cores busy {when}; measure again on a quiet machine."


def table(rows: list[list[str]]) -> str:
    """Rows as aligned text, the first row as heading; the first column is aligned left, all others right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def write_json(path: str | Path, values: dict):
    Path(path).write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[-1])
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    print(matmul_flops_per_second(given.dtype))
