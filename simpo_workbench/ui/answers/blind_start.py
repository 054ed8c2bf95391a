"""The first page of a blind test: which two models, which prompts, sampled answers or new ones; and earlier tests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import ipywidgets
import traitlets

from ...analysis.blind_items import sampled_answers
from ...analysis.blind_votes import BlindVotes
from ...base.errors import WorkbenchError
from ...base.files import parse_json
from ...base.format import counted, duration
from ...pairs.data_sets import load_data
from ...runs.run import Run
from ..parts.html import Html, Markup, html
from ..parts.panel import Panel, button, column, enable, row, show
from .two_models import Round, choice_menu, fill_menu, generation_controls, sampled_at, sides_of, sides_stamp

_NO_RUN = (
    "Start a run in 3 Train, or open one in Runs, to judge its answers without knowing which model gave them. With a"
    " table of answers: wb.ui.BlindTest(answers=table)."
)
_SAMPLED, _ASKED = "the run's sampled answers", "ask the models now"
_OF_THE_RUN, _HELD_OUT, _OWN, _FILE = "the run's sample prompts", "held-out prompts", "my own, one per line", "a file"
_ABOUT = {
    _SAMPLED: ("Answers that the run sampled while it trained: the test begins at once and needs no model."),
    _ASKED: (
        "Both models answer first, in a process of their own; a run that trains answers between two steps. Then the"
        " test begins."
    ),
}
_WIDE = {"style": {"description_width": "initial"}}


class BlindStart(Panel):
    """The first page of a blind test. on_votes(votes): called with the BlindVotes that was begun or opened again."""

    title = "Begin a blind test"
    run = traitlets.Instance(Run, allow_none=True)

    def __init__(self, on_votes: Callable[[BlindVotes], None], run: Run | None = None, line: Html | None = None):
        super().__init__(line)
        self._on_votes, self._round, self._stamp = on_votes, None, None
        self._begins: object | None = None  # identifies the test that is being begun, if any
        self._samples, self._sides, self._own_path = None, {}, ""
        self._empty = Html(html('<p class="swb-muted">{}</p>', _NO_RUN))
        self._choices = self._build()
        self.compose(self._empty, self._choices)
        self.observe(self.guard(lambda _: self._another_run()), "run")
        self._another_run()
        self.run = run

    def refresh(self) -> None:
        """Read the run's steps, samples and earlier tests again, if there are others since; choices stay."""
        run = self.run
        if run is None or (stamp := (sides_stamp(run), _tests_stamp(run))) == self._stamp:
            return
        self._stamp = stamp
        self.later(lambda: _read(run), lambda read: self._fill(*read), latest="run")

    def begin(self) -> None:
        """Begin with what is chosen: at once with sampled answers, else as soon as both models have answered."""
        if self.begin_button.disabled:
            return
        run, path = self.run, Path(self.path.value.strip()).expanduser()
        if self.source.value == _SAMPLED:
            samples, steps = self._samples, (self.first.value, self.second.value)
            self._begin_later(lambda: _begin_with_samples(path, run, samples, steps), self._begun)
            return
        if path.exists():  # refused here, before minutes are spent on answers
            raise WorkbenchError(f"{str(path)!r} is there already: choose another file for the votes.")
        which, count = self.prompts.value, self.count.value
        own = self.file.value if which == _FILE else self.own.value
        sides, seed = (self._sides[self.first.value], self._sides[self.second.value]), self.seed.value
        generation = run.config.generation.model_copy(
            update={"max_new_tokens": self.max_new_tokens.value, "temperature": self.temperature.value}
        )
        self._begin_later(
            lambda: _prompts(run, which, count, own),
            lambda prompts: self._ask(Round(prompts, *sides, generation, seed), path),
        )

    def cancel(self) -> None:
        """Cancel the test that is being begun; one whose file was written already is among the earlier tests."""
        if self._begins:
            if self._round is not None:
                self._round.cancel()
            self._ended()
            self.say("Cancelled: answers are no longer being generated.")

    def snapshot(self) -> Markup:
        words = _NO_RUN
        if self.run is not None:
            words = f"A blind test of two models of the run {self.run.name} has not begun yet."
        return html("<p>{}</p>", words)

    # --- the controls

    def _build(self):
        self.source = ipywidgets.ToggleButtons(options=[_SAMPLED, _ASKED], style={"button_width": "auto"})
        self.source.add_class("swb-chips")
        self._about = Html()
        self.first, self.second = choice_menu("One model"), choice_menu("The other")
        self.prompts = ipywidgets.Dropdown(
            description="Prompts", options=[_OF_THE_RUN, _HELD_OUT, _OWN, _FILE], layout={"width": "300px"}, **_WIDE
        )
        self.count = ipywidgets.BoundedIntText(
            description="How many", value=24, min=1, max=5000, layout={"width": "170px"}, **_WIDE
        )
        self.own = ipywidgets.Textarea(
            placeholder="What is the capital of France?\nHow do I keep basil alive indoors?",
            layout={"width": "100%", "height": "92px"},
        )
        self.file = ipywidgets.Text(
            description="File",
            placeholder='.txt: one prompt per line; .jsonl: {"prompt": …} per line',
            layout={"flex": "1 1 360px", "width": "auto"},
            **_WIDE,
        )
        self.max_new_tokens, self.temperature, self.seed = generation_controls()
        self._prompt_controls = column(
            row(self.prompts, self.count, self.file), self.own, row(self.max_new_tokens, self.temperature, self.seed)
        )
        self.path = ipywidgets.Text(
            description="Votes are kept in", layout={"flex": "1 1 480px", "width": "auto"}, **_WIDE
        )
        self._path_note = Html()
        self.begin_button = button("Begin", self.guard(self.begin), icon="play", style="primary")
        self.cancel_button = button("Cancel", self.guard(self.cancel), icon="times")
        self.progress = Html()
        self.progress.add_class("swb-muted")
        self.earlier = choice_menu("Earlier tests of this run", "1 1 480px")
        self.open_button = button("Open", self.guard(self._open_earlier), icon="folder-open-o")
        for control in (self.first, self.second, self.prompts, self.own, self.file, self.path, self.earlier):
            control.observe(self.guard(lambda _: self._arrange()), "value")
        self.source.observe(self.guard(lambda _: self._fill_models()), "value")
        about = (
            "Two models answer the same prompts; you see both answers in random order, named only 1 and 2, and say"
            " which you prefer. Which model gave which is shown at the end."
        )
        return column(
            Html(html('<h3>{}</h3><div class="swb-help">{}</div>', "A blind test", about)),
            self.source,
            self._about,
            row(self.first, self.second),
            self._prompt_controls,
            row(self.path),
            self._path_note,
            row(self.begin_button, self.cancel_button, self.progress),
            row(self.earlier, self.open_button),
        )

    def _arrange(self):
        if self.filling:
            return
        which = self.prompts.value
        self._about.value = html('<div class="swb-help">{}</div>', _ABOUT[self.source.value])
        show(self._prompt_controls, self.source.value == _ASKED)
        for control, wanted in ((self.count, _HELD_OUT), (self.own, _OWN), (self.file, _FILE)):
            show(control, which == wanted)
        self._enable()

    def _enable(self):
        if self._round is not None:
            why_not = "The models are answering."
        elif self._begins:
            why_not = "The test is being made."
        else:
            why_not = self._why_not()
        enable(self.begin_button, why_not, "The names of the two models are hidden from now on")
        enable(self.cancel_button, "" if self._begins else "No test is being begun.", "Begin no test after all")
        enable(self.earlier, "" if self.earlier.options else "No blind test was begun with this run yet.")
        enable(
            self.open_button,
            "" if self.earlier.value is not None else "No test is chosen.",
            "Go on with it, or see its result",
        )

    def _why_not(self):
        if self._samples is None:
            return "The run is being read."
        if self.source.value == _SAMPLED and len(self.first.options) < 2:
            return "The run has not sampled answers at two steps yet: wait for the next evaluation, or ask the models."
        if self.first.value == self.second.value:
            return "Choose two different models."
        own = {_OWN: self.own, _FILE: self.file}.get(self.prompts.value)
        if self.source.value == _ASKED and own is not None and not own.value.strip():
            return "Type prompts first." if own is self.own else "Name the file with the prompts first."
        return "" if self.path.value.strip() else "Name a file for the votes first."

    # --- the run

    def _another_run(self):
        self.cancel()
        self.drop("run")
        self._samples, self._sides, self._stamp = None, {}, None
        with self.quietly():
            for menu in (self.first, self.second, self.earlier):
                menu.options = []
        show(self._empty, self.run is None)
        show(self._choices, self.run is not None)
        if self.run is not None:
            generation = self.run.config.generation
            self.max_new_tokens.value, self.temperature.value = generation.max_new_tokens, generation.temperature
            self._own_path = self.path.value
            self.refresh()
        self._arrange()

    def _fill(self, samples, sides, tests):
        first_time, self._samples, self._sides = self._samples is None, samples, sides
        with self.quietly():
            fill_menu(self.earlier, tests, tests[0][1] if tests else None)
            if first_time and samples["step"].nunique() < 2:
                self.source.value = _ASKED
        if self.path.value == self._own_path:  # the user has not named another
            self.path.value, note = _default_path(self.run)
            self._own_path = self.path.value
            self._path_note.value = html('<div class="swb-help">{}</div>', note)
        self._fill_models()

    def _fill_models(self):
        if self.filling or self._samples is None:
            return
        best = self.run.status.recommended_step
        with self.quietly():
            if self.source.value == _SAMPLED:
                steps = sorted({int(step) for step in self._samples["step"]})
                options = [(sampled_at(step), step) for step in steps]
                first, last = (steps[0], steps[-1]) if steps else (None, None)
            else:
                options = [(side.title, key) for key, side in self._sides.items()]
                checkpoints = [key for key in self._sides if key.startswith("step ")]
                first, best = "base", f"step {best}"
                last = "now" if "now" in self._sides else (checkpoints or ["base"])[-1]
            keys = [key for _, key in options]
            second = best if best in keys and best != first else last
            fill_menu(self.first, options, first)
            fill_menu(self.second, options, second)
        self._arrange()

    # --- begin

    def _begin_later(self, work, done):
        """Run `work()` in a thread, then `done(result)` unless cancelled; until `_ended` no other test begins."""
        begins = self._begins = object()
        self._enable()
        self.later(
            work,
            # the file of a cancelled test may have been written: then it is among the earlier ones
            lambda result: done(result) if self._begins is begins else self.refresh(),
            lambda _: self._ended() if self._begins is begins else None,
        )

    def _ask(self, both, path):
        self._round = both
        self._enable()
        both.ask(self, lambda _: self._answered(both, path), lambda _: self._ended(), self._waiting)

    def _waiting(self, sentence):
        self.progress.value = html("<span>{} · {}</span>", counted(len(self._round.prompts), "prompt"), sentence)

    def _answered(self, both, path):
        self._round, self.progress.value = None, ""
        self.say(f"Answered in {duration(time.monotonic() - both.started)}.", "good")
        self._begin_later(lambda: _begin_with_answers(path, both), self._begun)

    def _ended(self):
        self._begins = self._round = None
        self.progress.value = ""
        self._enable()

    def _begun(self, votes):
        self._ended()
        with self.quietly():
            self.earlier.value = None  # the next reading selects this test
        self.refresh()
        self._on_votes(votes)

    def _open_earlier(self):
        self._on_votes(BlindVotes.resume(self.earlier.value))


def _tests(run):
    """The run's blind tests, the newest first, as (title, path)."""
    tests = []
    for path in sorted((run.path / "blind").glob("*.jsonl"), reverse=True):
        try:
            votes = BlindVotes.resume(path)
        except WorkbenchError:
            title = f"{path.stem} · cannot be read"
        else:
            begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(votes.began_at))
            progress = f"finished, {counted(votes.voted, 'vote')}"
            if votes.next_item():
                progress = f"{votes.voted} of {votes.asked} voted"
            title = f"{begun} · {progress} · {votes.titles['first']} | {votes.titles['second']}"
        tests.append((title, str(path)))
    return tests


def _tests_stamp(run):
    stamps = []
    for path in sorted((run.path / "blind").glob("*.jsonl")):
        try:
            stamps.append((path.name, path.stat().st_size))
        except OSError:
            continue
    return tuple(stamps)


def _read(run):
    return run.generations, sides_of(run), _tests(run)


def _default_path(run):
    """(a free path for a new test, a sentence if it is not in the run folder)."""
    name, folder = time.strftime("%Y%m%d-%H%M%S"), run.path / "blind"
    place = folder if folder.exists() else run.path
    if place.is_dir() and os.access(place, os.W_OK):
        return str(_free(folder / f"{name}.jsonl")), ""
    note = f"The run folder {run.path} cannot be written; choose another file here if this one does not suit."
    return str(_free(Path.cwd() / f"blind-{run.name}-{name}.jsonl")), note


def _free(path):
    others = (path.with_stem(f"{path.stem}-{number}") for number in range(2, 10_000))
    return next(candidate for candidate in (path, *others) if not candidate.exists())


def _begin_with_samples(path, run, samples, steps):
    """The BlindVotes of the answers that the run sampled at two steps."""
    both = sampled_answers(samples, *steps)
    held_out = {} if set(both["prompt"]) <= set(run.config.generation.prompt_texts) else _conversations(run)
    both["messages"] = [held_out.get(prompt) for prompt in both["prompt"]]
    return BlindVotes.begin(path, both, *(sampled_at(step) for step in steps))


def _conversations(run):
    """{prompt as text: its messages} of held-out prompts of several turns; {} if the data can no longer be read."""
    try:
        held_out = load_data(run.config.data, run.config.training.seed).held_out
    except WorkbenchError:
        return {}
    return {pair.prompt_text: [dict(turn) for turn in pair.prompt] for pair in held_out if len(pair.prompt) > 1}


def _begin_with_answers(path, both):
    """The BlindVotes of the answers of a Round."""
    import pandas as pd

    rows = [
        {
            "prompt": prompt,
            "first": first.text,
            "second": second.text,
            "first_tokens": first.tokens,
            "second_tokens": second.tokens,
        }
        for prompt, (first, second) in zip(both.prompts, both.answers, strict=True)
    ]
    return BlindVotes.begin(path, pd.DataFrame(rows), *both.titles)


def _prompts(run, which, count, own):
    """The prompts of a test: texts, or messages for conversations."""
    if which == _OF_THE_RUN:
        prompts = run.config.generation.prompt_texts
    elif which == _HELD_OUT:
        held_out = load_data(run.config.data, run.config.training.seed).held_out
        by_text = {
            pair.prompt_text: pair.prompt_text if _is_plain(pair.prompt) else [dict(turn) for turn in pair.prompt]
            for pair in held_out
        }
        prompts = list(by_text.values())[:count]
    else:
        lines = own.split("\n") if which == _OWN else _prompts_in(Path(own.strip()).expanduser())
        by_text = {str(prompt): prompt for prompt in lines if not isinstance(prompt, str) or prompt.strip()}
        prompts = list(by_text.values())
    if not prompts:
        raise WorkbenchError("There are no prompts for the test: choose held-out ones, or type some in.")
    return prompts


def _is_plain(messages):
    return len(messages) == 1 and messages[0]["role"] == "user"


def _prompts_in(path):
    """The prompts of a file: one per line, in .jsonl as a text, messages, or an object with either under "prompt"."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise WorkbenchError(f"The prompts in {str(path)!r} cannot be read: {reason}.") from None
    if path.suffix != ".jsonl":
        return [line.strip() for line in lines]
    prompts = []
    for number, line in enumerate(lines, 1):
        try:
            value = parse_json(line)
            prompt = value["prompt"] if isinstance(value, dict) else value
            if not isinstance(prompt, str):
                prompt = [{"role": turn["role"], "content": turn["content"]} for turn in prompt]
            prompts.append(prompt)
        except (ValueError, KeyError, TypeError):
            raise WorkbenchError(
                f'{path.name}, line {number} holds no prompt: {line[:80]!r}. Write {{"prompt": "…"}} on every line, or'
                " a .txt file."
            ) from None
    return prompts
