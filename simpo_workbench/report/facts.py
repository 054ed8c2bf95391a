"""The few facts of a run that matter, as words: for the report and for the panel that follows it."""

from __future__ import annotations

import statistics

from ..analysis.doctor import why_recommended
from ..base.escape import one_way
from ..base.format import memory, signed, significant


def headline(config) -> str:
    """Model, adapter and objective of a configuration in one line."""
    loss, lora = config.loss, config.lora
    model = one_way(config.model.name) if config.model.name != "demo" else "demo model (SmolLM2-135M-Instruct)"
    adapter = f"{config.model.load_in.upper()} + LoRA r{lora.r}"
    if loss.kind == "dpo":
        return f"{model} · {adapter} · DPO · β {loss.beta:g}"
    kind = " · hinge" if loss.kind == "simpo_hinge" else ""
    return f"{model} · {adapter}{kind} · β {loss.beta:g} · γ/β {loss.gamma_beta_ratio:g} (γ {loss.gamma:g})"


def tiles(status, config, evaluations, speeds, peaks) -> list[dict]:
    """name, value and fact (n, interval, where it comes from) of the numbers that matter; "–" where nothing is known
    yet.

    evaluations: the run's evaluation records. speeds: pairs per second of its steps. peaks: their peak memory, bytes.
    """
    sampled = [record for record in evaluations if "eval/answers/n" in record]
    recommended = status.recommended_step
    beyond = (
        []
        if config.loss.kind == "dpo"
        else [_share_tile("beyond γ", evaluations, "eval/rewards/beyond_gamma", "eval/pairs", "held-out pairs")]
    )
    return [
        _share_tile("chosen ahead", evaluations, "eval/rewards/accuracies", "eval/pairs", "held-out pairs"),
        *beyond,
        _drift_tile(evaluations),
        _share_tile("repeated 4-grams", sampled, "eval/answers/repeated_4grams", "eval/answers/n", "answers"),
        _share_tile("answers end properly", sampled, "eval/answers/ended", "eval/answers/n", "answers"),
        _length_tile(sampled),
        _tile("recommended", "–" if recommended is None else f"step {recommended}", why_recommended(evaluations)),
        _tile(
            "speed",
            f"{significant(statistics.median(speeds))} pairs/s" if speeds else "–",
            f"median of {len(speeds)} steps" if speeds else "from step 1 on",
        ),
        _tile(
            "peak memory",
            memory(max(peaks)) if peaks else "–",
            f"most of {len(peaks)} steps" if peaks else "from step 1 on",
        ),
    ]


def _tile(name, value, fact):
    return {"name": name, "value": value, "fact": fact}


def _share_tile(name, evaluations, key, count_key, cases):
    found = [record for record in evaluations if key in record]
    if not found:
        return _tile(name, "–", "not measured yet")
    first, last = found[0], found[-1]
    value = f"{last[key]:.2f}" if first is last else f"{first[key]:.2f} → {last[key]:.2f}"
    interval = f", 95 % {last[f'{key}_low']:.2f} to {last[f'{key}_high']:.2f}" if f"{key}_low" in last else ""
    return _tile(name, value, f"{last[count_key]} {cases}{interval}")


def _drift_tile(evaluations):
    if not evaluations:
        return _tile("chosen log-prob drift", "–", "not measured yet")
    last = evaluations[-1]
    rejected = signed(last["eval/logps/rejected_drift"])
    return _tile(
        "chosen log-prob drift", signed(last["eval/logps/chosen_drift"]), f"nats per token; rejected {rejected}"
    )


def _length_tile(sampled):
    if not sampled:
        return _tile("answer length", "–", "not measured yet")
    first, last = (sampled[index]["eval/answers/mean_tokens"] for index in (0, -1))
    value = f"{last:.0f} tokens" if len(sampled) == 1 else f"{first:.0f} → {last:.0f} tokens"
    return _tile(
        "answer length",
        value,
        f"mean of {sampled[-1]['eval/answers/n']}; chosen in the data: {sampled[-1]['eval/chosen_tokens']:.0f}",
    )
