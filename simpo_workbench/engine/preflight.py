"""Time and memory of a run, measured before it starts by a few real steps, some scoring and some sampling."""

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..analysis.clusters import clusters
from ..base.errors import WorkbenchError
from ..config.held_lora import lora_text
from ..config.run_config import RunConfig
from ..runs.folder import RunFolder
from ..runs.preflight_result import PreflightResult
from . import generation
from .checkpoints import save_checkpoint
from .forward import memory
from .forward.logprobs import PackedScorer
from .scoring import response_logps
from .setup import Setup, prepare
from .step import optimizer_step

#: The first step also warms up, so it is left out of the time.
_STEPS = 3
#: The time of an evaluation is measured with so many held-out pairs, sample prompts and tokens of an answer.
_SCORED_PAIRS, _ANSWERED_PROMPTS, _ANSWER_TOKENS = 32, 8, 16


def preflight(config: RunConfig, progress: Callable[[str], None] | None = None) -> PreflightResult:
    """Time and memory that a run of this configuration needs, measured in this process; no run folder is made.

    progress: called with a sentence on what is done now. Errors: WorkbenchError for what would end the run as well:
    pairs or a model that cannot be used, or too little memory for a single pair.
    """
    progress = progress or (lambda sentence: None)
    progress("Loading the model and encoding the pairs.")
    setup = prepare(config)
    try:
        return _measure(setup, progress)
    except Exception as error:
        if memory.is_out_of_memory(error):
            raise WorkbenchError(memory.shortage(config.training)) from None
        raise
    finally:
        setup.close()


def _measure(setup: Setup, progress):
    config, device = setup.config, setup.loaded.device
    free, base = memory.free_memory(device), memory.memory_in_use(device)
    progress("Scoring a sample of the held-out pairs with the base model.")
    scoring, leads, numbers = _scoring(setup)
    prompts = setup.sample_prompts(config.generation)
    answering = _answering_seconds(setup, prompts)
    tokens = setup.policy.count(setup.train.lengths)
    longest_first = np.argsort(-tokens, kind="stable")
    # where there are fewer pairs than a step has, they are repeated
    longest = [setup.train[int(index)] for index in np.resize(longest_first, config.training.pairs_per_step)]
    memory.reset_peak_memory(device)
    seconds, shortages = [], []
    for number in range(1, _STEPS + 1):
        progress(f"Training step {number} of {_STEPS} on the longest pairs.")
        started = time.perf_counter()
        shortages += optimizer_step(setup, number, longest).shortages
        seconds.append(time.perf_counter() - started)
    peak = memory.peak_memory_bytes(device)
    saving = _saving_seconds(setup)
    per_longest = statistics.median(seconds[1:])
    per_step = per_longest * float(tokens.mean()) / statistics.fmean(map(setup.policy.tokens, longest))
    evaluations, samplings, saves = _occasions(config, setup.total_steps)
    samplings = samplings if prompts else 0
    reports = (setup.train_report, setup.held_out_report, setup.final_report)
    final_tokens, tokens_scored = (setup.policy.count(pairs.lengths).sum() for pairs in (setup.final, setup.held_out))
    final = scoring * float(final_tokens / tokens_scored)
    return PreflightResult(
        steps=setup.total_steps,
        seconds_per_step=per_step,
        seconds_per_longest_step=per_longest,
        seconds_per_evaluation=scoring,
        seconds_per_sampling=answering,
        seconds_per_save=saving,
        evaluations=evaluations,
        samplings=samplings,
        saves=saves,
        seconds_left=setup.total_steps * per_step
        + evaluations * scoring
        + 2 * final
        + samplings * answering
        + saves * saving,
        base_memory_bytes=base,
        peak_memory_bytes=peak,
        free_memory_bytes=free,
        max_tokens_per_microbatch=setup.memory.max_tokens_per_microbatch,
        checkpointed_layers=setup.memory.checkpointed_layers,
        train_pairs=len(setup.train),
        held_out_pairs=len(setup.held_out),
        final_pairs=len(setup.final),
        final_share=setup.environment["final_share"],
        truncated=sum(report.truncated for report in reports),
        dropped={
            reason: sum(report.dropped[reason] for report in reports)
            for reason in dict.fromkeys(reason for report in reports for reason in report.dropped)
        },
        base_leads=leads,
        base_prompts=numbers,
        target_lead=config.loss.target_margin / config.loss.beta,
        shortages=tuple(shortages),
        warnings=(*config.warnings(), *setup.loaded.notes),
        data_notes=tuple(note for note in setup.environment["data_notes"] if note not in setup.loaded.notes),
        adapter=lora_text(setup.environment["lora"]) + (" (those of model.adapter)" if config.model.adapter else ""),
    )


def _occasions(config, steps):
    """(evaluations, those with sampled answers, checkpoints) of a whole run; steps 0 and the last are evaluated."""

    def at(every):
        return {0, steps} | (set(range(0, steps, every)) if every else set())

    evaluated = at(config.training.eval_every)
    return (
        len(evaluated),
        len(evaluated & at(config.generation.every)),
        len((evaluated | at(config.training.save_every)) - {0}),
    )


def _scoring(setup):
    """(seconds to score all held-out pairs, leads of a sample of them with the base model, the number of each one's
    prompt where some share one).
    """
    pairs, scorer = setup.held_out[:_SCORED_PAIRS], PackedScorer(setup.loaded.model)
    setup.loaded.model.eval()
    started = time.perf_counter()
    logps = response_logps(scorer, pairs, setup.loaded, setup.memory.max_tokens_per_microbatch)
    seconds = time.perf_counter() - started
    sample_tokens, all_tokens = sum(map(setup.policy.tokens, pairs)), setup.policy.count(setup.held_out.lengths).sum()
    numbers = clusters([setup.held_out_prompts[pair.pair_id] for pair in pairs])
    leads = tuple((logps.chosen_avg - logps.rejected_avg).tolist())
    return float(seconds * all_tokens / sample_tokens), leads, () if numbers is None else tuple(numbers.tolist())


def _saving_seconds(setup):
    """Seconds for one checkpoint, written where the run's would be and removed again."""
    root = Path(setup.config.run.root).expanduser().absolute()
    existing = next(path for path in (root, *root.parents) if path.is_dir())
    with tempfile.TemporaryDirectory(prefix=".preflight-", dir=existing) as folder:
        started = time.perf_counter()
        save_checkpoint(RunFolder(folder), _STEPS, setup)
        return time.perf_counter() - started


def _answering_seconds(setup, prompts):
    """Seconds to answer all sample prompts with their tools, as if every answer took its whole length."""
    if not prompts:
        return 0.0
    sampling, seed, sample = setup.config.generation, setup.config.training.seed, prompts[:_ANSWERED_PROMPTS]
    short = sampling.model_copy(update={"max_new_tokens": min(_ANSWER_TOKENS, sampling.max_new_tokens)})
    started = time.perf_counter()
    conversations, tools = [prompt.messages for prompt in sample], [prompt.tools for prompt in sample]
    generation.answer(setup.loaded, setup.encoder, conversations, short, seed=seed, tools=tools)
    batches = math.ceil(len(prompts) / len(sample))
    return (time.perf_counter() - started) * batches * sampling.max_new_tokens / short.max_new_tokens
