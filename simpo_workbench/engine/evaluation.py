"""One evaluation: every held-out pair scored, the sample prompts answered, and what both say about the model's
health.
"""

import statistics

import numpy as np

from ..analysis.scores import mean_share, scoring_noise, share
from ..base.errors import WorkbenchError
from ..pairs.pairs import prompt_text
from . import generation
from .forward.logprobs import PackedScorer
from .scoring import response_logps, score_encoded
from .setup import Setup

#: Held-out pairs that are scored a second time before the first step, to measure the noise of scoring.
NOISE_PAIRS = 16


def evaluate(setup: Setup, step: int, with_answers: bool, first: dict | None):
    """(record, scores, answers): the metrics record with prefix eval/, the scores table's numbers, and one dict per
    sampled answer.

    first: the record of step 0, against which drifts are measured; None when this is step 0.
    """
    loaded, config = setup.loaded, setup.config
    loaded.model.eval()
    scorer = PackedScorer(loaded.model)
    scores = score_encoded(scorer, setup.held_out, config.loss, loaded, setup.memory.max_tokens_per_microbatch)
    broken = scores.loc[~np.isfinite(scores[["chosen_avg_logp", "rejected_avg_logp", "loss"]]).all(axis=1), "pair_id"]
    if len(broken):
        raise WorkbenchError(
            f"Step {step}: the scores of held-out pairs {', '.join(broken[:8])} are not finite numbers. The last"
            " checkpoint is whole; lower training.learning_rate."
        )
    scores.insert(0, "step", step)
    record = {"kind": "eval", "step": step, **score_metrics(scores, first)}
    if first is None:
        record["eval/scoring_noise"] = _scoring_noise(scorer, setup, scores)
    answers = []
    if with_answers and setup.prompts:
        sampled = generation.answer(loaded, setup.encoder, setup.prompts, config.generation, seed=config.training.seed)
        record |= answer_metrics(sampled)
        answers = [
            {
                "step": step,
                "prompt": prompt_text(prompt),
                "answer": one.text,
                "tokens": one.tokens,
                "ended": one.ended,
                "repeated_4grams": one.repeated_4grams,
            }
            for prompt, one in zip(setup.prompts, sampled, strict=True)
        ]
    return record, scores, answers


def _scoring_noise(scorer, setup, scores) -> float:
    """See `scores.scoring_noise`: pairs spread evenly over the held-out ones, each scored again alone.

    Nothing is drawn by chance, no weight changes.
    """
    import pandas as pd

    places = sorted({place * len(setup.held_out) // NOISE_PAIRS for place in range(NOISE_PAIRS)})
    sample = [setup.held_out[place] for place in places]
    logps = response_logps(
        scorer, sample, setup.loaded, max_tokens_per_microbatch=1
    )  # no two pairs fit together, and one alone always does
    again = pd.DataFrame(
        {
            "pair_id": [pair.pair_id for pair in sample],
            "chosen_avg_logp": logps.chosen_avg.numpy(),
            "rejected_avg_logp": logps.rejected_avg.numpy(),
        }
    )
    return scoring_noise(scores, again)


def score_metrics(scores, first: dict | None) -> dict:
    """Means over all held-out pairs; shares with n and the ends of their 95 % interval; drifts against the record of
    step 0 (nats per token).
    """
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
    """What the sampled answers look like: mean length in tokens, share that ends by itself, mean share of repeated
    4-grams.
    """
    metrics = {
        "eval/answers/n": len(answers),
        "eval/answers/mean_tokens": statistics.fmean(one.tokens for one in answers),
    }
    metrics |= _with_interval("eval/answers/ended", share(sum(one.ended for one in answers), len(answers)))
    return metrics | _with_interval(
        "eval/answers/repeated_4grams", mean_share([one.repeated_4grams for one in answers])
    )


def _with_interval(name, found):
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
