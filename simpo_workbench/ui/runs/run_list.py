"""All runs of a folder: find, open, resume, clone or delete one; compare several; order those that wait."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ipywidgets
import traitlets

from ...analysis.doctor import CHOSEN_DRIFT_ATTENTION
from ...analysis.metrics import METRICS
from ...base.errors import WorkbenchError
from ...base.format import in_one_line
from ...config.run_config import RUNS_ROOT, RunConfig
from ...report.facts import headline_of
from ...runs.device_queue import list_queue
from ...runs.launch import resume
from ...runs.root import delete_run, list_runs
from ...runs.run import Run, attach
from ..parts.data_table import Column, DataTable
from ..parts.fields import number_text
from ..parts.html import Html, Markup, facts, html, joined, table
from ..parts.panel import Panel, button, column, enable, row, show
from ..train.run_queue import QueueView
from .several_runs import SeveralRuns

REFRESH_S = 2.0
_IN_WORDS = {
    "queued": "waits for the device",
    "loading": "loads the model",
    "scoring": "scores before training",
    "training": "trains",
    "paused": "paused",
    "suspended": "suspended, can go on",
    "stopped": "stopped, can go on",
    "finished": "finished",
    "failed": "failed",
}
_TONES = {
    "training": "answers",
    "loading": "answers",
    "scoring": "answers",
    "failed": "failure",
    "paused": "attention",
    "suspended": "attention",
}
_STILL_ROWS = 30
_AHEAD, _DRIFT = METRICS["rewards/accuracies"], METRICS["logps/chosen_drift"]
_RIGHT = METRICS["answers/right"]


def _share_text(measured):
    value, low, high, pairs = measured
    return f"{_AHEAD.text(value)} ({_AHEAD.text(low)} to {_AHEAD.text(high)}, n {pairs:.0f})"


def _drift_tone(drift):
    return "attention" if not _missing(drift) and drift < CHOSEN_DRIFT_ATTENTION else ""


#: Columns of the list, in this order. The values of a metric come from `list_runs` (`_MEASURED` in runs/root.py).
COLUMNS = [
    Column("name", "Name", lambda name: _cut(name, 30)),
    Column("state", "State", tone=lambda state: _TONES.get(state, "")),
    Column("model", "Model", lambda name: _cut(_last_part(name), 20)),
    Column("data", "Pairs", lambda name: _cut(_last_part(name), 20)),
    Column(
        "progress",
        "Step",
        lambda steps: f"{steps[0]} / {steps[1]}",
        numeric=True,
        help="Optimizer steps done, of those planned.",
    ),
    Column(
        "chosen_ahead",
        _AHEAD.heading,
        _share_text,
        help=f"{_AHEAD.explanation} At the last evaluation, with its 95 % interval.",
    ),
    Column(
        "chosen_drift",
        _DRIFT.label.capitalize(),
        lambda drift: _DRIFT.text(drift, short=True),
        numeric=True,
        help=f"{_DRIFT.explanation} At the last evaluation, {_DRIFT.unit}.",
        tone=_drift_tone,
    ),
    Column(
        "right_answers",
        _RIGHT.heading,
        lambda measured: f"{_RIGHT.text(measured[0])} (n {measured[1]:.0f})",
        numeric=True,
        help=f"{_RIGHT.explanation} At the last evaluation.",
    ),
    Column("started", "Started", lambda time: f"{time:%m-%d %H:%M}"),
    Column(
        "problem",
        "Problem",
        lambda text: in_one_line(text, 60),
        help="Why it failed, or what of it is damaged or lost. All of it stands below when the run is chosen.",
        tone=lambda text: "" if _missing(text) else "attention",
    ),
]


class RunList(Panel):
    """All runs in a root folder, kept up to date. `root` may be changed; `chosen` are the Runs chosen in the table.

    on_open(run): called by the "Open" button; on_clone(config): called by "Clone into the form", with a configuration
    that names no run.
    """

    title = "Runs"
    root = traitlets.Unicode(RUNS_ROOT)

    def __init__(
        self,
        root: str | Path = RUNS_ROOT,
        on_open: Callable[[Run], None] | None = None,
        on_clone: Callable[[RunConfig], None] | None = None,
        line: Html | None = None,
    ):
        super().__init__(line)
        self._on_open, self._on_clone = on_open, on_clone
        self._runs = self._reading = None
        self.search = ipywidgets.Text(
            description="Search", placeholder="name, state, model or pairs", layout=ipywidgets.Layout(width="320px")
        )
        self.search.observe(self.guard(lambda _: self._show_rows()), "value")
        self.table = DataTable(
            COLUMNS, "name", "Runs", "No run matches the search.", several=True, noun="run", on_error=self.say_error
        )
        self.table.observe(self.guard(lambda _: self._choice_changed()), "chosen")
        self.empty = Html(html('<p class="swb-muted">{}</p>', "Reading the runs …"))
        self._list = column(row(self.search), self.table)
        self.hint = Html(
            html(
                '<p class="swb-muted">{}</p>',
                "Choose a run to open it or go on with it; several (Ctrl or Shift with the click or with Enter) to"
                " compare them.",
            )
        )
        self.several = SeveralRuns(self)
        self.queue = QueueView(self)
        self._build_one()
        show(self._list, False)
        self.compose(
            self.empty,
            self._list,
            self.hint,
            self.one,
            self.several,
            Html(html("<h3>{}</h3>", "Waiting for the device")),
            self.queue,
        )
        self._choice_changed()
        self.root = str(root)
        self.observe(self.guard(lambda _: self.refresh()), "root")
        self._follower = self.follow(self.refresh, REFRESH_S)

    @property
    def chosen(self) -> list[Run]:
        """The chosen runs, in the order of choosing."""
        return [attach(name, self.root) for name in self.table.chosen]

    def refresh(self) -> None:
        """Read the runs and the queue again, in the background, and draw what has changed."""
        if self._reading != self.root:  # else they are being read
            self._reading = root = self.root
            self.later(lambda: (list_runs(root), list_queue()), self._read, self._not_read, latest="runs")

    def close(self) -> None:
        """Stop following the runs, and close the panel."""
        self._follower.stop()
        super().close()

    def redraw(self) -> None:
        """Draw the charts again, in the colours of the theme."""
        self.several.redraw()

    def snapshot(self) -> Markup:
        """The runs as a plain table."""
        frame = list_runs(self.root) if self._runs is None else self._runs
        if frame.empty:
            return self._teaching()
        rows = _shown(frame).head(_STILL_ROWS).to_dict("records")
        more = f"The newest {_STILL_ROWS} of {len(frame)} runs." if len(frame) > _STILL_ROWS else ""
        cells = [["–" if _missing(run[shown.key]) else shown.text(run[shown.key]) for shown in COLUMNS] for run in rows]
        return table([shown.title for shown in COLUMNS], cells, more)

    # --- the list

    def _read(self, listed):
        frame, waiting = listed
        self._reading = None
        self.queue.show_queue(waiting)
        if self._runs is not None and frame.equals(self._runs):
            return
        self._runs = frame
        self.empty.value = self._teaching() if frame.empty else ""
        show(self.empty, frame.empty)
        show(self._list, not frame.empty)
        show(self.hint, not frame.empty and not self.table.chosen)
        chosen = list(self.table.chosen)
        self._show_rows()
        if chosen and chosen == self.table.chosen:
            self._show_choice()

    def _not_read(self, error):
        self._reading = None

    def _show_rows(self):
        if self._runs is None:
            return
        frame, words = _shown(self._runs), self.search.value.lower().split()
        texts = [
            " ".join(
                [run["name"], run["state"], _IN_WORDS.get(run["state"], ""), str(run["model"]), str(run["data"])]
            ).lower()
            for run in frame.to_dict("records")
        ]
        fits = [place for place, text in enumerate(texts) if all(word in text for word in words)]
        self.table.show(frame.iloc[fits], keep_page=True)

    def _teaching(self):
        changes = "" if self.root == RUNS_ROOT else f'.with_changes({{"run.root": {self.root!r}}})'
        return html(
            '<div class="swb-notice"><p>{} <code>{}</code></p><p>{}</p><pre>{}</pre><p>{} <code>{}</code></p></div>',
            "No runs yet in",
            self.root,
            "A run is one training: its settings, curves, answers and adapter in one folder. This line starts the demo,"
            " four to five minutes on two CPU cores that do nothing else:",
            f'import simpo_workbench as wb\nwb.start(wb.preset("demo"){changes})',
            "In a terminal:",
            "simpo-workbench demo",
        )

    # --- one chosen run

    def _build_one(self):
        self.about = Html()
        self.open_run = button("Open", self.guard(self._open), "folder-open", style="primary")
        self.go_on = button("Resume", self.guard(self._resume), "play")
        self.clone = button("Clone into the form", self.guard(self._clone), "clone")
        self.delete = button(
            "Delete …",
            self.guard(lambda: self._ask_to_delete(True)),
            "trash",
            "Asks once more before anything is deleted.",
        )
        self.delete_now = button("", self.guard(self._delete), "trash", style="danger")
        self.keep = button("Keep it", self.guard(lambda: self._ask_to_delete(False)))
        self.sure = row(self.delete_now, self.keep)
        self.one = column(self.about, row(self.open_run, self.go_on, self.clone, self.delete), self.sure)

    def _choice_changed(self):
        show(self.sure, False)
        self._show_choice()

    def _show_choice(self):
        names = self.table.chosen
        show(self.hint, not names and self._runs is not None and not self._runs.empty)
        show(self.one, len(names) == 1)
        if len(names) == 1:
            self._show_one(attach(names[0], self.root))
        self.several.show_runs(names if len(names) > 1 else [])

    def _show_one(self, run):
        status = run.status
        try:
            config, broken = run.config, ""
            title = headline_of(run)
        except WorkbenchError as error:
            config, broken = None, str(error)
        if config:
            rate = f"learning rate {number_text(config.training.learning_rate)}"
            settings = facts(title, f"pairs {config.data.train}", rate)
        else:
            settings = html("<p>{}</p>", broken)
        words = [text for text in (status.message, status.verdict) if text]
        self.about.value = html(
            "<h3>{}</h3>{}{}{}<div class='swb-text'>{}</div>",
            run.name,
            facts(_IN_WORDS.get(status.state, status.state), status.progress),
            settings,
            html("<div class='swb-facts'><code>{}</code></div>", run.path.resolve()),
            joined(words, "\n"),
        )
        if status.alive:
            self.open_run.description, open_tip = "Attach", "Show the live run; nothing is interrupted."
            resume_tip = "Tell the paused run to go on."
        else:
            self.open_run.description, open_tip = "Open", "Show the run with its curves, answers and pairs."
            resume_tip = "Go on from the newest checkpoint, in a process of its own."
        not_open = not_cloned = ""
        if not self._on_open:
            not_open = f"This list stands alone: wb.attach({run.name!r}, {self.root!r}) gives the run in Python."
        if not self._on_clone:
            not_cloned = f"This list stands alone: wb.clone({run.name!r}, {self.root!r}) makes and starts a clone."
        enable(self.open_run, not_open, open_tip)
        enable(self.go_on, _why_no_resume(status), resume_tip)
        clone_tip = "Put the settings of this run into the form, to change and to start as a new run."
        enable(self.clone, broken or not_cloned, clone_tip)
        why_not = f"It is {status.state} and a process has it: stop it first." if status.alive else ""
        enable(self.delete, why_not, "Asks once more before anything is deleted.")
        if why_not:
            show(self.sure, False)
        self.delete_now.description = f"Delete '{run.name}' for good"
        self.delete_now.tooltip = f"Removes {run.path.resolve()} with its checkpoints, adapter, curves and report."

    def _open(self):
        self._on_open(attach(self.table.chosen[0], self.root))

    def _resume(self):
        name, root = self.table.chosen[0], self.root
        enable(self.go_on, "It is being started.")
        self.later(lambda: resume(name, root), self._resumed, lambda _: self._show_choice())

    def _resumed(self, run):
        self.say(f"The run {run.name!r} continues from its newest checkpoint. Attach shows its progress.", "good")
        self.refresh()

    def _clone(self):
        config = attach(self.table.chosen[0], self.root).config.with_changes({"run.name": None})
        self._on_clone(config)
        self.say(
            f"The settings of {self.table.chosen[0]!r} are in the form; a run that starts from it gets a name of its"
            " own."
        )

    def _ask_to_delete(self, ask):
        show(self.sure, ask)
        if ask:
            self.say(
                f"Deleting {self.table.chosen[0]!r} cannot be undone: curves, answers, checkpoints and adapter go with"
                " its folder."
            )

    def _delete(self):
        name, root = self.table.chosen[0], self.root
        enable(self.delete_now, "It is being deleted.")
        self.later(lambda: delete_run(name, root), lambda _: self._deleted(name), lambda _: enable(self.delete_now))

    def _deleted(self, name):
        enable(self.delete_now)
        self.say(f"The run {name!r} is deleted.", "good")
        self.refresh()


def _shown(frame):
    """The list with columns of tuples, for cells that show several values."""
    shares = frame[["accuracy", "accuracy_low", "accuracy_high", "pairs"]]
    ahead = [None if _missing(*values) else tuple(map(float, values)) for values in shares.itertuples(index=False)]
    right = [None if _missing(*values) else values for values in zip(frame["right"], frame["checked"], strict=True)]
    steps = list(zip(frame["step"], frame["total_steps"], strict=True))
    problems = [text or None for text in frame["problem"]]
    return frame.assign(progress=steps, chosen_ahead=ahead, right_answers=right, problem=problems)


def _missing(*values):
    return any(value is None or value != value for value in values)


def _cut(text, most):
    """At most `most` characters of a name, without its middle: beginning and end tell runs apart."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most // 2 - 1) :]}"


def _last_part(name):
    """The last part of a path or id, for the narrow table; the whole is shown below it."""
    return name.rstrip("/").rsplit("/", 1)[-1] or name


def _why_no_resume(status):
    if status.state == "finished":
        return (
            f"It is finished: all {status.total_steps} steps are done. To train longer, clone it from its last"
            " checkpoint with more training.epochs; the learning rate then follows its schedule over all steps, the new"
            " ones included."
        )
    if status.alive and status.state != "paused":
        return f"It is {status.state}: it needs no resume."
    return ""
