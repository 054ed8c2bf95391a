"""One pair of the lead history, opened: what became of it, and its lead at every evaluated step. HTML of it."""

from __future__ import annotations

from ...analysis.leads import steps_of
from ...base.format import signed
from ..parts.html import Markup, html, table
from .pair_card import pair_card
from .run_leads import RunLeads

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
    return html("<h3>{}</h3>{}{}", _what_became(pair), leads_table, card)


def _what_became(pair):
    if pair["became"] == "back and forth":
        return f"back and forth, {pair['flips']} flips, the last one at step {pair['last_flip']}"
    return f"flipped {pair['became']} at step {pair['last_flip']}" if pair["flips"] else pair["became"]
