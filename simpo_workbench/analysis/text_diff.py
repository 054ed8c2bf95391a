"""What two texts share and what only one of them says, word by word. Pure functions, in bounded time for any texts."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from itertools import accumulate

#: The most steps of one comparison, 0.1 to 0.3 µs each. difflib's time can grow with the third power of the length: two
#: loops of 1,000 words each would take seconds, two of 10,000 hours.
MOST_STEPS = 1_000_000
_LEAST_SHARED = 0.2  # of the longer text's characters; below it, marks on single words would hide what was written
# a word includes the space before it; scripts without spaces between words are compared by character
_WORDS = re.compile(
    r"\s*(?:[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]|[^\W\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]+|[^\w\s])|\s+"
)
_SENTENCES = re.compile(r"[^.!?。！？\n]*[.!?。！？\n]+\s*|[^.!?。！？\n]+")


def differences(left: str, right: str) -> list[tuple[str, str]]:
    """Parts (kind, text) in reading order: "same", "left" for text on the left only, "right" on the right only.

    The parts "same" and "left" joined are the left text, "same" and "right" the right one.
    """
    for pieces, autojunk in ((_WORDS, False), (_WORDS, True), (_SENTENCES, True)):
        try:
            parts = _compared(pieces.findall(left), pieces.findall(right), autojunk)
            break
        except _TooManyStepsError:
            continue
    else:
        return _whole(left, right)
    parts = _joined(_without_crumbs(_joined(parts)))
    shared = sum(len(text) for kind, text in parts if kind == "same")
    return parts if shared >= _LEAST_SHARED * max(len(left), len(right)) else _whole(left, right)


def _whole(left, right):
    return _joined([("left", left), ("right", right)])


def _joined(parts):
    """Neighbours joined: between two shared parts at most one of the left text and then one of the right."""
    joined, changed = [], {"left": "", "right": ""}

    def close():
        joined.extend((kind, text) for kind, text in changed.items() if text)
        changed.update(left="", right="")

    for kind, text in parts:
        if kind != "same":
            changed[kind] += text
            continue
        close()
        if joined and joined[-1][0] == "same":
            joined[-1] = ("same", joined[-1][1] + text)
        elif text:
            joined.append((kind, text))
    close()
    return joined


def _without_crumbs(parts):
    """Parts in which a shared full stop or blank between two changes belongs to both changes."""
    for index, (kind, text) in enumerate(parts):
        if kind == "same" and 0 < index < len(parts) - 1 and not re.search(r"\w", text):
            yield from (("left", text), ("right", text))
        else:
            yield kind, text


def _compared(left, right, autojunk):
    """Two lists of pieces as parts. Errors: _TooManyStepsError."""
    start = _shared_at_start(left, right)
    end = _shared_at_start(left[start:][::-1], right[start:][::-1])
    left_middle, right_middle = left[start : len(left) - end], right[start : len(right) - end]
    parts = [("same", "".join(left[:start]))]
    for kind, i, i_end, j, j_end in _BoundedMatcher(left_middle, right_middle, autojunk).get_opcodes():
        if kind == "equal":
            parts.append(("same", "".join(left_middle[i:i_end])))
        else:
            parts += [("left", "".join(left_middle[i:i_end])), ("right", "".join(right_middle[j:j_end]))]
    return [*parts, ("same", "".join(left[len(left) - end :]))]


class _TooManyStepsError(Exception):
    """Two lists of pieces cannot be compared in MOST_STEPS steps."""


class _BoundedMatcher(SequenceMatcher):
    """A SequenceMatcher that raises _TooManyStepsError instead of taking more than MOST_STEPS steps.

    autojunk: whether a piece that is more than 1 % of 200 or more on the right is only used to extend a match, never to
    find one: long texts then take far fewer steps, but a text that repeats itself has little else to match.
    """

    def __init__(self, left, right, autojunk):
        super().__init__(None, left, right, autojunk)
        costs = (1 + len(self.b2j.get(piece, ())) for piece in left)
        self._steps_before = list(accumulate(costs, initial=0))  # of one search, up to each piece on the left
        self._steps_left = MOST_STEPS

    def find_longest_match(self, alo=0, ahi=None, blo=0, bhi=None):
        """The longest match in a part of both lists, as in SequenceMatcher, which asks for one part after another."""
        stop = len(self.a) if ahi is None else ahi
        self._steps_left -= self._steps_before[stop] - self._steps_before[alo]
        if self._steps_left < 0:
            raise _TooManyStepsError
        return super().find_longest_match(alo, ahi, blo, bhi)


def _shared_at_start(left, right):
    """The number of equal pieces at the start of both lists."""
    shared = 0
    while shared < min(len(left), len(right)) and left[shared] == right[shared]:
        shared += 1
    return shared
