"""What a chat template does to messages: the rendered prompt, the system turn, the texts around an answer."""

from dataclasses import dataclass

from ...base.errors import WorkbenchError, first_line
from ...config.run_config import DataConfig
from .chat_rendering import render_all
from .template_check import require_bounded_template

PROBE = "Zebra quartz"  # a text that no template contains by itself
_USER_TURN = {"role": "user", "content": "x"}


@dataclass(frozen=True)
class RenderedPair:
    """One pair as the template writes it: the prompt up to the first answer token, and both answers without their end.

    lead: the end of `prompt` that is not part of the generation prompt. lost: whether the template changed an answer so
    that it cannot be found in the conversation; the answers are then those of the data.
    """

    prompt: str
    lead: str
    chosen: str
    rejected: str
    lost: bool = False


class ChatTemplate:
    """The chat template of a tokenizer, with data.template_options and data.system_prompt.

    takes_system_turn: whether it renders system turns.
    answer_lead: text between the generation prompt and an answer, part of the prompt. Usually empty; an empty thinking
    block for some models, the assistant header where a template ignores add_generation_prompt.
    answer_space: white space there (Llama 2: "[/INST] Paris"). Part of the answer, because it merges into its first
    token.
    end_of_turn: text after an answer (<|im_end|>, <|eot_id|>, <end_of_turn>, </s> …), or empty.
    Errors: WorkbenchError when there is no template, or it cannot be used.
    """

    def __init__(self, tokenizer, data: DataConfig):
        if not tokenizer.chat_template:
            raise WorkbenchError(
                f"The model {tokenizer.name_or_path!r} brings no chat template, so the start and end of an answer are"
                " unknown. Give one with data.chat_template (a Jinja text or a file), or choose the model's instruct"
                " version."
            )
        require_bounded_template(tokenizer, data.template_options)
        self._tokenizer, self._options, self._system_prompt = tokenizer, data.template_options, data.system_prompt
        self.takes_system_turn = self._renders_system_turn()
        lead, self.end_of_turn = self._around_answer()
        self.answer_lead, self.answer_space = ("", lead) if lead.isspace() else (lead, "")

    def render(self, messages, add_generation_prompt=True) -> str:
        """The conversation as text. Errors: WorkbenchError with what the template raised."""
        try:
            return self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt, **self._options
            )
        # a template can raise anything, and Jinja's errors have no common base class worth naming
        except Exception as error:
            raise WorkbenchError(
                f"The chat template refused a conversation ({', '.join(m['role'] for m in messages)}):"
                f" {first_line(error)}."
            ) from None

    def prompt_text(self, messages) -> str:
        """The rendered prompt with the assistant header and `answer_lead`: an answer begins where it ends."""
        return self.render(self.with_system_turn(messages)) + self.answer_lead

    def with_system_turn(self, messages) -> list[dict]:
        """The messages with data.system_prompt as system turn where they have none.

        For a template without system turns the system text is put in front of the first user turn.
        """
        messages = [dict(message) for message in messages]
        if self._system_prompt and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self._system_prompt})
        if messages[0]["role"] == "system" and not self.takes_system_turn and len(messages) > 1:
            system = messages.pop(0)
            messages[0]["content"] = f"{system['content']}\n\n{messages[0]['content']}"
        return messages

    def render_pairs(self, pairs) -> list[RenderedPair]:
        """Every pair as text; a prompt shared by neighboring pairs is rendered once."""
        prompts, prompt_indices = [], []
        for index, pair in enumerate(pairs):
            if index == 0 or pair.prompt != pairs[index - 1].prompt:
                prompts.append(self.with_system_turn(pair.prompt))
            prompt_indices.append(len(prompts) - 1)
        conversations = [
            [*prompts[index], {"role": "assistant", "content": answer}]
            for index, pair in zip(prompt_indices, pairs, strict=True)
            for answer in (pair.chosen, pair.rejected)
        ]
        try:
            prompt_texts = render_all(self._tokenizer, prompts, True, self._options)
            texts = render_all(self._tokenizer, conversations, False, self._options)
        except Exception:  # rendered one by one, so that the error names the conversation
            prompt_texts = [self.render(prompt) for prompt in prompts]
            texts = [self.render(conversation, add_generation_prompt=False) for conversation in conversations]
        return [
            self._rendered_pair(pair, prompt_texts[index], with_chosen, with_rejected)
            for pair, index, with_chosen, with_rejected in zip(
                pairs, prompt_indices, texts[::2], texts[1::2], strict=True
            )
        ]

    def _rendered_pair(self, pair, prompt, with_chosen, with_rejected):
        """The RenderedPair of a prompt and of the conversations with either answer.

        Where an answer has a thinking block of its own, the template adds no empty one, so both answers of that pair
        begin right after the generation prompt.
        """
        for lead in dict.fromkeys((self.answer_lead, "")):
            start = prompt + lead
            if self.end_of_turn and with_chosen.startswith(start) and with_rejected.startswith(start):
                chosen = self._answer_in(with_chosen[len(start) :], pair.chosen)
                rejected = self._answer_in(with_rejected[len(start) :], pair.rejected)
                return RenderedPair(start, lead, chosen, rejected)
        lost = pair.chosen not in with_chosen or pair.rejected not in with_rejected
        return RenderedPair(prompt + self.answer_lead, self.answer_lead, pair.chosen, pair.rejected, lost)

    def _answer_in(self, rendered, answer):
        """The answer in the text after the prompt, without the template's white space and without end marks.

        There may be several end marks: the data may bring its own.
        """
        body = rendered.rpartition(self.end_of_turn)[0]
        while body.rstrip().endswith(self.end_of_turn):
            body = body.rstrip().removesuffix(self.end_of_turn)
        return answer if body == answer or (body.strip() == answer and answer) else body.strip()

    def _renders_system_turn(self):
        messages = [{"role": "system", "content": PROBE}, _USER_TURN]
        try:
            return PROBE in self._tokenizer.apply_chat_template(messages, tokenize=False, **self._options)
        except Exception:  # Gemma's template raises its own error for a system turn
            return False

    def _around_answer(self):
        """(lead, end): what the template puts between the generation prompt and an answer, and after an answer."""
        prompt = self.render([_USER_TURN])
        conversation = self.render([_USER_TURN, {"role": "assistant", "content": PROBE}], add_generation_prompt=False)
        if PROBE not in conversation:
            raise WorkbenchError(
                "The chat template drops the assistant's answer, so nothing could be scored. Choose another with"
                " data.chat_template."
            )
        before, _, after = conversation.rpartition(PROBE)
        return before.removeprefix(prompt) if before.startswith(prompt) else "", after.strip()
