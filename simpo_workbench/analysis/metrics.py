"""Names, units and formats of all metrics, and the computation of evaluation metrics.

Charts, tiles, terminal, report, run list and tooltips take labels, units and formats from METRICS and list only keys. A
new metric needs the line that computes it, a row in METRICS, and its key wherever it should be shown.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..base.format import memory, significant
from .changes import answer_changes_since, as_metrics, score_changes
from .checks import right_metrics
from .clusters import clusters, counted_prompts, prompts_of
from .scores import mean_share, share, share_of

SHARE = "share"
LOGP, REWARD = "nats/token", "reward units"


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    key: as in metrics.jsonl, where evaluations put "eval/" before it. unit: "share" for a share (0 … 1), "" for none.
    format: a format specification, or a function of the value, for tables. short_format: for where there is little
    room; the same as `format` where it is empty. better: "higher", "lower", or "" where neither direction is good in
    itself. cases: key of the number of cases behind the value.
    """

    key: str
    label: str
    unit: str
    format: str | Callable[[float], str]
    better: str
    explanation: str
    short_format: str = ""
    cases: str = ""

    @property
    def title(self) -> str:
        """Label and unit, for a column: "chosen drift (nats/token)"."""
        return f"{self.label} ({self.unit})" if self.unit not in ("", SHARE) else self.label

    @property
    def heading(self) -> str:
        """Label and unit with a capital letter, for a chart."""
        return self.title[0].upper() + self.title[1:]

    @property
    def tooltip(self) -> str:
        """The explanation, and which direction is better."""
        return f"{self.explanation} {self.better.capitalize()} is better." if self.better else self.explanation

    def text(self, value: float | None, short: bool = False) -> str:
        """The value as people read it, without its unit; "–" where there is none."""
        if value is None:
            return "–"
        form = (short and self.short_format) or self.format
        text = form(value) if callable(form) else format(value, form)
        if text.startswith("-"):
            text = "−" + text[1:] if text.strip("-0.") else format(0.0, form)
        return text

    def with_unit(self, text: str) -> str:
        """The text of `text`, followed by the unit."""
        return f"{text} {self.unit}" if self.unit not in ("", SHARE) else text

    def interval(self, record: dict) -> str:
        """The ends of the 95 % interval in an evaluation's record, "0.55 to 0.88"; "" where it has none."""
        low, high = (record.get(f"eval/{self.key}_{end}") for end in ("low", "high"))
        return "" if low is None or high is None else f"{self.text(low)} to {self.text(high)}"


METRICS = {
    metric.key: metric
    for metric in (
        Metric("loss", "loss", "mean per pair", ".3f", "lower", "The value of the objective that training lowers."),
        Metric(
            "rewards/chosen",
            "chosen reward",
            REWARD,
            ".3f",
            "",
            "β times the average log-probability of chosen answers (DPO: β times the change of their summed one).",
        ),
        Metric(
            "rewards/rejected",
            "rejected reward",
            REWARD,
            ".3f",
            "",
            "β times the average log-probability of rejected answers (DPO: β times the change of their summed one).",
        ),
        Metric(
            "rewards/margins",
            "margin",
            REWARD,
            "+.3f",
            "higher",
            "Reward of the chosen answer minus that of the rejected one; for SimPO β times the lead.",
        ),
        Metric(
            "rewards/accuracies",
            "chosen ahead",
            SHARE,
            ".2f",
            "higher",
            "Accuracy: the share of pairs with a positive margin (for SimPO: the chosen answer is likelier per token).",
            cases="pairs",
        ),
        Metric(
            "rewards/beyond_gamma",
            "beyond γ",
            SHARE,
            ".2f",
            "higher",
            "Share of pairs whose margin exceeds the target γ; such pairs hardly pull.",
            cases="pairs",
        ),
        Metric(
            "rewards/accuracies_change",
            "change of chosen ahead",
            "",
            "+.2f",
            "higher",
            "Change of the share of pairs with a positive margin since step 0, −1 … 1, with its paired interval.",
            cases="pairs",
        ),
        Metric(
            "rewards/beyond_gamma_change",
            "change of beyond γ",
            "",
            "+.2f",
            "higher",
            "Change of the share of pairs beyond γ since step 0, −1 … 1, both at one objective; its interval is that of"
            " paired shares.",
            cases="pairs",
        ),
        Metric(
            "logps/chosen",
            "chosen log-prob",
            LOGP,
            ".3f",
            "higher",
            "Average log-probability of a token of the chosen answers.",
            cases="pairs",
        ),
        Metric(
            "logps/rejected",
            "rejected log-prob",
            LOGP,
            ".3f",
            "",
            "Average log-probability of a token of the rejected answers.",
            cases="pairs",
        ),
        Metric(
            "lead",
            "lead",
            LOGP,
            "+.3f",
            "higher",
            "How much likelier per token chosen answers are than rejected ones: logps/chosen minus logps/rejected. It"
            " is not in metrics.jsonl, the charts compute it.",
            "+.2f",
        ),
        Metric(
            "logps/chosen_drift",
            "chosen drift",
            LOGP,
            "+.3f",
            "higher",
            "Change of the chosen answers' average log-probability since step 0, on the same pairs. A fall is harmless"
            " alone, but a sign of collapse together with repetition or lost endings.",
            "+.2f",
            cases="pairs",
        ),
        Metric(
            "logps/rejected_drift",
            "rejected drift",
            LOGP,
            "+.3f",
            "",
            "Change of the rejected answers' average log-probability since step 0.",
            "+.2f",
            cases="pairs",
        ),
        Metric(
            "lead_change",
            "change of the lead",
            LOGP,
            "+.3f",
            "higher",
            "Change of the mean lead since step 0, on the same pairs; its interval is a paired bootstrap.",
            cases="pairs",
        ),
        Metric("chosen_tokens", "chosen length", "tokens", ".0f", "", "Mean length of the chosen answers in the data."),
        Metric(
            "rejected_tokens",
            "rejected length",
            "tokens",
            ".0f",
            "",
            "Mean length of the rejected answers in the data.",
        ),
        Metric("pairs", "held-out pairs", "", ".0f", "", "Number of held-out pairs that were scored."),
        Metric(
            "prompts",
            "held-out prompts",
            "",
            ".0f",
            "",
            "Number of prompts of the held-out pairs, where some share one: intervals know which do.",
        ),
        Metric(
            "scoring_noise",
            "scoring noise",
            LOGP,
            ".2g",
            "lower",
            "Largest difference of a lead when the same pairs are scored again: alone, in other micro-batches and, in"
            " 16 bits on a GPU, with other kernels; smaller changes say nothing.",
        ),
        Metric("answers/n", "answers", "", ".0f", "", "Number of sampled answers."),
        Metric(
            "answers/mean_tokens",
            "answer length",
            "tokens",
            ".0f",
            "",
            "Mean length of the sampled answers, without the end of turn.",
            cases="answers/n",
        ),
        Metric(
            "answers/ended",
            "answers end properly",
            SHARE,
            ".2f",
            "higher",
            "Share of sampled answers that end by themselves instead of being cut off.",
            cases="answers/n",
        ),
        Metric(
            "answers/repeated_4grams",
            "repeated 4-grams",
            SHARE,
            ".2f",
            "lower",
            "Share of an answer's sequences of four tokens that occurred earlier in it, mean over sampled answers; it"
            " rises when a model collapses into repetition.",
            cases="answers/n",
        ),
        Metric(
            "answers/repeated_4grams_change",
            "change of repeated 4-grams",
            "",
            "+.2f",
            "lower",
            "Change of the share of repeated 4-grams since step 0, on the same prompts, with its paired interval.",
            cases="answers/compared",
        ),
        Metric(
            "answers/ended_change",
            "change of answers that end",
            "",
            "+.2f",
            "higher",
            "Change of the share of answers that end by themselves since step 0, on the same prompts; its interval is"
            " that of paired shares.",
            cases="answers/compared",
        ),
        Metric(
            "answers/mean_tokens_change",
            "change of answer length",
            "tokens",
            "+.0f",
            "",
            "Change of the mean length since step 0, on the same prompts; its interval is a paired bootstrap.",
            cases="answers/compared",
        ),
        Metric(
            "answers/compared",
            "compared answers",
            "",
            ".0f",
            "",
            "Number of prompts that were answered at step 0 as well.",
        ),
        Metric(
            "answers/right",
            "right answers",
            SHARE,
            ".2f",
            "higher",
            "Share of sampled answers that are right, of those whose prompts have a check (`expect`).",
            cases="answers/checked",
        ),
        Metric(
            "answers/checked",
            "checked answers",
            "",
            ".0f",
            "",
            "Number of sampled answers whose prompts have a check.",
        ),
        Metric(
            "answers/became_right",
            "became right",
            "",
            ".0f",
            "higher",
            "Checked answers that were wrong at step 0 and are right now.",
            cases="answers/checked",
        ),
        Metric(
            "answers/became_wrong",
            "became wrong",
            "",
            ".0f",
            "lower",
            "Checked answers that were right at step 0 and are wrong now; high accuracy on pairs does not show them.",
            cases="answers/checked",
        ),
        Metric(
            "answers/right_change",
            "change of right answers",
            "",
            "+.2f",
            "higher",
            "Change of the share of right answers since step 0, −1 … 1, on the same prompts; its interval is that of"
            " paired shares.",
            cases="answers/checked",
        ),
        Metric("learning_rate", "learning rate", "", ".3g", "", "Step size of the optimizer at this step."),
        Metric(
            "grad_norm",
            "gradient norm",
            "",
            ".3g",
            "",
            "Length of the gradient before clipping; repeated jumps mean that the learning rate is too high.",
        ),
        Metric("beta", "β", "", "g", "", "Scale of rewards and margins."),
        Metric("gamma_beta_ratio", "γ/β", LOGP, "g", "", "The lead that the loss asks for."),
        Metric("epoch", "epoch", "", ".2f", "", "How often the training pairs were gone through."),
        Metric("tokens_per_second", "tokens per second", "tokens/s", significant, "higher", "Training speed."),
        Metric("pairs_per_second", "speed", "pairs/s", significant, "higher", "Training speed."),
        Metric(
            "peak_memory_bytes",
            "peak memory",
            "",
            memory,
            "lower",
            "Most memory in use at once: by tensors on a GPU, by the process on a CPU.",
        ),
    )
}


def score_metrics(scores, first: dict | None, first_scores=None) -> dict:
    """Metrics of an evaluation's held-out pairs, with the prefix eval/: means, shares with the ends of their 95 %
    interval, and changes since step 0 on the same pairs, each with its own interval.

    scores: the evaluation's scores table, with the column prompt where some pairs may share one. first: the record of
    step 0, against which drifts are measured (nats per token); None when this is step 0. first_scores: the table of
    step 0 at the same objective; without it drifts have no interval, and there are no other changes.
    """
    n, prompts = len(scores), prompts_of(scores)
    numbers = clusters(prompts)
    chosen, rejected = float(scores["chosen_avg_logp"].mean()), float(scores["rejected_avg_logp"].mean())
    return {
        **as_metrics({} if first is None or first_scores is None else score_changes(first_scores, scores)),
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
        **({} if numbers is None else {"eval/prompts": counted_prompts(numbers, n)}),
        "beta": float(scores["beta"].iloc[0]),
        "gamma_beta_ratio": float(scores["gamma_beta_ratio"].iloc[0]),
        **share_of(scores["correct"], prompts).as_metrics("eval/rewards/accuracies"),
        **share_of(scores["beyond_gamma"], prompts).as_metrics("eval/rewards/beyond_gamma"),
    }


def answer_metrics(answers: list[dict], first_answers: Iterable[dict] = ()) -> dict:
    """Metrics of an evaluation's sampled answers, with the prefix eval/answers/; {} without answers.

    answers: dicts with prompt, tokens, ended, repeated_4grams and, where the prompt has a check, right, as in
    generations/*.jsonl. first_answers: those of step 0, with which answers to the same prompts are compared; none at
    step 0.
    """
    if not answers:
        return {}
    first_answers = list(first_answers)
    repeated = mean_share([answer["repeated_4grams"] for answer in answers])
    return {
        "eval/answers/n": len(answers),
        "eval/answers/mean_tokens": statistics.fmean(answer["tokens"] for answer in answers),
        **share(sum(answer["ended"] for answer in answers), len(answers)).as_metrics("eval/answers/ended"),
        **repeated.as_metrics("eval/answers/repeated_4grams"),
        **answer_changes_since(first_answers, answers),
        **right_metrics(answers, first_answers),
    }
