"""The few facts of a run that matter, in words: for the report and for the panel that follows a run."""

from __future__ import annotations

import statistics

from ..analysis.metrics import METRICS
from ..analysis.objective import is_at, objective_words
from ..analysis.recommendation import why_recommended
from ..base.escape import one_way
from ..base.format import counted
from ..config.held_lora import held_lora, lora_label
from ..runs.run_lora import label_of

#: Metrics that are shown as tiles, in this order.
TILES = (
    *("rewards/accuracies", "rewards/beyond_gamma", "logps/chosen_drift"),
    *("answers/right", "answers/repeated_4grams", "answers/ended", "answers/mean_tokens"),
)
#: Metric of a tile -> what stands beside it, and the metric that tells it.
_BESIDE = {
    "logps/chosen_drift": (("rejected", "logps/rejected_drift"),),
    "answers/right": (("became wrong:", "answers/became_wrong"), ("became right:", "answers/became_right")),
    "answers/mean_tokens": (("chosen in the data:", "chosen_tokens"),),
}


def headline(config, label: str | None = None) -> str:
    """Model, adapter and objective of a configuration in one line.

    label: the adapter in a few words, such as "r16"; default: what a run that begins now would train.
    """
    loss = config.loss
    model = one_way(config.model.name) if config.model.name != "demo" else "demo model (SmolLM2-135M-Instruct)"
    label = lora_label(config, held_lora(config)) if label is None else label
    adapter = f"{config.model.load_in.upper()} + LoRA {one_way(label)}"
    if not loss.has_target_margin:
        return f"{model} · {adapter} · {loss.kind.upper()} · β {loss.beta:g}"
    kind = " · hinge" if loss.kind == "simpo_hinge" else ""
    return f"{model} · {adapter}{kind} · β {loss.beta:g} · γ/β {loss.gamma_beta_ratio:g} (γ {loss.gamma:g})"


def headline_of(run, objective=None) -> str:
    """The headline of a run, with the adapter that it trains and its last objective; where that is not the one that it
    began with, both are named. Errors: WorkbenchError for a damaged configuration.

    objective: `run.objective` where it is known already.
    """
    config, objective = run.config, run.objective if objective is None else objective
    text = headline(config.model_copy(update={"loss": objective}), label_of(run.folder, config))
    now = {"beta": objective.beta, "gamma_beta_ratio": objective.target_margin / objective.beta}
    return text if is_at(now, config.loss) else f"{text}, at first {objective_words(config.loss)}"


def tiles(status, config, evaluations, speeds, peaks, final=None) -> list[dict]:
    """name, value, fact (n, interval of the change, where it comes from) and help of the numbers that matter;
    "–" for what is not known yet.

    evaluations: the run's evaluation records. speeds: pairs per second of its steps. peaks: their peak memory, bytes.
    final: the run's FinalResult where it is known.
    """
    absent = set() if config.loss.has_target_margin else {"rewards/beyond_gamma"}
    if not any("eval/answers/right" in record for record in evaluations):  # no prompt has a check
        absent.add("answers/right")
    keys = [key for key in TILES if key not in absent]
    recommended = status.recommended_step
    why = why_recommended(evaluations)
    if final is not None and final.step is not None and final.step == recommended:
        why = f"{why}; on {counted(final.pairs, 'final pair')}, which did not choose it, {final.brief}"
    missing = "not recorded by this run" if status.state == "finished" else "not measured yet"
    return [
        *(_evaluation_tile(key, evaluations, missing) for key in keys),
        {
            "name": "recommended",
            "value": "–" if recommended is None else f"step {recommended}",
            "fact": why,
            "help": "The step whose adapter to use: the best of those that look healthy.",
        },
        _step_tile("pairs_per_second", statistics.median(speeds) if speeds else None, f"median of {len(speeds)} steps"),
        _step_tile("peak_memory_bytes", max(peaks, default=None), f"most of {len(peaks)} steps"),
    ]


def _evaluation_tile(key, evaluations, missing):
    """The first and the last value of a metric; of a drift, which is 0 at first, only the last.

    missing: the fact where no evaluation has the metric.
    """
    metric, measured = METRICS[key], [record for record in evaluations if f"eval/{key}" in record]
    tile = {"name": metric.label, "value": "–", "fact": missing, "help": metric.tooltip}
    if not measured:
        return tile
    last = measured[-1]
    shown = [last] if len(measured) == 1 or key.endswith("_drift") else [measured[0], last]
    values = " → ".join(metric.text(record[f"eval/{key}"], short=True) for record in shown)
    tile["value"] = metric.with_unit(values)
    cases = f"{last[f'eval/{metric.cases}']} {METRICS[metric.cases].label}" if metric.cases else ""
    change = METRICS.get(f"{key}_change")  # a drift is a change itself
    if len(measured) > 1 and change and (ends := change.interval(last)):
        interval = f"change {change.text(last[f'eval/{change.key}'])}, 95 % {ends}"
    else:
        ends = metric.interval(last)
        interval = ends and f"95 % {ends}"
    facts = [", ".join(filter(None, (cases, interval)))]
    facts += [
        f"{words} {METRICS[other].text(last[f'eval/{other}'], short=True)}"
        for words, other in _BESIDE.get(key, ())
        if f"eval/{other}" in last
    ]
    tile["fact"] = "; ".join(filter(None, facts))
    return tile


def _step_tile(key, value, fact):
    metric = METRICS[key]
    text = "–" if value is None else metric.with_unit(metric.text(value))
    fact = "from step 1 on" if value is None else fact
    return {"name": metric.label, "value": text, "fact": fact, "help": metric.tooltip}
