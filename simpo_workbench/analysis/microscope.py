"""One pair token by token: what every token adds to its answer's average, to the lead and to the change of the lead.

Pure functions of `wb.explain_pair`'s table.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from ..base.errors import WorkbenchError
from ..base.format import counted, signed

SIDES = ("chosen", "rejected")
THIRDS = ("first", "middle", "last")
#: A lead, or a change of it, below this (nats per token) is called none: two decimals would show it as 0.00.
HARDLY = 0.005
_NAMED_TOKENS = 4
_MUCH_CANCELS = 3.0  # times what is left
_LONGEST_NAME = 24
_MARKS = {"\n": "↵", "\t": "→"}
_COLUMNS = ("side", "position", "token", "logp")


@dataclass(frozen=True)
class PairFacts:
    """Both answers in numbers: `table` has the rows chosen, rejected and lead (chosen − rejected) and the columns side,
    tokens, sum_logp (nats), avg_logp (nats per token).

    With a base model also base_sum_logp, base_avg_logp, sum_change and avg_change. `sentences` say who is ahead with
    and without dividing by length; str() joins them.
    """

    table: object
    sentences: tuple[str, ...]

    @property
    def lead(self) -> float:
        """How far the chosen answer leads per token, as SimPO compares."""
        return float(self.table["avg_logp"].iloc[2])

    @property
    def sum_lead(self) -> float:
        """How far it leads where sums are compared, nats."""
        return float(self.table["sum_logp"].iloc[2])

    def __str__(self):
        return " ".join(self.sentences)


def token_margins(tokens):
    """DataFrame with one row per token of `wb.explain_pair`'s table, in its order: its columns, then share, lead_share
    and place; with base_logp also change and change_share.

    share: what the token adds to its answer's average, logp / |y|; lead_share: what it adds to the lead, + share in the
    chosen answer and − share in the rejected one.
    change: logp − base_logp, nats; change_share: what it adds to the change of the lead. All shares are nats per token;
    over all rows lead_share adds up to the lead ℓ(chosen) − ℓ(rejected) (SimPO, arXiv 2405.14734, eq. 4) and
    change_share to its change. place: position / |y|, above 0 up to 1.
    Errors: WorkbenchError for a table that is not explain_pair's, or holds a part of it.
    """
    made = _checked(tokens).reset_index(drop=True)
    length = made.groupby("side")["position"].transform("size")
    sign = made["side"].map({"chosen": 1.0, "rejected": -1.0})
    made["share"] = made["logp"].astype(float) / length
    made["lead_share"] = sign * made["share"]
    if "base_logp" in made:
        made["change"] = made["logp"].astype(float) - made["base_logp"].astype(float)
        made["change_share"] = sign * made["change"] / length
    made["place"] = made["position"] / length
    return made


def pair_facts(tokens) -> PairFacts:
    """PairFacts of `wb.explain_pair`'s table: tokens, sums and averages of both answers, and who leads with and without
    dividing by length. Errors: as `token_margins`.
    """
    import pandas as pd

    margins = token_margins(tokens)
    sides = margins.groupby("side")
    table = pd.DataFrame({"tokens": sides.size(), "sum_logp": sides["logp"].sum(), "avg_logp": sides["share"].sum()})
    if "change" in margins:
        table["base_sum_logp"], table["base_avg_logp"] = sides["base_logp"].sum(), sides["base_logp"].mean()
        table["sum_change"], table["avg_change"] = (
            table["sum_logp"] - table["base_sum_logp"],
            table["avg_logp"] - table["base_avg_logp"],
        )
    table = table.loc[list(SIDES)]
    table.loc["lead"] = table.loc["chosen"] - table.loc["rejected"]
    table = table.astype({"tokens": int}).rename_axis("side").reset_index()
    return PairFacts(table, tuple(_who_leads(table)))


def where_won(tokens) -> list[str]:
    """Sentences on where in the answers the change of the lead is won or lost; without base_logp the lead itself.
    Errors: as `token_margins`.

    Which third of the answers (each answer's own), which answer moved, how few tokens carry half, what the end of turn
    adds, and the tokens that moved most.
    """
    margins = token_margins(tokens)
    changed = "change" in margins
    parts = margins["change_share" if changed else "lead_share"]
    return [
        _thirds_said(thirds(margins), float(parts.sum()), changed),
        *(_sides_said(margins) if changed else []),
        *_few_said(parts, changed),
        _end_said(margins, parts, changed),
        _largest_said(margins, changed),
    ]


def thirds(margins) -> list[float]:
    """What the first, middle and last third of the answers add to the change of the lead (without it: to the lead),
    nats per token; a third is each answer's own.

    margins: DataFrame from `token_margins`.
    """
    number = (3 * margins["place"] - 1e-9).astype(int)  # place = third exactly belongs to the part before it
    parts = margins["change_share" if "change_share" in margins else "lead_share"]
    return [float(parts[number == one].sum()) for one in range(3)]


def token_name(token: str) -> str:
    """A token's text in quotation marks for a sentence or a label: what cannot be seen by its name or number, a long
    one cut. Not escaped for HTML.
    """
    text = "".join(
        _MARKS.get(character, f"[U+{ord(character):04X}]" if _unseen(character) else character)
        for character in str(token)[: _LONGEST_NAME + 1]
    )
    return f"“{text if len(text) <= _LONGEST_NAME else text[:_LONGEST_NAME] + '…'}”"


def nats(value: float, *beside: float) -> str:
    """A number of nats with its sign: two decimals, three where it and those that stand beside it are all below 0.1."""
    digits = 2 if max(map(abs, (value, *beside))) >= 0.1 else 3
    return signed(round(value, digits) + 0.0, digits)  # no minus before a zero


def _unseen(character):
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or (
        character.isspace() and character != " "
    )


def _checked(tokens):
    if not hasattr(tokens, "columns"):
        raise WorkbenchError(f"The tokens of a pair are a DataFrame from wb.explain_pair; got {type(tokens).__name__}.")
    if missing := [name for name in _COLUMNS if name not in tokens]:
        raise WorkbenchError(
            f"The table lacks the column {missing[0]!r}: give one from wb.explain_pair(model, pair), with one row per"
            " scored token."
        )
    known = list(dict.fromkeys(tokens["side"]))
    if unknown := [side for side in known if side not in SIDES]:
        raise WorkbenchError(
            f"The table has a side {str(unknown[0])[:40]!r}; wb.explain_pair gives chosen and rejected alone."
        )
    for side in SIDES:
        positions = tokens.loc[tokens["side"] == side, "position"]
        if positions.empty:
            raise WorkbenchError(
                f"The table has no token of the {side} answer: the lead is the difference of both, so give"
                " wb.explain_pair's whole table."
            )
        if sorted(positions) != list(range(1, len(positions) + 1)):
            raise WorkbenchError(
                f"The table holds a part of the {side} answer, or a token twice: give wb.explain_pair's table of one"
                " pair as it is."
            )
    for name in ("logp", *(["base_logp"] if "base_logp" in tokens else [])):
        if not (abs(tokens[name]) < float("inf")).all():
            raise WorkbenchError(
                f"The column {name!r} holds what is no finite number: the model's weights or its precision are at"
                " fault, not the pair."
            )
    return tokens


def _who_leads(table):
    chosen, rejected, lead = table.to_dict("records")
    yield f"Divided by length, as SimPO does, {_leads(lead['avg_logp'])}"
    sums = [
        f"{signed(side['sum_logp'], 1)} nats for the {side['side']} answer ({counted(side['tokens'], 'token')})"
        for side in (chosen, rejected)
    ]
    yield f"{_without_division(lead)}: the log-probabilities add up to {' and '.join(sums)}."
    if "base_avg_logp" in lead:
        yield (
            f"Before training the lead was {nats(lead['base_avg_logp'], lead['avg_change'])} nats per token; it changed"
            f" by {nats(lead['avg_change'], lead['base_avg_logp'])}."
        )


def _leads(lead):
    if abs(lead) < HARDLY:
        return "neither answer leads."
    return (
        f"the {'chosen' if lead > 0 else 'rejected'} answer leads by {nats(abs(lead)).removeprefix('+')} nats per"
        " token."
    )


def _without_division(lead):
    if lead["tokens"] == 0:
        return "Both are equally long, so without dividing by length the same one would lead"
    ahead, shorter = "chosen" if lead["sum_logp"] > 0 else "rejected", "chosen" if lead["tokens"] < 0 else "rejected"
    which = f"{'shorter' if ahead == shorter else 'longer'} answer, the {ahead} one,"
    as_before = abs(lead["avg_logp"]) >= HARDLY and (lead["sum_logp"] > 0) == (lead["avg_logp"] > 0)
    return f"Without dividing by length the {which} would lead{' as well' if as_before else ''}"


def _thirds_said(parts, total, changed):
    listed = ", ".join(f"{name} {nats(part, *parts)}" for name, part in zip(THIRDS, parts, strict=True))
    if abs(total) < HARDLY:
        return (
            f"{'The lead hardly changed' if changed else 'Neither answer leads'} ({nats(total)} nats per token). By"
            f" thirds of the answers: {listed}."
        )
    size = nats(abs(total)).removeprefix("+")
    what = (
        f"The lead {'grew' if total > 0 else 'shrank'} by {size}"
        if changed
        else f"The chosen answer {'leads' if total > 0 else 'is behind'} by {size}"
    ) + " nats per token"
    largest = max(range(3), key=lambda one: parts[one] * (1 if total > 0 else -1))
    share = parts[largest] / total
    how = "all of it" if share >= 1 else "most of it" if share > 0.5 else "the largest part of it"
    won = "" if not changed else " won" if total > 0 else " lost"
    return f"{what}, {how}{won} in the {THIRDS[largest]} third of the answers. By thirds: {listed}."


def _sides_said(margins):
    chosen, rejected = (float(margins.loc[margins["side"] == side, "change"].mean()) for side in SIDES)
    moved = lambda change: (
        "hardly moved" if abs(change) < HARDLY else f"became {'likelier' if change > 0 else 'less likely'}"
    )
    said = (
        f"The chosen answer {moved(chosen)} ({nats(chosen, rejected)} nats per token), the rejected one"
        f" {moved(rejected)} ({nats(rejected, chosen)})."
    )
    if chosen <= -HARDLY and chosen - rejected >= HARDLY:
        said += (
            " The lead grew all the same, because the rejected answer fell further: only the difference counts in"
            " SimPO's loss."
        )
    return [said]


def _few_said(parts, changed):
    total = float(parts.sum())
    if abs(total) < HARDLY:
        return []
    pulls = (parts * (1 if total > 0 else -1)).sort_values(ascending=False, kind="stable").cumsum()
    few = (
        int((pulls < abs(total) / 2 * (1 - 1e-12)).to_numpy().argmin()) + 1
    )  # single tokens pull both ways, so the sum climbs above the total before it comes back
    said = (
        f"{few:,} of {counted(len(parts), 'token')} {'carries' if few == 1 else 'carry'} half of"
        f" {'the change' if changed else 'the lead'}."
    )
    times = float(parts.abs().sum()) / abs(total)
    return [
        said
        + (
            f" Single tokens pull both ways: their moves add up to {times:.0f} times what is left of them."
            if times > _MUCH_CANCELS
            else ""
        )
    ]


def _end_said(margins, parts, changed):
    """The last scored token of an answer is always its end of turn."""
    ends = margins[margins["place"] == 1.0].set_index("side").loc[list(SIDES)]
    adds = float(parts[margins["place"] == 1.0].sum())
    each = ", ".join(f"{side} {signed(ends.loc[side, 'change' if changed else 'logp'])} nats" for side in SIDES)
    return (
        f"The end of turn, by which an answer stops, adds {nats(adds)} nats per token to the"
        f" {'change' if changed else 'lead'} ({each})."
    )


def _largest_said(margins, changed):
    order = margins["change"].abs() if changed else -margins["logp"]
    rows = margins.loc[order.sort_values(ascending=False, kind="stable").index[:_NAMED_TOKENS]].to_dict("records")
    named = ", ".join(
        f"{token_name(row['token'])} ({row['side']}, token {row['position']:,})"
        f" {signed(row['change' if changed else 'logp'])}"
        for row in rows
    )
    return f"{'The tokens that moved most' if changed else 'The least likely tokens'}, in nats: {named}."
