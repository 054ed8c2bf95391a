"""What an answer must say to be right: key facts as texts or patterns, and prompts that bring them along."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import regex

from ..base.errors import WorkbenchError
from .schema import shown, unknown_key

#: A pattern that searches longer, as some would for years, is not found: patterns may come with somebody's data. So
#: `regex` searches and not `re`, which cannot be interrupted.
LONGEST_SEARCH_S = 1.0
#: Curly quotation marks and apostrophes count as straight ones.
_STRAIGHT = str.maketrans("‘’“”", "''\"\"")
#: Keys of a sample prompt that is more than a text.
_PROMPT_KEYS = ("prompt", "expect", "reference")


@dataclass(frozen=True)
class Check:
    """What makes an answer right: it has at least one text of `any`, where there are some, and every text of `all`.

    A text counts where it stands as whole words, in upper or lower case. A text in slashes ("/leaf|leaves/") is a
    regular expression, which is searched without regard to case.
    Errors: WorkbenchError for a check without texts, an empty text or a regular expression that does not compile.
    """

    any: tuple[str, ...] = ()
    all: tuple[str, ...] = ()

    def __post_init__(self):
        if not (self.any or self.all):
            raise WorkbenchError("A check without texts checks nothing: give texts under 'any', 'all' or both.")
        for text in (*self.any, *self.all):
            if not text.strip():
                raise WorkbenchError("A check holds an empty text, which every answer has: take it out.")
            try:
                regex.compile(_pattern(text), regex.IGNORECASE)
            except (regex.error, OverflowError, RecursionError) as error:
                raise WorkbenchError(
                    f"The check {shown(text)} is no regular expression ({error}): correct it, or write the text without"
                    " slashes."
                ) from None

    @classmethod
    def of(cls, value: Any) -> Check:
        """The check in {"any": [...], "all": [...]}, where one text stands for a list of one; also from JSON text, as
        a CSV file holds it.

        Errors: WorkbenchError for anything else, and as the class has it.
        """
        if isinstance(value, Check):
            return value
        given = value
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                value = None
        if not isinstance(value, Mapping):
            raise WorkbenchError(
                f'A check is a mapping such as {{"any": ["Paris"]}} with the keys any and all; got {shown(given)}.'
            )
        unknown = [str(key) for key in value if key not in ("any", "all")]
        if unknown:
            raise WorkbenchError(unknown_key(unknown[0], "expect", ["any", "all"]))
        return cls(**{key: _texts(key, texts) for key, texts in value.items() if texts is not None})

    def as_dict(self) -> dict[str, list[str]]:
        """{"any": [...], "all": [...]} without the empty one; `of` gives the check back."""
        return {key: list(texts) for key, texts in (("any", self.any), ("all", self.all)) if texts}

    def passes(self, answer: str) -> bool:
        """Whether an answer is right by this check."""
        return all(_is_in(text, answer) for text in self.all) and (
            not self.any or any(_is_in(text, answer) for text in self.any)
        )


def checked_prompt(value: Any) -> str | dict:
    """A sample prompt as configurations keep it: its text where it has neither check nor reference, else a mapping.

    value: a text, or a mapping {prompt, expect, reference} of which only prompt is needed.
    Errors: WorkbenchError that begins with "generation.prompts" and names the prompt.
    """
    if isinstance(value, str):
        return value
    expected = "expected texts, or mappings {prompt, expect, reference}"
    if not isinstance(value, Mapping):
        raise WorkbenchError(f"generation.prompts holds {shown(value)}: {expected}.")
    unknown = [str(key) for key in value if key not in _PROMPT_KEYS]
    if unknown:
        raise WorkbenchError(f"generation.prompts: {unknown_key(unknown[0], 'prompts', list(_PROMPT_KEYS))}")
    prompt, reference = value.get("prompt"), value.get("reference")
    if not isinstance(prompt, str) or not prompt.strip():
        raise WorkbenchError(f"generation.prompts holds {shown(dict(value))}, whose prompt is no text: {expected}.")
    if not isinstance(reference, str | None):
        raise WorkbenchError(
            f"generation.prompts has the reference {shown(reference)} for {shown(prompt)}: expected a text."
        )
    kept = {"prompt": prompt}
    if value.get("expect") is not None:
        try:
            kept["expect"] = Check.of(value["expect"]).as_dict()
        except WorkbenchError as error:
            raise WorkbenchError(
                f"generation.prompts has a check for {shown(prompt)} that cannot be used: {error}"
            ) from None
    if reference:
        kept["reference"] = reference
    return kept if len(kept) > 1 else prompt


def _texts(key, value):
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise WorkbenchError(
            f"{key!r} of a check is {shown(value)}: expected a text or a list of texts; put numbers in quotes."
        )
    return tuple(texts)


def _pattern(text):
    if len(text) > 2 and text.startswith("/") and text.endswith("/"):
        return text[1:-1]
    before, after = (_boundary(text[place]) for place in (0, -1))
    return f"{before[0]}{regex.escape(text)}{after[1]}"


def _boundary(character):
    """What may not stand before and after a text that begins or ends with this character.

    "5" is not in "3.5" or "5,000". Chinese, Japanese and Thai put no spaces between words, so any place is a boundary.
    """
    if regex.fullmatch(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]", character):
        return "", ""
    if character.isdigit():
        return r"(?<!\w)(?<!\d[.,])", r"(?!\w)(?![.,]\d)"
    return r"(?<!\w)", r"(?!\w)"


def _is_in(text, answer):
    try:
        pattern, answer = (side.translate(_STRAIGHT) for side in (_pattern(text), answer))
        return regex.search(pattern, answer, regex.IGNORECASE, timeout=LONGEST_SEARCH_S) is not None
    except TimeoutError:
        return False
