"""Prompts that quote both answers whole. Most are a judge's, who is shown both, and not what was answered.

Standard library only.
"""

import re

from ..base.format import counted
from .refused import excerpt

#: Characters of each answer: a question may quote shorter ones, such as "yes", as its options.
LEAST_CHARACTERS = 40
#: Share of the pairs from which on a source is refused.
CLEAR_MAJORITY = 2 / 3
#: How a judge's prompt announces an answer, shortly before it: "###Response A:", "[The Start of Assistant A's Answer]".
_ANNOUNCED = re.compile(r"\b(?:answer|response|output|completion|assistant|model|candidate|reply)s?\b", re.IGNORECASE)
_SHORTLY = 60  # characters


def quoting(pair) -> str | None:
    """The content of a pair's last prompt turn where it quotes both answers whole, else None.

    Both answers have LEAST_CHARACTERS, and neither is a part of the other, as a shortened text is of the long one.
    """
    content, chosen, rejected = pair.prompt[-1]["content"], pair.chosen, pair.rejected
    if len(content) <= len(chosen) + len(rejected) or min(len(chosen), len(rejected)) < LEAST_CHARACTERS:
        return None
    chosen, rejected = chosen.strip(), rejected.strip()
    if chosen not in content or rejected not in content or chosen in rejected or rejected in chosen:
        return None
    return content


def is_judged(pair) -> bool:
    """Whether a pair's prompt quotes both answers whole and announces each of them as an answer."""
    content = quoting(pair)
    if content is None:
        return False
    chosen, rejected = pair.chosen.strip(), pair.rejected.strip()
    first, second = sorted((content.find(text), len(text)) for text in (chosen, rejected))
    before_second = max(second[0] - _SHORTLY, sum(first))  # not what the first answer itself says
    before = content[max(0, first[0] - _SHORTLY) : first[0]], content[before_second : second[0]]
    return all(map(_ANNOUNCED.search, before))


def are_judged(pairs) -> bool:
    """Whether the prompts of a clear majority of these pairs are a judge's."""
    others, most_others = 0, (1 - CLEAR_MAJORITY) * len(pairs)
    for pair in pairs:
        others += not is_judged(pair)
        if others > most_others:
            return False
    return bool(pairs)


def quoted_sentence(pairs) -> list[str]:
    """A sentence that counts the prompts which quote both answers whole, with the first; none without any."""
    quoted = [pair for pair in pairs if quoting(pair) is not None]
    if not quoted:
        return []
    quote = "quotes" if len(quoted) == 1 else "quote"
    first = f"first: {quoted[0].where}, {excerpt(quoted[0].prompt_text)}"
    return [f"{counted(len(quoted), 'prompt')} {quote} both answers whole, as a judge's prompt does ({first})"]
