"""Many conversations through one chat template: the texts of `tokenizer.apply_chat_template` in a fifth of its time.

Most of that time goes into building variables and a Jinja context for every conversation, and only the messages differ.
"""

import inspect
from datetime import datetime

from transformers import PreTrainedTokenizerBase

try:
    from transformers.utils.chat_template_utils import _compile_jinja_template
except ImportError:  # a private name: without it the tokenizer renders everything
    _compile_jinja_template = None


def at_moment(template: str, moment: datetime) -> str:
    """A template text that writes the same as `template` would at that moment.

    transformers compiles each text once and gives it its own clock, so this text is one of its own: a comment is put in
    front. Without transformers' private function the clock cannot be changed, and the text is returned unchanged.
    """
    if _compile_jinja_template is None:
        return template
    frozen = f"{{# as of {moment.isoformat()} #}}\n{template}"  # Jinja removes a comment with its line break
    _compile_jinja_template(frozen).globals["strftime_now"] = moment.strftime
    return frozen


def render_all(
    tokenizer, conversations, add_generation_prompt: bool, options: dict, template: str | None = None
) -> list[str | Exception]:
    """The text of every conversation, each a list of {"role", "content"}, or what the template raised for it.

    options: what else the template is given, such as enable_thinking. template: taken instead of the tokenizer's. One
    conversation is rendered both ways; where the texts differ, and where a tokenizer, an option or a message is out of
    the ordinary, the tokenizer renders all.
    """
    given = options if template is None else {**options, "chat_template": template}

    def by_tokenizer(conversation):
        try:
            return tokenizer.apply_chat_template(
                [conversation], tokenize=False, add_generation_prompt=add_generation_prompt, **given
            )[0]
        except MemoryError:
            raise
        except Exception as error:  # a template can raise anything
            return error

    if len(conversations) > 1 and _is_ordinary(tokenizer, conversations, options):
        texts = _with_one_context(tokenizer, conversations, add_generation_prompt, options, template)
        rendered = next((index for index, text in enumerate(texts) if isinstance(text, str)), None)
        if rendered is not None and texts[rendered] == by_tokenizer(conversations[rendered]):
            return [
                text if isinstance(text, str) else by_tokenizer(conversation)
                for text, conversation in zip(texts, conversations, strict=True)
            ]
    return [by_tokenizer(conversation) for conversation in conversations]


def _is_ordinary(tokenizer, conversations, options):
    """Whether the template can be given its input as it is.

    transformers renames some keys, and replaces some objects that a template must not touch.
    """
    method = type(tokenizer).apply_chat_template
    return (
        _compile_jinja_template is not None
        and method is PreTrainedTokenizerBase.apply_chat_template
        and not set(options) & set(inspect.signature(method).parameters)
        and all(
            type(turn["content"]) is str and type(turn["role"]) is str and len(turn) == 2
            for turns in conversations
            for turn in turns
        )
    )


def _with_one_context(tokenizer, conversations, add_generation_prompt, options, template=None):
    template = _compile_jinja_template(template or tokenizer.get_chat_template())  # in transformers' own sandbox
    variables = {
        "tools": None,
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        **tokenizer.special_tokens_map,
        **options,
    }
    context = template.new_context({"messages": None, **variables})
    texts = []
    for messages in conversations:
        context.parent["messages"] = messages
        try:
            texts.append("".join(template.root_render_func(context)))
        except MemoryError:
            raise
        except Exception as error:  # a template can raise anything
            texts.append(error)
        context.vars.clear()  # what a template sets at its top level must not reach the next conversation
        context.exported_vars.clear()
    return texts
