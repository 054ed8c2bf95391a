"""Answers to the sample prompts while a run trains: any evaluated step beside the base model."""

from __future__ import annotations

import ipywidgets

from ...base.errors import WorkbenchError
from ...runs.run import Run
from ..parts.answers import Answer, answer_cards
from ..parts.html import Html, Markup, html
from ..parts.panel import Panel, button, row


class RunSamples(Panel):
    """A step slider, one of the sample prompts, and its answer at that step beside the one of step 0.

    `refresh()` reads new answers; a slider at the newest step follows them.
    """

    title = "Sample answers"

    def __init__(self, run: Run | None = None, line: Html | None = None):
        super().__init__(line)
        self._answers, self._prompts, self._place = None, [], 0
        self.step = ipywidgets.SelectionSlider(
            options=[0], description="At step", continuous_update=False, layout={"width": "340px"}
        )
        self.before = button("‹", self.guard(lambda: self._turn(-1)), "", "Previous sample prompt")
        self.after = button("›", self.guard(lambda: self._turn(1)), "", "Next sample prompt")
        self.about, self.cards = Html(), Html()
        self.step.observe(self.guard(lambda _: self._draw()), "value")
        self.compose(row(self.step, self.before, self.after, self.about), self.cards)
        self.attach(run)

    def attach(self, run: Run | None) -> None:
        """Show the answers of this run."""
        self.run, self._place, self._answers = run, 0, None
        self.refresh()

    def refresh(self) -> None:
        """Read the answers; a slider at the newest step moves on to the new one."""
        try:
            answers = self.run.generations if self.run is not None else None
        except WorkbenchError as error:  # a damaged file: keep what was read before
            self.say_error(error)
            answers = self._answers
        if answers is None or answers.empty:
            self._answers = None
            self.cards.value = html(
                '<p class="swb-muted">{}</p>',
                "Sample answers come with the first evaluation; the prompts are a setting (generation.prompts).",
            )
            self.step.disabled = self.before.disabled = self.after.disabled = True
            self.about.value = ""
            return
        steps, at = sorted({int(step) for step in answers["step"]}), self.step.value
        stays = self._answers is not None and at != self.step.options[-1] and at in steps
        self._answers = answers
        with self.quietly():
            self.step.options = steps
            self.step.value = at if stays else steps[-1]
        self._prompts = list(dict.fromkeys(answers["prompt"]))
        self.step.disabled = self.before.disabled = self.after.disabled = False
        self._draw()

    def _turn(self, by):
        self._place = (self._place + by) % len(self._prompts)
        self._draw()

    def _draw(self):
        if self._answers is None or self.filling:
            return
        self._place %= len(self._prompts)
        prompt = self._prompts[self._place]
        answers = self._answers[self._answers["prompt"] == prompt]
        base, now = (self._answer(answers, step) for step in (int(self._answers["step"].min()), self.step.value))
        self.about.value = html(
            '<span class="swb-muted">Sample prompt {} of {}</span>&ensp;{}', self._place + 1, len(self._prompts), prompt
        )
        self.cards.value = answer_cards(base, now)

    def _answer(self, answers, step):
        rows = answers[answers["step"] == step]
        title = "Base · step 0" if step == 0 else f"Tuned · step {step}"
        if rows.empty:
            return Answer(title, "(not asked at this step)")
        return Answer.sampled(title, rows.iloc[0])

    def snapshot(self) -> Markup:
        return html("{}{}", self.about.value, self.cards.value)
