"""A finished or live run as one self-contained HTML page: verdicts, numbers, charts, pairs, answers, how it was made.

Jinja2's autoescape escapes all texts; only the three scripts, made here, go in unescaped. The page's content security
policy names these scripts by hash, so that markup which got through nevertheless could neither run nor load anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
import warnings
from pathlib import Path

from .._version import __version__
from ..analysis import doctor
from ..analysis.metrics import METRICS, SHARE
from ..analysis.objective import last_objective
from ..analysis.scores import WITHIN_NOISE, compare_scores
from ..base.errors import SecretWarning, WorkbenchError, first_line
from ..base.escape import json_for_script
from ..base.files import write_atomically
from ..base.format import counted, signed
from ..base.redaction import redact, redact_values
from ..charts.scores import lead_scatter, score_histogram
from ..charts.subplots import COLORS
from ..charts.training import rewards_figure, training_figure
from ..config.held_lora import adapter_note
from ..runs.damage import damage_of
from ..runs.run import Run
from ..runs.secret_texts import secrets_sentence
from .facts import headline_of, tiles

_MOST_PAIRS = 20
_TEMPLATE = Path(__file__).with_name("report.html.jinja")

#: Every chart comes in both themes and is drawn anew when the reader's theme changes.
_DRAW_JS = """
const figures = JSON.parse(document.getElementById("figures").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
function draw() {
  for (const [id, themes] of Object.entries(figures)) {
    const figure = themes[dark.matches ? "dark" : "light"];
    Plotly.react(id, figure.data, figure.layout, {responsive: true, displaylogo: false, displayModeBar: false});
  }
}
dark.addEventListener("change", draw);
draw();
"""

#: Metrics in the table of evaluations, in this order.
_COLUMNS = (
    *("loss", "logps/chosen_drift", "logps/rejected_drift", "rewards/chosen", "rewards/rejected", "rewards/margins"),
    *("rewards/accuracies", "rewards/beyond_gamma"),
    *("answers/right", "answers/became_wrong", "answers/became_right"),
    *("answers/mean_tokens", "answers/ended", "answers/repeated_4grams"),
)


def write_report(run: Run, path: str | Path | None = None) -> Path:
    """Write a page that shows the run as it stands now, and return its path; default: report.html in the run's folder.

    Errors: WorkbenchError when the page cannot be written, or the run's configuration or metrics are damaged.
    """
    if sentence := secrets_sentence(run.folder):
        warnings.warn(sentence, SecretWarning, stacklevel=2)
    path = run.folder.report if path is None else Path(path).expanduser()
    write_atomically(path, report_html(run).encode())
    return path


def report_html(run: Run) -> str:
    """The page that `write_report` writes, as text. Errors: WorkbenchError for a run with a damaged file."""
    try:
        return _report_html(run)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OSError) as error:
        # values of a wrong type or a missing number, which only a damaged file has
        raise WorkbenchError(
            f"The report of {run.name!r} cannot be made: a file of the run is damaged, or from a version that is not"
            f" known ({type(error).__name__}: {first_line(error)})."
        ) from error


def _report_html(run):
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    status, config, records, environment = run.status, run.config, run.records, dict(run.environment)
    lora, evaluations = run.lora, [record for record in records if record.get("kind") == "eval"]
    objective = last_objective(config.loss, records)
    before, after, problem = _scores(run)
    compared = compare_scores(before, after, run.scoring_noise or 0.0) if after is not None else None
    final = run.final
    drawn = _figures(run, status, objective, evaluations, before, after, compared)
    # with the line ends that the browser will see, since the hash is of what it reads
    plotly_js = get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")
    # a report is for sharing, and its texts come from data and models: secrets are removed from every text
    page = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: redact(value) if type(value) is str else value,
    ).from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return page.render(
        run=run,
        status=status,
        headline=headline_of(run, objective),
        lora_note=adapter_note(config, lora),
        damage=damage_of(run.folder),
        problem=problem,
        objective_note=run.objective_note,
        verdicts=doctor.diagnose(records, status.total_steps),
        tiles=tiles(
            status,
            config,
            evaluations,
            _of_steps(records, "pairs_per_second"),
            _of_steps(records, "peak_memory_bytes"),
            final,
        ),
        final=str(final),
        final_step=final.step,
        final_rows=_final_rows(final),
        figures={name: None if figure is None else figure.facts for name, figure in drawn.items()},
        evaluations=_evaluation_table(evaluations),
        flips=None if compared is None else _flips(compared),
        samples=_samples(run),
        notes=[*filter(None, [secrets_sentence(run.folder)]), *environment.pop("data_notes", [])],
        configuration=config.to_yaml(),
        environment=list(_flat(environment)),
        version=__version__,
        written=time.strftime("%Y-%m-%d %H:%M"),
        figures_json=Markup(_figures_json(drawn)),
        plotly_js=Markup(plotly_js),
        draw_js=Markup(_DRAW_JS),
        script_hashes=Markup(f"{_hash(plotly_js)} {_hash(_DRAW_JS)}"),
    )


class _Chart:
    """One chart in both themes, with a sentence that describes it."""

    def __init__(self, name, description, make):
        self.themes = {theme: make(theme) for theme in COLORS}
        self.facts = {"id": f"chart-{name}", "description": description, "height": self.themes["light"].layout.height}


def _figures(run, status, objective, evaluations, before, after, compared):
    metrics, total = run.metrics, status.total_steps
    ratio = objective.gamma_beta_ratio if objective.has_target_margin else None
    drawn = {
        "training": _Chart(
            "training",
            _training_sentence(evaluations),
            lambda theme: training_figure(
                metrics, ratio, total, theme=theme, attention_drift=doctor.CHOSEN_DRIFT_ATTENTION
            ),
        ),
        "rewards": _Chart(
            "rewards",
            "Rewards of chosen and rejected answers, learning rate and gradient norm over the steps. Rewards are"
            " negative; only their difference matters.",
            lambda theme: rewards_figure(metrics, total, theme),
        ),
        "histogram": None,
        "scatter": None,
    }
    if before is not None:
        drawn["histogram"] = _Chart(
            "histogram",
            _histogram_sentence(before, after),
            lambda theme: score_histogram(before, after, ratio, theme),
        )
    if compared is not None:
        sentence = (
            "Each held-out pair's lead before training (across) and after (up); above the diagonal line the chosen"
            " answer gained."
        )
        drawn["scatter"] = _Chart("scatter", sentence, lambda theme: lead_scatter(compared, theme))
    return drawn


def _figures_json(drawn):
    parts = {
        chart.facts["id"]: {theme: json.loads(figure.to_json()) for theme, figure in chart.themes.items()}
        for chart in drawn.values()
        if chart
    }
    return json_for_script(json.dumps(redact_values(parts), ensure_ascii=False))


def _hash(script):
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _of_steps(records, name):
    return [record[name] for record in records if record.get("kind") == "train" and name in record]


def _scores(run):
    """(before, after, problem): scores at the first and the last evaluated step, None where there is none; problem: the
    sentence that says why both are left out, because no other step may stand for these.
    """
    steps = run.folder.evaluated_steps()
    if not steps:
        return None, None, ""
    try:
        return run.scores_at(steps[0]), run.scores_at(steps[-1]) if len(steps) > 1 else None, ""
    except WorkbenchError as error:
        return None, None, f"What needs the scores of single pairs is left out. {error}"


def _evaluation_table(evaluations):
    columns = [METRICS[key] for key in _COLUMNS if any(f"eval/{key}" in record for record in evaluations)]
    rows = [
        [str(record["step"]), *(metric.text(record.get(f"eval/{metric.key}")) for metric in columns)]
        for record in evaluations
    ]
    return {"columns": columns, "rows": rows}


def _final_rows(final):
    """Rows of the table of final pairs: metric, base, recommended step, change with its interval, and the judgement."""
    return [
        [
            METRICS[key].title,
            *(METRICS[key].text(record[f"eval/{key}"]) for record in (final.before, final.after)),
            f"{signed(change.change, 2 if METRICS[key].unit == SHARE else 3)}{_in_brackets(change.interval)}",
            f"{change.up} up, {change.down} down",
            change.judgement,
        ]
        for key, change in final.changes.items()
        if f"eval/{key}" in final.before
    ]


def _in_brackets(text):
    return f" ({text})" if text else ""


def _flips(compared):
    """A sentence that counts, and the pairs that changed most: flipped ones first, then by how far the lead moved."""
    became = compared["became"].value_counts()
    to_right, to_wrong, within = (int(became.get(name, 0)) for name in ("to right", "to wrong", WITHIN_NOISE))
    stayed = f"{len(compared) - to_right - to_wrong - within} stayed as they were"
    if within:
        stayed = f"{within} changed sides within the noise of scoring, {stayed}"
    order = compared.assign(flipped=compared["flip"] != "", moved=compared["lead_change"].abs()).sort_values(
        ["flipped", "moved"], ascending=False
    )
    rows = [
        {
            "pair_id": str(row["pair_id"]),
            "prompt": _text(row.get("prompt")),
            "chosen": _text(row.get("chosen")),
            "rejected": _text(row.get("rejected")),
            "lead": f"{signed(row['lead_before'])} → {signed(row['lead_after'])}",
            "change": signed(row["lead_change"]),
            "became": row["became"],
        }
        for row in order.head(_MOST_PAIRS).to_dict("records")
    ]
    shown = f" The {len(rows)} that changed most are below." if len(rows) < len(compared) else ""
    sentence = f"Of {len(compared)} pairs {to_right} turned right, {to_wrong} turned wrong, {stayed}.{shown}"
    return {"sentence": sentence, "rows": rows}


def _samples(run):
    """One dict per sample prompt: the prompt, its reference ("" without one), and its answers at the first and the last
    sampled step.
    """
    answers = run.generations
    if answers.empty:
        return []
    first, last = answers["step"].min(), answers["step"].max()
    steps = [first] if first == last else [first, last]
    by_step = [answers[answers["step"] == step].to_dict("records") for step in steps]
    return [
        {
            "prompt": _text(rows[0]["prompt"]),
            "reference": _text(rows[-1]["reference"]),
            "answers": [_answer(row) for row in rows],
        }
        for rows in zip(*by_step, strict=False)
    ]


def _answer(row):
    step = int(row["step"])
    return {
        "title": "base · step 0" if step == 0 else f"tuned · step {step}",
        "text": _text(row["answer"]) or "(empty answer)",
        "tokens": int(row["tokens"]),
        "ended": bool(row["ended"]),
        "repeated": f"{row['repeated_4grams']:.2f}",
        "right": row["right"],
    }


def _training_sentence(evaluations):
    if not evaluations:
        return "Charts over the optimizer steps; nothing was measured yet."
    last = evaluations[-1]
    return (
        f"Charts over the optimizer steps: at step {last['step']} chosen answers stand at"
        f" {signed(last['eval/logps/chosen_drift'])} and rejected ones at {signed(last['eval/logps/rejected_drift'])}"
        f" nats per token since the start, {last['eval/rewards/accuracies']:.0%} of"
        f" {counted(last['eval/pairs'], 'held-out pair')} have the chosen answer ahead. Points are held-out"
        " evaluations, thin lines single training steps, upright bars 95 % intervals."
    )


def _histogram_sentence(before, after):
    counts = f"{_ahead(before)} of {len(before)} pairs before"
    if after is not None:
        counts += f" and {_ahead(after)} of {len(after)} after"
    return (
        f"How far the chosen answer leads, pair by pair: right of zero it is the likelier one ({counts} training),"
        " right of γ/β by as much as SimPO asks for."
    )


def _ahead(scores):
    return int((scores["chosen_avg_logp"] > scores["rejected_avg_logp"]).sum())


def _flat(values, prefix=""):
    """(name, text) of every value in nested dicts, names joined by spaces."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _text(value):
    """A text cell; a missing value, as after a join, is empty."""
    return "" if value is None or value != value else str(value)
