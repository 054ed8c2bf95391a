"""Output of the command line: a progress bar in a terminal and plain lines elsewhere, tables, answers side by side."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from ..analysis.doctor import diagnose, why_recommended
from ..analysis.metrics import METRICS, SHARE
from ..base.format import duration

_PLAIN_EVERY_S = 15  # without a terminal, a line at most so often
#: Metrics of a step in the progress line, and of an evaluation in the table before and after.
_PROGRESS = ("loss", "rewards/margins")
_BEFORE_AFTER = (
    *("rewards/accuracies", "rewards/beyond_gamma", "logps/chosen", "logps/rejected", "loss"),
    *("answers/mean_tokens", "answers/ended", "answers/repeated_4grams"),
)


class Progress:
    """Shows the records of a run as they come: use it in a `with` block and give `show` to `train(on_record=…)`."""

    def __init__(self):
        self.console = Console(stderr=True)
        self.last_line = 0.0
        self.started = time.monotonic()
        self.bar = None
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
            )
            self.bar = Bar(*columns, console=self.console, transient=True)
            self.task = self.bar.add_task("loading", total=None, facts="")

    def __enter__(self):
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_):
        if self.bar:
            self.bar.stop()

    def show(self, record: dict) -> None:
        """Show one metrics record, event or change of state."""
        kind = record["kind"]
        if kind == "state":
            if self.bar:
                self.bar.update(self.task, description=record["state"], total=record["total_steps"] or None)
            elif record["message"] and record["state"] != "failed":  # the command says why it failed
                self._line(f"{record['state']}: {record['message']}")
        elif kind == "train":
            values = [f"{METRICS[key].label} {METRICS[key].text(record[key])}" for key in _PROGRESS]
            left, speed = duration(record["seconds_left"]), f"{record['pairs_per_second']:.1f} pairs/s"
            facts = " · ".join([f"{left} left", speed, *values])
            if self.bar:
                self.bar.update(self.task, completed=record["step"], total=record["total_steps"], facts=facts)
            elif time.monotonic() - self.last_line >= _PLAIN_EVERY_S:
                self._line(f"step {record['step']} of {record['total_steps']} · {facts}")
        elif kind == "eval":
            self._line(_evaluation_line(record))
        elif kind in ("event", "note"):
            self._line(record["text"])

    def _line(self, text):
        self.last_line = time.monotonic()
        self.console.print(Text(f"[{duration(time.monotonic() - self.started)}] {text}"), soft_wrap=True)


def _evaluation_line(record):
    def named(key):
        return f"{METRICS[key].label} {_value(record, key, short=True)}"

    line = (
        f"step {record['step']}: {named('rewards/accuracies')}, {named('rewards/beyond_gamma')} of"
        f" {record['eval/pairs']} held-out pairs; {named('logps/chosen_drift')} since the start"
    )
    if "eval/answers/n" in record:
        tokens = _value(record, "answers/mean_tokens")
        line += f"; {record['eval/answers/n']} answers: {tokens} tokens, {named('answers/repeated_4grams')}"
    return line


def summary(run) -> dict:
    """First and last evaluation of a run and the doctor's verdicts, as plain values."""
    records = run.records
    evaluations = [record for record in records if record["kind"] == "eval"]
    verdicts = diagnose(records, run.status.total_steps)
    return {
        "before": evaluations[0] if evaluations else None,
        "after": evaluations[-1] if len(evaluations) > 1 else None,
        "verdicts": [
            {"kind": verdict.kind, "severity": verdict.severity, "step": verdict.step, "text": str(verdict)}
            for verdict in verdicts
        ],
    }


def print_status(run) -> None:
    """Print one line on where the run stands."""
    status = run.status
    left = f" · {duration(status.seconds_left)} left" if status.seconds_left and not status.ended else ""
    _out().print(
        Text(f"{run.name} · {status.state} · step {status.step} of {status.total_steps}{left} · {status.message}"),
        soft_wrap=True,
    )


def print_summary(run, report: Path | None = None) -> None:
    """Print before and after as a table, three prompts side by side, the doctor's verdicts, and where the report is."""
    console, facts = _out(), summary(run)
    before, after = facts["before"], facts["after"]
    if before:
        console.print(_before_after_table(before, after))
    if after:
        generations = run.generations
        last = generations["step"].max()
        sides = generations[generations["step"] == 0].merge(
            generations[generations["step"] == last], on="prompt", suffixes=("_base", "_tuned")
        )
        if len(sides) and last > 0:
            console.print(_side_by_side(sides.head(3), "base", f"tuned, step {last}"))
    for verdict in facts["verdicts"]:
        console.print(Text.assemble(("Doctor: ", "bold"), verdict["text"]), soft_wrap=True)
    recommended = run.status.recommended_step
    if recommended is not None and after:
        where = f", in {run.adapter_at(recommended)}" if recommended else ""
        console.print(Text(f"Recommended: step {recommended}, {why_recommended(run.records)}{where}"), soft_wrap=True)
    if report:
        console.print(Text(f"Report: {report}"), soft_wrap=True)


def print_answers(table) -> None:
    """Print the answers of `wb.generate`, base and tuned side by side."""
    names = {}
    for side in ("base", "tuned"):
        names |= {side: f"answer_{side}", f"{side}_tokens": f"tokens_{side}"}
        names |= {f"{side}_{fact}": f"{fact}_{side}" for fact in ("ended", "repeated_4grams")}
    _out().print(_side_by_side(table.rename(columns=names), "base", "tuned"))


def print_table(table) -> None:
    """Print a DataFrame without its index."""
    shown = Table()
    for name in table.columns:
        shown.add_column(name, justify="right" if table[name].dtype.kind in "if" else "left", overflow="fold")
    for row in table.itertuples(index=False):
        shown.add_row(*[_cell(value) for value in row])
    _out().print(shown)


def _before_after_table(before, after):
    title = f"Held-out pairs (n={before['eval/pairs']}) and sampled answers"
    if "eval/answers/n" in before:
        title += f" (n={before['eval/answers/n']})"
    table = Table(title=title)
    for name in ("", "before", f"after step {after['step']}" if after else "after"):
        table.add_column(name, justify="right" if name else "left")
    for key in _BEFORE_AFTER:
        if f"eval/{key}" in before:
            title = f"{METRICS[key].label} (95 %)" if METRICS[key].unit == SHARE else METRICS[key].title
            table.add_row(title, *[_value(record, key) for record in (before, after)])
    return table


def _value(record, key, short=False):
    """A metric of an evaluation with its 95 % interval, "0.75 (0.55 to 0.88)"; "" where it was not measured."""
    if record is None or f"eval/{key}" not in record:
        return ""
    text, interval = METRICS[key].text(record[f"eval/{key}"], short), METRICS[key].interval(record)
    return f"{text} ({interval})" if interval else text


def _side_by_side(sides, left, right):
    table = Table(show_lines=True)
    for name in ("prompt", left, right):
        table.add_column(name, ratio=1 if name == "prompt" else 2, overflow="fold")
    for row in sides.to_dict("records"):
        table.add_row(Text(row["prompt"]), _answer(row, "base"), _answer(row, "tuned") if "answer_tuned" in row else "")
    return table


def _answer(row, side):
    ending = "ends properly" if row[f"ended_{side}"] else "cut off"
    facts = f"{row[f'tokens_{side}']} tokens · repeated 4-grams {row[f'repeated_4grams_{side}']:.2f} · {ending}"
    return Text.assemble(row[f"answer_{side}"], "\n", (facts, "dim"))


def _cell(value):
    if value is None or value != value:
        return ""
    return Text(f"{value:.3g}" if isinstance(value, float) else str(value))


def _out():
    console = Console()
    return console if console.is_terminal else Console(width=140)
