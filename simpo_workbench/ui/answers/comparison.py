"""Answers of two models side by side, from the run's own samples or to any prompt typed in."""

from __future__ import annotations

import time
from dataclasses import dataclass

import ipywidgets
import traitlets

from ...base.format import duration, in_one_line
from ...runs.run import Run
from ..parts.answers import Answer, answer_cards
from ..parts.html import Html, Markup, html
from ..parts.panel import Panel, button, column, enable, row, show
from .two_models import Round, choice_menu, fill_menu, generation_controls, sampled_at, sides_of, sides_stamp

_NO_RUN = "Start a run in 3 Train, or open one in Runs, to see its answers here beside those of the base model."


@dataclass(frozen=True)
class Shown:
    """Content of the cards: a prompt, how the answers were made, and both. typed: whether the prompt was typed in."""

    prompt: str
    how: str
    left: Answer
    right: Answer
    typed: bool

    @property
    def markup(self) -> Markup:
        about = html(
            '<h3>{}</h3><div class="swb-text">{}</div><div class="swb-help">{}</div>', "Prompt", self.prompt, self.how
        )
        return about + answer_cards(self.left, self.right)


class Comparison(Panel):
    """Answers of two models side by side. `run` is the run whose models answer."""

    title = "Answers side by side"
    run = traitlets.Instance(Run, allow_none=True)

    def __init__(self, run: Run | None = None, line: Html | None = None):
        super().__init__(line)
        self._sides, self._samples, self._stamp = {}, None, None
        self._round, self._shown, self._earlier = None, None, []
        self._empty = Html(html('<p class="swb-muted">{}</p>', _NO_RUN))
        samples, typed = self._build_samples(), self._build_typed()
        self._cards = Html()
        self.earlier = ipywidgets.Select(
            description="Earlier in this session",
            options=[],
            rows=4,
            style={"description_width": "initial"},
            layout={"width": "100%", "height": "auto"},
        )
        self.earlier.observe(self.guard(self._open_earlier), "index")
        self._with_run = column(samples, typed, self._cards, self.earlier)
        self.compose(self._empty, self._with_run)
        self.observe(self.guard(self._another_run), "run")
        self._clear()
        self.run = run

    def refresh(self) -> None:
        """Read the run's sampled answers and kept steps again, if there are others since.

        Choices and the typed prompt stay; a menu at the newest sampled answer moves to the newest.
        """
        run = self.run
        if run is None or (stamp := sides_stamp(run)) == self._stamp:
            return
        self._stamp = stamp
        self.later(lambda: _read(run), lambda read: self._fill(*read), latest="run")

    def ask(self) -> None:
        """Ask both models for an answer to the prompt in the box."""
        if self.ask_button.disabled:
            return
        generation = self.run.config.generation.model_copy(
            update={"max_new_tokens": self.max_new_tokens.value, "temperature": self.temperature.value}
        )
        left, right = self._sides[self.left.value], self._sides[self.right.value]
        self._round = Round([self.prompt.value.strip()], left, right, generation, self.seed.value)
        self._enable()
        self._round.ask(self, self._answered, lambda _: self._end_round(), self._waiting)

    def cancel(self) -> None:
        """Cancel the answers that are under way."""
        if self._round is not None:
            self._round.cancel()
            self._end_round()
            self.say("Cancelled: answers are no longer being generated.")

    def snapshot(self) -> Markup:
        if self.run is not None and self._samples is None:  # a still picture cannot wait for the thread
            self.guard(lambda: self._fill(*_read(self.run)))()
        if self._shown:
            return self._shown.markup
        return html("<p>{}</p>", _NO_RUN if self.run is None else "No answers were chosen yet.")

    # --- the controls

    def _build_samples(self):
        self.sample_prompt = choice_menu("Prompt", "3 1 320px")
        self.sample_left, self.sample_right = choice_menu("Left"), choice_menu("Right")
        self.sample_prompt.observe(self.guard(self._sample_prompt_chosen), "value")
        for menu in (self.sample_left, self.sample_right):
            menu.observe(self.guard(self._show_samples), "value")
        about = (
            "The run's sample prompts and some held-out ones, answered at every evaluation while it trains. Reading the"
            " answers needs no model."
        )
        return column(
            Html(html('<h3>{}</h3><div class="swb-help">{}</div>', "Sampled while it trained", about)),
            row(self.sample_prompt, self.sample_left, self.sample_right),
        )

    def _build_typed(self):
        self.prompt = ipywidgets.Textarea(
            description="Your prompt",
            placeholder="Type anything that you would ask the model",
            style={"description_width": "initial"},
            layout={"height": "64px", "width": "auto"},
        )
        self.left, self.right = choice_menu("Left"), choice_menu("Right")
        self.max_new_tokens, self.temperature, self.seed = generation_controls()
        self.ask_button = button("Answer", self.guard(self.ask), icon="play", style="primary")
        self.cancel_button = button("Cancel", self.guard(self.cancel), icon="times")
        self.progress = Html()
        self.progress.add_class("swb-muted")
        self.prompt.observe(self.guard(lambda change: self._enable()), "value")
        about = (
            "Any prompt to any two models. They load in a process of their own; a run that trains answers between two"
            " steps."
        )
        options = row(self.left, self.right, self.max_new_tokens, self.temperature, self.seed)
        return column(
            Html(html('<h3>{}</h3><div class="swb-help">{}</div>', "Ask now", about)),
            self.prompt,
            options,
            row(self.ask_button, self.cancel_button, self.progress),
        )

    def _enable(self):
        why_not = "" if self.prompt.value.strip() else "Type a prompt first."
        if self._round is not None:
            why_not = "The models are answering."
        elif not self._sides:
            why_not = "The run is being read."
        enable(self.ask_button, why_not, "Ask both models for an answer")
        enable(self.cancel_button, "" if self._round else "No answers are under way.", "Make no answers after all")
        sampled = bool(self.sample_prompt.options)
        for menu in (self.sample_prompt, self.sample_left, self.sample_right):
            enable(menu, "" if sampled else "Nothing was sampled yet: the first answers come before the first step.")

    # --- the run

    def _another_run(self, _):
        self.cancel()
        self._clear()
        if self.run is not None:
            generation = self.run.config.generation
            self.max_new_tokens.value, self.temperature.value = generation.max_new_tokens, generation.temperature
            self.refresh()

    def _clear(self):
        self.drop("run")
        self._sides, self._samples, self._shown, self._stamp, self._cards.value = {}, None, None, None, ""
        with self.quietly():
            for menu in (self.sample_prompt, self.sample_left, self.sample_right, self.left, self.right):
                menu.options = []
        show(self._empty, self.run is None)
        show(self._with_run, self.run is not None)
        show(self.earlier, bool(self._earlier))
        self._enable()

    def _fill(self, samples, sides):
        self._sides, self._samples = sides, samples
        steps = [key for key in sides if key.startswith("step ")]
        with self.quietly():
            titles = [(side.title, key) for key, side in sides.items()]
            fill_menu(self.left, titles, "base")
            fill_menu(self.right, titles, "now" if "now" in sides else (steps or ["base"])[-1])
            prompts = list(dict.fromkeys(samples["prompt"]))
            titles = [(in_one_line(prompt), prompt) for prompt in prompts]
            fill_menu(self.sample_prompt, titles, prompts[0] if prompts else None)
        self._fill_sample_steps()
        self._enable()
        if self._shown is None or not self._shown.typed:
            self._show_samples()

    def _sample_prompt_chosen(self, _):
        if not self.filling:
            self._fill_sample_steps()
            self._show_samples()

    def _fill_sample_steps(self):
        of_prompt = self._samples[self._samples["prompt"] == self.sample_prompt.value]
        steps = sorted({int(step) for step in of_prompt["step"]})
        if not steps:
            return
        newest = self.sample_right.options[-1][1] if self.sample_right.options else None
        follows = self.sample_right.value == newest
        with self.quietly():
            titles = [(sampled_at(step), step) for step in steps]
            fill_menu(self.sample_left, titles, steps[0])
            fill_menu(self.sample_right, titles, steps[-1])
            if follows:
                self.sample_right.value = steps[-1]

    # --- answers

    def _show_samples(self, _=None):
        if self.filling or self.sample_left.value is None or self.sample_right.value is None:
            return
        of_prompt = self._samples[self._samples["prompt"] == self.sample_prompt.value]
        rows = of_prompt.drop_duplicates("step").set_index("step")
        sides = [
            Answer.sampled(sampled_at(step), rows.loc[step])
            for step in (self.sample_left.value, self.sample_right.value)
        ]
        how = f"Sampled by the run {self.run.name} while it trained."
        self._display(Shown(self.sample_prompt.value, how, *sides, typed=False))
        with self.quietly():
            self.earlier.index = None

    def _display(self, shown):
        self._shown, self._cards.value = shown, shown.markup

    def _waiting(self, sentence):
        self.progress.value = html("<span>{}</span>", sentence)

    def _answered(self, answered):
        how = f"Answered by models of the run {self.run.name}: {answered.settings}."
        shown = Shown(answered.prompts[0], how, *answered.answers[0], typed=True)
        title = (
            f"{time.strftime('%H:%M:%S')}  {in_one_line(shown.prompt)}"
            f"  ·  {' | '.join(answered.titles)}  ·  {answered.settings}"
        )
        self._earlier.insert(0, (title, shown))
        self._end_round()
        self._display(shown)
        with self.quietly():
            self.earlier.options = [(title, number) for number, (title, _) in enumerate(self._earlier)]
            self.earlier.index = 0
        show(self.earlier, True)
        self.say(f"Answered in {duration(time.monotonic() - answered.started)}.", "good")

    def _end_round(self):
        self._round, self.progress.value = None, ""
        self._enable()

    def _open_earlier(self, change):
        if not self.filling and change["new"] is not None:
            self._display(self._earlier[change["new"]][1])


def _read(run):
    return run.generations, sides_of(run)
