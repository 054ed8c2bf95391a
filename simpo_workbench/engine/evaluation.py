"""One evaluation: every held-out pair scored, the sample prompts answered, and the metrics of both."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..analysis.metrics import answer_metrics, score_metrics
from ..analysis.objective import at_objective
from ..analysis.scores import scoring_noise
from ..base.errors import WorkbenchError
from ..config.run_config import LossConfig, RunConfig
from ..pairs.pairs import prompt_text
from . import generation
from .forward.logprobs import PackedScorer
from .scoring import score_encoded
from .scoring_again import noise_sample, scored_again
from .setup import Setup

if TYPE_CHECKING:
    import pandas as pd


def evaluate(
    setup: Setup,
    config: RunConfig,
    step: int,
    with_answers: bool,
    first: dict | None,
    first_answers: Sequence[dict] = (),
    first_scores: pd.DataFrame | None = None,
    progress: Callable[[str, int, int], None] = lambda words, done, total: None,
    on_scores: Callable[[dict], None] = lambda record: None,
) -> tuple[dict, pd.DataFrame, list[dict]]:
    """(record, scores, answers): the metrics record with prefix eval/, the scores table's numbers, and one dict per
    sampled answer.

    config: the configuration as it is now. first: the record of step 0, against which drifts are measured; None when
    this is step 0. first_answers, first_scores: the answers and the scores table of step 0, for changes on the same
    prompts and pairs.
    progress: called with words such as "scoring {} of {} pairs", the number done and the number of all, first with 0.
    on_scores: called with what the record has of the scores, before answers are sampled.
    """
    loaded = setup.loaded
    scores = score_step(setup, setup.held_out, config.loss, step, "scoring {} of {} pairs", progress)
    with_prompts = scores.assign(prompt=scores["pair_id"].map(setup.held_out_prompts))
    record = {"kind": "eval", "step": step, **_score_metrics(with_prompts, first, first_scores, config)}
    on_scores(record)
    if first is None:
        sample = noise_sample(setup.held_out)
        scored = _counted(progress, "scoring {} of {} pairs again, for the noise of scoring", len(sample))
        again = scored_again(PackedScorer(loaded.model), sample, loaded, setup.memory.max_tokens_per_microbatch, scored)
        record["eval/scoring_noise"] = max(scoring_noise(scores, table) for table in again.values())
    prompts = setup.sample_prompts(config.generation) if with_answers else []
    sampled = []
    if prompts:
        conversations, tools = [prompt.messages for prompt in prompts], [prompt.tools for prompt in prompts]
        answered, seed = _counted(progress, "answering {} of {} prompts", len(prompts)), config.training.seed
        sampled = generation.answer(
            loaded, setup.encoder, conversations, config.generation, seed=seed, progress=answered, tools=tools
        )
    answers = [_answer_record(step, prompt, answer) for prompt, answer in zip(prompts, sampled, strict=True)]
    return record | answer_metrics(answers, _checked_again(first_answers, prompts)), scores, answers


def score_step(
    setup: Setup,
    encoded,
    loss: LossConfig,
    step: int,
    words: str,
    progress: Callable[[str, int, int], None] = lambda words, done, total: None,
) -> pd.DataFrame:
    """The scores table of encoded pairs as the model is now, after `step`. words: of the activity, for `progress`.

    Errors: WorkbenchError where a score is not a finite number.
    """
    setup.loaded.model.eval()
    scorer, scored = PackedScorer(setup.loaded.model), _counted(progress, words, len(encoded))
    scores = score_encoded(scorer, encoded, loss, setup.loaded, setup.memory.max_tokens_per_microbatch, scored)
    broken = scores.loc[~np.isfinite(scores[["chosen_avg_logp", "rejected_avg_logp", "loss"]]).all(axis=1), "pair_id"]
    if len(broken):
        raise WorkbenchError(
            f"Step {step}: the scores of held-out pairs {', '.join(broken[:8])} are not finite numbers. The last"
            " checkpoint is intact; lower training.learning_rate."
        )
    scores.insert(0, "step", step)
    return scores


def _score_metrics(scores, first, first_scores, config):
    """`score_metrics`, with step 0 at the objective of now."""
    return score_metrics(scores, first, None if first_scores is None else at_objective(first_scores, config.loss))


def _checked_again(answers, prompts):
    """Answers of step 0 with `right` by the checks of today: they may have been changed while the run went on."""
    checks = {prompt_text(prompt.messages): prompt.check for prompt in prompts}
    return [
        answer | {"right": check.passes(answer["answer"]) if (check := checks[answer["prompt"]]) else None}
        for answer in answers
        if answer["prompt"] in checks
    ]


def _counted(progress, words, total):
    """A function of (done, total) that tells of one activity, which begins now."""
    progress(words, 0, total)
    return functools.partial(progress, words)


def _answer_record(step, prompt, answer):
    """One line of generations/*.jsonl; `right` and `reference` only where the prompt has a check and a reference."""
    record = {
        "step": step,
        "prompt": prompt_text(prompt.messages),
        "answer": answer.text,
        "tokens": answer.tokens,
        "ended": answer.ended,
        "repeated_4grams": answer.repeated_4grams,
    }
    if prompt.check:
        record["right"] = prompt.check.passes(answer.text)
    if prompt.reference:
        record["reference"] = prompt.reference
    return record
