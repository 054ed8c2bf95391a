"""Many conversations through one chat template: the same texts as `tokenizer.apply_chat_template` gives one by one, at
a fifth of its time.

Most of that time goes into building variables and a Jinja context anew for every conversation, and only the messages
differ.
"""

import inspect

from transformers import PreTrainedTokenizerBase

try:
    from transformers.utils.chat_template_utils import _compile_jinja_template
except ImportError:  # a private name: without it everything takes the ordinary way
    _compile_jinja_template = None


def render_all(tokenizer, conversations, add_generation_prompt, options) -> list[str]:
    """The text of every conversation, a list of {"role", "content"}. options: what else the template is given, such as
    enable_thinking.

    The first one is rendered both ways; where they differ, and where a tokenizer, an option or a message is anything
    but ordinary, all are rendered by the tokenizer. Errors: whatever the template raises.
    """
    ordinary = [
        tokenizer.apply_chat_template(
            conversations[:1], tokenize=False, add_generation_prompt=add_generation_prompt, **options
        )[0]
    ]
    if len(conversations) > 1 and _is_ordinary(tokenizer, conversations, options):
        texts = _with_one_context(tokenizer, conversations, add_generation_prompt, options)
        if texts[:1] == ordinary:
            return texts
    rest = conversations[1:]
    return ordinary + (
        tokenizer.apply_chat_template(rest, tokenize=False, add_generation_prompt=add_generation_prompt, **options)
        if rest
        else []
    )


def _is_ordinary(tokenizer, conversations, options):
    """Whether nothing has to be done to the template's input: transformers renames some keys and takes objects apart
    that a template must not touch.
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


def _with_one_context(tokenizer, conversations, add_generation_prompt, options):
    template = _compile_jinja_template(tokenizer.get_chat_template())  # in transformers' own sandbox
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
        texts.append("".join(template.root_render_func(context)))
        context.vars.clear()  # what a template sets at its top level must not be there for the next conversation
        context.exported_vars.clear()
    return texts
