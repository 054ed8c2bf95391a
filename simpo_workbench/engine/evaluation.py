"""One evaluation: every held-out pair scored, the sample prompts answered, and what both say about the model's health."""

import statistics

import numpy as np

from ..errors import WorkbenchError
from ..pairs import prompt_text
from ..scores import mean_share, share
from . import generation
from .logprobs import PackedScorer
from .scoring import score_encoded
from .setup import Setup


def evaluate(setup: Setup, step: int, with_answers: bool, first: dict | None):
    """(record, scores, answers): the metrics record with prefix eval/, the scores table's numbers, and one dict per sampled answer.

    first: the record of step 0, against which drifts are measured; None when this is step 0.
    """
    loaded, config = setup.loaded, setup.config
    loaded.model.eval()
    scores = score_encoded(PackedScorer(loaded.model), setup.held_out, config.loss, loaded, setup.memory.max_tokens_per_microbatch)
    broken = scores.loc[~np.isfinite(scores[["chosen_avg_logp", "rejected_avg_logp", "loss"]]).all(axis=1), "pair_id"]
    if len(broken):
        raise WorkbenchError(f"Step {step}: the scores of held-out pairs {', '.join(broken[:8])} are not finite numbers. The last checkpoint is whole; lower training.learning_rate.")
    scores.insert(0, "step", step)
    record = {"kind": "eval", "step": step, **score_metrics(scores, first)}
    answers = []
    if with_answers and setup.prompts:
        sampled = generation.answer(loaded, setup.encoder, setup.prompts, config.generation, seed=config.training.seed)
        record |= answer_metrics(sampled)
        answers = [
            {"step": step, "prompt": prompt_text(prompt), "answer": one.text, "tokens": one.tokens, "ended": one.ended, "repeated_4grams": one.repeated_4grams}
            for prompt, one in zip(setup.prompts, sampled, strict=True)
        ]
    return record, scores, answers


def score_metrics(scores, first: dict | None) -> dict:
    """Means over all held-out pairs; shares with n and the ends of their 95 % interval; drifts against the record of step 0 (nats per token)."""
    n = len(scores)
    chosen, rejected = float(scores["chosen_avg_logp"].mean()), float(scores["rejected_avg_logp"].mean())
    metrics = {
        "eval/loss": float(scores["loss"].mean()),
        "eval/rewards/chosen": float(scores["chosen_reward"].mean()),
        "eval/rewards/rejected": float(scores["rejected_reward"].mean()),
        "eval/rewards/margins": float(scores["margin"].mean()),
        "eval/logps/chosen": chosen,
        "eval/logps/rejected": rejected,
        "eval/logps/chosen_drift": chosen - first["eval/logps/chosen"] if first else 0.0,
        "eval/logps/rejected_drift": rejected - first["eval/logps/rejected"] if first else 0.0,
        "eval/chosen_tokens": float(scores["chosen_tokens"].mean()),
        "eval/rejected_tokens": float(scores["rejected_tokens"].mean()),
        "eval/pairs": n,
        "beta": float(scores["beta"].iloc[0]),
        "gamma_beta_ratio": float(scores["gamma_beta_ratio"].iloc[0]),
    }
    for name, column in (("eval/rewards/accuracies", "correct"), ("eval/rewards/beyond_gamma", "beyond_gamma")):
        metrics |= _with_interval(name, share(int(scores[column].sum()), n))
    return metrics


def answer_metrics(answers) -> dict:
    """What the sampled answers look like: mean length in tokens, share that ends by itself, mean share of repeated 4-grams."""
    metrics = {"eval/answers/n": len(answers), "eval/answers/mean_tokens": statistics.fmean(one.tokens for one in answers)}
    metrics |= _with_interval("eval/answers/ended", share(sum(one.ended for one in answers), len(answers)))
    return metrics | _with_interval("eval/answers/repeated_4grams", mean_share([one.repeated_4grams for one in answers]))


def _with_interval(name, found):
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
