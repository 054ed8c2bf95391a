"""The last screen of a training command: before and after with what changed, three prompts, the verdict, what is next.

Whoever sees nothing else must know from it what got better, what got worse, and what nobody measured.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ..analysis.doctor import diagnose
from ..analysis.metrics import METRICS, SHARE
from ..analysis.paired_changes import (
    TOO_FEW,
    PairedChange,
    answer_changes,
    answers_side_by_side,
    is_checked,
    pair_changes,
)
from ..analysis.recommendation import why_recommended
from ..base.format import counted
from .gate import output
from .terminal import side_by_side, value_text

if TYPE_CHECKING:
    import pandas as pd

    from ..runs.final_result import FinalResult

#: Metrics in the table, and for each what a case does whose value rises or falls.
_ROWS = {
    "rewards/accuracies": ("{} came ahead", "{} fell behind"),
    "rewards/beyond_gamma": ("{} came beyond γ", "{} fell back"),
    "logps/chosen": ("likelier in {}", "less likely in {}"),
    "logps/rejected": ("likelier in {}", "less likely in {}"),
    "loss": ("higher in {}", "lower in {}"),
    "answers/right": ("{} became right", "{} became wrong"),
    "answers/ended": ("ending gained by {}", "lost by {}"),
    "answers/repeated_4grams": ("more in {}", "less in {}"),
    "answers/mean_tokens": ("longer in {}", "shorter in {}"),
}
#: What it means when a metric got better, and when it got worse.
_PHRASES = {
    "rewards/accuracies": ("chosen answers are ahead in more pairs", "chosen answers are ahead in fewer pairs"),
    "rewards/beyond_gamma": ("more pairs are beyond γ", "fewer pairs are beyond γ"),
    "logps/chosen": ("chosen answers became likelier", "chosen answers became less likely"),
    "answers/right": ("more answers are right", "fewer answers are right"),
    "answers/ended": ("more answers come to an end", "fewer answers come to an end"),
    "answers/repeated_4grams": ("answers repeat themselves less", "answers repeat themselves more"),
}
#: The cases of a metric that few changed much and many a little the other way.
_MIXED = {
    "logps/chosen": "chosen answers became likelier in {up} pairs and less likely in {down}",
    "answers/repeated_4grams": "{down} answers repeat themselves less and {up} repeat themselves more",
}
_NOTHING = "nothing that chance would not explain"
#: Verdicts of the doctor that say that answers were harmed.
_HARM = ("collapse", "wrong answers", "repetition", "lost endings")
#: Prompts that are shown, and characters of each answer.
_SHOWN_PROMPTS, _LONGEST_ANSWER = 3, 320


def summary(run, records: list[dict] | None = None, final: FinalResult | None = None) -> dict:
    """First and last evaluation of a run, the note on its objective, the doctor's verdicts and the result on the final
    pairs, as plain values.

    records, final: `run.records` and `run.final` where they are read already.
    """
    records = run.records if records is None else records
    evaluations = [record for record in records if record["kind"] == "eval"]
    verdicts, final = diagnose(records, run.status.total_steps), final or run.final
    return {
        "before": evaluations[0] if evaluations else None,
        "after": evaluations[-1] if len(evaluations) > 1 else None,
        "objective_note": run.objective_note,
        "verdicts": [
            {"kind": verdict.kind, "severity": verdict.severity, "step": verdict.step, "text": str(verdict)}
            for verdict in verdicts
        ],
        "final": {
            "text": str(final),
            "step": final.step,
            "pairs": final.pairs,
            "before": final.before or None,
            "after": final.after or None,
            "changes": [asdict(change) | {"judgement": change.judgement} for change in final.changes.values()],
            "looks": [{"run": name, "step": step} for name, step in final.looks],
        },
    }


def print_summary(run, report: Path | None = None, after_demo: bool = False) -> None:
    """Print before and after with what changed, three prompts side by side, the doctor's verdicts and what to do next.

    report: where it is. after_demo: whether the commands are printed that come after the demo.
    """
    console, records, status, final = output(), run.records, run.status, run.final
    facts = summary(run, records, final)
    before, after = facts["before"], facts["after"]

    def say(title, text):
        console.print(Text.assemble((title if title.endswith("?") else f"{title}:", "bold"), " ", text), soft_wrap=True)

    if facts["objective_note"]:
        say("Objective", facts["objective_note"])
    if before and not after:
        console.print(_table(before, None, {}, {}))
        say("Nothing is known yet of what training did", "nothing was measured after step 0.")
    elif before:
        answers, answered_step = _answers(run)
        changes = pair_changes(run.scores_at(before["step"]), run.scores_at(after["step"]), run.scoring_noise or 0.0)
        changes |= answer_changes(answers)
        sampled = next((r for r in records if r["kind"] == "eval" and r["step"] == answered_step), {})
        console.print(_table(before, after, sampled, changes, status.total_steps))
        if any(change.judgement for change in changes.values()):
            note = "The last column compares the same cases before and after; only that tells better from worse, where"
            note += " both the interval of the change and the number of cases leave no room for chance. The"
            note += " intervals beside the values say how sure each value is, not whether they differ."
            console.print(Text(note, style="dim"), soft_wrap=True)
        is_harmed = any(verdict["kind"] in _HARM for verdict in facts["verdicts"])
        for title, text in _in_words(changes, len(answers), is_harmed):
            say(title, text)
        if len(answers):
            chosen, title = telling_prompts(answers)
            console.print(Text(f"\n{title}", style="bold"))
            console.print(side_by_side(chosen, "before", f"after step {answered_step}", _LONGEST_ANSWER))
    for verdict in facts["verdicts"]:
        say("Doctor", verdict["text"])
    if status.recommended_step is not None and after:
        recommended = status.recommended_step
        where = f", in {run.adapter_at(recommended)}" if recommended in run.adapter_steps() else ""
        say("Recommended", f"step {recommended}, {why_recommended(records)}{where}")
        own = next((r for r in records if r["kind"] == "eval" and r["step"] == recommended), None)
        if own and recommended not in (before["step"], after["step"]):  # neither column of the table is its own
            say(f"Step {recommended} itself", _in_one_line(own))
    if final.step is not None:
        console.print(_final_table(final))
    if str(final):
        say("Final pairs", str(final))
    if report:
        say("Report", str(report))
    if after_demo:
        lab, own = next_commands()
        say("Next", f"{lab}    (the notebooks: look at these answers, train again, compare runs)")
        say("Your own pairs", f"{own}    (one JSON object per line with prompt, chosen and rejected)")


def _answers(run):
    """(answers of step 0 and of the newest later step that has some, side by side; that step or None)."""
    generations = run.generations
    last = int(generations["step"].max()) if len(generations) else 0
    first, latest = (generations[generations["step"] == step] for step in (0, last))
    return answers_side_by_side(first, latest if last else latest[:0]), last or None


def telling_prompts(answers: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """(three rows of a table of `answers_side_by_side`, the sentence that says which they are).

    One whose answer became wrong comes first, then one whose answer became right, then the first prompts. Of those that
    became right, one that ends properly and repeats itself no more than before is preferred.
    """
    base, tuned = ((answers[f"right_{side}"].isin([True])).tolist() for side in ("base", "tuned"))
    checked = is_checked(answers).tolist()
    places = range(len(answers))
    wrong = [place for place in places if checked[place] and base[place] and not tuned[place]]
    right = [place for place in places if checked[place] and tuned[place] and not base[place]]
    is_sound = answers["ended_tuned"] & (answers["repeated_4grams_tuned"] <= answers["repeated_4grams_base"])
    right.sort(key=lambda place: not is_sound.iloc[place])
    chosen = [*wrong[:1], *right[:1]]
    names = [f"one whose answer became {now}" for now, some in (("wrong", wrong), ("right", right)) if some]
    first = [place for place in places if place not in chosen][: _SHOWN_PROMPTS - len(chosen)]
    if first:
        count = "the first" if len(first) == 1 else f"the first {len(first)}"
        names.append(f"{count} of the others" if names else count)
    chosen += first
    return answers.iloc[chosen], f"{len(chosen)} of {counted(len(answers), 'prompt')}: {_listed(names)}."


def _listed(names):
    """The names as they are said: "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def next_commands() -> tuple[str, str]:
    """(the command that opens the notebooks, the command that trains on pairs in a file), as they work from here."""
    program, typed = "simpo-workbench", Path(sys.argv[0])
    on_path = shutil.which(program)
    if typed.name == program and typed.exists() and not (on_path and typed.samefile(on_path)):
        program = str(typed)  # a virtual environment that is not activated, as `make demo` uses it
    makefile, own = Path("Makefile"), Path(__file__).parents[2] / "Makefile"
    in_clone = makefile.is_file() and own.is_file() and makefile.samefile(own)
    return "make lab" if in_clone else f"{program} lab", f"{program} train --data.train yours.jsonl"


def _table(before, after, sampled, changes, total_steps=0):
    title = f"Held-out pairs, which were not trained on (n={before['eval/pairs']})"
    if "eval/answers/n" in before:
        title += f", and sampled answers (n={before['eval/answers/n']})"
    table = Table(title=title)
    table.add_column("")
    table.add_column("before", justify="right")
    if after:
        table.add_column(f"after step {after['step']} of {total_steps}", justify="right")
        table.add_column("change, case by case")
    for key in _ROWS:
        if f"eval/{key}" not in before:
            continue
        metric, of_answers = METRICS[key], key.startswith("answers/")
        cells = [_label(metric), value_text(before, key)]
        if after:
            now = sampled if of_answers else after
            earlier = f", step {now['step']}" if of_answers and now and now["step"] != after["step"] else ""
            cells += [value_text(now, key) + earlier if now else "not sampled", _change_text(changes.get(key))]
        table.add_row(*cells)
    return table


def _final_table(final):
    table = Table(title=f"Final pairs, on which no step was chosen (n={final.pairs})")
    table.add_column("")
    for name in ("before", f"step {final.step}, the recommended one"):
        table.add_column(name, justify="right")
    table.add_column("change, case by case")
    for key in _ROWS:
        if f"eval/{key}" in final.before:
            values = [value_text(record, key) for record in (final.before, final.after)]
            table.add_row(_label(METRICS[key]), *values, _change_text(final.changes.get(key)))
    return table


def _label(metric):
    return f"{metric.label} (95 %)" if metric.unit == SHARE else metric.title


def _in_one_line(record):
    """The metrics of the table at one step, as a sentence."""
    keys = [key for key in _ROWS if f"eval/{key}" in record]
    return "; ".join(f"{METRICS[key].label} {METRICS[key].with_unit(value_text(record, key))}" for key in keys)


def _change_text(change: PairedChange | None):
    if change is None:
        return ""
    rose, fell = _ROWS[change.key]
    parts = [rose.format(change.up), fell.format(change.down)]
    if METRICS[change.key].better == "lower" or change.key == "answers/mean_tokens":
        parts.reverse()  # what is good, or what training aims at, comes first
    if change.unclear:
        parts.append(f"{change.unclear} within the noise")
    text, judgement = f"{', '.join(parts)}, of {change.n}", change.judgement
    interval = f" ({METRICS[change.key].label} {change.value}, 95 % {change.interval})" if change.interval else ""
    color = {"better": "green", "worse": "bold red"}.get(judgement, "")
    return Text.assemble(text, *([": ", (judgement, color)] if judgement else []), (interval, "dim"))


def _in_words(changes, answers, is_harmed):
    """(title, text) of the sentences below the table: what got better and worse, and what was not measured."""
    if not changes:
        yield "Nothing could be compared", "no pair and no prompt was measured both before and after"
        return
    groups = {"better": [], "worse": [], TOO_FEW: []}
    for key, phrases in _PHRASES.items():
        judgement = changes[key].judgement if key in changes else ""
        if judgement in groups and (judgement != TOO_FEW or changes[key].points_somewhere):
            looks_worse = (changes[key].change > 0) != (METRICS[key].better == "higher")
            groups[judgement].append(phrases[looks_worse])
    yield "Better", "; ".join(groups["better"]) or _NOTHING
    yield "Worse", "; ".join(groups["worse"]) or ("see the doctor below" if is_harmed else _NOTHING)
    if groups[TOO_FEW]:
        yield "Too few cases to tell whether", "; ".join(groups[TOO_FEW])
    mixed = [changes[key] for key in _MIXED if key in changes and changes[key].judgement == "mixed"]
    if mixed:
        yield "Mixed", "; ".join(_mixed_text(change) for change in mixed)
    right = changes.get("answers/right")
    if right:
        yield (
            "Still right?",
            f"Of {counted(right.n, 'answer')} that can be checked {right.up} became right and {right.down} became"
            " wrong (✓ right: the answer contains what the prompt's check asks for).",
        )
    elif answers:
        yield "Not measured", "whether answers are right: no sample prompt says what a right answer has (expect)"
    else:
        yield "Not measured", "how it answers now: no answers were sampled after step 0"


def _mixed_text(change):
    net, counts = change.up - change.down, _MIXED[change.key].format(up=change.up, down=change.down)
    if net * change.change <= 0:
        return f"{counts}, but the average did not {'rise' if net > 0 else 'fall'}"
    return f"{counts}, which may be chance, but the average {'rose' if change.change > 0 else 'fell'}"
