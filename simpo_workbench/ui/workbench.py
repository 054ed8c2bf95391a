"""The whole interface: six panels in the order of work. It only arranges them; each is a widget of its own."""

from __future__ import annotations

import contextlib

import traitlets

from ..base.errors import WorkbenchError
from ..config.presets import preset
from ..config.run_config import RunConfig
from ..report.facts import headline
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

PANELS = ("1 Setup", "2 Data", "3 Train", "4 Answers", "5 Pairs", "Runs")
_HEAD_POLL_S = 1.0


class Workbench(Sections):
    """Everything from settings to answers, side by side with Python: `config`, `pairs`, `run` and `selection` are what
    the panels show.

    config: where the form begins (default: the demo). root: folder of the runs. run: a run to look at; without one a
    run that lives in `root` is followed.
    """

    title = "SimPO Workbench"
    run = traitlets.Instance(Run, allow_none=True)
    config = traitlets.Instance(RunConfig)
    _follower = None

    def __init__(self, config: RunConfig | None = None, root: str = "runs", run: Run | None = None):
        super().__init__(PANELS, "swb-menu")
        self.root = root
        self.config = (config or preset("demo")).with_changes({"run.root": str(root)})
        self.head, self._head_shown, self._run_words = Html(), None, ""
        self.observe(self.guard(lambda _: self._take_new_config()), "config")
        self.observe(self.guard(lambda _: self._take_new_run()), "run")
        self.compose(self.head, self.menu, self._body)
        run = run or self._living()
        self.turn_to("3 Train" if run else "1 Setup")
        if run is not None:
            self.run = run
        self._show_head()
        self._follower = self.follow(self._show_head, _HEAD_POLL_S)

    def turn_to(self, name: str) -> Panel:
        """Turn to a panel by its name in the menu, such as "3 Train", and return it."""
        panel = super().turn_to(name)
        if self._follower is not None:  # what was said of another panel is not meant for this one
            self.line.value = ""
        return panel

    @property
    def pairs(self):
        """The training pairs of the Data panel; None before they are loaded."""
        return self._panels["2 Data"].pairs if "2 Data" in self._panels else None

    @property
    def selection(self):
        """DataFrame of the pairs selected in the Understand panel; empty before it is opened."""
        import pandas as pd

        return self._panels["5 Pairs"].selection if "5 Pairs" in self._panels else pd.DataFrame()

    def close(self):
        """Take the workbench away; runs go on."""
        if self._follower is not None:
            self._follower.stop()
        super().close()

    def close_models(self):
        """End the processes of the models that panels have opened, and free their memory."""
        OPEN_MODELS.close()

    def _make(self, name):
        if name == "1 Setup":
            form = ConfigForm(self.config, line=self.line, root=str(self.root))
            form.observe(self.guard(lambda change: setattr(self, "config", change["new"])), "config")
            return form
        if name == "2 Data":
            view = DataView(self.config.data, self.config.model, line=self.line, seed=self.config.training.seed)
            view.observe(self.guard(lambda change: self._data_chosen(change["new"])), "data")
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

    def _living(self):
        """The run that lives in the root, if one does: the notebook was opened anew, or its kernel restarted."""
        living = []
        for name in run_names(self.root):
            with contextlib.suppress(
                WorkbenchError, OSError
            ):  # no run of ours, or deleted by now: a list says so, and this looks for others
                run = attach(name, self.root)
                if run.status.alive:
                    living.append((run.folder.config.stat().st_mtime, run))
        newest = max(living, key=lambda found: found[0], default=(0, None))[1]
        if newest is not None:
            self.say(f"{newest.name} is under way and was found again.", "good")
        return newest

    def _take_new_config(self):
        if self.config.run.root != str(self.root):
            self.config = self.config.with_changes({"run.root": str(self.root)})  # comes back here
            return
        form, view, monitor = (self._panels.get(name) for name in ("1 Setup", "2 Data", "3 Train"))
        if form is not None and form.config != self.config:
            form.config = self.config
        if view is not None:
            with view.hold_trait_notifications():  # else it would read the new data by the old seed first
                view.model, view.data, view.seed = self.config.model, self.config.data, self.config.training.seed
        if monitor is not None:
            monitor.config = self.config
        self._show_head()

    def _data_chosen(self, data):
        if data != self.config.data:
            self.config = self.config.model_copy(update={"data": data})

    def _take_new_run(self):
        try:
            self._run_words = f"{self.run.name} · {headline(self.run.config)}" if self.run is not None else ""
        except WorkbenchError:  # the Train panel says what is wrong with its configuration
            self._run_words = self.run.name
        for name in ("3 Train", "4 Answers", "5 Pairs"):
            if name in self._panels and self._panels[name].run is not self.run:
                self._panels[name].run = self.run
        self._show_head()

    def _open_run(self, run):
        self.run = run
        self.turn_to("3 Train")

    def _take_objective(self, beta, gamma_beta_ratio):
        self.config = self.config.with_changes({"loss.beta": beta, "loss.gamma_beta_ratio": gamma_beta_ratio})
        self.say(f"The form in 1 Setup has β {beta:g} and γ/β {gamma_beta_ratio:g} now, for the next run.", "good")

    def _take_config(self, config):
        self.config = config.with_changes({"run.root": str(self.root)})
        self.turn_to("1 Setup")

    def _show_head(self):
        run = self.run
        status = run.status if run is not None else None
        words = self._run_words if run is not None else headline(self.config)
        state = "" if status is None else badge("stalled" if status.stalled else status.state)
        share = status.step / status.total_steps if status is not None and status.total_steps and status.alive else 0.0
        shown = (words, state, share)
        if (
            status is not None
            and status.alive
            and self.menu.value in ("4 Answers", "5 Pairs")
            and self.menu.value in self._panels
        ):
            self.panel.refresh()  # a new evaluation may be there
        if shown == self._head_shown:
            return
        self._head_shown = shown
        line = html(
            '<div class="swb-progress swb-thin" aria-hidden="true"><div style="width:{}%"></div></div>',
            f"{100 * share:.1f}",
        )
        self.head.value = html(
            '<header class="swb-head"><h2>SimPO Workbench</h2><span class="swb-muted">{}</span>{}</header>{}',
            words,
            state,
            line,
        )

    def snapshot(self) -> Markup:
        return joined([self.head.value, self.panel.snapshot()])
