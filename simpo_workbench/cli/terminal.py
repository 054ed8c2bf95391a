"""What the command line shows: a progress bar in a terminal and plain lines elsewhere, tables, answers side by side."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from ..analysis.doctor import diagnose, why_recommended
from ..base.format import duration, signed

_PLAIN_EVERY_S = 15  # where there is no terminal, a line at least so often


class Progress:
    """Shows the records of a run as they come: use it as a context and give `show` to `train(on_record=…)`."""

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

    def show(self, record: dict):
        """Show one metrics record, event or change of state."""
        kind = record["kind"]
        if kind == "state":
            if self.bar:
                self.bar.update(self.task, description=record["state"], total=record["total_steps"] or None)
            elif record["message"] and record["state"] != "failed":  # the command says why it failed
                self._line(f"{record['state']}: {record['message']}")
        elif kind == "train":
            facts = (
                f"{duration(record['seconds_left'])} left · {record['pairs_per_second']:.1f} pairs/s · loss"
                f" {record['loss']:.3f} · margin {signed(record['rewards/margins'], 3)}"
            )
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
    shares = [
        f"{words} {_metric(record, f'eval/rewards/{name}', 'share')}"
        for words, name in (("chosen ahead", "accuracies"), ("beyond γ", "beyond_gamma"))
    ]
    line = (
        f"step {record['step']}: {', '.join(shares)} of {record['eval/pairs']} held-out pairs; chosen log-prob"
        f" {signed(record['eval/logps/chosen_drift'])} since the start"
    )
    if "eval/answers/n" in record:
        repeated = _metric(record, "eval/answers/repeated_4grams", "share")
        line += (
            f"; {record['eval/answers/n']} answers: {record['eval/answers/mean_tokens']:.0f} tokens, repeated 4-grams"
            f" {repeated}"
        )
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
            {"kind": one.kind, "severity": one.severity, "step": one.step, "text": str(one)} for one in verdicts
        ],
    }


def print_status(run):
    """One line on where the run stands."""
    status = run.status
    left = f" · {duration(status.seconds_left)} left" if status.seconds_left and not status.ended else ""
    _out().print(
        Text(f"{run.name} · {status.state} · step {status.step} of {status.total_steps}{left} · {status.message}"),
        soft_wrap=True,
    )


def print_summary(run, report: Path | None = None):
    """Before and after as a table, three prompts side by side, the doctor's words, and where the report is."""
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


def print_answers(table):
    """The answers of `wb.generate`, base and tuned side by side."""
    sides = table.rename(
        columns={
            "base": "answer_base",
            "tuned": "answer_tuned",
            "base_tokens": "tokens_base",
            "tuned_tokens": "tokens_tuned",
        }
    )
    sides = sides.rename(
        columns={
            f"{side}_{fact}": f"{fact}_{side}" for side in ("base", "tuned") for fact in ("ended", "repeated_4grams")
        }
    )
    _out().print(_side_by_side(sides, "base", "tuned"))


def print_table(table):
    """A DataFrame without its index."""
    shown = Table()
    for name in table.columns:
        shown.add_column(name, justify="right" if table[name].dtype.kind in "if" else "left", overflow="fold")
    for row in table.itertuples(index=False):
        shown.add_row(*[_cell(value) for value in row])
    _out().print(shown)


def _before_after_table(before, after):
    table = Table(
        title=f"Held-out pairs (n={before['eval/pairs']}) and sampled answers"
        + (f" (n={before['eval/answers/n']})" if "eval/answers/n" in before else "")
    )
    for name in ("", "before", f"after step {after['step']}" if after else "after"):
        table.add_column(name, justify="right" if name else "left")
    rows = [
        ("chosen ahead: accuracy (95 %)", "eval/rewards/accuracies", "share"),
        ("beyond γ (95 %)", "eval/rewards/beyond_gamma", "share"),
        ("log-probability of chosen, nats per token", "eval/logps/chosen", "number"),
        ("log-probability of rejected, nats per token", "eval/logps/rejected", "number"),
        ("loss", "eval/loss", "number"),
        ("answer length, tokens", "eval/answers/mean_tokens", "count"),
        ("answers that end properly (95 %)", "eval/answers/ended", "share"),
        ("repeated 4-grams in answers (95 %)", "eval/answers/repeated_4grams", "share"),
    ]
    for title, key, kind in rows:
        if key in before:
            table.add_row(title, *[_metric(record, key, kind) for record in (before, after)])
    return table


def _metric(record, key, kind):
    if record is None or key not in record:
        return ""
    value = record[key]
    if kind == "share":
        return f"{value:.2f} ({record[f'{key}_low']:.2f} to {record[f'{key}_high']:.2f})"
    return f"{value:.0f}" if kind == "count" else f"{value:.3f}"


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
