"""The Pairs panel: all pairs before and after, and below them one pair's tokens, its place on the loss, its leads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import traitlets

from ...runs.run import Run
from ..parts.html import Html, Markup, joined
from ..parts.panel import Panel
from ..parts.sections import RunSections
from .lead_history import LeadHistory
from .loss_geometry import LossGeometry
from .pair_microscope import PairMicroscope
from .pair_table import PairTable

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("Pair microscope", "Loss geometry", "Lead history")


class PairsPanel(Panel):
    """The pair table with microscope, geometry and lead history below it: a pair chosen in one is chosen in all.

    on_use(beta, gamma_beta_ratio): called when the values of the geometry are to become settings.
    """

    title = "Pairs"
    run = traitlets.Instance(Run, allow_none=True)

    def __init__(
        self, run: Run | None = None, line: Html | None = None, on_use: Callable[[float, float], None] | None = None
    ):
        super().__init__(line)
        self.pairs = PairTable(run=run, line=self.line)
        makers = {
            PARTS[0]: PairMicroscope,
            PARTS[1]: lambda **more: LossGeometry(on_use=on_use, **more),
            PARTS[2]: lambda **more: LeadHistory(with_texts=False, **more),
        }
        self.parts = RunSections(makers, run, self.line, self._link)
        self.run = run
        self.observe(self.guard(self._hand_on_run), "run")
        self.pairs.table.observe(self.guard(self._hand_on_choice), "chosen")
        self.pairs.observe(self.guard(self._hand_on_pair), "picked_pair")
        self.compose(self.pairs, self.parts)

    @property
    def selection(self) -> pd.DataFrame:
        """DataFrame of the chosen pairs in the order of choosing."""
        return self.pairs.selection

    def refresh(self) -> None:
        """Read the run's evaluated steps again, if any came or went since."""
        self.pairs.refresh()
        self.parts.refresh()

    def snapshot(self) -> Markup:
        return joined([self.pairs.snapshot(), self.parts.snapshot()])

    def close(self) -> None:
        self.pairs.close()
        self.parts.close()
        super().close()

    def _link(self, name, panel):
        if name == PARTS[0]:
            panel.pair = self.pairs.picked_pair or None
            return
        panel.chosen = list(self.pairs.table.chosen)
        panel.observe(self.guard(lambda change: change["new"] and self.pairs.table.choose([change["new"]])), "picked")

    def _hand_on_run(self, _):
        self.pairs.run = self.parts.run = self.run

    def _hand_on_choice(self, _):
        for name in PARTS[1:]:
            if (panel := self.parts.made(name)) is not None:
                panel.chosen = list(self.pairs.table.chosen)

    def _hand_on_pair(self, _):
        if (microscope := self.parts.made(PARTS[0])) is not None:
            microscope.pair = self.pairs.picked_pair or None
