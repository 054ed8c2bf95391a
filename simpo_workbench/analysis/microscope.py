"""One pair token by token: what every token adds to its answer's average, to the lead and to the change of the lead.

Pure functions of `wb.explain_pair`'s table.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..base.errors import WorkbenchError
from ..base.format import counted, signed

if TYPE_CHECKING:
    import pandas as pd

SIDES = ("chosen", "rejected")
THIRDS = ("first", "middle", "last")
#: A lead, or a change of it, below this (nats per token) counts as none: two decimals would show it as 0.00.
HARDLY = 0.005
_NAMED_TOKENS = 4
_MUCH_CANCELS = 3.0  # times what is left
_LONGEST_NAME = 24
_MARKS = {"\n": "↵", "\t": "→"}
_COLUMNS = ("side", "position", "token", "logp")


@dataclass(frozen=True)
class PairFacts:
    """Both answers in numbers, and in sentences which one leads with and without dividing by length.

    table: DataFrame with the rows chosen, rejected and lead (chosen − rejected) and the columns side, tokens, sum_logp
    (nats) and avg_logp (nats per token); with a base model also base_sum_logp, base_avg_logp, sum_change, avg_change.
    """

    table: object
    sentences: tuple[str, ...]

    def __str__(self):
        return " ".join(self.sentences)


def token_leads(tokens) -> pd.DataFrame:
    """`wb.explain_pair`'s table with what each token adds to the lead.

    Columns are added: share, what the token adds to its answer's average, logp / |y|; lead_share, what it adds to the
    lead, + share in the chosen answer and − share in the rejected one; place, position / |y|, above 0 up to 1; with
    base_logp also change, logp − base_logp (nats), and change_share, what the token adds to the change of the lead. All
    shares are in nats per token: over all rows lead_share adds up to the lead ℓ(chosen) − ℓ(rejected) (SimPO, arXiv
    2405.14734, eq. 4), and change_share to its change.
    Errors: WorkbenchError for a table that is not explain_pair's, or holds a part of it.
    """
    table = _checked(tokens).reset_index(drop=True)
    length = table.groupby("side")["position"].transform("size")
    sign = table["side"].map({"chosen": 1.0, "rejected": -1.0})
    table["share"] = table["logp"].astype(float) / length
    table["lead_share"] = sign * table["share"]
    if "base_logp" in table:
        table["change"] = table["logp"].astype(float) - table["base_logp"].astype(float)
        table["change_share"] = sign * table["change"] / length
    table["place"] = table["position"] / length
    return table


def pair_facts(tokens) -> PairFacts:
    """PairFacts of `wb.explain_pair`'s table. Errors: as `token_leads`."""
    import pandas as pd

    tokens = token_leads(tokens)
    sides = tokens.groupby("side")
    table = pd.DataFrame({"tokens": sides.size(), "sum_logp": sides["logp"].sum(), "avg_logp": sides["share"].sum()})
    if "change" in tokens:
        table["base_sum_logp"], table["base_avg_logp"] = sides["base_logp"].sum(), sides["base_logp"].mean()
        table["sum_change"] = table["sum_logp"] - table["base_sum_logp"]
        table["avg_change"] = table["avg_logp"] - table["base_avg_logp"]
    table = table.loc[list(SIDES)]
    table.loc["lead"] = table.loc["chosen"] - table.loc["rejected"]
    table = table.astype({"tokens": int}).rename_axis("side").reset_index()
    return PairFacts(table, tuple(_who_leads(table)))


def where_won(tokens) -> list[str]:
    """Sentences on where in the answers the lead changed (without base_logp: where it comes from).

    They name the third of the answers (of each its own), which answer moved, how few tokens carry half, what the end of
    turn adds, and the tokens that moved most. Errors: as `token_leads`.
    """
    tokens = token_leads(tokens)
    changed = "change" in tokens
    parts = tokens["change_share" if changed else "lead_share"]
    return [
        _say_thirds(thirds(tokens), float(parts.sum()), changed),
        *([_say_sides(tokens)] if changed else []),
        *_say_few(parts, changed),
        _say_end(tokens, parts, changed),
        _say_largest(tokens, changed),
    ]


def thirds(tokens) -> list[float]:
    """What each third of the answers adds to the change of the lead (without base_logp: to the lead), nats per token.

    tokens: DataFrame from `token_leads`; a third is each answer's own.
    """
    third = (3 * tokens["place"] - 1e-9).astype(int)  # a token exactly at a third belongs to the part before it
    parts = tokens["change_share" if "change_share" in tokens else "lead_share"]
    return [float(parts[third == number].sum()) for number in range(3)]


def token_name(token: str) -> str:
    """A token's text in quotation marks, cut if long, with signs for invisible characters; not escaped for HTML."""
    text = "".join(
        _MARKS.get(character, f"[U+{ord(character):04X}]" if _unseen(character) else character)
        for character in str(token)[: _LONGEST_NAME + 1]
    )
    return f"“{text if len(text) <= _LONGEST_NAME else text[:_LONGEST_NAME] + '…'}”"


def nats(value: float, *beside: float) -> str:
    """A number of nats with its sign: two decimals, or three if it and the numbers beside it are all below 0.1."""
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
    yield f"Divided by length, as SimPO does, {_say_lead(lead['avg_logp'])}"
    sums = [
        f"{signed(side['sum_logp'], 1)} nats for the {side['side']} answer ({counted(side['tokens'], 'token')})"
        for side in (chosen, rejected)
    ]
    yield f"{_without_division(lead)}: the log-probabilities add up to {' and '.join(sums)}."
    if "base_avg_logp" in lead:
        before, change = lead["base_avg_logp"], lead["avg_change"]
        yield (
            f"Before training the lead was {nats(before, change)} nats per token; it changed by {nats(change, before)}."
        )


def _say_lead(lead):
    if abs(lead) < HARDLY:
        return "neither answer leads."
    return f"the {'chosen' if lead > 0 else 'rejected'} answer leads by {_size(lead)} nats per token."


def _size(value):
    return nats(abs(value)).removeprefix("+")


def _without_division(lead):
    if lead["tokens"] == 0:
        return "Both are equally long, so without dividing by length the same one would lead"
    ahead, shorter = "chosen" if lead["sum_logp"] > 0 else "rejected", "chosen" if lead["tokens"] < 0 else "rejected"
    which = f"{'shorter' if ahead == shorter else 'longer'} answer, the {ahead} one,"
    as_before = abs(lead["avg_logp"]) >= HARDLY and (lead["sum_logp"] > 0) == (lead["avg_logp"] > 0)
    return f"Without dividing by length the {which} would lead{' as well' if as_before else ''}"


def _say_thirds(parts, total, changed):
    listed = ", ".join(f"{name} {nats(part, *parts)}" for name, part in zip(THIRDS, parts, strict=True))
    if abs(total) < HARDLY:
        none = "The lead hardly changed" if changed else "Neither answer leads"
        return f"{none} ({nats(total)} nats per token). By thirds of the answers: {listed}."
    if changed:
        what, won = ("The lead grew", " won") if total > 0 else ("The lead shrank", " lost")
    else:
        what, won = f"The chosen answer {'leads' if total > 0 else 'is behind'}", ""
    largest = max(range(3), key=lambda number: parts[number] / total)
    portion = parts[largest] / total
    how = "the largest part of it"
    if portion >= 1:
        how = "all of it"
    elif portion > 0.5:
        how = "most of it"
    where = f"{how}{won} in the {THIRDS[largest]} third of the answers"
    return f"{what} by {_size(total)} nats per token, {where}. By thirds: {listed}."


def _say_sides(tokens):
    chosen, rejected = (float(tokens.loc[tokens["side"] == side, "change"].mean()) for side in SIDES)
    sentence = (
        f"The chosen answer {_moved(chosen)} ({nats(chosen, rejected)} nats per token), the rejected one"
        f" {_moved(rejected)} ({nats(rejected, chosen)})."
    )
    if chosen <= -HARDLY and chosen - rejected >= HARDLY:
        sentence += (
            " The lead grew all the same, because the rejected answer fell further: only the difference counts in"
            " SimPO's loss."
        )
    return sentence


def _moved(change):
    if abs(change) < HARDLY:
        return "hardly moved"
    return "became likelier" if change > 0 else "became less likely"


def _say_few(parts, changed):
    total = float(parts.sum())
    if abs(total) < HARDLY:
        return []
    pulls = (parts * (1 if total > 0 else -1)).sort_values(ascending=False, kind="stable").cumsum()
    # single tokens pull both ways, so the sum climbs above the total before it comes back
    few = int((pulls < abs(total) / 2 * (1 - 1e-12)).to_numpy().argmin()) + 1
    sentence = (
        f"{few:,} of {counted(len(parts), 'token')} {'carries' if few == 1 else 'carry'} half of"
        f" {'the change' if changed else 'the lead'}."
    )
    times = float(parts.abs().sum()) / abs(total)
    if times > _MUCH_CANCELS:
        sentence += f" Single tokens pull both ways: their moves add up to {times:.0f} times what is left of them."
    return [sentence]


def _say_end(tokens, parts, changed):
    at_end = tokens["place"] == 1.0  # the last scored token of an answer is always its end of turn
    ends = tokens[at_end].set_index("side").loc[list(SIDES), "change" if changed else "logp"]
    each = ", ".join(f"{side} {signed(ends[side])} nats" for side in SIDES)
    return (
        f"The end of turn, with which an answer stops, adds {nats(float(parts[at_end].sum()))} nats per token to the"
        f" {'change' if changed else 'lead'} ({each})."
    )


def _say_largest(tokens, changed):
    order, column = (tokens["change"].abs(), "change") if changed else (-tokens["logp"], "logp")
    rows = tokens.loc[order.sort_values(ascending=False, kind="stable").index[:_NAMED_TOKENS]].to_dict("records")
    named = ", ".join(
        f"{token_name(row['token'])} ({row['side']}, token {row['position']:,}) {signed(row[column])}" for row in rows
    )
    return f"{'The tokens that moved most' if changed else 'The least likely tokens'}, in nats: {named}."
