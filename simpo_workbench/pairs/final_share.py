"""The final share of the held-out pairs: kept apart from everything that chooses a step, and scored for the step that
was chosen.

The recommended step is the one that does best on the held-out pairs; its result on the same pairs flatters it. What it
is worth is seen on pairs that had no part in the choice.
"""

from __future__ import annotations

from typing import Literal

from ..base.errors import WorkbenchError
from ..base.format import counted
from .pair import prompt_key
from .pairs import Pairs

#: The share of "auto", and the fewest final pairs for which it is taken.
AUTO_SHARE, AUTO_LEAST = 0.2, 30
_DRAW = "final"


def final_share(held_out: Pairs, fraction: float | Literal["auto"]) -> tuple[Pairs, Pairs, str]:
    """(the pairs to choose a step on, the final pairs, the sentence that says which they are).

    fraction: as data.final_fraction. The share is one of prompts, all pairs of a prompt are on one side, and the side
    follows from the prompts' contents alone. Errors: WorkbenchError where a number leaves no pair on one side.
    """
    if fraction == "auto":
        choosing, final = held_out.by_prompt(AUTO_SHARE, _DRAW)
        if AUTO_LEAST <= len(final) <= len(choosing):
            return choosing, final, _sentence(choosing, final)
        few = "is too few" if len(held_out) == 1 else "are too few"
        return (
            held_out,
            held_out[:0],
            f"{counted(len(held_out), 'held-out pair')} {few} for a final share: the step is chosen and reported on the"
            " same pairs.",
        )
    if not fraction:
        return (
            held_out,
            held_out[:0],
            "No final share is kept (data.final_fraction 0): the step is chosen and reported on the same pairs.",
        )
    choosing, final = held_out.by_prompt(fraction, _DRAW)
    if not choosing or not final:
        purpose = "to choose a step on" if final else "in the final share"
        raise WorkbenchError(
            f"data.final_fraction {fraction:g} of {counted(_prompts(held_out), 'held-out prompt')} leaves none"
            f" {purpose}: hold out more pairs, or set it to another share (0: no final pairs)."
        )
    return choosing, final, _sentence(choosing, final)


def _sentence(choosing, final):
    return (
        f"{len(final)} of {len(choosing) + len(final)} held-out pairs"
        f" ({_prompts(final)} of {counted(_prompts(choosing) + _prompts(final), 'prompt')}) are final pairs, on"
        f" which no step is chosen; the other {len(choosing)} choose it."
    )


def _prompts(pairs):
    return len({prompt_key(pair.prompt) for pair in pairs})
