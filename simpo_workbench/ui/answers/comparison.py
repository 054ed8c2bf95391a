"""Compare: answers of the untrained and the trained model side by side, from the run's own samples or to any prompt
typed in.
"""

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
from .two_models import Round, choice_menu, fill_menu, sampled_at, sides_of, sides_stamp

_NO_RUN = "Start a run in Train, or open one in Runs: its answers then stand here beside those of the untrained model."


@dataclass(frozen=True)
class Shown:
    """What the cards show: a prompt, how the answers came about, and the two answers. asked: to a typed prompt, not
    sampled by the run.
    """

    prompt: str
    how: str
    left: Answer
    right: Answer
    asked: bool

    @property
    def markup(self) -> Markup:
        about = html(
            '<h3>{}</h3><div class="swb-text">{}</div><div class="swb-help">{}</div>', "Prompt", self.prompt, self.how
        )
        return about + answer_cards(self.left, self.right)


class Comparison(Panel):
    """Answers side by side.

    `run` is the run whose models answer; `refresh()` reads its steps and samples again where there are new ones.
    """

    title = "Compare answers"
    run = traitlets.Instance(Run, allow_none=True)

    def __init__(self, run: Run | None = None, line: Html | None = None):
        super().__init__(line)
        self._sides, self._samples, self._round, self._shown, self._earlier, self._stamp, self._reads = (
            {},
            None,
            None,
            None,
            [],
            None,
            0,
        )
        self._empty = Html(html('<p class="swb-muted">{}</p>', _NO_RUN))
        self._samples_part, self._question_part = self._build_samples(), self._build_question()
        self._cards = Html()
        self.earlier = ipywidgets.Select(
            description="Earlier in this session",
            options=[],
            rows=4,
            style={"description_width": "initial"},
            layout={"width": "100%", "height": "auto"},
        )
        self.earlier.observe(self.guard(self._open_earlier), "index")
        self._with_run = column(self._samples_part, self._question_part, self._cards, self.earlier)
        self.compose(self._empty, self._with_run)
        self.observe(self.guard(self._another_run), "run")
        self._clear()
        self.run = run

    def refresh(self):
        """Read the run's sampled answers and kept steps again, if any came or went since.

        What was chosen and typed stays; whoever looks at the newest sampled answer gets the newest.
        """
        run = self.run
        if run is None or (stamp := sides_stamp(run)) == self._stamp:
            return
        self._stamp, self._reads = stamp, self._reads + 1
        number = self._reads
        self.later(lambda: _read(run), lambda found: self._fill(found) if number == self._reads else None)

    def ask(self):
        """Ask both models the prompt in the box."""
        if not self.ask_button.disabled:
            wanted = self.run.config.generation.model_copy(
                update={"max_new_tokens": self.max_new_tokens.value, "temperature": self.temperature.value}
            )
            self._round = Round(
                [self.prompt.value.strip()],
                self._sides[self.left.value],
                self._sides[self.right.value],
                wanted,
                self.seed.value,
            )
            self._enable()
            self._round.ask(self, self._answered, self._failed, self._waiting)

    def cancel(self):
        """Take back what was asked last."""
        if self._round is not None:
            self._round.cancel()
            self._end_round()
            self.say("Cancelled: nobody waits for the answers any more.")

    def snapshot(self) -> Markup:
        if (
            self.run is not None and self._samples is None
        ):  # shown in the cell that made it: a still picture cannot wait
            self.guard(lambda: self._fill(_read(self.run)))()
        return (
            self._shown.markup
            if self._shown
            else html("<p>{}</p>", _NO_RUN if self.run is None else "No answers were chosen yet.")
        )

    # --- the controls

    def _build_samples(self):
        self.sample_prompt, self.sample_left, self.sample_right = (
            choice_menu("Prompt", "3 1 320px"),
            choice_menu("Left"),
            choice_menu("Right"),
        )
        self.sample_prompt.observe(self.guard(self._sample_prompt_chosen), "value")
        for menu in (self.sample_left, self.sample_right):
            menu.observe(self.guard(self._show_samples), "value")
        about = (
            "The run's sample prompts and some held-out ones, answered again and again while it trains. Reading them"
            " needs no model."
        )
        return column(
            Html(html('<h3>{}</h3><div class="swb-help">{}</div>', "Sampled while it trained", about)),
            row(self.sample_prompt, self.sample_left, self.sample_right),
        )

    def _build_question(self):
        self.prompt = ipywidgets.Textarea(
            description="Your prompt",
            placeholder="Type anything that you would ask the model",
            layout={"height": "64px"},
        )
        self.left, self.right = choice_menu("Left"), choice_menu("Right")
        self.max_new_tokens = ipywidgets.BoundedIntText(
            description="Longest answer (tokens)", min=1, max=8192, value=64
        )
        self.temperature = ipywidgets.BoundedFloatText(
            description="Temperature",
            min=0,
            max=5,
            step=0.1,
            value=0,
            tooltip="0: always the likeliest token; higher is more random.",
        )
        self.seed = ipywidgets.BoundedIntText(
            description="Seed",
            min=0,
            max=2**31 - 1,
            value=0,
            tooltip="The same seed gives the same answers; it counts when the temperature is above 0.",
        )
        for control, width in (
            (self.prompt, "auto"),
            (self.max_new_tokens, "230px"),
            (self.temperature, "160px"),
            (self.seed, "120px"),
        ):
            control.style.description_width, control.layout.width = "initial", width
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
        asking = self._round is not None
        why_not = "The models are answering." if asking else "" if self._sides else "The run is being read."
        enable(
            self.ask_button, why_not or ("" if self.prompt.value.strip() else "Type a prompt first."), "Ask both models"
        )
        enable(self.cancel_button, "" if asking else "Nothing was asked.", "Wait no longer")
        why_not = (
            ""
            if self.sample_prompt.options
            else "Nothing was sampled yet: the first answers come before the first step."
        )
        for menu in (self.sample_prompt, self.sample_left, self.sample_right):
            enable(menu, why_not)

    # --- the run

    def _another_run(self, _):
        self.cancel()
        self._clear()
        if self.run is not None:
            generation = self.run.config.generation
            self.max_new_tokens.value, self.temperature.value = generation.max_new_tokens, generation.temperature
            self.refresh()

    def _clear(self):
        self._sides, self._samples, self._shown, self._stamp, self._cards.value = {}, None, None, None, ""
        with self.quietly():
            for menu in (self.sample_prompt, self.sample_left, self.sample_right, self.left, self.right):
                menu.options = []
        show(self._empty, self.run is None)
        show(self._with_run, self.run is not None)
        show(self.earlier, bool(self._earlier))
        self._enable()

    def _fill(self, found):
        run, samples, sides = found
        if run is not self.run:
            return  # another run was chosen meanwhile
        self._sides, self._samples = sides, samples
        steps = [key for key in sides if key.startswith("step ")]
        with self.quietly():
            titles = [(side.title, key) for key, side in sides.items()]
            fill_menu(self.left, titles, "base")
            fill_menu(self.right, titles, "now" if "now" in sides else steps[-1] if steps else "base")
            prompts = list(dict.fromkeys(samples["prompt"]))
            fill_menu(
                self.sample_prompt,
                [(in_one_line(prompt), prompt) for prompt in prompts],
                prompts[0] if prompts else None,
            )
        self._fill_sample_steps()
        self._enable()
        if self._shown is None or not self._shown.asked:
            self._show_samples()

    def _sample_prompt_chosen(self, _):
        if not self.filling:
            self._fill_sample_steps()
            self._show_samples()

    def _fill_sample_steps(self):
        steps = sorted(
            {int(step) for step in self._samples.loc[self._samples["prompt"] == self.sample_prompt.value, "step"]}
        )
        if not steps:
            return
        newest = self.sample_right.options[-1][1] if self.sample_right.options else None
        follows = self.sample_right.value == newest  # who looks at the newest answer wants to see the next one
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
        rows = (
            self._samples[self._samples["prompt"] == self.sample_prompt.value].drop_duplicates("step").set_index("step")
        )
        sides = [_as_answer(step, rows.loc[step]) for step in (self.sample_left.value, self.sample_right.value)]
        self._display(
            Shown(
                self.sample_prompt.value, f"Sampled by the run {self.run.name} while it trained.", *sides, asked=False
            )
        )
        with self.quietly():
            self.earlier.index = None

    def _display(self, shown):
        self._shown, self._cards.value = shown, shown.markup

    def _waiting(self, sentence):
        if self._round is not None:
            self.progress.value = html("<span>{}</span>", sentence)

    def _answered(self, asked):
        if asked is not self._round:
            return
        shown = Shown(
            asked.prompts[0],
            f"Asked of the models of the run {self.run.name}: {asked.settings}.",
            *asked.answers[0],
            asked=True,
        )
        self._earlier.insert(0, (time.strftime("%H:%M:%S"), asked, shown))
        self._end_round()
        self._display(shown)
        with self.quietly():
            self.earlier.options = [
                (
                    f"{at}  {in_one_line(one.prompts[0])}  ·  {one.left.title} | {one.right.title}  ·  {one.settings}",
                    number,
                )
                for number, (at, one, _) in enumerate(self._earlier)
            ]
            self.earlier.index = 0
        show(self.earlier, True)
        self.say(f"Answered in {duration(time.monotonic() - asked.started)}.", "good")

    def _failed(self, _):
        self._end_round()

    def _end_round(self):
        self._round, self.progress.value = None, ""
        self._enable()

    def _open_earlier(self, change):
        if not self.filling and change["new"] is not None:
            self._display(self._earlier[change["new"]][2])


def _read(run):
    return run, run.generations, sides_of(run)


def _as_answer(step, sample):
    return Answer(
        sampled_at(step),
        sample["answer"],
        int(sample["tokens"]),
        bool(sample["ended"]),
        float(sample["repeated_4grams"]),
    )
