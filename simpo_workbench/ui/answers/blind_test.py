"""The blind test: two answers to a prompt, without the names of their models, and keys to vote for one of them.

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
_DONE = "Every prompt has its vote. You can still undo the last one; the result then shows which model was which."
_ENDS_BLINDNESS = "The result names the models. Votes after it are no longer blind, and are marked so in the file."


class BlindTest(Panel):
    """Two models judged without knowing which is which.

    `votes` is the BlindVotes, None before the test begins; every vote is saved at once, and any kernel can continue.
    run: offers its models, its sampled answers and its earlier tests. answers: a table for `BlindVotes.begin` instead
    (prompt, first, second or base, tuned). path: the file of the votes; an existing one is continued, a new one is
    offered on the first page.
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

    def refresh(self) -> None:
        """Read the run's steps, samples and earlier tests again; a test under way stays as it is."""
        self.start.refresh()

    def vote(self, choice: str) -> None:
        """Vote "left", "right", "tie", "both bad" or "skip" on the prompt that is shown, and show the next one."""
        if self._item is None:
            raise WorkbenchError("No prompt is shown that could be voted on.")
        self.votes.vote(self._item, choice)
        self.line.value = ""  # the last message was about another prompt
        self._show_next()

    def undo(self) -> None:
        """Undo the last vote and show its prompt again, even if earlier prompts have no vote."""
        item = self.votes.undo()
        self._show_next(item)
        self.say(f"The vote on prompt {self._place(item)} is taken back.")

    def show_result(self) -> None:
        """Show the result, with the names of the models: votes after it are not blind, and the file says so.

        Errors: WorkbenchError while votes are missing and that cannot be written.
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
        missing = self.votes.asked - self.votes.voted
        self.again_button.description = f"Go on with the {missing} left"
        show(self.again_button, missing > 0)
        self._turn_to(self._result_page)

    def leave(self) -> None:
        """Go back to the first page; the test can be opened again from its file."""
        if self.votes is not None:
            self.say(f"{self.votes.voted} of {self.votes.asked} votes are kept in {self.votes.path}.")
        self.start.refresh()
        self._turn_to(self.start)

    def snapshot(self) -> Markup:
        if self._page is self._result_page:
            return self.result.snapshot()
        if self._page is self._voting:
            return html("{}{}{}", self._progress.value, self._prompt.value, self._cards.value)
        return self.start.snapshot()

    # --- the pages

    def _build(self):
        self._progress, self._prompt, self._cards = Html(), Html(), Html()
        self._cards.add_class("swb-blind")
        self.vote_keys = Keys("Your vote", self.guard(self._pressed))
        self.results_button = button(
            "Show the result so far …", self.guard(lambda: show(self._warning, True)), icon="eye"
        )
        sure = button("Show it and end the blindness", self.guard(self.show_result), style="danger")
        no = button("Go on blind", self.guard(lambda: show(self._warning, False)))
        self._warning = column(
            Html(html('<div class="swb-notice swb-attention">{}</div>', _ENDS_BLINDNESS)), row(sure, no)
        )
        show(self._warning, False)
        return column(self._progress, self._prompt, self._cards, self.vote_keys)

    def _turn_to(self, page):
        self._page = page
        for other in (self.start, self._voting, self._result_page):
            show(other, other is page)
        for leave in (self.leave_button, self.leave_result_button):
            show(leave, self.run is not None)
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
        return sum(not earlier.same for earlier in self.votes.items[: item.number])

    def _show_next(self, item=None):
        """Show this prompt, or the next one without a vote, before its keys: a press counts for what was visible."""
        votes, self._item = self.votes, item or self.votes.next_item()
        same = len(votes.items) - votes.asked
        left_out = ""
        if same:
            ties = "counts as a tie" if same == 1 else "count as ties"
            left_out = f" · {same} more with the same answer from both, which {ties}"
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
            self._prompt.value = html('<h3>{}</h3><div class="swb-blind-prompt swb-blind-done">{}</div>', "Done", words)
            self._cards.value = ""
            actions = [{"name": "result", "keys": ["r"], "text": "Show the result"}]
        else:
            self._prompt.value = html(
                '<h3>{}</h3><div class="swb-text swb-blind-prompt" tabindex="0">{}</div>', "Prompt", self._item.prompt
            )
            self._cards.value = answer_cards(Answer("1", self._item.left), Answer("2", self._item.right), mark=False)
            actions = [{"name": choice, "keys": keys, "text": text} for choice, (keys, text) in _KEYS.items()]
        no_undo = "" if votes.voted else "There is no vote to take back."
        actions.append({"name": "undo", "keys": ["u"], "text": "Undo", "why_not": no_undo})
        self._shown += 1
        self.vote_keys.offer(self._shown, actions)
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
    """The blind test in `path` if there is one, else a new one of these answers."""
    if path is not None and Path(path).expanduser().exists():
        return BlindVotes.resume(path)
    if answers is None:
        raise WorkbenchError(f"There is no blind test in {str(path)!r}: give answers to begin one there, or a run.")
    if path is None:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
        path = run.path / "blind" / name if run is not None else f"blind-{name}"
    return BlindVotes.begin(path, answers)
