"""The prompts that are answered at evaluations, with what tells a right answer where that is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..base.errors import WorkbenchError
from ..base.format import counted
from ..config.checks import Check
from ..pairs.framed_prompts import unframed_prompt
from ..pairs.pairs import Pair


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt as messages; its tools, its check and an answer to compare with, where it has them."""

    messages: list[dict]
    check: Check | None = None
    reference: str | None = None
    tools: tuple[dict, ...] = ()


def given_prompt(prompt: str | dict, framed_prompts: str = "refuse") -> SamplePrompt:
    """The SamplePrompt of an item of generation.prompts. framed_prompts: data.framed_prompts.

    Errors: WorkbenchError for a prompt that a chat template has framed already, where such ones are refused.
    """
    values = {"prompt": prompt} if isinstance(prompt, str) else prompt
    check = Check.of(values["expect"]) if "expect" in values else None
    turns = unframed_prompt([{"role": "user", "content": values["prompt"]}], framed_prompts)
    return SamplePrompt(turns, check, values.get("reference"))


def held_out_prompt(pair: Pair, checks: dict[str, Check]) -> SamplePrompt:
    """The SamplePrompt of a held-out pair, with the text in its column `reference`. checks: by pair id."""
    reference = pair.extra.get("reference")
    has_reference = isinstance(reference, str) and reference.strip()
    return SamplePrompt(list(pair.prompt), checks.get(pair.pair_id), reference if has_reference else None, pair.tools)


def held_out_checks(pairs: Iterable[Pair]) -> tuple[dict[str, Check], list[str]]:
    """({pair id: its check}, sentences) from the column `expect`; a sentence says how many checks cannot be used, and
    what is wrong with the first.
    """
    checks, errors = {}, {}
    for pair in pairs:
        expect = pair.extra.get("expect")
        if expect is None or expect != expect or expect == "":  # a table has NaN or "" where there is none
            continue
        try:
            checks[pair.pair_id] = Check.of(expect)
        except WorkbenchError as error:
            errors[pair.pair_id] = str(error)
    if not errors:
        return checks, []
    first, reason = next(iter(errors.items()))
    return checks, [
        f"The checks of {counted(len(errors), 'held-out pair')} (column expect) cannot be used; their answers are not"
        f" checked. The first is that of pair {first}: {reason}"
    ]
