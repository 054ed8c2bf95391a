"""Both answers of a pair as text with a heat map: how far each token moved, or how likely the model found it."""

from __future__ import annotations

from itertools import accumulate, pairwise

from ...analysis.microscope import SIDES
from ...analysis.text_diff import differences
from ...base.format import counted, signed
from ..data.token_view import visible
from ..parts.html import Markup, facts, html, joined

CHANGE, TUNED, BASE = "change", "logp", "base_logp"
#: Steps of the background colour: from how many nats on, and what that means. They are the same for every pair, so that
#: two pairs can be compared.
CHANGE_STEPS = (
    (0.1, "10 % likelier"),
    (0.3, "a third likelier"),
    (1.0, "3 times as likely"),
    (3.0, "20 times as likely"),
)
LOGP_STEPS = ((0.1, "below 90 %"), (0.7, "below 50 %"), (2.3, "below 10 %"), (4.6, "below 1 %"))
#: Tokens of one answer that are shown; of a longer one its beginning and its end.
MOST_SHOWN = 1000


def heat_text(tokens, what: str = CHANGE) -> Markup:
    """A legend and both answers side by side, each token with its numbers as tooltip.

    Tokens that only one answer has are underlined. tokens: DataFrame from `token_leads`. what: "change" (tuned − base),
    "logp" or "base_logp"; without base_logp always "logp". Of an answer of more than MOST_SHOWN tokens the middle is
    left out, and a note says so.
    """
    what = what if what in tokens else TUNED
    sides = {side: tokens[tokens["side"] == side].sort_values("position").to_dict("records") for side in SIDES}
    marks, shared = _only_here(sides)
    cards = (_card(side, sides[side], marks[side], what) for side in SIDES)
    return html(
        '<div class="swb-heats">{}<div class="swb-cards">{}</div></div>',
        _legend(what, shared, CHANGE in tokens),
        joined(cards),
    )


def strength(value: float, what: str) -> int:
    """The step, 0 to 4, of the background of a token with this change or log-probability."""
    steps = CHANGE_STEPS if what == CHANGE else LOGP_STEPS
    return sum(abs(value) >= least for least, _ in steps)


def _legend(what, shared, tuned):
    if what == CHANGE:
        likelier = [f"{least:g} nats ({words})" for least, words in CHANGE_STEPS]
        rows = [
            ("up", "bar above: likelier than in the base model, from", likelier),
            ("down", "bar below: less likely, by the same steps", [f"−{least:g}" for least, _ in CHANGE_STEPS]),
        ]
    else:
        whose = "the tuned model" if tuned else "the model"
        if what == BASE:
            whose = "the base model"
        words = f"the darker, the less {whose} expected the token: probability"
        rows = [("low", words, [words for _, words in LOGP_STEPS])]
    entries = []
    for kind, words, steps in rows:
        pattern = f'<span class="swb-token swb-heat-{kind}{{}}">{{}}</span>'
        samples = (html(pattern, number, step) for number, step in enumerate(steps, 1))
        entries.append(html("<li>{} {}</li>", words, joined(samples, " ")))
    if shared:
        sample = html('<span class="swb-token swb-only">{}</span>', "underlined")
        entries.append(html("<li>{} {}</li>", sample, "only this answer says it"))
    else:
        entries.append(html("<li>{}</li>", "what only one answer says is not marked: the two share too few words"))
    entries.append(html("<li>{}</li>", "point at a token for its numbers"))
    return html('<ul class="swb-legend" aria-label="{}">{}</ul>', "Legend", joined(entries))


def _card(side, tokens, marks, what):
    shown = [
        _token(side, token, only, what)
        for token, only in zip(tokens, marks, strict=True)
        if not _left_out(token["position"], len(tokens))
    ]
    if (missing := len(tokens) - len(shown)) > 0:
        words = f"… {missing:,} tokens in the middle are not shown here …"
        shown.insert(MOST_SHOWN // 2, html('<span class="swb-muted swb-gap">{}</span>', words))
    average = sum(token["logp"] for token in tokens) / len(tokens)
    numbers = [counted(len(tokens), "token"), f"average {signed(average)} nats per token"]
    if CHANGE in tokens[0]:
        base = sum(token["base_logp"] for token in tokens) / len(tokens)
        change = f"average {signed(base)} → {signed(average)} nats per token ({signed(average - base)})"
        numbers = [numbers[0], change, _moved(tokens)]
    return html(
        '<section class="swb-card"><h4 class="swb-{}">{}</h4><div class="swb-text swb-tokens" tabindex="0" role="group"'
        ' aria-label="{}">{}</div>{}</section>',
        side,
        f"{side} answer",
        f"{side} answer, {', '.join(numbers)}",
        joined(shown),
        facts(*numbers),
    )


def _moved(tokens):
    steps = [strength(token[CHANGE], CHANGE) * (1 if token[CHANGE] > 0 else -1) for token in tokens]
    return (
        f"{sum(step > 0 for step in steps):,} likelier, {sum(step < 0 for step in steps):,} less likely by"
        f" {CHANGE_STEPS[0][0]:g} nats or more"
    )


def _left_out(position, length):
    return length > MOST_SHOWN and MOST_SHOWN // 2 < position <= length - MOST_SHOWN // 2


def _token(side, token, only, what):
    level, kind = strength(token[what], what), "low"
    if what == CHANGE:
        kind = "up" if token[what] > 0 else "down"
    classes = f"{f' swb-heat-{kind}{level}' if level else ''}{' swb-only' if only else ''}"
    numbers, adds, to = f"{signed(token['logp'], 3)} nats", token["lead_share"], "lead"
    if CHANGE in token:
        numbers = f"{signed(token[BASE], 3)} → {numbers} ({signed(token[CHANGE], 3)})"
        adds, to = token["change_share"], "change of the lead"
    title = f"{side} token {token['position']}: {numbers}; adds {signed(adds, 4)} to the {to}"
    if only:
        title += "; only in this answer"
    return html('<span class="swb-token{}" title="{}">{}</span>', classes, title, visible(token["token"]))


def _only_here(sides):
    """({side: for each token whether only this answer says it}, whether the two answers share enough to tell)."""
    # some tokenizers leave the spaces between words out of the tokens' texts: then each token counts as a word
    space = "" if any(" " in token["token"] for tokens in sides.values() for token in tokens) else " "
    # without the last token, the end of turn
    pieces = {side: [space + token["token"] for token in tokens[:-1]] for side, tokens in sides.items()}
    parts = differences("".join(pieces["chosen"]), "".join(pieces["rejected"]))
    if all(kind != "same" for kind, _ in parts):
        return {side: [False] * len(tokens) for side, tokens in sides.items()}, False
    marks = {}
    for side, kind in zip(SIDES, ("left", "right"), strict=True):
        only = "".join(
            ("x" if part == kind and not character.isspace() else " ")
            for part, text in parts
            if part in ("same", kind)
            for character in text
        )
        ends = accumulate(map(len, pieces[side]), initial=0)
        marks[side] = ["x" in only[start:end] for start, end in pairwise(ends)] + [False]
    return marks, True
