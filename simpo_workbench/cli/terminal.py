"""Output of the command line: a progress bar in a terminal and plain lines elsewhere, tables, answers side by side."""

from __future__ import annotations

import threading
import time

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from ..analysis.metrics import METRICS
from ..base.escape import shown_controls
from ..base.format import counted, duration
from ..report.facts import headline_of
from .gate import output, progress_output

#: Without a terminal: seconds between two lines that say how far it is, and between two looks at the clock.
_PLAIN_EVERY_S, _TICK_S = 10.0, 1.0
#: Metrics of a step in the progress line.
_PROGRESS = ("loss", "rewards/margins")


class Progress:
    """Shows the records of a run as they come: use it in a `with` block and give `show` to `train(on_record=…)`.

    In a terminal a bar names what is done now; elsewhere a line says it every ten seconds.
    """

    def __init__(self):
        self.console = progress_output()
        self.started = self.last_line = time.monotonic()
        self.state, self.activity, self.step_line = "loading", "", ""
        self.scored_step = self.bar = None
        self._announced = self._said = ""
        self._lock, self._ended = threading.RLock(), threading.Event()
        if self.console.is_terminal:
            columns = (
                *(TimeElapsedColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
                TextColumn("{task.fields[facts]}"),
            )
            self.bar = Bar(*columns, console=self.console, transient=True)
            self.task = self.bar.add_task(self.state, total=None, facts="")

    def __enter__(self):
        if self.bar:
            self.bar.start()
        else:
            threading.Thread(target=self._tick, name="progress", daemon=True).start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        if self.bar:
            self.bar.stop()

    def show(self, record: dict) -> None:
        """Show one metrics record, event, change of state or record of progress."""
        with self._lock:
            self._show(record)

    def _show(self, record):
        kind = record["kind"]
        if kind == "state":
            self.state, self.step_line = record["state"], ""
            if self.bar:
                self.bar.update(self.task, description=record["state"], total=record["total_steps"] or None)
            elif record["message"] and record["state"] != "failed":  # the command says why it failed
                self._announced = record["message"]
                self._line(self._announced)
        elif kind == "progress":
            self.activity = record["text"]
            if self.bar:
                self.bar.update(self.task, description=self.activity or self.state)
        elif kind == "train":
            values = [f"{METRICS[key].label} {METRICS[key].text(record[key])}" for key in _PROGRESS]
            left = [] if record["seconds_left"] is None else [f"{duration(record['seconds_left'])} left"]
            facts = " · ".join([*left, f"{record['pairs_per_second']:.1f} pairs/s", *values])
            self.step_line = f"step {record['step']} of {record['total_steps']} · {facts}"
            if self.bar:
                self.bar.update(self.task, completed=record["step"], total=record["total_steps"], facts=facts)
        elif kind == "scores":
            self.scored_step = record["step"]
            self._line(f"step {record['step']}: {_scores_line(record)}")
        elif kind == "eval":
            scores = "" if self.scored_step == record["step"] else _scores_line(record)
            if line := "; ".join(filter(None, (scores, _answers_line(record)))):
                self._line(f"step {record['step']}: {line}")
        elif kind == "event" and record.get("event") == "failed":
            pass  # the command says why it failed
        elif kind in ("event", "note") and record["text"] != self._announced:  # an end is a state and an event
            self._line(record["text"])
        self.say_progress()

    def say_progress(self) -> None:
        """Without a terminal, print how far it is, unless a line was printed in the last ten seconds."""
        with self._lock:
            text = self.activity or self.step_line
            if self.bar or not text or time.monotonic() - self.last_line < _PLAIN_EVERY_S:
                return
            if text != self._said:
                self._said = text
                self._line(text)
            elif self.activity:
                self._line(f"still {text}")

    def _tick(self):
        while not self._ended.wait(_TICK_S):
            self.say_progress()

    def _line(self, text):
        self.last_line = time.monotonic()
        self.console.print(Text(f"[{duration(time.monotonic() - self.started)}] {text}"), soft_wrap=True)


def _scores_line(record):
    return (
        f"{_named(record, 'rewards/accuracies')}, {_named(record, 'rewards/beyond_gamma')} of"
        f" {counted(record['eval/pairs'], 'held-out pair')}; {_named(record, 'logps/chosen_drift')} since the start"
    )


def _answers_line(record):
    """What an evaluation's record holds of answers; "" where none were sampled."""
    if "eval/answers/n" not in record:
        return ""
    tokens = value_text(record, "answers/mean_tokens")
    line = (
        f"{record['eval/answers/n']} answers: {tokens} tokens on average, {_named(record, 'answers/repeated_4grams')}"
    )
    if "eval/answers/right" in record:
        checked = record["eval/answers/checked"]
        line += f", {round(record['eval/answers/right'] * checked)} of the {checked} checkable ones are right"
    return line


def _named(record, key):
    return f"{METRICS[key].label} {value_text(record, key, short=True)}"


def print_status(run) -> None:
    """Print where the run stands, and in a second line its model, adapter and objective."""
    status = run.status
    left = f" · {duration(status.seconds_left)} left" if status.seconds_left and not status.ended else ""
    doing = f" · {status.doing}" if status.doing else ""
    output().print(
        Text(f"{run.name} · {status.state} · {status.progress}{doing}{left} · {status.message}"),
        soft_wrap=True,
    )
    output().print(Text(headline_of(run)), soft_wrap=True)


def print_answers(table) -> None:
    """Print the answers of `wb.generate`, base and tuned side by side."""
    names = {}
    for side in ("base", "tuned"):
        names |= {side: f"answer_{side}", f"{side}_tokens": f"tokens_{side}"}
        names |= {f"{side}_{fact}": f"{fact}_{side}" for fact in ("ended", "repeated_4grams")}
    output().print(side_by_side(table.rename(columns=names), "base", "tuned"))


#: A first column that is no wider stays in one line.
_LONGEST_NAME = 100


def print_table(table) -> None:
    """Print a DataFrame without its index."""
    shown = Table()
    for place, name in enumerate(table.columns):
        justify = "right" if table[name].dtype.kind in "if" else "left"
        # the first column names the row, and a name in two lines cannot be copied
        width = max((len(str(value)) for value in table[name]), default=0) if place == 0 else 0
        is_name = 0 < width <= _LONGEST_NAME
        shown.add_column(name, justify=justify, overflow="fold", no_wrap=is_name, min_width=width if is_name else None)
    for row in table.itertuples(index=False):
        shown.add_row(*[_cell(value) for value in row])
    output().print(shown)


def value_text(record: dict, key: str, short: bool = False) -> str:
    """A metric of an evaluation with its 95 % interval, "0.75 (0.55 to 0.88)"; "" where it was not measured."""
    if f"eval/{key}" not in record:
        return ""
    text, interval = METRICS[key].text(record[f"eval/{key}"], short), METRICS[key].interval(record)
    return f"{text} ({interval})" if interval else text


def side_by_side(sides, left: str, right: str, longest: int | None = None) -> Table:
    """A table of prompts with two answers each.

    sides: DataFrame with prompt and, for base and tuned each, answer_, tokens_, ended_ and repeated_4grams_, and right_
    and reference_ where known. left, right: headings of the answers. longest: characters after which an answer is cut.
    """
    table = Table(show_lines=True)
    for name in ("prompt", left, right):
        table.add_column(name, ratio=1 if name == "prompt" else 2, overflow="fold")
    for row in sides.to_dict("records"):
        prompt = shown_controls(row["prompt"])
        table.add_row(
            Text(prompt), *[_answer(row, side, longest) for side in ("base", "tuned") if f"answer_{side}" in row]
        )
    return table


def _answer(row, side, longest):
    text = shown_controls(row[f"answer_{side}"])
    if longest and len(text) > longest:
        text = f"{text[:longest]} … ({len(text) - longest:,} more characters)"
    parts, right, reference = [text, "\n"], row.get(f"right_{side}"), row.get(f"reference_{side}")
    is_checked = right in (True, False)
    if is_checked:
        parts.append(("✓ right" if right else "✗ wrong", "green" if right else "bold red"))
        parts.append((" · ", "dim"))
    ending = "ends properly" if row[f"ended_{side}"] else "cut off"
    repeated = f"repeated 4-grams {row[f'repeated_4grams_{side}']:.2f}"
    parts.append((f"{row[f'tokens_{side}']} tokens · {repeated} · {ending}", "dim"))
    if is_checked and not right and isinstance(reference, str):
        parts.append(f"\na right answer: {shown_controls(reference)}")
    return Text.assemble(*parts)


def _cell(value):
    if value is None or value != value:
        return ""
    return Text(f"{value:.3g}" if isinstance(value, float) else shown_controls(str(value)))
