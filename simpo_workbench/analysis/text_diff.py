"""What two texts share and what only one of them says, word by word. Pure functions that stay fast for any texts."""

from __future__ import annotations

import re

#: Word by word up to so many words that only one text has; beyond that sentence by sentence, and in the end as a whole.
#: Time grows with its square.
MOST_EDITS = 600
_MOST_PIECES = 20_000
_LEAST_SHARED = 0.2  # of the longer text's characters; below that marks on single words would only be confetti
# a word takes the space before it along; scripts without spaces between words are compared by character
_WORDS = re.compile(
    r"\s*(?:[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]|[^\W\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]+|[^\w\s])|\s+"
)
_SENTENCES = re.compile(r"[^.!?。！？\n]*[.!?。！？\n]+\s*|[^.!?。！？\n]+")


def differences(left: str, right: str) -> list[tuple[str, str]]:
    """Parts (kind, text) in reading order: "same", "left" for what only the left text says, "right" for what only the
    right one says.

    The parts "same" and "left" joined are the left text, "same" and "right" the right one. Shortest edit script: Myers
    (1986), "An O(ND) difference algorithm".
    """
    for pieces in (_WORDS, _SENTENCES):
        found = _edits(pieces.findall(left), pieces.findall(right))
        if found is not None:
            break
    else:
        return _whole(left, right)
    parts = _joined(_without_crumbs(_joined(found)))
    shared = sum(len(text) for kind, text in parts if kind == "same")
    return parts if shared >= _LEAST_SHARED * max(len(left), len(right)) else _whole(left, right)


def _whole(left, right):
    return _joined([("left", left), ("right", right)])


def _joined(parts):
    """Neighbours joined: between two shared parts at most one of the left text and then one of the right."""
    made, changed = [], {"left": "", "right": ""}

    def close():
        made.extend((kind, text) for kind, text in changed.items() if text)
        changed.update(left="", right="")

    for kind, text in parts:
        if kind != "same":
            changed[kind] += text
            continue
        close()
        if made and made[-1][0] == "same":
            made[-1] = ("same", made[-1][1] + text)
        elif text:
            made.append((kind, text))
    close()
    return made


def _without_crumbs(parts):
    """A shared full stop or blank between two changes belongs to both changes: nobody reads it as shared."""
    for index, (kind, text) in enumerate(parts):
        if kind == "same" and 0 < index < len(parts) - 1 and not re.search(r"\w", text):
            yield from (("left", text), ("right", text))
        else:
            yield kind, text


def _edits(left, right):
    """The pieces of both lists as parts; None when the lists are too long or differ in more than MOST_EDITS pieces."""
    if len(left) + len(right) > _MOST_PIECES:
        return None
    start = 0
    while start < min(len(left), len(right)) and left[start] == right[start]:
        start += 1
    end = 0
    while end < min(len(left), len(right)) - start and left[-1 - end] == right[-1 - end]:
        end += 1
    middle = _shortest_script(left[start : len(left) - end], right[start : len(right) - end])
    if middle is None:
        return None
    return [
        *(("same", piece) for piece in left[:start]),
        *middle,
        *(("same", piece) for piece in left[len(left) - end :]),
    ]


def _shortest_script(left, right):
    reached, history = {1: 0}, []  # diagonal (place in left − place in right) -> furthest place in left
    for edits in range(min(len(left) + len(right), MOST_EDITS) + 1):
        history.append(dict(reached))
        for diagonal in range(-edits, edits + 1, 2):
            down = diagonal == -edits or (diagonal != edits and reached[diagonal - 1] < reached[diagonal + 1])
            x = reached[diagonal + 1] if down else reached[diagonal - 1] + 1
            while x < len(left) and x - diagonal < len(right) and left[x] == right[x - diagonal]:
                x += 1
            reached[diagonal] = x
            if x >= len(left) and x - diagonal >= len(right):
                return _way_back(left, right, history)
    return None


def _way_back(left, right, history):
    parts, x, y = [], len(left), len(right)
    for edits in range(len(history) - 1, -1, -1):
        reached, diagonal = history[edits], x - y
        down = diagonal == -edits or (diagonal != edits and reached[diagonal - 1] < reached[diagonal + 1])
        before = diagonal + 1 if down else diagonal - 1
        from_x = reached[before]
        from_y = from_x - before
        while x > max(from_x, 0) and y > max(from_y, 0):
            x, y = x - 1, y - 1
            parts.append(("same", left[x]))
        if edits:
            parts.append(("right", right[from_y]) if down else ("left", left[from_x]))
        x, y = from_x, from_y
    return parts[::-1]
