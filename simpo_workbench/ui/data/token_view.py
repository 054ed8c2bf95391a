"""One pair token by token, as the model sees it: every token marked by its kind, with visible white space."""

from __future__ import annotations

import re
import unicodedata

from ...base.format import counted
from ..parts.html import Html, Markup, facts, html, joined

_SIDES = {"prompt": "Prompt", "chosen": "Chosen answer", "rejected": "Rejected answer"}
_CLASSES = {"template": "template", "prompt": "prompt", "answer": "answer", "end of turn": "end"}
_LEGEND = (
    ("template", "", "the chat template's own: marks of turns, roles, what it adds by itself"),
    ("prompt", "", "prompt: read, not scored"),
    ("answer", "chosen", "scored token of the chosen answer"),
    ("answer", "rejected", "scored token of the rejected answer"),
    ("end", "", "end of turn: scored too"),
)


class TokenView(Html):
    """Shows the DataFrame of `wb.encode_pair` (side, position, token_id, token, scored, kind), or a sentence."""

    def __init__(self):
        super().__init__()
        self.add_class("swb-tokenview")

    def show(self, tokens) -> None:
        """Show the tokens of one pair."""
        self.value = token_cards(tokens)

    def tell(self, sentence: str, tone: str = "muted") -> None:
        """Show a sentence in place of the tokens. tone: muted or error."""
        self.value = html('<p class="swb-{}" role="status">{}</p>', tone, sentence)


def token_cards(tokens) -> Markup:
    """The legend, the prompt, and both answers side by side, with counts under each."""
    cards = {side: _card(side, tokens[tokens["side"] == side].to_dict("records")) for side in _SIDES}
    report = ""
    if tokens.attrs.get("report"):
        report = html('<p class="swb-notice swb-attention">{}</p>', tokens.attrs["report"])
    return html(
        '{}{}<div class="swb-cards">{}</div><div class="swb-cards">{}</div>',
        _legend(),
        report,
        cards["prompt"],
        cards["chosen"] + cards["rejected"],
    )


def _legend():
    entries = (
        html('<li><span class="swb-token swb-token-{} swb-side-{}">{}</span> {}</li>', kind, side, "token", words)
        for kind, side, words in _LEGEND
    )
    return html(
        '<ul class="swb-legend" aria-label="{}">{}<li>{}</li></ul>',
        "Legend",
        joined(entries),
        "· space, ↵ line break; point at a token for its place and id",
    )


def _card(side, tokens):
    kinds = [token["kind"] for token in tokens]
    scored = sum(bool(token["scored"]) for token in tokens)
    if side == "prompt":
        known = [counted(len(tokens), "token"), f"{kinds.count('template'):,} of them the template's", "none scored"]
    else:
        known = [
            counted(scored, "scored token"),
            "the end of turn among them" if "end of turn" in kinds else "without end of turn",
        ]
    shown = joined(_token(side, token) for token in tokens)
    return html(
        '<section class="swb-card"><h4 class="swb-{}">{}</h4><div class="swb-text swb-tokens" tabindex="0" role="group"'
        ' aria-label="{}">{}</div>{}</section>',
        side,
        _SIDES[side],
        f"{_SIDES[side]}, {known[0]}",
        shown,
        facts(*known),
    )


def _token(side, token):
    title = f"{token['kind']}, token {token['position']} of the {side}, id {token['token_id']}"
    return html(
        '<span class="swb-token swb-token-{} swb-side-{}" title="{}">{}</span>',
        _CLASSES.get(token["kind"], "prompt"),
        side,
        title,
        visible(token["token"]),
    )


def visible(text: str) -> Markup:
    """A token's text, white space marked for the style sheet, invisible characters replaced by their code points."""
    return joined(_piece(piece) for piece in re.split(r"([ \t\n])", text) if piece)


def _piece(piece):
    if piece in " \t\n":
        return html('<span class="swb-{}">{}</span>', {" ": "space", "\t": "tab", "\n": "newline"}[piece], piece)
    return joined(
        html('<span class="swb-unseen">{}</span>', f"U+{ord(character):04X}") if _unseen(character) else character
        for character in piece
    )


def _unseen(character):
    invisible = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return invisible or (character.isspace() and character != " ")
