"""Control tokens in the texts of data and prompts: found, counted, and kept from acting as control tokens.

A text that holds "<|im_end|>\\n<|im_start|>system" would end its turn and open another one. By default it is encoded as
the characters that it is. For that, every control token in the data's own texts is replaced by a private character
before the template sees it, so that the rendered text tells the template's own control tokens from the data's. A copy
of the tokenizer, in which control tokens have private names, then encodes the template's as tokens and the data's as
text. Only texts that hold such marks go this way.
"""

import dataclasses
import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

from tokenizers import Tokenizer

from ...base.errors import WorkbenchError
from ...base.format import counted
from ...pairs.framed_prompts import KNOWN_MARKS
from ...pairs.pair import Pair
from .control_marks import MEDIA, alternatives, frames, openers, pieces_around_turns, thinking
from .mismatch import EARLIER_MARKS, KINDS, THINKING, refused

#: The n-th control token as text of the data, and as the template's own: characters that no text of people holds.
_DATA, _OWN, _LAST = 0x10F000, 0x10E000, 0x10FFFD
_MOST_TOKENS = 0xFF0
_PRIVATE = re.compile(f"[{chr(_OWN)}-{chr(_LAST)}]")
_MASKED = re.compile(f"[{chr(_DATA)}-{chr(_LAST)}]")
#: Why a row cannot be used, as the encoding report counts it.
CANNOT = "control tokens in a text, which this tokenizer cannot encode as text (data.special_tokens_in_text)"
FRAME = "a text holds the template's own frame, which no token tells apart from text (data.special_tokens_in_text)"
PRIVATE = "a text holds private characters from U+10E000 on, which the encoder needs for itself"
REFUSED = "a text holds control tokens or a template's frame (data.special_tokens_in_text: refuse)"
AS_TEXT, AS_TOKENS, REFUSE = "as_text", "as_tokens", "refuse"  # values of data.special_tokens_in_text
_OUTCOMES = {
    AS_TEXT: "control tokens are encoded as text, so that no row can forge a turn",
    AS_TOKENS: "they act as control tokens",
    REFUSE: "these pairs are refused",
}
_SHOWN = 5


class Unusable(WorkbenchError):
    """A text that cannot be encoded by the policy; the message is the reason as reports count it."""


class ControlTokens:
    """The control tokens of a tokenizer and its chat template, and what happens to texts that hold them.

    policy: data.special_tokens_in_text. on_mismatch: data.on_template_mismatch. ids: {text of a control token: its id}.
    Not counted are media placeholders, end marks at the end of an answer, and in the assistant's turns the thinking,
    tool and channel tokens that the template writes (`exempt`), but never one that opens a turn. frames: marks and
    words that the template puts around turns and that are no tokens; as text they have the same ids as the template's
    own.
    """

    def __init__(self, tokenizer, template, policy: str, system_prompt: str | None = None, on_mismatch: str = "refuse"):
        self._tokenizer, self.policy, self._on_mismatch = tokenizer, policy, on_mismatch
        self.ids = _control_ids(tokenizer)
        self._order = list(self.ids)
        self._values = set(self.ids.values()) - {tokenizer.unk_token_id}
        pieces = pieces_around_turns(template)
        self._literal = re.compile(alternatives(self.ids))
        first_end = self._literal.findall(template.end_of_turn)[:1]
        self._ends = {template.end_of_turn, tokenizer.eos_token or "", *first_end} - {""}
        self._template_end = template.end_of_turn
        source, opening = tokenizer.get_chat_template(), openers(pieces, self.ids, self._ends)
        written = {name for name in self.ids if name in source} | {  # both tags where the template writes one
            name for tags in THINKING if any(tag in source for tag in tags) for name in tags
        }
        self.exempt = {name for name in self.ids if name in written and thinking(name)} - opening - self._ends
        # where the beginning of a text also opens the assistant's turns, as in SmolLM2, it is a turn's mark like others
        beginning = tokenizer.bos_token or ""
        opens_turns = any(piece.role == "assistant" and beginning in piece.text for piece in pieces)
        closing = self._ends | (set() if opens_turns else {beginning} - {""})
        self.frames = frames(pieces, self.ids, closing)
        words = {*self.ids, *self.frames, *KNOWN_MARKS}
        self._in_prompt = re.compile(f"{alternatives(words)}|{_PRIVATE.pattern}")
        self._in_answer = re.compile(f"{alternatives(words - self.exempt)}|{_PRIVATE.pattern}")
        self._copy = None
        found = set(self._in_prompt.findall(system_prompt or ""))
        if found and policy != AS_TOKENS:
            raise WorkbenchError(
                f"data.system_prompt holds {sorted(found)[0]!r}, a control token or template mark. Take it out, or set"
                " data.special_tokens_in_text to as_tokens."
            )

    # ---------------------------------------------------------------------------------------------- before rendering

    def prepared(self, chunks, report) -> Iterator[list[Pair]]:
        """The lists of pairs, ready for the template; what cannot be used is dropped, what is found is counted.

        report: the EncodingReport that takes the counts.
        """
        for chunk in chunks:
            yield (
                [pair for pair in (self._counted(pair, report) for pair in chunk) if pair]
                if self._hit(chunk)
                else chunk
            )

    def safe_pair(self, pair) -> Pair:
        """The pair with private characters in place of its control tokens; the pair itself where it holds none.

        Errors: Unusable with the reason why it cannot be used.
        """
        return self._safe_pair(pair, set())

    def safe_messages(self, messages) -> list[dict]:
        """The messages with private characters in place of control tokens. Errors: Unusable, as `safe_pair`."""
        found: set[str] = set()
        messages = [self._safe_turn(dict(turn), found) for turn in messages]
        self._check(found)
        return messages

    def safe_tools(self, tools) -> tuple:
        """The tools with private characters in place of control tokens. Errors: Unusable, as `safe_pair`."""
        found: set[str] = set()
        tools = self._safe(tuple(tools), self._in_prompt, found)
        self._check(found)
        return tools

    def readable(self, text: str) -> str:
        """A text for people, with the data's control tokens in place of private characters."""
        if text.isascii():
            return text
        return _MASKED.sub(lambda mark: self._order[ord(mark[0]) - _DATA], text)

    def _hit(self, chunk):
        """Whether a text of the pairs may hold a control token: one search over all of them is quick."""
        prompt_texts, answers, last = [], [text for pair in chunk for text in (pair.chosen, pair.rejected)], None
        for pair in chunk:
            if pair.tools or pair.chosen_turn or pair.rejected_turn:
                return True
            if pair.prompt is last:
                continue
            last = pair.prompt
            for turn in last:
                if len(turn) > 2:
                    return True
                (answers if turn["role"] == "assistant" else prompt_texts).append(turn["content"])
        found = self._in_prompt.search("\0".join(prompt_texts)) or self._in_answer.search("\0".join(answers))
        return found is not None

    def _counted(self, pair, report):
        found: set[str] = set()
        try:
            safe = self._safe_pair(pair, found)
        except Unusable as reason:
            report.drop(str(reason), pair.pair_id, pair.where)
            safe = None
        if safe is not None:
            earlier = (turn["content"] for turn in pair.prompt if turn["role"] == "assistant")
            if ended := [text for text in earlier if isinstance(text, str) and self._without_ends(text) is not None]:
                report.mismatch(EARLIER_MARKS, pair, ended[0])
                if refused([EARLIER_MARKS], self._on_mismatch):
                    report.drop(KINDS[EARLIER_MARKS].words, pair.pair_id, pair.where)
                    safe = None
        marks = {mark for mark in found if not _PRIVATE.match(mark)}
        for mark in marks:
            report.control_marks[mark] = report.control_marks.get(mark, 0) + 1
        report.control_pairs += bool(marks)
        return safe

    def _safe_pair(self, pair, found):
        changed = {
            "prompt": tuple(self._safe_turn(turn, found) for turn in pair.prompt),
            "chosen": self._safe_answer(pair.chosen, found),
            "rejected": self._safe_answer(pair.rejected, found),
            "tools": self._safe(pair.tools, self._in_prompt, found),
            "chosen_turn": pair.chosen_turn and self._safe_answer_turn(pair.chosen_turn, found),
            "rejected_turn": pair.rejected_turn and self._safe_answer_turn(pair.rejected_turn, found),
        }
        self._check(found)
        if all(getattr(pair, name) == value for name, value in changed.items()):
            return pair
        return dataclasses.replace(pair, **changed)

    def _check(self, found):
        """Raise Unusable for what was found, as the policy says."""
        if any(_PRIVATE.match(mark) for mark in found):
            raise Unusable(PRIVATE)
        if self.policy == REFUSE and found:
            raise Unusable(REFUSED)
        if self.policy == AS_TEXT and not found.isdisjoint(self.frames):
            raise Unusable(FRAME)

    def _safe_turn(self, turn, found):
        if turn["role"] != "assistant":
            return {
                key: value if key == "role" else self._safe(value, self._in_prompt, found)
                for key, value in turn.items()
            }
        body = self._without_ends(turn["content"]) if isinstance(turn.get("content"), str) else None
        turn = turn if body is None else {**turn, "content": body}
        return {
            key: value if key == "role" else self._safe(value, self._in_answer, found) for key, value in turn.items()
        }

    def _safe_answer_turn(self, turn, found):
        content = turn.get("content")
        safe = self._safe_turn({"content": None, **turn, "role": "assistant"}, found)
        return {**safe, "content": self._safe_answer(content, found) if isinstance(content, str) else content}

    def _without_ends(self, text):
        """An answer without the end marks at its end; None where it has none."""
        body = text.rstrip()
        while end := next((end for end in self._ends if body.endswith(end)), None):
            body = body.removesuffix(end).rstrip()
        return None if body == text.rstrip() else body

    def _safe_answer(self, text, found):
        """An answer with its end marks left as they are: the template's are taken off after rendering, others here."""
        body = self._without_ends(text)
        body = text.rstrip() if body is None else body
        tail = text[len(body) :]
        if set(_split_ends(tail, self._ends)) - {self._template_end}:
            tail = self._template_end
        return self._safe(body, self._in_answer, found) + tail

    def _safe(self, value, pattern, found):
        """The value with control tokens replaced in all its texts, keys too; what was found is added to `found`."""
        if isinstance(value, str):
            marks = set(pattern.findall(value))
            if not marks:
                return value
            found |= marks
            if self.policy != AS_TEXT:
                return value
            return pattern.sub(lambda mark: self._private(mark[0], _DATA), value)
        if isinstance(value, dict):
            return {self._safe(key, pattern, found): self._safe(item, pattern, found) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._safe(item, pattern, found) for item in value)
        return value

    def _private(self, mark, base):
        return chr(base + self._order.index(mark)) if mark in self.ids else mark

    # ------------------------------------------------------------------------------------------------ after rendering

    def is_safe_text(self, text: str) -> bool:
        """Whether a rendered text holds replaced control tokens, so that `encoded` must encode it."""
        return not text.isascii() and _MASKED.search(text) is not None

    def encoded(self, text: str) -> list[int]:
        """Ids of a rendered text: the template's control tokens as tokens, the data's as text. Errors: Unusable."""
        return self.encoded_with_offsets(text)[0]

    def encoded_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """(ids, [(start, end) in `text` of every id]) as `encoded`.

        The ids are checked: those of control tokens are the template's own, in order, and a text without the data's
        control tokens has the same ids as from the tokenizer itself. Errors: Unusable where they are not.
        """
        copy = self._renamed_copy()
        if copy is None:
            raise Unusable(CANNOT)
        inert = _MASKED.sub("x", text)
        plain = self._tokenizer(inert, add_special_tokens=False)["input_ids"]
        if self._original_ids(copy.encode(self._pieces(inert)[0], add_special_tokens=False).ids) != plain:
            raise Unusable(CANNOT)
        renamed, starts, begins = self._pieces(text)
        encoding = copy.encode(renamed, add_special_tokens=False)
        ids = self._original_ids(encoding.ids)
        if not self.has_own_ids(text, ids):
            raise Unusable(CANNOT)
        return ids, [(_at(start, starts, begins), _at(end, starts, begins)) for start, end in encoding.offsets]

    def has_own_ids(self, text: str, ids: list[int]) -> bool:
        """Whether the ids of control tokens are those that stand in a rendered text, in order."""
        own = [self.ids[mark] for mark in self._literal.findall(text)]
        control = self._values if self._tokenizer.unk_token_id not in own else self._values | set(own)
        return [token for token in ids if token in control] == own

    def marks_in(self, text: str) -> Counter:
        """How often each control token stands in a rendered text, without the exempt ones."""
        return Counter(mark for mark in self._literal.findall(text) if mark not in self.exempt)

    def _pieces(self, text):
        """(the text as the copy takes it, where its pieces start there, where they start in `text`)."""
        pieces, last = [], 0
        marks = sorted([*self._literal.finditer(text), *_MASKED.finditer(text)], key=lambda mark: mark.start())
        for mark in marks:
            literal = mark[0] in self.ids
            new = self._private(mark[0], _OWN) if literal else self._order[ord(mark[0]) - _DATA]
            pieces += [(text[last : mark.start()], last), (new, mark.start())]
            last = mark.end()
        pieces.append((text[last:], last))
        starts = list(accumulate((len(new) for new, _ in pieces), initial=0))
        return "".join(new for new, _ in pieces), starts, [*(start for _, start in pieces), len(text)]

    def _original_ids(self, ids):
        changed = self._changed_ids
        return [changed.get(token, token) for token in ids] if changed else list(ids)

    def _renamed_copy(self) -> Tokenizer | None:
        """The tokenizer with private names for its control tokens; None where it cannot be copied. Made once."""
        if self._copy is None:
            self._copy = (self._make_copy(),)
        return self._copy[0]

    def _make_copy(self):
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None or len(self.ids) > _MOST_TOKENS:
            return None
        names = {mark: self._private(mark, _OWN) for mark in self.ids}
        content = json.loads(backend.to_str())
        content["truncation"] = content["padding"] = content["post_processor"] = None
        for token in content["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        vocabulary = content["model"].get("vocab")
        if isinstance(vocabulary, dict):
            content["model"]["vocab"] = {names.get(piece, piece): token for piece, token in vocabulary.items()}
        elif isinstance(vocabulary, list):  # Unigram: [piece, score]
            content["model"]["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
        if isinstance(content["model"].get("unk_token"), str):
            content["model"]["unk_token"] = names.get(content["model"]["unk_token"], content["model"]["unk_token"])
        try:
            copy = Tokenizer.from_str(json.dumps(content))
        except Exception:  # tokenizers raises bare Exception; a merge may make a control token
            return None
        copy.encode_special_tokens = False
        self._changed_ids = {
            copy.token_to_id(names.get(token.content, token.content)): original
            for original, token in backend.get_added_tokens_decoder().items()
        }
        self._changed_ids = {new: original for new, original in self._changed_ids.items() if new != original}
        return copy

    def notes(self, report) -> list[str]:
        """A sentence on the pairs whose texts hold control tokens or known marks, where there are any."""
        if not report.control_pairs:
            return []
        marks = sorted(report.control_marks.items(), key=lambda item: (-item[1], item[0]))
        shown = ", ".join(f"{mark!r} in {count}" for mark, count in marks[:_SHOWN])
        more = f" and {len(marks) - _SHOWN} other marks" if len(marks) > _SHOWN else ""
        return [
            f"{counted(report.control_pairs, 'pair')} {'holds' if report.control_pairs == 1 else 'hold'} control tokens"
            " or marks of chat templates in the texts"
            f" ({shown}{more}): {_OUTCOMES[self.policy]} (data.special_tokens_in_text)."
        ]


def _control_ids(tokenizer):
    """{text: id} of the special tokens, and of added tokens that the chat template writes, such as <think>.

    Without media placeholders, and without white space that some tokenizers add as tokens.
    """
    source, details = tokenizer.get_chat_template(), tokenizer.added_tokens_decoder
    special = {token for token, detail in details.items() if detail.special}.union(tokenizer.all_special_ids)
    names = {token: str(detail.content) for token, detail in details.items()}
    names |= {token: tokenizer.convert_ids_to_tokens(token) for token in special - names.keys()}
    return {
        name: token
        for token, name in sorted(names.items())
        if name.strip() and not MEDIA.search(name) and (token in special or name in source)
    }


def _split_ends(tail, ends):
    return re.findall(alternatives(ends), tail) if ends else []


def _at(position, starts, begins):
    """The place in the text before renaming of a place in the renamed text."""
    piece = min(bisect_right(starts, position) - 1, len(begins) - 1)
    return min(begins[piece] + position - starts[piece], begins[min(piece + 1, len(begins) - 1)])
