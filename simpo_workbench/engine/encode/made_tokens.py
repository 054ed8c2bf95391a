"""Control tokens that nobody wrote: a chat template or a normalizer made them of other characters.

"<|im_\\u200bend|>" holds no control token until a template takes zero-width characters out, and "<TOOL_CALL>" none
until a normalizer makes small letters of it. Neither can be told apart from the template's own tokens afterwards, so
such texts are refused.
"""

from collections import Counter

from tokenizers import Tokenizer

from ...base.errors import WorkbenchError
from .turn_forms import is_plain

#: Why a row cannot be used, as the encoding report counts it.
MADE = "the chat template makes a control token of a text (data.special_tokens_in_text)"


class MadeTokens:
    """Looks for control tokens that a ChatTemplate or a tokenizer makes of texts that hold none.

    control: the ControlTokens of both. by_normalizer: whether the tokenizer may make some, so that the ids of every
    text have to be looked at.
    """

    def __init__(self, tokenizer, template, control):
        self._template, self._control = template, control
        self.by_normalizer = _normalizes_tokens(tokenizer, control.ids)
        self._known: dict[tuple, Counter] = {}

    def in_pair(self, pair, rendered) -> bool:
        """Whether the template made a control token of a text of this pair. rendered: its RenderedPair."""
        if self.in_prompt(pair.prompt, rendered.prompt, rendered.placement, pair.tools):
            return True
        sides = (pair.chosen, rendered.chosen, pair.chosen_turn), (pair.rejected, rendered.rejected, pair.rejected_turn)
        return any(
            given != written and not turn and bool(self._control.marks_in(written) - self._control.marks_in(given))
            for given, written, turn in sides
        )

    def in_prompt(self, turns, text: str, placement, tools=()) -> bool:
        """Whether the template made a control token of a text of these turns.

        text: what it wrote in front of the answer, under a Placement.
        """
        for turn in turns:
            content = turn["content"]
            if content and content not in text and content.strip() not in text:
                break
        else:
            return False  # it changed nothing: most prompts
        return bool(self._control.marks_in(text) - self._marks_of_frame(turns, placement, tools))

    def _marks_of_frame(self, turns, placement, tools) -> Counter:
        """The control tokens that the template writes around turns of these roles, whatever they hold."""
        if tools or not all(map(is_plain, turns)):
            return self._marks_around(turns, placement, tools)
        roles = tuple((turn["role"], bool(turn["content"].strip())) for turn in turns)
        key = roles, placement.cut, placement.lead, str(placement.options)
        if key not in self._known:
            self._known[key] = self._marks_around(turns, placement, tools)
        return self._known[key]

    def _marks_around(self, turns, placement, tools):
        stand_ins = [{**turn, "content": "x"} if (turn["content"] or "").strip() else turn for turn in turns]
        try:
            text = self._template.start(self._template.with_system_turn(stand_ins), placement, tools)
        except WorkbenchError:  # what these turns hold decides whether the template takes them
            return Counter()
        return self._control.marks_in(text)


def _normalizes_tokens(tokenizer, names) -> bool:
    """Whether a tokenizer looks for some control tokens in texts that it has changed, or is written in Python."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return True
    added = backend.get_added_tokens_decoder().values()
    return backend.normalizer is not None and any(token.normalized and token.content in names for token in added)
