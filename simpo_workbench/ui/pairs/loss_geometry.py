"""Loss geometry: drag β and γ/β, and see where every pair stands on SimPO's loss and how hard it pulls."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets
import traitlets

from ...analysis.geometry import OTHER_LOSS, SATURATED, Geometry, loss_geometry
from ...analysis.loss_suggestion import LossSuggestion
from ...analysis.scored_leads import Leads
from ...base.format import counted, in_one_line, signed
from ...charts.geometry import HEIGHT, MOST, curve_spec, leads_spec
from ...config.run_config import LossConfig
from ...runs.run import Run
from ..parts.fields import STOPS
from ..parts.folder_stamp import folder_stamp
from ..parts.html import Html, Markup, html, joined, table
from ..parts.live_figure import LiveFigure
from ..parts.panel import Panel, button, column, enable, row, show
from .read_geometry import loaded_geometry, read_geometry

_NO_SCORES = (
    "The pairs are shown after the first evaluation: choose a run that was evaluated, or give a table from wb.score,"
    " such as LossGeometry(scores)."
)
_CLICK = "Click a point to see which pair it is."
_CLICK_BUBBLE = "A bubble stands for several pairs. Click it to see the one in the middle of them."
_NOTHING = Leads((), ())  # settings are checked without any pair
_SMOOTHINGS = {"min": 0.0, "max": 0.45, "step": 0.05}


class LossGeometry(Panel):
    """The pairs of a scores table, or of a run's evaluated step, on SimPO's loss.

    `geometry` holds the numbers behind what is shown (None before there are any). beta, gamma_beta_ratio,
    label_smoothing: the sliders' values. chosen: pair ids that are marked; picked: the pair whose point was clicked
    last. on_use(beta, gamma_beta_ratio): called by a button, which is there only when this is given.
    """

    title = "Loss geometry"
    run = traitlets.Instance(Run, allow_none=True)
    beta = traitlets.Float(LossConfig().beta)
    gamma_beta_ratio = traitlets.Float(LossConfig().gamma_beta_ratio)
    label_smoothing = traitlets.Float(0.0)
    chosen = traitlets.List(traitlets.Unicode())
    picked = traitlets.Unicode("")

    def __init__(
        self,
        scores=None,
        run: Run | None = None,
        line: Html | None = None,
        on_use: Callable[[float, float], None] | None = None,
    ):
        super().__init__(line)
        self._loaded, self._stamp, self._on_use, self._curve = None, None, on_use, {"data": []}
        self.geometry: Geometry | None = None
        self._build()
        self.observe(self.guard(self._another_run), "run")
        self.observe(self.guard(self._moved), ["beta", "gamma_beta_ratio", "label_smoothing"])
        self.observe(self.guard(self._marks), ["chosen", "picked"])
        self.run = run
        if run is None:
            self._clear()
            if scores is not None:
                self.guard(lambda: self._fill(loaded_geometry(scores)))()

    @property
    def suggestion(self) -> LossSuggestion | None:
        """The result of `wb.analysis.suggest_loss` for the scores; of a run, those before training."""
        return None if self._loaded is None else self._loaded.suggestion

    def refresh(self) -> None:
        """Read the run's evaluated steps again if they changed; a menu at the newest step moves to the new one."""
        if self.run is not None and folder_stamp(self.run.path / "scores") != self._stamp:
            follows = self._loaded is None or self.step.value == max(self._loaded.steps, default=None)
            self._read(None if follows else self.step.value)

    def redraw(self) -> None:
        self._draw()

    def snapshot(self) -> Markup:
        if self.run is not None and self._loaded is None:  # shown in the cell that made it: a still picture cannot wait
            self.guard(lambda: self._fill(read_geometry(self.run, None)))()
        if self.geometry is None:
            return html("<p>{}</p>", _NO_SCORES)
        sentences = [self._loaded.note, *str(self.geometry).split("\n")]
        return joined([*(html("<p>{}</p>", sentence) for sentence in sentences if sentence), self._advice.value])

    # --- the controls

    def _build(self):
        self._empty = Html(html('<p class="swb-muted">{}</p>', _NO_SCORES))
        self.step = ipywidgets.Dropdown(
            description="Scores of", options=[], style={"description_width": "initial"}, layout={"width": "260px"}
        )
        self.step.observe(self.guard(self._step_chosen), "value")
        self._what = Html()
        beta = self._dial("beta", "β", "How strongly a lead counts: a larger β tells pairs apart more sharply")
        ratio = self._dial("gamma_beta_ratio", "γ/β", "The lead that is aimed at, nats per token")
        self._gamma = Html()
        self.as_scored = button("As in the run", self.guard(lambda: self._set(*self._loaded.own)), "undo")
        self.suggested = button(
            "Suggested",
            self.guard(lambda: self._set(self.suggestion.beta, self.suggestion.gamma_beta_ratio, self.label_smoothing)),
            "lightbulb-o",
        )
        self.use = button(
            "Use in 1 Setup",
            self.guard(self._hand_on),
            "arrow-right",
            "Put this β and γ/β into the configuration of the next run",
            "primary",
        )
        show(self.use, self._on_use is not None)
        self._smoothing = ipywidgets.FloatSlider(
            0.0,
            **_SMOOTHINGS,
            description="ε",
            readout_format=".2f",
            style={"description_width": "30px"},
            layout={"width": "360px"},
        )
        self._smoothing.observe(
            self.guard(lambda change: self.filling or self.set_trait("label_smoothing", change["new"])), "value"
        )
        words = (
            "Label smoothing: the share of pairs that may be labeled the wrong way round. With it, pairs far beyond γ"
            " pull back."
        )
        self._fold = ipywidgets.Accordion(
            [column(self._smoothing, Html(html('<span class="swb-help">{}</span>', words)))],
            titles=("Label smoothing",),
            selected_index=None,
        )
        self.chart, self.lead_chart = LiveFigure(HEIGHT, self.guard(self._point_chosen)), LiveFigure(HEIGHT)
        both = ipywidgets.HBox([column(self.chart, classes="swb-half"), column(self.lead_chart, classes="swb-half")])
        both.add_class("swb-halves")
        self._picked, self._tiles, self._words, self._advice = Html(), Html(), Html(), Html()
        for part, lines in ((self._picked, 2), (self._words, 4)):
            part.layout.min_height = f"{lines * 20}px"  # so that nothing below moves while one drags
        buttons = row(self.as_scored, self.suggested, self.use)
        self._content = column(
            self._what,
            row(beta, ratio, self._gamma),
            buttons,
            both,
            self._picked,
            self._tiles,
            self._words,
            self._advice,
            self._fold,
        )
        self.compose(row(self.step), self._empty, self._content)

    def _dial(self, trait, name, tooltip):
        """A slider with the same stops as in the configuration form, and a field for any number."""
        stops = STOPS[f"loss.{trait}"]
        slider = ipywidgets.SelectionSlider(
            description=name,
            options=[(f"{stop:g}", stop) for stop in stops],
            value=stops[0],
            readout=False,
            tooltip=tooltip,
            style={"description_width": "34px"},
            layout={"width": "330px"},
        )
        number = ipywidgets.FloatText(stops[0], tooltip=f"{name}, any value", layout={"width": "84px"})
        for control in (slider, number):
            control.observe(self.guard(lambda change: self.filling or self._dialled(trait, change["new"])), "value")
        setattr(self, {"beta": "beta_dial", "gamma_beta_ratio": "ratio_dial"}[trait], (slider, number))
        return row(slider, number)

    @traitlets.validate("beta", "gamma_beta_ratio", "label_smoothing")
    def _only_possible(self, proposal):
        settings = {
            "beta": self.beta,
            "gamma_beta_ratio": self.gamma_beta_ratio,
            "label_smoothing": self.label_smoothing,
            proposal["trait"].name: proposal["value"],
        }
        loss_geometry(_NOTHING, **settings)
        return proposal["value"]

    def _dialled(self, trait, value):
        try:
            setattr(self, trait, value)
        finally:
            self._show_settings()  # a value that is not possible does not stay in the field

    def _set(self, beta, gamma_beta_ratio, label_smoothing):
        with self.quietly():
            self.beta, self.gamma_beta_ratio, self.label_smoothing = beta, gamma_beta_ratio, label_smoothing
        self._moved()

    def _moved(self, _=None):
        if not self.filling:
            self._show_settings()
            self._draw()

    def _show_settings(self):
        with self.quietly():
            for (slider, number), value in ((self.beta_dial, self.beta), (self.ratio_dial, self.gamma_beta_ratio)):
                number.value = value
                slider.value = min((stop for _, stop in slider.options), key=lambda stop: abs(stop - value))
            self._smoothing.value = self.label_smoothing
        self._gamma.value = html(
            'γ = β · γ/β = <b>{}</b> <span class="swb-muted">(reward units)</span>',
            f"{self.beta * self.gamma_beta_ratio:.3g}",
        )

    def _hand_on(self):
        self._on_use(self.beta, self.gamma_beta_ratio)

    # --- reading

    def _another_run(self, _):
        self._clear()
        if self.run is not None:
            self._read(None)

    def _clear(self):
        self.drop("scores")
        self._loaded = self.geometry = None
        self.picked = ""
        with self.quietly():
            self.step.options = []
        show(self.step, False)
        show(self._content, False)
        show(self._empty, True)

    def _read(self, step):
        run, self._stamp = self.run, folder_stamp(self.run.path / "scores")
        self.later(lambda: read_geometry(run, step), self._fill, lambda _: self._not_read(), latest="scores")

    def _not_read(self):
        """Show again what was read before."""
        if self._loaded is not None:
            with self.quietly():
                self.step.value = self._loaded.step
            self._say_what()

    def _step_chosen(self, _):
        if not self.filling:
            self._what.value = html('<span class="swb-muted">{}</span>', "Reading the scores …")
            self._read(self.step.value)

    def _fill(self, loaded):
        if loaded is None:
            self._clear()
            return
        settings = (self.beta, self.gamma_beta_ratio, self.label_smoothing)
        untouched = self._loaded is None or settings == self._loaded.own
        self._loaded = loaded
        with self.quietly():
            titles = ["the base model (step 0)" if step == 0 else f"step {step}" for step in loaded.steps]
            self.step.options = list(zip(titles, loaded.steps, strict=True))
            self.step.value = loaded.step if loaded.steps else None
        show(self._empty, False)
        show(self.step, bool(loaded.steps))
        show(self._content, True)
        self.as_scored.description = "As in the run" if loaded.steps else "As scored"
        unknown = "The scores do not say with which β and γ/β they were made, or were made with another loss."
        enable(self.as_scored, "" if loaded.own else unknown, "β, γ/β and ε that these scores were made with")
        no_pairs = "" if loaded.suggestion else "There are no pairs to suggest anything from."
        enable(self.suggested, no_pairs, "β and γ/β that suit these pairs; the reasons are below")
        self._say_what()
        self._say_advice()
        self._set(*(loaded.own if untouched and loaded.own else settings))

    def _say_what(self):
        n = len(self._loaded.leads)
        words = (
            "Every pair stands on the loss by its margin. The further left, the harder it pulls on the model; far to"
            " the right nothing is left to learn from it."
        )
        note = self._loaded.note
        if not note and not self._loaded.leads.simpo:
            note = OTHER_LOSS["dpo"].replace("This run trains", "These scores were made")
        count = counted(n, "held-out pair" if self._loaded.steps else "pair")
        self._what.value = html("<b>{}</b>: {} {}", count, words, note)

    # --- showing

    def _draw(self):
        if self._loaded is None:
            return
        self.geometry = loss_geometry(self._loaded.leads, self.beta, self.gamma_beta_ratio, self.label_smoothing)
        self._draw_curve()
        self.lead_chart.show(leads_spec(self.geometry, self.theme))
        counts = self.geometry.counts
        numbers = table(["pairs", "count"], [(name, f"{count:,}") for name, count in counts.items()])
        self.chart.describe(
            f"Every pair on the loss at β {self.beta:g} and γ/β {self.gamma_beta_ratio:g}: the loss falls as the margin"
            " grows, and pairs further left pull harder.",
            numbers,
        )
        self.lead_chart.describe(
            f"How far the chosen answers lead, nats per token; the goal is γ/β {self.gamma_beta_ratio:g}.", numbers
        )
        self._say_numbers()
        self._say_picked()

    def _draw_curve(self):
        self._curve = curve_spec(self.geometry, self.theme, [*self.chosen, *([self.picked] if self.picked else [])])
        self.chart.show(self._curve)

    def _marks(self, change):
        if change["name"] == "chosen" and self.picked not in self.chosen:
            self.picked = ""  # so that a click on the same point counts again
        if self.geometry is not None:
            self._draw_curve()
            self._say_picked()

    def _point_chosen(self, name, places):
        ids = next((trace.get("customdata") for trace in self._curve["data"] if trace["name"] == name), None)
        if ids is not None:
            self.picked = str(ids[places[0]])

    def _say_numbers(self):
        geometry, n = self.geometry, len(self.geometry.leads)
        counts, interval = geometry.counts, ""
        if n:
            part = geometry.still_pull
            interval = f"95 %: {part.low:.0%} to {part.high:.0%}"
        saturated = f"pull under {SATURATED:.0%} of the most"
        if counts["pulls back"]:
            saturated = f"{counts['pulls back']:,} more pull back"
        tiles = [
            (f"{counts['still pull']:,} of {n:,}", "still pull", interval),
            (f"{counts['full pull']:,}", "of them in full pull", "far short of γ"),
            (f"{counts['saturated']:,}", "saturated", saturated),
            (f"{counts['behind']:,}", "behind", "the rejected answer leads"),
            (f"{counts['beyond γ']:,}", "beyond γ", f"{counts['short of γ']:,} ahead, but short of it"),
            (f"{geometry.mean_loss:.3f}" if n else "–", "mean loss", "compare at one β only"),
            (f"≈ {geometry.effective_pairs:,.0f}", "pairs' worth of gradient", f"{n:,} if all pulled alike"),
        ]
        self._tiles.value = html(
            '<dl class="swb-tiles">{}</dl>',
            joined(
                html('<div class="swb-tile"><dd>{}</dd><dt>{}</dt><dd class="swb-fact">{}</dd></div>', *tile)
                for tile in tiles
            ),
        )
        notice = '<div class="swb-notice swb-attention">{}</div>'
        cautions = joined(html(notice, caution) for caution in geometry.cautions)
        self._words.value = html("<div>{}</div>{}", f"Length: {geometry.length}" if geometry.length else "", cautions)

    def _say_picked(self):
        leads, geometry = self._loaded.leads, self.geometry
        row = leads.places.get(self.picked)
        if row is None:
            self._picked.value = html('<p class="swb-muted">{}</p>', _CLICK if len(leads) <= MOST else _CLICK_BUBBLE)
            return
        lead, z = float(leads.lead[row]), float(geometry.z[row])
        name = in_one_line(self.picked if leads.prompt is None else str(leads.prompt[row]), 160)
        numbers = (
            f"lead {signed(lead)} nats per token, margin {signed(self.beta * lead)}, z {signed(z)}, loss"
            f" {geometry.loss[row]:.2f}, pulls with {geometry.pull_share[row]:.0%} of the most a pair could"
        )
        self._picked.value = html("<div><b>{}</b> {}</div>", name, numbers)

    def _say_advice(self):
        suggestion = self.suggestion
        if suggestion is None:
            self._advice.value = ""
            return
        beta, ratio = suggestion.beta, suggestion.gamma_beta_ratio
        heading = f"Suggested: β {beta:g} and γ/β {ratio:g} (γ {beta * ratio:.3g}), from {self._loaded.suggested_from}"
        reasons = joined(html("<li>{}</li>", reason) for reason in suggestion.reasons)
        self._advice.value = html('<div class="swb-notice"><h3>{}</h3><ul>{}</ul></div>', heading, reasons)
