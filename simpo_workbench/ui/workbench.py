"""The whole interface: six panels in the order of work, each of which is also a widget of its own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import traitlets

from ..base.errors import WorkbenchError
from ..config.presets import preset
from ..config.run_config import RUNS_ROOT, RunConfig
from ..pairs.pairs import Pairs
from ..report.facts import headline, headline_of
from ..runs.folder import run_names
from ..runs.run import Run, attach
from .answers.blind_test import BlindTest
from .answers.comparison import Comparison
from .data.data_view import DataView
from .pairs.pairs_panel import PairsPanel
from .parts.html import Html, Markup, html, joined
from .parts.model_requests import OPEN_MODELS
from .parts.panel import Panel
from .parts.sections import RunSections, Sections
from .runs.run_list import RunList
from .setup.config_form import ConfigForm
from .train.run_monitor import RunMonitor, badge

if TYPE_CHECKING:
    import pandas as pd

PANELS = ("1 Setup", "2 Data", "3 Train", "4 Answers", "5 Pairs", "Runs")
_HEAD_POLL_S = 1.0


class Workbench(Sections):
    """All panels behind one menu. `config`, `pairs`, `run` and `selection` are what they show.

    config: the settings to begin with (default: the demo). root: folder of the runs. run: the run to show; by default
    one in `root` that is alive, if there is one.
    """

    title = "SimPO Workbench"
    run = traitlets.Instance(Run, allow_none=True)
    config = traitlets.Instance(RunConfig)
    _follower = None

    def __init__(self, config: RunConfig | None = None, root: str = RUNS_ROOT, run: Run | None = None):
        super().__init__(PANELS, "swb-menu")
        self.root = root
        self.config = (config or preset("demo")).with_changes({"run.root": str(root)})
        self.head, self._head_shown, self._run_title = Html(), None, ""
        self.observe(self.guard(lambda _: self._take_new_config()), "config")
        self.observe(self.guard(lambda _: self._take_new_run()), "run")
        self.compose(self.head, self.menu, self._body)
        run = run or self._find_live_run()
        self.turn_to("3 Train" if run else "1 Setup")
        if run is not None:
            self.run = run
        self._show_head()
        self._follower = self.follow(self._show_head, _HEAD_POLL_S)

    def turn_to(self, name: str) -> Panel:
        """Turn to a panel by its name in the menu, such as "3 Train", and return it."""
        panel = super().turn_to(name)
        if self._follower is not None:  # a message about another panel does not belong here
            self.line.value = ""
        return panel

    @property
    def pairs(self) -> Pairs | None:
        """The training pairs of 2 Data; None before they are loaded."""
        panel = self.made("2 Data")
        return panel and panel.pairs

    @property
    def selection(self) -> pd.DataFrame:
        """DataFrame of the pairs selected in 5 Pairs; empty before it is opened."""
        import pandas as pd

        panel = self.made("5 Pairs")
        return panel.selection if panel else pd.DataFrame()

    def close(self) -> None:
        """Remove the workbench from the page; runs go on."""
        if self._follower is not None:
            self._follower.stop()
        super().close()

    def close_models(self) -> None:
        """End the processes of the models that panels have opened, and free their memory."""
        OPEN_MODELS.close()

    def _make(self, name):
        if name == "1 Setup":
            form = ConfigForm(self.config, line=self.line, root=str(self.root))
            form.observe(self.guard(lambda change: setattr(self, "config", change["new"])), "config")
            return form
        if name == "2 Data":
            view = DataView(self.config.data, self.config.model, line=self.line, seed=self.config.training.seed)
            view.observe(self.guard(lambda change: self._take_data(change["new"])), "data")
            return view
        if name == "3 Train":
            monitor = RunMonitor(self.run, self.config, line=self.line)
            monitor.observe(self.guard(lambda change: setattr(self, "run", change["new"])), "run")
            return monitor
        if name == "Runs":
            return RunList(self.root, self._open_run, self._take_config, line=self.line)
        if name == "4 Answers":
            return RunSections({"Side by side": Comparison, "Blind test": BlindTest}, self.run, self.line)
        return PairsPanel(self.run, self.line, self._take_objective)

    def _find_live_run(self):
        """The newest live run in the root, if any: the kernel may have been restarted, or the notebook opened again."""
        live = []
        for name in run_names(self.root):
            with contextlib.suppress(WorkbenchError, OSError):  # unreadable or deleted: the panel Runs reports it
                run = attach(name, self.root)
                if run.status.alive:
                    live.append((run.folder.config.stat().st_mtime, run))
        if not live:
            return None
        _, newest = max(live, key=lambda dated: dated[0])
        self.say(f"{newest.name} is under way and was found again.", "good")
        return newest

    def _take_new_config(self):
        if self.config.run.root != str(self.root):
            self.config = self.config.with_changes({"run.root": str(self.root)})  # its handler calls this again
            return
        form, view, monitor = (self._panels.get(name) for name in ("1 Setup", "2 Data", "3 Train"))
        if form is not None and form.config != self.config:
            form.config = self.config
        if view is not None:
            with view.hold_trait_notifications():  # else it would first read the new data with the old seed
                view.model, view.data, view.seed = self.config.model, self.config.data, self.config.training.seed
        if monitor is not None:
            monitor.config = self.config
        self._show_head()

    def _take_data(self, data):
        if data != self.config.data:
            self.config = self.config.model_copy(update={"data": data})

    def _take_new_run(self):
        try:
            self._run_title = f"{self.run.name} · {headline_of(self.run)}" if self.run is not None else ""
        except WorkbenchError:  # 3 Train says what is wrong with its configuration
            self._run_title = self.run.name
        for name in ("3 Train", "4 Answers", "5 Pairs"):
            if (panel := self.made(name)) is not None and panel.run is not self.run:
                panel.run = self.run
        self._show_head()

    def _open_run(self, run):
        self.run = run
        self.turn_to("3 Train")

    def _take_objective(self, beta, gamma_beta_ratio):
        self.config = self.config.with_changes({"loss.beta": beta, "loss.gamma_beta_ratio": gamma_beta_ratio})
        self.say(f"1 Setup now has β {beta:g} and γ/β {gamma_beta_ratio:g}, for the next run.", "good")

    def _take_config(self, config):
        self.config = config.with_changes({"run.root": str(self.root)})
        self.turn_to("1 Setup")

    def _show_head(self):
        title, state, share = self._run_title, "", 0.0
        if self.run is None:
            title = headline(self.config)
        else:
            status = self.run.status
            state = badge("stalled" if status.stalled else status.state)
            if status.alive and status.total_steps:
                share = status.step / status.total_steps
            if status.alive and self.menu.value in ("4 Answers", "5 Pairs") and self.menu.value in self._panels:
                self.panel.refresh()  # a new evaluation may be there
        if (title, state, share) == self._head_shown:
            return
        self._head_shown = (title, state, share)
        line = html(
            '<div class="swb-progress swb-thin" aria-hidden="true"><div style="width:{}%"></div></div>',
            f"{100 * share:.1f}",
        )
        self.head.value = html(
            '<header class="swb-head"><h2>SimPO Workbench</h2><span class="swb-muted">{}</span>{}</header>{}',
            title,
            state,
            line,
        )

    def snapshot(self) -> Markup:
        return joined([self.head.value, self.panel.snapshot()])
