"""The blind test: two answers to a prompt, nobody says whose, and a key for the one that is preferred.

Every vote is on disk before the next prompt is shown.
"""

from __future__ import annotations

import time
from pathlib import Path

import traitlets

from ...analysis.blind_votes import CHOICES, BlindVotes
from ...base.errors import WorkbenchError
from ...runs.run import Run
from ..parts.answers import Answer, answer_cards
from ..parts.html import Html, Markup, html
from ..parts.keys import Keys
from ..parts.panel import Panel, button, column, enable, row, show
from .blind_result import BlindResult
from .blind_start import BlindStart

_KEYS = {
    "left": (["1"], "Answer 1"),
    "right": (["2"], "Answer 2"),
    "tie": (["t", "3"], "Tie"),
    "both bad": (["b", "4"], "Both bad"),
    "skip": (["s", "0"], "Skip"),
}
_DONE = "Every prompt has its vote. You can still take the last one back; the result then shows which model was which."
_ENDS_BLINDNESS = "The result names the models. What you vote afterwards is no longer blind, and the file will say so."


class BlindTest(Panel):
    """Two models judged without knowing which is which. `votes` is the BlindVotes, None before it begins; it is saved
    with every key, and any kernel can go on with it.

    run: its models and sampled answers are there to choose from, and its earlier tests. answers: a table for
    `BlindVotes.begin` instead (prompt, first, second or base, tuned).
    path: the file of the votes; one that exists is gone on with, a new one stands on the first page as the place for
    the votes.
    """

    title = "Blind test"
    run = traitlets.Instance(Run, allow_none=True)

    def __init__(self, run: Run | None = None, answers=None, path: str | Path | None = None, line: Html | None = None):
        super().__init__(line)
        self.votes, self._item, self._shown = None, None, 0
        self.start, self.result = BlindStart(self.guard(self._take), line=self.line), BlindResult(line=self.line)
        self._voting = self._build()
        self.again_button = button("Go on", self.guard(self._go_on), icon="pencil")
        self.leave_button, self.leave_result_button = (
            button("Other blind tests", self.guard(self.leave), icon="arrow-left") for _ in range(2)
        )
        self._voting.children = (*self._voting.children, row(self.results_button, self.leave_button), self._warning)
        self._result_page = column(self.result, row(self.again_button, self.leave_result_button))
        self.compose(self.start, self._voting, self._result_page)
        self.observe(self.guard(lambda _: self._another_run()), "run")
        self._turn_to(self.start)
        self.run = run
        if run is not None and answers is None and path is not None and not Path(path).expanduser().exists():
            self.start.path.value = str(path)
        elif answers is not None or path is not None:
            self.guard(lambda: self._take(_votes(run, answers, path)))()

    def refresh(self):
        """Read the run's steps, samples and earlier tests again; a test that goes on stays as it is."""
        self.start.refresh()

    def vote(self, choice: str):
        """Vote on the prompt that is shown: "left", "right", "tie", "both bad" or "skip", and show the next one."""
        if self._item is None:
            raise WorkbenchError("No prompt is shown that could be voted on.")
        self.votes.vote(self._item, choice)
        self.line.value = ""  # what was said before was said of another prompt
        self._show_next()

    def undo(self):
        """Take back the last vote and show its prompt again, also where prompts before it are open."""
        item = self.votes.undo()
        self._show_next(item)
        self.say(f"The vote on prompt {self._place(item)} is taken back.")

    def show_result(self):
        """Show the result, with the names of the models; while prompts are open, this ends the blindness, and is
        refused where that cannot be recorded.
        """
        if self.votes is None:
            raise WorkbenchError("No blind test has begun, so there is no result.")
        try:
            self.votes.reveal()
        except WorkbenchError as error:
            if self.votes.next_item() is not None:
                raise
            self.say(f"The result is shown; that it was looked at could not be recorded. {error}")
        show(self._warning, False)
        self.result.show(self.votes)
        open_left = self.votes.asked - self.votes.voted
        self.again_button.description = f"Go on with the {open_left} left"
        show(self.again_button, open_left > 0)
        self._turn_to(self._result_page)

    def leave(self):
        """Back to the first page; the votes are in their file and the test can be opened again."""
        if self.votes is not None:
            self.say(f"{self.votes.voted} of {self.votes.asked} votes are kept in {self.votes.path}.")
        self.start.refresh()
        self._turn_to(self.start)

    def snapshot(self) -> Markup:
        if self._page is self._result_page:
            return self.result.snapshot()
        return (
            html("{}{}{}", self._progress.value, self._prompt.value, self._cards.value)
            if self._page is self._voting
            else self.start.snapshot()
        )

    # --- the pages

    def _build(self):
        self._progress, self._prompt, self._cards = Html(), Html(), Html()
        self._cards.add_class("swb-blind")
        self.vote_keys = Keys("Your vote", self.guard(self._pressed))
        self.results_button = button(
            "Show the result so far …", self.guard(lambda: show(self._warning, True)), icon="eye"
        )
        sure, no = (
            button("Show it and end the blindness", self.guard(self.show_result), style="danger"),
            button("Go on blind", self.guard(lambda: show(self._warning, False))),
        )
        self._warning = column(
            Html(html('<div class="swb-notice swb-attention">{}</div>', _ENDS_BLINDNESS)), row(sure, no)
        )
        show(self._warning, False)
        return column(self._progress, self._prompt, self._cards, self.vote_keys)

    def _turn_to(self, page):
        self._page = page
        for one in (self.start, self._voting, self._result_page):
            show(one, one is page)
        for one in (self.leave_button, self.leave_result_button):
            show(one, self.run is not None)
        self.vote_keys.turned()

    def _another_run(self):
        self.start.run = self.run
        self._turn_to(self.start)

    def _take(self, votes):
        self.votes = votes
        if votes.next_item() is None and votes.voted:
            self.show_result()
        else:
            self._go_on()

    def _go_on(self):
        show(self._warning, False)
        self._turn_to(self._voting)
        self._show_next()

    # --- voting

    def _place(self, item):
        return sum(not one.same for one in self.votes.items[: item.number])

    def _show_next(self, item=None):
        """This prompt or else the next one without a vote, first in the page and then under the keys: a press counts
        for what was there to be seen.
        """
        votes, self._item = self.votes, item or self.votes.next_item()
        same = len(votes.items) - votes.asked
        left_out = (
            f" · {same} more with the same answer from both, which"
            f" {'counts as a tie' if same == 1 else 'count as ties'}"
            if same
            else ""
        )
        where = f"Prompt {self._place(self._item)} of {votes.asked}" if self._item else f"All {votes.asked} voted"
        share = f"{100 * votes.voted / max(1, votes.asked):.1f}"
        bar = html('<div class="swb-progress swb-thin" aria-hidden="true"><div style="width:{}%"></div></div>', share)
        self._progress.value = html(
            '<div role="status"><b>{}</b> <span class="swb-muted">· {} saved{}</span></div>{}',
            where,
            votes.voted,
            left_out,
            bar,
        )
        if self._item is None:
            words = _DONE if votes.voted else "All answers are the same, so there is nothing to vote on."
            self._prompt.value, self._cards.value = (
                html('<h3>{}</h3><div class="swb-blind-prompt swb-blind-done">{}</div>', "Done", words),
                "",
            )
            actions = [{"name": "result", "keys": ["r"], "text": "Show the result"}]
        else:
            self._prompt.value = html(
                '<h3>{}</h3><div class="swb-text swb-blind-prompt" tabindex="0">{}</div>', "Prompt", self._item.prompt
            )
            self._cards.value = answer_cards(Answer("1", self._item.left), Answer("2", self._item.right), mark=False)
            actions = [{"name": choice, "keys": keys, "text": text} for choice, (keys, text) in _KEYS.items()]
        self._shown += 1
        self.vote_keys.offer(
            self._shown,
            [
                *actions,
                {
                    "name": "undo",
                    "keys": ["u"],
                    "text": "Undo",
                    "why_not": "" if votes.voted else "There is no vote to take back.",
                },
            ],
        )
        enable(self.results_button, "" if votes.voted else "There is no vote yet.", _ENDS_BLINDNESS)
        show(self.results_button, self._item is not None)

    def _pressed(self, name):
        if name in CHOICES:
            self.vote(name)
        elif name == "undo":
            self.undo()
        else:
            self.show_result()


def _votes(run, answers, path):
    """The blind test in `path` where there is one; else a new one of these answers."""
    if path is not None and Path(path).expanduser().exists():
        return BlindVotes.resume(path)
    if answers is None:
        raise WorkbenchError(f"There is no blind test in {str(path)!r}: give answers to begin one there, or a run.")
    name = f"{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
    return BlindVotes.begin(path or (run.path / "blind" / name if run is not None else f"blind-{name}"), answers)
