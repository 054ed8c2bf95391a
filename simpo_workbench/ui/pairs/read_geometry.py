"""The content of the loss geometry, read from a run or a given scores table."""

from __future__ import annotations

from dataclasses import dataclass

from ...analysis.geometry import OTHER_LOSS
from ...analysis.loss_suggestion import LossSuggestion, suggest_loss
from ...analysis.scored_leads import Leads, leads_of
from ...base.format import counted
from ...charts.geometry import MOST
from ...runs.run import Run


@dataclass(frozen=True)
class LoadedGeometry:
    """The evaluated steps, the one that is shown, its leads, and a suggestion.

    own: β, γ/β and ε that the scores were made with (None: unknown).
    """

    steps: list[int]
    step: int | None
    leads: Leads
    suggestion: LossSuggestion | None
    suggested_from: str
    own: tuple[float, float, float] | None
    note: str = ""


def read_geometry(run: Run, step: int | None) -> LoadedGeometry | None:
    """LoadedGeometry of a run at an evaluated step (None: the newest); None when nothing was evaluated yet."""
    steps = run.folder.evaluated_steps()
    if not steps:
        return None
    step = step if step in steps else steps[-1]
    loss = run.config.loss
    first = None if step == steps[0] else run.scores_at(steps[0])
    return loaded_geometry(run.scores_at(step), first, steps, step, loss.label_smoothing, OTHER_LOSS.get(loss.kind, ""))


def loaded_geometry(scores, first=None, steps=(), step=None, label_smoothing=0.0, note="") -> LoadedGeometry:
    """LoadedGeometry of a table. first: the table before training, for the suggestion, if that is another one.

    All that takes long and does not depend on the sliders is computed here, in the background.
    """
    if "pair_id" in scores:
        scores = scores.assign(pair_id=scores["pair_id"].map(str))  # the page knows pairs by text
    leads = leads_of(scores)
    before = leads if first is None else leads_of(first)
    _ = leads.rising, leads.places, leads.length_correlation, len(leads) <= MOST and leads.labels
    own = None
    if leads.simpo and leads.beta and leads.gamma_beta_ratio is not None:
        own = (leads.beta, leads.gamma_beta_ratio, label_smoothing)
    where = "these scores"
    if steps:
        where = f"the scores of step {steps[0]}" if steps[0] else "the scores before training"
    suggestion = suggest_loss(before) if len(before) else None
    return LoadedGeometry(list(steps), step, leads, suggestion, f"{where} ({counted(len(before), 'pair')})", own, note)
