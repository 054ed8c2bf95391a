"""The result of a blind test: win rate with its interval, counts, every item with its models, votes as pairs."""

from __future__ import annotations

from pathlib import Path

import ipywidgets

from ...analysis.blind_votes import BlindVotes
from ...analysis.vote_statistics import LEAST_JUDGED, SIDES, WinRate, win_rate
from ...base.format import counted, signed
from ..parts.answers import Answer, answer_cards
from ..parts.data_table import Column, DataTable
from ..parts.html import Html, Markup, facts, html, joined, table
from ..parts.panel import Panel, button, column, enable, row

_NO_ITEM = "Choose a row to see its prompt and both answers here, with the names of their models."
_LENGTH = {"numeric": True, "text": lambda value: "–" if value != value else f"{value:.0f}"}
_ROWS_IN_PICTURE = 20


class BlindResult(Panel):
    """The result of a BlindVotes: `show(votes)` reads it as it stands now."""

    title = "Result of the blind test"

    def __init__(self, line: Html | None = None):
        super().__init__(line)
        self.votes, self._rows = None, None
        self._summary, self._item = Html(), Html()
        self.path = ipywidgets.Text(
            description="File", layout={"width": "420px"}, style={"description_width": "initial"}
        )
        self.export_button = button("Export", self.guard(self.export), icon="download")
        self._place, self.table = column(), None
        self.compose(self._summary, row(self.export_button, self.path), self._place, self._item)

    def show(self, votes: BlindVotes) -> None:
        """Show the result of these votes, however many there are."""
        import pandas as pd

        self.votes, items, titles = votes, votes.votes, votes.titles
        preferred = {**titles, "tie": "tie", "both bad": "both bad", "skip": "(skipped)", "same": "(the same answer)"}
        self._rows = pd.DataFrame(
            {
                "item": items["item"].astype(str),
                "prompt": items["prompt"],
                "preferred": [preferred[winner] for winner in items["winner"]],
                "left": [
                    titles[side] if winner != "same" else "–"
                    for side, winner in zip(items["left_is"], items["winner"], strict=True)
                ],
                "first_tokens": items["first_tokens"],
                "second_tokens": items["second_tokens"],
            }
        )
        self._summary.value = _summary(votes, items)
        columns = [
            Column("prompt", "prompt", wide=True),
            Column("preferred", "preferred"),
            Column("left", "shown left"),
        ]
        if items["first_tokens"].notna().any():
            columns += [
                Column(f"{side}_tokens", f"tokens, {titles[side]}", help="Length of its answer", **_LENGTH)
                for side in SIDES
            ]
        self.table = DataTable(
            columns, "item", "Items of the blind test", "There is no vote yet.", noun="item", on_error=self.say_error
        )
        self.table.add_class("swb-fixed")
        self.table.show(self._rows)
        self.table.observe(self.guard(lambda _: self._chosen()), "chosen")
        self._place.children = (self.table,)
        pairs = len(votes.pairs())
        self.path.value = f"pairs-of-blind-test-{votes.path.stem}.jsonl"
        self.export_button.description = f"Export {counted(pairs, 'pair')}"
        enable(
            self.export_button,
            "" if pairs else "No vote prefers one of the answers, so there are no pairs.",
            "Decided votes as preference pairs, for wb.load_pairs or 2 Data",
        )
        self._chosen()

    def export(self, path: str | Path | None = None) -> None:
        """Write the decided votes as preference pairs. An existing file is not replaced."""
        target, votes = Path(str(path or self.path.value).strip()).expanduser(), self.votes
        self.later(
            lambda: votes.export(target),
            lambda count: self.say(f"{counted(count, 'pair')} written to {target}.", "good"),
        )

    def snapshot(self) -> Markup:
        if self.votes is None:
            return html("<p>{}</p>", "There are no votes yet.")
        rows = self._rows.head(_ROWS_IN_PICTURE)
        return joined(
            [
                self._summary.value,
                table(
                    ["prompt", "preferred", "shown left"],
                    rows[["prompt", "preferred", "left"]].itertuples(index=False),
                    f"The first {len(rows)} of {len(self._rows)}.",
                ),
            ]
        )

    def _chosen(self):
        if not self.table.chosen:
            self._item.value = html('<p class="swb-muted">{}</p>', _NO_ITEM)
            return
        item = self.votes.items[int(self.table.chosen[0]) - 1]
        lengths = {"first": item.first_tokens, "second": item.second_tokens}
        sides = [item.left_is, *(side for side in SIDES if side != item.left_is)]
        answers = [
            Answer(f"{number} · {self.votes.titles[side]}", item.answer(side), lengths[side])
            for number, side in enumerate(sides, 1)
        ]
        cards = answer_cards(*answers)
        self._item.value = html('<h3>{}</h3><div class="swb-text">{}</div>{}', "Prompt", item.prompt, cards)


def _summary(votes, items):
    if (items["winner"] == "skip").all():
        return html('<div class="swb-notice">{}</div>', "No vote counts yet, so there is no result.")
    rate = win_rate(items)
    notes = []
    if votes.next_item() is not None:
        notes.append(
            f"{votes.asked - votes.voted} of {votes.asked} prompts have no vote yet. Stopping as soon as a result"
            " pleases takes chance for a result."
        )
    late = int((~items["blind"] & (items["winner"] != "same")).sum())
    if late:
        are = "is" if late == 1 else "are"
        notes.append(f"{counted(late, 'vote')} came after the models had been named and {are} not blind.")
    tone = "swb-healthy" if rate.winner else ""
    verdict = html(
        '<div class="swb-notice {}">{}{}</div>', tone, rate.verdict, joined(html("<p>{}</p>", note) for note in notes)
    )
    counts = html('<div class="swb-scroll">{}</div>', _counts(rate, votes.titles, items))
    return joined([verdict, _bar(rate, votes.titles), counts])


def _bar(rate: WinRate, titles) -> Markup:
    """The win rate of the second model as a point with its interval on a line from 0 to 1, one half marked."""
    second = titles["second"]
    label = (
        f"Win rate of {second}: {rate.value:.2f} with the interval {rate.low:.2f} to {rate.high:.2f}, on a line from 0"
        " to 1 with one half marked."
    )
    line = html(
        '<div class="swb-rate-line" role="img" aria-label="{label}"><span class="swb-rate-half"></span><span'
        ' class="swb-rate-interval" style="left:{low}%;width:{width}%"></span><span class="swb-rate-value"'
        ' style="left:{value}%"></span></div>',
        label=label,
        low=f"{100 * rate.low:.1f}",
        width=f"{100 * (rate.high - rate.low):.1f}",
        value=f"{100 * rate.value:.1f}",
    )
    ends = html(
        '<div class="swb-rate-ends"><span>0 · always {}</span><span>½</span><span>always {} · 1</span></div>',
        titles["first"],
        second,
    )
    return html(
        '<h3>Win rate of {} <span class="swb-sentence">share of {}, ties one half, with the 95 %'
        ' interval</span></h3><div class="swb-rate">{}{}</div>',
        second,
        rate.basis,
        line,
        ends,
    )


def _counts(rate, titles, items):
    rows = [
        (f"{titles['second']} preferred", f"{rate.wins}", "counts 1"),
        (f"{titles['first']} preferred", f"{rate.losses}", "counts 0"),
        ("tie", f"{rate.ties}", "counts one half"),
        ("both bad", f"{rate.both_bad}", "counts one half"),
        ("the same answer from both", f"{rate.same}", "not asked, counts one half"),
        ("skipped", f"{rate.skipped}", "does not count"),
    ]
    lengths = "lengths are not known"
    if length := rate.length_difference:
        low, high = signed(length.low, 0), signed(length.high, 0)
        lengths = f"answers of {titles['second']}: {signed(length.value, 0)} tokens on average"
        lengths += f", 95 % {low} to {high}, n={length.n}"
    decided, side = items[items["choice"].isin(["left", "right"])], ""
    if len(decided):
        left = int((decided["choice"] == "left").sum())
        side = f"the left answer was preferred in {left} of {counted(len(decided), 'decided vote')}"
    few = f"fewer than {LEAST_JUDGED} judged prompts decide nothing" if rate.judged < LEAST_JUDGED else ""
    return joined(
        [table(["vote", "prompts" if rate.n == rate.prompts else "votes", ""], rows), facts(lengths, side, few)]
    )
