"""Where an answer begins in what a chat template writes, and what of it is scored: pure functions of texts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from . import mismatch
from .turn_forms import holds_texts

NO_CALLS = "an answer is a tool call, which the chat template does not write, or not all of it"
_ANY_TAG = re.compile("|".join(re.escape(tag) for tags in mismatch.THINKING for tag in tags))


@dataclass(frozen=True)
class Placement:
    """How to make the text in front of an answer from a rendered prompt: `cut` off its end, then `lead` added.

    options: what the template is given beside the messages.
    """

    options: dict = field(default_factory=dict)
    cut: str = ""
    lead: str = ""

    def start(self, prompt: str) -> str:
        """The text in front of the answer. prompt: rendered with the generation prompt."""
        return prompt.removesuffix(self.cut) + self.lead


class RenderedPair(NamedTuple):
    """One pair as the template writes it: the prompt up to the first answer token, and both answers without their end.

    placement: how `prompt` follows from the rendered prompt. kinds: how the pair differs from the template's writing,
    as (kind, text in which it shows). refusal: why the pair cannot be used, else an empty text. thinking: answers that
    bring thinking of their own.
    """

    prompt: str
    placement: Placement
    chosen: str
    rejected: str
    kinds: tuple[tuple[str, str], ...] = ()
    refusal: str = ""
    thinking: int = 0


@dataclass(frozen=True)
class Mode:
    """What a template puts around an answer under given options.

    header: from the end of a user's text to the answer, without thinking. thinking: what the generation prompt writes
    of thinking behind it. cut, lead: the placement of an answer without thinking. is_open: whether the generation
    prompt opens a thinking block.
    """

    options: dict
    header: str
    thinking: str
    cut: str
    lead: str
    is_open: bool

    @property
    def plain(self) -> Placement:
        """Where an answer without thinking begins."""
        return Placement(self.options, self.cut, self.lead)

    @property
    def bare(self) -> Placement:
        """The end of the generation prompt."""
        return Placement(self.options)

    @property
    def head(self) -> Placement:
        """In front of any thinking."""
        return Placement(self.options, self.thinking)

    def placements(self, own: tuple[bool, bool]) -> list[Placement]:
        """Where the answers of a pair may begin, the best first. own: which of them bring thinking."""
        if not any(own):
            return [self.plain, self.bare]
        return [self.bare, self.head] if all(own) and self.is_open else [self.head, self.bare]


def mode_of(options: dict, prompt_end: str, answer_start: str, tags) -> Mode:
    """The Mode of a template.

    prompt_end: the rendered prompt behind the user's text. answer_start: the rendered conversation from there to the
    answer.
    """
    at = prompt_end.find(tags[0]) if tags else -1
    header, thinking = (prompt_end[:at], prompt_end[at:]) if at >= 0 else (prompt_end, "")
    cut = lead = ""
    if answer_start.startswith(prompt_end):
        lead = answer_start[len(prompt_end) :]
    opens = bool(tags) and mismatch.is_open(thinking, tags)
    if opens and not lead and answer_start.startswith(header) and not answer_start.startswith(prompt_end):
        cut, lead = thinking, answer_start[len(header) :]
    return Mode(options, header, thinking, cut, lead, opens)


class Answer(NamedTuple):
    """One answer as given: its text as the data has it, whether it thinks, and texts that a rendering must hold.

    completed: with the opening tag that the data left to the generation prompt, or with the reasoning of its own field.
    reasoning: that of a field, without thinking tags. calls: the texts of its calls, of `call_texts`. note: the kind of
    difference to the data that `completed` already has.
    """

    text: str
    completed: str
    thinks: bool = False
    reasoning: str = ""
    calls: tuple[tuple[str, ...], ...] = ()
    note: str = ""


class Placer:
    """Finds the answers of pairs in rendered conversations. tags: the template's thinking tags, or None.

    end_of_turn, space: the template's text behind an answer, and its white space in front of one.
    readable: gives a text back its control tokens, where something else stands for them.
    """

    readable = staticmethod(str)

    def __init__(self, tags, end_of_turn: str, space: str, openers: tuple[str, ...]):
        self._tags, self._end, self._space, self._openers = tags, end_of_turn, space, openers

    def place(self, mode: Mode, prompt: str, answers, conversations) -> RenderedPair:
        """The RenderedPair of a prompt and of the conversations with either answer.

        answers: (chosen, rejected) as Answer; conversations: both as rendered.
        """
        own = tuple(answer.thinks for answer in answers)
        for placement in mode.placements(own):
            start = placement.start(prompt)
            if prompt.endswith(placement.cut) and all(text.startswith(start) for text in conversations):
                break
        else:
            return self._not_placed(mode, prompt, answers, conversations, own)
        bodies, kinds, lost = [], [], []
        head = len(mode.head.start(prompt)) if any(own) else len(start)
        for answer, text in zip(answers, conversations, strict=True):
            body, kind = self._body(text[len(start) :], answer, start[head:])
            lost.append(
                answer.thinks and self._tags[1] in answer.completed and self._tags[1] not in start[head:] + body
            )
            if kind == mismatch.UNPLACED and not lost[-1]:
                body = _behind(start[head:], answer.completed)
            bodies.append(body)
            if kind and not lost[-1]:
                kinds.append((kind, answer.text if kind == mismatch.UNPLACED else body))
        if any(lost):
            return self._kept(mode, prompt, answers, conversations, kinds, own)
        if not all(map(_writes_calls, answers, bodies)):
            return RenderedPair(start, placement, *bodies, refusal=NO_CALLS)
        return self._checked(mode, RenderedPair(start, placement, *bodies, tuple(kinds), thinking=sum(own)))

    def _kept(self, mode, prompt, answers, conversations, kinds, own):
        """The pair with the reasoning that the template drops from answers; refused for a call, which is no text."""
        placement = mode.bare if all(own) and mode.is_open else mode.head
        start, head = placement.start(prompt), len(mode.head.start(prompt))
        bodies = []
        for answer, text in zip(answers, conversations, strict=True):
            if answer.thinks:
                bodies.append(_behind(start[head:], _without_end(answer.completed, self._end)))
                kinds.append((mismatch.KEPT, answer.completed))
            else:
                bodies.append(self._body(text[len(start) :], answer, "")[0] if text.startswith(start) else answer.text)
        if not all(map(_writes_calls, answers, bodies)):
            return RenderedPair(start, placement, *bodies, refusal=NO_CALLS)
        return self._checked(mode, RenderedPair(start, placement, *bodies, tuple(kinds), thinking=sum(own)))

    def _not_placed(self, mode, prompt, answers, conversations, own):
        """The pair in the data's form, because the conversations do not begin with the prompt."""
        placement = mode.placements(own)[0]
        start = placement.start(prompt)
        head = len(mode.head.start(prompt)) if any(own) else len(start)
        if any(answer.calls for answer in answers):
            return RenderedPair(start, placement, answers[0].text, answers[1].text, refusal=NO_CALLS)
        found = all(answer.text in text for answer, text in zip(answers, conversations, strict=True))
        kind = (mismatch.PROMPT, _difference(start, conversations)) if found else (mismatch.UNPLACED, answers[0].text)
        bodies = [_behind(start[head:], answer.completed) if answer.thinks else answer.text for answer in answers]
        return self._checked(mode, RenderedPair(start, placement, *bodies, (kind,), thinking=sum(own)))

    def _body(self, rest, answer, opened):
        """(the answer in the text after the prompt, how it differs from the data or None).

        opened: what the prompt holds of the answer's thinking.
        """
        body = rest.rpartition(self._end)[0] if self._end else rest
        while self._end and body.rstrip().endswith(self._end):
            body = body.rstrip().removesuffix(self._end)
        text = answer.completed
        if opened + body == text:
            return body, answer.note or None
        if self._space and body.startswith(self._space):
            body = body.removeprefix(self._space)
        if text and body.strip() == text.strip() and body.startswith(text):
            return text, None  # white space that the template has between an answer and its end
        whole = (opened + body).strip()
        if answer.reasoning or answer.calls:
            # reasoning that is not written is counted by its own kind
            return body, None if answer.text.strip() in whole else mismatch.UNPLACED
        if whole == text.strip():
            return body, mismatch.SPACE
        if whole == _without_end(text, self._end).strip():
            return body, mismatch.MARKS
        return body, mismatch.RESHAPED if _holds_all(whole, _without_end(text, self._end)) else mismatch.UNPLACED

    def _checked(self, mode, pair):
        """The pair with what is wrong with its thinking, if anything."""
        lead = pair.prompt.rpartition(mode.header)[2] if mode.header in pair.prompt else ""
        faults = []
        for text in (pair.chosen, pair.rejected):
            shown_lead, shown = self.readable(lead), self.readable(text)
            written = shown_lead + shown
            if not ("think" in written or "THINK" in written or "channel" in written):
                continue  # quick: most answers
            for tags in (self._tags,) if self._tags else mismatch.THINKING:
                if fault := mismatch.thinking_fault(shown_lead, shown, tags):
                    faults.append((fault, written))
        return pair._replace(kinds=(*pair.kinds, *faults)) if faults else pair

    def frames(self, texts) -> list[tuple[str, str]]:
        """The (kind, text) of texts that begin with what the template itself writes in front of a turn."""
        return [(mismatch.FRAME, text) for text in texts if self._is_framed(text.lstrip())]

    def _is_framed(self, text):
        # what stands for a control token is beyond the characters of most texts
        return text.startswith(self._openers) or (text[:1] > "\uffff" and self.readable(text).startswith(self._openers))


def _writes_calls(answer, body):
    """Whether what is scored holds the whole of an answer's calls, and its text beside them."""
    text = answer.text.strip()
    if not answer.calls:
        return True
    return text in body and holds_texts(body.replace(text, "", 1) if text else body, answer.calls)


def _holds_all(written, text):
    """Whether a text holds all of another one in its order, thinking tags and white space aside."""
    at, words = 0, " ".join(_ANY_TAG.sub(" ", written).split())
    for part in _ANY_TAG.split(text):
        part = " ".join(part.split())
        found = words.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _difference(start, conversations):
    """Where a prompt differs from the conversations that should begin with it."""
    texts = zip(start, *conversations, strict=False)
    at = next((at for at, characters in enumerate(texts) if len(set(characters)) > 1), len(start))
    return start[max(at - 20, 0) :]


def _behind(opened, text):
    """An answer without the beginning that the prompt has written: "<think>" and white space."""
    tag = opened.rstrip()
    if text.startswith(opened) or not (tag and text.lstrip().startswith(tag)):
        return text.removeprefix(opened)
    return text.lstrip().removeprefix(tag).lstrip("\n")


def _without_end(text, end):
    text = text.rstrip() if end and text.rstrip().endswith(end) else text
    while end and text.endswith(end):
        text = text.removesuffix(end).rstrip()
    return text
