"""Secrets in the pairs themselves: a model that is trained on a token may say it to anybody."""

from __future__ import annotations

from collections.abc import Iterable

from ..base.redaction import holds_known_secret
from .pair import Pair


def secrets_note(pairs: Iterable[Pair], side: str) -> str:
    """The sentence on pairs that hold what looks like a token, key or password; "" where none does.

    side: what the pairs are called, "training" or "held-out". The secrets are not repeated.
    """
    with_secret = [
        pair.pair_id for pair in pairs if holds_known_secret("\n".join([pair.prompt_text, pair.chosen, pair.rejected]))
    ]
    if not with_secret:
        return ""
    pairs_hold = "pair holds" if len(with_secret) == 1 else "pairs hold"
    return (
        f"{len(with_secret)} {side} {pairs_hold} what looks like a token, key or password, which the model may learn to"
        f" say (pair {with_secret[0]} is the first): take them out before you share model, run folder or data."
    )
