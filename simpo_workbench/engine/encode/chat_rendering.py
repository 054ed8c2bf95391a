"""Many conversations through one chat template: the texts of `tokenizer.apply_chat_template` in a fifth of its time.

Most of that time goes into building variables and a Jinja context for every conversation, and only the messages differ.
"""

import inspect

from transformers import PreTrainedTokenizerBase

try:
    from transformers.utils.chat_template_utils import _compile_jinja_template
except ImportError:  # a private name: without it the tokenizer renders everything
    _compile_jinja_template = None


def render_all(tokenizer, conversations, add_generation_prompt: bool, options: dict) -> list[str]:
    """The text of every conversation, each a list of {"role", "content"}.

    options: what else the template is given, such as enable_thinking. The first conversation is rendered both ways;
    where the texts differ, and where a tokenizer, an option or a message is out of the ordinary, the tokenizer renders
    all of them. Errors: whatever the template raises.
    """

    def by_tokenizer(some):
        return tokenizer.apply_chat_template(
            some, tokenize=False, add_generation_prompt=add_generation_prompt, **options
        )

    first = by_tokenizer(conversations[:1])
    if len(conversations) == 1:
        return first
    if _is_ordinary(tokenizer, conversations, options):
        texts = _with_one_context(tokenizer, conversations, add_generation_prompt, options)
        if texts[:1] == first:
            return texts
    return first + by_tokenizer(conversations[1:])


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
        context.vars.clear()  # what a template sets at its top level must not reach the next conversation
        context.exported_vars.clear()
    return texts
