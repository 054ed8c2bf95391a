"""The lead history as text: a run's leads as a table, one pair's leads, and the answers at a step."""

from __future__ import annotations

from ...analysis.leads import steps_of
from ...base.format import signed
from ..answers.two_models import sampled_at
from ..parts.answers import Answer, answer_cards
from ..parts.html import Markup, html, joined, table
from .pair_card import pair_card
from .run_leads import RunLeads

_NO_ANSWERS = "Sample answers come with the first evaluation of a run; the prompts are a setting (generation.prompts)."
_MOST_STEPS = 12


def pair_history(history, pair_id: str, here: RunLeads, other: RunLeads | None, with_texts: bool) -> Markup:
    """A pair's leads (nats per token) at the evaluated steps, also in the other run, and its texts if asked for.

    history: `lead_history` of `here`, whose last step is the one that is looked at. Of many steps the first one and the
    last ones are shown.
    """
    pair, evaluated = history[history["pair_id"] == pair_id].iloc[0], steps_of(history)
    steps = [step for step in evaluated if pair[step] == pair[step]]
    if not steps:
        return html('<p class="swb-muted">{}</p>', f"This pair was not scored up to step {evaluated[-1]}.")
    if len(steps) > _MOST_STEPS:
        steps = [steps[0], *steps[1 - _MOST_STEPS :]]
    rows = [["lead (nats per token)", *(signed(pair[step]) for step in steps)]]
    if other is not None and pair_id in other.leads.index:
        leads = other.leads.loc[pair_id].dropna()
        rows.append([f"in {other.name}", *(signed(leads[step]) if step in leads else "–" for step in steps)])
    leads_table = table(["", *(f"step {step}" for step in steps)], rows)
    card = pair_card(here.pair(pair_id, evaluated[-1])) if with_texts else ""
    return html("<h3>{}</h3>{}{}", _history_heading(pair), leads_table, card)


def _history_heading(pair):
    if pair["became"] == "back and forth":
        return f"back and forth, {pair['flips']} flips, the last one at step {pair['last_flip']}"
    return f"flipped {pair['became']} at step {pair['last_flip']}" if pair["flips"] else pair["became"]


def answers_at(run: RunLeads, prompt: str | None, step: int) -> Markup:
    """The first answer to a sample prompt beside the last one that was sampled up to a step."""
    sampled = {
        sampled_step: record
        for sampled_step, (_, records) in sorted(run.answers.items())
        for record in reversed(records)
        if record["prompt"] == prompt
    }
    if not sampled:
        return html('<p class="swb-muted">{}</p>', _NO_ANSWERS)
    first, note = min(sampled), ""
    at = max((sampled_step for sampled_step in sampled if sampled_step <= step), default=first)
    if at != step:
        words = f"Nothing was sampled at step {step}: this is the answer of step {at}, the last one before it."
        note = html('<div class="swb-help">{}</div>', words)
    cards = answer_cards(*(Answer.sampled(sampled_at(place), sampled[place]) for place in (first, at)))
    return joined([html('<div class="swb-text">{}</div>', prompt), note, cards])


def leads_by_step_table(run: RunLeads) -> Markup:
    """The figure as a table: the pairs ahead and quantiles of the lead at every step."""
    columns = ["step", "pairs", "chosen ahead", "10 %", "25 %", "median", "75 %", "90 %"]
    rows = []
    for step in run.steps:
        leads = run.leads[step].dropna()
        quantiles = [signed(value) for value in leads.quantile([0.1, 0.25, 0.5, 0.75, 0.9])]
        rows.append([str(step), f"{len(leads):,}", f"{(leads > 0).sum():,}", *quantiles])
    return table(columns, rows, f"Leads of the chosen answers in {run.name}, nats per token")
