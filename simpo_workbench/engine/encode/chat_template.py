"""What a chat template does to messages: the rendered prompt, the system turn, the texts around an answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from ...base.errors import WorkbenchError, first_line
from ...config.run_config import DataConfig
from . import mismatch
from .chat_rendering import at_moment, render_all
from .rendered_pair import Answer, Mode, Placement, Placer, RenderedPair, mode_of
from .template_check import require_bounded_template
from .template_values import TemplateValues
from .turn_forms import TurnForms, call_texts, holds_texts, is_plain, reasoning_of, tool_names

PROBE = "Zebra quartz"  # a text that no template contains by itself
_ASKED, _AGAIN = "Ochre topaz", "Teal opal"
_USER_TURN = {"role": "user", "content": "x"}
#: Two moments that differ in everything that a template could write of them.
_MOMENTS = (datetime(2001, 2, 3, 4, 5, 6), datetime(2032, 11, 27, 18, 49, 58))
#: Options by which templates switch thinking off, the first that works is taken.
SWITCHES = ({"enable_thinking": False}, {"thinking": False})


class ChatTemplate:
    """The chat template of a tokenizer, with data.template_options and data.system_prompt.

    values: what a run has kept; by default the template's day is that of this call.
    takes_system_turn: whether it renders system turns.
    answer_lead: text between the generation prompt and an answer without thinking, part of the prompt. Usually empty;
    an empty thinking block for some models, the assistant header where a template ignores add_generation_prompt.
    answer_space: white space there (Llama 2: "[/INST] Paris"). Part of the answer, because it merges into its first
    token.
    end_of_turn: text after an answer (<|im_end|>, <|eot_id|>, <end_of_turn>, </s> …), or empty.
    next_turn: the text that opens a user turn after an answer, or empty where the template takes no further turn.
    thinking_switch: the options that switch thinking off where the template opens it; None where it does not, or has no
    switch. values.thinking says whether prompts for sampling think.
    Errors: WorkbenchError when there is no template, or it cannot be used.
    """

    def __init__(self, tokenizer, data: DataConfig, values: TemplateValues | None = None):
        if not tokenizer.chat_template:
            raise WorkbenchError(
                f"The model {tokenizer.name_or_path!r} brings no chat template, so the start and end of an answer are"
                " unknown. Give one with data.chat_template (a Jinja text or a file), or choose the model's instruct"
                " version."
            )
        require_bounded_template(tokenizer, data.template_options)
        self._tokenizer, self._system_prompt = tokenizer, data.system_prompt
        values = values or TemplateValues()
        self.values = replace(values, now=values.now or datetime.now())
        self._options = data.template_options
        self.takes_system_turn = self._renders_system_turn()
        self.tags = self._thinking_tags()
        self.forms = TurnForms(lambda messages, tools: self._rendered(messages, False, self._options, tools))
        self.own, after = self._mode(self._options)
        self.end_of_turn = after.strip()
        self.thinking_switch = self._find_switch()
        self.plain = self._mode({**self._options, **self.thinking_switch})[0] if self.thinking_switch else self.own
        lead = self.plain.lead
        self.answer_lead, self.answer_space = ("", lead) if lead.isspace() else (lead, "")
        if self.answer_space:
            self.plain = replace(self.plain, lead="")
            self.own = self.own if self.thinking_switch else self.plain
        self.next_turn = self._find_next_turn()
        self._placer = Placer(self.tags, self.end_of_turn, self.answer_space, self._openers())

    def read_through(self, readable) -> None:
        """Look for frames and thinking in what `readable` makes of texts: they may hold other characters for tokens."""
        self._placer.readable = readable

    def render(self, messages, add_generation_prompt=True, options=None, tools=()) -> str:
        """The conversation as text. Errors: WorkbenchError with what the template raised."""
        try:
            return self._rendered(messages, add_generation_prompt, options or self._options, self.forms.tools(tools))
        # a template can raise anything, and Jinja's errors have no common base class worth naming
        except Exception as error:
            raise WorkbenchError(
                f"The chat template refused a conversation ({', '.join(m['role'] for m in messages)}):"
                f" {first_line(error)}."
            ) from None

    def prompt_text(self, messages, tools=()) -> str:
        """The rendered prompt up to where an answer begins: one that thinks, or not, as `values.thinking` says."""
        return self.start(self.with_system_turn(messages), self.sampled_placement, tools)

    @property
    def sampled_placement(self) -> Placement:
        """Where sampled answers begin."""
        thinks = self.own.is_open if self.values.thinking is None else self.values.thinking
        return self.own.bare if thinks else self.plain.plain

    def start(self, messages, placement, tools=()) -> str:
        """The text in front of an answer to these turns, under a Placement. Errors: as `render`."""
        return placement.start(self.render(messages, True, placement.options, tools))

    def with_system_turn(self, messages) -> list[dict]:
        """The messages with data.system_prompt as system turn where they have none; an empty system turn is none.

        For a template without system turns the system text is put in front of the first user turn. Errors:
        WorkbenchError where there is none.
        """
        messages = self.forms.turns(
            [turn for turn in messages if turn["role"] != "system" or not _is_blank(turn["content"])]
        )
        if self._system_prompt and not (messages and messages[0]["role"] == "system"):
            messages.insert(0, {"role": "system", "content": self._system_prompt})
        if len(messages) > 1 and messages[0]["role"] == "system" and not self.takes_system_turn:
            system = messages.pop(0)
            first = next((place for place, turn in enumerate(messages) if turn["role"] == "user"), None)
            if first is None:
                raise WorkbenchError(
                    "The chat template has no system turn, and the conversation has no user turn that could take the"
                    " system text. Add one, or leave the system turn out."
                )
            content = f"{system['content']}\n\n{messages[first]['content'] or ''}"
            messages[first] = {**messages[first], "content": content}
        return messages

    def render_pairs(self, pairs) -> list[RenderedPair]:
        """Every pair as text; a prompt shared by neighboring pairs is rendered once."""
        prompts, conversations, plans = [], [], []
        before = None
        for pair in pairs:
            answers = self._answer(pair.chosen, pair.chosen_turn), self._answer(pair.rejected, pair.rejected_turn)
            mode = self.own if answers[0][0].thinks or answers[1][0].thinks else self.plain
            same = before is not None and mode is before[0] and pair.prompt == before[1] and pair.tools == before[2]
            if not same:
                prompts.append((mode.options, self._messages(pair), self.forms.tools(pair.tools)))
                before = mode, pair.prompt, pair.tools
            options, messages, tools = prompts[-1]
            refused = isinstance(messages, Exception)
            conversations += [(options, messages if refused else [*messages, turn], tools) for _, turn in answers]
            plans.append((pair, len(prompts) - 1, mode, (answers[0][0], answers[1][0])))
        prompt_texts, texts = self._render_many(prompts, True), self._render_many(conversations, False)
        return [
            self._rendered_pair(pair, mode, answers, prompt_texts[index], texts[2 * number : 2 * number + 2])
            for number, (pair, index, mode, answers) in enumerate(plans)
        ]

    def _messages(self, pair):
        """The messages of a pair's prompt as the template takes them, or why it takes none."""
        try:
            return self.with_system_turn(pair.prompt)
        except WorkbenchError as error:  # one row is refused with it, the others go on
            return error

    def _render_many(self, requests, add_generation_prompt):
        """The text of every (options, messages, tools), or what the template raised for it.

        An error in place of the messages is returned as it is.
        """
        texts, groups = [None] * len(requests), {}
        for number, (options, messages, tools) in enumerate(requests):
            if isinstance(messages, Exception):
                texts[number] = messages
                continue
            ordinary = tools is None and all(map(is_plain, messages))
            groups.setdefault((id(options), ordinary), []).append(number)
            if not ordinary:
                try:
                    texts[number] = self._rendered(messages, add_generation_prompt, options, tools)
                except MemoryError:
                    raise
                except Exception as error:  # a template can raise anything; the pair is refused with it
                    texts[number] = error
        for (_, ordinary), numbers in groups.items():
            if ordinary:
                options = requests[numbers[0]][0]
                some = [requests[number][1] for number in numbers]
                rendered = render_all(self._tokenizer, some, add_generation_prompt, options, self._frozen())
                for number, text in zip(numbers, rendered, strict=True):
                    texts[number] = text
        return texts

    def _answer(self, text, turn):
        """(the Answer, the turn that the template gets) of one side of a pair."""
        if turn is None:
            if not (self.tags and mismatch.thinks(text, self.tags)):
                return Answer(text, text), {"role": "assistant", "content": text}
            return self._thinking_answer(text)
        reasoning, calls = reasoning_of(turn), call_texts(turn)
        (turn,) = self.forms.turns([{"role": "assistant", "content": "", **turn}])
        text = turn["content"] or ""
        if not reasoning or not self.tags:
            thinks = bool(self.tags) and mismatch.thinks(text, self.tags)
            return Answer(text, text, thinks, reasoning, calls), turn
        completed = f"{self.tags[0]}\n{reasoning.strip()}\n{self.tags[1]}\n\n{text}"
        if self.forms.reasoning_key is None:
            return Answer(completed, completed, True, calls=calls, note=mismatch.KEPT), {**turn, "content": completed}
        return Answer(text, completed, True, reasoning, calls), turn

    def _thinking_answer(self, text):
        """(the Answer, the turn) of a text with thinking of its own."""
        rest = mismatch.without_empty_block(text, self.tags)
        if rest != text and (self.own.is_open or self.tags[1] in self.plain.lead + self.plain.thinking):
            return Answer(text, rest, note=mismatch.RESHAPED), {"role": "assistant", "content": rest}
        completed, note = text, ""
        if self.own.is_open and not text.lstrip().startswith(self.tags[0]):
            completed, note = self.own.thinking + text, mismatch.COMPLETED
        # without a closing tag there is no telling reasoning from answer: the field would close it for the user
        if self.tags[1] not in completed or not self.forms.splits_thinking(self.tags):
            return Answer(text, completed, True, note=note), {"role": "assistant", "content": completed}
        inside, _, content = completed.lstrip().removeprefix(self.tags[0]).partition(self.tags[1])
        turn = {"role": "assistant", "content": content.lstrip("\n"), self.forms.reasoning_key: inside.strip("\n")}
        return Answer(text, completed, True, note=mismatch.FIELD), turn

    def _rendered_pair(self, pair, mode, answers, prompt, conversations):
        error = next((text for text in (prompt, *conversations) if isinstance(text, Exception)), None)
        if error is not None:
            refusal = f"the chat template refuses the conversation: {first_line(error)[:200]}"
            return RenderedPair("", mode.bare, pair.chosen, pair.rejected, refusal=refusal)
        rendered = self._placer.place(mode, prompt, answers, conversations)
        kinds = self._placer.frames([pair.chosen, pair.rejected, *(turn["content"] or "" for turn in pair.prompt)])
        if pair.tools or pair.chosen_turn or pair.rejected_turn or not all(map(is_plain, pair.prompt)):
            kinds += self._ignored(pair, answers, rendered)
        return rendered._replace(kinds=(*rendered.kinds, *kinds)) if kinds else rendered

    def _ignored(self, pair, answers, rendered):
        """The (kind, text) of what the template does not write of tools, calls and reasoning."""
        kinds = []
        if pair.tools and not self.forms.takes_tools:
            kinds.append((mismatch.TOOLS, str(pair.tools[0].get("function", pair.tools[0]).get("name", ""))))
        calls = [text for turn in pair.prompt for text in call_texts(turn)]
        if calls and not (self.forms.takes_calls and holds_texts(rendered.prompt, calls)):
            kinds.append((mismatch.CALLS, next(name for turn in pair.prompt for name in tool_names(turn))))
        results = [turn["content"] or "" for turn in pair.prompt if turn["role"] == "tool"]
        if results and not self.forms.takes_results:
            kinds.append((mismatch.RESULTS, str(results[0])))
        for reasoning in filter(None, map(reasoning_of, pair.prompt)):
            if reasoning.strip() not in rendered.prompt:
                kinds.append((mismatch.EARLIER_REASONING, reasoning))
        for answer, body in zip(answers, (rendered.chosen, rendered.rejected), strict=True):
            if answer.reasoning and not answer.thinks and answer.reasoning.strip() not in body:
                kinds.append((mismatch.REASONING, answer.reasoning))
        return kinds

    def _rendered(self, messages, add_generation_prompt, options, tools=None, moment=None):
        template = self._frozen(tools, moment)
        given = {**options, **({"tools": tools} if tools else {}), **({"chat_template": template} if template else {})}
        return self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt, **given
        )

    def _frozen(self, tools=None, moment=None):
        """The template's text as of `values.now` or another moment; None for one that does not ask for the time."""
        text = self._tokenizer.get_chat_template(tools=tools)
        return at_moment(text, moment or self.values.now) if "strftime_now" in text else None

    def to_keep(self) -> dict:
        """What a run keeps of this template, for TemplateValues: the time only where the template writes it."""
        return (self.values if self.changes_with_the_day else replace(self.values, now=None)).to_json()

    @property
    def changes_with_the_day(self) -> bool:
        """Whether the template writes the date or the time."""
        first, second = (self._rendered([_USER_TURN], True, self._options, moment=moment) for moment in _MOMENTS)
        return first != second

    def _thinking_tags(self):
        text = self._tokenizer.get_chat_template()
        return next((tags for tags in mismatch.THINKING if tags[0] in text or tags[1] in text), None)

    def _renders_system_turn(self):
        messages = [{"role": "system", "content": PROBE}, _USER_TURN]
        try:
            return PROBE in self._rendered(messages, False, self._options)
        except Exception:  # Gemma's template raises its own error for a system turn
            return False

    def _mode(self, options) -> tuple[Mode, str]:
        """(the Mode of the template under these options, its text after an answer)."""
        asked = {"role": "user", "content": _ASKED}
        prompt = self.render([asked], options=options)
        conversation = self.render([asked, {"role": "assistant", "content": PROBE}], False, options)
        if PROBE not in conversation:
            raise WorkbenchError(
                "The chat template drops the assistant's answer, so nothing could be scored. Choose another with"
                " data.chat_template."
            )
        before, _, after = conversation.rpartition(PROBE)
        prompt_start, _, prompt_end = prompt.rpartition(_ASKED)
        same = before.startswith(prompt_start + _ASKED)
        return mode_of(options, prompt_end, before[len(prompt_start + _ASKED) :] if same else "", self.tags), after

    def _find_switch(self):
        """The options that make the generation prompt leave thinking, where it opens it and the user left it open."""
        if not self.own.is_open:
            return None
        for switch in SWITCHES:
            if not switch.keys() & self._options.keys():
                mode, _ = self._mode({**self._options, **switch})
                if not mode.is_open:
                    return switch
        return None

    def _find_next_turn(self):
        turns = [_USER_TURN, {"role": "assistant", "content": PROBE}, {"role": "user", "content": _AGAIN}]
        try:
            text = self._rendered(turns, False, self._options)
        except Exception:  # a template for one question and one answer
            return ""
        between = text.rpartition(PROBE)[2].partition(_AGAIN)[0]
        return between.partition(self.end_of_turn)[2] if self.end_of_turn and self.end_of_turn in between else between

    def _openers(self):
        """What the template writes in front of turns; only texts that nobody writes by hand."""
        texts = [self.next_turn, self.own.header.strip().removeprefix(self.end_of_turn)]
        for turn in ({"role": "system", "content": PROBE}, {"role": "user", "content": PROBE}):
            try:
                texts.append(self._rendered([turn, _USER_TURN][: 1 + (turn["role"] == "system")], False, self._options))
            except Exception:  # Gemma's template raises its own error for a system turn
                continue
            texts[-1] = texts[-1].partition(PROBE)[0] if PROBE in texts[-1] else ""
        begin = self._tokenizer.bos_token or ""
        texts = {text.strip() for text in texts} | {text.strip().removeprefix(begin).strip() for text in texts}
        return tuple(sorted(text for text in texts if len(text) > 2 and text != begin and set(text) & set("<[|｜")))


def _is_blank(content):
    return content is None or (isinstance(content, str) and not content.strip())
