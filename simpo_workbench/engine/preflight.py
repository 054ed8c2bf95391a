"""What a run will take, measured before it starts: a few real optimizer steps on the longest pairs, some scoring and some sampling; nothing is kept."""

import dataclasses
import math
import statistics
import time
from dataclasses import dataclass

import numpy as np

from ..config import RunConfig
from ..errors import WorkbenchError
from . import generation, memory
from .logprobs import PackedScorer
from .scoring import response_logps
from .setup import Setup, prepare
from .step import optimizer_step

#: The first step also warms up, so it is left out of the time.
_STEPS = 3
#: Held-out pairs that are scored, prompts that are answered and tokens of an answer for the time of an evaluation.
_SCORED_PAIRS, _ANSWERED_PROMPTS, _ANSWER_TOKENS = 16, 8, 16


@dataclass(frozen=True)
class Preflight:
    """A run's cost, measured on this machine. Memory in bytes, times in seconds; a run's answers may end earlier than counted here.

    seconds_per_step: of an average step; seconds_per_longest_step: of a step of the longest pairs, which were measured. seconds_per_evaluation: scoring
    and, where there are sample prompts, answering. seconds_left: the whole run. peak_memory_bytes: with the longest pairs; of it base_memory_bytes were in
    use with the model loaded. free_memory_bytes: before that. dropped, truncated: training and held-out pairs together. shortages: where memory ran out.
    """

    steps: int
    seconds_per_step: float
    seconds_per_longest_step: float
    seconds_per_evaluation: float
    seconds_left: float
    base_memory_bytes: int
    peak_memory_bytes: int
    free_memory_bytes: int
    max_tokens_per_microbatch: int
    checkpointed_layers: int
    train_pairs: int
    held_out_pairs: int
    truncated: int
    dropped: dict[str, int]
    shortages: tuple[str, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict:
        return dataclasses.asdict(self)

    def __str__(self):
        gigabytes = 1e9
        lines = [
            f"{self.steps} steps, about {_minutes(self.seconds_left)} in all: {self.seconds_per_step:.2f} s a step "
            f"({self.seconds_per_longest_step:.2f} s with the longest pairs), {self.seconds_per_evaluation:.0f} s an evaluation.",
            f"Memory: {self.peak_memory_bytes / gigabytes:.1f} GB with the longest pairs, {self.base_memory_bytes / gigabytes:.1f} GB of it model and program; "
            f"{self.free_memory_bytes / gigabytes:.1f} GB were free beside them. "
            f"{self.max_tokens_per_microbatch} tokens at once, {self.checkpointed_layers} layers checkpointed.",
            f"{self.train_pairs} training pairs, {self.held_out_pairs} held out; {self.truncated} with a cut prompt, {sum(self.dropped.values())} dropped.",
            *(f"Dropped {count}: {reason}." for reason, count in sorted(self.dropped.items())),
            *self.shortages,
            *self.warnings,
        ]
        return "\n".join(lines)


def preflight(config: RunConfig) -> Preflight:
    """What a run of this configuration will take, measured in this process; no run folder is made.

    Errors: WorkbenchError for what would end the run as well: pairs or a model that cannot be used, or too little memory for a single pair.
    """
    setup = prepare(config)
    try:
        return _measure(setup)
    except Exception as error:
        if memory.is_out_of_memory(error):
            raise WorkbenchError(memory.shortage(config.training)) from None
        raise
    finally:
        setup.close()


def _measure(setup: Setup) -> Preflight:
    config, device = setup.config, setup.loaded.device
    tokens = setup.policy.count(setup.train.lengths)
    longest = [setup.train[int(index)] for index in _repeated(np.argsort(-tokens, kind="stable"), config.training.pairs_per_step)]
    free, base = memory.free_memory(device), memory.memory_in_use(device)
    memory.reset_peak_memory(device)
    seconds, shortages = [], []
    for number in range(1, _STEPS + 1):
        started = time.perf_counter()
        shortages += optimizer_step(setup, number, longest).shortages
        seconds.append(time.perf_counter() - started)
    peak = memory.peak_memory_bytes(device)
    per_longest = statistics.median(seconds[1:])
    share = float(tokens.mean()) / statistics.fmean(map(setup.policy.tokens, longest))
    evaluation, answers = _scoring_seconds(setup), _answering_seconds(setup)
    evaluations, answerings = _evaluations(config, setup.total_steps)
    reports = (setup.train_report, setup.held_out_report)
    return Preflight(
        steps=setup.total_steps,
        seconds_per_step=per_longest * share,
        seconds_per_longest_step=per_longest,
        seconds_per_evaluation=evaluation + answers,
        seconds_left=setup.total_steps * per_longest * share + evaluations * evaluation + answerings * answers,
        base_memory_bytes=base,
        peak_memory_bytes=peak,
        free_memory_bytes=free,
        max_tokens_per_microbatch=setup.memory.max_tokens_per_microbatch,
        checkpointed_layers=setup.memory.checkpointed_layers,
        train_pairs=len(setup.train),
        held_out_pairs=len(setup.held_out),
        truncated=sum(report.truncated for report in reports),
        dropped={reason: sum(report.dropped[reason] for report in reports) for reason in {**reports[0].dropped, **reports[1].dropped}},
        shortages=tuple(shortages),
        warnings=tuple(config.warnings()),
    )


def _evaluations(config, steps):
    """(evaluations, those with sampled answers) of a whole run, the ones before the first and after the last step included."""

    def at(every):
        return {0, steps} | (set(range(0, steps, every)) if every else set())

    evaluated = at(config.training.eval_every)
    return len(evaluated), len(evaluated & at(config.generation.every))


def _scoring_seconds(setup):
    pairs = setup.held_out[:_SCORED_PAIRS]
    setup.loaded.model.eval()
    started = time.perf_counter()
    response_logps(PackedScorer(setup.loaded.model), pairs, setup.loaded, setup.memory.max_tokens_per_microbatch)
    return (time.perf_counter() - started) * setup.policy.count(setup.held_out.lengths).sum() / sum(map(setup.policy.tokens, pairs))


def _answering_seconds(setup):
    """Seconds to answer all sample prompts, counted as if every answer took its whole length."""
    if not setup.prompts:
        return 0.0
    wanted = setup.config.generation
    short = wanted.model_copy(update={"max_new_tokens": min(_ANSWER_TOKENS, wanted.max_new_tokens)})
    prompts = setup.prompts[:_ANSWERED_PROMPTS]
    started = time.perf_counter()
    generation.answer(setup.loaded, setup.encoder, prompts, short, seed=setup.config.training.seed)
    batches = math.ceil(len(setup.prompts) / len(prompts))
    return (time.perf_counter() - started) * batches * wanted.max_new_tokens / short.max_new_tokens


def _repeated(values, count):
    """The first `count` values, from the beginning again where there are fewer."""
    return np.resize(values, count)


def _minutes(seconds):
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
